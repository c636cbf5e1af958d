//! One insider against the comparison of heads: garbage, floods, old items and bad items.

use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{Frame, Have, LinkClass, OverlayFrame, ShortLog, SketchCell};
use stork_wire::item::Head;
use stork_wire::limits::{HEADS_PER_FRAME_MAX, LOGS_MAX, SKETCH_CELLS_MAX};
use stork_wire::tick::Tick;

use super::super::rng::Rng;
use super::super::{Action, Config, Input, Overlay, Refusal};
use super::hostile::{Victim, some_log};
use super::made::{log_id, make_item};

fn sent(actions: &[Action]) -> impl Iterator<Item = &OverlayFrame> {
    actions.iter().filter_map(|a| match a {
        Action::Send { frame, .. } => Some(frame),
        _ => None,
    })
}

fn with_logs(v: &mut Victim, n: usize) {
    let head = |i| Head { log: some_log(i), seq: 1, hash: [1; 8] };
    v.input(Input::Heads((0..n).map(head).collect()));
}

/// A host whose sketch never decodes costs cells worth half of the full heads, then full heads, and
/// after that only what growing waits allow: in an hour less than 60 comparisons.
#[test]
fn endless_garbage_in_sketches() {
    let mut v = Victim::new();
    with_logs(&mut v, 1_000);
    let mut rng = Rng::new(1);
    let (mut cells_in, mut most, mut asks, mut bytes_out) = (0, 0, 0, 0);
    for second in 0..3_600 {
        v.now = Tick(second * 1_000);
        let mut actions = v.input(Input::Deadline);
        let mut session = 0;
        while let Some(action) = actions.pop() {
            let Action::Send { frame, .. } = action else { continue };
            bytes_out += Frame::Overlay(frame.clone()).to_bytes().len();
            actions.extend(match frame {
                OverlayFrame::Ping { nonce, class, .. } => {
                    v.fast(OverlayFrame::Pong { nonce, fingerprint: [9; 8], class })
                }
                OverlayFrame::SketchAsk { start, count } => {
                    asks += 1;
                    session += count;
                    let mut cell = || {
                        let mut bytes = [0; 24];
                        bytes.iter_mut().for_each(|b| *b = u8::try_from(rng.below(250)).unwrap());
                        SketchCell(bytes)
                    };
                    let cells = List::truncated((0..count).map(|_| cell()));
                    let (fingerprint, logs) = ([9; 8], 1_000);
                    v.fast(OverlayFrame::Sketch { fingerprint, logs, start, cells })
                }
                _ => Vec::new(),
            });
        }
        cells_in += session;
        most = most.max(session);
    }
    let c = v.o.counters();
    println!("{cells_in} cells, {most} in one comparison, {asks} asks, {bytes_out} B out, {c:?}");
    assert!(most <= 8_192 && c.sketches == 0 && c.sketches_failed > 0);
    assert!(c.syncs < 60, "{} comparisons in an hour", c.syncs);
    assert!(v.o.sizes().sessions <= 2 && v.o.sizes().cells <= 8_192);
}

/// Cells that nobody asked for, in any number and of any kind, are counted and dropped.
#[test]
fn sketches_that_were_not_asked_for() {
    let mut v = Victim::new();
    with_logs(&mut v, 100);
    for i in 0..100 {
        let cells = List::truncated(vec![SketchCell([0xff; 24]); i * 20]);
        let (fingerprint, logs, start) = ([1; 8], u32::MAX, u32::MAX);
        v.frame(OverlayFrame::Sketch { fingerprint, logs, start, cells });
    }
    assert_eq!(v.o.counters().unsolicited, 100);
    assert_eq!(v.o.sizes().sessions, 0);
}

/// Whatever a host asks for, what it is sent stays within frame and rate: two sketches and as many
/// heads at once, and then little (attacks G9, G12, G17).
#[test]
fn questions_are_rate_limited() {
    let mut v = Victim::new();
    with_logs(&mut v, 5_000);
    let (mut cells, mut heads) = (0, 0);
    for k in 0..500u32 {
        v.now = Tick(u64::from(k) * 4);
        let wild = [(0, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX), (8_192, 1), (0, 0)];
        for (start, count) in wild {
            let actions = v.fast(OverlayFrame::SketchAsk { start, count });
            assert_eq!(sent(&actions).count(), 0, "{start} {count}");
        }
        let actions = v.fast(OverlayFrame::SketchAsk { start: 6_144, count: 2_048 });
        for frame in sent(&actions) {
            let OverlayFrame::Sketch { cells: some, .. } = frame else { continue };
            assert_eq!(some.len(), SKETCH_CELLS_MAX);
            cells += some.len();
        }
        let all = (0..HEADS_PER_FRAME_MAX).map(|i| ShortLog::of(&some_log(i)));
        let actions = v.fast(OverlayFrame::HeadsAsk(List::truncated(all)));
        heads += sent(&actions).count();
    }
    assert!((16_384..18_433).contains(&cells), "{cells} cells in two seconds");
    assert!((16..=18).contains(&heads), "{heads} frames of heads in two seconds");
}

