//! Changes of charters: chains that go on, thresholds that are met by several people, and rules
//! that a change must not break.

use std::path::{Path, PathBuf};

use super::*;
use crate::keys::{Passphrase, read_public, write_key};
use stork_wire::charter::Survivor;
use stork_wire::ids::{ItemHash, Position};
use tempfile::TempDir;

const DAY: u64 = 86_400;

/// A key and the path of its public half.
fn key(dir: &TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    write_key(&path, &crate::keys::generate().unwrap(), name, None).unwrap();
    path.with_extension("pub")
}

fn found(dir: &TempDir, roles: RoleKeys) -> (PathBuf, Initialised) {
    let options = InitOptions {
        groups: vec!["web".parse().unwrap(), "db".parse().unwrap()],
        packages: vec!["a*".parse().unwrap()],
        roles,
        ..tests::options(dir)
    };
    let made = init(&options, 1_000).unwrap();
    (options.dir, made)
}

fn change(dir: &Path) -> Change {
    Change {
        dir: dir.into(),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life: Life::days(2_000, 365),
    }
}

fn with_key(dir: &Path, key: &Path) -> Change {
    Change { keys: vec![key.with_extension("").to_str().unwrap().to_owned()], ..change(dir) }
}

fn pending(changed: &Changed) -> PathBuf {
    match &changed.outcome {
        Outcome::Pending(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

fn agree(_: &[Step]) -> Result<bool, CharterError> {
    Ok(true)
}

fn ops(dir: &Path) -> PublisherDoc {
    let (charter, profile) = open(dir).unwrap();
    charter.publishers[&profile.publisher].clone()
}

fn epoch(after: Option<(u64, ItemHash)>) -> EpochOptions {
    EpochOptions {
        compacts: None,
        publisher: None,
        after,
        of_epoch: None,
        release_key: None,
        leaves: Leaves::Replaced,
        beacon_keys: Vec::new(),
    }
}

/// A new epoch is the next document of the chain. The old release key is in it no more, a new one
/// may what it could; and only the publisher's root key can do it.
#[test]
fn a_new_epoch() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let before = open(&home).unwrap().0.items;
    let old = ops(&home).release_keys[0].clone();
    let hash = ItemHash([7; 32]);
    let new = key(&dir, "new");
    let options = EpochOptions {
        release_key: Some(new.clone()),
        beacon_keys: vec![new.clone(), new.with_extension("")],
        ..epoch(Some((41, hash)))
    };
    let other = with_key(&home, &home.join("keys/authority"));
    assert!(matches!(new_epoch(&other, &options), Err(CharterError::NotASigner(_))));
    assert_eq!(read_file(&home).unwrap().items, before);
    let (changed, doc) = new_epoch(&change(&home), &options).unwrap();
    assert_eq!((changed.outcome, ops(&home)), (Outcome::Made, doc.clone()));
    assert_eq!((doc.number, doc.epoch, doc.beacon_keys.len()), (2, 2, 1));
    let at = Position { epoch: 1, seq: 41 };
    assert_eq!(doc.survivor, Some(Survivor { at, hash }));
    let [only] = &*doc.release_keys else { panic!("{:?}", doc.release_keys) };
    assert_eq!((only.key, &only.packages), (read_public(&new).unwrap().0, &old.packages));
    // Entries of the first epoch are still known for ours.
    let (charter, profile) = open(&home).unwrap();
    assert_eq!(charter.release_keys(profile.publisher, 1), vec![old]);
    assert_eq!(charter.release_keys(profile.publisher, 2), doc.release_keys.to_vec());
    // From nothing, and back in an epoch before the last.
    let kept = new_epoch(&change(&home), &epoch(None)).unwrap().1;
    assert_eq!((kept.survivor, kept.beacon_keys), (None, doc.beacon_keys));
    let back = EpochOptions { of_epoch: Some(1), ..epoch(Some((3, hash))) };
    let doc = new_epoch(&change(&home), &back).unwrap().1;
    assert_eq!((doc.epoch, doc.survivor.unwrap().at.epoch), (4, 1));
}

/// A release key is added within the epoch, and taken away by a new one only; the last one cannot
/// be taken away without another.
#[test]
fn release_keys_come_and_go() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let ci = key(&dir, "ci");
    let names = ["b*".parse().unwrap()];
    let add = |names: &[_]| {
        rotate_release(&change(&home), None, std::slice::from_ref(&ci), names).unwrap().outcome
    };
    assert_eq!(add(&names), Outcome::Made);
    assert_eq!(add(&names), Outcome::AlreadySo);
    let doc = ops(&home);
    assert_eq!((doc.number, doc.epoch, doc.release_keys.len()), (2, 1, 2));
    let id = read_public(&ci).unwrap().0;
    let name = crate::keys::fingerprint(&id);
    let leave = |name: &str| EpochOptions { leaves: Leaves::Key(name.into()), ..epoch(None) };
    let doc = new_epoch(&change(&home), &leave(&name)).unwrap().1;
    assert_eq!((doc.epoch, doc.release_keys.len()), (2, 1));
    let e = new_epoch(&change(&home), &leave(&name)).unwrap_err();
    assert!(matches!(e, CharterError::NoSuch(_)) && e.exit() == 5);
    let last = doc.release_keys[0].key.key_id().to_string();
    let e = new_epoch(&change(&home), &leave(&last)).unwrap_err();
    assert!(matches!(e, CharterError::Usage(_)) && e.exit() == 2);
    // A document that narrows within its epoch is refused, whoever signs it.
    let (charter, profile) = open(&home).unwrap();
    let mut bad = change(&home).next_publisher(&charter, profile.publisher).unwrap();
    let mut keys = bad.release_keys.to_vec();
    keys[0].packages = stork_wire::codec::List::new(vec!["abc".parse().unwrap()]).unwrap();
    bad.release_keys = stork_wire::codec::List::new(keys).unwrap();
    let e = change(&home).make(&charter, &[Doc::Publisher(bad)], "bad").unwrap_err();
    assert!(e.to_string().contains("without a new epoch"), "{e}");
}

/// Groups are founded, grants come and go, and what is so already is not said again.
#[test]
fn groups_and_grants() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let all = Granted::default();
    let make = |name: &str| {
        add_group(&change(&home), &name.parse().unwrap(), &["ops".into()], &all).unwrap().outcome
    };
    assert_eq!(make("lab/x"), Outcome::Made);
    assert_eq!(make("lab/x"), Outcome::AlreadySo);
    let grants = |name: &str| {
        let charter = read_file(&home).unwrap();
        charter.groups[&charter.group_named(name).unwrap()].publishers.to_vec()
    };
    assert_eq!(grants("lab/x")[0].name.as_str(), "ops");
    let less = Granted { packages: vec!["a".parse().unwrap()], ..Granted::default() };
    let dry = Change { dry_run: true, ..change(&home) };
    assert_eq!(grant(&dry, "web", "ops", &less).unwrap().outcome, Outcome::DryRun);
    assert_eq!(grants("web")[0].packages[0].as_str(), "a*");
    assert_eq!(grant(&change(&home), "web", "ops", &less).unwrap().outcome, Outcome::Made);
    assert_eq!(grant(&change(&home), "web", "ops", &less).unwrap().outcome, Outcome::AlreadySo);
    assert_eq!(grants("web")[0].packages[0].as_str(), "a");
    assert_eq!(ungrant(&change(&home), "web", "ops").unwrap().outcome, Outcome::Made);
    assert_eq!(ungrant(&change(&home), "web", "ops").unwrap().outcome, Outcome::AlreadySo);
    assert!(grants("web").is_empty());
    for (group, publisher) in [("nowhere", "ops"), ("web", "nobody")] {
        let e = grant(&change(&home), group, publisher, &all).unwrap_err();
        assert_eq!(e.exit(), 5, "{e}");
    }
    assert!(verify(&home, 3_000).unwrap().faults.is_empty());
}

