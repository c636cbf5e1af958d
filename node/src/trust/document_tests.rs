//! Charter documents that come too early, too late or changed on the way, and signatures that are
//! no list at all.

use stork_wire::charter::{GroupDoc, PublisherDoc, Role, RootDoc};
use stork_wire::codec::{List, decode, encode};
use stork_wire::feed::{Entry, Kind};
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::SIGNATURES_MAX;
use stork_wire::sign::{Envelope, KeySignature};

use super::tests::{Fixture, NOW, item, key, refused};
use super::{Refusal, Trust, Verdict};

fn accept(t: &mut Trust, item: &Item) {
    let verdict = t.judge(item, NOW);
    assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
}

/// The root document after `before`, by keys of these seeds, changed like this.
fn next_root(f: &Fixture, before: &Item, by: &[u8], change: impl FnOnce(&mut RootDoc)) -> Item {
    let mut doc: RootDoc = before.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (doc.number + 1, Some(before.envelope.hash()));
    change(&mut doc);
    let signed =
        |n: &u8| item(ItemKind::Root, LogId::root(f.fleet), doc.number, &doc, f.fleet, &key(*n));
    let mut out = signed(&by[0]);
    for n in &by[1..] {
        let signature = signed(n).envelope.signatures[0].signature;
        out.envelope.add(key(*n).public(), signature).unwrap();
    }
    out
}

fn next_group(f: &Fixture, before: &Item, by: u8, change: impl FnOnce(&mut GroupDoc)) -> Item {
    let mut doc: GroupDoc = before.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (doc.number + 1, Some(before.envelope.hash()));
    change(&mut doc);
    item(ItemKind::Group, LogId::group(f.group), doc.number, &doc, f.fleet, &key(by))
}

fn next_publisher(
    f: &Fixture,
    before: &Item,
    by: u8,
    change: impl FnOnce(&mut PublisherDoc),
) -> Item {
    let mut doc: PublisherDoc = before.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (doc.number + 1, Some(before.envelope.hash()));
    change(&mut doc);
    item(ItemKind::Publisher, LogId::publisher(f.publisher), doc.number, &doc, f.fleet, &key(by))
}

fn with_signatures(item: &Item, signatures: Vec<KeySignature>) -> Item {
    let mut out = item.clone();
    out.envelope.signatures = List::new(signatures).unwrap();
    out
}

/// T006: signatures that are not sorted by key, or of which two are by one key, are malformed, of
/// every kind of item. That is found before any of them is looked at: it is said also where all of
/// them are wrong, and where nobody knows their keys. Of 17 signatures not even the bytes are read.
#[test]
fn t006_signatures_out_of_order() {
    let f = Fixture::new();
    let [root, group, publisher] = &f.documents[..] else { panic!("three documents") };
    let items = [
        next_root(&f, root, &[1], |_| {}),
        next_group(&f, group, 3, |_| {}),
        next_publisher(&f, publisher, 4, |_| {}),
        f.feed(1).remove(0),
    ];
    for good in &items {
        let mut t = f.trust();
        let heads = t.heads();
        let own = good.envelope.signatures[0].clone();
        let by = |n: u8| KeySignature { key: key(n).public().key_id(), signature: own.signature };
        let mut sorted = vec![own.clone(), by(20), by(21)];
        sorted.sort_by_key(|s| s.key);
        let unsorted: Vec<_> = sorted.iter().rev().cloned().collect();
        let mut wrong = own.clone();
        wrong.signature.0[5] ^= 1;
        let strangers = vec![by(20), by(20)];
        let lists = [
            unsorted,
            vec![own.clone(), own.clone()],
            vec![own.clone(), wrong.clone()],
            vec![wrong.clone(), wrong],
            strangers,
        ];
        for list in lists {
            let refusal = refused(t.judge(&with_signatures(good, list), NOW));
            assert_eq!(refusal.code(), "malformed", "{:?}: {refusal}", good.kind);
            assert!(refusal.blames_sender());
        }
        assert_eq!(t.heads(), heads);
        // The same signatures in order do no harm.
        accept(&mut t, &with_signatures(good, sorted));
    }
    let many = |n: u8| -> Vec<u8> {
        let signature = items[0].envelope.signatures[0].signature;
        let by = |n: u8| KeySignature { key: key(n).public().key_id(), signature };
        let mut all: Vec<KeySignature> = (1..=n).map(by).collect();
        all.sort_by_key(|s| s.key);
        let all: Vec<u8> = all.iter().flat_map(encode).collect();
        [encode(&items[0].envelope.body), vec![n], all].concat()
    };
    assert_eq!(SIGNATURES_MAX, 16);
    assert!(decode::<Envelope>(&many(16), 10_000).is_ok());
    assert!(decode::<Envelope>(&many(17), 10_000).is_err());
}

