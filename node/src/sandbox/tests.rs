//! What a locked thread can still do. Each test locks a thread of its own, for that is what the
//! kernel locks; the other threads of the test program stay as they are.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use super::*;

fn locked<T: Send>(then: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| s.spawn(then).join().unwrap())
}

fn denied(path: &str) {
    let found = fs::metadata(path).is_ok();
    let opened = fs::File::open(path).map(drop).map_err(|e| e.kind());
    assert!(!found || opened == Err(ErrorKind::PermissionDenied), "{path}: {opened:?}");
}

fn vm(target: &Path) -> VmFile {
    let text = format!(
        "[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"hardlink\"\nisolation = \"none\"\n\
         target = {target:?}\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

/// T108: also root opens nothing but its own folders, and what every program may read. Files go
/// from the store to the view by links, which needs the same rights at both.
#[test]
fn t108_files_outside_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["state", "vms", "run", "vm-2", "more"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("vm-2/secret"), "x").unwrap();
    fs::write(dir.path().join("vms/web-1.toml"), "").unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut config = NodeConfig {
        state: at("state"),
        vms: at("vms"),
        socket: at("run/sock"),
        ..NodeConfig::default()
    };
    config.sandbox.views = vec![at("more"), at("not there")];
    let vms = vec![vm(&at("vm-1/views/web-1"))];
    let needs = Needs { mounts: false, devices: false, vms };
    locked(|| {
        let (closed, views) = files::close(&config, &needs).unwrap();
        if !closed {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        }
        assert_eq!(views, [at("more"), at("vm-1/views")]);
        for path in ["/etc/shadow", "/etc/passwd", "/root", "/etc/ssh", "/var/log"] {
            denied(path);
        }
        denied(at("vm-2/secret").to_str().unwrap());
        denied(at("vm-1").to_str().unwrap());
        assert_eq!(fs::write(at("vm-1/x"), "").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(fs::write(at("vms/x"), "").unwrap_err().kind(), ErrorKind::PermissionDenied);
        fs::read(at("vms/web-1.toml")).unwrap();
        fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        fs::write(at("state/object"), "bytes").unwrap();
        fs::create_dir_all(at("vm-1/views/.new/bin")).unwrap();
        fs::hard_link(at("state/object"), at("vm-1/views/.new/bin/tool")).unwrap();
        fs::rename(at("vm-1/views/.new"), at("vm-1/views/web-1")).unwrap();
        std::os::unix::fs::symlink("tool", at("vm-1/views/web-1/bin/link")).unwrap();
        fs::remove_dir_all(at("vm-1/views/web-1")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("run/sock")).unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0");
        assert_eq!(other.unwrap_err().kind(), ErrorKind::PermissionDenied, "no metrics are wanted");
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    });
}

/// T108: no other program, no strange socket, no other root; threads can still be made.
#[test]
fn t108_calls_are_refused() {
    locked(|| {
        calls::refuse(calls::Who::Daemon).unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
        let program = std::process::Command::new("/bin/true").status();
        assert_eq!(program.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let raw = socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop);
        assert_eq!(raw, Err(Errno::PERM));
        socket(AddressFamily::INET6, SocketType::DGRAM, None).unwrap();
        assert_eq!(rustix::process::chroot("/"), Err(Errno::PERM));
        let at = rustix::fs::CWD;
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE;
        assert_eq!(rustix::mount::open_tree(at, "/tmp", flags).map(drop), Err(Errno::PERM));
        std::thread::spawn(|| ()).join().unwrap();
    });
}

/// T108: what is kept of root's capabilities is what owners of files need.
#[test]
fn t108_capabilities_are_dropped() {
    locked(|| {
        let root = !rights::effective().is_empty();
        let needs = |devices| Needs { mounts: true, devices, vms: Vec::new() };
        let kept = rights::keep(needs(false).capabilities(7749)).unwrap();
        assert_eq!(kept.is_empty(), !root, "{kept:?}");
        for gone in ["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "SETUID", "NET_BIND_SERVICE", "MKNOD"]
        {
            assert!(!kept.contains(&gone), "{kept:?}");
        }
        assert_eq!(rights::names(rights::effective()), kept);
        assert_eq!(
            rights::keep(needs(true).capabilities(443)).unwrap(),
            kept,
            "nothing comes back"
        );
    });
}

/// T109: the view helper has no network, and makes no socket of any kind.
#[test]
fn t109_the_view_helper_makes_no_socket() {
    locked(|| {
        if rights::effective().contains(CapabilitySet::SYS_ADMIN) {
            crate::view::no_network().unwrap();
            let cards = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert_eq!(cards.lines().skip(2).count(), 1, "nothing but a loopback: {cards}");
        } else {
            eprintln!("skipped: a network namespace needs root");
        }
        calls::refuse(calls::Who::Mounter).unwrap();
        for family in [AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX] {
            let made = socket(family, SocketType::DGRAM, None).map(drop);
            assert_eq!(made, Err(Errno::PERM), "{family:?}");
        }
        let program = std::process::Command::new("/bin/true").status();
        assert_eq!(program.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

/// A process that was not locked up refuses nothing by itself.
#[test]
fn nothing_is_refused_without_a_report() {
    assert_eq!(refuses(Backend::Tree, Path::new("/srv/a")), None);
    assert_eq!(report(), Report::default());
}
