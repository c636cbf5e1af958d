//! Beacons: which are believed, when a feed is fresh, and that all hosts end with the same.

use stork_wire::beacon::{Beacon, BeaconHead};
use stork_wire::charter::PublisherDoc;
use stork_wire::codec::List;
use stork_wire::ids::LogId;
use stork_wire::item::{Head, Item};
use stork_wire::sign::{Envelope, SecretKey};

use super::epoch_tests::document;
use super::fork_tests::{Host, at, proof, twin};
use super::history_tests::next_group;
use super::tests::{Fixture, NOW, key, refused};
use super::{Expired, Fact, Floor, Freshness, Refusal, Verdict};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// The fleet of the other tests, with key 6 for beacons.
pub(super) fn fixture() -> Fixture {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    doc.beacon_keys = List::truncated([key(6).public()]);
    f.with_publisher(&doc)
}

fn body(f: &Fixture, head: Option<&Item>, time: u64) -> Beacon {
    Beacon {
        version: 1,
        publisher: f.publisher,
        epoch: 1,
        head: head.map(|i| BeaconHead { seq: i.seq, hash: i.envelope.hash() }),
        counter: time,
        time,
        expires: time + DAY,
    }
}

fn signed(f: &Fixture, beacon: &Beacon, by: &SecretKey) -> Item {
    beacon.item(Envelope::sign(beacon, f.fleet, by).unwrap())
}

pub(super) fn beacon(f: &Fixture, head: Option<&Item>, time: u64) -> Item {
    signed(f, &body(f, head, time), &key(6))
}

fn host(f: &Fixture, feed: &[Item]) -> Host {
    let mut host = Host::new(f);
    feed.iter().for_each(|i| host.give(i));
    host
}

fn held(f: &Fixture, host: &Host) -> Option<Head> {
    let log = LogId::beacon(f.publisher);
    host.trust.heads().into_iter().find(|h| h.log == log)
}

/// T031: a beacon for a head that the feed never had is refused, and nothing changes. One for a
/// head that has not come waits, and shows that news are missing; it counts when they come.
#[test]
fn t031_a_head_that_never_was() {
    let f = fixture();
    let feed = f.feed(4);
    let mut h = host(&f, &feed[..3]);
    let other = twin(&f, &feed[1]);
    let r = refused(h.trust.judge(&beacon(&f, Some(&other), NOW), NOW));
    assert_eq!((&r, r.code()), (&Refusal::UnknownHead(at(1, 2)), "beacon_unknown_head"));
    assert!(!r.blames_sender());
    assert_eq!((held(&f, &h), h.trust.beacon(f.publisher)), (None, None));

    let ahead = beacon(&f, Some(&feed[3]), NOW);
    let log = LogId::feed(f.publisher);
    assert_eq!(h.trust.judge(&ahead, NOW), Verdict::Behind { log, to: 4 });
    assert_eq!(h.trust.behind(f.publisher), Some(at(1, 4)));
    assert_eq!(h.trust.freshness(f.publisher, NOW), Freshness::Stale { since: None });
    assert_eq!(h.trust.next_beacon(f.publisher, NOW, DAY), None, "it does not speak of old heads");
    h.give(&feed[3]);
    assert_eq!(h.trust.behind(f.publisher), None);
    let fresh = Freshness::Fresh { until: NOW + DAY };
    assert_eq!(h.trust.freshness(f.publisher, NOW), fresh);
    // An empty feed has a head as well, and an older entry was one.
    let mut empty = host(&f, &[]);
    assert!(matches!(empty.trust.judge(&beacon(&f, None, NOW), NOW), Verdict::Accepted { .. }));
    let older = beacon(&f, Some(&feed[0]), NOW + 60);
    assert!(matches!(h.trust.judge(&older, NOW), Verdict::Accepted { .. }));
}

/// T032: a counter that does not rise is dropped, also after a restart, and a forged one blames.
#[test]
fn t032_the_counter_rises() {
    let f = fixture();
    let feed = f.feed(2);
    let mut h = host(&f, &feed);
    let (old, new) = (beacon(&f, Some(&feed[1]), NOW - 60), beacon(&f, Some(&feed[1]), NOW));
    h.give(&new);
    let restarted = h.restarted(&f);
    for mut h in [h, restarted] {
        assert_eq!(held(&f, &h).map(|h| h.seq), Some(NOW));
        assert_eq!(h.trust.judge(&new, NOW), Verdict::Known);
        let r = refused(h.trust.judge(&old, NOW));
        assert_eq!(r, Refusal::CounterNotRising { got: NOW - 60, have: NOW });
        assert_eq!(r.code(), "beacon_not_rising");
        let stranger = signed(&f, &body(&f, None, NOW + 1), &key(5));
        assert_eq!(refused(h.trust.judge(&stranger, NOW)), Refusal::UnauthorisedKey);
        let mut lies = beacon(&f, None, NOW + 1);
        lies.seq += 1;
        assert_eq!(refused(h.trust.judge(&lies, NOW)), Refusal::WrongLog);
        assert_eq!(held(&f, &h).map(|h| h.seq), Some(NOW));
    }
}

