//! Arbitrary package (A1): software that no publisher of the fleet has released.
//!
//! Who can: any host, with keys of its own, and any publisher, in the feed of another. What must
//! hold: only keys that the publisher's document names count; the rest is refused, changes nothing
//! and goes no further.

use std::path::PathBuf;

use stork_publisher::keys::{Passphrase, read_secret};
use stork_tests::feed::Feed;
use stork_tests::wait::wait_until;
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::sign::SecretKey;

use crate::stage::{Stage, VICTIM};

/// Entries by a key of nobody, by another publisher's key, by the publisher's root key, and of a
/// publisher that nobody knows.
#[test]
fn t001_an_arbitrary_package() {
    let mut stage = Stage::new();
    let feed = stage.feed();
    let entry = feed.next_with(|r| r.version = "2".parse().unwrap());
    let fleet = feed.publisher.fleet;
    let key = |path: PathBuf| read_secret(&path, &Passphrase::None).unwrap();
    let keys = [
        SecretKey::from_seed(&[3; 32]),
        key(stage.lab.others[0].join("keys/release")),
        key(stage.lab.charter.join("keys/publisher")),
    ];
    for key in &keys {
        let item = feed.item(Feed::sign_as(&entry, fleet, key), entry.seq);
        stage.refuses("unauthorised_key", &item);
    }
    let mut nobody = entry;
    (nobody.publisher, nobody.seq, nobody.prev) = (PublisherId([9; 32]), 1, None);
    let mut item = feed.item(Feed::sign_as(&nobody, fleet, &keys[0]), 1);
    item.log = LogId::feed(nobody.publisher);
    wait_until("the last insider to be gone", || stage.status(VICTIM)["links"] == 1);
    let before = stage.state();
    let (_peer, talk) = stage.insider();
    talk.push(&item);
    stage.await_counter(VICTIM, "items_pending", "entry", 1);
    assert_eq!(stage.state(), before, "it waits for a document that never comes");
    stage.good_news("2");
}
