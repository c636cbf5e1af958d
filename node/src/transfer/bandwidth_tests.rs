//! Buckets over simulated time: averages, classes, debts, and when to wake up.

use stork_wire::feed::Urgency;
use stork_wire::tick::Tick;

use super::bandwidth::{Bandwidth, Dir, Lane, Limit, Limits, Way};
use super::rng::Rng;

const NEAR: Lane = Lane { dir: Dir::Up, far: false };
const FAR: Lane = Lane { dir: Dir::Up, far: true };
const MIB: u64 = 1024 * 1024;
const MINUTE: u64 = 60_000;

fn limits(up: Option<u64>, wan_up: Option<u64>) -> Limits {
    let limit = |per_s| Limit { per_s, closed: false };
    Limits { up: limit(up), wan_up: limit(wan_up), ..Limits::default() }
}

fn closed(per_s: Option<u64>) -> Limits {
    Limits { up: Limit { per_s, closed: true }, ..Limits::default() }
}

/// Sends as much as goes from `from` to `until`, as `next` says: lane, class and bytes of what
/// comes next at that time. Sleeps only as long as it is told. Gives the bytes by lane and class.
fn send(
    b: &mut Bandwidth,
    (from, until): (u64, u64),
    mut next: impl FnMut(u64) -> Vec<(Lane, Urgency, u64)>,
) -> Vec<(Lane, Urgency, u64)> {
    let (mut now, mut sent) = (from, Vec::new());
    while now < until {
        b.wake = None;
        let goes = next(now).into_iter().find(|(l, c, _)| b.admits(*l, *c, Tick(now)));
        if let Some((lane, class, bytes)) = goes {
            b.take(lane, class, bytes, Tick(now));
            sent.push((lane, class, bytes));
        } else {
            let wake = b.wake.expect("something waits and nobody wakes up").0;
            assert!(wake > now, "woken for nothing");
            now = wake;
        }
    }
    sent
}

fn bytes_of(sent: &[(Lane, Urgency, u64)], fits: impl Fn(Lane, Urgency) -> bool) -> u64 {
    sent.iter().filter(|(l, c, _)| fits(*l, *c)).map(|(.., b)| b).sum()
}

/// Over a minute the average is the limit, within a twentieth and a piece, whatever the pieces and
/// the limit are; also when nothing was sent for an hour before.
#[test]
fn averages() {
    for (rate, piece) in [
        (MIB, 64 * 1024),
        (MIB, 4 * MIB),
        (100_000, 4 * MIB),
        (1_000, 100),
        (80_000_000, MIB),
        (12_345_678, 77_777),
    ] {
        for idle in [0, 60 * MINUTE] {
            let mut b = Bandwidth::default();
            b.set(&limits(Some(rate), None), Tick(0));
            let one = |_| vec![(NEAR, Urgency::Normal, piece)];
            let sent = bytes_of(&send(&mut b, (idle, idle + MINUTE), one), |_, _| true);
            let all = 60 * rate;
            assert!(sent >= all - all / 20, "{rate} {piece} {idle}: {sent} of {all}");
            assert!(sent <= all + all / 20 + piece, "{rate} {piece} {idle}: {sent} of {all}");
        }
    }
}

/// What goes to other sites takes from both limits; what stays takes from one.
#[test]
fn wan() {
    let mut b = Bandwidth::default();
    b.set(&limits(Some(4 * MIB), Some(MIB)), Tick(0));
    let both = |_| vec![(FAR, Urgency::Normal, 65_536), (NEAR, Urgency::Normal, 65_536)];
    let sent = send(&mut b, (0, MINUTE), both);
    let (far, near) = (bytes_of(&sent, |l, _| l.far), bytes_of(&sent, |l, _| !l.far));
    assert!(far.abs_diff(60 * MIB) < 3 * MIB, "{far}");
    assert!(near.abs_diff(180 * MIB) < 9 * MIB, "{near}");
}

/// Urgent content that never ends gets nearly all, and others a twentieth; together the limit.
#[test]
fn classes() {
    let mut b = Bandwidth::default();
    b.set(&limits(Some(MIB), None), Tick(0));
    let both = |_| vec![(NEAR, Urgency::Security, 65_536), (NEAR, Urgency::Background, 65_536)];
    let sent = send(&mut b, (0, 10 * MINUTE), both);
    let urgent = bytes_of(&sent, |_, c| c == Urgency::Security);
    let other = bytes_of(&sent, |_, c| c == Urgency::Background);
    let all = 600 * MIB;
    assert!((all * 90 / 100..all).contains(&urgent), "{urgent} of {all}");
    assert!((all * 4 / 100..=all * 6 / 100).contains(&other), "{other} of {all}");
    assert!(urgent + other <= all + all / 50, "{} of {all}", urgent + other);
}

