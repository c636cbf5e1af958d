//! The daemon without privilege: as its unit starts it, what its unit says, and where keys are not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_publisher::keys::{Passphrase, read_secret};
use stork_tests::fleet::{Fleet, Host, VmFile, binary};
use stork_tests::wait::wait_until;

/// A user that no other program of this machine has.
pub(crate) const USER: u32 = 64_998;

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name);
    fs::read_to_string(path).unwrap()
}

/// Gives a folder and all that is in it to the user.
pub(crate) fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|e| give(&e.unwrap().path()));
    }
}

/// Can the user get there? What a test was built in may be in somebody's home.
pub(crate) fn reachable(path: &Path) -> bool {
    path.ancestors().all(|p| fs::metadata(p).is_ok_and(|m| m.mode() & 0o001 != 0))
}

/// A host that is started as the unit says: as another user, without any capability.
fn as_the_unit_says(fleet: &mut Fleet) -> Option<&mut Host> {
    let unit = unit("stork-node.service");
    for line in ["User=stork", "CapabilityBoundingSet=", "NoNewPrivileges=yes"] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    let program = binary("stork-node");
    if !rustix::process::geteuid().is_root() || !reachable(&program) {
        eprintln!("skipped: to become another user needs root, and programs that all may run");
        return None;
    }
    let above = fleet.folder("any").parent().unwrap().to_owned();
    fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    let host = fleet.enlist();
    give(&host.dir);
    let user = USER.to_string();
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let none = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--clear-groups"];
    host.start_by(&[&["setpriv", &uid, &gid][..], &none].concat());
    Some(host)
}

/// What the kernel says of the process.
pub(crate) fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// T108: the daemon has no right of root and shows a package. Its hook, which the operator wrote,
/// runs without what the daemon took away from itself. What it gave up is said, where it is wanted.
/// T111: nobody but root reads its memory, and no core dump is written.
#[test]
fn t108_the_daemon_as_its_unit_starts_it() {
    let mut fleet = Fleet::new(&["web"], 1);
    let outside = fleet.folder("outside");
    let hook = outside.join("hook");
    let mark = outside.join("mark");
    fs::create_dir(&mark).unwrap();
    fs::write(&hook, format!("#!/bin/sh\nid -u > {}/$STORK_VM\n", mark.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&mark, Some(USER), Some(USER)).unwrap();
    let Some(host) = as_the_unit_says(&mut fleet) else { return };
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).hook(&hook, "report"));
    host.start();
    let pid = host.pid();
    assert_eq!(status(pid, "Uid:"), USER.to_string());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, set), "0".repeat(16), "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    assert_eq!(status(pid, "Seccomp:"), "2");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0, "not dumpable");

    let host = &fleet.hosts[1];
    let sandbox = host.tell(&["status"])["sandbox"].clone();
    assert_eq!((&sandbox["enabled"], &sandbox["calls"]), (&true.into(), &true.into()), "{sandbox}");
    assert_eq!((&sandbox["uid"], &sandbox["mounts"]), (&USER.into(), &false.into()), "{sandbox}");
    fleet.push(&fleet.package("a", "1", &[("share/a", b"one\n")]), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    assert_eq!(fs::read(host.target("vm").join("share/a")).unwrap(), b"one\n");
    wait_until("the hook to run", || mark.join("vm").exists());
    assert_eq!(fs::read_to_string(mark.join("vm")).unwrap().trim(), USER.to_string());

    let failed = |vm: &str| host.ask(&["vm", vm]).unwrap_or_default().to_string();
    host.write_vm("mounted", &VmFile::usual(&["web"], &host.target("m")).mounted());
    wait_until("a mount to be refused", || failed("mounted").contains("no right to mount"));
    if sandbox["files"] == true {
        let other = outside.join("views/vm-2");
        host.write_vm("far", &VmFile::usual(&["web"], &other));
        wait_until("the target to be refused", || failed("far").contains("closed to itself"));
        assert!(!outside.join("views").exists());
    }
}

