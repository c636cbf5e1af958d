//! What status and metrics may read.

use stork_wire::feed::Urgency;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::bandwidth::{Limit, Way};
use super::message::Role;
use super::pieces::PieceSet;
use super::planner::Planner;
use super::stats::Counters;
use super::swarm::Swarm;

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
    /// Bytes got, from whom.
    pub sources: Vec<(NodeId, u64)>,
    /// Bytes sent, to whom.
    pub sinks: Vec<(NodeId, u64)>,
    /// Bytes got in all.
    pub received: u64,
    /// Bytes sent in all.
    pub sent: u64,
    /// Bytes per second got lately.
    pub rate_down: u64,
    /// Bytes per second sent lately.
    pub rate_up: u64,
}

impl Planner {
    /// Every swarm that we take part in.
    pub fn views(&self, now: Tick) -> impl Iterator<Item = SwarmView> + '_ {
        self.swarms.values().map(move |s| s.view(now))
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
        SwarmView {
            swarm: self.id,
            manifest: self.manifest,
            urgency: self.urgency,
            role: self.role,
            have: self.have.count(),
            total: self.pieces(),
            have_bytes: self.have.iter().map(|p| self.len_of(p)).sum(),
            total_bytes: self.lens.iter().map(|l| u64::from(*l)).sum(),
            inflight: self.inflight.len(),
            neighbours: self.neighbours.values().filter(|n| n.is_open()).count(),
            sources: self.sources.peers(),
            sinks: self.sinks.peers(),
            received: self.sources.total(),
            sent: self.sinks.total(),
            rate_down: self.sources.rate(now),
            rate_up: self.sinks.rate(now),
        }
    }
}
