//! A VM's own policy with real nodes: going back, who must agree, and what explains it.

use std::path::Path;
use std::process::{Command, Output};

use stork_tests::fleet::{Fleet, Host, Package, VmFile, binary, report};
use stork_tests::forge::add_publisher;
use stork_tests::wait::wait_for;

fn package(fleet: &Fleet, name: &str, version: &str) -> Package {
    fleet.package(name, version, &[(&format!("lib/{name}"), version.as_bytes())])
}

/// `stork`, as people see it.
fn stork(host: &Host, args: &[&str]) -> Output {
    let mut command = Command::new(binary("stork"));
    command.arg("--socket").arg(host.dir.join("sock")).args(args).output().unwrap()
}

fn said(out: &Output) -> String {
    let (a, b) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    format!("{a}{b}")
}

/// `stork permit create` for a release that the VM is to go back to.
fn permit(host: &Host, vm: &str, release: &str, key: &Path) -> Output {
    stork(host, &["permit", "create", vm, release, "--key", key.to_str().unwrap()])
}

/// T017 and T019 on a real node: a pin of an older release changes nothing, and `stork why` says
/// why and what to do. A permit by somebody else, for another VM or another release does not help;
/// the right one does, also where it was made elsewhere and is given to the daemon as a file, and
/// it is kept over a restart.
#[test]
fn t017_t019_going_back_needs_a_permit() {
    let mut fleet = Fleet::new(&["web"], 1);
    let operator = fleet.appoint(0);
    let stranger = fleet.folder("charter/keys").join("release");
    let host = &fleet.hosts[0];
    let usual = || VmFile::usual(&["web"], &host.target("vm"));
    host.write_vm("vm", &usual());
    for version in ["1", "2", "3"] {
        fleet.push(&package(&fleet, "a", version), &["web"]);
    }
    host.await_vm("vm", &[("a", "3")]);
    host.write_vm("vm", &usual().pin("a", "= 1"));
    let why = wait_for("the pin to be known", || {
        let why = said(&stork(host, &["why", "vm", "a"]));
        why.contains("3 is kept").then_some(why)
    });
    assert!(why.contains("going back needs a permit"), "{why}");
    assert!(why.contains("help: an operator lets it: `stork permit create vm a=1"), "{why}");

    let refused = permit(host, "vm", "a=1", &stranger);
    assert_eq!(refused.status.code(), Some(7), "{}", said(&refused));
    assert!(said(&refused).contains("no operator of this host has signed it"), "{refused:?}");
    assert!(!permit(host, "other", "a=1", &operator).status.success());
    let unknown = permit(host, "vm", "a=9", &operator);
    assert_eq!(unknown.status.code(), Some(5), "{}", said(&unknown));
    assert!(permit(host, "vm", "a=2", &operator).status.success());
    assert_eq!(host.tell(&["reload"])["vms"], 1);
    assert_eq!(host.vm_shows("vm")["a"], "3", "another release was permitted");

    let key = operator.to_str().unwrap();
    let made = stork(host, &["permit", "create", "vm", "a=1", "--print", "--key", key]);
    let file = fleet.folder("carried").join("a.permit");
    std::fs::write(&file, &made.stdout).unwrap();
    let taken = stork(host, &["permit", "add", file.to_str().unwrap()]);
    assert!(said(&taken).starts_with("vm may go back to release 1 of a by acme"), "{taken:?}");
    host.await_vm("vm", &[("a", "1")]);
    fleet.hosts[0].restart();
    let host = &fleet.hosts[0];
    host.await_vm("vm", &[("a", "1")]);
    let kept = host.tell(&["permit", "list"]);
    assert_eq!(kept["permits"].as_array().unwrap().len(), 2, "{kept}");
    assert!(kept["operators"][0]["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
}

/// Two of two publishers must announce the same content: what one of them announces alone stays
/// away, and `stork why` and `stork trust` say so with line, document and key.
#[test]
fn two_publishers_must_agree() {
    let mut fleet = Fleet::charter_only(&["web"], None);
    let globex = add_publisher(&fleet.charter, "globex");
    fleet.found();
    let host = &fleet.hosts[0];
    let rule = "allow = \"acme\"\npublishers = { need = 2, of = [\"acme\", \"globex\"] }";
    let file = VmFile::new(&["web"], &host.target("vm")).subscribe("*").trust(rule);
    host.write_vm("vm", &file);
    let both = package(&fleet, "a", "1");
    fleet.push(&both, &["web"]);
    let why = wait_for("the release to be considered", || {
        let why = said(&stork(host, &["why", "vm", "a"]));
        why.contains("1 of the publishers that its rule names announce it, 2 must").then_some(why)
    });
    let text = file.text();
    let line = text.lines().position(|l| l == "[[trust]]").unwrap() + 1;
    assert!(why.contains(&format!("vm.toml:{line} ([[trust]] rule 1)")), "{why}");
    assert!(why.contains("under publisher document 1, signed by SHA256:"), "{why}");
    let second = fleet.push_command_of(&globex, 0, &both, &["web"]).output().unwrap();
    assert_eq!(report(&second)["outcome"], "published");
    host.await_vm("vm", &[("a", "1")]);
    fleet.push(&package(&fleet, "a", "2"), &["web"]);
    wait_for("the second release to be known", || host.release("a", "2"));
    assert_eq!(host.vm_shows("vm")["a"], "1");

    let vm = said(&stork(host, &["trust", "vm"]));
    assert!(
        vm.contains(&format!("rule 1 (line {line}): allow acme, if 2 of acme, globex")),
        "{vm}"
    );
    assert!(vm.contains("what no rule names is denied"), "{vm}");
    let charter = said(&stork(host, &["trust"]));
    for part in ["root lab: document 1", "group web: document ", "publisher globex: document 1"] {
        assert!(charter.contains(part), "{part}: {charter}");
    }
    let package = host.tell(&["trust", "a"]);
    assert_eq!(package["view"], "package");
    assert_eq!(package["granted"].as_array().unwrap().len(), 2, "{package}");
    assert_eq!(package["vms"][0]["decisions"].as_array().unwrap().len(), 2, "{package}");
    let none = stork(host, &["trust", "../x"]);
    assert_eq!(none.status.code(), Some(5), "{}", said(&none));
}
