//! Freeze (A5): a host is kept at what it has, by silence or by a beacon that lies.
//!
//! Who can: whoever is between a host and the others, and any host that passes on what it likes.
//! What must hold: a beacon that tells of a head which never was is refused with an alarm and goes
//! no further; one that tells the truth makes the host fetch what it lacks, or say what is
//! withheld. Silence turns a feed stale (`t033_silence_turns_stale_and_beacons_make_fresh`).

use std::time::Duration;

use serde_json::Value;
use stork_publisher::keys::{Passphrase, read_secret};
use stork_tests::feed::Feed;
use stork_tests::hostile::{Peer, Talk, has, runtime};
use stork_tests::lab::{Lab, LabNode};
use stork_tests::raw_push::now;
use stork_tests::wait::{wait_for, wait_until};
use stork_wire::beacon::{Beacon, BeaconHead};
use stork_wire::ids::ItemHash;
use stork_wire::item::Item;
use stork_wire::sign::{Envelope, SecretKey};
use tokio::runtime::Runtime;

/// Two nodes of which the first makes a beacon a day, with a feed of one entry.
struct Scene {
    runtime: Runtime,
    lab: Lab,
    key: SecretKey,
    feed: Feed,
    /// The last counter that was used.
    counter: u64,
}

impl Scene {
    fn new() -> Self {
        let runtime = runtime();
        let lab = runtime.block_on(async {
            let lab = Lab::with_beacons(2).await.unwrap();
            lab.settle().await.unwrap();
            let package = lab.dir.path().join("package");
            std::fs::create_dir(&package).unwrap();
            std::fs::write(package.join("file"), b"file").unwrap();
            lab.publish(&package, "app", "1").await.unwrap();
            lab
        });
        let key = read_secret(&lab.dir.path().join("beacon"), &Passphrase::None).unwrap();
        let feed = Feed::read_at(&lab.charter, (lab.nodes[0].id, lab.nodes[0].addr));
        let scene = Self { runtime, lab, key, feed, counter: now() };
        for node in &scene.lab.nodes {
            wait_until("the first beacon and entry", || {
                scene.counter(node, "items_committed", "beacon") >= 1
                    && scene.counter(node, "items_committed", "entry") == 1
            });
        }
        scene
    }

    fn status(&self, node: &LabNode) -> Value {
        self.runtime.block_on(async { node.client().get("/v1/status").await.unwrap() })
    }

    fn counter(&self, node: &LabNode, name: &str, reason: &str) -> u64 {
        let status = self.status(node);
        let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
        let all = status["counters"].as_array().unwrap();
        all.iter().find(fits).map_or(0, |c| c["count"].as_u64().unwrap())
    }

    fn await_counter(&self, node: &LabNode, name: &str, reason: &str, count: u64) {
        let what = format!("{count} {name} {reason} on {}", node.name);
        wait_until(&what, || self.counter(node, name, reason) >= count);
    }

    fn await_event(&self, node: &LabNode, kind: &str, text: &str) {
        let event = || self.runtime.block_on(node.event_ms(kind, text));
        wait_for(&format!("{kind} on {}", node.name), event);
    }

    /// An insider with a link to the second node, and these items to hand out.
    fn insider(&self, name: &str, items: Vec<Item>) -> (Peer, Talk) {
        let body = serde_json::json!({ "name": name, "site": "default", "ttl_s": 600 });
        let first = self.lab.nodes[0].client();
        let token = self.runtime.block_on(first.post("/v1/tokens", &body)).unwrap();
        let peer = Peer::enlist_by(token["token"].as_str().unwrap(), &self.lab.charter, name);
        let second = &self.lab.nodes[1];
        let talk = peer.dial_at((second.id, second.addr), has(items));
        (peer, talk)
    }

    /// A beacon for this head, newer than the ones before.
    fn beacon(&mut self, seq: u64, hash: ItemHash) -> Item {
        self.counter = now().max(self.counter + 1);
        let beacon = Beacon {
            version: 1,
            publisher: self.feed.publisher.id,
            epoch: 1,
            head: Some(BeaconHead { seq, hash }),
            counter: self.counter,
            time: self.counter,
            expires: self.counter + 3_600,
        };
        let envelope = Envelope::sign(&beacon, self.feed.publisher.fleet, &self.key).unwrap();
        beacon.item(envelope)
    }
}

