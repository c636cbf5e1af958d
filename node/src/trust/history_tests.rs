//! What was good when it came stays good: documents that take something away end it from then on,
//! and for whoever comes later nothing breaks.

use stork_wire::charter::{GroupDoc, PublisherDoc, ReleaseKey, RootDoc, Survivor};
use stork_wire::codec::List;
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};

use super::epoch_tests::document;
use super::fork_tests::at;
use super::tests::{Fixture, NOW, item, key, refused};
use super::{Expired, Freshness, Refusal, Trust, Verdict};
use crate::catalog::{Catalog, Outcome, Scene, Shown, VmFile};
use crate::trust::Fact;

/// Accepts all, and tells the catalog.
fn take(t: &mut Trust, c: &mut Catalog, items: &[Item]) {
    for i in items {
        match t.judge(i, NOW) {
            Verdict::Accepted { fact: Fact::Entry(e), .. } => c.apply(e.get()),
            Verdict::Accepted { .. } => {}
            other => panic!("{:?} {}: {other:?}", i.kind, i.seq),
        }
    }
}

/// The next document of the group, with what `change` does to it.
pub(super) fn next_group(f: &Fixture, change: impl Fn(&mut GroupDoc)) -> Item {
    let first = &f.documents[1];
    let mut doc: GroupDoc = first.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (2, Some(first.envelope.hash()));
    change(&mut doc);
    item(ItemKind::Group, LogId::group(f.group), 2, &doc, f.fleet, &key(3))
}

/// The publisher's next document.
pub(super) fn next_publisher(f: &Fixture, change: impl Fn(&mut PublisherDoc)) -> Item {
    let first = &f.documents[2];
    let mut doc: PublisherDoc = first.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (2, Some(first.envelope.hash()));
    change(&mut doc);
    document(f, &doc, &key(4))
}

fn outcome(t: &Trust, c: &Catalog) -> Outcome {
    let file = "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n[[subscribe]]\npackage = \"*\"\n\
         [[trust]]\nallow = \"acme\"\n[view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n";
    let vm = VmFile::parse("web-1", file).unwrap();
    let hello = "hello".parse().unwrap();
    let all = c.consider(&vm, &hello, &Shown::default(), Scene::new(t, NOW));
    all.first().unwrap().outcome.clone()
}

/// A group takes a grant away, narrows it or lowers its quota: hosts that start anew and newcomers
/// have the same feed as those that saw it happen, and no VM of the group gets its releases.
#[test]
fn a_grant_that_is_taken_away_breaks_no_feed() {
    let f = Fixture::new();
    let feed = f.feed(4);
    let none = next_group(&f, |d| d.publishers = List::empty());
    let narrow = next_group(&f, |d| {
        let mut grant = d.publishers[0].clone();
        grant.packages = List::truncated(["other".parse().unwrap()]);
        d.publishers = List::truncated([grant]);
    });
    let quota = next_group(&f, |d| {
        let mut grant = d.publishers[0].clone();
        grant.release_bytes_max = 9;
        d.publishers = List::truncated([grant]);
    });
    for change in [none, narrow, quota] {
        let (mut saw, mut c) = (f.trust(), Catalog::default());
        take(&mut saw, &mut c, &feed[..3]);
        assert_eq!(outcome(&saw, &c), Outcome::Chosen);
        take(&mut saw, &mut c, &[change.clone(), feed[3].clone()]);
        assert_eq!(outcome(&saw, &c), Outcome::NotGranted("web".into()));

        let (mut newcomer, mut c) = (Trust::new(f.fleet), Catalog::default());
        let documents = [&f.documents[0], &f.documents[1], &change, &f.documents[2]];
        take(&mut newcomer, &mut c, &documents.map(Clone::clone));
        take(&mut newcomer, &mut c, &feed);
        assert_eq!(newcomer.heads(), saw.heads());
        assert_eq!(outcome(&newcomer, &c), Outcome::NotGranted("web".into()));
    }
    // What no version ever allowed is no part of the feed.
    let mut t = f.trust();
    let e = f.entry(1, None, &[], f.release("gcc", "1", 1));
    assert_eq!(refused(t.judge(&f.item(&e, &f.release_key), NOW)).code(), "out_of_scope");
}

/// Within an epoch a publisher may add keys and widen what they may do, and nothing else.
#[test]
fn keys_are_narrowed_by_an_epoch_only() {
    let f = Fixture::new();
    let other = ReleaseKey {
        key: key(7).public(),
        packages: List::truncated(["hello*".parse().unwrap()]),
        not_after: NOW + 5,
        valid_through: None,
    };
    let own = |change: &dyn Fn(&mut ReleaseKey)| {
        next_publisher(&f, |d| {
            let mut key = d.release_keys[0].clone();
            change(&mut key);
            d.release_keys = List::truncated([key]);
        })
    };
    let narrowed = [
        next_publisher(&f, |d| d.release_keys = List::empty()),
        next_publisher(&f, |d| d.release_keys = List::truncated([other.clone()])),
        own(&|k| k.not_after -= 1),
        own(&|k| k.valid_through = Some(at(1, 2))),
        own(&|k| k.packages = List::truncated(["hello".parse().unwrap()])),
    ];
    for doc in narrowed {
        let r = refused(f.trust().judge(&doc, NOW));
        assert_eq!((r.code(), r), ("narrowed", Refusal::Narrowed(key(5).public().short())));
    }
    let wider = next_publisher(&f, |d| {
        let mut own = d.release_keys[0].clone();
        own.not_after += 5;
        own.packages = List::truncated(["hello*".parse().unwrap(), "world".parse().unwrap()]);
        let mut keys = vec![own, other.clone()];
        keys.sort_by_key(|k| k.key);
        d.release_keys = List::truncated(keys);
    });
    let (mut t, mut c) = (f.trust(), Catalog::default());
    take(&mut t, &mut c, &[wider]);
    let e = f.entry(1, None, &[], f.release("hello", "1", 1));
    take(&mut t, &mut c, &[f.item(&e, &key(7))]);
}

