//! A charter that changes by command under a running fleet: nodes and newcomers follow it.

use std::path::Path;
use std::process::{Command, Output};

use stork_tests::fleet::{Fleet, VmFile, binary, report};

fn publish(words: &[&str]) -> Output {
    Command::new(binary("stork-publish")).args(words).output().unwrap()
}

/// A change that is whole at once.
fn made(words: &[&str]) {
    let out = publish(&[words, &["--json"]].concat());
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    let change: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(change["state"], "made", "{words:?}: {change}");
}

fn new_key(path: &str) {
    assert!(publish(&["key", "generate", "--no-passphrase", "--out", path]).status.success());
}

/// A root of two keys, a new publisher with a few names, a new group, a second release key, all
/// documents renewed: running hosts are sent it, and show what it permits; after a
/// restart, and on a host that joins later, it is the same.
#[test]
fn a_fleet_follows_its_charter() {
    let mut fleet = Fleet::new(&["web"], 2);
    fleet.push(&fleet.package("a", "1", &[("a", b"1")]), &["web"]);
    let home = fleet.charter.to_str().unwrap().to_owned();
    let tools = fleet.folder("tools").to_str().unwrap().to_owned();
    let at = |dir: &str, name: &str| format!("{dir}/{name}");
    for name in ["root", "release", "second", "ci"] {
        new_key(&at(&tools, name));
    }
    let (root, second) = (at(&home, "keys/root"), at(&tools, "second"));
    let publics = ["root.pub", "release.pub", "second.pub", "ci.pub"].map(|name| at(&tools, name));
    let [root_pub, release_pub, second_pub, ci_pub] = publics.each_ref().map(String::as_str);
    let charter = ["--charter", &home];
    let change = |words: &[&str]| made(&[&["charter"], words, &charter].concat());
    let keys = ["--key", &root, "--key", &second];
    change(&[&["rotate", "root", "--add", second_pub, "--threshold", "2"], &keys[..]].concat());
    let (authority, theirs) = (at(&home, "keys/authority"), at(&tools, "root"));
    let new = ["add-publisher", "tools", "--root-key", root_pub, "--release-key", release_pub];
    let may = ["--group", "web", "--key", &authority, "--key", &theirs, "--packages", "tool-*"];
    change(&[&new[..], &may].concat());
    change(&["add-group", "db", "--publisher", "acme"]);
    change(&["rotate", "release", "--add", ci_pub, "--packages", "ci-*"]);
    let owners = ["--key", &root, "--key", &second, "--key", &authority, "--key", &theirs];
    let acme = at(&home, "keys/publisher");
    change(&[&["renew", "--valid-days", "400", "--key", &acme], &owners[..]].concat());
    assert!(publish(&["charter", "verify", &home]).status.success());

    let bundle = Path::new(&tools).join("charter.bundle");
    std::fs::copy(fleet.charter.join("charter.bundle"), bundle).unwrap();
    let profile = ["charter", "profile", "tools", "--release-key", "release", "--charter", &tools];
    assert!(publish(&profile).status.success());
    let first = format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr());
    let send = ["charter", "send", "--charter", &tools, "--to", &first];
    assert!(publish(&send).status.success());
    let tool = fleet.package("tool-x", "1", &[("tool", b"x")]);
    let push = |package, group| fleet.push_command_of(Path::new(&tools), 0, package, &[group]);
    assert_eq!(report(&push(&tool, "web").output().unwrap())["outcome"], "published");
    let other = fleet.package("other", "1", &[("other", b"o")]);
    assert_eq!(push(&other, "web").output().unwrap().status.code(), Some(4), "not its name");
    assert_eq!(push(&tool, "db").output().unwrap().status.code(), Some(4), "not its group");
    let by_ci = fleet.package("ci-y", "1", &[("y", b"y")]);
    let ci = at(&tools, "ci");
    let done = fleet.push_command(1, &by_ci, &["db"]).args(["--key", &ci]).output().unwrap();
    assert_eq!(report(&done)["outcome"], "published");

    let shown = [("a", "1"), ("tool-x", "1"), ("ci-y", "1")];
    let vm = |host: &stork_tests::fleet::Host| {
        let file = VmFile::new(&["web", "db"], &host.target("vm")).subscribe("*");
        host.write_vm("vm", &file.trust("allow = \"*\""));
    };
    for host in &fleet.hosts {
        vm(host);
        drop(host.tell(&["reload"]));
        host.await_vm("vm", &shown);
    }
    fleet.hosts.iter_mut().for_each(|h| {
        h.restart();
    });
    let newcomer = fleet.enlist();
    vm(newcomer);
    newcomer.start();
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &shown));
}
