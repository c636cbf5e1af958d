//! The view helper: what the daemon no longer can, what the helper cannot, and what happens when
//! one of them ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use stork_tests::fleet::{Fleet, Host, Namespace, Package, VmFile, binary};
use stork_tests::wait::{wait_for, wait_until};

use crate::sandbox::{USER, give, reachable, status};

/// Bits of capabilities, as capabilities(7) numbers them.
const SYS_ADMIN: u64 = 1 << 21;
const SYS_PTRACE: u64 = 1 << 19;
const NETWORK: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13;

fn rights(pid: u32) -> u64 {
    u64::from_str_radix(&status(pid, "CapEff:"), 16).unwrap()
}

/// The children of a process that are the view helper.
fn helpers(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let of = status.lines().find_map(|l| l.strip_prefix("PPid:"));
        of.is_some_and(|p| p.trim() == parent.to_string())
            && String::from_utf8_lossy(&read("cmdline")).contains("view-helper")
    };
    pids.filter(is).collect()
}

/// The process that works, once it is there and has shut itself in.
fn working(host: &Host) -> u32 {
    wait_for("the view helper", || {
        let above = helpers(host.pid()).pop()?;
        // One that was killed may go while it is looked at.
        let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status"));
        helpers(above).pop().filter(|pid| status(pid).is_ok_and(|s| s.contains("Seccomp:\t2\n")))
    })
}

fn gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

fn package(fleet: &Fleet, version: &str) -> Package {
    fleet.package("a", version, &[("share/a", version.as_bytes())])
}

fn shows(host: &Host, version: &str) {
    host.await_vm("vm", &[("a", version)]);
    assert_eq!(fs::read_to_string(host.seen("vm").join("share/a")).unwrap(), version);
}

/// T108, T109: where views are mounted, the daemon has no right to mount and its files are closed;
/// the process that mounts has no network. Killed, it hurts nobody: the VM goes on seeing what it
/// saw, and sees what comes next. It ends with the daemon, and the view stays.
#[test]
fn t109_the_view_helper_and_the_daemon_are_apart() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    fleet.push(&package(&fleet, "1"), &["web"]);
    let host = &fleet.hosts[1];
    shows(host, "1");
    let (daemon, helper) = (host.pid(), working(host));
    for pid in [daemon, helper] {
        assert_eq!((status(pid, "NoNewPrivs:"), status(pid, "Seccomp:")), ("1".into(), "2".into()));
        assert_eq!(rights(pid) & NETWORK, 0);
    }
    assert_eq!(rights(daemon) & (SYS_ADMIN | SYS_PTRACE), 0, "{:x}", rights(daemon));
    assert_ne!(rights(helper) & SYS_ADMIN, 0);
    let sandbox = host.tell(&["status"])["sandbox"].clone();
    assert_eq!((&sandbox["mounts"], &sandbox["view_helper"]), (&true.into(), &true.into()));
    let net = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net(helper), net(daemon), "a network of its own");
    let cards = fs::read_to_string(format!("/proc/{helper}/net/dev")).unwrap();
    assert_eq!(cards.lines().skip(2).count(), 1, "with nothing but a loopback: {cards}");
    let open = fs::read_dir(format!("/proc/{helper}/fd")).unwrap().flatten();
    let keys =
        open.filter_map(|e| fs::read_link(e.path()).ok()).filter(|p| p.ends_with("node.key"));
    assert_eq!(keys.count(), 0);

    let kill = |pid: u32| {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    };
    kill(helper);
    let again = wait_for("another helper", || Some(working(host)).filter(|p| *p != helper));
    assert_eq!(fs::read_to_string(host.seen("vm").join("share/a")).unwrap(), "1");
    fleet.push(&package(&fleet, "2"), &["web"]);
    let host = &mut fleet.hosts[1];
    shows(host, "2");

    let above = helpers(host.pid()).pop().unwrap();
    host.kill9();
    wait_until("the helper to end with the daemon", || gone(again) && gone(above));
    assert_eq!(fs::read_to_string(host.seen("vm").join("share/a")).unwrap(), "2");
    host.start();
    fleet.push(&package(&fleet, "3"), &["web"]);
    shows(&fleet.hosts[1], "3");
}

/// What others than root may write decides nothing about mounts, and the user is told.
#[test]
fn the_helper_believes_only_files_of_root() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 1);
    let host = &fleet.hosts[0];
    fs::set_permissions(host.dir.join("vms"), fs::Permissions::from_mode(0o777)).unwrap();
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    fleet.push(&package(&fleet, "1"), &["web"]);
    let said = || host.ask(&["vm", "vm"]).unwrap_or_default().to_string();
    wait_until("the file to be refused", || said().contains("others than root may change"));
    assert!(!host.seen("vm").join("share").exists());
}

