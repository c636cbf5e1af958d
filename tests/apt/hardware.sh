# The first process of a hardware guest: mounts the export as its root may, tries to change it, and tells
# which versions and generations it sees.
mount -t virtiofs stork /mnt && echo "MOUNTED"
try() { if "$@" 2>/dev/null; then echo "CHANGED $*"; else echo "refused $1"; fi; }
change() {
  try touch /mnt/new
  try sh -c 'echo x > /mnt/packages/share/a/version'
  try chmod 777 /mnt/packages/share/a/version
  try chown 1 /mnt/packages/share/a/version
  try ln /mnt/packages/share/a/version /mnt/packages/share/a/link
  try mv /mnt/packages/share/a/version /mnt/packages/share/a/moved
  try rm -f /mnt/packages/share/a/version
  try mknod /mnt/packages/share/a/node c 1 3
  try mkdir /mnt/packages/share/folder
}
change
mount -o remount,rw /mnt && echo "REMOUNTED"
change
last=
i=0
while [ $i -lt 600 ]; do
  now="$(cat /mnt/packages/share/a/version) $(cat /mnt/packages.generation)"
  [ "$now" = "$last" ] || echo "SAW $now"
  last=$now
  case $now in "3 "*) break ;; esac
  i=$((i + 1))
  usleep 100000
done
change
echo "DONE"