/// Each role of a charter goes over to another key; the key that founded groups stays.
#[test]
fn roles_rotate() {
    let dir = TempDir::new().unwrap();
    let (home, made) = found(&dir, RoleKeys::default());
    let charter = made.charter.unwrap();
    let name = |k: &Role| crate::keys::fingerprint(&k.keys[0]);
    let group = charter.groups.values().find(|g| g.name.as_str() == "web").unwrap();
    let publisher = charter.publishers.values().next().unwrap();
    let cases = [
        ("admission", name(&charter.root.admission), "root"),
        ("group:web", name(&group.authority), "authority"),
        ("publisher", name(&publisher.root), "publisher"),
        ("root", name(&charter.root.root), "root"),
    ];
    for (i, (role, old, signer)) in cases.into_iter().enumerate() {
        let add = key(&dir, &format!("k{i}"));
        let what = RoleChange {
            add: vec![add.clone()],
            remove: vec![old],
            threshold: None,
            stolen: false,
        };
        let own = home.join("keys").join(signer).to_string_lossy().into_owned();
        let new = add.with_extension("").to_string_lossy().into_owned();
        let keys = if role == "admission" { vec![own] } else { vec![own, new] };
        let how = Change { keys, ..change(&home) };
        let made = rotate(&how, &role.parse().unwrap(), &what).unwrap();
        assert_eq!(made.outcome, Outcome::Made, "{role}");
    }
    let charter = read_file(&home).unwrap();
    assert_eq!((charter.root.number, charter.root.root.keys.len()), (3, 1));
    assert!(verify(&home, 3_000).unwrap().faults.is_empty());
    let authority = name(&charter.root.authorities[0].role);
    let add = vec![key(&dir, "late")];
    let what =
        RoleChange { add: add.clone(), remove: vec![authority], threshold: None, stolen: false };
    let e = rotate(&change(&home), &RoleName::Authority, &what).unwrap_err();
    assert!(matches!(e, CharterError::Follow { .. }), "{e}");
    let what = RoleChange { add, remove: vec![], threshold: Some(3), stolen: false };
    let e = rotate(&change(&home), &RoleName::Authority, &what).unwrap_err();
    assert!(matches!(e, CharterError::Usage(_)), "{e}");
}

