# A Debian root for a guest, in a mount namespace of its own: "$1" is an empty folder, "$2" the folder
# above the view, "$3" what the root is made of. The root is an overlay over that, so that nothing of it
# changes; its only package source is the view.
set -eu
base=$1 views=$2 lower=$3
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
mount -t proc proc proc
mount --bind /dev dev
mkdir -p opt/stork
mount --rbind "$views" opt/stork
mount --make-rslave opt/stork
rm -rf etc/apt/sources.list etc/apt/sources.list.d var/lib/apt/lists var/cache/apt
mkdir -p etc/apt/sources.list.d var/lib/apt/lists/partial var/cache/apt/archives/partial tmp
chmod 1777 tmp
cp opt/stork/packages/stork.sources etc/apt/sources.list.d/
echo ready
exec sleep infinity
