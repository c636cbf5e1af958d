//! A publisher's key signs two entries with one number and shows each to other hosts.

use std::process::Command;

use serde_json::{Value, json};
use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host, VmFile, binary};
use stork_tests::wait::wait_until;

use crate::check::{fails, has_event};

fn frozen(host: &Host) -> Vec<Value> {
    host.tell(&["status"])["frozen"].as_array().unwrap().clone()
}

fn await_frozen(fleet: &Fleet, count: usize) {
    for host in &fleet.hosts {
        let what = format!("{} to have {count} frozen feeds", host.name);
        wait_until(&what, || frozen(host).len() == count);
    }
}

fn shown(fleet: &Fleet) -> Vec<Option<String>> {
    fleet.hosts.iter().map(|h| h.vm_shows("vm").get("app").cloned()).collect()
}

/// What people read of a frozen feed, on any of its hosts.
fn check_words(host: &Host, kept: &str) {
    let feed = frozen(host).remove(0);
    let text = feed["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("frozen: two entries with number 2 (proof "), "{text}");
    assert!(text.ends_with("the publisher's owner must start a new epoch"), "{text}");
    assert_eq!((&feed["publisher"], &feed["seq"]), (&json!("acme"), &json!(2)));
    assert_eq!(feed["stands"]["seq"], 1);
    let why = host.tell(&["why", "vm", "app"]);
    assert_eq!(why["frozen"], json!([format!("acme {text}")]), "{why}");
    let release = host.release("app", kept).unwrap();
    assert_eq!(release["frozen"], json!(text));
    assert!(host.release("app", "1").unwrap()["frozen"].is_null());
    let mut people = Command::new(binary("stork"));
    people.arg("--socket").arg(host.dir.join("sock")).arg("status");
    let out = people.output().unwrap();
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.contains(&format!("FEED acme {text}")), "{out}");
}

/// The branch of the last two hosts is recalled by its version, at the first one, which knows of it
/// by the proof alone: they go back to what both have, and it stays where it is.
fn recall_the_other_branch(fleet: &Fleet) {
    let mut recall = Command::new(binary("stork-publish"));
    recall.args(["recall", "app", "3", "--reason", "not ours", "--json", "--charter"]);
    let home = format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr());
    let out = recall.arg(&fleet.charter).arg("--to").arg(&home).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fleet.hosts[1..].iter().for_each(|h| h.await_vm("vm", &[("app", "1")]));
    assert_eq!(fleet.hosts[0].vm_shows("vm").get("app").map(String::as_str), Some("2"));
    fails(&recall.output().unwrap(), 5, "app 3");
}

/// While no host could speak with another, a key signed two entries 2: `app` 2 at the first host,
/// `app` 3 at the others. When they meet, each host gets the proof; the feed is frozen for all,
/// each VM keeps what it shows, also after restarts, and nothing new is taken. The owner begins a
/// new epoch after one of the two: all VMs go there, and a new release reaches all.
#[test]
fn t020_t023_t024_a_key_signs_two_entries_with_one_number() {
    let mut fleet = Fleet::new(&["web"], 3);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let package = |fleet: &Fleet, v: &str| fleet.package("app", v, &[("app", v.as_bytes())]);
    fleet.push(&package(&fleet, "1"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "1")]));

    fleet.hosts[1].stop();
    fleet.hosts[2].stop();
    fleet.push(&package(&fleet, "2"), &["web"]);
    fleet.hosts[0].await_vm("vm", &[("app", "2")]);
    let survivor = Feed::read(&fleet).head.hash();
    fleet.hosts[0].stop();
    fleet.hosts[1].start();
    fleet.hosts[2].start();
    let out = fleet.push_command(1, &package(&fleet, "3"), &["web"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fleet.hosts[1..].iter().for_each(|h| h.await_vm("vm", &[("app", "3")]));

    fleet.hosts[0].start();
    await_frozen(&fleet, 1);
    let kept = ["2", "3", "3"];
    for round in 0..2 {
        assert_eq!(shown(&fleet), kept.map(|v| Some(v.to_owned())), "round {round}");
        for (host, kept) in fleet.hosts.iter().zip(kept) {
            check_words(host, kept);
            if round == 0 {
                assert!(has_event(host, "feed_frozen", "acme frozen: two entries with number 2"));
                assert_eq!(host.counter("feeds", "frozen"), 1, "{}: once", host.name);
            }
            let out = fleet.push_command(0, &package(&fleet, "4"), &["web"]).output().unwrap();
            fails(&out, 4, "frozen: two entries with number 2");
        }
        fleet.hosts.iter_mut().for_each(|h| {
            h.restart();
        });
        await_frozen(&fleet, 1);
    }

    recall_the_other_branch(&fleet);
    let (to, hash) = (&fleet.hosts[2], survivor.to_string());
    let mut epoch = Command::new(binary("stork-publish"));
    epoch.args(["charter", "new-epoch", "--after", "2", "--hash", &hash, "--json", "--charter"]);
    epoch.arg(&fleet.charter).arg("--to").arg(format!("{}@{}", to.id(), to.addr()));
    let out = epoch.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    await_frozen(&fleet, 0);
    for host in &fleet.hosts {
        host.await_vm("vm", &[("app", "2")]);
        assert!(host.release("app", "3").is_none(), "the other branch is withdrawn");
        wait_until("the epoch to be told", || has_event(host, "epoch_begun", "acme: epoch 2"));
    }
    fleet.push(&package(&fleet, "5"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "5")]));
    fleet.hosts.iter_mut().for_each(|h| {
        h.restart();
    });
    fleet.push(&package(&fleet, "6"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "6")]));
    for host in &fleet.hosts {
        let release = host.release("app", "6").unwrap();
        assert_eq!((&release["epoch"], &release["seq"]), (&json!(2), &json!(2)));
    }
    // A newcomer walks the epochs: what was void it never sees.
    let newcomer = fleet.enlist();
    newcomer.write_vm("vm", &VmFile::usual(&["web"], &newcomer.target("vm")));
    newcomer.start();
    newcomer.await_vm("vm", &[("app", "6")]);
    assert!(newcomer.release("app", "3").is_none() && newcomer.release("app", "1").is_some());
}
