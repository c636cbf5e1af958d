//! Insiders that send much of the same: items, promises, logs, and times at the end of time.

use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{Have, ItemRange, LinkClass, OverlayFrame, ShortLog, SketchCell};
use stork_wire::ids::LogId;
use stork_wire::item::Head;
use stork_wire::limits::{HEADS_PER_FRAME_MAX, ITEMS_PER_FRAME_MAX};
use stork_wire::tick::Tick;

use super::super::{Action, Input, Peer, PeersKind, Refusal};
use super::hostile::{Victim, some_log};
use super::made::{log_id, make_item, make_peer};

fn pushes(actions: &[Action]) -> usize {
    let is = |a: &&Action| matches!(a, Action::Send { frame: OverlayFrame::Push { .. }, .. });
    actions.iter().filter(is).count()
}

/// T064: an item comes 100 000 times, before it is judged, while it is, and after. It is judged
/// once and goes on once, and the sender is told once that it is out of the tree.
#[test]
fn t064_one_item_a_hundred_thousand_times() {
    let mut v = Victim::new();
    let friend = make_peer(2, 1, 1);
    v.hello(&friend, LinkClass::Near, true);
    let (log, item) = (log_id(0), make_item(log_id(0), 1));
    let (mut judged, mut sent, mut prunes) = (0, 0, 0);
    for k in 0..100_000 {
        let frame = match k % 3 {
            0 => OverlayFrame::Push { hop: 1, age_ms: 0, entry: 0, item: Box::new(item.clone()) },
            1 => OverlayFrame::IHave(List::truncated([Have::new(log, 1)])),
            _ => OverlayFrame::Items(List::truncated([item.clone()])),
        };
        let mut actions = v.fast(frame);
        if k == 30_000 {
            let (hash, source) = (item.hash(), Some(v.foe.node));
            let item = Arc::new(item.clone());
            actions.extend(v.input(Input::Committed { log, seq: 1, hash, item, source }));
        }
        judged += actions.iter().filter(|a| matches!(a, Action::Deliver { .. })).count();
        sent += pushes(&actions);
        let pruned =
            |a: &&Action| matches!(a, Action::Send { frame: OverlayFrame::Prune { .. }, .. });
        prunes += actions.iter().filter(pruned).count();
    }
    assert_eq!((judged, sent), (1, 1));
    assert!(prunes <= 1, "{prunes}");
}

/// T066: a million false promises, of all links together. What is remembered stays within its
/// bounds, nobody is asked more often than it promised, and whoever does not deliver is asked no
/// more.
#[test]
fn t066_a_million_false_promises() {
    let mut v = Victim::new();
    let mut foes = vec![v.foe.node];
    for i in 2..20 {
        let peer = make_peer(i, 1, 1);
        let class = if i % 2 == 0 { LinkClass::Near } else { LinkClass::Far };
        if v.hello(&peer, class, true) != LinkClass::Transient {
            foes.push(peer.node);
        }
    }
    assert!(foes.len() >= 5, "{} links", foes.len());
    let (mut asked, mut most) = (0usize, 0);
    for k in 0..10_000 {
        let ids = (0..ITEMS_PER_FRAME_MAX).map(|i| Have::new(some_log(k * 100 + i), 1));
        let (from, frame) = (foes[k % foes.len()], OverlayFrame::IHave(List::truncated(ids)));
        let mut actions = Vec::new();
        v.o.handle(v.now, Input::Frame { from, frame }, &mut actions);
        if k % 100 == 99 {
            v.now = v.now.after_ms(100);
            actions.extend(v.input(Input::Deadline));
            for foe in &foes {
                let frame = OverlayFrame::IHave(List::empty());
                v.input(Input::Frame { from: *foe, frame });
            }
        }
        let graft =
            |a: &&Action| matches!(a, Action::Send { frame: OverlayFrame::Graft { .. }, .. });
        asked += actions.iter().filter(graft).count();
        most = most.max(v.o.sizes().missing);
        assert!(v.o.sizes().missing <= 1_000 * foes.len());
    }
    println!("{} links: {most} promises at once, {asked} questions", foes.len());
    assert!(most <= 10_000 && asked <= 2_000 * foes.len(), "asked {asked} times");
    assert!(v.o.counters().dropped > 500_000);
    for _ in 0..60 {
        v.now = v.now.after_ms(1_000);
        for foe in &foes {
            v.input(Input::Frame { from: *foe, frame: OverlayFrame::IHave(List::empty()) });
        }
        v.input(Input::Deadline);
    }
    assert_eq!((v.o.sizes().missing, v.o.sizes().wants), (0, 0));
}

