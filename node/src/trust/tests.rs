//! The rules of trust, one test for each way in which an item is refused.

use stork_wire::charter::{
    Authority, GroupDoc, PublisherDoc, PublisherGrant, ReleaseKey, Role, RootDoc, VetoKey,
};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, ManifestRef, Release, Urgency, view_root};
use stork_wire::ids::{
    FleetId, GroupId, ItemHash, LogId, ManifestId, PieceHash, PublisherId, ReleaseHash, TreeId,
};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, Envelope, SecretKey};

use super::{Refusal, Trust, Verdict};

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

/// A fleet with one group `web`, one publisher `acme` and its release key.
pub(crate) struct Fixture {
    pub(crate) fleet: FleetId,
    pub(crate) group: GroupId,
    pub(crate) publisher: PublisherId,
    pub(crate) documents: Vec<Item>,
    pub(crate) release_key: SecretKey,
}

pub(crate) fn item<T: Body>(
    kind: ItemKind,
    log: LogId,
    seq: u64,
    body: &T,
    fleet: FleetId,
    k: &SecretKey,
) -> Item {
    Item { kind, log, seq, envelope: Envelope::sign(body, fleet, k).unwrap() }
}

/// The fleet's first root document: each role is one key.
pub(crate) fn root_doc() -> RootDoc {
    RootDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "fleet".parse().unwrap(),
        issued: NOW - 100,
        expires: NOW + 1_000_000,
        root: Role::single(key(1).public()),
        admission: Role::single(key(2).public()),
        authorities: List::truncated([Authority {
            names: "*".parse().unwrap(),
            role: Role::single(key(3).public()),
        }]),
        admission_before: List::empty(),
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let root = root_doc();
        let publisher_doc = PublisherDoc {
            version: 1,
            number: 1,
            prev: None,
            name: "acme".parse().unwrap(),
            issued: NOW - 100,
            expires: NOW + 1_000_000,
            root: Role::single(key(4).public()),
            epoch: 1,
            survivor: None,
            release_keys: List::truncated([ReleaseKey {
                key: key(5).public(),
                packages: List::truncated(["hello*".parse().unwrap()]),
                not_after: NOW + 1_000_000,
                valid_through: None,
            }]),
            beacon_keys: List::empty(),
            homes: List::empty(),
            delegations: List::empty(),
            compacts: None,
        };
        Self::of(&root, &publisher_doc)
    }

    /// The same fleet with another publisher document.
    pub(crate) fn with_publisher(&self, doc: &PublisherDoc) -> Self {
        Self::of(&self.documents[0].envelope.claimed().unwrap(), doc)
    }

    fn of(root: &RootDoc, publisher_doc: &PublisherDoc) -> Self {
        let fleet = root.fleet_id();
        let publisher = publisher_doc.publisher_id();
        let group_doc = GroupDoc {
            version: 1,
            number: 1,
            prev: None,
            name: "web".parse().unwrap(),
            issued: NOW - 100,
            expires: NOW + 1_000_000,
            authority: Role::single(key(3).public()),
            publishers: List::truncated([PublisherGrant {
                publisher,
                name: "acme".parse().unwrap(),
                packages: List::truncated(["hello".parse().unwrap(), "hello-*".parse().unwrap()]),
                provides: List::empty(),
                release_bytes_max: 1_000_000,
            }]),
            veto: List::truncated([VetoKey { key: key(7).public(), not_after: NOW + 1_000_000 }]),
            lifts: List::empty(),
            private: None,
            beacon_s: None,
        };
        let group = group_doc.group_id();
        let documents = vec![
            item(ItemKind::Root, LogId::root(fleet), 1, root, fleet, &key(1)),
            item(ItemKind::Group, LogId::group(group), 1, &group_doc, fleet, &key(3)),
            item(
                ItemKind::Publisher,
                LogId::publisher(publisher),
                1,
                publisher_doc,
                fleet,
                &key(4),
            ),
        ];
        Self { fleet, group, publisher, documents, release_key: key(5) }
    }

    pub(crate) fn trust(&self) -> Trust {
        let mut t = Trust::new(self.fleet);
        for d in &self.documents {
            assert!(matches!(t.judge(d, NOW), Verdict::Accepted { .. }), "{:?}", d.kind);
        }
        t
    }

    pub(crate) fn release(&self, package: &str, version: &str, counter: u64) -> Release {
        Release {
            package: package.parse().unwrap(),
            version: version.parse().unwrap(),
            arch: "amd64".parse().unwrap(),
            release: counter,
            min_secure_release: 0,
            groups: List::truncated([self.group]),
            tree: TreeId::of(version.as_bytes()),
            manifest: ManifestRef {
                id: ManifestId::of(version.as_bytes()),
                size: 10,
                pieces: PieceHash([0; 32]),
            },
            full_bytes: 10,
            delta: None,
            unpacked_bytes: 10,
            files: 1,
            depends: List::empty(),
            provides: List::empty(),
            urgency: Urgency::Normal,
            origins: List::empty(),
            bundle: None,
        }
    }

    pub(crate) fn entry(
        &self,
        seq: u64,
        prev: Option<ItemHash>,
        live: &[ReleaseHash],
        r: Release,
    ) -> Entry {
        let all = live.iter().copied().chain([r.hash()]);
        Entry {
            version: 1,
            publisher: self.publisher,
            epoch: 1,
            seq,
            prev,
            document: 1,
            signed_at: NOW,
            expires: NOW + 1000,
            view_root: view_root(all),
            kind: Kind::Release(Box::new(r)),
            via: None,
        }
    }

    pub(crate) fn item(&self, entry: &Entry, k: &SecretKey) -> Item {
        item(ItemKind::Entry, LogId::feed(self.publisher), entry.seq, entry, self.fleet, k)
    }

    /// A feed of `n` entries `hello 1 … n`.
    pub(crate) fn feed(&self, n: u64) -> Vec<Item> {
        let mut out: Vec<Item> = Vec::new();
        let mut live = Vec::new();
        for seq in 1..=n {
            let r = self.release("hello", &seq.to_string(), seq);
            let hash = r.hash();
            let prev = out.last().map(|i| i.envelope.hash());
            out.push(self.item(&self.entry(seq, prev, &live, r), &self.release_key));
            live.push(hash);
        }
        out
    }
}