/// T035: the clock is set a year back. The floor that was kept is the time, so what has run out
/// stays so.
#[test]
fn t035_expired_stays_expired() {
    let f = fixture();
    let feed = f.feed(1);
    let mut h = host(&f, &feed);
    h.give(&beacon(&f, Some(&feed[0]), NOW));
    let mut floor = Floor(0);
    assert!(h.trust.raise_floor(&mut floor, NOW + 23 * HOUR));
    assert!(h.trust.raise_floor(&mut floor, NOW + 25 * HOUR));
    let kept = floor.0.to_le_bytes();
    let h = h.restarted(&f);
    let mut floor = Floor(u64::from_le_bytes(kept));
    let wrong = NOW - 365 * DAY;
    assert!(!h.trust.raise_floor(&mut floor, wrong));
    let now = floor.0.max(wrong);
    let stale = Freshness::Stale { since: Some(NOW + DAY) };
    assert_eq!(h.trust.freshness(f.publisher, now), stale);
    assert_eq!(now, NOW + 25 * HOUR);
}

/// T036: five minutes of difference between clocks are tolerated; what is signed further in the
/// future makes nothing fresh.
#[test]
fn t036_signed_in_the_future() {
    let f = fixture();
    let feed = f.feed(1);
    let mut h = host(&f, &feed);
    for ahead in [HOUR, 600, 301] {
        let r = refused(h.trust.judge(&beacon(&f, Some(&feed[0]), NOW + ahead), NOW));
        assert_eq!(r, Refusal::FutureDated(ahead));
        assert_eq!(h.trust.freshness(f.publisher, NOW), Freshness::Stale { since: None });
    }
    let soon = beacon(&f, Some(&feed[0]), NOW + 300);
    assert!(matches!(h.trust.judge(&soon, NOW), Verdict::Accepted { .. }));
    let fresh = Freshness::Fresh { until: NOW + 300 + DAY };
    assert_eq!(h.trust.freshness(f.publisher, NOW), fresh);
}

/// The states of a feed: none of its beacons yet, fresh to the last second, stale, without beacon
/// keys, and with a document that has run out. A beacon that has run out is taken all the same, or
/// hosts would not agree which one is the newest.
#[test]
fn states_of_freshness() {
    let f = fixture();
    let mut h = host(&f, &f.feed(1));
    let of = |h: &Host, now| h.trust.freshness(f.publisher, now);
    assert_eq!(of(&h, NOW), Freshness::Stale { since: None });
    h.give(&beacon(&f, None, NOW - 2 * DAY));
    assert_eq!(of(&h, NOW), Freshness::Stale { since: Some(NOW - DAY) });
    h.give(&beacon(&f, None, NOW));
    assert_eq!(of(&h, NOW + DAY - 1), Freshness::Fresh { until: NOW + DAY });
    assert_eq!(of(&h, NOW + DAY), Freshness::Stale { since: Some(NOW + DAY) });
    let end = NOW + 1_000_000;
    assert_eq!(of(&h, end), Freshness::Expired { document: Expired::Root, since: end });
    let plain = Fixture::new();
    assert_eq!(plain.trust().freshness(plain.publisher, NOW), Freshness::Unwatched);
    // What a signer says next follows what it heard.
    let next = h.trust.next_beacon(f.publisher, NOW + HOUR, DAY).unwrap();
    let head = f.feed(1).first().map(|i| BeaconHead { seq: 1, hash: i.envelope.hash() });
    assert_eq!((next.counter, next.expires, next.head), (NOW + HOUR, NOW + HOUR + DAY, head));
    assert_eq!(h.trust.next_beacon(f.publisher, NOW, DAY), None, "not twice in a second");
}

/// Whoever holds a beacon key and makes one each second is not carried by the fleet: a burst, then
/// one in half a minute.
#[test]
fn beacons_are_rate_limited() {
    let f = fixture();
    let mut h = host(&f, &[]);
    let accepted = |h: &mut Host, n: u64| {
        let v = h.trust.judge(&beacon(&f, None, NOW + n), NOW + n);
        match v {
            Verdict::Accepted { .. } => true,
            v => {
                assert_eq!(refused(v), Refusal::TooOften);
                false
            }
        }
    };
    let count = (0..600).filter(|n| accepted(&mut h, *n)).count();
    assert!((20..=29).contains(&count), "{count}");
    // One in a minute always passes.
    assert!((20..40).all(|n| accepted(&mut h, n * 60)));
}

