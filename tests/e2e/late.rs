//! Hosts that come late, were away, were restarted, or whose VM files change.

use std::time::Duration;

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Package, VmFile, noise};
use stork_tests::wait::{wait_for, wait_until};

/// A small package with some files, different in each version.
fn package(fleet: &Fleet, name: &str, version: &str) -> Package {
    let bytes = noise(&format!("{name} {version}"), 200_000);
    let config = format!("share/{name}/version");
    let files = [(format!("lib/{name}.bin"), bytes), (config, version.as_bytes().to_vec())];
    let files: Vec<_> = files.iter().map(|(p, b)| (p.as_str(), b.as_slice())).collect();
    fleet.package(name, version, &files)
}

fn usual_vm(fleet: &Fleet, host: usize) {
    let host = &fleet.hosts[host];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
}

/// A host that joins after three publishes shows all three packages, and a host that was down
/// during three further publishes shows the newest of each when it is back.
#[test]
fn late_joiner_and_host_that_was_away() {
    let mut fleet = Fleet::new(&["web"], 2);
    usual_vm(&fleet, 1);
    for name in ["a", "b", "c"] {
        fleet.push(&package(&fleet, name, "1"), &["web"]);
    }
    fleet.enlist().start();
    usual_vm(&fleet, 2);
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("a", "1"), ("b", "1"), ("c", "1")]);
    }

    fleet.hosts[2].stop();
    let b3 = package(&fleet, "b", "3");
    for package in [&package(&fleet, "a", "2"), &package(&fleet, "b", "2"), &b3] {
        fleet.push(package, &["web"]);
    }
    fleet.hosts[1].await_vm("vm", &[("a", "2"), ("b", "3"), ("c", "1")]);
    fleet.hosts[2].start();
    fleet.hosts[2].await_vm("vm", &[("a", "2"), ("b", "3"), ("c", "1")]);
    let target = fleet.hosts[2].target("vm");
    assert_eq!(std::fs::read(target.join("share/b/version")).unwrap(), b"3");
    assert_eq!(std::fs::read(target.join("lib/b.bin")).unwrap(), noise("b 3", 200_000));
}

/// A restart keeps views and state: the same generation is shown, nothing is fetched again, and the
/// host takes part again.
#[test]
fn restart_keeps_views_and_state() {
    let mut fleet = Fleet::new(&["web"], 2);
    usual_vm(&fleet, 1);
    let one = package(&fleet, "a", "1");
    fleet.push(&one, &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "1")]);
    let before = fleet.hosts[1].tell(&["vm", "vm"]);
    let inode = |fleet: &Fleet| {
        let path = fleet.hosts[1].target("vm").join("lib/a.bin");
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
    };
    let file = inode(&fleet);
    fleet.hosts[1].stop();
    compare_with_folder(&fleet.hosts[1].target("vm"), &one.file);

    fleet.hosts[1].start();
    wait_until("the VM to be current again", || {
        fleet.hosts[1].ask(&["vm", "vm"]).is_some_and(|vm| vm["current"] == true)
    });
    let after = fleet.hosts[1].tell(&["vm", "vm"]);
    for key in ["generation", "shows", "generations"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(inode(&fleet), file);
    let status = fleet.hosts[1].tell(&["status"]);
    assert_eq!(status["bytes"]["fetched"], 0, "{status}");
    fleet.push(&package(&fleet, "a", "2"), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "2")]);
}

/// Changed VM files are taken over while the node runs: a pin goes back to the old version where an
/// operator permits it, a new subscription comes, a new VM comes. A broken file changes nothing and
/// is reported with its line.
#[test]
fn changed_vm_files_count_without_restart() {
    let mut fleet = Fleet::new(&["web"], 2);
    let operator = fleet.appoint(1);
    let host = &fleet.hosts[1];
    let only_a =
        || VmFile::new(&["web"], &host.target("vm")).subscribe("a").trust("allow = \"acme\"");
    host.write_vm("vm", &only_a());
    for (name, version) in [("a", "1"), ("b", "1"), ("a", "2")] {
        fleet.push(&package(&fleet, name, version), &["web"]);
    }
    host.await_vm("vm", &[("a", "2")]);
    host.write_vm("vm", &only_a().pin("a", "= 1"));
    host.permit("vm", "a=1", &operator);
    host.await_vm("vm", &[("a", "1")]);
    host.write_vm("vm", &only_a().subscribe("b"));
    host.await_vm("vm", &[("a", "2"), ("b", "1")]);
    host.write_vm("second", &VmFile::usual(&["web"], &host.target("second")));
    host.await_vm("second", &[("a", "2"), ("b", "1")]);

    host.write_vm_text("vm", &only_a().text().replace("target =", "traget ="));
    let bad = wait_for("the broken file to be reported", || {
        let status = host.ask(&["status"])?;
        status["bad_vm_files"].get(0).cloned()
    });
    assert!(bad["file"].as_str().unwrap().ends_with("vm.toml"), "{bad}");
    assert!(bad["message"].as_str().unwrap().contains("line"), "{bad}");
    assert_eq!(bad["help"], "did you mean `target`?");
    fleet.push(&package(&fleet, "b", "2"), &["web"]);
    host.await_vm("vm", &[("a", "2"), ("b", "2")]);
    host.write_vm("vm", &only_a());
    host.await_vm("vm", &[("a", "2")]);
    let status = host.tell(&["status"]);
    assert_eq!(status["bad_vm_files"], serde_json::json!([]), "{status}");
}

/// A release that is held stays as it is when a newer one comes, and goes on when the hold ends.
#[test]
fn a_hold_keeps_what_is_shown() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    let usual = || VmFile::usual(&["web"], &host.target("vm"));
    host.write_vm("vm", &usual());
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    host.write_vm("vm", &usual().hold("a", "audit"));
    let reloaded = host.tell(&["reload"]);
    assert_eq!(reloaded["vms"], 1, "{reloaded}");
    for (name, version) in [("a", "2"), ("b", "1")] {
        fleet.push(&package(&fleet, name, version), &["web"]);
    }
    // The package that came last is shown, so the one before it was considered as well.
    host.await_vm("vm", &[("a", "1"), ("b", "1")]);
    let why = host.tell(&["why", "vm", "a"]);
    let text = why.to_string();
    assert!(text.contains("the package is held: audit"), "{text}");
    host.write_vm("vm", &usual());
    host.await_vm("vm", &[("a", "2"), ("b", "1")]);
}

/// A package that was pushed while no host wanted it is fetched when the first VM asks for it, and
/// the time that takes is bounded by seconds, not by a timer of minutes.
#[test]
fn a_subscription_that_comes_late_is_fetched_at_once() {
    let fleet = Fleet::new(&["web", "db"], 3);
    fleet.push(&package(&fleet, "a", "1"), &["db"]);
    let host = &fleet.hosts[2];
    wait_until("the release to be known", || host.release("a", "1").is_some());
    assert_eq!(host.release("a", "1").unwrap()["fetched_bytes"], serde_json::Value::Null);
    host.write_vm("vm", &VmFile::usual(&["db"], &host.target("vm")));
    let begun = std::time::Instant::now();
    host.await_vm("vm", &[("a", "1")]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
