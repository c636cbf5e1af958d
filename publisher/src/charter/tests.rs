//! Charters from their founding to the rules that a changed one breaks.

use super::*;
use crate::keys::{Passphrase, Signer, read_secret};
use std::path::PathBuf;
use stork_wire::sign::Envelope;
use tempfile::TempDir;

/// A change by the keys that lie in the folder, unprotected.
pub(crate) fn change(dir: PathBuf, life: Life) -> Change {
    let passphrase = Passphrase::None;
    Change { dir, keys: Vec::new(), passphrase, out: None, dry_run: false, life }
}

/// How a small charter is founded; tests say what differs.
pub(super) fn options(dir: &TempDir) -> InitOptions {
    InitOptions {
        dir: dir.path().join("c"),
        fleet: "acme".parse().unwrap(),
        groups: vec!["web".parse().unwrap(), "lab/db".parse().unwrap()],
        publisher: "ops".parse().unwrap(),
        packages: vec![],
        provides: Vec::new(),
        homes: vec![],
        valid_days: 10,
        release_key: None,
        beacon_keys: Vec::new(),
        passphrase: Passphrase::None,
        roles: RoleKeys::default(),
    }
}

/// What is founded can be opened again, says who it is for, and is never overwritten.
#[test]
fn founding() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir);
    let made = init(&options, 1_000).unwrap().charter.unwrap();
    let (charter, profile) = open(&options.dir).unwrap();
    assert_eq!(charter.items, made.items);
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
    let made = init(&options, 1_000).unwrap().charter.unwrap();
    let key = |name: &str| {
        let path = options.dir.join("keys").join(name);
        Signer::File(read_secret(&path, &Passphrase::None).unwrap())
    };
    let old = made.items[0].clone();
    let fleet = made.fleet;
    let second = |prev, signer: &Signer| {
        let mut doc = made.root.clone();
        doc.number = 2;
        doc.prev = Some(prev);
        doc.root = Role::single(key("admission").public());
        let mut envelope = signer.sign(&doc, fleet).unwrap();
        let Signer::File(new) = key("admission") else { panic!() };
        let own = Envelope::sign(&doc, fleet, &new).unwrap();
        envelope.add(new.public(), own.signatures[0].signature).unwrap();
        let mut items = made.items.clone();
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
    let made = init(&options, 1_000).unwrap().charter.unwrap();
    let path = options.dir.join("keys/release");
    let thief = Signer::File(read_secret(&path, &Passphrase::None).unwrap());
    let mut doc = made.groups.first_key_value().unwrap().1.clone();
    doc.name = "stolen".parse().unwrap();
    doc.authority = Role::single(thief.public());
    let log = LogId::group(doc.group_id());
    let envelope = thief.sign(&doc, made.fleet).unwrap();
    let mut items = made.items;
    items.push(Item { kind: ItemKind::Group, log, seq: 1, envelope });
    assert!(matches!(
        Charter::from_items(&items),
        Err(CharterError::Document { kind: "group", number: 1, .. })
    ));
}

/// What cannot be says of which role, and what was typed.
#[test]
fn errors_name_the_role() {
    let dir = TempDir::new().unwrap();
    let roles = RoleKeys { thresholds: vec![(RoleName::Admission, 3)], ..RoleKeys::default() };
    let e = init(&InitOptions { roles, ..options(&dir) }, 1_000).unwrap_err().to_string();
    assert!(e.starts_with("3 cannot sign for the role admission, which has 1 key:"), "{e}");
    let options = options(&dir);
    init(&options, 1_000).unwrap();
    let change = change(options.dir, Life::days(2_000, 365));
    let what = RoleChange { remove: vec!["SHA256:x".into()], ..RoleChange::default() };
    let e = rotate(&change, &RoleName::Group("web".into()), &what).unwrap_err().to_string();
    assert_eq!(e, "the charter has no key `SHA256:x` in the role group:web");
    let e = "relaese".parse::<RoleName>().unwrap_err();
    assert!(e.starts_with("`relaese` is no role: root, admission,"), "{e}");
}
