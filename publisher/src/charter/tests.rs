//! Charters from their founding to the rules that a changed one breaks.

use super::*;
use crate::keys::{Passphrase, Signer, read_secret};
use stork_wire::sign::Envelope;
use tempfile::TempDir;

fn options(dir: &TempDir) -> InitOptions {
    InitOptions {
        dir: dir.path().join("c"),
        fleet: "acme".parse().unwrap(),
        groups: vec!["web".parse().unwrap(), "lab/db".parse().unwrap()],
        publisher: "ops".parse().unwrap(),
        packages: vec![],
        homes: vec![],
        valid_days: 10,
        release_key: None,
        beacon_keys: Vec::new(),
        passphrase: Passphrase::None,
    }
}

/// What is founded can be opened again, says who it is for, and is never overwritten.
#[test]
fn founding() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir);
    let made = init(&options, 1_000).unwrap();
    let (charter, profile) = open(&options.dir).unwrap();
    assert_eq!(charter.items, made.charter.items);
    assert_eq!(charter.items.len(), 4);
    assert_eq!(charter.root.expires, 1_000 + 10 * 86_400);
    assert_eq!(charter.group_named("lab/db"), Some(profile.groups[0].id));
    let grant = &charter.groups[&profile.groups[1].id].publishers[0];
    assert_eq!(grant.publisher, profile.publisher);
    let key = read_secret(profile.release_key.unwrap().as_ref(), &Passphrase::None).unwrap();
    let doc = &charter.publishers[&profile.publisher];
    assert_eq!(doc.release_keys[0].key, key.public());
    assert!(matches!(init(&options, 1_000), Err(CharterError::Exists(_))));
}

/// A second root document must be signed by the first one's keys too, and must name it.
#[test]
fn chains_are_walked() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir);
    let made = init(&options, 1_000).unwrap();
    let key = |name: &str| {
        let path = options.dir.join("keys").join(name);
        Signer::File(read_secret(&path, &Passphrase::None).unwrap())
    };
    let old = made.charter.items[0].clone();
    let fleet = made.charter.fleet;
    let second = |prev, signer: &Signer| {
        let mut doc = made.charter.root.clone();
        doc.number = 2;
        doc.prev = Some(prev);
        doc.root = Role::single(key("admission").public());
        let mut envelope = signer.sign(&doc, fleet).unwrap();
        let Signer::File(new) = key("admission") else { panic!() };
        let own = Envelope::sign(&doc, fleet, &new).unwrap();
        envelope.add(new.public(), own.signatures[0].signature).unwrap();
        let mut items = made.charter.items.clone();
        items.push(Item { seq: 2, envelope, ..old.clone() });
        Charter::from_items(&items)
    };
    let good = old.envelope.hash();
    assert_eq!(second(good, &key("root")).unwrap().root.number, 2);
    let e = second(good, &key("release")).unwrap_err();
    assert!(matches!(e, CharterError::Document { number: 2, .. }) && e.exit() == 4);
    let e = second(ItemHash([9; 32]), &key("root")).unwrap_err();
    assert!(matches!(e, CharterError::Broken(_)));
}

/// A group that the root names no authority for, or that somebody else signed, is refused.
#[test]
fn groups_need_their_authority() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir);
    let made = init(&options, 1_000).unwrap();
    let path = options.dir.join("keys/release");
    let thief = Signer::File(read_secret(&path, &Passphrase::None).unwrap());
    let mut doc = made.charter.groups.first_key_value().unwrap().1.clone();
    doc.name = "stolen".parse().unwrap();
    doc.authority = Role::single(thief.public());
    let log = LogId::group(doc.group_id());
    let envelope = thief.sign(&doc, made.charter.fleet).unwrap();
    let mut items = made.charter.items;
    items.push(Item { kind: ItemKind::Group, log, seq: 1, envelope });
    assert!(matches!(
        Charter::from_items(&items),
        Err(CharterError::Document { kind: "group", number: 1, .. })
    ));
}

/// A new epoch is the next document of the chain. An old release key stays for what it signed, a
/// new one may what it could; and only the publisher's root key can do it.
#[test]
fn a_new_epoch() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir);
    let made = init(&options, 1_000).unwrap();
    let hash = ItemHash([7; 32]);
    let new_key = dir.path().join("new");
    crate::keys::write_key(&new_key, &crate::keys::generate().unwrap(), "new", None).unwrap();
    let mut epoch = EpochOptions {
        dir: options.dir.clone(),
        after: Some((41, hash)),
        of_epoch: None,
        key: Some(options.dir.join("keys/authority").to_str().unwrap().to_owned()),
        passphrase: Passphrase::None,
        release_key: Some(dir.path().join("new.pub")),
        beacon_keys: vec![dir.path().join("new.pub"), new_key],
        valid_days: 10,
    };
    assert!(new_epoch(&epoch, 2_000).is_err(), "by another key");
    assert_eq!(read_file(&options.dir).unwrap().items, made.charter.items);
    epoch.key = None;
    let (_, doc) = new_epoch(&epoch, 2_000).unwrap();
    let (charter, profile) = open(&options.dir).unwrap();
    assert_eq!(charter.publishers[&profile.publisher], doc);
    assert_eq!((doc.number, doc.epoch, charter.items.len()), (2, 2, 5));
    let at = stork_wire::ids::Position { epoch: 1, seq: 41 };
    assert_eq!(doc.survivor, Some(stork_wire::charter::Survivor { at, hash }));
    let mut ends: Vec<_> = doc.release_keys.iter().map(|k| k.valid_through).collect();
    ends.sort();
    assert_eq!(ends, [None, Some(at)]);
    assert_eq!(doc.beacon_keys.len(), 1, "both halves of one key");
    let names = |k: &stork_wire::charter::ReleaseKey| k.packages.clone();
    assert_eq!(names(&doc.release_keys[0]), names(&doc.release_keys[1]));
    // From nothing, and back in an epoch before the last.
    epoch = EpochOptions { after: None, release_key: None, ..epoch };
    epoch.beacon_keys.clear();
    let kept = new_epoch(&epoch, 3_000).unwrap().1;
    assert_eq!((kept.survivor, kept.beacon_keys), (None, doc.beacon_keys));
    epoch = EpochOptions { after: Some((3, hash)), of_epoch: Some(1), ..epoch };
    let doc = new_epoch(&epoch, 4_000).unwrap().1;
    assert_eq!((doc.epoch, doc.survivor.unwrap().at.epoch), (4, 1));
}
