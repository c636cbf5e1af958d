//! The overlay's machine: bytes become a sequence of inputs of several hosts, with time between
//! them, and what must hold is looked at after each.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_node::overlay::{Action, Config, Input, Overlay, Peer, PeersKind, Refusal};
use stork_wire::codec::{Blob, List};
use stork_wire::frame::{
    Frame, Have, ItemRange, LinkClass, OverlayFrame, PeerHint, ShortLog, SketchCell,
};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Head, Item, ItemKind, is_moment};
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::sign::Envelope;
use stork_wire::tick::Tick;

use super::bytes::Bytes;
use super::samples::list;

const HOSTS: usize = 20;
const LOGS: u8 = 5;
/// Inputs of one run: enough for every timer to come by.
const STEPS_MAX: usize = 600;
const CLASSES: [LinkClass; 3] = [LinkClass::Near, LinkClass::Far, LinkClass::Transient];
const PAUSES: [u64; 8] = [0, 1, 60, 500, 2_000, 5_000, 31_000, 700_000];

fn body(bytes: Vec<u8>) -> Envelope {
    Envelope { body: Blob::new(bytes).unwrap(), signatures: List::empty() }
}

fn node(i: usize) -> NodeId {
    NodeId(*blake3::hash(&i.to_be_bytes()).as_bytes())
}

fn log(i: u8) -> LogId {
    LogId::of(&[i])
}

fn item(log: LogId, seq: u64) -> Item {
    let bytes = [log.as_bytes(), seq.to_be_bytes().as_slice()].concat();
    Item { kind: ItemKind::Entry, log, seq, envelope: body(bytes) }
}

/// The machine, and what a driver would know.
struct Run<'a> {
    bytes: Bytes<'a>,
    o: Overlay,
    now: Tick,
    actions: Vec<Action>,
    /// Delivered, and not answered yet.
    judging: Vec<(NodeId, Item)>,
    seen: BTreeSet<&'static str>,
}

