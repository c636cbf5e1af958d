//! Epochs: how a publisher goes on after a fork or a stolen key, and what nobody can take back.

use stork_wire::charter::{PublisherDoc, ReleaseKey, Survivor};
use stork_wire::codec::List;
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::SecretKey;

use super::fork_tests::{Host, at, entry_of, proof, twin};
use super::tests::{Fixture, NOW, item, key, refused};
use super::{Refusal, Verdict};

/// The next publisher document: an epoch later, after this entry.
pub(super) fn new_epoch(f: &Fixture, before: &Item, survivor: Option<(&Item, u32)>) -> Item {
    let mut doc: PublisherDoc = before.envelope.claimed().unwrap();
    doc.number += 1;
    doc.prev = Some(before.envelope.hash());
    doc.epoch += 1;
    doc.survivor =
        survivor.map(|(i, epoch)| Survivor { at: at(epoch, i.seq), hash: i.envelope.hash() });
    document(f, &doc, &key(4))
}

pub(super) fn document(f: &Fixture, doc: &PublisherDoc, by: &SecretKey) -> Item {
    item(ItemKind::Publisher, LogId::publisher(f.publisher), doc.number, doc, f.fleet, by)
}

/// The first entry of an epoch, after the releases `1 … n` that stand.
pub(super) fn first_of(f: &Fixture, epoch: u32, after: &Item, n: u64, version: &str) -> Item {
    let live: Vec<_> = (1..=n).map(|i| f.release("hello", &i.to_string(), i).hash()).collect();
    let mut entry = f.entry(1, None, &live, f.release("hello", version, 10_000 + u64::from(epoch)));
    (entry.epoch, entry.document) = (epoch, u64::from(epoch));
    entry.prev = Some(after.envelope.hash());
    let log = LogId::feed_epoch(f.publisher, epoch);
    item(ItemKind::Entry, log, 1, &entry, f.fleet, &f.release_key)
}

/// T024: the publisher's root begins a new epoch after an entry that stands. The feed goes on
/// there, the other branch is void, on hosts that saw it all, on one that saw the other branch
/// only, and on a newcomer.
#[test]
fn t024_a_new_epoch_goes_on() {
    let f = Fixture::new();
    let feed = f.feed(5);
    let evil = twin(&f, &feed[2]);
    let ep = proof(&feed[2], &evil);
    // The survivor is the last common entry, or one of the two of the proof.
    for (stands, n) in [(&feed[1], 2), (&feed[2], 3), (&evil, 3)] {
        let doc = new_epoch(&f, &f.documents[2], Some((stands, 1)));
        let next = first_of(&f, 2, stands, n, "50");
        let mut saw_all = Host::new(&f);
        feed.iter().chain([&ep, &doc, &next]).for_each(|i| saw_all.give(i));
        let mut other_branch = Host::new(&f);
        let evil_side = [&feed[0], &feed[1], &evil];
        // It has no proof, and gets what it lacks from the others' journals.
        evil_side.into_iter().chain([&doc, stands, &next]).for_each(|i| other_branch.give(i));
        let mut newcomer = Host::new(&f);
        let early = [&next, &ep, &doc, &feed[1], &feed[0], stands];
        early.into_iter().for_each(|i| newcomer.give(i));
        let want = Some((at(2, 1), next.envelope.hash()));
        let heads = saw_all.trust.heads();
        for (who, host) in [("all", saw_all), ("other", other_branch), ("new", newcomer)] {
            assert_eq!(host.newest(&f), want, "{who}, after {}", stands.seq);
            assert_eq!(host.trust.frozen(f.publisher), None);
            assert_eq!(host.trust.heads(), heads, "{who}");
            let again = host.restarted(&f);
            assert_eq!((again.newest(&f), again.trust.heads()), (want, heads.clone()), "{who}");
            let mut host = again;
            assert_eq!(host.trust.judge(&ep, NOW), Verdict::Known, "settled");
            let r = host.trust.judge(&feed[3], NOW);
            assert_eq!(refused(r), Refusal::Closed(at(1, 4)));
            assert_eq!(host.trust.feed(f.publisher).unwrap().live().count() as u64, n + 1);
        }
    }
}

/// A7: a stolen key has signed much; the root names the last good entry, and nobody needs to do
/// anything at any host. A later epoch may go back further than the one before.
#[test]
fn t024_junk_is_void() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(40);
    feed.iter().for_each(|i| host.give(i));
    let doc = new_epoch(&f, &f.documents[2], Some((&feed[6], 1)));
    let next = first_of(&f, 2, &feed[6], 7, "50");
    host.give(&doc);
    assert_eq!(host.newest(&f).unwrap().0, at(1, 7));
    host.give(&next);
    assert_eq!(host.newest(&f).unwrap().0, at(2, 1));
    let back = new_epoch(&f, &doc, Some((&feed[2], 1)));
    host.give(&back);
    assert_eq!(host.newest(&f), Some((at(1, 3), feed[2].envelope.hash())));
    assert!(!host.journal.contains(&next) && host.journal.contains(&feed[2]));
    host.give(&first_of(&f, 3, &feed[2], 3, "60"));
    assert_eq!(host.newest(&f).unwrap().0, at(3, 1));
    assert_eq!(host.restarted(&f).newest(&f), host.newest(&f));
    // And from nothing at all.
    let mut doc: PublisherDoc = back.envelope.claimed().unwrap();
    (doc.number, doc.epoch, doc.survivor) = (4, 4, None);
    doc.prev = Some(back.envelope.hash());
    host.give(&document(&f, &doc, &key(4)));
    assert_eq!(host.newest(&f), None);
    assert_eq!(host.trust.feed(f.publisher).unwrap().next(), at(4, 1));
}