/// T071: one host speaks of 100 000 logs that nobody has, by every frame that names one. No tree
/// comes of it, and everything stays within its bounds (which are looked at after every input).
#[test]
fn t071_a_hundred_thousand_logs() {
    let mut v = Victim::new();
    for k in 0..100 {
        let logs: Vec<LogId> = (0..1_000).map(|i| some_log(k * 1_000 + i)).collect();
        let head = |log: &LogId| Head { log: *log, seq: 3, hash: [1; 8] };
        let heads = List::truncated(logs.iter().map(head));
        v.fast(OverlayFrame::Heads { heads, last: k % 2 == 0, answer: false });
        let short = |log: &LogId| (ShortLog::of(log), 9);
        v.fast(OverlayFrame::Ahead(List::truncated(logs.iter().map(short))));
        v.fast(OverlayFrame::HeadsAsk(List::truncated(logs.iter().map(ShortLog::of))));
        for chunk in logs.chunks(ITEMS_PER_FRAME_MAX) {
            v.fast(OverlayFrame::IHave(List::truncated(chunk.iter().map(|l| Have::new(*l, 1)))));
            let range = |log: &LogId| ItemRange { log: *log, from: 1, to: u64::MAX };
            v.fast(OverlayFrame::Fetch(List::truncated(chunk.iter().map(range))));
        }
        for log in &logs {
            v.fast(OverlayFrame::Graft { log: *log, seq: 1 });
            v.fast(OverlayFrame::Prune { log: *log });
        }
        for log in logs.iter().take(10) {
            let item = Box::new(make_item(*log, 1));
            v.fast(OverlayFrame::Push { hop: 0, age_ms: 0, entry: 0, item });
        }
    }
    let s = v.o.sizes();
    assert_eq!((s.trees, s.logs), (0, 0));
    assert_eq!((s.missing, s.flights), (1_000, 512), "one host's shares");
    assert!(v.o.counters().dropped > 0);
}

/// T072: every bounded set has a size, a bound and a name, and no bound is zero or endless.
#[test]
fn t072_every_set_has_a_bound() {
    let v = Victim::new();
    let all: Vec<_> = v.o.gauges().collect();
    assert!(all.len() >= 28, "{}", all.len());
    for (name, size, cap) in all {
        assert!(size <= cap && (1..=65_536).contains(&cap), "{name}: {size} of {cap}");
    }
}

/// T055: every number of every frame at the end of what numbers can be, also where it is a time.
/// Nothing panics, no bound breaks, and what goes on is clamped.
#[test]
fn t055_numbers_at_the_end_of_all_numbers() {
    let mut v = Victim::new();
    let friend = make_peer(2, 1, 1);
    v.hello(&friend, LinkClass::Near, true);
    v.commit(log_id(0), 1..=3);
    for round in 0..50u64 {
        for n in [0, 1, u64::MAX - 1, u64::MAX] {
            wild(&mut v, n);
        }
        v.now = v.now.after_ms([1, 500, 60_000][usize::try_from(round % 3).unwrap()]);
        v.input(Input::Deadline);
        let foe = Arc::clone(&v.foe);
        v.hello(&foe, LinkClass::Near, true);
        v.hello(&friend, LinkClass::Near, true);
    }
    // The end of this process's own clock, too.
    v.now = Tick(u64::MAX - 1);
    v.input(Input::Deadline);
    wild(&mut v, u64::MAX);
    assert!(v.o.deadline().is_some());
}

fn wild(v: &mut Victim, n: u64) {
    let (log, from) = (log_id(0), v.foe.node);
    let [small, hop] = [u32::try_from(n).unwrap_or(u32::MAX), u32::try_from(n).unwrap_or(255)];
    let hop = u8::try_from(hop.min(255)).unwrap();
    let head = Head { log, seq: n, hash: [7; 8] };
    let heads = List::truncated(vec![head; HEADS_PER_FRAME_MAX]);
    let cells = List::truncated([SketchCell([0xff; 24])]);
    let fingerprint = n.to_be_bytes();
    let class = LinkClass::Far;
    let item = || make_item(log, n);
    for frame in [
        OverlayFrame::Ping { nonce: small, fingerprint, class, carries: u64::MAX },
        OverlayFrame::Pong { nonce: small, fingerprint, class },
        OverlayFrame::Push { hop, age_ms: small, entry: 0, item: Box::new(item()) },
        OverlayFrame::IHave(List::truncated([
            Have { log, seq: n, more: u16::MAX, waited_ms: u16::MAX },
            Have::new(some_log(1), n),
        ])),
        OverlayFrame::Graft { log, seq: n },
        OverlayFrame::Heads { heads, last: true, answer: true },
        OverlayFrame::Fetch(List::truncated([
            ItemRange { log, from: 0, to: n },
            ItemRange { log, from: n, to: 0 },
            ItemRange { log, from: n, to: n },
        ])),
        OverlayFrame::Items(List::truncated([item()])),
        OverlayFrame::SketchAsk { start: small, count: small },
        OverlayFrame::Sketch { fingerprint, logs: small, start: small, cells },
        OverlayFrame::Ahead(List::truncated([(ShortLog::of(&log), n)])),
    ] {
        v.frame(frame);
    }
    let strange = Peer { expires: Tick(n), ..Peer::clone(&make_peer(9, n, 1)) };
    for kind in
        [PeersKind::Records, PeersKind::Shuffle { nonce: n }, PeersKind::ShuffleReply { nonce: n }]
    {
        v.input(Input::Peers { from, kind, peers: vec![Arc::new(strange.clone())] });
    }
    for why in
        [Refusal::Pending, Refusal::Early, Refusal::Unknown, Refusal::Forked, Refusal::Duplicate]
    {
        v.input(Input::Refused { from, log, seq: n, why });
    }
}
