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
dir=$(mktemp -d)
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null || true; done; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{ printf "%.2f", $1 - $2 }'; }
began=$(now)
say() { printf '%7s s  %s\n' "$(since "$began")" "$*"; }

node() { # HOST COMMAND…: the daemon's program for a host, in the place of this shell
  n=$1; shift
  exec "$bin/stork-node" --state "$dir/h$n/state" --vms "$dir/h$n/vms" --socket "$dir/h$n/sock" \
    --listen "127.0.0.1:$((base + n))" --min-free-bytes 1000000 "$@"
}
ask() { n=$1; shift; "$bin/stork" --socket "$dir/h$n/sock" --json "$@"; }
start() { node "$1" run >"$dir/h$1/log" 2>&1 & pids="$pids $!"; eval "pid$1=$!"; }
publish() { # What it says is told where it fails.
  if ! "$bin/stork-publish" "$@" >"$dir/said" 2>&1; then cat "$dir/said" >&2; return 1; fi
}

# Waits until a command succeeds; says on what it waited in vain.
await() {
  what=$1; shift
  end=$(( $(date +%s) + patience ))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || fail "waited $patience s in vain for: $what"
    sleep 0.05
  done
}
shows() { [ "$(cat "$dir/h$1/view-$2/app")" = "app $3" ]; }
all_show() { # VERSION [HOSTS]
  for n in $(seq 1 "${2:-$hosts}"); do
    for v in 1 2; do await "host $n, vm-$v, to show app $1" shows "$n" "$v" "$1"; done
  done
}
heard() { ask "$1" events | grep -q "\"kind\":\"$2\""; }
all_heard() { for n in $(seq 1 "$hosts"); do await "host $n to hear of $1" heard "$n" "$1"; done; }
refused() { # WHAT COMMAND…: it must fail, and its first line is told
  what=$1; shift
  if "$@" >"$dir/out" 2>&1; then fail "$what went through"; fi
  say "$what: $(grep -m1 '^error' "$dir/out")"
}
package() { mkdir -p "$dir/app-$1"; printf 'app %s\n' "$1" >"$dir/app-$1/app"; }
push() { # VERSION CHARTER HOST [MORE…]
  version=$1 charter=$2 n=$3; shift 3
  publish push "$dir/app-$version" --name app --version "$version" --arch all --group web \
    --charter "$charter" --to "$(at "$n")" "$@"
}
at() { eval "echo \$id$1@127.0.0.1:$((base + $1))"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }

# ----- The fleet.
base=$(( 20000 + ($$ % 9000) ))
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
  if [ "$n" = 1 ]; then
    (node 1 init --name host-1 --charter "$dir/charter/charter.bundle" \
      --admission-key "$dir/charter/keys/admission" >/dev/null)
  else
    (node "$n" join "$(ask 1 token create --name "host-$n" | field token)" >/dev/null)
  fi
  eval "id$n=$(node "$n" id)"
  start "$n"
  await "host $n to answer" ask "$n" status
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
refused "the thief pushes app 6.6.7" push 6.6.7 "$dir/thief" 4
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
(node "$n" join "$(ask 1 token create --name "host-$n" | field token)" >/dev/null)
start "$n"
await "host $n to answer" ask "$n" status
all_show 1.1 "$n"
for n in 2 "$n"; do
  if ask "$n" release app | grep -q '6\.6\.'; then fail "host $n still knows the junk"; fi
done
say "a host that was killed and one that has joined since show app 1.1, and know no 6.6.6"
