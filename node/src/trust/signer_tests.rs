//! Whose signature counts: signatures are no part of what is signed, so that anybody who passes an
//! item on can add some that are worth nothing.

use stork_wire::beacon::Beacon;
use stork_wire::charter::{PublisherDoc, ReleaseKey};
use stork_wire::codec::List;
use stork_wire::ids::LogId;
use stork_wire::item::Item;
use stork_wire::sign::{Envelope, SecretKey, SignatureBytes};

use super::epoch_tests::document;
use super::tests::{Fixture, NOW, key, refused};
use super::{Fact, Trust, Verdict};

/// The item with a signature of nothing under another key's id.
fn with_junk(item: &Item, by: &SecretKey) -> Item {
    let mut item = item.clone();
    item.envelope.add(by.public(), SignatureBytes([7; 64])).unwrap();
    item
}

fn release_key(n: u8, pattern: &str) -> ReleaseKey {
    ReleaseKey {
        key: key(n).public(),
        packages: List::truncated([pattern.parse().unwrap()]),
        not_after: NOW + 1_000_000,
        valid_through: None,
    }
}

/// T002: a key that may release some packages does not release others by naming, beside its own
/// signature, the key that may. A signature of nothing beside that key's own does no harm.
#[test]
fn t002_a_junk_signature_widens_nothing() {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let mut keys = [release_key(5, "hello-doc"), release_key(7, "hello-libs")];
    keys.sort_by_key(|k| k.key);
    doc.release_keys = List::truncated(keys);
    let f = f.with_publisher(&doc);
    let entry = f.entry(1, None, &[], f.release("hello-libs", "1", 1));
    let (other, own) = (f.item(&entry, &key(5)), f.item(&entry, &key(7)));
    for item in [other.clone(), with_junk(&other, &key(7)), with_junk(&other, &key(9))] {
        let r = refused(f.trust().judge(&item, NOW));
        assert_eq!(r.code(), "out_of_scope", "{r}");
    }
    for item in [own.clone(), with_junk(&own, &key(5)), with_junk(&own, &key(9))] {
        assert!(matches!(f.trust().judge(&item, NOW), Verdict::Accepted { .. }));
    }
}

/// A beacon stands as long as the key that signed it is named, whatever stands beside it: after
/// the next document, after a restart, and no longer than that.
#[test]
fn a_beacon_is_of_the_key_that_signed_it() {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    doc.beacon_keys = List::truncated([key(6).public()]);
    let f = f.with_publisher(&doc);
    let beacon = Beacon {
        version: 1,
        publisher: f.publisher,
        epoch: 1,
        head: None,
        counter: NOW,
        time: NOW,
        expires: NOW + 3_600,
    };
    let good = beacon.item(Envelope::sign(&beacon, f.fleet, &key(6)).unwrap());
    let first = |n: &u8| key(*n).public().key_id() < key(6).public().key_id();
    let before = (8..200).find(first).map(key).unwrap();
    let item = with_junk(&good, &before);
    assert_eq!(item.envelope.signatures[0].key, before.public().key_id());

    let next = |keys: &[&SecretKey]| {
        let mut next = doc.clone();
        (next.number, next.prev) = (2, Some(f.documents[2].envelope.hash()));
        next.beacon_keys = List::truncated(keys.iter().map(|k| k.public()));
        document(&f, &next, &key(4))
    };
    let held = |t: &Trust| t.heads().iter().any(|h| h.log == LogId::beacon(f.publisher));
    let take = |t: &mut Trust, item: &Item| {
        let Verdict::Accepted { fact, .. } = t.judge(item, NOW) else { panic!("not accepted") };
        if let Fact::Charter(_) = fact {
            t.take_unlocked(item);
        }
    };
    // Taken live, and taken from the journal.
    for restart in [false, true] {
        for (keys, stands) in [(&[&key(6)][..], true), (&[&before], false)] {
            let mut t = f.trust();
            if restart {
                t.restore_beacon(&item);
            } else {
                take(&mut t, &item);
            }
            assert!(held(&t));
            take(&mut t, &next(keys));
            assert_eq!(held(&t), stands, "after a restart: {restart}");
        }
    }
}