/// A document that takes the key away, a new epoch and a proof each end what a beacon says, on
/// running hosts and on such that start again, and its counter still counts.
#[test]
fn what_ends_a_beacon() {
    let f = fixture();
    let feed = f.feed(3);
    let before: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let next = PublisherDoc { number: 2, prev: Some(f.documents[2].envelope.hash()), ..before };
    let no_key = PublisherDoc { beacon_keys: List::truncated([key(7).public()]), ..next.clone() };
    let epoch = PublisherDoc { epoch: 2, ..next };
    let ends = [
        document(&f, &no_key, &key(4)),
        document(&f, &epoch, &key(4)),
        proof(&feed[2], &twin(&f, &feed[2])),
    ];
    for end in ends {
        let mut h = host(&f, &feed);
        h.give(&beacon(&f, Some(&feed[2]), NOW));
        assert!(held(&f, &h).is_some());
        h.give(&end);
        assert_eq!(held(&f, &h), None, "{:?}", end.kind);
        assert_eq!(h.trust.take_void_beacons(), vec![LogId::beacon(f.publisher)]);
        assert_eq!(h.trust.freshness(f.publisher, NOW), Freshness::Stale { since: None });
        let restarted = h.restarted(&f);
        assert_eq!(restarted.trust.heads(), h.trust.heads(), "{:?}", end.kind);
        for mut h in [h, restarted] {
            let again = h.trust.judge(&beacon(&f, Some(&feed[2]), NOW), NOW);
            assert!(!matches!(again, Verdict::Accepted { .. }));
            assert_eq!(h.trust.next_beacon(f.publisher, NOW, DAY), None, "the counter rises");
            let next = h.trust.next_beacon(f.publisher, NOW + 60, DAY).unwrap();
            let by = if end.seq == 2 && next.epoch == 1 { key(7) } else { key(6) };
            let v = h.trust.judge(&signed(&f, &next, &by), NOW + 60);
            let Verdict::Accepted { fact: Fact::Beacon(_), .. } = v else { panic!("{v:?}") };
        }
    }
}

/// A beacon of a head that a dead key alone has signed stands no more, also after a restart; the
/// next one of what is left does.
#[test]
fn a_beacon_of_a_dead_keys_entry() {
    let f = fixture();
    let feed = f.feed(3);
    let mut host = host(&f, &feed);
    host.give(&beacon(&f, Some(&feed[2]), NOW));
    assert!(held(&f, &host).is_some());
    host.give(&super::narrow_tests::suicide(&f, 5, 5));
    for mut host in [host.restarted(&f), host] {
        assert_eq!(held(&f, &host), None);
        host.give(&beacon(&f, None, NOW + 1));
        assert!(held(&f, &host).is_some());
    }
}

/// A group lets beacons speak for a shorter time than they say. It is counted from when each was
/// made, is the group's alone, and without any beacon no feed is fresh to it.
#[test]
fn a_group_asks_for_fresher_beacons() {
    let f = fixture();
    let feed = f.feed(1);
    let mut h = host(&f, &feed);
    let rules = |h: &Host| h.trust.beacon_rules(f.publisher).collect::<Vec<_>>();
    assert_eq!(rules(&h), [0; 0]);
    h.give(&next_group(&f, |d| d.beacon_s = Some(900)));
    assert_eq!(rules(&h), [900]);
    let within = |h: &Host, now| h.trust.freshness_within(f.publisher, Some(900), now);
    assert_eq!(within(&h, NOW), Freshness::Stale { since: None });
    h.give(&beacon(&f, Some(&feed[0]), NOW));
    let end = NOW + 900;
    let stale = Freshness::Stale { since: Some(end) };
    for h in [h.restarted(&f), h] {
        assert_eq!(within(&h, end - 1), Freshness::Fresh { until: end });
        assert_eq!(within(&h, end), stale);
        assert_eq!(within(&h, NOW + DAY), stale);
        let fresh = Freshness::Fresh { until: NOW + DAY };
        assert_eq!(h.trust.freshness(f.publisher, end), fresh);
        assert_eq!(h.trust.freshness_within(f.publisher, None, end), fresh);
        assert_eq!(h.trust.freshness_within(f.publisher, Some(604_800), end), fresh);
    }
    let plain = Fixture::new();
    let unwatched = plain.trust().freshness_within(plain.publisher, Some(900), NOW);
    assert_eq!(unwatched, Freshness::Stale { since: None });
}
