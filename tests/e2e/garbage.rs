//! Garbage: what no VM needs goes, what a VM is shown or others may ask for stays.

use stork_tests::compare::{compare_with_folder, disk_usage};
use stork_tests::fleet::{Fleet, Package, VmFile, binary, noise};

const MIB: usize = 1 << 20;

fn package(fleet: &Fleet, version: &str) -> Package {
    fleet.package("a", version, &[("lib/a.bin", &noise(version, MIB))])
}

/// Four versions were shown and two generations are kept: a collection removes the files of the
/// others, what is shown stays as it is, going back one generation still works, and a version that
/// was collected is fetched again when it is pinned, which an operator permits.
#[test]
fn old_versions_are_collected() {
    let mut fleet = Fleet::new(&["web"], 2);
    let operator = fleet.appoint(1);
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
    host.permit("vm", "a=1", &operator);
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

/// `stork store verify` on a terminal shows a bar on standard error, without colours where NO_COLOR
/// is set, and its result at the end; with `--json`, or where there is no terminal, no bar.
#[test]
fn verification_shows_a_bar_on_a_terminal_only() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    fleet.push(&fleet.package("a", "1", &[("a", &noise("a", 8 << 20))]), &["web"]);
    let quiet = host.stork(&["store", "verify"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    let stork =
        format!("{} --socket {}", binary("stork").display(), host.dir.join("sock").display());
    // Without colours, `script` is a terminal like any other.
    let on_a_terminal = |args: &str| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &format!("{stork} {args} store verify"), "/dev/null"]);
        let out = script.env("NO_COLOR", "1").env("TERM", "xterm").output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let shown = on_a_terminal("");
    assert!(shown.contains("hashing the store [") && shown.contains("0 damaged"), "{shown:?}");
    // A colour is `ESC [ … m`; a bar needs other letters only, to move and to erase.
    let letters = shown.split("\u{1b}[").skip(1);
    let mut letters = letters.filter_map(|s| s.chars().find(|c| c.is_alphabetic()));
    assert!(letters.all(|c| c != 'm'), "{shown:?}");
    let json = on_a_terminal("--json");
    let value: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(value["damaged"], serde_json::json!([]), "{json:?}");
}
