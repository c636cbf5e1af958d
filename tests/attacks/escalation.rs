//! Escalation of privilege (A19): a key that may release some packages releases others, or gives
//! itself the right.
//!
//! Who can: a publisher, or its stolen key. What must hold: names are checked against the patterns
//! of key and group although every signature is good; rights are given by the keys of other roles
//! only.

use std::path::Path;

use stork_publisher::charter::{InitOptions, RoleKeys, init, read_file};
use stork_publisher::keys::Passphrase;
use stork_tests::raw_push::now;
use stork_wire::charter::PublisherDoc;
use stork_wire::codec::List;
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Envelope, SecretKey};

use crate::stage::Stage;

/// A charter whose publisher may release `app*` only.
fn narrow(charter: &Path) {
    std::fs::remove_dir_all(charter).unwrap();
    let options = InitOptions {
        dir: charter.to_owned(),
        fleet: "lab".parse().unwrap(),
        groups: vec!["web".parse().unwrap()],
        publisher: "acme".parse().unwrap(),
        packages: vec!["app*".parse().unwrap()],
        provides: Vec::new(),
        homes: Vec::new(),
        valid_days: 30,
        release_key: None,
        beacon_keys: Vec::new(),
        passphrase: Passphrase::None,
        roles: RoleKeys::default(),
    };
    init(&options, now()).unwrap();
}

/// `gcc` by a key that was granted `app*`, also with a signature of somebody else beside it; and a
/// publisher document by which the release key widens its own pattern.
#[test]
fn t002_a_key_beyond_its_pattern() {
    let mut stage = Stage::prepared(narrow);
    let feed = stage.feed();
    let fleet = feed.publisher.fleet;
    let gcc = feed.next_with(|r| r.package = "gcc".parse().unwrap());
    let good = feed.sign(&gcc);
    let mut beside = good.clone();
    let stranger = SecretKey::from_seed(&[5; 32]);
    beside.add(stranger.public(), stranger.sign(b"junk")).unwrap();
    for envelope in [good, beside] {
        stage.refuses("out_of_scope", &feed.item(envelope, gcc.seq));
    }

    let log = LogId::publisher(feed.publisher.id);
    let items = read_file(&stage.lab.charter).unwrap().items;
    let first = items.iter().find(|i| i.log == log).unwrap();
    let doc: PublisherDoc = first.envelope.claimed().unwrap();
    let mut key = doc.release_keys[0].clone();
    key.packages = List::truncated(["*".parse().unwrap()]);
    let wide = PublisherDoc {
        number: 2,
        prev: Some(first.envelope.hash()),
        release_keys: List::truncated([key]),
        ..doc
    };
    let envelope = Envelope::sign(&wide, fleet, &feed.publisher.key).unwrap();
    let item = Item { kind: ItemKind::Publisher, log, seq: 2, envelope };
    stage.refuses("unauthorised_key", &item);
    stage.good_news("2");
}
