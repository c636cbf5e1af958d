//! Origins: every host that had the content is gone for ever, and the others still get it from the
//! object store. What a store says is believed no more than what a host says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Host, Package, VmFile, noise, report};
use stork_tests::s3::{Fault, Faults, S3};
use stork_tests::wait::wait_until;

/// Bytes of the content: two packs, one of which goes in parts.
const LEN: usize = 48 * 1024 * 1024;

/// Hosts whose settings name an origin; the first one, which takes pushes, needs none.
fn fleet_with(hosts: usize, settings: &str) -> Fleet {
    let mut fleet = Fleet::new(&["web"], 1);
    for _ in 1..hosts {
        let host = fleet.enlist();
        host.configure(settings);
        host.start();
    }
    fleet
}

fn credentials(server: &S3, dir: &Path) -> PathBuf {
    let path = dir.join("origin.env");
    std::fs::write(&path, server.settings()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn push_with(
    fleet: &Fleet,
    package: &Package,
    origin: &str,
    credentials: Option<&Path>,
) -> Command {
    let mut command = fleet.push_command(0, package, &["web"]);
    command.args(["--origin", origin]);
    if let Some(path) = credentials {
        command.arg("--origin-credentials").arg(path);
    }
    command
}

fn knows(host: &Host, package: &str) -> bool {
    host.release(package, "1").is_some()
}

/// Waits until every other host has heard of the package, then ends the first one and removes all
/// that it ever had.
fn lose_the_seed(fleet: &mut Fleet, package: &str) {
    for host in &fleet.hosts[1..] {
        wait_until("the news to arrive", || knows(host, package));
    }
    fleet.hosts[0].kill9();
    std::fs::remove_dir_all(fleet.hosts[0].dir.join("state")).unwrap();
}

fn subscribe(fleet: &Fleet) {
    for host in &fleet.hosts[1..] {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
        assert_eq!(host.tell(&["reload"])["vms"], 1);
    }
}

fn events(host: &Host, kind: &str) -> Vec<String> {
    let all = host.tell(&["events"]);
    let all = all["events"].as_array().unwrap().iter().filter(|e| e["kind"] == kind);
    all.map(|e| e["text"].as_str().unwrap().to_owned()).collect()
}

fn counter(host: &Host, name: &str) -> u64 {
    let status = host.tell(&["status"]);
    let all = status["counters"].as_array().unwrap().iter().filter(|c| c["name"] == name);
    all.filter_map(|c| c["count"].as_u64()).sum()
}

/// A release goes to one node and a bucket. The node is lost with its disk before anybody has
/// fetched a byte. Three other hosts get the content, byte for byte; the bucket sends it about
/// once.
#[test]
fn all_seeds_gone() {
    let server = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let file = credentials(&server, dir.path());
    let address = server.address();
    let settings = format!("origin = \"{address}\"\norigin_credentials = \"{}\"\n", file.display());
    let mut fleet = fleet_with(4, &settings);
    let package = fleet.package("big", "1", &[("big.bin", &noise("origin", LEN))]);
    let done = report(&push_with(&fleet, &package, &address, Some(&file)).output().unwrap());
    let full = done["full_bytes"].as_u64().unwrap();
    assert!(done["origin"]["sent_bytes"].as_u64().unwrap() > full, "{done}");
    assert!(server.seen("partNumber") > 0 && server.open_uploads() == 0);
    lose_the_seed(&mut fleet, "big");

    subscribe(&fleet);
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("big", "1")]);
        compare_with_folder(&host.target("vm"), &package.file);
    }
    let sent = server.sent();
    assert!(sent < full + full / 4, "the bucket sent {sent} bytes of {full}");
    let counted: u64 = fleet.hosts[1..].iter().map(|h| counter(h, "bytes_from_origin")).sum();
    assert!(counted >= full && counted <= sent, "{counted} of {sent}");
    let told: Vec<String> =
        fleet.hosts[1..].iter().flat_map(|h| events(h, "origin_asked")).collect();
    assert!((1..=3).contains(&told.len()) && told[0].contains(&address), "{told:?}");
}

/// A bucket in which everything was changed, and then the truth: nothing wrong is shown, the object
/// is named, and what is right is taken after a restart.
#[test]
fn a_lying_origin() {
    let server = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let file = credentials(&server, dir.path());
    let address = server.address();
    let settings = format!("origin = \"{address}\"\norigin_credentials = \"{}\"\n", file.display());
    let mut fleet = fleet_with(2, &settings);
    let package = fleet.package("big", "1", &[("big.bin", &noise("lie", 300_000))]);
    let done = report(&push_with(&fleet, &package, &address, Some(&file)).output().unwrap());
    assert_eq!(done["origin"]["stored"], 2, "{done}");
    lose_the_seed(&mut fleet, "big");

    // First the manifest is another one, then a pack.
    for what in ["manifests", "packs"] {
        server.fail(Faults::of(Fault::Lie, what, usize::MAX));
        subscribe(&fleet);
        let host = &fleet.hosts[1];
        wait_until("the lie to be found", || !events(host, "origin_failed").is_empty());
        let said = events(host, "origin_failed").join("\n");
        assert!(said.contains(&address) && said.contains(&format!("stork/v1/{what}/")), "{said}");
        assert!(host.vm_shows("vm").is_empty());
        assert!(!host.target("vm").exists());
        fleet.hosts[1].restart();
    }
    server.fail(Faults::default());
    fleet.hosts[1].restart();
    fleet.hosts[1].await_vm("vm", &[("big", "1")]);
    compare_with_folder(&fleet.hosts[1].target("vm"), &package.file);
}

/// A folder that all hosts see, such as a network file system; and two nodes that take the push, of
/// which both are lost.
#[test]
fn a_folder_and_two_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file:{}", dir.path().display());
    let mut fleet = fleet_with(3, &format!("origin = \"{address}\"\n"));
    let package = fleet.package("small", "1", &[("a", b"one"), ("b/c", &noise("f", 90_000))]);
    let second = format!("{}@{}", fleet.hosts[1].id(), fleet.hosts[1].addr());
    let mut command = push_with(&fleet, &package, &address, None);
    let done = report(&command.args(["--to", &second]).output().unwrap());
    assert_eq!(done["nodes"].as_array().unwrap().len(), 2);
    let last = &fleet.hosts[2];
    wait_until("the news to arrive", || knows(last, "small"));
    for host in &mut fleet.hosts[..2] {
        host.kill9();
        std::fs::remove_dir_all(host.dir.join("state")).unwrap();
    }
    let host = &fleet.hosts[2];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    assert_eq!(host.tell(&["reload"])["vms"], 1);
    host.await_vm("vm", &[("small", "1")]);
    compare_with_folder(&host.target("vm"), &package.file);
}

/// Settings that cannot work are refused before anything starts, with what to do.
#[test]
fn bad_settings() {
    let fleet = Fleet::charter_only(&["web"], None);
    let host = fleet.stranger("host-1");
    let open = host.dir.join("open.env");
    std::fs::write(&open, "AWS_ACCESS_KEY_ID=x\n").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let credentials = format!("origin_credentials = \"{}\"\n", open.display());
    for (settings, says) in [
        ("origin = \"s3:/x\"\n".to_owned(), "write file:/DIR, s3://BUCKET/PREFIX"),
        (format!("origin = \"s3://fleet\"\n{credentials}"), "chmod 600"),
        (credentials, "without an origin"),
    ] {
        host.configure(&settings);
        let out = host.node(&["check-config"]);
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{settings}: {error}");
        assert!(error.contains(says) && error.contains("help:"), "{settings}: {error}");
    }
}
