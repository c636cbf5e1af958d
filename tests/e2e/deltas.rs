//! Deltas: who holds the old version fetches the difference, who does not the whole, and full packs
//! are still found when the origin is gone.

use stork_tests::compare::{compare_with_dpkg, compare_with_folder, disk_usage};
use stork_tests::debs::debs;
use stork_tests::fleet::{Fleet, Package, VmFile, noise};
use stork_tests::wait::wait_until;

const SSL: &str = "libssl3";

/// A host has fetched these bytes: at the end a few pieces may be asked of two hosts and come
/// twice.
fn about(release: &serde_json::Value, bytes: u64) {
    let fetched = release["fetched_bytes"].as_u64().unwrap();
    assert!(fetched >= bytes && fetched <= bytes + bytes / 4, "{fetched} of {bytes}: {release}");
}

/// Three hosts show an older `libssl3`; the newer one is published, which they fetch as a delta. A
/// host that never had the older one takes the full packs. Then the origin and that host are gone:
/// a newcomer finds the full packs with hosts that fetched the delta and packed the files again.
#[test]
fn holders_fetch_the_difference_and_keep_the_whole_for_newcomers() {
    let Some(debs) = debs() else { return };
    let [old, new] = &debs.ssl;
    let mut fleet = Fleet::new(&["web"], 5);
    let usual = |fleet: &Fleet, host: usize| {
        let host = &fleet.hosts[host];
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    };
    (1..4).for_each(|host| usual(&fleet, host));
    fleet.push(&Package::deb(&old.file), &["web"]);
    for host in &fleet.hosts[1..4] {
        host.await_vm("vm", &[(SSL, &old.version)]);
    }

    let report = fleet.push(&Package::deb(&new.file), &["web"]);
    let full = report["full_bytes"].as_u64().unwrap();
    let delta = report["delta_bytes"].as_u64().unwrap();
    assert!(delta < full / 2, "{report}");
    for host in &fleet.hosts[1..4] {
        host.await_vm("vm", &[(SSL, &new.version)]);
        let release = host.await_whole(SSL, &new.version);
        assert_eq!(release["fetched_as"], "delta", "{release}");
        about(&release, delta);
        compare_with_dpkg(&host.target("vm"), &[&new.file]);
    }
    usual(&fleet, 4);
    fleet.hosts[4].await_vm("vm", &[(SSL, &new.version)]);
    let release = fleet.hosts[4].await_whole(SSL, &new.version);
    assert_eq!(release["fetched_as"], "full", "{release}");
    about(&release, full);

    let same = |fleet: &Fleet| -> u64 {
        fleet.hosts[1..4].iter().map(|h| h.counter("repacks", "same")).sum()
    };
    wait_until("a keeper to have the full packs again", || same(&fleet) > 0);
    fleet.enlist();
    for gone in [0, 4] {
        fleet.hosts[gone].kill9();
    }
    usual(&fleet, 5);
    fleet.hosts[5].start().await_vm("vm", &[(SSL, &new.version)]);
    let release = fleet.hosts[5].await_whole(SSL, &new.version);
    assert_eq!(release["fetched_as"], "full", "{release}");
    compare_with_dpkg(&fleet.hosts[5].target("vm"), &[&new.file]);
}

/// An image that is mostly zeros, so that several of its packs are the same one, and its successor
/// with one more change. One host took the first in full and the second as delta. Then the origin
/// is gone, and that host is all that is left: a newcomer gets the whole image from it.
#[test]
fn the_last_holder_took_only_a_delta() {
    let mut fleet = Fleet::new(&["web"], 3);
    let image = |change: &str| {
        let mut bytes = vec![0; 100 << 20];
        bytes[..300_000].copy_from_slice(&noise("image", 300_000));
        // More than goes in one answer, so that it comes in pieces.
        bytes[70 << 20..][..60_000].copy_from_slice(&noise(change, 60_000));
        bytes
    };
    let [old, new] = ["1", "2"].map(|version| {
        let image = image(version);
        fleet.package("disk", version, &[("disk.img", &image), ("note", version.as_bytes())])
    });
    let usual = |fleet: &Fleet, host: usize| {
        let host = &fleet.hosts[host];
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    };
    usual(&fleet, 1);
    fleet.push(&old, &["web"]);
    fleet.hosts[1].await_vm("vm", &[("disk", "1")]);
    fleet.push(&new, &["web"]);
    fleet.hosts[1].await_vm("vm", &[("disk", "2")]);
    let release = fleet.hosts[1].await_whole("disk", "2");
    assert_eq!(release["fetched_as"], "delta", "{release}");
    compare_with_folder(&fleet.hosts[1].target("vm"), &new.file);
    let room = disk_usage(&[&fleet.hosts[1].target("vm")]);
    assert!(room < 8 << 20, "{room} bytes on disk");
    wait_until("the full packs to be made again", || fleet.hosts[1].counter("repacks", "same") > 0);
    fleet.hosts[0].kill9();
    usual(&fleet, 2);
    fleet.hosts[2].await_vm("vm", &[("disk", "2")]);
    let release = fleet.hosts[2].await_whole("disk", "2");
    assert_eq!(release["fetched_as"], "full", "{release}");
    compare_with_folder(&fleet.hosts[2].target("vm"), &new.file);
}
