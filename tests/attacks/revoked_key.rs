//! Use of a revoked key (A18): a release key is stolen and goes on signing after its end.
//!
//! Who can: the thief. What must hold: the owner ends the key with one signature; from then on no
//! host takes anything by it, by gossip or by push, also after a restart. The publisher's root says
//! later what of its work stands, and a new key goes on.

use std::process::Command;

use serde_json::Value;
use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::hostile::Peer;
use stork_tests::wait::wait_until;

use crate::check::{await_counter, fails, has_event};

fn publish(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(binary("stork-publish"));
    command.args(args).arg("--charter").arg(&fleet.charter).arg("--json");
    command
}

fn to(host: &Host) -> String {
    format!("{}@{}", host.id(), host.addr())
}

fn dead_keys(host: &Host) -> Vec<Value> {
    host.tell(&["status"])["narrowed"]["dead_keys"].as_array().unwrap().clone()
}

/// The thief has published `app` 2 and every VM shows it when the owner ends the key. From then on
/// no host takes anything by it, pushed or by gossip, also after a restart. What is shown stays
/// until the root recalls it, which no dead key and no frozen feed holds up. Then the root begins
/// an epoch after `app` 1: all go back there, and a new key goes on. A late host ends where the
/// others are.
#[test]
fn t027_a_stolen_key_is_ended() {
    let mut fleet = Fleet::new(&["web"], 3);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let package = |fleet: &Fleet, v: &str| fleet.package("app", v, &[("app", v.as_bytes())]);
    fleet.push(&package(&fleet, "1"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "1")]));
    let good = Feed::read(&fleet).head.hash().to_string();
    fleet.push(&package(&fleet, "2"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "2")]));
    let feed = Feed::read(&fleet);

    let key = fleet.charter.join("keys/release").to_str().unwrap().to_owned();
    let home = to(&fleet.hosts[1]);
    let end = ["key", "suicide", &key, "--reason", "stolen", "--to", &home];
    let asks = publish(&fleet, &end).output().unwrap();
    fails(&asks, 2, "nobody can be asked here");
    drop(report(&publish(&fleet, &end).arg("--yes").output().unwrap()));
    for host in &fleet.hosts {
        wait_until("the key to be dead", || dead_keys(host).len() == 1);
        assert!(has_event(host, "key_suicide", "stolen"));
        let text = "release key";
        wait_until("the feed to end before it", || has_event(host, "feed_frozen", text));
    }
    for round in 0..2 {
        let out = fleet.push_command(0, &package(&fleet, "3"), &["web"]).output().unwrap();
        fails(&out, 4, "has ended itself");
        let next = feed.next_with(|_| {});
        let insider = Peer::enlist(&fleet, &format!("insider-{round}"));
        let talk = insider.dial(&fleet.hosts[2]);
        talk.push(&feed.item(feed.sign(&next), next.seq));
        await_counter(&fleet.hosts[2], "items_refused", "revoked_key", 1);
        for host in &fleet.hosts {
            host.await_vm("vm", &[("app", "2")]);
        }
        if round == 0 {
            fleet.hosts.iter_mut().for_each(|h| {
                h.restart();
            });
        }
    }

    // What the dead key has released is in no feed any more: the root takes it back by its hash.
    // `app` 1 is of the same key, so that nothing is left until the root says that it stands.
    let hash = fleet.hosts[0].release("app", "2").unwrap()["hash"].as_str().unwrap().to_owned();
    let recall =
        ["recall", "app", "--root", "--release", &hash, "--reason", "stolen", "--to", &home];
    drop(report(&publish(&fleet, &recall).output().unwrap()));
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[]));

    let new = fleet.folder("new").join("release").to_str().unwrap().to_owned();
    let make = ["key", "generate", "--no-passphrase", "--out", &new];
    assert!(Command::new(binary("stork-publish")).args(make).output().unwrap().status.success());
    let (old, public) = (format!("{key}.pub"), format!("{new}.pub"));
    // Whoever has to say what stands finds the hash on any host, though it is in no feed any more.
    let entry = fleet.hosts[2].release("app", "1").unwrap()["entry"].clone();
    assert_eq!(entry, good.as_str());
    let revoke = ["charter", "revoke", &old, "--after", "1", "--hash", &good, "--to", &home];
    let revoke = publish(&fleet, &revoke).args(["--release-key", &public]).output().unwrap();
    assert_eq!(report(&revoke)["epoch"], 2);
    for host in &fleet.hosts {
        host.await_vm("vm", &[("app", "1")]);
        assert!(host.release("app", "2").is_none(), "it is void");
    }
    let mut push = fleet.push_command(0, &package(&fleet, "4"), &["web"]);
    drop(report(&push.args(["--key", &new]).output().unwrap()));
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "4")]));
    let late = fleet.enlist();
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start().await_vm("vm", &[("app", "4")]);
    assert!(late.release("app", "2").is_none() && late.release("app", "1").is_some());
}
