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
    let sent = publish(&send);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
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

/// A release key is stolen and publishes: its owner revokes it. What it had published before
/// stands, the rest is gone from every VM, and the new key goes on. Then the group takes a grant
/// away: the releases leave its VMs. Hosts that start again and hosts that come later judge all of
/// it alike.
#[test]
fn a_stolen_key_is_revoked_and_a_grant_taken_away() {
    let mut fleet = Fleet::new(&["web", "db"], 2);
    let home = fleet.charter.to_str().unwrap().to_owned();
    let key = format!("{}/new-release", fleet.folder("tools").to_str().unwrap());
    new_key(&key);
    let push = |fleet: &Fleet, name: &str, version: &str, group: &str| {
        let package = fleet.package(name, version, &[(name, version.as_bytes())]);
        let mut command = fleet.push_command(0, &package, &[group]);
        if version == "3" {
            command.args(["--key", &key]);
        }
        report(&command.output().unwrap())
    };
    let vm = |host: &stork_tests::fleet::Host| {
        let file = VmFile::new(&["web", "db"], &host.target("vm")).subscribe("*");
        host.write_vm("vm", &file.trust("allow = \"*\""));
    };
    fleet.hosts.iter().for_each(vm);
    push(&fleet, "tool", "1", "web");
    push(&fleet, "data", "1", "db");
    let good = fleet.hosts[0].release("data", "1").unwrap();
    push(&fleet, "tool", "2", "web");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "2"), ("data", "1")]));

    let (seq, hash) = (good["seq"].to_string(), good["entry"].as_str().unwrap().to_owned());
    let old = format!("{home}/keys/release.pub");
    let new = format!("{key}.pub");
    let revoke = ["charter", "revoke", &old, "--after", &seq, "--hash", &hash];
    made(&[&revoke[..], &["--release-key", &new, "--charter", &home]].concat());
    let first = format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr());
    let send = ["charter", "send", "--charter", &home, "--to", &first];
    let sent = publish(&send);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "1"), ("data", "1")]));
    let stolen = fleet.package("tool", "4", &[("tool", b"4")]);
    let refused = fleet.push_command(0, &stolen, &["web"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    push(&fleet, "tool", "3", "web");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "3"), ("data", "1")]));

    made(&["charter", "ungrant", "db", "acme", "--charter", &home]);
    let sent = publish(&send);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let shown = [("tool", "3")];
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &shown));
    fleet.hosts.iter_mut().for_each(|h| {
        h.restart();
    });
    let newcomer = fleet.enlist();
    vm(newcomer);
    newcomer.start();
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &shown));
    let why = fleet.hosts[2].tell(&["why", "vm", "data"]).to_string();
    assert!(why.contains("does not let its publisher release it any more"), "{why}");
}
