//! Recalls: what is withdrawn leaves every VM that shows it, and no host takes it any more.

use std::process::Command;

use serde_json::Value;
use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::hostile::Peer;
use stork_tests::wait::wait_until;

fn recall(fleet: &Fleet, what: &[&str]) -> Command {
    let home = &fleet.hosts[0];
    let mut command = Command::new(binary("stork-publish"));
    command.arg("recall").args(what);
    command.arg("--to").arg(format!("{}@{}", home.id(), home.addr()));
    command.arg("--charter").arg(&fleet.charter).arg("--json");
    command.args(["--reason", "it does not start"]);
    command
}

/// A release that two hosts show is recalled: their VMs go back to the one before it, a host that
/// comes later never shows it, and the next release goes on from there. When everything is
/// recalled, the package leaves. Each host can say why.
#[test]
fn a_recall_reaches_vms_that_show_the_release() {
    let mut fleet = Fleet::new(&["web"], 2);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let versions = ["1", "2", "3"].map(|v| fleet.package("tool", v, &[("tool", v.as_bytes())]));
    for (package, version) in versions[..2].iter().zip(["1", "2"]) {
        fleet.push(package, &["web"]);
        fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", version)]));
    }
    let would = report(&recall(&fleet, &["tool", "2", "--dry-run"]).output().unwrap());
    assert_eq!(
        (&would["outcome"], &would["recalled"][0]["left"]),
        (&"dry_run".into(), &"1".into())
    );
    let did = report(&recall(&fleet, &["tool", "2"]).output().unwrap());
    assert_eq!(did["outcome"], "recalled", "{did}");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "1")]));
    let gone = |h: &Host, v: &str| h.release("tool", v).unwrap()["recalled"].clone();
    assert!(fleet.hosts.iter().all(|h| gone(h, "2") == "it does not start"));
    assert!(fleet.hosts.iter().all(|h| gone(h, "1").is_null()));
    let said = |h: &Host| h.tell(&["events"]).to_string();
    assert!(fleet.hosts.iter().all(|h| said(h).contains("it does not start")));

    let twice = recall(&fleet, &["tool", "2"]).output().unwrap();
    assert_eq!(twice.status.code(), Some(5), "{twice:?}");
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("tool 2 is not published, or was recalled already"), "{said}");

    let late = fleet.enlist();
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start().await_vm("vm", &[("tool", "1")]);
    fleet.push(&versions[2], &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "3")]));

    let all = report(&recall(&fleet, &["tool", "1", "3"]).output().unwrap());
    assert!(all["recalled"].as_array().unwrap().iter().all(|r| r["left"] == Value::Null), "{all}");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[]));
    wait_until("the files to leave", || {
        fleet.hosts.iter().all(|h| !h.seen("vm").join("tool").exists())
    });
}

/// Two entries of the feed have one number, and it is frozen: a recall passes all the same, also to
/// a host that comes later and to one that starts again. A halt keeps new installations back until
/// it is ended.
#[test]
fn recall_passes_a_frozen_feed() {
    let mut fleet = Fleet::new(&["web"], 2);
    let below = |h: &Host| {
        VmFile::new(&["web"], &h.target("vm")).subscribe_to("tool", "< 3").trust("allow = \"acme\"")
    };
    for host in &fleet.hosts {
        host.write_vm("vm", &below(host));
    }
    for v in ["1", "2", "3"] {
        fleet.push(&fleet.package("tool", v, &[("tool", v.as_bytes())]), &["web"]);
    }
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "2")]));
    let feed = Feed::read(&fleet);
    let mut twin = feed.entry.clone();
    twin.expires += 1;
    let twin = feed.item(feed.sign(&twin), twin.seq);
    let insider = Peer::enlist(&fleet, "insider");
    let talk = insider.dial(&fleet.hosts[1]);
    talk.push(&twin);
    let frozen = |h: &Host| h.tell(&["status"])["frozen"].as_array().unwrap().len() == 1;
    wait_until("the feed to be frozen", || fleet.hosts.iter().all(frozen));

    let did = report(&recall(&fleet, &["tool", "2"]).output().unwrap());
    assert_eq!(did["recalled"][0]["left"], "1", "{did}");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "1")]));
    let told = |h: &Host| h.tell(&["events"]).to_string().contains("vm shows tool 2; it goes");
    assert!(fleet.hosts.iter().all(told));
    let why = fleet.hosts[1].tell(&["why", "vm", "tool"]).to_string();
    assert!(why.contains("its publisher recalled it: it does not start"), "{why}");
    let late = fleet.enlist();
    late.write_vm("vm", &below(late));
    late.start().await_vm("vm", &[("tool", "1")]);
    fleet.hosts[1].restart().await_vm("vm", &[("tool", "1")]);

    halt(&fleet, "halt");
    wait_until("the halt to come", || fleet.hosts.iter().all(is_halted));
    let newcomer = fleet.enlist();
    newcomer.write_vm("vm", &below(newcomer));
    newcomer.start();
    wait_until("the halt to come to a newcomer", || {
        is_halted(newcomer) && newcomer.release("tool", "1").is_some()
    });
    assert!(newcomer.vm_shows("vm").is_empty());
    fleet.hosts[0].await_vm("vm", &[("tool", "1")]);
    halt(&fleet, "resume");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "1")]));
}

fn halt(fleet: &Fleet, word: &str) {
    let home = &fleet.hosts[0];
    let mut command = Command::new(binary("stork-publish"));
    command.args([word, "--reason", "wait", "--json"]);
    command.arg("--to").arg(format!("{}@{}", home.id(), home.addr()));
    command.arg("--charter").arg(&fleet.charter);
    drop(report(&command.output().unwrap()));
}

fn is_halted(host: &Host) -> bool {
    !host.tell(&["status"])["narrowed"]["halts"].as_array().unwrap().is_empty()
}