/// T008: a root document two ahead is not taken: the one between is asked for, and nothing changes
/// until it has come. What waits is judged by that one, so that a forged one waits in vain.
#[test]
fn t008_a_root_two_ahead_waits_for_the_one_between() {
    let f = Fixture::new();
    let log = LogId::root(f.fleet);
    let second = next_root(&f, &f.documents[0], &[1, 11], |d| {
        d.root = Role::single(key(11).public());
    });
    let third = next_root(&f, &second, &[11], |_| {});
    // By the root of today, which the second one takes out of office.
    let forged = next_root(&f, &second, &[1], |_| {});
    for (early, taken) in [(&third, true), (&forged, false)] {
        let mut t = f.trust();
        let heads = t.heads();
        assert_eq!(t.judge(early, NOW), Verdict::Pending { missing: Some(log) });
        assert_eq!((t.charter().root().unwrap().number, t.heads()), (1, heads));
        accept(&mut t, &second);
        let ready = t.take_ready(log, 2);
        assert_eq!(ready, core::slice::from_ref(early));
        if taken {
            accept(&mut t, early);
        } else {
            assert_eq!(refused(t.judge(early, NOW)), Refusal::UnauthorisedKey);
            assert_eq!(t.charter().root().unwrap().number, 2);
            accept(&mut t, &third);
        }
        assert_eq!(t.charter().root().unwrap().number, 3);
    }
}

/// T010: a host that slept through ten changes of the root's keys walks through all of them, in
/// whatever order they come, each by the thresholds of the one before and of its own. It does not
/// go on from one that lacks the signature of the keys before.
#[test]
fn t010_ten_root_rotations() {
    let f = Fixture::new();
    let log = LogId::root(f.fleet);
    let mut chain = vec![f.documents[0].clone()];
    for n in 1..=10u8 {
        // The first key is the fixture's; then 41, 42 …
        let before = if n == 1 { 1 } else { 39 + n };
        let now = 40 + n;
        let role = |d: &mut RootDoc| d.root = Role::single(key(now).public());
        let next = next_root(&f, &chain[usize::from(n) - 1], &[before, now], role);
        chain.push(next);
    }
    for newest_first in [false, true] {
        let mut t = f.trust();
        let mut order: Vec<&Item> = chain[1..].iter().collect();
        if newest_first {
            order.reverse();
        }
        for item in order {
            let mut ready = vec![item.clone()];
            while let Some(item) = ready.pop() {
                match t.judge(&item, NOW) {
                    Verdict::Accepted { .. } => ready.extend(t.take_ready(log, item.seq)),
                    other => assert_eq!(other, Verdict::Pending { missing: Some(log) }),
                }
            }
        }
        assert_eq!((t.charter().root().unwrap().number, t.pending_len()), (11, 0));
    }
    let mut t = f.trust();
    chain[1..5].iter().for_each(|i| accept(&mut t, i));
    let own_only = next_root(&f, &chain[4], &[45], |d| d.root = Role::single(key(45).public()));
    assert_eq!(refused(t.judge(&own_only, NOW)), Refusal::UnauthorisedKey);
    assert_eq!(t.charter().root().unwrap().number, 5);
}

/// T012: a root document that fails is nowhere afterwards: neither in force nor among what waits,
/// and the true one of the same number is taken as if it had never come. (That it is not on disk
/// either shows `t012_a_refused_root_is_not_on_disk`, with a real host.)
#[test]
fn t012_a_refused_root_leaves_nothing() {
    let f = Fixture::new();
    let mut t = f.trust();
    let first = &f.documents[0];
    let new_role = |d: &mut RootDoc| d.root = Role::single(key(66).public());
    let mut flipped = next_root(&f, first, &[1], |_| {});
    let mut signature = flipped.envelope.signatures[0].clone();
    signature.signature.0[9] ^= 2;
    flipped.envelope.signatures = List::truncated([signature]);
    let bad = [
        next_root(&f, first, &[66], new_role),
        next_root(&f, first, &[1], new_role),
        next_root(&f, first, &[66], |_| {}),
        next_root(&f, first, &[1], |d| d.prev = Some(stork_wire::ids::ItemHash([1; 32]))),
        next_root(&f, first, &[1], |d| d.issued = NOW + 3_600),
        flipped,
    ];
    let before = (t.heads(), t.charter().root().unwrap().clone());
    for item in &bad {
        refused(t.judge(item, NOW));
        assert_eq!((t.heads(), t.charter().root().unwrap().clone()), before);
        assert_eq!(t.pending_len(), 0);
    }
    assert_eq!(t.take_all_pending(), []);
    accept(&mut t, &next_root(&f, first, &[1], |_| {}));
}

