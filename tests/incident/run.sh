#!/bin/sh
# An incident, played from its beginning to its end: a release key is stolen, junk is published with
# it, the junk is recalled, the key ended and then revoked, and the hosts recover by themselves.
#
#     sh tests/incident/run.sh [FOLDER WITH THE PROGRAMS]      default: target/debug
#
# Five hosts on the loopback, two VMs each. Every line begins with the seconds since the theft was
# noticed. docs/INCIDENT.md is what it prints. It ends with 0 only if each step did what it should.
set -eu

bin=$(cd "${1:-target/debug}" && pwd)
hosts=${INCIDENT_HOSTS:-5}
patience=${INCIDENT_PATIENCE_S:-60}
. "$(dirname "$0")/../story.sh"

shows() { [ "$(cat "$dir/h$1/view-$2/app")" = "app $3" ]; }
all_show() { # VERSION [HOSTS]
  for n in $(seq 1 "${2:-$hosts}"); do
    for v in 1 2; do await "host $n, vm-$v, to show app $1" shows "$n" "$v" "$1"; done
  done
}
all_heard() { for n in $(seq 1 "$hosts"); do await "host $n to hear of $1" heard "$n" "$1"; done; }
refused() { # WHAT WHY COMMAND…: it must fail for that reason, and its first line is told
  what=$1 why=$2; shift 2
  if "$@" >"$dir/out" 2>&1; then fail "$what went through"; fi
  grep -q "^error.*$why" "$dir/out" || fail "$what was refused for another reason: $(cat "$dir/out")"
  say "$what: $(grep -m1 '^error' "$dir/out")"
}
package() { mkdir -p "$dir/app-$1"; printf 'app %s\n' "$1" >"$dir/app-$1/app"; }
push() { # VERSION CHARTER HOST [MORE…]
  version=$1 charter=$2 n=$3; shift 3
  publish push "$dir/app-$version" --name app --version "$version" --arch all --group web \
    --charter "$charter" --to "$(at "$n")" "$@"
}

# ----- The fleet.
publish charter init --dir "$dir/charter" --fleet lab --group web --publisher acme --no-passphrase
for n in $(seq 1 "$hosts"); do
  mkdir -p "$dir/h$n/vms"
  for v in 1 2; do
    cat >"$dir/h$n/vms/vm-$v.toml" <<VM
[vm]
groups = ["web"]
[[subscribe]]
package = "*"
[[trust]]
allow = "acme"
[view]
backend = "hardlink"
isolation = "none"
target = "$dir/h$n/view-$v"
VM
  done
  admit "$n"
done
package 1.0
push 1.0 "$dir/charter" 1
all_show 1.0
good=$(ask 1 release app)
seq=$(echo "$good" | field seq)
hash=$(echo "$good" | field entry)
say "$hosts hosts with two VMs each show app 1.0, entry $seq of the feed"

# ----- The theft.
mkdir -p "$dir/thief"
cp -r "$dir/charter/charter.bundle" "$dir/charter/publisher.toml" "$dir/thief/"
mkdir "$dir/thief/keys"
cp "$dir/charter/keys/release" "$dir/thief/keys/"
package 6.6.6
stolen=$(now)
push 6.6.6 "$dir/thief" 3
all_show 6.6.6
say "a thief has the release key: every VM shows app 6.6.6, $(since "$stolen") s after his push"

# ----- It is noticed. The clock begins here.
began=$(now)
say "it is noticed; the root key is in a safe, the release key is at hand"
publish recall app 6.6.6 --charter "$dir/charter" --reason "not ours" --to "$(at 2)"
say "stork-publish recall app 6.6.6: sent to host 2"
all_show 1.0
say "every VM shows app 1.0 again"
publish key suicide "$dir/charter/keys/release" --charter "$dir/charter" --reason stolen --yes \
  --to "$(at 2)"
say "stork-publish key suicide: sent to host 2"
all_heard key_suicide
say "every host has heard of it"
package 6.6.7
refused "the thief pushes app 6.6.7" "has ended itself" push 6.6.7 "$dir/thief" "$hosts"
# ----- The root is fetched from the safe.
publish key generate --no-passphrase --out "$dir/release-2"
publish charter revoke "$dir/charter/keys/release.pub" --after "$seq" --hash "$hash" \
  --release-key "$dir/release-2.pub" --charter "$dir/charter" --to "$(at 1)" >/dev/null
say "stork-publish charter revoke: a new epoch begins after entry $seq, with another key"
package 1.1
push 1.1 "$dir/charter" 1 --key "$dir/release-2"
all_show 1.1
say "app 1.1 is published with the new key, and every VM shows it"

# ----- Nobody has visited a host. Who was away, and who comes later, is where the others are.
eval "kill -9 \$pid2"
start 2
await "host 2 to answer" ask 2 status
n=$((hosts + 1))
mkdir -p "$dir/h$n/vms"
for v in 1 2; do
  sed "s|$dir/h1/|$dir/h$n/|" "$dir/h1/vms/vm-$v.toml" >"$dir/h$n/vms/vm-$v.toml"
done
admit "$n"
all_show 1.1 "$n"
for n in 2 "$n"; do
  if ask "$n" release app | grep -q '6\.6\.'; then fail "host $n still knows the junk"; fi
done
say "a host that was killed and one that has joined since show app 1.1, and know no 6.6.6"
