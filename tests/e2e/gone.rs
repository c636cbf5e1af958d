//! Who may be gone: the publisher at once, the origin as soon as all of its pieces are elsewhere.

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Package, VmFile, noise};
use stork_tests::wait::wait_until;

/// Bytes of the content: 64 MiB, or 1 GiB in long runs.
fn content_len() -> usize {
    let long = std::env::var_os("STORK_LONG").is_some();
    if long { 1024 * 1024 * 1024 } else { 64 * 1024 * 1024 }
}

/// An origin without VMs, and four hosts whose VMs want a large package, which was pushed a moment
/// ago by a process that has ended.
fn fleet_that_fetches() -> (Fleet, Package) {
    let fleet = Fleet::new(&["web"], 5);
    for host in &fleet.hosts[1..] {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
        let reloaded = host.tell(&["reload"]);
        assert_eq!(reloaded["vms"], 1, "{reloaded}");
    }
    let package = fleet.package("big", "1", &[("big.bin", &noise("big", content_len()))]);
    // The publisher is gone from here on: `push` returns when its process has ended.
    fleet.push(&package, &["web"]);
    (fleet, package)
}

fn all_finish(fleet: &Fleet, package: &Package) {
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("big", "1")]);
        compare_with_folder(&host.target("vm"), &package.file);
    }
}

/// Bytes that the hosts other than the origin have taken from it, checked and written.
fn taken_from_origin(fleet: &Fleet) -> u64 {
    let releases = fleet.hosts[1..].iter().filter_map(|h| h.release("big", "1"));
    let mut bytes = 0;
    for release in releases {
        for swarm in release["swarms"].as_array().unwrap() {
            let sources = swarm["from"].as_array().unwrap().iter();
            let from_origin = sources.filter(|s| s["host"] == "host-1");
            bytes += from_origin.filter_map(|s| s["bytes"].as_u64()).sum::<u64>();
        }
    }
    bytes
}

/// The origin is killed as soon as one other host has the content: the rest finish.
#[test]
fn origin_gone_when_one_other_host_has_the_content() {
    let (mut fleet, package) = fleet_that_fetches();
    wait_until("one host to have the content", || {
        let releases = fleet.hosts[1..].iter().filter_map(|h| h.release("big", "1"));
        releases.into_iter().any(|r| r["state"] == "whole" || r["state"] == "unpacking")
    });
    fleet.hosts[0].kill9();
    all_finish(&fleet, &package);
}

/// The origin is killed still earlier: when every piece has reached some other host, while no host
/// need have all of them. Together they have the content, and all finish.
#[test]
fn origin_gone_when_every_piece_was_injected() {
    let (mut fleet, package) = fleet_that_fetches();
    let full = fleet.hosts[0].release("big", "1").unwrap()["full_bytes"].as_u64().unwrap();
    wait_until("every piece to have left the origin", || taken_from_origin(&fleet) >= full);
    fleet.hosts[0].kill9();
    let sent = taken_from_origin(&fleet);
    all_finish(&fleet, &package);
    assert!(
        sent < full + full / 2,
        "the origin sent {sent} bytes of {full}: it sends each piece once"
    );
}