impl Run<'_> {
    fn peer(&mut self) -> Arc<Peer> {
        let i = self.bytes.below(HOSTS);
        let expires = if self.bytes.below(8) == 0 { self.bytes.wild() } else { u64::MAX };
        let incarnation = if self.bytes.below(4) == 0 { self.bytes.wild() } else { 1 };
        Arc::new(Peer {
            node: node(i),
            site: if i.is_multiple_of(3) { "east" } else { "west" }.parse().unwrap(),
            addrs: Vec::new(),
            incarnation,
            groups: Vec::new(),
            cell: None,
            expires: Tick(expires),
            hint: PeerHint { cert: body(vec![u8::try_from(i).unwrap()]), record: body(vec![]) },
        })
    }

    fn peers(&mut self) -> Vec<Arc<Peer>> {
        (0..self.bytes.below(9)).map(|_| self.peer()).collect()
    }

    fn log(&mut self) -> LogId {
        let i = self.bytes.byte();
        // Most of the known logs; some that only this input speaks of.
        if i < 200 { log(i % LOGS) } else { log(i) }
    }

    fn seq(&mut self, log: LogId) -> u64 {
        let head = self.o.head(&log).map_or(0, |h| h.seq);
        match self.bytes.below(4) {
            0 => head,
            1 => head.saturating_add(1),
            2 => head.saturating_add(2),
            _ => self.bytes.wild(),
        }
    }

    fn item(&mut self) -> Item {
        let log = self.log();
        let seq = self.seq(log);
        let mut item = item(log, seq);
        if self.bytes.below(8) == 0 {
            item.envelope = body(vec![9]);
            item.kind = self.bytes.pick(&[ItemKind::Entry, ItemKind::Proof]);
        }
        item
    }

    fn keys(&mut self) -> Vec<(LogId, u64)> {
        let mut one = || {
            let log = self.log();
            (log, self.seq(log))
        };
        (0..8).map(|_| one()).collect()
    }

    fn frame(&mut self) -> OverlayFrame {
        let class = self.bytes.pick(&CLASSES);
        let fingerprint = self.bytes.wild().to_be_bytes();
        let (nonce, small) = (self.bytes.wild32(), self.bytes.wild32());
        let keys = self.keys();
        let (log, seq) = keys[0];
        let flags = (self.bytes.flag(), self.bytes.flag());
        match self.bytes.below(14) {
            0 => OverlayFrame::Ping { nonce, fingerprint, class, carries: small.into() },
            1 => OverlayFrame::Pong {
                nonce: self.asked_nonce().unwrap_or(nonce),
                fingerprint,
                class,
            },
            2 => OverlayFrame::Unlink,
            3 | 4 => {
                let (hop, item) = (self.bytes.byte(), Box::new(self.item()));
                OverlayFrame::Push { hop, age_ms: small, entry: small, item }
            }
            5 => {
                let waited_ms = u16::from(self.bytes.byte()) << 8;
                let more = u16::from(self.bytes.byte());
                let have = |(log, seq)| Have { log, seq, more, waited_ms };
                OverlayFrame::IHave(list(keys.into_iter().map(have)))
            }
            6 => OverlayFrame::Graft { log, seq },
            7 => OverlayFrame::Prune { log },
            8 => {
                let head = |(log, seq)| Head { log, seq, hash: fingerprint };
                let heads = list(keys.into_iter().map(head));
                OverlayFrame::Heads { heads, last: flags.0, answer: flags.1 }
            }
            9 => {
                let range = |(log, to)| ItemRange { log, from: u64::from(flags.0), to };
                OverlayFrame::Fetch(list(keys.into_iter().map(range)))
            }
            10 => OverlayFrame::Items(list((0..4).map(|_| self.item()))),
            11 => OverlayFrame::SketchAsk { start: nonce, count: small },
            12 => {
                let (hop, len) = (self.bytes.byte(), usize::from(self.bytes.byte()));
                let envelope = Box::new(body(self.bytes.take(len).to_vec()));
                OverlayFrame::PushEntry { hop, age_ms: small, entry: small, envelope }
            }
            _ => self.answer(fingerprint, keys),
        }
    }

    fn answer(&mut self, fingerprint: [u8; 8], keys: Vec<(LogId, u64)>) -> OverlayFrame {
        let short = |(log, seq): (LogId, u64)| (ShortLog::of(&log), seq);
        match self.bytes.below(3) {
            0 => OverlayFrame::Ahead(list(keys.into_iter().map(short))),
            1 => OverlayFrame::HeadsAsk(list(keys.into_iter().map(|k| short(k).0))),
            _ => {
                let asked = self.actions.iter().find_map(|a| match a {
                    Action::Send { frame: OverlayFrame::SketchAsk { start, count }, .. } => {
                        Some((*start, *count))
                    }
                    _ => None,
                });
                let (start, count) = asked.unwrap_or((0, 2));
                let mut cell = || {
                    let mut bytes = [0; 24];
                    let some = self.bytes.take(24);
                    bytes.iter_mut().zip(some).for_each(|(a, b)| *a = *b);
                    SketchCell(bytes)
                };
                let cells = list((0..count.min(2_048)).map(|_| cell()));
                OverlayFrame::Sketch { fingerprint, logs: self.bytes.wild32(), start, cells }
            }
        }
    }

    fn asked_nonce(&self) -> Option<u32> {
        self.actions.iter().find_map(|a| match a {
            Action::Send { frame: OverlayFrame::Ping { nonce, .. }, .. } => Some(*nonce),
            _ => None,
        })
    }

    /// The driver's answer to a delivery, or a commit of its own.
    fn judged(&mut self) -> Input {
        let at = self.bytes.below(self.judging.len());
        let own = self.judging.is_empty() || self.bytes.below(4) == 0;
        let (source, item) = if own {
            let log = self.log();
            let head = self.o.head(&log).map_or(0, |h| h.seq);
            (None, item(log, head.saturating_add(1)))
        } else {
            let (from, item) = self.judging.remove(at);
            (Some(from), item)
        };
        let (log, seq, hash) = (item.log, item.seq, item.hash());
        let why = [
            Refusal::Duplicate,
            Refusal::Pending,
            Refusal::Early,
            Refusal::Invalid,
            Refusal::Unknown,
            Refusal::Forked,
        ];
        match source {
            Some(from) if self.bytes.flag() => {
                Input::Refused { from, log, seq, why: self.bytes.pick(&why) }
            }
            _ => Input::Committed { log, seq, hash, item: Arc::new(item), source },
        }
    }

    fn input(&mut self) -> Input {
        // The driver lets no frame in that this node would have sent to itself.
        let from = node(1 + self.bytes.below(HOSTS - 1));
        match self.bytes.below(16) {
            0 | 1 => {
                let (peer, class) = (self.peer(), self.bytes.pick(&CLASSES));
                Input::Hello { peer, class, starving: self.bytes.flag() }
            }
            2 => {
                let (peer, class) = (self.dialled(), self.bytes.pick(&CLASSES));
                Input::Linked { peer, class, hints: self.peers() }
            }
            3 => Input::Down { node: from },
            4 => Input::DialFailed { node: from },
            5 => {
                let nonce = self.bytes.wild();
                let kinds = [
                    PeersKind::Records,
                    PeersKind::Shuffle { nonce },
                    PeersKind::ShuffleReply { nonce },
                ];
                Input::Peers { from, kind: self.bytes.pick(&kinds), peers: self.peers() }
            }
            6 | 7 => self.judged(),
            8 => {
                let len = usize::from(self.bytes.byte());
                let raw = Frame::from_bytes(self.bytes.take(len), FRAME_LEN_MAX);
                let Ok(Frame::Overlay(frame)) = raw else { return Input::Deadline };
                Input::Frame { from, frame }
            }
            9 => {
                let log = self.log();
                let head = self.o.head(&log).filter(|h| h.seq > 1 && self.bytes.flag());
                Input::Cut { log, head: head.map(|h| Head { seq: h.seq - 1, ..h }) }
            }
            10 if self.bytes.flag() => Input::Day(u32::from(self.bytes.byte())),
            10 => Input::Deadline,
            11 if self.bytes.below(8) == 0 => {
                Input::Bootstrap { known: self.peers(), anchors: self.peers() }
            }
            _ => Input::Frame { from, frame: self.frame() },
        }
    }

    /// The host that was dialled last, or any.
    fn dialled(&mut self) -> Arc<Peer> {
        let last = self.actions.iter().rev().find_map(|a| match a {
            Action::Dial { peer, .. } => Some(Arc::clone(peer)),
            _ => None,
        });
        last.unwrap_or_else(|| self.peer())
    }

    fn step(&mut self) {
        self.now = self.now.after_ms(self.bytes.pick(&PAUSES));
        let input = self.input();
        let hello = matches!(input, Input::Hello { .. });
        if let Input::Committed { log, seq, .. } | Input::Refused { log, seq, .. } = &input {
            self.judging.retain(|(_, i)| (i.log, i.seq) != (*log, *seq));
        }
        let judging = self.judging.len();
        let mut actions = Vec::new();
        self.o.handle(self.now, input, &mut actions);
        let answers = actions.iter().filter(|a| matches!(a, Action::Answer { .. })).count();
        assert_eq!(answers, usize::from(hello), "a Hello is answered once, nothing else is");
        for action in &actions {
            self.check(action);
        }
        // The machine forgets what the driver never answered; so does this one.
        if self.judging.len() > judging + 256 {
            self.judging.clear();
        }
        for (name, size, cap) in self.o.gauges() {
            assert!(size <= cap, "{name}: {size} of {cap}");
        }
        assert!(self.o.deadline().is_some(), "nothing is planned");
        let me = node(0);
        let linked: BTreeSet<NodeId> = self.o.links().map(|l| l.peer.node).collect();
        assert!(!linked.contains(&me) && self.o.contacts().all(|n| *n != me), "knows itself");
        assert!(self.o.contacts().all(|n| !linked.contains(n)), "in two sets");
        if !actions.is_empty() {
            self.actions = actions;
        }
    }

    fn check(&mut self, action: &Action) {
        match action {
            Action::Send { to, frame, .. } => {
                self.seen.insert(frame.name());
                assert_ne!(*to, node(0), "sends to itself");
                let frame = Frame::Overlay(frame.clone());
                let bytes = frame.to_bytes();
                assert_eq!(Frame::from_bytes(&bytes, FRAME_LEN_MAX), Ok(frame));
            }
            Action::Deliver { from, item, .. } => {
                self.seen.insert("deliver");
                self.judging.push((*from, item.clone()));
            }
            Action::ReadItems { ranges, .. } => {
                self.seen.insert("read");
                // Of a log whose numbers are times there is only the newest item, whatever it is.
                let head = |r: &ItemRange| self.o.head(&r.log).map_or(0, |h| h.seq);
                let last = |r: &ItemRange| {
                    let newest = is_moment(head(r)) && r.to == u64::MAX;
                    if newest { (1, r.from) } else { (r.to - r.from + 1, r.to) }
                };
                let count: u64 = ranges.iter().map(|r| last(r).0).sum();
                assert!((1..=256).contains(&count), "{count} items are read at once");
                for range in ranges {
                    let there = range.from > 0 && last(range).1 <= head(range);
                    assert!(there, "{range:?} of {} is not there", head(range));
                }
            }
            Action::Dial { peer, .. } => {
                self.seen.insert("dial");
                assert_ne!(peer.node, node(0), "dials itself");
            }
            Action::SavePeers(hints) => assert!(hints.len() <= 400),
            Action::Answer { .. } | Action::Close { .. } => {}
            Action::Event(_) | Action::Summarise(_) => {}
        }
    }
}

