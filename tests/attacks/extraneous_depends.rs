//! Extraneous dependencies (A14): a relay says of a package that it needs another one.
//!
//! Who can: any host that passes an entry on. What must hold: what a package needs and provides
//! stands inside of the signed bytes, and nothing else is asked; so the entry is refused, and
//! nothing is fetched.

use stork_tests::feed::Feed;
use stork_wire::codec::{Blob, List, encode};
use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::sign::SecretKey;

use crate::stage::{OTHER, Stage, VICTIM};

/// A dependency and a provided name, added to a signed entry with its old signature and with a new
/// one by the relay.
#[test]
fn t039_a_relay_adds_a_dependency_to_news() {
    let mut stage = Stage::new();
    stage.write_vm(VICTIM, "pulls", "depends = \"pull\"", "[[subscribe]]\npackage = \"app\"");
    stage.await_shows(VICTIM, "pulls", &[("app", "1")]);
    let mut feed = stage.feed();
    // A package that the VM could have, but does not ask for.
    let tool =
        feed.announce(|r| (r.package, r.version) = ("tool".parse().unwrap(), "1".parse().unwrap()));
    stage.spreads(&[tool]);
    let entry = feed.next_with(|r| {
        (r.package, r.version) = ("app".parse().unwrap(), "2".parse().unwrap());
    });
    let good = feed.sign(&entry);
    let changes: [fn(&mut Release); 2] = [
        |r| r.depends = List::truncated(["tool".parse().unwrap()]),
        |r| r.provides = List::truncated(["tool".parse().unwrap()]),
    ];
    let fetched = stage.counter(VICTIM, "contents", "whole");
    for change in changes {
        let mut changed: Entry = entry.clone();
        let Kind::Release(release) = &mut changed.kind else { panic!("a release") };
        change(release);
        let mut relayed = good.clone();
        relayed.body = Blob::new(encode(&changed)).unwrap();
        stage.refuses("bad_signature", &feed.item(relayed, entry.seq));
        let relay = SecretKey::from_seed(&[8; 32]);
        let resigned = Feed::sign_as(&changed, feed.publisher.fleet, &relay);
        stage.refuses("unauthorised_key", &feed.item(resigned, entry.seq));
    }
    assert_eq!(stage.counter(VICTIM, "contents", "whole"), fetched);
    assert_eq!(stage.shows(VICTIM, "pulls").len(), 1);
    // The entry as it was signed.
    stage.spreads(&[feed.item(good, entry.seq)]);
    for (node, vm) in [(OTHER, "vm"), (VICTIM, "vm"), (VICTIM, "pulls")] {
        stage.await_shows(node, vm, &[("app", "2")]);
    }
    stage.good_news("3");
}
