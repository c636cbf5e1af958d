#!/bin/sh
# Boots a guest that mounts an image of a package set twice: as persistent memory with DAX, and as a
# disk. Prints what the guest saw, as lines `guest: NAME VALUE`, and ends with 0 if the guest read
# the same bytes as the host, kept none of them in its page cache with DAX, and could not write.
#
#   sh tests/guests/image.sh IMAGE
#
# Software emulation: no KVM is needed. Needs qemu-system-x86, and what initramfs.sh needs.
set -eu
image=$1
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/script" <<'GUEST'
cached() { awk '/^(Cached|Buffers):/ { n += $2 } END { print n }' /proc/meminfo; }
sums() { (cd "$1" && find . -type f | sort | xargs sha256sum | sha256sum | cut -d' ' -f1); }
reading() { # name, device, options
  mkdir -p "/mnt/$1"
  mount -t erofs -o "$3" "$2" "/mnt/$1" || { echo "guest: $1-mount failed"; return; }
  grep -q " /mnt/$1 " /proc/mounts && echo "guest: $1-mount $(grep " /mnt/$1 " /proc/mounts | cut -d' ' -f3,4 | tr ' ' ,)"
  sync; echo 3 >/proc/sys/vm/drop_caches
  before=$(cached)
  echo "guest: $1-sum $(sums "/mnt/$1")"
  echo "guest: $1-cache-kib $(($(cached) - before))"
  mount -o remount,rw "/mnt/$1" 2>/dev/null
  file=$(find "/mnt/$1" -type f | head -n 1)
  for try in "touch /mnt/$1/new" "mkdir /mnt/$1/new" "rm -f $file" "chmod 777 $file" \
    "truncate -s 0 $file" "mknod /mnt/$1/node b 254 0" "ln $file /mnt/$1/link"; do
    $try 2>/tmp/said && echo "guest: $1-did $try"
  done
  echo "guest: $1-write $(sed 's/.*: //' /tmp/said | head -n 1)"
}
reading pmem /dev/pmem0 ro,dax=always
reading disk /dev/vda ro
umount /mnt/pmem /mnt/disk
# The devices themselves: what the guest believes does not count, the host's file does.
dd if=/dev/zero of=/dev/vda bs=4096 count=4 2>/tmp/said && echo "guest: disk-did dd"
dd if=/dev/zero of=/dev/pmem0 bs=4096 count=4 conv=fsync 2>/dev/null
GUEST
sh "$here/initramfs.sh" "$folder" "$folder/script" \
  virtio_pci virtio_blk virtio_pmem nd_pmem erofs

size=$(stat -L -c %s "$image")
sum=$(sha256sum "$image" | cut -d' ' -f1)
# swiotlb=noforce: the guest needs no room for devices that reach only low memory.
timeout 400 qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 1 \
  -m 256M,slots=2,maxmem=16G -nodefaults -no-reboot -display none -serial stdio \
  -kernel "$folder/vmlinuz" -initrd "$folder/initramfs" \
  -append 'console=ttyS0 quiet panic=-1 swiotlb=noforce' \
  -object "memory-backend-file,id=set,share=on,readonly=on,mem-path=$image,size=$size" \
  -device virtio-pmem-pci,memdev=set \
  -drive "file=$image,format=raw,if=virtio,readonly=on" \
  </dev/null | tr -d '\r' | tee "$folder/output" | grep '^guest: ' || true

told() { sed -n "s/^guest: $1 //p" "$folder/output" | head -n 1; }
fail() { echo "error: $1" >&2; tail -n 20 "$folder/output" >&2; exit 1; }
[ -n "$(told pmem-sum)" ] || fail "the guest did not read the image by DAX"
[ "$(told pmem-sum)" = "$(told disk-sum)" ] || fail "memory and disk differ"
told pmem-mount | grep -q 'dax' || fail "the mount is without DAX"
[ "$(told pmem-cache-kib)" -lt 10240 ] || fail "the guest has the files in its own page cache"
grep -q '^guest: .*-did ' "$folder/output" && fail "the guest wrote"
[ "$(sha256sum "$image" | cut -d' ' -f1)" = "$sum" ] || fail "the image was changed"
echo "image: $size bytes, unchanged"