pub(super) fn refused(v: Verdict) -> Refusal {
    match v {
        Verdict::Refused(r) => r,
        other => panic!("not refused: {other:?}"),
    }
}

/// A feed is accepted in order, a repeated item is known, and heads follow.
#[test]
fn a_feed_in_order() {
    let f = Fixture::new();
    let mut t = f.trust();
    for i in f.feed(3) {
        assert!(matches!(t.judge(&i, NOW), Verdict::Accepted { .. }));
        assert_eq!(t.judge(&i, NOW), Verdict::Known);
    }
    assert_eq!(t.heads().len(), 4);
    assert_eq!(t.feed(f.publisher).unwrap().live().count(), 3);
}

/// A gap is pending and nobody's fault; when it is filled, what waited is ready.
#[test]
fn a_gap_waits_and_is_filled() {
    let f = Fixture::new();
    let mut t = f.trust();
    let feed = f.feed(3);
    let log = LogId::feed(f.publisher);
    assert_eq!(t.judge(&feed[2], NOW), Verdict::Pending { missing: Some(log) });
    assert!(matches!(t.judge(&feed[0], NOW), Verdict::Accepted { .. }));
    assert!(t.take_ready(log, 1).is_empty());
    assert!(matches!(t.judge(&feed[1], NOW), Verdict::Accepted { .. }));
    let ready = t.take_ready(log, 2);
    assert_eq!(ready, [feed[2].clone()]);
    assert!(matches!(t.judge(&ready[0], NOW), Verdict::Accepted { .. }));
    assert_eq!(t.pending_len(), 0);
}

/// Documents may come in any order: what comes too early waits.
#[test]
fn documents_in_any_order() {
    let f = Fixture::new();
    let mut t = Trust::new(f.fleet);
    // Taken from the end: each document comes after what waits for it.
    let mut all: Vec<Item> = f.documents.clone();
    all.extend(f.feed(2));
    while let Some(i) = all.pop() {
        if let Verdict::Accepted { fact, .. } = t.judge(&i, NOW) {
            all.extend(match fact {
                super::Fact::Charter(_) => t.take_unlocked(&i),
                _ => t.take_ready(i.log, i.seq),
            });
        }
    }
    assert_eq!(t.pending_len(), 0);
    assert_eq!(t.feed(f.publisher).and_then(super::FeedState::head).map(|h| h.0), Some(2));
}

/// T001: a valid key that the publisher document does not name.
#[test]
fn t001_unauthorised_key() {
    let f = Fixture::new();
    let mut t = f.trust();
    let e = f.entry(1, None, &[], f.release("hello", "1", 1));
    assert_eq!(refused(t.judge(&f.item(&e, &key(9)), NOW)), Refusal::UnauthorisedKey);
    assert!(t.feed(f.publisher).is_none_or(|s| s.head().is_none()));
}

/// T002, T019: good signatures, but a name outside of the key's or the group's pattern.
#[test]
fn t002_out_of_scope() {
    let f = Fixture::new();
    let mut t = f.trust();
    for name in ["gcc", "helloworld"] {
        let e = f.entry(1, None, &[], f.release(name, "1", 1));
        let r = refused(t.judge(&f.item(&e, &f.release_key), NOW));
        assert_eq!(r.code(), "out_of_scope", "{name}: {r}");
    }
}