/// A large piece of normal content does not hold up what is urgent, and is paid for later.
#[test]
fn urgent_does_not_wait() {
    let mut b = Bandwidth::default();
    b.set(&limits(Some(100_000), None), Tick(0));
    assert!(b.admits(NEAR, Urgency::Normal, Tick(10)));
    b.take(NEAR, Urgency::Normal, 4 * MIB, Tick(10));
    assert!(!b.admits(NEAR, Urgency::Normal, Tick(20_000)));
    assert!(b.admits(NEAR, Urgency::Urgent, Tick(20_000)));
    b.take(NEAR, Urgency::Urgent, 4 * MIB, Tick(20_000));
    assert!(!b.admits(NEAR, Urgency::Urgent, Tick(40_000)));
    // Both pieces take 84 s at this rate.
    assert!(!b.admits(NEAR, Urgency::Normal, Tick(83_000)));
    assert!(b.admits(NEAR, Urgency::Normal, Tick(85_000)));
}

/// Where it is closed, nothing of the lower classes goes, nobody wakes up for it, and urgent
/// content keeps to the limit.
#[test]
fn closed_ways() {
    let mut b = Bandwidth::default();
    b.set(&closed(Some(MIB)), Tick(0));
    assert!(!b.admits(NEAR, Urgency::Normal, Tick(MINUTE)) && b.wake.is_none());
    let mut is_closed = |class| b.is_closed(NEAR, class, Tick(MINUTE));
    assert!(is_closed(Urgency::Background) && !is_closed(Urgency::Urgent));
    let urgent = |_| vec![(NEAR, Urgency::Normal, 65_536), (NEAR, Urgency::Urgent, 65_536)];
    let sent = send(&mut b, (MINUTE, 2 * MINUTE), urgent);
    assert_eq!(bytes_of(&sent, |_, c| c == Urgency::Normal), 0);
    assert!(bytes_of(&sent, |_, c| c == Urgency::Urgent).abs_diff(60 * MIB) < 3 * MIB);
    assert_eq!(b.state(Way::Up).0, Limit { per_s: Some(MIB), closed: true });
}

/// What was given back may be taken again, no more than that, and the wait is counted once.
#[test]
fn given_back() {
    let mut b = Bandwidth::default();
    b.set(&limits(Some(1_000), None), Tick(0));
    for _ in 0..1_000 {
        assert!(b.admits(NEAR, Urgency::Normal, Tick(1)));
        b.take(NEAR, Urgency::Normal, 50_000, Tick(1));
        assert!(!b.admits(NEAR, Urgency::Normal, Tick(1)));
        assert!(!b.admits(NEAR, Urgency::Normal, Tick(1)));
        b.give_back(NEAR, Urgency::Normal, 50_000, Tick(1));
    }
    assert_eq!(b.state(Way::Up).1, 1_000);
    b.correct(NEAR, Urgency::Normal, (0, 50_000), Tick(1));
    b.correct(NEAR, Urgency::Normal, (50_000, 1_000), Tick(1));
    assert!(!b.admits(NEAR, Urgency::Normal, Tick(999)));
    assert!(b.admits(NEAR, Urgency::Normal, Tick(1_001)));
    b.give_back(NEAR, Urgency::Normal, u64::MAX, Tick(2_000));
    assert_eq!(b.left(NEAR, Urgency::Normal, Tick(2_000)), Some(1_000), "a full bucket at most");
}

/// A new limit holds from its start on: what was saved under the old one is no burst, and what was
/// unlimited is not owed.
#[test]
fn changes() {
    let mut b = Bandwidth::default();
    b.take(NEAR, Urgency::Normal, 900 * MIB, Tick(5));
    b.set(&limits(Some(1_000), None), Tick(MINUTE));
    assert!(!b.admits(NEAR, Urgency::Normal, Tick(MINUTE)));
    assert!(b.admits(NEAR, Urgency::Normal, Tick(MINUTE + 1)));
    b.set(&limits(Some(80_000_000), None), Tick(2 * MINUTE));
    assert_eq!(b.left(NEAR, Urgency::Normal, Tick(2 * MINUTE)), Some(1_000));
    b.set(&limits(None, None), Tick(2 * MINUTE));
    assert_eq!(b.left(NEAR, Urgency::Normal, Tick(2 * MINUTE)), None);
    assert!(b.admits(FAR, Urgency::Normal, Tick(2 * MINUTE)));
}

/// Whatever comes in whatever order, with limits and pieces at the ends of their types: no
/// overflow, and whoever waits is told until when.
#[test]
fn hostile_numbers() {
    let mut rng = Rng::new(7);
    let odd = [0, 1, 999, MIB, u64::MAX / 1_000, u64::MAX - 1, u64::MAX];
    let classes = [Urgency::Security, Urgency::Urgent, Urgency::Normal, Urgency::Background];
    let mut b = Bandwidth::default();
    let mut now = Tick(0);
    for _ in 0..20_000 {
        let (n, class) = (odd[rng.below(odd.len())], classes[rng.below(4)]);
        let lane = Lane { dir: [Dir::Up, Dir::Down][rng.below(2)], far: rng.below(2) == 0 };
        match rng.below(5) {
            0 => drop(b.set(&limits(Some(n), Some(odd[rng.below(odd.len())])), now)),
            1 => b.take(lane, class, n, now),
            2 => b.give_back(lane, class, n, now),
            3 => now = now.after_ms(if rng.below(50) == 0 { n } else { rng.below(900) as u64 }),
            _ => {
                b.wake = None;
                let goes = b.admits(lane, class, now);
                assert!(goes || lane.dir == Dir::Down || b.wake > Some(now) || now.0 == u64::MAX);
            }
        }
    }
}
