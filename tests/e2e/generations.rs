//! When a VM is switched, and whether: windows, checks before, receipts, and private changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use stork_tests::fleet::{Fleet, Namespace, Package, VmFile, binary, report};
use stork_tests::wait::wait_until;

fn package(fleet: &Fleet, version: &str) -> Package {
    let path = format!("share/only-in-{version}");
    let bytes = format!("{version}\n");
    fleet.package("a", version, &[("share/version", bytes.as_bytes()), (&path, b"x")])
}

/// A VM with a window that never comes in this test keeps what it shows; what is new is ready
/// meanwhile, and shown at once when the operator says so, or when what it shows is withdrawn.
#[test]
fn a_switch_waits_for_its_time() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    let usual = VmFile::usual(&["web"], &host.target("vm")).text();
    host.write_vm_text("vm", &usual);
    fleet.push(&package(&fleet, "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    let text = format!("{usual}\n[switch]\nnot_before = 2100-01-01T00:00:00Z\n");
    host.write_vm_text("vm", &text);
    drop(host.tell(&["reload"]));
    fleet.push(&package(&fleet, "2"), &["web"]);
    wait_until("the set to be ready", || {
        host.tell(&["vm", "vm"])["waits"]["staged"] == serde_json::Value::Bool(true)
    });
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!(vm["waits"]["until"], 4_102_444_800_u64, "{vm}");
    host.await_vm("vm", &[("a", "1")]);
    let asked = host.tell(&["vm", "switch", "vm"]);
    assert_eq!((&asked["ordered"], &asked["waits"]["staged"]), (&false.into(), &true.into()));
    let ordered = host.tell(&["vm", "switch", "vm", "--now"]);
    assert_eq!(ordered["ordered"], true, "{ordered}");
    host.await_vm("vm", &[("a", "2")]);
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!((&vm["receipt"]["by"], &vm["waits"]), (&"now".into(), &serde_json::Value::Null));
    let again = host.tell(&["vm", "switch", "vm", "--now"]);
    assert_eq!(again["ordered"], false, "nothing waits any more: {again}");
    let holders = host.tell(&["vm", "holders", "vm"]);
    assert_eq!(holders["holders"]["processes"], serde_json::json!([]), "{holders}");
}

/// Two VMs that wait for a time show a release that is recalled. The one whose file says nothing
/// about it is switched at once; the one with `withdrawals = "wait"` keeps it until its time comes,
/// with the next one ready, and is switched when the operator says so.
#[test]
fn a_withdrawal_waits_where_the_file_says_so() {
    let fleet = Fleet::new(&["web"], 2);
    let (home, host) = (&fleet.hosts[0], &fleet.hosts[1]);
    let names = ["at-once", "patient"];
    let usual = |name| VmFile::usual(&["web"], &host.target(name)).text();
    names.iter().for_each(|name| host.write_vm_text(name, &usual(name)));
    fleet.push(&package(&fleet, "1"), &["web"]);
    names.iter().for_each(|name| host.await_vm(name, &[("a", "1")]));
    let later = "\n[switch]\nnot_before = 2100-01-01T00:00:00Z\n";
    host.write_vm_text("at-once", &(usual("at-once") + later));
    host.write_vm_text("patient", &format!("{}{later}withdrawals = \"wait\"\n", usual("patient")));
    drop(host.tell(&["reload"]));
    fleet.push(&package(&fleet, "2"), &["web"]);
    let staged = |name| host.tell(&["vm", name])["waits"]["staged"] == true;
    wait_until("both sets to be ready", || names.into_iter().all(staged));
    let mut recall = Command::new(binary("stork-publish"));
    recall.args(["recall", "a", "1", "--reason", "it is broken", "--json"]);
    recall.arg("--to").arg(format!("{}@{}", home.id(), home.addr()));
    let did = report(&recall.arg("--charter").arg(&fleet.charter).output().unwrap());
    assert_eq!(did["outcome"], "recalled", "{did}");
    host.await_vm("at-once", &[("a", "2")]);
    assert_eq!(host.tell(&["vm", "at-once"])["receipt"]["by"], "withdrawal");
    // The host has judged both by now.
    assert_eq!(host.release("a", "1").unwrap()["recalled"], "it is broken");
    let vm = host.tell(&["vm", "patient"]);
    assert_eq!((&vm["generation"], &vm["waits"]["staged"]), (&1.into(), &true.into()), "{vm}");
    assert_eq!(fs::read_to_string(host.seen("patient").join("share/version")).unwrap(), "1\n");
    drop(host.tell(&["vm", "switch", "patient", "--now"]));
    host.await_vm("patient", &[("a", "2")]);
    assert_eq!(host.tell(&["vm", "patient"])["receipt"]["by"], "now");
}

/// A set that fails the check is not shown, and not tried again; the reason stands with the VM. The
/// check sees the set as it was built, while the VM still shows the old one.
#[test]
fn a_check_comes_before_the_switch() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    let folder = fleet.folder("check");
    let (check, log) = (folder.join("check"), folder.join("log"));
    let script = format!(
        "#!/bin/sh\nread -r v < \"$STORK_SET_PATH/share/version\"\nread -r now < \
         \"$STORK_TARGET/share/version\"\necho \"$v over ${{now:-nothing}}\" >> {}\n\
         [ \"$v\" != 2 ] || {{ echo no good; exit 4; }}\n",
        log.display()
    );
    fs::write(&check, script).unwrap();
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
    let usual = VmFile::usual(&["web"], &host.target("vm")).text();
    let more = format!("\n[check]\nfiles = [\"/share/version\"]\ncommand = {check:?}\n");
    host.write_vm_text("vm", &(usual + &more));
    fleet.push(&package(&fleet, "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    fleet.push(&package(&fleet, "2"), &["web"]);
    wait_until("the check to fail", || host.counter("switches", "failed") == 1);
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!(vm["error"], "the check failed: exit 4: no good", "{vm}");
    assert_eq!(vm["generation"], 1, "{vm}");
    fleet.push(&package(&fleet, "3"), &["web"]);
    host.await_vm("vm", &[("a", "3")]);
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!((&vm["receipt"]["check"], &vm["receipt"]["by"]), (&"ok".into(), &"release".into()));
    let seen = fs::read_to_string(&log).unwrap();
    assert_eq!(seen, "1 over nothing\n2 over 1\n3 over 1\n");
}

/// An overlay view: the VM's changes go along, what they would hide is told as an event and by
/// `stork vm`, and a rollback brings back what the VM had then.
#[test]
fn private_changes_are_told() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).shown_as("overlay"));
    fleet.push(&package(&fleet, "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    let seen = host.seen("vm");
    fs::write(seen.join("share/version"), "mine").unwrap();
    fs::write(seen.join("own"), "own").unwrap();
    fleet.push(&package(&fleet, "2"), &["web"]);
    host.await_vm("vm", &[("a", "2")]);
    let read = |path: &str| fs::read_to_string(seen.join(path)).unwrap();
    assert_eq!((read("share/version"), read("own")), ("2\n".into(), "own".into()));
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!(vm["private"]["shadowed"][0]["path"], "share/version", "{vm}");
    assert_eq!(vm["receipt"]["shadowed"], 1, "{vm}");
    let events = host.tell(&["events"]).to_string();
    assert!(events.contains("view_shadowed"), "{events}");
    drop(host.tell(&["rollback", "vm"]));
    host.await_vm("vm", &[("a", "1")]);
    assert_eq!(read("share/version"), "mine");
    host.verify_store();
}

/// With `upper` the layers of an overlay are in a folder of the operator's choice, go along from
/// generation to generation there, and are found again after a restart. A folder that others may
/// write to is refused with a word about it.
#[test]
fn private_changes_may_lie_elsewhere() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let upper = fleet.folder("private").canonicalize().unwrap();
    let open = fleet.folder("open").canonicalize().unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let host = &fleet.hosts[1];
    let file = |vm: &str, upper: &std::path::Path| {
        let file = VmFile::usual(&["web"], &host.target(vm)).shown_as("overlay");
        file.view(&format!("upper = {upper:?}"))
    };
    host.write_vm("vm", &file("vm", &upper));
    host.write_vm("open", &file("open", &open));
    fleet.push(&package(&fleet, "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    wait_until("the other view to be refused", || {
        host.tell(&["vm", "open"])["error"].as_str().is_some_and(|e| e.contains("`upper`"))
    });
    fs::write(host.seen("vm").join("own"), "own").unwrap();
    let layers = || {
        let found = Command::new("find").arg(&upper).args(["-name", "own"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().count()
    };
    assert_eq!(layers(), 1);
    fleet.push(&package(&fleet, "2"), &["web"]);
    host.await_vm("vm", &[("a", "2")]);
    assert!(layers() >= 1);
    fleet.hosts[1].kill9();
    let host = fleet.hosts[1].start();
    host.await_vm("vm", &[("a", "2")]);
    assert_eq!(fs::read_to_string(host.seen("vm").join("own")).unwrap(), "own");
    let stored = Command::new("find").arg(host.dir.join("state/vms")).output().unwrap();
    let stored = String::from_utf8(stored.stdout).unwrap();
    assert!(!stored.contains("upper-"), "{stored}");
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    host.verify_store();
}
