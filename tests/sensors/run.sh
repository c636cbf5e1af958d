#!/bin/sh
# A rule set for sensors: published once, validated on every host by the program that will load it,
# reloaded without a gap, and taken back by itself where that program refuses it.
#
#     sh tests/sensors/run.sh [FOLDER WITH THE PROGRAMS]      default: target/debug
#
# The rule set is Debian's modsecurity-crs (the OWASP Core Rule Set); the sensors are web servers
# (nginx with ModSecurity), one in the VM of each host, on the loopback. Every line begins with the
# seconds since the fleet was up. docs/SENSORS.md is what it prints. It ends with 0 only if each step
# did what it should, and with 77 where a program that it needs is missing.
set -eu

bin=$(cd "${1:-target/debug}" && pwd)
hosts=${SENSORS_HOSTS:-3}
patience=${SENSORS_PATIENCE_S:-60}
cache=${STORK_DEB_CACHE:-${XDG_CACHE_HOME:-/var/tmp}/stork-tests/debs}
module=/usr/lib/nginx/modules/ngx_http_modsecurity_module.so

skip() { printf 'skipped: %s\n' "$*" >&2; exit 77; }
for p in nginx dpkg-deb curl; do command -v "$p" >/dev/null || skip "there is no $p"; done
[ -e "$module" ] || skip "nginx has no ModSecurity: apt-get install libnginx-mod-http-modsecurity"

dir=$(mktemp -d)
chmod 755 "$dir" # The web servers' workers read there as a user without rights.
pids=
end() {
  for n in $(seq 1 "$hosts"); do
    [ ! -s "$dir/h$n/nginx.pid" ] || kill "$(cat "$dir/h$n/nginx.pid")" 2>/dev/null || true
  done
  for p in $pids; do kill "$p" 2>/dev/null || true; done
  wait
  rm -rf "$dir"
}
trap end EXIT
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
publish() { # What it says is told where it fails.
  if ! "$bin/stork-publish" "$@" >"$dir/said" 2>&1; then cat "$dir/said" >&2; return 1; fi
}
await() { # WHAT COMMAND…: until the command succeeds
  what=$1; shift
  end=$(( $(date +%s) + patience ))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || fail "waited $patience s in vain for: $what"
    sleep 0.05
  done
}
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }
push() { # FILE: to the first host
  publish push "$1" --group sensors --charter "$dir/charter" --to "$id1@127.0.0.1:$((base + 1))"
}
code() { # HOST QUERY: what the web server of a host answers
  curl -s -o "$dir/out" -w '%{http_code}' --max-time 10 "http://127.0.0.1:$((web + $1))/?$2"
}
answers() { [ "$(code "$1" "$2")" = "$3" ]; }
all_answer() { # QUERY CODE
  for n in $(seq 1 "$hosts"); do await "host $n to answer $2 to ?$1" answers "$n" "$1" "$2"; done
}
heard() { ask "$1" events | grep -q "\"kind\":\"$2\""; }
attack='q=%3Cscript%3Ealert(1)%3C/script%3E'
probe='probe=stork'

# ----- The rule set as Debian has it, one with a rule more, and one that somebody broke.
mkdir -p "$cache" "$dir/debs"
deb=$(find "$cache" -name 'modsecurity-crs_*.deb' | sort | tail -n 1)
if [ -z "$deb" ]; then
  (cd "$cache" && apt-get download modsecurity-crs >/dev/null 2>&1) || skip "no modsecurity-crs"
  deb=$(find "$cache" -name 'modsecurity-crs_*.deb' | sort | tail -n 1)
