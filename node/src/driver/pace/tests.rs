//! Buckets, what waits in them, and what does not.

use stork_wire::codec::List;
use stork_wire::feed::Recall;
use stork_wire::ids::{FleetId, ItemHash, PublisherId, ViewRoot};
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::withdrawal::{Level, What};

use super::*;

const LIMITS: LimitsConfig =
    LimitsConfig { publisher: Bucket { per_s: 100, burst: 5 }, group: Bucket::UNLIMITED };

fn entry(publisher: u8, seq: u64, signed_at: u64) -> Entry {
    Entry {
        version: 1,
        publisher: PublisherId([publisher; 32]),
        epoch: 1,
        seq,
        prev: (seq > 1).then_some(ItemHash([2; 32])),
        document: 1,
        signed_at,
        expires: signed_at + 1,
        view_root: ViewRoot([0; 32]),
        kind: Kind::Recall(Recall {
            package: "app".parse().unwrap(),
            releases: List::truncated([1]),
            reason: "test".parse().unwrap(),
        }),
        via: None,
    }
}

fn log(publisher: u8) -> LogId {
    LogId::feed(PublisherId([publisher; 32]))
}

fn held(publisher: u8, seq: u64, source: Option<u8>) -> Held {
    let entry = entry(publisher, seq, 1);
    let envelope = Envelope::sign(&entry, FleetId([1; 32]), &SecretKey::from_seed(&[1; 32]));
    let item =
        Item { kind: ItemKind::Entry, log: log(publisher), seq, envelope: envelope.unwrap() };
    Held { item, source: source.map(|n| NodeId([n; 32])), reply: None }
}

/// Offers an entry as the driver does; its number if it took effect.
fn offer(pace: &mut Pace, held: Held, now: Tick) -> Option<u64> {
    let (log, seq) = (held.item.log, held.item.seq);
    match pace.limited(&held.item, now) {
        None => {
            pace.accepted(log, &held.item.envelope.claimed().unwrap(), (1, now));
            Some(seq)
        }
        Some(limited) => {
            assert!(pace.hold(held, limited.until).is_none());
            None
        }
    }
}

/// A burst goes on at once, the rest at the rate and in order; another publisher does not wait.
#[test]
fn t062_a_bucket_of_a_publisher() {
    let mut pace = Pace::new(LIMITS);
    let at_once: Vec<u64> =
        (1..=30).filter_map(|n| offer(&mut pace, held(7, n, None), Tick(0))).collect();
    assert_eq!(at_once, [1, 2, 3, 4, 5, 6]);
    assert_eq!(offer(&mut pace, held(8, 1, None), Tick(0)), Some(1));
    let mut went = Vec::new();
    while let Some(at) = pace.deadline() {
        while let Some(next) = pace.next(at) {
            pace.accepted(log(7), &next.item.envelope.claimed().unwrap(), (1, at));
            went.push((at.0, next.item.seq));
        }
    }
    let expected: Vec<(u64, u64)> = (7..=30).map(|n| (10 * (n - 6), n)).collect();
    assert_eq!(went, expected);
    pace.tidy(Tick(10_000));
    assert!(pace.gauges().iter().all(|(_, now, _)| *now == 0), "{:?}", pace.gauges());
}

fn withdrawal(publisher: u8, n: u64) -> Item {
    let package = Some(format!("app-{n}").parse().unwrap());
    let body = Withdrawal {
        version: 1,
        publisher: PublisherId([publisher; 32]),
        epoch: 1,
        document: 1,
        by: Level::Release,
        signed_at: 1_800_000_000,
        what: What::Halt { package, halted: true },
        reason: "test".parse().unwrap(),
    };
    let envelope = Envelope::sign(&body, FleetId([1; 32]), &SecretKey::from_seed(&[1; 32]));
    body.item(envelope.unwrap())
}

/// Ten thousand entries of the same feed wait or were given back; a withdrawal of its publisher
/// goes on at once. Withdrawals have a bucket of their own, for each publisher.
#[test]
fn recall_behind_ten_thousand_junk_entries() {
    let mut pace = Pace::new(LIMITS);
    let junk = held(7, 1, None).item;
    for seq in 1..=10_000 {
        let held = Held { item: Item { seq, ..junk.clone() }, source: None, reply: None };
        match pace.limited(&held.item, Tick(0)) {
            None => pace.accepted(log(7), &entry(7, seq, 1), (1, Tick(0))),
            Some(limited) => drop(pace.hold(held, limited.until)),
        }
    }
    assert!(pace.limited(&junk, Tick(0)).is_some());
    let free = (0..100).take_while(|n| {
        let free = pace.limited(&withdrawal(7, *n), Tick(0)).is_none();
        pace.withdrawals.take(PublisherId([7; 32]), 10, Tick(0));
        free
    });
    assert_eq!(free.count(), 65);
    assert!(pace.limited(&withdrawal(8, 1), Tick(0)).is_none(), "another publisher's");
}

/// What was signed long ago takes a tenth: history comes ten times as fast.
#[test]
fn history_is_cheap() {
    let mut pace = Pace::new(LIMITS);
    let (item, day) = (held(7, 1, None).item, 86_400);
    let taken = (0..).take_while(|_| {
        let free = pace.limited(&item, Tick(0)).is_none();
        pace.accepted(log(7), &entry(7, 1, 1), (day, Tick(0)));
        free
    });
    assert_eq!(taken.count(), 51);
}

/// Of what waits, the entries that are furthest from their turn are given back; no host and no
/// log takes the room of others.
#[test]
fn what_does_not_fit_is_given_back() {
    let mut pace = Pace::new(LIMITS);
    let max = HELD_PER_LOG_MAX as u64;
    for n in (1..=max).rev() {
        assert!(pace.hold(held(7, n, Some(1)), Tick(9)).is_none());
    }
    let back = pace.hold(held(7, max + 1, Some(1)), Tick(9)).unwrap();
    assert_eq!(back.item.seq, max + 1);
    assert!(pace.hold(held(7, 1, Some(2)), Tick(9)).is_some(), "twice the same");
    let room = (HELD_PER_PEER_MAX - HELD_PER_LOG_MAX) as u64;
    for n in 1..=room {
        assert!(pace.hold(held(8, n, Some(1)), Tick(9)).is_none());
    }
    assert!(pace.hold(held(9, 1, Some(1)), Tick(9)).is_some(), "one host's share is taken");
    for publisher in 10..=200 {
        for n in 1..=20 {
            pace.hold(held(publisher, n, None), Tick(9));
        }
    }
    assert_eq!(pace.len, HELD_MAX);
    assert!((10..=200).all(|p| pace.held.contains_key(&log(p))), "every log has something");
    let mut count = 0;
    while pace.next(Tick(9)).is_some() {
        count += 1;
    }
    assert_eq!((count, pace.len, pace.by_peer.len(), pace.due.len()), (HELD_MAX, 0, 0, 0));
}

/// A group's bucket holds back releases for it, of whomever, and nothing else.
#[test]
fn a_bucket_of_a_group() {
    let limits =
        LimitsConfig { publisher: Bucket::UNLIMITED, group: Bucket { per_s: 10, burst: 2 } };
    let mut pace = Pace::new(limits);
    let group = GroupId([3; 32]);
    for _ in 0..4 {
        pace.groups.take(group, 10, Tick(0));
    }
    assert_eq!(pace.groups.until(&group, Tick(0)), Some(Tick(200)));
    assert_eq!(pace.groups.until(&GroupId([4; 32]), Tick(0)), None);
    assert_eq!(pace.limited(&held(7, 1, None).item, Tick(0)), None, "a recall is for no group");
}