/// `[sandbox] enabled = false` leaves all as it is, and the status says so.
#[test]
fn the_sandbox_can_be_switched_off() {
    let mut fleet = Fleet::charter_only(&["web"], None);
    fleet.found();
    let host = &mut fleet.hosts[0];
    let sandbox = host.tell(&["status"])["sandbox"].clone();
    assert_eq!(sandbox["enabled"], true, "{sandbox}");
    host.configure("[sandbox]\nenabled = false\n");
    host.restart();
    let sandbox = host.tell(&["status"])["sandbox"].clone();
    assert_eq!((&sandbox["enabled"], &sandbox["calls"]), (&false.into(), &false.into()));
    assert!(host.log().contains("the sandbox is switched off"));
    assert_eq!(status(host.pid(), "Seccomp:"), "0");
    host.configure("[sandbox]\nenable = false\n");
    let out = host.node(&["run"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(error.contains("did you mean `enabled`?"), "{error}");
}

/// T110: `systemd-analyze` finds nothing wrong with the unit and gives it 2.0 at the most, also
/// where helpers mount; what it gives the view helper, and the daemon that starts its own, is what
/// the docs say.
#[test]
fn t110_the_unit_is_locked_up() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/systemd/system");
    let drop_in = etc.join("stork-node.service.d");
    let bin = dir.path().join("usr/local/bin");
    for folder in [&etc, &bin] {
        fs::create_dir_all(folder).unwrap();
    }
    for program in ["stork-node", "stork"] {
        fs::copy("/bin/true", bin.join(program)).unwrap();
    }
    let targets = ["sysinit", "basic", "shutdown", "network-online", "local-fs", "multi-user"];
    for target in targets.into_iter().chain(["sockets"]) {
        let text = "[Unit]\nDescription=A target of the machine\n";
        fs::write(etc.join(format!("{target}.target")), text).unwrap();
    }
    fs::write(etc.join("stork-node.service"), unit("stork-node.service")).unwrap();
    let root = format!("--root={}", dir.path().display());
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&root).arg("stork-node.service").env("SYSTEMD_LOG_LEVEL", "warning");
        command.output()
    };
    if let Err(e) = analyze(&["verify"]) {
        eprintln!("skipped: systemd-analyze cannot be run: {e}");
        return;
    }
    let check = |args: &[&str]| {
        let out = analyze(args).unwrap();
        let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        assert!(out.status.success(), "systemd-analyze {args:?}: {}", text.concat());
        text.concat()
    };
    let said = check(&["verify", "--man=no"]);
    assert!(!said.contains("stork-node.service:"), "{said}");
    check(&["security", "--offline=true", "--threshold=20"]);
    fs::create_dir(&drop_in).unwrap();
    fs::write(drop_in.join("helpers.conf"), unit("helpers.conf")).unwrap();
    for name in ["stork-views", "stork-hooks"].map(|n| [format!("{n}@"), n.to_owned()]).concat() {
        let kind = if name.ends_with('@') { "service" } else { "socket" };
        let file = format!("{name}.{kind}");
        fs::write(etc.join(&file), unit(&file)).unwrap();
    }
    let all = ["verify", "--man=no", "stork-views.socket", "stork-hooks.socket"];
    let said = check(&[&all[..], &["stork-views@1.service", "stork-hooks@1.service"]].concat());
    assert!(!said.contains("helpers.conf:") && !said.contains("stork-views"), "{said}");
    check(&["security", "--offline=true", "--threshold=20"]);
    let mut helper = Command::new("systemd-analyze");
    helper.args(["security", "--offline=true", "--threshold=55", "stork-views@1.service"]);
    let said = helper.arg(&root).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("5.3"), "docs/THREATS.md and deploy/README.md say 5.3: {said}");
    fs::remove_file(drop_in.join("helpers.conf")).unwrap();
    fs::write(drop_in.join("tree.conf"), unit("tree.conf")).unwrap();
    let said = check(&["verify", "--man=no"]);
    assert!(!said.contains("tree.conf:"), "{said}");
    let said = check(&["security", "--offline=true", "--threshold=60"]);
    assert!(said.contains("6.0"), "docs/THREATS.md and deploy/README.md say 6.0: {said}");
}

/// The ways in which the bytes of a secret could stand in a text.
fn forms(seed: &[u8; 32]) -> Vec<String> {
    let hex: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    let decimal: Vec<String> = seed.iter().take(8).map(u8::to_string).collect();
    vec![hex[..32].to_owned(), hex[..32].to_uppercase(), decimal.join(", ")]
}

/// Every private key below a folder.
fn secrets(folder: &Path) -> Vec<(PathBuf, Vec<String>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if path.is_dir() {
            found.extend(secrets(&path));
        } else if let Some(seed) = text.lines().find_map(|l| l.strip_prefix("seed ")) {
            let bytes: Vec<u8> =
                (0..32).map(|i| u8::from_str_radix(&seed[2 * i..2 * i + 2], 16).unwrap()).collect();
            found.push((path, forms(&bytes.try_into().unwrap())));
        } else if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key = read_secret(&path, &Passphrase::None).unwrap();
            let mut all = forms(&key.seed());
            all.extend(text.lines().skip(2).take(3).map(str::to_owned));
            found.push((path, all));
        }
    }
    found
}

/// T111: whatever joins, pushes and runs, and however much is logged, no key is in a log or in what
/// a command prints; files of keys are 0600.
#[test]
fn t111_no_key_in_any_log() {
    let mut fleet = Fleet::new(&["web"], 1);
    let mut said = String::new();
    fleet.hosts[0].with_env("STORK_LOG", "trace").restart();
    let token = fleet.token("host-2");
    let mut host = fleet.stranger("host-2");
    host.with_env("STORK_LOG", "trace");
    let mut keep = |out: std::process::Output| {
        assert!(out.status.success());
        said.push_str(&String::from_utf8_lossy(&out.stdout));
        said.push_str(&String::from_utf8_lossy(&out.stderr));
    };
    keep(host.node(&["join", &token]));
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    host.start();
    let package = fleet.package("a", "1", &[("share/a", b"one\n")]);
    keep(fleet.push_command(0, &package, &["web"]).output().unwrap());
    host.await_vm("vm", &[("a", "1")]);
    for args in [&["status"][..], &["peers"], &["release"], &["why", "vm", "a"]] {
        keep(host.stork(args));
    }
    host.stop();
    fleet.hosts[0].stop();
    let logs = [&host, &fleet.hosts[0]].map(|h| fs::read_to_string(h.dir.join("log")).unwrap());
    assert!(logs.iter().all(|l| l.contains("TRACE")), "the logs say all that they can");
    let mut keys = secrets(&fleet.charter);
    keys.extend(secrets(&fleet.hosts[0].dir.join("state")));
    keys.extend(secrets(&host.dir.join("state")));
    assert!(keys.len() >= 6, "{keys:?}");
    for (path, forms) in keys {
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
        for form in forms {
            let anywhere = logs.iter().chain([&said]).any(|text| text.contains(&form));
            assert!(!anywhere, "{} is told", path.display());
        }
    }
}
