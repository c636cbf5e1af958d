//! Key compromise below the threshold (A20): some keys of a role are stolen, but not enough of
//! them.
//!
//! Who can: the thief. What must hold: distinct public keys are counted, once each; no document
//! lowers its own threshold, or has one of 0; a bad signature beside enough good ones does no harm.

use stork_publisher::charter::read_file;
use stork_publisher::keys::{Passphrase, read_secret};
use stork_wire::charter::{Role, RootDoc};
use stork_wire::codec::{Blob, List, encode};
use stork_wire::ids::{FleetId, LogId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, Envelope, SecretKey, signed_bytes};

use crate::stage::{OTHER, Stage, VICTIM};

fn sign(doc: &RootDoc, fleet: FleetId, keys: &[&SecretKey]) -> Envelope {
    let body = Blob::new(encode(doc)).unwrap();
    let mut envelope = Envelope { body, signatures: List::empty() };
    let message = signed_bytes(RootDoc::CONTEXT, fleet, &envelope.body);
    for key in keys {
        envelope.add(key.public(), key.sign(&message)).unwrap();
    }
    envelope
}

fn item(fleet: FleetId, number: u64, envelope: Envelope) -> Item {
    Item { kind: ItemKind::Root, log: LogId::root(fleet), seq: number, envelope }
}

/// The root goes from one key to two of three. A thief who has one of them takes nothing over:
/// alone, counted twice, beside a stranger, or with a threshold of 0. Two of the three change the
/// root, with a bad signature beside theirs.
#[test]
fn t004_t005_t007_one_stolen_key_of_three() {
    let mut stage = Stage::new();
    let items = read_file(&stage.lab.charter).unwrap().items;
    let first = items.iter().find(|i| i.kind == ItemKind::Root).unwrap();
    let doc: RootDoc = first.envelope.claimed().unwrap();
    let fleet = doc.fleet_id();
    let old = read_secret(&stage.lab.charter.join("keys/root"), &Passphrase::None).unwrap();
    let keys = [1, 2, 3].map(|n| SecretKey::from_seed(&[n; 32]));
    let mut public = keys.each_ref().map(SecretKey::public);
    public.sort_unstable();
    let root = Role { keys: List::truncated(public), threshold: 2 };
    let second = RootDoc { number: 2, prev: Some(first.envelope.hash()), root, ..doc };
    let signed = sign(&second, fleet, &[&old, &keys[0], &keys[1]]);
    let (peer, talk) = stage.insider();
    talk.push(&item(fleet, 2, signed.clone()));
    for node in [OTHER, VICTIM] {
        stage.await_counter(node, "items_committed", "root", 1);
    }
    drop((talk, peer));

    let next = RootDoc { number: 3, prev: Some(signed.hash()), ..second };
    let (thief, stranger) = (&keys[2], SecretKey::from_seed(&[9; 32]));
    let mine = RootDoc { root: Role::single(thief.public()), ..next.clone() };
    let zero = RootDoc { root: Role { threshold: 0, ..next.root.clone() }, ..next.clone() };
    let mut twice = sign(&next, fleet, &[thief]);
    twice.signatures = List::truncated([twice.signatures[0].clone(), twice.signatures[0].clone()]);
    let attempts = [
        ("threshold_not_met", item(fleet, 3, sign(&next, fleet, &[thief]))),
        ("threshold_not_met", item(fleet, 3, sign(&mine, fleet, &[thief]))),
        ("threshold_not_met", item(fleet, 3, sign(&next, fleet, &[thief, &stranger]))),
        ("malformed", item(fleet, 3, twice)),
        ("malformed", item(fleet, 3, sign(&zero, fleet, &[&keys[0], &keys[1]]))),
    ];
    for (code, attempt) in &attempts {
        stage.refuses(code, attempt);
    }
    let mut good = sign(&next, fleet, &[&keys[0], &keys[1]]);
    good.add(thief.public(), thief.sign(b"something else")).unwrap();
    let (_peer, talk) = stage.insider();
    talk.push(&item(fleet, 3, good));
    for node in [OTHER, VICTIM] {
        stage.await_counter(node, "items_committed", "root", 2);
    }
    drop(talk);
    stage.good_news("2");
}
