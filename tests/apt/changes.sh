# What a guest's root tries with its view below $M, and what it sees there; a part of a guest's script.
try() { if "$@" 2>/dev/null; then echo "CHANGED $*"; else echo "refused $1"; fi; }
change() {
  try touch "$M/new"
  try touch "$M/packages/new"
  try sh -c "echo x > $M/packages/share/a/version"
  try chmod 777 "$M/packages/share/a/version"
  try chown 1 "$M/packages/share/a/version"
  try ln "$M/packages/share/a/version" "$M/packages/share/a/link"
  try mv "$M/packages/share/a/version" "$M/packages/share/a/moved"
  try rm -f "$M/packages/share/a/version"
  try mknod "$M/packages/share/a/node" c 1 3
  try mkdir "$M/packages/share/folder"
}
change
mount -o remount,rw "$M" 2>/dev/null && echo "REMOUNTED the folder"
mount -o remount,bind,rw "$M" 2>/dev/null && echo "REMOUNTED the bind"
mount -o remount,bind,rw "$M/packages" 2>/dev/null && echo "REMOUNTED the view"
change
last=
i=0
while [ $i -lt ${LOOKS:-600} ]; do
  now="$(cat "$M/packages/share/a/version" 2>&1) $(cat "$M/packages.generation" 2>&1)"
  [ "$now" = "$last" ] || echo "SAW $now"
  last=$now
  case $now in "3 3") break ;; esac
  i=$((i + 1))
  sleep 0.1
done
change
echo "DONE"