/// T003: a name provided that no group grants.
#[test]
fn t003_provides_out_of_scope() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut r = f.release("hello", "1", 1);
    r.provides = List::truncated(["libc6".parse().unwrap()]);
    let e = f.entry(1, None, &[], r);
    assert_eq!(refused(t.judge(&f.item(&e, &f.release_key), NOW)).code(), "out_of_scope");
}

/// A forged signature: the right key id, other bytes.
#[test]
fn a_forged_signature() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut i = f.item(&f.entry(1, None, &[], f.release("hello", "1", 1)), &key(9));
    let signature = i.envelope.signatures[0].signature;
    i.envelope.signatures = List::empty();
    i.envelope.add(f.release_key.public(), signature).unwrap();
    let r = refused(t.judge(&i, NOW));
    assert_eq!(r, Refusal::BadSignature);
    assert!(r.blames_sender());
}

/// A8 and the chain: a wrong predecessor, a wrong view root, a counter that does not rise.
#[test]
fn chain_view_root_and_counter() {
    let f = Fixture::new();
    let mut t = f.trust();
    let feed = f.feed(1);
    t.judge(&feed[0], NOW);
    let first = f.release("hello", "1", 1).hash();
    let prev = Some(feed[0].envelope.hash());
    let at = |e: Entry| f.item(&e, &f.release_key);
    let wrong = Some(ItemHash([9; 32]));
    let e = f.entry(2, wrong, &[first], f.release("hello", "2", 2));
    assert_eq!(refused(t.judge(&at(e), NOW)), Refusal::BrokenChain(2));
    let e = f.entry(2, prev, &[], f.release("hello", "2", 2));
    assert_eq!(refused(t.judge(&at(e), NOW)), Refusal::ViewRootMismatch);
    let e = f.entry(2, prev, &[first], f.release("hello", "0.9", 1));
    assert_eq!(refused(t.judge(&at(e), NOW)).code(), "release_not_rising");
    let e = f.entry(2, prev, &[first], f.release("hello", "2", 2));
    assert!(matches!(t.judge(&at(e), NOW), Verdict::Accepted { .. }));
}

/// T036: signed an hour ahead is refused, ten seconds ahead is tolerated.
#[test]
fn t036_future_dated() {
    let f = Fixture::new();
    let mut t = f.trust();
    let i = f.feed(1).remove(0);
    assert_eq!(refused(t.judge(&i, NOW - 3600)), Refusal::FutureDated(3600));
    assert!(matches!(t.judge(&i, NOW - 10), Verdict::Accepted { .. }));
}

/// Over the group's quota, and an item that lies about its own log.
#[test]
fn quota_and_wrong_log() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut r = f.release("hello", "1", 1);
    r.unpacked_bytes = 2_000_000;
    let e = f.entry(1, None, &[], r);
    assert_eq!(refused(t.judge(&f.item(&e, &f.release_key), NOW)).code(), "over_quota");
    let mut i = f.feed(1).remove(0);
    i.seq = 7;
    assert_eq!(refused(t.judge(&i, NOW)), Refusal::WrongLog);
}

/// T008, T009: a root document two ahead waits; one that only the new keys signed is refused.
#[test]
fn t009_root_rotation_needs_both_thresholds() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut next = t.charter().root().unwrap().clone();
    next.number = 2;
    next.prev = Some(f.documents[0].envelope.hash());
    next.root = Role::single(key(11).public());
    let log = LogId::root(f.fleet);
    let only_new = item(ItemKind::Root, log, 2, &next, f.fleet, &key(11));
    assert_eq!(refused(t.judge(&only_new, NOW)), Refusal::UnauthorisedKey);
    let only_old = item(ItemKind::Root, log, 2, &next, f.fleet, &key(1));
    assert_eq!(refused(t.judge(&only_old, NOW)), Refusal::UnauthorisedKey);
    let mut both = only_new;
    both.envelope.add(key(1).public(), only_old.envelope.signatures[0].signature).unwrap();
    let mut third = next;
    third.number = 3;
    third.prev = Some(both.envelope.hash());
    let third = item(ItemKind::Root, log, 3, &third, f.fleet, &key(11));
    assert_eq!(t.judge(&third, NOW), Verdict::Pending { missing: Some(log) });
    assert!(matches!(t.judge(&both, NOW), Verdict::Accepted { .. }));
    for ready in t.take_ready(log, 2) {
        assert!(matches!(t.judge(&ready, NOW), Verdict::Accepted { .. }));
    }
    assert_eq!(t.charter().root().unwrap().number, 3);
}
