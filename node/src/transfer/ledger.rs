//! Bytes by peer: how many, by which way, how many of them twice, and how fast they come lately.
//!
//! Each swarm has one of what it got and one of what it gave. Status reads them, and nothing is
//! decided by them.

use std::collections::BTreeMap;

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::swarm::{Ctx, Swarm};

/// Peers whose bytes are kept apart; further ones are added up. Status shows no more.
const LEDGER_MAX: usize = 64;
/// Seconds over which a rate is measured (security.md A11 uses the same window).
const RATE_WINDOW_S: usize = 5;
/// A rate is reckoned over this time at the least: one piece says nothing about a rate.
const RATE_MS_MIN: u64 = 1_000;

/// By which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Asked for: from a neighbour of the mesh, or the origin store.
    Asked,
    /// Pushed along a stripe, from one site to another.
    Stripe,
}

/// Bytes of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Bytes in all, those that went twice as well.
    pub bytes: u64,
    /// Of these, bytes that were here already when they came.
    pub twice: u64,
    /// Of these, bytes that went along stripes.
    pub striped: u64,
    /// Bytes per second lately.
    pub rate: u64,
}

impl Flow {
    /// Nothing.
    pub(super) const NONE: Self = Self { bytes: 0, twice: 0, striped: 0, rate: 0 };
}

/// Bytes of the last few seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    /// One for each second of the window; a second's place is its number modulo the window.
    sums: [u64; RATE_WINDOW_S],
    /// The second of the newest.
    newest: u64,
    /// When bytes began to go after a window without any.
    began: Tick,
}

impl Recent {
    fn add(&mut self, bytes: u64, now: Tick) {
        let second = now.0 / 1_000;
        if self.sum(second) == 0 {
            self.began = now;
        }
        self.forget_before(second);
        if let Some(sum) = self.sums.get_mut(place(second)) {
            *sum += bytes;
        }
    }

    /// Empties the places of the seconds that have passed since the newest.
    fn forget_before(&mut self, second: u64) {
        let passed = second.saturating_sub(self.newest).min(RATE_WINDOW_S as u64);
        for gone in (second - passed.min(second) + 1)..=second {
            if let Some(sum) = self.sums.get_mut(place(gone)) {
                *sum = 0;
            }
        }
        self.newest = self.newest.max(second);
    }

    /// Bytes of the window that ends with this second.
    fn sum(&self, second: u64) -> u64 {
        let mut seen = *self;
        seen.forget_before(second);
        seen.sums.iter().sum()
    }

    /// Bytes per second: over the window, or over the shorter time since they began to go.
    fn rate(&self, now: Tick) -> u64 {
        let second = now.0 / 1_000;
        let from = Tick(second.saturating_sub(RATE_WINDOW_S as u64 - 1) * 1_000);
        let ms = now.since(from.max(self.began)).max(RATE_MS_MIN);
        self.sum(second).saturating_mul(1_000) / ms
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % RATE_WINDOW_S as u64).unwrap_or(0)
}

/// What one peer brought or got.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    flow: Flow,
    recent: Recent,
}

impl Line {
    fn add(&mut self, bytes: u64, way: Way, now: Tick) {
        self.flow.bytes += bytes;
        self.flow.striped += if way == Way::Stripe { bytes } else { 0 };
        self.recent.add(bytes, now);
    }

    fn flow(&self, now: Tick) -> Flow {
        Flow { rate: self.recent.rate(now), ..self.flow }
    }
}

/// Bytes by peer, and of all together.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    by_peer: BTreeMap<NodeId, Line>,
    all: Line,
}

impl Ledger {
    pub(super) fn add(&mut self, node: NodeId, bytes: u64, way: Way, now: Tick) {
        self.all.add(bytes, way, now);
        if self.by_peer.len() < LEDGER_MAX || self.by_peer.contains_key(&node) {
            self.by_peer.entry(node).or_default().add(bytes, way, now);
        }
    }

    /// So many of the bytes that were added last were here already.
    pub(super) fn were_here(&mut self, node: NodeId, bytes: u64) {
        self.all.flow.twice += bytes;
        if let Some(line) = self.by_peer.get_mut(&node) {
            line.flow.twice += bytes;
        }
    }

