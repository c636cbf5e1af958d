//! Many VMs on one host, and VMs whose host is cut off.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Host, VmFile, noise};

const VMS: usize = 200;

fn names() -> Vec<String> {
    (0..VMS).map(|i| format!("vm-{i}")).collect()
}

fn signal(host: &Host, what: Signal) {
    let pid = Pid::from_raw(host.pid().try_into().unwrap()).unwrap();
    kill_process(pid, what).unwrap();
}

fn open_files(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count()
}

/// T105: two hundred VMs subscribe to one release together: its bytes come once, and there is one
/// object of each file. Readers that are killed in the middle of a file leave nothing behind: once
/// no generation needs the old release, it is gone from the store.
#[test]
fn t105_two_hundred_vms_want_the_same() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    for vm in names() {
        let file = VmFile::new(&["web"], &host.target(&vm)).subscribe("app");
        host.write_vm(&vm, &file.trust("allow = \"acme\""));
    }
    let push = |name: &str, version: &str| {
        let large = noise(version, 2 << 20);
        let package = fleet.package(name, version, &[("large", &large)]);
        fleet.push(&package, &["web"]);
        package
    };
    push("app", "all");
    for vm in names() {
        host.await_vm(&vm, &[("app", "all")]);
    }
    let fetched = host.counter("bytes_fetched", "verified");
    assert!(fetched >= 2 << 20, "{fetched}");
    assert!(fetched < (2 << 20) + (64 << 10), "the content came once: {fetched}");
    assert_eq!(host.tell(&["store", "stat"])["objects"], 1);

    let before = open_files(host);
    let file = VmFile::new(&["web"], &host.target("reader")).subscribe("read");
    host.write_vm("reader", &file.trust("allow = \"acme\"").view("keep_generations = 2"));
    let one = push("read", "1");
    host.await_vm("reader", &[("read", "1")]);
    let large = host.target("reader").join("large");
    let mut readers: Vec<_> = (0..8)
        .map(|_| Command::new("cat").arg(&large).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for reader in &mut readers {
        // The pipe is smaller than the file: it is in the middle of it now.
        let mut some = [0; 10];
        reader.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    compare_with_folder(&host.target("reader"), &one.file);
    for version in ["2", "3"] {
        push("read", version);
        host.await_vm("reader", &[("read", version)]);
    }
    assert_eq!(host.tell(&["store", "gc"])["dry_run"], false);
    assert_eq!(host.tell(&["store", "stat"])["objects"], 3, "two generations are kept");
    assert!(open_files(host) <= before + 8, "{before} files were open, {}", open_files(host));
    host.verify_store();
}

/// T106: what a VM is shown does not hang on the network, nor on the daemon: with all other hosts
/// gone, and with the daemon of its own host stopped in its tracks, all of it is read as before.
#[test]
fn t106_reads_need_no_network_and_no_daemon() {
    let mut fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let bytes = noise("app", 1 << 20);
    let package = fleet.package("app", "1", &[("app", &bytes), ("etc/conf", b"a = 1")]);
    fleet.push(&package, &["web"]);
    fleet.hosts[1].await_vm("vm", &[("app", "1")]);
    fleet.hosts[0].kill9();
    let host = &fleet.hosts[1];
    compare_with_folder(&host.target("vm"), &package.file);
    signal(host, Signal::STOP);
    for _ in 0..100 {
        compare_with_folder(&host.target("vm"), &package.file);
    }
    signal(host, Signal::CONT);
    assert_eq!(host.vm_shows("vm")["app"], "1");
}
