//! Who feeds whom in one swarm, as this host sees it: what each peer gave and got, how far it is,
//! and who falls behind.
//!
//! Only read: nothing is decided by it. A host knows its neighbours, those of other sites with
//! which it shares a stripe, and what went to and from any other since the swarm began.

use std::collections::BTreeMap;

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::ledger::Flow;
use super::swarm::Swarm;

/// A neighbour that lacks pieces and had nothing new for so long stands still: twenty times as long
/// as the longest wait before pieces are announced and asked for again.
const STANDS_MS: u64 = 5_000;
/// A neighbour with less than the middle's pieces divided by this lags far behind.
const LAGS_PART: u32 = 2;
/// Not before the middle has this part of all pieces: chance decides who is first.
const LAGS_FROM: u32 = 8;

/// How a neighbour falls behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It lacks pieces, and has had nothing new for five seconds.
    Stands,
    /// It has less than half of what the middle of the neighbours and this host has.
    Lags,
}

/// One peer of a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Who: a host, or the origin store.
    pub node: NodeId,
    /// Whether it is a neighbour in the mesh, by the word of both.
    pub neighbour: bool,
    /// Whether it has the content from the publisher.
    pub origin: bool,
    /// Pieces that it says it has; none where that is not known.
    pub have: Option<u32>,
    /// How it falls behind, if it does.
    pub behind: Option<Behind>,
    /// Milliseconds since it had something new; none where that is not known.
    pub still_ms: Option<u64>,
    /// Pieces that were asked from it and are on their way.
    pub asked: usize,
    /// Pieces that are being sent to it.
    pub sending: usize,
    /// Stripes that it pushes to us.
    pub stripes_in: Vec<u32>,
    /// Stripes that we push to it.
    pub stripes_out: Vec<u32>,
    /// What came from it.
    pub got: Flow,
    /// What it got from us.
    pub gave: Flow,
}

impl PeerView {
    const fn new(node: NodeId, origin: bool) -> Self {
        Self {
            node,
            neighbour: false,
            origin,
            have: None,
            behind: None,
            still_ms: None,
            asked: 0,
            sending: 0,
            stripes_in: Vec::new(),
            stripes_out: Vec::new(),
            got: Flow::NONE,
            gave: Flow::NONE,
        }
    }

    /// Does it give us something, or did it?
    #[must_use]
    pub fn feeds_us(&self) -> bool {
        self.got.bytes > 0 || self.asked > 0 || !self.stripes_in.is_empty()
    }

    /// Does it get something from us, or did it?
    #[must_use]
    pub fn is_fed(&self) -> bool {
        self.gave.bytes > 0 || self.sending > 0 || !self.stripes_out.is_empty()
    }
}

/// One stripe of what comes from other sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeView {
    /// Its number.
    pub stripe: u32,
    /// Its pieces.
    pub pieces: u32,
    /// Of these, what is on this host.
    pub have: u32,
    /// The host of this site that fetches it while nothing is wrong.
    pub gateway: Option<NodeId>,
    /// Whom this host fetches it from, if it does.
    pub parent: Option<NodeId>,
    /// Pieces that are expected from there.
    pub expected: u32,
    /// Milliseconds since something came from there, or since it was asked.
    pub idle_ms: Option<u64>,
}

/// Which of these fall behind: pieces and time without news by place. `ours` counts for the middle.
fn behind(peers: &[(u32, u64)], ours: u32, total: u32) -> Vec<Option<Behind>> {
    let mut all: Vec<u32> = peers.iter().map(|(have, _)| *have).chain([ours]).collect();
    all.sort_unstable();
    let middle = all.get(all.len() / 2).copied().unwrap_or(0);
    let tells = middle >= total / LAGS_FROM;
    let judge = |(have, still_ms): &(u32, u64)| match (*have, *still_ms) {
        (have, _) if have >= total => None,
        (_, STANDS_MS..) => Some(Behind::Stands),
        (have, _) if tells && have < middle / LAGS_PART => Some(Behind::Lags),
        _ => None,
    };
    peers.iter().map(judge).collect()
}

