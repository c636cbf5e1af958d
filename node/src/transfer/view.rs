//! What status and metrics may read.

use stork_wire::feed::Urgency;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::bandwidth::{Limit, Way};
use super::ledger::Flow;
use super::message::Role;
use super::pieces::PieceSet;
use super::planner::Planner;
use super::stats::Counters;
use super::swarm::Swarm;
use super::tree::{PeerView, StripeView};

/// One swarm as an operator sees it.
#[derive(Debug, Clone)]
pub struct SwarmView {
    /// Which swarm.
    pub swarm: SwarmId,
    /// The manifest that describes it.
    pub manifest: ManifestId,
    /// Its class.
    pub urgency: Urgency,
    /// Our part.
    pub role: Role,
    /// Pieces that are here.
    pub have: u32,
    /// Pieces that it has.
    pub total: u32,
    /// Bytes that are here.
    pub have_bytes: u64,
    /// Bytes that it has.
    pub total_bytes: u64,
    /// Pieces that are on their way to us.
    pub inflight: usize,
    /// Open neighbours.
    pub neighbours: usize,
    /// What came, of all peers together.
    pub got: Flow,
    /// What went out, to all together.
    pub gave: Flow,
    /// Milliseconds until all is here at the rate of the last seconds; 0 once it is, none if
    /// nothing comes.
    pub eta_ms: Option<u64>,
    /// Milliseconds since somebody helped, while something is missing.
    pub hungry_ms: Option<u64>,
    /// Who gives, who gets, and the other neighbours.
    pub peers: Vec<PeerView>,
    /// What comes from other sites, where anything does.
    pub stripes: Vec<StripeView>,
}

impl Planner {
    /// Every swarm that we take part in.
    pub fn views(&self, now: Tick) -> impl Iterator<Item = SwarmView> + '_ {
        self.swarms.values().map(move |s| s.view(now))
    }

    /// The swarms of one manifest that we take part in.
    pub fn views_of(
        &self,
        manifest: ManifestId,
        now: Tick,
    ) -> impl Iterator<Item = SwarmView> + '_ {
        let its = self.swarms.values().filter(move |s| s.manifest == manifest);
        its.map(move |s| s.view(now))
    }

    /// One swarm.
    #[must_use]
    pub fn view(&self, swarm: SwarmId, now: Tick) -> Option<SwarmView> {
        self.swarms.get(&swarm).map(|s| s.view(now))
    }

    /// The pieces of a swarm that are here.
    #[must_use]
    pub fn pieces(&self, swarm: SwarmId) -> Option<&PieceSet> {
        self.swarms.get(&swarm).map(|s| &s.have)
    }

    /// Whether a piece is expected from this peer: what the shell asks when a stream begins.
    #[must_use]
    pub fn expects(&self, from: NodeId, swarm: SwarmId, piece: u32) -> bool {
        let Some(s) = self.swarms.get(&swarm) else { return false };
        let asked = s.inflight.get(&piece).is_some_and(|s| s.iter().any(|r| r.from == from));
        asked || s.stripes.as_ref().is_some_and(|s| s.expects(from, piece))
    }

    /// Whether a connection is used by a swarm: others may be closed when there are too many.
    #[must_use]
    pub fn uses(&self, node: NodeId) -> bool {
        self.swarms.values().any(|s| s.neighbours.contains_key(&node) || s.is_linked_afar(node))
    }

    /// Whether a host that is connected is in our site; none for others.
    #[must_use]
    pub fn is_near(&self, node: NodeId) -> Option<bool> {
        self.peers.get(&node).copied()
    }

    /// The limit of a way, and how often something waited for it since the start.
    #[must_use]
    pub const fn limit(&self, way: Way) -> (Limit, u64) {
        self.bandwidth.state(way)
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}

impl Swarm {
    fn view(&self, now: Tick) -> SwarmView {
        let have_bytes = self.have.iter().map(|p| self.len_of(p)).sum();
        let total_bytes = self.lens.iter().map(|l| u64::from(*l)).sum();
        let got = self.sources.all(now);
        SwarmView {
            swarm: self.id,
            manifest: self.manifest,
            urgency: self.urgency,
            role: self.role,
            have: self.have.count(),
            total: self.pieces(),
            have_bytes,
            total_bytes,
            inflight: self.inflight.len(),
            neighbours: self.neighbours.values().filter(|n| n.is_open()).count(),
            got,
            gave: self.sinks.all(now),
            eta_ms: eta_ms(total_bytes.saturating_sub(have_bytes), got.rate),
            hungry_ms: (!self.complete()).then(|| self.seeker.hungry_ms(now)),
            peers: self.peer_views(now),
            stripes: self.stripe_views(now),
        }
    }
}

fn eta_ms(missing: u64, rate: u64) -> Option<u64> {
    match (missing, rate) {
        (0, _) => Some(0),
        (_, 0) => None,
        (bytes, rate) => Some(bytes.saturating_mul(1_000) / rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is missing, nothing comes, and the usual case.
    #[test]
    fn the_time_that_is_left() {
        assert_eq!(eta_ms(0, 0), Some(0));
        assert_eq!(eta_ms(1, 0), None);
        assert_eq!(eta_ms(3_000, 2_000), Some(1_500));
    }
}
