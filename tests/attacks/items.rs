//! Entries that no publisher should have signed, by gossip from an insider and by push.

use std::fs;
use std::process::Command;

use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host, VmFile, binary};
use stork_tests::hostile::Peer;
use stork_tests::wait::wait_until;
use stork_wire::codec::encode;
use stork_wire::feed::{Entry, Kind};
use stork_wire::frame::{LinkClass, PushReply, Refusal};
use stork_wire::ids::{FleetId, ItemHash, ViewRoot};
use stork_wire::sign::{Envelope, SecretKey};

use crate::check::{await_counter, fails, has_event, untouched};

/// A fleet whose publisher may only release packages that match a pattern.
fn fleet_for(packages: &str, hosts: usize) -> Fleet {
    let mut fleet = Fleet::charter_only(&["web"], None);
    fs::remove_dir_all(&fleet.charter).unwrap();
    let mut init = Command::new(binary("stork-publish"));
    init.args(["charter", "init", "--fleet", "lab", "--publisher", "acme", "--group", "web"]);
    init.args(["--no-passphrase", "--packages", packages]).arg("--dir").arg(&fleet.charter);
    assert!(init.output().unwrap().status.success());
    fleet.found();
    for _ in 1..hosts {
        fleet.enlist().start();
    }
    fleet
}

/// One forgery: the word of its refusal, its bytes, and the number under which it is sent.
struct Forgery {
    code: &'static str,
    envelope: Envelope,
    seq: u64,
}

fn flipped(mut envelope: Envelope) -> Envelope {
    let mut all = envelope.signatures.to_vec();
    all.iter_mut().for_each(|s| s.signature.0[40] ^= 1);
    envelope.signatures = stork_wire::codec::List::new(all).unwrap();
    envelope
}

fn changed(entry: &Entry, change: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = entry.clone();
    change(&mut entry);
    entry
}

/// Forgeries that anybody can make, and forgeries that take the publisher's own key.
fn forgeries(feed: &Feed) -> Vec<Forgery> {
    let good = feed.next_with(|_| {});
    let seq = good.seq;
    let stranger = SecretKey::from_seed(&[3; 32]);
    let other_fleet = FleetId([9; 32]);
    let fleet = feed.publisher.fleet;
    let signed = |code, entry: &Entry| (code, feed.sign(entry));
    let mut trailing = encode(&good);
    trailing.push(0);
    let mut long = encode(&good);
    // The version as a varint of two bytes where one is enough.
    long.splice(0..1, [0x81, 0x00]);
    let gcc = feed.next_with(|r| r.package = "gcc".parse().unwrap());
    let low = {
        let mut release = feed.release();
        release.release = 1;
        let mut entry = feed.next(release.clone());
        let live = feed.live.iter().copied().chain([release.hash()]);
        entry.view_root = stork_wire::feed::view_root(live);
        entry.kind = Kind::Release(Box::new(release));
        entry
    };
    let future = good.signed_at + 3_600;
    let all = [
        ("bad_signature", flipped(feed.sign(&good))),
        ("bad_signature", Feed::sign_as(&good, other_fleet, &feed.publisher.key)),
        ("bad_signature", feed.sign_in_context(&good, "beacon")),
        ("unauthorised_key", Feed::sign_as(&good, fleet, &stranger)),
        ("malformed", feed.sign_bytes(trailing)),
        ("malformed", feed.sign_bytes(long)),
        signed("out_of_scope", &gcc),
        signed("broken_chain", &changed(&good, |e| e.prev = Some(ItemHash([1; 32])))),
        signed("view_root_mismatch", &changed(&good, |e| e.view_root = ViewRoot([1; 32]))),
        signed("release_not_rising", &low),
        signed("wrong_epoch", &changed(&good, |e| e.epoch = 7)),
        signed(
            "future_dated",
            &changed(&good, |e| (e.signed_at, e.expires) = (future, future + 1)),
        ),
    ];
    let mut all: Vec<Forgery> = all.map(|(code, envelope)| Forgery { code, envelope, seq }).into();
    let envelope = feed.sign(&good);
    all.push(Forgery { code: "wrong_log", envelope, seq: seq + 1 });
    all
}

fn gossip(host: &Host, what: &str) -> u64 {
    host.tell(&["status"])["gossip"][what].as_u64().unwrap()
}

/// Two releases, known and shown on both hosts, and the feed at each of them.
fn two_releases(fleet: &Fleet) -> [Feed; 2] {
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    ["1", "2"].map(|version| {
        let package = fleet.package("acme-app", version, &[("app", version.as_bytes())]);
        fleet.push(&package, &["web"]);
        host.await_vm("vm", &[("acme-app", version)]);
        Feed::read(fleet)
    })
}