/// T031: a beacon, well signed, for a head that the feed never had: it is refused and not passed
/// on, with an event and counters that say what it means. A good one after it is taken by all.
#[test]
fn t031_a_beacon_for_a_head_that_never_was_is_an_alarm() {
    let mut scene = Scene::new();
    let (_peer, talk) = scene.insider("insider", Vec::new());
    let lie = scene.beacon(1, ItemHash([7; 32]));
    talk.push(&lie);
    let [first, second] = [0, 1].map(|n| scene.lab.nodes[n].id);
    let second = scene.lab.nodes.iter().find(|n| n.id == second).unwrap();
    scene.await_counter(second, "items_refused", "beacon_unknown_head", 1);
    assert_eq!(scene.counter(second, "beacons", "alarm"), 1);
    scene.await_event(second, "beacon_alarm", "acme: a beacon names another entry 1");
    let state = |s: &Scene, n: usize| s.status(&s.lab.nodes[n])["freshness"][0].clone();
    assert_eq!(state(&scene, 1)["state"], "fresh", "by the beacon before");

    let head = scene.feed.head.hash();
    let truth = scene.beacon(1, head);
    talk.push(&truth);
    for node in 0..2 {
        wait_until("the good beacon", || {
            state(&scene, node)["until"].as_u64() == Some(scene.counter + 3_600)
        });
    }
    let first = scene.lab.nodes.iter().find(|n| n.id == first).unwrap();
    assert_eq!(scene.counter(first, "items_refused", "beacon_unknown_head"), 0);
    assert_eq!(scene.counter(first, "beacons", "alarm"), 0);
}

/// A5: a beacon names newer entries than a host has. It asks whoever passed the beacon on for them,
/// and the beacon takes effect when they are there. Where they are kept back, the host says after a
/// minute that news are withheld; when they come after all, that is over.
#[test]
fn t031_a_beacon_ahead_fetches_the_gap_or_says_what_is_withheld() {
    let mut scene = Scene::new();
    let items: Vec<Item> = (0..3).map(|_| scene.feed.go_on()).collect();
    let [one, two, three] = &items[..] else { panic!("three entries") };
    let (_peer, talk) = scene.insider("insider", vec![one.clone(), two.clone()]);
    let ahead = scene.beacon(3, two.envelope.hash());
    let until = scene.counter + 3_600;
    talk.push(&ahead);
    for node in &scene.lab.nodes {
        scene.await_counter(node, "items_committed", "entry", 3);
        let feed = || scene.status(node)["freshness"][0].clone();
        wait_until("the beacon", || feed()["until"].as_u64() == Some(until));
        assert!(feed()["behind"].is_null());
    }
    assert!(scene.counter(&scene.lab.nodes[1], "items_pending", "beacon") >= 1);

    let withheld = scene.beacon(4, three.envelope.hash());
    talk.push(&withheld);
    let behind = |s: &Scene| s.status(&s.lab.nodes[1])["freshness"][0]["behind"].clone();
    wait_until("the host to see that it is behind", || behind(&scene)["seq"] == 4);
    assert_eq!(scene.counter(&scene.lab.nodes[1], "beacons", "withheld"), 0, "a minute's grace");
    scene.lab.pass(Duration::from_secs(61));
    let second = &scene.lab.nodes[1];
    scene.await_counter(second, "beacons", "withheld", 1);
    scene.await_event(second, "news_withheld", "the feed goes up to 4");
    let text = scene.status(second)["freshness"][0]["text"].to_string();
    assert!(text.contains("entries up to 4 have not come"), "{text}");

    talk.push(three);
    wait_until("that to be over", || behind(&scene).is_null());
    for node in &scene.lab.nodes {
        scene.await_counter(node, "items_committed", "entry", 4);
        let feed = || scene.status(node)["freshness"][0].clone();
        wait_until("the beacon", || feed()["until"].as_u64() == Some(scene.counter + 3_600));
    }
    assert_eq!(scene.counter(&scene.lab.nodes[1], "beacons", "withheld"), 1, "told once");
}