    /// All peers together.
    pub(super) fn all(&self, now: Tick) -> Flow {
        self.all.flow(now)
    }

    /// Each peer that is kept apart.
    pub(super) fn peers(&self, now: Tick) -> impl Iterator<Item = (NodeId, Flow)> + '_ {
        self.by_peer.iter().map(move |(node, line)| (*node, line.flow(now)))
    }
}

impl Swarm {
    /// Notes a piece that came, before it counts as here; `asked` if it had been asked for.
    pub(super) fn account(&mut self, piece: u32, from: NodeId, asked: bool, ctx: &mut Ctx<'_>) {
        let bytes = self.len_of(piece);
        let striped = !asked && self.stripes.as_ref().is_some_and(|s| s.expects(from, piece));
        let way = if striped { Way::Stripe } else { Way::Asked };
        self.sources.add(from, bytes, way, ctx.now);
        if striped {
            ctx.counters.pushes_in += 1;
            ctx.counters.pushes_in_bytes += bytes;
        }
        if self.have.contains(piece) {
            self.sources.were_here(from, bytes);
            ctx.counters.duplicates += 1;
            ctx.counters.duplicate_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn of(ledger: &Ledger, node: u8, now: u64) -> Flow {
        let mut peers = ledger.peers(Tick(now));
        peers.find(|(n, _)| *n == NodeId([node; 32])).map(|(_, flow)| flow).unwrap()
    }

    /// Peers beyond the bound are in the sum, and lost nowhere.
    #[test]
    fn a_crowd_is_bounded() {
        let mut l = Ledger::default();
        (0..100).for_each(|i| l.add(NodeId([i; 32]), 10, Way::Asked, Tick(0)));
        assert_eq!((l.all(Tick(0)).bytes, l.peers(Tick(0)).count()), (1_000, LEDGER_MAX));
        l.add(NodeId([0; 32]), 5, Way::Asked, Tick(0));
        assert_eq!(of(&l, 0, 0).bytes, 15, "who is known is kept apart when it is full");
    }

    /// Ways and what came twice are told apart, by peer and in all.
    #[test]
    fn ways_and_what_came_twice() {
        let mut l = Ledger::default();
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        l.add(a, 3 * KIB, Way::Asked, Tick(0));
        l.add(b, 2 * KIB, Way::Stripe, Tick(0));
        l.add(b, KIB, Way::Asked, Tick(0));
        l.were_here(b, KIB);
        assert_eq!((of(&l, 1, 0).striped, of(&l, 2, 0).striped), (0, 2 * KIB));
        assert_eq!((of(&l, 1, 0).twice, of(&l, 2, 0).twice), (0, KIB));
        let all = l.all(Tick(0));
        assert_eq!((all.bytes, all.striped, all.twice), (6 * KIB, 2 * KIB, KIB));
    }

    /// A rate is over the time since bytes began to go, then over the window, and ends.
    #[test]
    fn rates() {
        let mut l = Ledger::default();
        let node = NodeId([1; 32]);
        // 1 KiB every 100 ms, beginning late in a run: 10 KiB a second from the first second on.
        let begin = 1_000_500;
        for i in 0..200 {
            l.add(node, KIB, Way::Asked, Tick(begin + i * 100));
            let rate = of(&l, 1, begin + i * 100).rate;
            assert!(rate <= 11 * KIB, "{rate} after {i}");
            assert!(i < 10 || rate >= 9 * KIB, "{rate} after {i}");
        }
        let end = begin + 20_000;
        assert!(of(&l, 1, end + 2_000).rate < 8 * KIB);
        assert_eq!((of(&l, 1, end + 5_000).rate, l.all(Tick(end + 5_000)).rate), (0, 0));
        // After a pause the rate is not one over the pause.
        l.add(node, 40 * KIB, Way::Asked, Tick(end + 60_000));
        assert_eq!(of(&l, 1, end + 60_000).rate, 40 * KIB);
    }

    /// The first seconds of a run have no seconds before them.
    #[test]
    fn the_first_seconds() {
        let mut l = Ledger::default();
        for ms in [0, 900, 1_100, 3_999] {
            l.add(NodeId([1; 32]), 100, Way::Asked, Tick(ms));
        }
        assert_eq!(of(&l, 1, 4_000).rate, 100);
    }
}