/// T118, without the overlay: the publisher's key is rotated while the fleet is in two halves. One
/// half goes on with the new key, the other with what the old one signed meanwhile; when they meet,
/// in whatever order, both end with the same, and nobody does anything at any host.
#[test]
fn t118_a_rotation_during_a_partition() {
    let f = Fixture::new();
    let feed = f.feed(5);
    let old: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let rotated = new_epoch(&f, &f.documents[2], Some((&feed[1], 1)));
    let mut doc: PublisherDoc = rotated.envelope.claimed().unwrap();
    let rules = old.release_keys.iter().cloned();
    doc.release_keys = List::truncated(rules.map(|r| ReleaseKey { key: key(8).public(), ..r }));
    let rotated = document(&f, &doc, &key(4));
    let first = first_of(&f, 2, &feed[1], 2, "50");
    let log = first.log;
    let first = item(ItemKind::Entry, log, 1, &entry_of(&first), f.fleet, &key(8));

    let half = |items: &[&Item]| {
        let mut host = Host::new(&f);
        items.iter().for_each(|i| host.give(i));
        host
    };
    let new_side = [&feed[0], &feed[1], &rotated, &first];
    let old_side = [&feed[0], &feed[1], &feed[2], &feed[3], &feed[4]];
    let want = Some((at(2, 1), first.envelope.hash()));
    let heads = half(&new_side).trust.heads();
    let mut ends = Vec::new();
    for backwards in [false, true] {
        let order = |items: &[&Item]| {
            let mut items: Vec<Item> = items.iter().copied().cloned().collect();
            if backwards {
                items.reverse();
            }
            items
        };
        let (mut new, mut old) = (half(&new_side), half(&old_side));
        assert_eq!(old.newest(&f).unwrap().0, at(1, 5));
        order(&old_side).iter().for_each(|i| new.give(i));
        order(&new_side).iter().for_each(|i| old.give(i));
        ends.extend([new.restarted(&f), old.restarted(&f), new, old]);
    }
    for mut host in ends {
        assert_eq!((host.newest(&f), host.trust.heads()), (want, heads.clone()));
        assert_eq!(refused(host.trust.judge(&feed[4], NOW)), Refusal::Closed(at(1, 5)));
    }
}

/// T025: a document cannot take the epoch back, jump, or change where an epoch began; and entries
/// of an epoch that has ended are refused.
#[test]
fn t025_epochs_only_rise() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(3);
    feed.iter().for_each(|i| host.give(i));
    let second = new_epoch(&f, &f.documents[2], Some((&feed[1], 1)));
    host.give(&second);
    let doc: PublisherDoc = second.envelope.claimed().unwrap();
    let heads = host.trust.heads();
    let mut offer = |change: &dyn Fn(&mut PublisherDoc)| {
        let mut doc = doc.clone();
        doc.number += 1;
        doc.prev = Some(second.envelope.hash());
        change(&mut doc);
        let r = refused(host.trust.judge(&document(&f, &doc, &key(4)), NOW));
        assert_eq!(host.trust.heads(), heads);
        r
    };
    let low = offer(&|d| (d.epoch, d.survivor) = (1, None));
    assert_eq!(low, Refusal::Rollback { got: 1, have: 2 });
    assert_eq!(low.code(), "rollback");
    assert_eq!(offer(&|d| d.epoch = 4), Refusal::WrongEpoch { got: 4, want: 2 });
    assert_eq!(offer(&|d| d.survivor = None), Refusal::WrongEpoch { got: 2, want: 2 });
    assert_eq!(refused(host.trust.judge(&feed[2], NOW)), Refusal::Closed(at(1, 3)));
    assert_eq!(host.trust.judge(&f.documents[2], NOW), Verdict::Known, "an old document");
}

/// What waits is bounded per log, of whatever epoch; and entries of an epoch that nobody knows yet
/// wait for its document.
#[test]
fn pending_is_bounded_across_epochs() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(2);
    let doc = new_epoch(&f, &f.documents[2], Some((&feed[1], 1)));
    let first = first_of(&f, 2, &feed[1], 2, "50");
    let missing = Some(LogId::publisher(f.publisher));
    assert_eq!(host.trust.judge(&first, NOW), Verdict::Pending { missing });
    for seq in 2..1_000 {
        let mut entry = entry_of(&first);
        (entry.seq, entry.prev) = (seq, Some(ItemHash([1; 32])));
        let log = LogId::feed_epoch(f.publisher, 2);
        let i = item(ItemKind::Entry, log, seq, &entry, f.fleet, &f.release_key);
        assert_eq!(host.trust.judge(&i, NOW), Verdict::Pending { missing });
    }
    assert_eq!(host.trust.pending_len(), super::PENDING_PER_LOG_MAX);
    [&doc, &feed[0], &feed[1]].into_iter().for_each(|i| host.give(i));
    assert_eq!(host.newest(&f).unwrap().0, at(2, 1));
}
