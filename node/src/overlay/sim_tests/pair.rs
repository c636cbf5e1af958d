//! Two hosts with many logs and one link, whose frames of sync are counted by what they cost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{Frame, ItemRange, LinkClass, OverlayFrame};
use stork_wire::ids::LogId;
use stork_wire::item::Head;
use stork_wire::limits::ITEMS_PER_FRAME_MAX;
use stork_wire::tick::Tick;

use super::super::{Action, Config, Event, Input, Overlay, Peer};
use super::check;
use super::made::{make_item, make_peer};

pub(super) fn log(i: u64) -> LogId {
    LogId::of(&i.to_be_bytes())
}

/// The head that a log has when it has so many items.
pub(super) fn head(i: u64, seq: u64) -> Head {
    Head::of(log(i), seq, make_item(log(i), seq).envelope.hash())
}

/// What was sent since the last `reset`.
#[derive(Debug, Default, Clone)]
pub(super) struct Cost {
    /// Bytes of frames that find differences, with their lengths, in both directions.
    pub(super) bytes: usize,
    /// Frames by name.
    pub(super) frames: BTreeMap<&'static str, u64>,
    /// Most bytes of them that left within 100 ms.
    pub(super) burst: usize,
    pub(super) forks: u64,
    pub(super) items: u64,
    window: (u64, usize),
}

/// The two hosts. Frames take 10 ms.
pub(super) struct Pair {
    pub(super) now: u64,
    pub(super) hosts: [Overlay; 2],
    pub(super) cost: Cost,
    /// Frames of these names are lost.
    pub(super) lost: Vec<&'static str>,
    peers: [Arc<Peer>; 2],
    queue: VecDeque<(u64, usize, Input)>,
}

impl Pair {
    /// Two linked hosts with the same heads.
    pub(super) fn new(heads: &[Head]) -> Self {
        let peers = [make_peer(0, 1, 1), make_peer(1, 1, 1)];
        let host = |p: &Arc<Peer>| Overlay::new(Config::default(), p.node, p.site.clone(), 5);
        let hosts = [host(&peers[0]), host(&peers[1])];
        let (cost, lost, queue) = (Cost::default(), Vec::new(), VecDeque::new());
        let mut pair = Self { now: 0, hosts, cost, lost, peers, queue };
        pair.set(0, heads);
        pair.set(1, heads);
        for i in 0..2 {
            pair.input(i, Input::Local(Arc::clone(&pair.peers[i])));
        }
        let (class, starving) = (LinkClass::Near, true);
        let (a, b) = (Arc::clone(&pair.peers[0]), Arc::clone(&pair.peers[1]));
        pair.input(1, Input::Bootstrap { known: vec![Arc::clone(&a)], anchors: vec![] });
        pair.run(1_000);
        pair.input(0, Input::Hello { peer: b, class, starving });
        pair.input(1, Input::Linked { peer: a, class, hints: vec![] });
        pair.run(3_000);
        assert!(pair.hosts.iter().all(|h| h.links().count() == 1));
        pair
    }

    /// What a host has from now on.
    pub(super) fn set(&mut self, host: usize, heads: &[Head]) {
        self.input(host, Input::Heads(heads.to_vec()));
    }

    pub(super) fn reset(&mut self) {
        self.cost = Cost::default();
    }

    pub(super) fn same(&self) -> bool {
        self.hosts[0].fingerprint() == self.hosts[1].fingerprint()
    }

    /// Lets time pass until both have the same, at most so long; the milliseconds it took.
    pub(super) fn until_same(&mut self, ms: u64) -> u64 {
        let start = self.now;
        while !self.same() && self.now < start + ms {
            self.run(50);
        }
        assert!(self.same(), "they still differ after {ms} ms: {:?}", self.cost);
        self.now - start
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let wake = |h: &Overlay| h.deadline().expect("there is a next time").0.max(self.now);
            let (at, host) = [wake(&self.hosts[0]), wake(&self.hosts[1])]
                .into_iter()
                .enumerate()
                .map(|(i, at)| (at, i))
                .min()
                .expect("two hosts");
            let first = self.queue.front().map_or(u64::MAX, |(at, ..)| *at);
            if first.min(at) > end {
                break;
            }
            if first <= at {
                let (at, to, input) = self.queue.pop_front().expect("looked at");
                self.now = self.now.max(at);
                self.input(to, input);
            } else {
                self.now = at;
                self.input(host, Input::Deadline);
            }
        }
        self.now = end;
    }

    pub(super) fn input(&mut self, i: usize, input: Input) {
        let mut actions = Vec::new();
        self.hosts[i].handle(Tick(self.now), input, &mut actions);
        check::cheap(&self.hosts[i], 5);
        for action in actions {
            match action {
                Action::Send { frame, .. } => self.send(i, frame),
                Action::ReadItems { ranges, .. } => {
                    // Of a log with gaps there is one item.
                    let last = |r: &ItemRange| if r.to == u64::MAX { r.from } else { r.to };
                    let all = ranges.iter().flat_map(|r| (r.from..=last(r)).map(|s| (r.log, s)));
                    let items: Vec<_> = all.map(|(l, s)| make_item(l, s)).collect();
                    for chunk in items.chunks(ITEMS_PER_FRAME_MAX) {
                        let list = List::truncated(chunk.iter().cloned());
                        self.send(i, OverlayFrame::Items(list));
                    }
                }
                Action::Deliver { from, item, .. } => {
                    let (log, seq, hash) = (item.log, item.seq, item.envelope.hash());
                    self.cost.items += 1;
                    let (item, source) = (Arc::new(item), Some(from));
                    let input = Input::Committed { log, seq, hash, item, source };
                    self.queue.push_back((self.now + 10, i, input));
                }
                Action::Event(Event::ForkSeen { .. }) => self.cost.forks += 1,
                _ => {}
            }
        }
    }

    fn send(&mut self, i: usize, frame: OverlayFrame) {
        let name = frame.name();
        if matches!(name, "sketch_ask" | "sketch" | "heads_ask" | "heads" | "ahead") {
            let bytes = Frame::Overlay(frame.clone()).to_bytes().len() + 4;
            assert!(bytes <= 64 * 1024 + 4);
            self.cost.bytes += bytes;
            *self.cost.frames.entry(name).or_default() += 1;
            let (window, sum) = self.cost.window;
            let sum = if window == self.now / 100 { sum + bytes } else { bytes };
            self.cost.window = (self.now / 100, sum);
            self.cost.burst = self.cost.burst.max(sum);
        }
        if !self.lost.contains(&name) {
            let from = self.peers[i].node;
            self.queue.push_back((self.now + 10, 1 - i, Input::Frame { from, frame }));
        }
    }
}