/// Runs it.
pub(super) fn overlay(data: &[u8]) -> String {
    let me = node(0);
    let config = Config { roster: 16, ..Config::default() };
    let o = Overlay::new(config, me, "east".parse().unwrap(), 1);
    let (judging, actions) = (Vec::new(), Vec::new());
    let mut run =
        Run { bytes: Bytes::new(data), o, now: Tick(0), actions, judging, seen: BTreeSet::new() };
    let heads = (0..LOGS).map(|i| Head::of(log(i), 3, item(log(i), 3).hash())).collect();
    run.o.handle(Tick(0), Input::Heads(heads), &mut Vec::new());
    let mut steps = 0;
    while !run.bytes.is_empty() && steps < STEPS_MAX {
        run.step();
        steps += 1;
    }
    let c = run.o.counters();
    let counts = [c.delivered, c.grafts, c.prunes, c.syncs, c.sketches, c.dropped, c.unsolicited];
    let counts = counts.map(|n| n.checked_ilog2().map_or(0, |n| n + 1));
    format!("{:?} {counts:?}", run.seen)
}

/// Bytes without meaning; chance finds the rest.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let mut rng = super::Mutator::new(11);
    let mut some = |n: usize| (0..n).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
    [40, 200, 1_000, 4_000, 6_000, 8_000].map(&mut some).to_vec()
}
