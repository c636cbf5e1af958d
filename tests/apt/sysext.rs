//! The backend `sysext`: systemd itself takes the view for a system extension.

use std::fs;

use stork_node::doctor::find_program;
use stork_tests::fleet::{Fleet, Namespace, VmFile};
use stork_tests::wait::wait_until;

use super::run;

/// A root of its own for systemd-sysext: `$1`, with the folder `$2` as the extension.
const SCRIPT: &str = r#"
set -eu
mount --make-rshared /
mkdir -p "$1/usr/lib" "$1/usr/share" "$1/var/lib/extensions/stork" "$1/etc" "$1/run"
printf 'ID=debian\nVERSION_ID=12\n' > "$1/usr/lib/os-release"
ln -s ../usr/lib/os-release "$1/etc/os-release"
mount --bind "$1" "$1"
mount --rbind "$2" "$1/var/lib/extensions/stork"
mount -t tmpfs tmpfs /run
export SYSTEMD_LOG_LEVEL=warning
systemd-sysext --root="$1" --no-pager --no-legend list
systemd-sysext --root="$1" merge
cat "$1/usr/share/a/version"
! touch "$1/usr/share/a/new" 2>/dev/null
systemd-sysext --root="$1" unmerge
! [ -e "$1/usr/share/a/version" ]
"#;

/// systemd lists the view as `stork`, merges it over a `/usr`, where nobody can write, and takes it
/// away again. A target with another name is refused with what to write.
#[test]
fn systemd_merges_the_view() {
    if find_program("systemd-sysext").is_none() {
        return eprintln!("skipped: there is no systemd-sysext");
    }
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    let target = host.target("vm/stork");
    host.write_vm("vm", &VmFile::usual(&["web"], &target).shown_as("sysext"));
    let wrong = VmFile::usual(&["web"], &host.target("wrong")).shown_as("sysext");
    host.write_vm("wrong", &wrong);
    fleet.push(&fleet.package("a", "1", &[("usr/share/a/version", b"1\n")]), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    let mut script = fleet.namespace().unwrap().command("unshare");
    script.args(["-m", "--propagation", "slave", "sh", "-c", SCRIPT, "root"]);
    script.arg(fleet.folder("root")).arg(&target);
    let said = String::from_utf8(run(&mut script).unwrap().stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("stork "), "{said}");
    assert_eq!(lines[1], "1", "{said}");
    wait_until("the reason for the wrong name", || {
        host.tell(&["events"]).to_string().contains("must end in `/stork`")
            || host.log().contains("must end in `/stork`")
    });
    let release = host.seen("vm/stork/usr/lib/extension-release.d/extension-release.stork");
    assert!(fs::read_to_string(release).unwrap().contains("ID=_any"));
    host.verify_store();
}
