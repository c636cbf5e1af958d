#!/bin/sh
# What a VM that was installed by other means gives back: a Debian root made by debootstrap, the
# packages of which are published as well, and `stork vm share` on it.
#
#     sh tests/share/run.sh [FOLDER WITH THE PROGRAMS]      default: target/debug
#
# Needs root, debootstrap, mkfs.xfs and the network; everything lies on an xfs in a file. It prints
# one JSON object: what `stork vm share` found and did, and the bytes that xfs counts before and
# after. It ends with 77 where something that it needs is missing.
set -eu

bin=$(cd "${1:-target/debug}" && pwd)
patience=${SHARE_PATIENCE_S:-600}
skip() { printf 'skipped: %s\n' "$*" >&2; exit 77; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || skip "mounts need root"
for p in debootstrap mkfs.xfs; do command -v "$p" >/dev/null || skip "there is no $p"; done

# In a mount namespace of its own: what is mounted here ends with it.
if [ "${SHARE_INSIDE:-}" != 1 ]; then
  SHARE_INSIDE=1 exec unshare --mount --propagation private sh "$0" "$bin"
fi

dir=$(mktemp -d -p /var/tmp)
pid=
end() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  wait
  umount -R -l "$dir/disk" 2>/dev/null || true
  rm -rf "$dir"
}
trap end EXIT
trap 'exit 130' INT TERM

truncate -s 8G "$dir/disk.img"
mkfs.xfs -q "$dir/disk.img"
mkdir "$dir/disk"
mount -o loop "$dir/disk.img" "$dir/disk"
here=$dir/disk

printf 'making a root by debootstrap\n' >&2
debootstrap --variant=minbase --include=python3-minimal,perl bookworm "$here/root" \
  >"$dir/debootstrap.log" 2>&1 || { tail -n 3 "$dir/debootstrap.log" >&2; skip "no root"; }
mkdir "$here/debs"
find "$here/root/var/cache/apt/archives" -name '*.deb' -exec mv {} "$here/debs/" \;
sync
alone=$(df -B1 --output=used "$here" | tail -n 1)

node() { # In the place of this shell, so that its process is the program's.
  exec "$bin/stork-node" --state "$here/state" --vms "$here/vms" --socket "$here/sock" \
    --listen 127.0.0.1:0 --min-free-bytes 1000000 "$@"
}
ask() { "$bin/stork" --socket "$here/sock" --json "$@"; }
await() { # WHAT COMMAND…
  what=$1; shift
  end=$(( $(date +%s) + patience ))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || fail "waited $patience s in vain for: $what"
    sleep 0.2
  done
}
mkdir "$here/vms"
cat >"$here/vms/vm.toml" <<VM
[vm]
groups = ["web"]
[[subscribe]]
package = "*"
[[trust]]
allow = "debian"
[view]
backend = "hardlink"
isolation = "none"
target = "$here/view"
privileged = ["*"]
VM
"$bin/stork-publish" charter init --dir "$dir/charter" --fleet lab --group web \
  --publisher debian --provides '*' --no-passphrase >/dev/null
(node init --name host --charter "$dir/charter/charter.bundle" \
  --admission-key "$dir/charter/keys/admission" >/dev/null)
node run >"$dir/node.log" 2>&1 & pid=$!
await "the node" ask status
at=$(ask status | sed -n 's/.*"listen":"\([^"]*\)".*/\1/p')
[ -n "$at" ] || at=$(sed -n 's/.*\(127\.0\.0\.1:[0-9]*\).*/\1/p' "$dir/node.log" | head -n 1)
id=$(node id)
count=0
for deb in "$here"/debs/*.deb; do
  "$bin/stork-publish" push "$deb" --group web --charter "$dir/charter" --to "$id@$at" \
    --json >"$dir/said" 2>&1 || { cat "$dir/said" >&2; fail "$deb was not published"; }
  count=$((count + 1))
  printf '\rpublished %s' "$count" >&2
done
printf '\n' >&2
whole() { [ "$(grep -c 'event="content_whole"' "$dir/node.log")" -ge "$count" ]; }
await "all $count packages to be unpacked" whole
sync
before=$(df -B1 --output=used "$here" | tail -n 1)
ask --timeout 600 vm share "$here/root" >"$dir/shared"
sync
after=$(df -B1 --output=used "$here" | tail -n 1)
printf '{"packages":%s,"root_bytes":%s,"with_store":%s,"after":%s,"share":%s}\n' \
  "$count" "$alone" "$before" "$after" "$(cat "$dir/shared")"
