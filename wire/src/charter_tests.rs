//! What no document of any kind may say, and thresholds that somebody tries to reach alone.

use crate::charter::{
    Authority, GroupDoc, PublisherDoc, PublisherGrant, ReleaseKey, Role, RootDoc, Survivor,
};
use crate::codec::{Blob, List, encode};
use crate::ids::{FleetId, ItemHash, Position, PublicKey, PublisherId};
use crate::sign::{Body, Envelope, KeySignature, SecretKey, VerifyError};

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

/// A role of these keys.
pub(crate) fn role(ns: &[u8], threshold: u8) -> Role {
    let mut keys: Vec<PublicKey> = ns.iter().map(|n| key(*n).public()).collect();
    keys.sort();
    Role { keys: List::new(keys).unwrap(), threshold }
}

/// A root document with this role in one of its three places.
fn root(place: usize, odd: &Role) -> RootDoc {
    let of = |n: usize| if n == place { odd.clone() } else { role(&[9], 1) };
    let authority = Authority { names: "*".parse().unwrap(), role: of(2) };
    RootDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "test".parse().unwrap(),
        issued: 1,
        expires: 2,
        root: of(0),
        admission: of(1),
        authorities: List::truncated([authority]),
        admission_before: List::empty(),
    }
}

pub(crate) fn group(authority: &Role) -> GroupDoc {
    GroupDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "web".parse().unwrap(),
        issued: 1,
        expires: 2,
        authority: authority.clone(),
        publishers: List::truncated([PublisherGrant {
            publisher: PublisherId([1; 32]),
            name: "acme".parse().unwrap(),
            packages: List::truncated(["*".parse().unwrap()]),
            provides: List::empty(),
            release_bytes_max: 0,
        }]),
        veto: List::empty(),
        lifts: List::empty(),
        private: None,
        beacon_s: None,
    }
}

fn publisher(root: &Role) -> PublisherDoc {
    PublisherDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "acme".parse().unwrap(),
        issued: 1,
        expires: 2,
        root: root.clone(),
        epoch: 1,
        survivor: None,
        release_keys: List::truncated([ReleaseKey {
            key: key(5).public(),
            packages: List::truncated(["*".parse().unwrap()]),
            not_after: 2,
            valid_through: None,
        }]),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: List::empty(),
        compacts: None,
    }
}

/// Is it taken when its bytes come from somebody else, whoever signed them?
fn taken<T: Body>(doc: &T) -> bool {
    let body = Blob::new(encode(doc)).unwrap();
    Envelope { body, signatures: List::empty() }.claimed::<T>().is_ok()
}

/// T005: a threshold of none, or of more than there are keys, in any role of any document, is
/// refused when the bytes are read, before anybody looks at signatures.
#[test]
fn t005_impossible_thresholds_in_any_document() {
    let all = |role: &Role| {
        let roots = (0..3).map(|place| taken(&root(place, role)));
        roots.chain([taken(&group(role)), taken(&publisher(role))]).collect::<Vec<bool>>()
    };
    for good in [role(&[1], 1), role(&[1, 2], 1), role(&[1, 2], 2), role(&[1, 2, 3], 2)] {
        assert_eq!(all(&good), [true; 5], "{good:?}");
    }
    for bad in [role(&[1], 0), role(&[1, 2], 0), role(&[1], 2), role(&[1, 2], 3), role(&[], 0)] {
        assert_eq!(all(&bad), [false; 5], "{bad:?}");
    }
    assert_eq!(all(&role(&[], 1)), [false; 5]);
    assert_eq!(all(&role(&[1, 2], u8::MAX)), [false; 5]);
}

/// T004: one key does not become two by signing under the id of another key, nor by being named
/// twice in a role, which no document may do.
#[test]
fn t004_one_key_under_two_ids() {
    let doc = root(0, &role(&[1, 2], 2));
    let fleet = FleetId([3; 32]);
    let mut e = Envelope::sign(&doc, fleet, &key(1)).unwrap();
    let own: KeySignature = e.signatures[0].clone();
    e.add(key(2).public(), own.signature).unwrap();
    let needed = Err(VerifyError::ThresholdNotMet { good: 1, needed: 2 });
    assert_eq!(e.verify::<RootDoc>(fleet, &doc.root.keys, 2), needed);
    // Also where a caller names the key twice.
    let twice = [key(1).public(), key(1).public()];
    assert_eq!(e.verify::<RootDoc>(fleet, &twice, 2), needed);
    let twice = Role { keys: List::new(twice.to_vec()).unwrap(), threshold: 2 };
    assert!(!taken(&root(0, &twice)) && !taken(&group(&twice)) && !taken(&publisher(&twice)));
}

/// A document that begins an epoch with an empty feed says what it carries over, at its end and
/// nowhere else: those without it are what they were before there was such a field.
#[test]
fn what_begins_with_an_empty_feed() {
    let plain = PublisherDoc {
        number: 2,
        prev: Some(ItemHash([1; 32])),
        epoch: 3,
        ..publisher(&role(&[4], 1))
    };
    let at = |epoch, seq| Survivor { at: Position { epoch, seq }, hash: ItemHash([3; 32]) };
    let with = PublisherDoc { compacts: Some(at(2, 300)), ..plain.clone() };
    let (short, long) = (encode(&plain), encode(&with));
    assert_eq!(long[..short.len()], short);
    let tail = [&[1, 2, 0xac, 2][..], &[3; 32]].concat();
    assert_eq!(long[short.len()..], tail);
    assert!(taken(&plain) && taken(&with));
    let said = Blob::new([short.as_slice(), &[0]].concat()).unwrap();
    let said = Envelope { body: said, signatures: List::empty() };
    assert!(said.claimed::<PublisherDoc>().is_err(), "`none` is not said");
    for bad in [at(3, 1), at(0, 1), at(2, 0)] {
        assert!(!taken(&PublisherDoc { compacts: Some(bad), ..plain.clone() }), "{bad:?}");
    }
    let both = PublisherDoc { survivor: Some(at(1, 1)), ..with };
    assert!(!taken(&both), "it follows no entry");
}
