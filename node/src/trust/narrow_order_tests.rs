//! In whatever order documents, entries, proofs and what narrows come, all hosts end with the same.

use stork_wire::charter::{Lift, PublisherDoc, ReleaseKey, Survivor};
use stork_wire::codec::List;
use stork_wire::feed::{Kind, Release};
use stork_wire::item::{Head, Item};
use stork_wire::withdrawal::{Level, What};

use super::fork_tests::{Host, at, entry_of, proof, twin};
use super::history_tests::{next_group, next_publisher};
use super::narrow_tests::{deny, halt, recall, suicide, tree, withdrawal};
use super::tests::{Fixture, NOW, key};
use super::{Freeze, Trust};

/// A generator of numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            let j = self.below(i + 1);
            all.swap(i, j);
        }
    }
}

/// A publisher with two release keys, 5 and 6; entries by 5, then by 6, then by 5 again.
fn fixture() -> (Fixture, Vec<Item>) {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let mut keys = doc.release_keys.to_vec();
    keys.push(ReleaseKey { key: key(6).public(), ..keys[0].clone() });
    keys.sort_by_key(|k| k.key);
    doc.release_keys = List::new(keys).unwrap();
    let f = f.with_publisher(&doc);
    let by = [6, 6, 5, 6, 5, 5];
    let feed = f.feed(6).iter().zip(by).map(|(i, k)| f.item(&entry_of(i), &key(k))).collect();
    (f, feed)
}

fn releases(feed: &[Item]) -> Vec<Release> {
    let release = |i: &Item| match entry_of(i).kind {
        Kind::Release(r) => *r,
        _ => panic!("no release"),
    };
    feed.iter().map(release).collect()
}

/// All that a host ends with: heads, freeze, and for each release what is said of it.
type End = (Vec<Head>, Option<Freeze>, Vec<(bool, bool, bool)>);

fn end(f: &Fixture, t: &Trust, all: &[Release]) -> End {
    let mut heads = t.heads();
    heads.sort_by_key(|h| h.log);
    let c = t.charter();
    let of = |r: &Release| {
        let denied = c.denied(core::iter::once("web"), f.publisher, r).is_some();
        let recalled = c.recalled(f.publisher, 1, &r.package, r.hash()).is_some();
        (denied, recalled, c.halted(f.publisher, &r.package).is_some())
    };
    (heads, t.frozen(f.publisher), all.iter().map(of).collect())
}

/// Gives everything in this order, and again until nothing changes, as sync does.
fn play(f: &Fixture, items: &[&Item], all: &[Release]) -> (Host, End) {
    let mut host = Host::empty(f);
    let mut before = end(f, &host.trust, all);
    for _ in 0..20 {
        items.iter().for_each(|i| host.give(i));
        let now = end(f, &host.trust, all);
        if now == before {
            return (host, now);
        }
        before = now;
    }
    panic!("it never came to rest");
}

fn all_orders_end_alike(extra: &[Item], (f, feed): &(Fixture, Vec<Item>), seed: u64) -> End {
    let all = releases(feed);
    let mut items: Vec<&Item> = f.documents.iter().chain(feed).chain(extra).collect();
    let (_, want) = play(f, &items, &all);
    let mut dice = Dice(seed);
    for round in 0..150 {
        dice.shuffle(&mut items);
        let (host, got) = play(f, &items, &all);
        let order: Vec<_> = items.iter().map(|i| (i.kind, i.seq)).collect();
        assert_eq!(got, want, "round {round}: {order:?}");
        if round % 10 == 0 {
            let restarted = end(f, &host.restarted(f).trust, &all);
            assert_eq!(restarted, want, "restart, round {round}: {order:?}");
        }
    }
    want
}

/// Suicide, denials, a lift, recalls and halts on two levels, in 150 orders.
#[test]
fn narrowing_in_any_order() {
    let (f, feed) = fixture();
    let evil = deny(&f, tree(1), 7, NOW);
    let lift = Lift::Denial { log: evil.log, through: NOW };
    let extra = [
        suicide(&f, 5, 5),
        deny(&f, tree(2), 7, NOW - 3),
        deny(&f, tree(2), 7, NOW),
        next_group(&f, |d| d.lifts = List::truncated([lift])),
        evil,
        withdrawal(&f, recall(&[&feed[0], &feed[4]]), 6, |_| {}),
        withdrawal(&f, halt(true), 6, |_| {}),
        withdrawal(&f, halt(false), 6, |w| w.signed_at += 1),
        withdrawal(
            &f,
            What::Halt { package: Some("hello".parse().unwrap()), halted: true },
            4,
            |w| w.by = Level::Root,
        ),
    ];
    let (_, frozen, said) = all_orders_end_alike(&extra, &(f, feed), 7);
    assert_eq!(frozen, None);
    let denied: Vec<bool> = said.iter().map(|(d, ..)| *d).collect();
    assert_eq!(denied, [false, true, false, false, false, false]);
    let recalled: Vec<bool> = said.iter().map(|(_, r, _)| *r).collect();
    assert_eq!(recalled, [true, false, false, false, true, false]);
    assert!(said.iter().all(|(.., halted)| *halted));
}

/// A fork beside it: one that a dead key has made is none, one by a key that lives is.
#[test]
fn forks_and_dead_keys_in_any_order() {
    let (f, feed) = fixture();
    let dead = proof(&feed[2], &twin(&f, &feed[2]));
    let real = {
        let mut entry = entry_of(&feed[1]);
        entry.expires += 1;
        proof(&feed[1], &f.item(&entry, &key(6)))
    };
    let end = suicide(&f, 5, 5);
    let fixture = (f, feed);
    let (_, frozen, _) = all_orders_end_alike(&[dead.clone(), end.clone()], &fixture, 8);
    assert_eq!(frozen, None);
    let (_, frozen, _) = all_orders_end_alike(&[dead, end, real], &fixture, 9);
    assert_eq!(frozen.unwrap().at, at(1, 2));
}

/// A new epoch beside it: what the root lets stand stands, whoever signed it.
#[test]
fn epochs_and_dead_keys_in_any_order() {
    let (f, feed) = fixture();
    let survivor = Some(Survivor { at: at(1, 5), hash: feed[4].envelope.hash() });
    let next = next_publisher(&f, |d| (d.epoch, d.survivor) = (2, survivor));
    let extra = [
        suicide(&f, 5, 5),
        next,
        withdrawal(&f, halt(true), 6, |_| {}),
        withdrawal(&f, recall(&[&feed[0]]), 5, |_| {}),
    ];
    let (heads, ..) = all_orders_end_alike(&extra, &(f, feed), 10);
    assert!(heads.iter().any(|h| h.seq == 5), "the survivor");
}