/// T026, without the overlay: a stolen release key publishes junk, and the publisher's root ends it
/// with an epoch that another key signs. The junk is void, what stood before it stands, also for
/// newcomers, who do not find the old key in the newest document; and the old key signs no more.
#[test]
fn t026_a_revoked_key() {
    let f = Fixture::new();
    let feed = f.feed(40);
    let last = &feed[1];
    let revoke = next_publisher(&f, |d| {
        d.epoch = 2;
        d.survivor = Some(Survivor { at: at(1, 2), hash: last.envelope.hash() });
        d.release_keys = List::truncated([ReleaseKey {
            key: key(7).public(),
            packages: d.release_keys[0].packages.clone(),
            not_after: NOW + 1_000_000,
            valid_through: None,
        }]);
    });
    let live: Vec<_> = (1..=2).map(|i| f.release("hello", &i.to_string(), i).hash()).collect();
    let mut entry = f.entry(1, Some(last.envelope.hash()), &live, f.release("hello", "9", 50));
    (entry.epoch, entry.document) = (2, 2);
    let log = LogId::feed_epoch(f.publisher, 2);
    let by = |k: &stork_wire::sign::SecretKey| item(ItemKind::Entry, log, 1, &entry, f.fleet, k);

    let mut saw = f.trust();
    take(&mut saw, &mut Catalog::default(), &feed);
    let verdict = saw.judge(&revoke, NOW);
    let Verdict::Accepted { fact: Fact::Turn(turn), .. } = verdict else { panic!("{verdict:?}") };
    saw.replay(f.publisher, &feed[..2]);
    assert_eq!(turn.publisher, f.publisher);

    let mut newcomer = f.trust();
    newcomer.judge(&revoke, NOW);
    take(&mut newcomer, &mut Catalog::default(), &feed[..2]);
    for t in [&mut saw, &mut newcomer] {
        for junk in [&feed[2], &feed[39]] {
            assert_eq!(refused(t.judge(junk, NOW)).code(), "closed_epoch");
        }
        assert_eq!(refused(t.judge(&by(&key(5)), NOW)), Refusal::UnauthorisedKey);
        take(t, &mut Catalog::default(), &[by(&key(7))]);
        assert_eq!(t.feed(f.publisher).unwrap().live().count(), 3);
    }
    assert_eq!(saw.heads(), newcomer.heads());
}

/// A release does not shut out what is yet to come: its floor is at most its own number (attack of
/// a stolen key: nothing of the package could ever be installed again).
#[test]
fn a_floor_is_no_higher_than_its_release() {
    let f = Fixture::new();
    for (floor, good) in [(0, true), (7, true), (8, false), (u64::MAX, false)] {
        let mut r = f.release("hello", "1", 7);
        r.min_secure_release = floor;
        let unsigned = stork_wire::sign::Envelope::unsigned(&f.entry(1, None, &[], r));
        assert_eq!(unsigned.is_ok(), good, "{floor}");
    }
}

/// T011: a root document that ran out long ago, and was followed by one that is in force, does no
/// harm. Where the newest of the fleet, of the publisher or of all its groups has run out, the feed
/// is expired, and says by which; its entries are still judged.
#[test]
fn t011_only_the_newest_document_expires() {
    let f = Fixture::new();
    let old: RootDoc = f.documents[0].envelope.claimed().unwrap();
    let year = 365 * 86_400;
    let mut roots = vec![f.documents[0].clone()];
    for number in 2..=4 {
        let mut doc = old.clone();
        (doc.number, doc.prev) = (number, roots.last().map(|i| i.envelope.hash()));
        doc.expires = if number == 4 { NOW + 2 * year } else { NOW - 50 };
        roots.push(item(ItemKind::Root, LogId::root(f.fleet), number, &doc, f.fleet, &key(1)));
    }
    let mut t = Trust::new(f.fleet);
    let all: Vec<Item> = roots.into_iter().chain(f.documents[1..].iter().cloned()).collect();
    take(&mut t, &mut Catalog::default(), &all);
    assert_eq!(t.freshness(f.publisher, NOW), Freshness::Unwatched);
    let mut expired = |change: Option<Item>, now| {
        take(&mut t, &mut Catalog::default(), change.as_slice());
        match t.freshness(f.publisher, now) {
            Freshness::Expired { document, since } => Some((document, since)),
            _ => None,
        }
    };
    let end = NOW + 1_000_000;
    assert_eq!(expired(None, end - 1), None);
    assert_eq!(expired(None, end), Some((Expired::Publisher, end)));
    let renewed = next_publisher(&f, |d| d.expires = NOW + year);
    assert_eq!(expired(Some(renewed), end), Some((Expired::Groups, end)));
    let renewed = next_group(&f, |d| d.expires = NOW + 3 * year);
    assert_eq!(expired(Some(renewed), end), None);
    assert_eq!(expired(None, NOW + 2 * year), Some((Expired::Root, NOW + 2 * year)));
    take(&mut t, &mut Catalog::default(), &f.feed(2));
    let due: Vec<_> = t.charter().due(NOW + year).map(|d| (d.kind, d.name)).collect();
    assert_eq!(due, [("publisher", "acme".to_owned())]);
}