/// T015: what is lower than the document in force never comes back: the true one is known already,
/// another one with its number is refused whoever signs it, and what only the lower one allowed is
/// allowed no more.
#[test]
fn t015_a_lower_document_is_not_taken() {
    let f = Fixture::new();
    let mut t = f.trust();
    let [_, group, publisher] = &f.documents[..] else { panic!("three documents") };
    let group2 = next_group(&f, group, 3, |d| {
        let mut all = d.publishers.to_vec();
        all[0].packages = List::truncated(["hello".parse().unwrap()]);
        d.publishers = List::new(all).unwrap();
    });
    let group3 = next_group(&f, &group2, 3, |_| {});
    let publisher2 = next_publisher(&f, publisher, 4, |_| {});
    let publisher3 = next_publisher(&f, &publisher2, 4, |_| {});
    [&group2, &group3, &publisher2, &publisher3].into_iter().for_each(|i| accept(&mut t, i));
    let heads = t.heads();
    for lower in [group, &group2, publisher, &publisher2] {
        assert_eq!(t.judge(lower, NOW), Verdict::Known);
    }
    let twins = [
        (next_group(&f, group, 3, |d| d.expires += 1), Some(2)),
        (next_group(&f, group, 66, |d| d.expires += 1), None),
        (next_publisher(&f, publisher, 4, |d| d.expires += 1), Some(2)),
        (next_publisher(&f, publisher, 66, |d| d.expires += 1), None),
    ];
    for (twin, number) in &twins {
        let refusal = number.map_or(Refusal::UnauthorisedKey, Refusal::Equivocation);
        assert_eq!(refused(t.judge(twin, NOW)), refusal);
    }
    assert_eq!((t.heads(), t.pending_len()), (heads, 0));
    let number = |t: &Trust| {
        let group = t.charter().group(f.group).unwrap().doc().number;
        (group, t.charter().publisher(f.publisher).unwrap().doc().number)
    };
    assert_eq!(number(&t), (3, 3));
    // The first group document allowed this name, and no VM gets it by that any more.
    let release = f.release("hello-doc", "1", 1);
    let allows = |t: &Trust| t.charter().group(f.group).unwrap().allows(f.publisher, &release);
    assert_eq!((allows(&f.trust()), allows(&t)), (true, false));
}

/// T039: a relay that adds a dependency to a release, takes one away, or adds a name that the
/// package provides, breaks the signature. Nothing of it is kept, so nothing is fetched, and the
/// true entry is taken after it.
#[test]
fn t039_a_relay_adds_a_dependency() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut release = f.release("hello", "1", 1);
    release.depends = List::truncated(["libc6 (>= 2.36)".parse().unwrap()]);
    let entry = f.entry(1, None, &[], release.clone());
    let good = f.item(&entry, &f.release_key);
    let mut more = release.clone();
    more.depends = List::truncated(["evil".parse().unwrap(), "libc6 (>= 2.36)".parse().unwrap()]);
    let mut less = release.clone();
    less.depends = List::empty();
    let mut provides = release;
    provides.provides = List::truncated(["sudo".parse().unwrap()]);
    let heads = t.heads();
    for changed in [more, less, provides] {
        let view_root = f.entry(1, None, &[], changed.clone()).view_root;
        let entry = Entry { view_root, kind: Kind::Release(Box::new(changed)), ..entry.clone() };
        let mut relayed = good.clone();
        relayed.envelope.body = Envelope::unsigned(&entry).unwrap().body;
        let refusal = refused(t.judge(&relayed, NOW));
        assert_eq!(refusal, Refusal::BadSignature);
        assert!(refusal.blames_sender());
        assert_eq!((t.heads(), t.pending_len()), (heads.clone(), 0));
        assert!(t.feed(f.publisher).is_none_or(|feed| feed.live().count() == 0));
    }
    accept(&mut t, &good);
}