/// Short ids that nobody has, with numbers at the end of what numbers can be, fill no more than the
/// sender's share and make this host ask back for less than it was sent.
#[test]
fn ahead_flood() {
    let mut v = Victim::new();
    with_logs(&mut v, 20_000);
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for k in 0..60usize {
        let known = |i| (ShortLog::of(&some_log(k * 500 + i)), u64::MAX);
        let strange = |i: usize| (ShortLog((k * 1_000 + i).to_be_bytes()), u64::MAX);
        let all = (0..500).map(known).chain((0..500).map(strange));
        let frame = OverlayFrame::Ahead(List::truncated(all));
        bytes_in += Frame::Overlay(frame.clone()).to_bytes().len();
        let actions = v.fast(frame);
        let asked = sent(&actions).filter(|f| matches!(f, OverlayFrame::HeadsAsk(_)));
        bytes_out += asked.map(|f| Frame::Overlay(f.clone()).to_bytes().len()).sum::<usize>();
    }
    assert!(v.o.sizes().wants <= LOGS_MAX / 4 && v.o.counters().dropped > 0);
    assert!(bytes_out < bytes_in, "{bytes_out} B out for {bytes_in} B in");
    v.now = v.now.after_ms(6_000);
    v.frame(OverlayFrame::IHave(List::empty()));
    v.input(Input::Deadline);
    assert_eq!((v.o.sizes().wants, v.o.links().count()), (0, 1));
}

/// T065: an entry of last year comes again after 90 s, after an hour, and after a restart. It is
/// never judged again and never goes on, since what was seen is remembered by number, not by time
/// (attack G10).
#[test]
fn t065_an_old_entry_is_dropped_for_ever() {
    let mut v = Victim::new();
    let log = log_id(0);
    v.commit(log, 1..=300);
    let again = |v: &mut Victim| {
        for seq in [1, 5, 299, 300] {
            let item = Box::new(make_item(log, seq));
            let mut actions = v.frame(OverlayFrame::Push { hop: 1, age_ms: 0, entry: 0, item });
            actions.extend(v.frame(OverlayFrame::IHave(List::truncated([Have::new(log, seq)]))));
            actions.extend(v.frame(OverlayFrame::Items(List::truncated([make_item(log, seq)]))));
            let went_on =
                |f: &OverlayFrame| matches!(f, OverlayFrame::Push { .. } | OverlayFrame::IHave(_));
            assert!(!actions.iter().any(|a| matches!(a, Action::Deliver { .. })));
            assert!(!sent(&actions).any(went_on), "item {seq} goes on");
            assert!(!sent(&actions).any(|f| matches!(f, OverlayFrame::Graft { .. })));
        }
    };
    for ms in [90_000, 3_600_000] {
        v.now = v.now.after_ms(ms);
        again(&mut v);
    }
    let heads = vec![v.o.head(&log).expect("it was committed")];
    let (me, site) = (v.o.me, v.o.site.clone());
    let local = v.o.local.clone().expect("it has a record");
    v.o = Overlay::new(Config::default(), me, site, 6);
    v.input(Input::Heads(heads));
    v.input(Input::Local(local));
    let foe = Arc::clone(&v.foe);
    assert_eq!(v.hello(&foe, LinkClass::Near, true), LinkClass::Near);
    again(&mut v);
}

/// Items that are refused are not asked for again for ever: neither where they are more than is
/// remembered one by one, nor where their sender comes back again and again.
#[test]
fn refused_items_are_left_alone_however_many() {
    let mut v = Victim::new();
    let foe = Arc::clone(&v.foe);
    let mut asked = 0;
    for second in 0..3_600 {
        v.now = Tick(second * 1_000);
        if second % 600 == 300 {
            v.input(Input::Down { node: foe.node });
            v.now = v.now.after_ms(1);
            v.hello(&foe, LinkClass::Near, true);
        }
        let head = |i| Head { log: some_log(i), seq: 1, hash: [1; 8] };
        let mut actions = Vec::new();
        for k in 0..3 {
            let heads = List::truncated((k * 1_000..k * 1_000 + 1_000).map(head));
            actions.extend(v.fast(OverlayFrame::Heads { heads, last: k == 2, answer: false }));
        }
        actions.extend(v.input(Input::Deadline));
        while let Some(action) = actions.pop() {
            let Action::Send { frame: OverlayFrame::Fetch(ranges), .. } = action else { continue };
            for range in &ranges {
                asked += 1;
                let item = make_item(range.log, range.from);
                v.fast(OverlayFrame::Items(List::truncated([item])));
                let (log, seq, why) = (range.log, range.from, Refusal::Unknown);
                actions.extend(v.input(Input::Refused { from: foe.node, log, seq, why }));
            }
        }
    }
    println!("3 000 logs that cannot be judged: {asked} items fetched in an hour");
    assert!(asked < 10_000, "{asked}");
}
