# What the played stories share (`incident`, `sensors`): hosts on the loopback, what is asked of
# them, and waiting for it. Sourced by a story that has set `bin`, the folder of the programs, and
# `patience`, the seconds that it waits for anything.

dir=$(mktemp -d)
pids=
began=
base=$(( 20000 + ($$ % 900) * 10 )) # Host N, of nine at most, listens on the port base + N.
# A story with more to end has a function `end_more`.
end_story() {
  if command -v end_more >/dev/null; then end_more; fi
  for p in $pids; do kill "$p" 2>/dev/null || true; done
  wait
  rm -rf "$dir"
}
trap end_story EXIT
trap 'exit 130' INT TERM

fail() { # With what each host said last: by then the folder is gone.
  printf 'error: %s\n' "$*" >&2
  for log in "$dir"/h*/log "$dir"/h*/nginx.log; do
    [ ! -s "$log" ] || { printf -- '--- %s\n' "$log" >&2; tail -n 40 "$log" >&2; }
  done
  exit 1
}
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{ printf "%.2f", $1 - $2 }'; }
say() { printf '%7s s  %s\n' "$(since "$began")" "$*"; } # Seconds since `began`.
began=$(now)

node() { # HOST COMMAND…: the daemon's program for a host, in the place of this shell
  n=$1; shift
  exec "$bin/stork-node" --state "$dir/h$n/state" --vms "$dir/h$n/vms" --socket "$dir/h$n/sock" \
    --listen "127.0.0.1:$((base + n))" --min-free-bytes 1000000 "$@"
}
ask() { n=$1; shift; "$bin/stork" --socket "$dir/h$n/sock" --json "$@"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }
at() { eval "echo \$id$1@127.0.0.1:$((base + $1))"; } # Where publishers push to a host.
publish() { # What it says is told where it fails.
  if ! "$bin/stork-publish" "$@" >"$dir/said" 2>&1; then cat "$dir/said" >&2; return 1; fi
}
start() { node "$1" run >"$dir/h$1/log" 2>&1 & pids="$pids $!"; eval "pid$1=$!"; }
admit() { # HOST: it is part of the fleet of $dir/charter, and runs
  if [ "$1" = 1 ]; then
    (node 1 init --name host-1 --charter "$dir/charter/charter.bundle" \
      --admission-key "$dir/charter/keys/admission" >/dev/null)
  else
    (node "$1" join "$(ask 1 token create --name "host-$1" | field token)" >/dev/null)
  fi
  eval "id$1=$(node "$1" id)"
  start "$1"
  await "host $1 to answer" ask "$1" status
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
heard() { ask "$1" events | grep -q "\"kind\":\"$2\""; } # HOST KIND