/// Two of three found a fleet and change its root: one alone leaves a pending file, which holds
/// nothing; the second makes it whole; a third directory takes the same file.
#[test]
fn two_of_three() {
    let dir = TempDir::new().unwrap();
    let (bob, carol) = (key(&dir, "bob"), key(&dir, "carol"));
    let roles = RoleKeys {
        keys: vec![(RoleName::Root, bob.clone()), (RoleName::Root, carol.clone())],
        thresholds: vec![(RoleName::Root, 2)],
    };
    let (home, made) = found(&dir, roles);
    assert!(made.charter.is_none() && !home.join(BUNDLE_FILE).exists());
    let file = pending(&made.changed);
    let e = import(&home, &file, false).unwrap_err();
    assert!(matches!(&e, CharterError::Unsigned(m) if m.len() == 1), "{e}");
    let away = dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let signed = sign(&with_key(&away, &bob), &file, agree).unwrap();
    assert!(signed.missing().is_empty());
    assert_eq!(sign(&with_key(&away, &bob), &file, agree).unwrap().outcome, Outcome::AlreadySo);
    for place in [&home, &away] {
        assert_eq!(import(place, &file, false).unwrap().outcome, Outcome::Made);
        assert_eq!(import(place, &file, false).unwrap().outcome, Outcome::AlreadySo);
    }
    assert_eq!(read_file(&home).unwrap().items, read_file(&away).unwrap().items);

    // The threshold of the document before counts, not only the new one's.
    let what = RoleChange { threshold: Some(1), ..RoleChange::default() };
    let lower = rotate(&change(&home), &RoleName::Root, &what).unwrap();
    let file = pending(&lower);
    assert_eq!(lower.missing().len(), 1, "{:?}", lower.missing());
    assert!(matches!(import(&home, &file, false), Err(CharterError::Unsigned(_))));
    // Asked again while the first one waits: not written over.
    let again = rotate(&change(&home), &RoleName::Root, &what);
    assert!(matches!(again, Err(CharterError::Exists(_))));
    // Somebody else's key, and a refusal, sign nothing.
    let text = std::fs::read(&file).unwrap();
    let thief = key(&dir, "thief");
    let e = sign(&with_key(&away, &thief), &file, agree).unwrap_err();
    assert!(matches!(e, CharterError::NotASigner(_)) && e.exit() == 4);
    sign(&with_key(&away, &carol), &file, |_| Ok(false)).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), text);
    sign(&with_key(&away, &carol), &file, agree).unwrap();
    import(&home, &file, false).unwrap();
    assert_eq!(read_file(&home).unwrap().root.root.threshold, 1);
    assert!(verify(&home, 3_000).unwrap().faults.is_empty());
}

