#!/bin/sh
# Makes kernel and initial ramdisk of a test guest: Debian's cloud kernel, its static busybox, and
# the modules that are named, with all that these need.
#
#   sh tests/guests/initramfs.sh FOLDER SCRIPT MODULE...
#
# FOLDER gets `vmlinuz` and `initramfs`. SCRIPT runs in the guest when modules are loaded and /proc,
# /sys and /dev are there; what it prints comes out at the console, and when it ends the guest is
# switched off.
#
# Needs cpio, kmod, dpkg, and apt-get for the two packages, which are unpacked and not installed.
# They are kept in STORK_DEB_CACHE (/var/tmp/stork-tests), in the folder `kernel`.
set -eu
folder=$1 script=$2
shift 2
cache="${STORK_DEB_CACHE:-/var/tmp/stork-tests}/kernel"
mkdir -p "$cache" "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Unpacks the package of this name, from the cache or from the archive.
unpack() {
  ls "$cache/$1"_*.deb >/dev/null 2>&1 || (cd "$cache" && apt-get download -q "$1" >&2)
  for file in "$cache/$1"_*.deb; do dpkg-deb -x "$file" "$work/$1"; break; done
}

cached=$(cd "$cache" && ls | sed -n 's/^\(linux-image-.*-cloud-amd64\)_.*/\1/p' | head -n 1)
name=${cached:-$(apt-cache depends linux-image-cloud-amd64 |
  sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)}
[ -n "$name" ] || { echo "error: apt knows no linux-image-cloud-amd64" >&2; exit 1; }
unpack "$name"
unpack busybox-static
kernel="$work/$name"
version=$(ls "$kernel/lib/modules")
cp "$kernel/boot/vmlinuz-$version" "$folder/vmlinuz"
depmod -b "$kernel" "$version"

root="$work/root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/mnt" "$root/tmp" "$root/modules"
cp "$work/busybox-static/bin/busybox" "$root/bin/"
# Each after those that it needs; what is built in needs none.
for module in "$@"; do
  modprobe -d "$kernel" -S "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r path; do
  file=$(basename "$path")
  [ -e "$root/modules/$file" ] && continue
  cp "$path" "$root/modules/"
  echo "$file" >>"$root/modules/order"
done
cp "$script" "$root/script"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r file; do insmod "/modules/$file" || echo "no module $file"; done </modules/order
sh /script
poweroff -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$folder/initramfs"