fi
[ -n "$deb" ] || skip "apt-get brought no modsecurity-crs"
version=$(dpkg-deb -f "$deb" Version)
rules=usr/share/modsecurity-crs/rules
variant() { # SUFFIX RULE: the same package with a file of rules more
  dpkg-deb -R "$deb" "$dir/tree$1"
  sed -i "s/^Version: .*/Version: $version$1/" "$dir/tree$1/DEBIAN/control"
  printf '%s\n' "$2" >"$dir/tree$1/$rules/REQUEST-940-LOCAL.conf"
  dpkg-deb -b "$dir/tree$1" "$dir/debs/crs$1.deb" >/dev/null
}
variant +1broken 'SecRule ARGS:probe "@streq stork" "id:10001,phase:1,deny,stauts:403"'
variant +2 'SecRule ARGS:probe "@streq stork" "id:10001,phase:1,deny,status:403"'

# ----- The fleet: hosts with a VM each, and in it a web server that loads the rules of its view.
base=$(( 20000 + ($$ % 9000) ))
web=$(( base + 100 ))
publish charter init --dir "$dir/charter" --fleet lab --group sensors --publisher soc --no-passphrase
for n in $(seq 1 "$hosts"); do
  here=$dir/h$n
  mkdir -p "$here/vms" "$here/www" "$here/tmp"
  echo hello >"$here/www/index.html"
  cat >"$here/nginx.conf" <<CONF
load_module $module;
pid $here/nginx.pid;
error_log $here/nginx.log;
worker_processes 1;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path $here/tmp; proxy_temp_path $here/tmp; fastcgi_temp_path $here/tmp;
  uwsgi_temp_path $here/tmp; scgi_temp_path $here/tmp;
  server {
    listen 127.0.0.1:$((web + n));
    root $here/www;
    modsecurity on;
    modsecurity_rules 'SecRuleEngine On';
    modsecurity_rules_file $here/rules.conf;
  }
}
CONF
  cat >"$here/rules.conf" <<CONF
Include $here/view/etc/modsecurity/crs/crs-setup.conf
Include $here/view/$rules/*.conf
CONF
  cat >"$here/reload" <<HOOK
#!/bin/sh
# The program that will load the rules says whether it can. Then it is started, or loads them.
/usr/sbin/nginx -t -q -c $here/nginx.conf || exit 1
if [ -s $here/nginx.pid ]; then kill -HUP "\$(cat $here/nginx.pid)"
else /usr/sbin/nginx -c $here/nginx.conf; fi
HOOK
  chmod 755 "$here/reload"
  cat >"$here/vms/sensor.toml" <<VM
[vm]
groups = ["sensors"]
[[subscribe]]
package = "modsecurity-crs"
[[trust]]
allow = "soc"
[view]
backend = "hardlink"
isolation = "none"
target = "$here/view"
[hook]
command = "$here/reload"
timeout_s = 60
on_failure = "rollback"
VM
  if [ "$n" = 1 ]; then
    (node 1 init --name host-1 --charter "$dir/charter/charter.bundle" \
      --admission-key "$dir/charter/keys/admission" >/dev/null)
  else
    (node "$n" join "$(ask 1 token create --name "host-$n" | field token)" >/dev/null)
  fi
  eval "id$n=$(node "$n" id)"
  node "$n" run >"$here/log" 2>&1 & pids="$pids $!"
  await "host $n to answer" ask "$n" status
done
began=$(now)
say "$hosts hosts are up, each with a VM of the group sensors"

# ----- The rule set of the archive, unchanged.
push "$deb"
all_answer "$probe" 200
all_answer "$attack" 403
say "modsecurity-crs $version is published: every sensor has started with it and stops an attack"

# ----- A rule set that the program refuses.
push "$dir/debs/crs+1broken.deb"
for n in $(seq 1 "$hosts"); do await "host $n to go back" heard "$n" view_rolled_back; done
all_answer "$probe" 200
all_answer "$attack" 403
say "a broken one is published: nginx refuses it, every VM is back at $version, attacks are stopped"

# ----- A good one with a rule more.
push "$dir/debs/crs+2.deb"
all_answer "$probe" 403
all_answer "$attack" 403
say "one with a rule more is published: every sensor has loaded it and stops what it is about"