/// Pending files that do not belong: of another fleet, overtaken by another change, ahead of the
/// bundle, with a changed body.
#[test]
fn files_that_do_not_follow() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let other = TempDir::new().unwrap();
    let (foreign, _) = found(&other, RoleKeys::default());
    let absent = key(&dir, "absent");
    let what = |key: &PathBuf| RoleChange { add: vec![key.clone()], ..RoleChange::default() };
    // Its second key must sign too: threshold 2 of 2.
    let wait = RoleChange { threshold: Some(2), ..what(&absent) };
    let first = pending(&rotate(&change(&home), &RoleName::Root, &wait).unwrap());
    let e = import(&foreign, &first, false).unwrap_err();
    assert!(matches!(e, CharterError::OtherFleet { .. }) && e.exit() == 4);

    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(home.join(BUNDLE_FILE), copy.join(BUNDLE_FILE)).unwrap();
    rotate(&change(&home), &RoleName::Admission, &what(&absent)).unwrap();
    let e = import(&home, &first, false).unwrap_err();
    assert!(e.to_string().contains("does not follow"), "{e}");
    let second = pending(&rotate(&change(&home), &RoleName::Root, &wait).unwrap());
    let e = import(&copy, &second, false).unwrap_err();
    assert!(matches!(e, CharterError::Follow { .. }), "{e}");

    let text = std::fs::read_to_string(&first).unwrap();
    let line = text.lines().find(|l| l.starts_with("  ")).unwrap();
    let mut wrong = line.to_owned();
    wrong.replace_range(4..6, if &line[4..6] == "ff" { "fe" } else { "ff" });
    std::fs::write(&first, text.replacen(line, &wrong, 1)).unwrap();
    assert!(import(&copy, &first, false).is_err());
    std::fs::write(&first, "hello").unwrap();
    let e = import(&copy, &first, false).unwrap_err();
    assert!(matches!(e, CharterError::Pending { .. }) && e.exit() == 78);
}

/// A renewal says all documents again with a later end, once; `verify` tells what has run out.
#[test]
fn renewal_and_ends() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let soon = verify(&home, 1_000).unwrap();
    assert_eq!((soon.faults.len(), soon.warnings.len()), (0, 5));
    let late = verify(&home, 1_000 + 11 * DAY).unwrap();
    assert_eq!((late.faults.len(), late.warnings.len()), (5, 0));
    let one = renew(&change(&home), &[RoleName::Group("web".into())]).unwrap();
    assert_eq!((one.outcome, one.steps.len()), (Outcome::Made, 1));
    let rest = renew(&change(&home), &[]).unwrap();
    assert_eq!((rest.outcome, rest.steps.len()), (Outcome::Made, 3));
    assert_eq!(renew(&change(&home), &[]).unwrap().outcome, Outcome::AlreadySo);
    let checked = verify(&home, 1_000 + 11 * DAY).unwrap();
    assert_eq!((checked.faults.len(), checked.warnings.len(), checked.documents), (0, 0, 8));
    // A bundle without a signature is told, not believed.
    let mut items = read_file(&home).unwrap().items;
    items[1].envelope.signatures = stork_wire::codec::List::empty();
    let bytes = crate::bundle::write_bundle(&items).unwrap();
    std::fs::write(home.join(BUNDLE_FILE), bytes).unwrap();
    assert!(verify(&home, 2_000).unwrap().faults.len() >= 2);
}

/// A publisher delegates packages to another one, names more of them in the same place, and takes
/// them back; what is so already is not said again, and nobody delegates to himself.
#[test]
fn delegations_come_and_go() {
    let dir = TempDir::new().unwrap();
    let (home, _) = found(&dir, RoleKeys::default());
    let (root, release) = (key(&dir, "ci-root"), key(&dir, "ci-release"));
    let new = NewPublisher {
        name: "ci".parse().unwrap(),
        root_keys: vec![root.clone()],
        threshold: 1,
        release_keys: vec![release],
        groups: Vec::new(),
    };
    add_publisher(&with_key(&home, &root), &new, &Granted::default()).unwrap();
    let give = |to: &str, packages: &[&str]| {
        let packages = packages.iter().map(|p| p.parse().unwrap()).collect();
        delegate(&change(&home), "ops", &Delegating { to: to.into(), packages, terminating: true })
    };
    let done = give("ci", &["web-*"]).unwrap();
    assert_eq!(done.outcome, Outcome::Made);
    let said = done.steps.iter().flat_map(describe).collect::<Vec<_>>().join("\n");
    assert!(said.contains("+ delegates web-* to publisher "), "{said}");
    assert_eq!(give("ci", &["web-*"]).unwrap().outcome, Outcome::AlreadySo);
    assert_eq!(give("ci", &["web-*", "db-*"]).unwrap().outcome, Outcome::Made);
    let [only] = &*ops(&home).delegations.to_vec() else { panic!("{:?}", ops(&home)) };
    assert_eq!((only.packages.len(), only.terminating, only.depth), (2, true, 1));
    assert!(matches!(give("ops", &["x"]), Err(CharterError::Usage(_))));
    assert!(matches!(give("nobody", &["x"]), Err(CharterError::NoSuch(_))));
    assert_eq!(give("ci", &[]).unwrap().outcome, Outcome::Made);
    assert!(ops(&home).delegations.is_empty());
    assert_eq!(give("ci", &[]).unwrap().outcome, Outcome::AlreadySo);
}
