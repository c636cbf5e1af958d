//! Two publishers in one group: whom a VM trusts, and packages that claim the same path.

use std::path::Path;

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Package, VmFile, report};
use stork_tests::forge::add_publisher;
use stork_tests::wait::wait_for;

fn fleet_with_two_publishers() -> (Fleet, std::path::PathBuf) {
    let mut fleet = Fleet::charter_only(&["web"], None);
    let globex = add_publisher(&fleet.charter, "globex");
    fleet.found();
    fleet.enlist().start();
    (fleet, globex)
}

fn push_as(fleet: &Fleet, charter: &Path, package: &Package) {
    let done = fleet.push_command_of(charter, 0, package, &["web"]).output().unwrap();
    assert_eq!(report(&done)["outcome"], "published");
}

/// Packages of two publishers fill one path differently. A VM that wants both keeps what it shows,
/// and `stork vm` names path and packages; VMs that want one of them go on. When one of the two no
/// longer has the path, the VM shows both by itself.
#[test]
fn a_conflict_is_named_and_holds_up_nobody_else() {
    let (fleet, globex) = fleet_with_two_publishers();
    let host = &fleet.hosts[1];
    let vm = |name: &str| VmFile::new(&["web"], &host.target(name)).subscribe("*");
    host.write_vm("both", &vm("both").trust("allow = \"*\""));
    host.write_vm("acme-only", &vm("acme-only").trust("allow = \"acme\""));
    host.write_vm("globex-only", &vm("globex-only").trust("allow = \"globex\""));
    let a = fleet.package("a", "1", &[("etc/shared.conf", b"acme"), ("lib/a", b"a")]);
    let b = fleet.package("b", "1", &[("etc/shared.conf", b"globex"), ("lib/b", b"b")]);
    fleet.push(&a, &["web"]);
    host.await_vm("both", &[("a", "1")]);
    push_as(&fleet, &globex, &b);

    let error = wait_for("the conflict to be reported", || {
        host.tell(&["vm", "both"])["error"].as_str().map(str::to_owned)
    });
    for part in ["`etc/shared.conf`", "a 1", "b 1", "they differ in content"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    host.await_vm("globex-only", &[("b", "1")]);
    compare_with_folder(&host.target("globex-only"), &b.file);
    for name in ["both", "acme-only"] {
        host.await_vm(name, &[("a", "1")]);
        compare_with_folder(&host.target(name), &a.file);
    }

    fleet.push(&fleet.package("a", "2", &[("lib/a", b"a2")]), &["web"]);
    host.await_vm("both", &[("a", "2"), ("b", "1")]);
    host.await_vm("acme-only", &[("a", "2")]);
    assert_eq!(host.tell(&["vm", "both"])["error"], serde_json::Value::Null);
    let shared = std::fs::read(host.target("both").join("etc/shared.conf")).unwrap();
    assert_eq!(shared, b"globex");
}

/// Two publishers have a package of the same name: the VM's first rule that allows one of them
/// decides, whatever the versions are, and `stork why` names rule and publisher.
#[test]
fn the_first_rule_chooses_between_publishers() {
    let (fleet, globex) = fleet_with_two_publishers();
    let host = &fleet.hosts[1];
    for (name, first, second) in [("a-first", "acme", "globex"), ("g-first", "globex", "acme")] {
        let file = VmFile::new(&["web"], &host.target(name)).subscribe("tool");
        let rules = [first, second].map(|p| format!("allow = \"{p}\""));
        host.write_vm(name, &rules.iter().fold(file, |file, rule| file.trust(rule)));
    }
    fleet.push(&fleet.package("tool", "1", &[("tool", b"of acme")]), &["web"]);
    host.await_vm("g-first", &[("tool", "1")]);
    let theirs = fleet.package("tool", "9", &[("tool", b"of globex")]);
    push_as(&fleet, &globex, &theirs);
    host.await_vm("g-first", &[("tool", "9")]);
    host.await_vm("a-first", &[("tool", "1")]);
    let why = host.tell(&["why", "a-first", "tool"]);
    let chosen = &why["considered"][0];
    assert_eq!(
        (&chosen["publisher"], &chosen["rule"]["number"], &chosen["chosen"]),
        (&"acme".into(), &1.into(), &true.into()),
        "{why}"
    );
}