/// An insider pushes every kind of forgery along its link. Each has its own counter and event, and
/// nothing is committed, shown or passed on to the third party; after that the true next release
/// still comes.
#[test]
fn t001_t002_t020_t036_t047_t048_forged_entries_by_gossip() {
    let fleet = fleet_for("acme-*", 2);
    let [first, feed] = two_releases(&fleet);
    let (other, host) = (&fleet.hosts[0], &fleet.hosts[1]);
    let insider = Peer::enlist(&fleet, "insider");
    let before = [untouched(host), untouched(other)];
    let passed_on = gossip(host, "pushes_out");
    for (n, forgery) in forgeries(&feed).into_iter().enumerate() {
        // Another insider each time: from one host a refused number is not taken again for a while,
        // whatever links it makes.
        let insider = Peer::enlist(&fleet, &format!("insider-{n}"));
        wait_until("the last insider to be gone", || host.tell(&["status"])["links"] == 1);
        let talk = insider.dial(host);
        assert_ne!(talk.class, LinkClass::Transient);
        let Forgery { code, envelope, seq } = forgery;
        let count = host.counter("items_refused", code);
        talk.push(&feed.item(envelope, seq));
        await_counter(host, "items_refused", code, count + 1);
        assert!(has_event(host, "item_refused", code), "{code}");
        assert_eq!(other.counter("items_refused", code), 0, "{code} was passed on");
    }
    let talk = insider.dial(host);
    // An old entry, and the head itself, once more: dropped, whatever their signatures.
    let replayed = gossip(host, "duplicates");
    talk.push(&first.item(first.head.clone(), 1));
    talk.push(&feed.item(feed.head.clone(), 2));
    wait_until("both to count as duplicates", || gossip(host, "duplicates") >= replayed + 2);
    // Of a publisher that nobody knows: it waits for a document that never comes.
    let mut nobody = feed.item(feed.head.clone(), 1);
    let entry = changed(&first.entry, |e| e.publisher.0 = [5; 32]);
    nobody.log = stork_wire::ids::LogId::feed(entry.publisher);
    nobody.envelope = feed.sign(&entry);
    talk.push(&nobody);
    await_counter(host, "items_pending", "entry", 1);

    assert_eq!([untouched(host), untouched(other)], before);
    assert_eq!(gossip(host, "pushes_out"), passed_on, "nothing was passed on");
    let package = fleet.package("acme-app", "3", &[("app", b"3")]);
    fleet.push(&package, &["web"]);
    host.await_vm("vm", &[("acme-app", "3")]);
    // Two entries with one number, both signed by the publisher: every host hears of it, the feed
    // is frozen before them, and what is shown stays.
    let feed = Feed::read(&fleet);
    let twin = changed(&feed.entry, |e| e.expires += 1);
    let talk = insider.dial(host);
    talk.push(&feed.item(feed.sign(&twin), twin.seq));
    await_counter(host, "items_refused", "equivocation", 1);
    for host in &fleet.hosts {
        await_counter(host, "feeds", "frozen", 1);
        assert!(has_event(host, "feed_frozen", "two entries with number 3"));
    }
    fleet.hosts[1].await_vm("vm", &[("acme-app", "3")]);
}

/// An insider that sends three items with wrong signatures on one link is cut off, and stays cut
/// off for a while; the host and its other links go on.
#[test]
fn t063_three_bad_signatures_end_a_link() {
    let fleet = fleet_for("acme-*", 2);
    let [_, feed] = two_releases(&fleet);
    let host = &fleet.hosts[1];
    let insider = Peer::enlist(&fleet, "insider");
    let talk = insider.dial(host);
    for seq in [3, 4, 5] {
        let entry = changed(&feed.next_with(|_| {}), |e| e.seq = seq);
        talk.push(&feed.item(flipped(feed.sign(&entry)), seq));
    }
    let said = talk.await_end();
    assert!(said.contains("misbehaved"), "{said}");
    assert_eq!(host.counter("items_refused", "bad_signature"), 3);
    assert_eq!(insider.dial(host).class, LinkClass::Transient, "no link for it for a while");
    assert_eq!(host.tell(&["status"])["links"], 1, "the honest link stays");
}

/// The same forgeries as a publisher's order: each is refused by trust or as malformed, counted,
/// and the feed stays where it is. The command says so with exit code 4.
#[test]
fn t001_t002_t020_t036_t047_t048_forged_entries_by_push() {
    let fleet = fleet_for("acme-*", 2);
    let [first, feed] = two_releases(&fleet);
    let host = &fleet.hosts[0];
    let before = untouched(host);
    let refused = |envelope: Envelope| match feed.commit(&fleet, envelope) {
        PushReply::Refused { code, message } => (code, message.to_string()),
        other => panic!("not refused: {other:?}"),
    };
    for Forgery { code, envelope, .. } in forgeries(&feed) {
        let (name, expected) = match code {
            "malformed" => ("pushes_refused", Refusal::Malformed),
            // A commit names no number beside the signed one.
            "wrong_log" => continue,
            _ => ("items_refused", Refusal::Trust),
        };
        let count = host.counter(name, code);
        let (got, why) = refused(envelope);
        assert_eq!(got, expected, "{code}: {why}");
        assert_eq!(host.counter(name, code), count + 1, "{code}: {why}");
    }
    let twin = changed(&feed.entry, |e| e.expires += 1);
    assert_eq!(refused(feed.sign(&twin)).0, Refusal::HeadMoved, "a second entry 2");
    assert_eq!(refused(first.head).0, Refusal::HeadMoved, "entry 1 again");
    let ahead = changed(&feed.next_with(|_| {}), |e| e.seq = 9);
    assert_eq!(refused(feed.sign(&ahead)).0, Refusal::HeadMoved, "entry 9");
    assert_eq!(host.counter("pushes_refused", "head_moved"), 3);
    // Only the head itself may be committed again: it is there already.
    let again = feed.commit(&fleet, feed.head.clone());
    assert!(matches!(again, PushReply::Committed { seq: 2, .. }), "{again:?}");
    assert_eq!(untouched(host), before);

    let package = fleet.package("gcc", "1", &[("gcc", b"1")]);
    let out = fleet.push_command(0, &package, &["web"]).output().unwrap();
    fails(&out, 4, "gcc");
    let other = Fleet::charter_only(&["web"], None);
    let package = fleet.package("acme-app", "3", &[("app", b"3")]);
    let out = fleet.push_command_of(&other.charter, 0, &package, &["web"]).output().unwrap();
    fails(&out, 4, "refuses");
    assert_eq!(untouched(host), before);
}