impl Swarm {
    /// Everybody whom this host has or had something to do with, in the order of their ids.
    pub(super) fn peer_views(&self, now: Tick) -> Vec<PeerView> {
        let mut all: BTreeMap<NodeId, PeerView> = BTreeMap::new();
        let mut of = |node: NodeId, change: &dyn Fn(&mut PeerView)| {
            let origin = self.origins.binary_search(&node).is_ok();
            change(all.entry(node).or_insert_with(|| PeerView::new(node, origin)));
        };
        for (node, flow) in self.sources.peers(now) {
            of(node, &|p| p.got = flow);
        }
        for (node, flow) in self.sinks.peers(now) {
            of(node, &|p| p.gave = flow);
        }
        for reserved in self.inflight.values().flatten() {
            of(reserved.from, &|p| p.asked += 1);
        }
        // What an origin says is what it offers: it has more.
        let says = self.neighbours.iter().filter(|(_, n)| n.is_open());
        let (origins, others): (Vec<_>, Vec<_>) = says.partition(|(_, n)| n.origin);
        for (node, n) in &origins {
            of(**node, &|p| (p.neighbour, p.sending) = (true, n.sending.len()));
        }
        let far = |n: &super::neighbour::Neighbour| (n.have.count(), now.since(n.moved));
        let progress: Vec<(u32, u64)> = others.iter().map(|(_, n)| far(n)).collect();
        let judged = behind(&progress, self.have.count(), self.pieces());
        for (((node, n), (have, still)), behind) in others.iter().zip(&progress).zip(judged) {
            of(**node, &|p| {
                (p.neighbour, p.sending, p.behind) = (true, n.sending.len(), behind);
                (p.have, p.still_ms) = (Some(*have), Some(*still));
            });
        }
        for ((node, stripe), child) in &self.children.map {
            of(*node, &|p| {
                p.stripes_out.push(*stripe);
                p.sending += child.sending.len();
            });
        }
        for (stripe, sub) in self.stripes.iter().flat_map(|s| &s.subs) {
            of(sub.parent, &|p| p.stripes_in.push(*stripe));
        }
        all.into_values().collect()
    }

    /// The stripes that come to this site; none where the content began in it.
    pub(super) fn stripe_views(&self, now: Tick) -> Vec<StripeView> {
        let Some(s) = &self.stripes else { return Vec::new() };
        let step = s.plan.stripes.max(1);
        let one = |stripe: u32| {
            let pieces = || (stripe..self.pieces()).step_by(step as usize);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let sub = s.subs.get(&stripe);
            StripeView {
                stripe,
                pieces: count(pieces().count()),
                have: count(pieces().filter(|p| self.have.contains(*p)).count()),
                gateway: s.plan.gateways.get(stripe as usize).copied(),
                parent: sub.map(|sub| sub.parent),
                expected: sub.map_or(0, |sub| sub.expected.count()),
                idle_ms: sub.filter(|s| s.asked.is_some()).map(|sub| now.since(sub.progress)),
            }
        };
        (0..s.plan.stripes).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 160;

    /// Who is whole is never behind; who has nothing new for long stands; who has less than half of
    /// the middle lags.
    #[test]
    fn stragglers() {
        let peers = [(ALL, 60_000), (100, 100), (90, 0), (10, 4_999), (10, 5_000), (45, 200)];
        let judged = behind(&peers, 95, ALL);
        let (stands, lags) = (Some(Behind::Stands), Some(Behind::Lags));
        assert_eq!(judged, [None, None, None, lags, stands, None]);
    }

    /// While nearly nobody has anything, nobody lags; one that stands is told at any time.
    #[test]
    fn the_beginning_tells_nothing() {
        let judged = behind(&[(19, 0), (0, 0), (0, 5_000)], 19, ALL);
        assert_eq!(judged, [None, None, Some(Behind::Stands)]);
        assert_eq!(behind(&[(20, 0), (0, 0)], 20, ALL), [None, Some(Behind::Lags)]);
        assert_eq!(behind(&[], 0, ALL), []);
    }
}
