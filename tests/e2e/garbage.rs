//! Garbage: what no VM needs goes, what a VM is shown or others may ask for stays.

use stork_tests::compare::{compare_with_folder, disk_usage};
use stork_tests::fleet::{Fleet, Package, VmFile, noise};

const MIB: usize = 1 << 20;

fn package(fleet: &Fleet, version: &str) -> Package {
    fleet.package("a", version, &[("lib/a.bin", &noise(version, MIB))])
}

/// Four versions were shown and two generations are kept: a collection removes the files of the
/// others, what is shown stays as it is, going back one generation still works, and a version that
/// was collected is fetched again when it is pinned.
#[test]
fn old_versions_are_collected() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    let file = VmFile::usual(&["web"], &host.target("vm")).view("keep_generations = 2");
    host.write_vm("vm", &file);
    let packages = ["1", "2", "3", "4"].map(|v| package(&fleet, v));
    for (package, version) in packages.iter().zip(["1", "2", "3", "4"]) {
        fleet.push(package, &["web"]);
        host.await_vm("vm", &[("a", version)]);
    }
    let objects = host.dir.join("state/objects");
    let before = disk_usage(&[&objects]);
    let would = host.tell(&["store", "gc", "--dry-run"]);
    assert_eq!(disk_usage(&[&objects]), before, "a dry run removes nothing");
    let done = host.tell(&["store", "gc"]);
    assert_eq!(would["objects"], done["objects"], "{would} {done}");
    let freed = before - disk_usage(&[&objects]);
    assert!(freed >= 2 * MIB as u64, "the files of versions 1 and 2 are still there: {done}");
    compare_with_folder(&host.target("vm"), &packages[3].file);
    host.verify_store();
    let back = host.tell(&["rollback", "vm"]);
    assert!(back["to"].is_number(), "{back}");
    host.await_vm("vm", &[("a", "3")]);
    compare_with_folder(&host.target("vm"), &packages[2].file);
    // What was collected and is wanted again is fetched again.
    host.write_vm("vm", &file.pin("a", "= 1"));
    host.await_vm("vm", &[("a", "1")]);
    compare_with_folder(&host.target("vm"), &packages[0].file);
}

/// A host to which a release was pushed keeps its packs through a collection, although it has no VM
/// that wants it: a host that comes later gets the content.
#[test]
fn an_origin_keeps_what_was_pushed_to_it() {
    let mut fleet = Fleet::new(&["web"], 1);
    let package = package(&fleet, "1");
    fleet.push(&package, &["web"]);
    let done = fleet.hosts[0].tell(&["store", "gc"]);
    assert_eq!((&done["packs"], &done["manifests"]), (&0.into(), &0.into()), "{done}");
    fleet.enlist().start();
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    host.await_vm("vm", &[("a", "1")]);
    compare_with_folder(&host.target("vm"), &package.file);
}
