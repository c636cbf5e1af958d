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

end_more() {
  for n in $(seq 1 "$hosts"); do
    [ ! -s "$dir/h$n/nginx.pid" ] || kill "$(cat "$dir/h$n/nginx.pid")" 2>/dev/null || true
  done
}
. "$(dirname "$0")/../story.sh"
chmod 755 "$dir" # The web servers' workers read there as a user without rights.

push() { # FILE: to the first host
  publish push "$1" --group sensors --charter "$dir/charter" --to "$(at 1)"
}
code() { # HOST QUERY: what the web server of a host answers
  curl -s -o "$dir/out" -w '%{http_code}' --max-time 10 "http://127.0.0.1:$((web + $1))/?$2"
}
answers() { [ "$(code "$1" "$2")" = "$3" ]; }
all_answer() { # QUERY CODE
  for n in $(seq 1 "$hosts"); do await "host $n to answer $2 to ?$1" answers "$n" "$1" "$2"; done
}
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
web=$(( base + 100 ))
publish charter init --dir "$dir/charter" --fleet lab --group sensors --publisher soc \
  --provides '*' --no-passphrase
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
  admit "$n"
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