/// A daemon that cannot start leaves nobody behind, although it starts its helper first.
#[test]
fn nothing_stays_of_a_daemon_that_does_not_start() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root mounts");
        return;
    }
    let fleet = Fleet::charter_only(&["web"], None);
    let mut host = fleet.stranger("host-9");
    host.spawn();
    let ended = wait_for("the daemon to end", || host.ended());
    assert_eq!(ended.code(), Some(78), "{}", host.log());
    let state = host.dir.join("state");
    let mentions = |file: PathBuf| {
        let words = fs::read(file.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(state.to_str().unwrap())
    };
    let left = || fs::read_dir("/proc").unwrap().flatten().any(|e| mentions(e.path()));
    wait_until("its children to end", || !left());
}

/// What systemd does for stork-views.socket and stork-hooks.socket: for each call, a process whose
/// standard input is the connection.
fn listen_like_systemd(folder: &Path, host: &Host, words: Vec<OsString>) {
    let views = folder.join("views");
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(&views).unwrap()).unwrap();
    listen(&socket, 4).unwrap();
    let hooks = UnixListener::bind(folder.join("hooks")).unwrap();
    for path in [views, folder.join("hooks")] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let (state, vms) = (host.dir.join("state"), host.dir.join("vms"));
    let start = move |role: &str, connection: OwnedFd, answers: Stdio| {
        let (program, args) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(args).arg("--state").arg(&state).arg("--vms").arg(&vms).arg(role);
        if role == "view-helper" {
            command.arg("--alone");
        }
        // It ends with the daemon, which is before this process ends.
        drop(command.stdin(connection).stdout(answers).spawn().unwrap());
    };
    let start = std::sync::Arc::new(start);
    let other = std::sync::Arc::clone(&start);
    std::thread::spawn(move || {
        while let Ok(connection) = accept(&socket) {
            start("view-helper", connection, Stdio::null());
        }
    });
    std::thread::spawn(move || {
        while let Ok((connection, _)) = hooks.accept() {
            let answers = Stdio::from(OwnedFd::from(connection.try_clone().unwrap()));
            other("hook-runner", connection.into(), answers);
        }
    });
}

/// T108: a daemon without any right, whose views are mounted by a helper that systemd starts. What
/// packages bring is shown as root's; what belongs to others is refused. Hooks run as root.
#[test]
fn t108_a_mounted_view_of_a_daemon_without_any_right() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let program = binary("stork-node");
    if !reachable(&program) {
        eprintln!("skipped: another user cannot run {}", program.display());
        return;
    }
    let mut fleet = Fleet::inside(namespace, &["web"], 1);
    let inside = fleet.namespace().unwrap().command(&program);
    let words: Vec<_> =
        [inside.get_program()].into_iter().chain(inside.get_args()).map(OsStr::to_owned).collect();
    let folder: PathBuf = fleet.folder("helpers");
    let mark = fleet.folder("mark");
    let hook = mark.join("hook");
    fs::write(&hook, format!("#!/bin/sh\nid -u > {}/$STORK_VM\n", mark.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let above = folder.parent().unwrap().to_owned();
    fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    let host = fleet.enlist();
    give(&host.dir);
    give(&folder);
    // The operator's, not the daemon's.
    chown(host.dir.join("vms"), Some(0), Some(0)).unwrap();
    listen_like_systemd(&folder, host, words);
    let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    let none = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--clear-groups"];
    host.start_by(&[&["setpriv", &uid, &gid][..], &none].concat());
    host.with_env("STORK_HELPERS", folder.to_str().unwrap());
    let file = VmFile::usual(&["web"], &host.target("vm")).mounted();
    host.write_vm("vm", &file.hook(&hook, "report"));
    let target = host.target("image");
    host.write_vm("image", &VmFile::usual(&["web"], &target).shown_as("composefs"));
    host.start();
    let daemon = host.pid();
    assert_eq!(status(daemon, "Uid:"), USER.to_string());
    assert_eq!((rights(daemon), status(daemon, "Seccomp:")), (0, "2".to_owned()));
    fleet.push(&package(&fleet, "1"), &["web"]);
    let host = fleet.hosts.last().unwrap();
    shows(host, "1");
    host.await_vm("image", &[("a", "1")]);
    for vm in ["vm", "image"] {
        let meta = fs::metadata(host.seen(vm).join("share/a")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{vm}");
    }
    wait_until("the hook to run", || mark.join("vm").exists());
    wait_until("the hook to write", || {
        fs::read_to_string(mark.join("vm")).is_ok_and(|said| said.trim() == "0")
    });
    fleet.push(&package(&fleet, "2"), &["web"]);
    shows(fleet.hosts.last().unwrap(), "2");
}
