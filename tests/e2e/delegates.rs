//! Delegations and bundles with real nodes: who may act for whom, and what comes together.

use std::path::Path;
use std::process::{Command, Output};

use stork_tests::fleet::{Fleet, Namespace, Package, VmFile, binary, report};
use stork_tests::wait::wait_for;

fn publish(words: &[&str]) -> Output {
    Command::new(binary("stork-publish")).args(words).output().unwrap()
}

fn done(words: &[&str]) {
    let out = publish(words);
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn package(fleet: &Fleet, name: &str, version: &str) -> Package {
    fleet.package(name, version, &[(&format!("share/{name}"), version.as_bytes())])
}

/// A publisher that no group names is let release some packages by one that may: a VM whose rule
/// follows delegations gets them, another one does not. What the pattern does not name is refused
/// before it is packed. Taken back, they leave the VM; a host that starts again judges all alike.
#[test]
fn a_delegate_acts_for_its_delegator() {
    let mut fleet = Fleet::new(&["web"], 1);
    let home = fleet.charter.to_str().unwrap().to_owned();
    let ci = fleet.folder("ci").to_str().unwrap().to_owned();
    let at = |name: &str| format!("{ci}/{name}");
    for name in ["root", "release"] {
        done(&["key", "generate", "--no-passphrase", "--out", &at(name)]);
    }
    let (root, root_pub, release) = (at("root"), at("root.pub"), at("release.pub"));
    let new = ["charter", "add-publisher", "ci", "--root-key", &root_pub, "--key", &root];
    done(&[&new[..], &["--release-key", &release, "--charter", &home]].concat());
    let delegate = ["charter", "delegate", "acme", "--to", "ci", "--charter", &home];
    done(&[&delegate[..], &["--packages", "web-*"]].concat());
    let again = publish(&[&delegate[..], &["--packages", "web-*", "--json"]].concat());
    assert!(String::from_utf8_lossy(&again.stdout).contains("already"), "{again:?}");
    let bundle = Path::new(&ci).join("charter.bundle");
    std::fs::copy(fleet.charter.join("charter.bundle"), bundle).unwrap();
    done(&["charter", "profile", "ci", "--release-key", "release", "--charter", &ci]);
    let first = format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr());
    let send = ["charter", "send", "--charter", &home, "--to", &first];
    done(&send);

    let host = &fleet.hosts[0];
    let vm = |name: &str, rule: &str| {
        let file = VmFile::new(&["web"], &host.target(name)).subscribe("*").trust(rule);
        host.write_vm(name, &file);
    };
    vm("follows", "allow = \"acme\"\ndelegations = true");
    vm("does-not", "allow = \"acme\"");
    fleet.push(&package(&fleet, "base", "1"), &["web"]);
    let push = |name: &str| {
        let package = package(&fleet, name, "1");
        fleet.push_command_of(Path::new(&ci), 0, &package, &["web"]).output().unwrap()
    };
    let refused = push("base");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert_eq!(report(&push("web-site"))["outcome"], "published");
    host.await_vm("follows", &[("base", "1"), ("web-site", "1")]);
    host.await_vm("does-not", &[("base", "1")]);
    let why = host.tell(&["why", "follows", "web-site"]);
    assert_eq!(why["considered"][0]["delegated_by"][0], "acme", "{why}");
    let why = host.tell(&["why", "does-not", "web-site"]).to_string();
    assert!(why.contains("no trust rule allows it"), "{why}");
    let trust = host.tell(&["trust", "web-site"]).to_string();
    assert!(trust.contains("\"delegates\":[{"), "{trust}");

    fleet.hosts[0].restart();
    fleet.hosts[0].await_vm("follows", &[("base", "1"), ("web-site", "1")]);
    assert!(!fleet.hosts[0].log().contains("is not accepted"), "{}", fleet.hosts[0].log());
    done(&[&delegate[..], &["--remove"]].concat());
    done(&send);
    fleet.hosts[0].await_vm("follows", &[("base", "1")]);
}

/// T038 with a mounted view: while one of the four members of a bundle lacks, the old bundle stays
/// to be seen; when it has come, all four change in one generation.
#[test]
fn t038_a_bundle_of_four_comes_at_once() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    let members = ["a", "b", "c", "d"];
    let push = |name: &str, version: &str| {
        let mut command = fleet.push_command(0, &package(&fleet, name, version), &["web"]);
        command.args(["--bundle", &format!("shop-{version}")]);
        for other in members.iter().filter(|m| **m != name) {
            command.args(["--with", other]);
        }
        assert_eq!(report(&command.output().unwrap())["outcome"], "published");
    };
    let all = |version: &'static str| members.map(|m| (m, version));
    members.iter().for_each(|m| push(m, "1"));
    host.await_vm("vm", &all("1"));
    let generation = || host.tell(&["vm", "vm"])["generation"].as_u64().unwrap();
    let before = generation();
    for member in &members[..3] {
        push(member, "2");
    }
    let why = wait_for("the bundle to be known as not complete", || {
        let why = host.tell(&["why", "vm", "c"]).to_string();
        why.contains("its bundle `shop-2` is not complete: `d` lacks").then_some(why)
    });
    assert!(why.contains("\"members\":[\"a\",\"b\",\"c\",\"d\"]"), "{why}");
    host.await_vm("vm", &all("1"));
    let seen = |name: &str| {
        let path = host.seen("vm").join("share").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(members.map(seen), ["1"; 4]);
    assert_eq!(generation(), before, "nothing was switched");
    push("d", "2");
    host.await_vm("vm", &all("2"));
    assert_eq!(members.map(seen), ["2"; 4]);
    assert_eq!(generation(), before + 1, "all four at once");
}
