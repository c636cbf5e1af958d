//! Who let us down in a swarm, and how long that counts.
//!
//! It is kept apart from the neighbour, so that a new connection does not wipe it out. Only the
//! direct sender is blamed (security.md C1): it has verified the piece before it offered it.

use std::collections::BTreeMap;

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

/// First wait after a stall; doubles with each one in a row (protocol.md §3e).
const AVOID_MS: u64 = 10_000;
/// Longest wait after a stall, and the wait after a bad piece.
const AVOID_MS_MAX: u64 = 300_000;
/// Stalls in a row after which a peer's map of pieces is forgotten (security.md C5).
const FALSE_HAVES: u8 = 3;
/// For so long (security.md C5).
const FORGET_MS: u64 = 60_000;
/// Bad pieces after which a peer is out of this swarm.
const BADS_MAX: u8 = 3;
/// Peers remembered in a swarm; beyond that the one whose sentence ends first is dropped.
const FAULTS_MAX: usize = 256;

#[derive(Debug, Clone, Default)]
struct Record {
    stalls: u8,
    bads: u8,
    avoid: Tick,
    shun: Tick,
}

/// What follows from a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask others first.
    Avoid,
    /// Forget what it says it has until then.
    Forget(Tick),
}

/// The faults of the peers of one swarm.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(BTreeMap<NodeId, Record>);

impl Faults {
    fn record(&mut self, node: NodeId) -> &mut Record {
        if !self.0.contains_key(&node) && self.0.len() >= FAULTS_MAX {
            let first = self.0.iter().min_by_key(|(_, r)| (r.bads, r.avoid.max(r.shun)));
            if let Some(gone) = first.map(|(n, _)| *n) {
                self.0.remove(&gone);
            }
        }
        self.0.entry(node).or_default()
    }

    /// A piece did not come in time.
    pub(super) fn stalled(&mut self, node: NodeId, now: Tick) -> Verdict {
        let r = self.record(node);
        r.stalls = r.stalls.saturating_add(1);
        let wait = AVOID_MS << u32::from(r.stalls - 1).min(10);
        r.avoid = now.after_ms(wait.min(AVOID_MS_MAX));
        if !r.stalls.is_multiple_of(FALSE_HAVES) {
            return Verdict::Avoid;
        }
        let until = now.after_ms(FORGET_MS);
        r.shun = r.shun.max(until);
        Verdict::Forget(until)
    }

    /// A piece was not what it claims to be.
    pub(super) fn bad(&mut self, node: NodeId, now: Tick) {
        let r = self.record(node);
        r.bads = r.bads.saturating_add(1);
        r.shun = now.after_ms(AVOID_MS_MAX);
    }

    /// A piece came: stalls before it are forgiven, bad pieces are not.
    pub(super) fn delivered(&mut self, node: NodeId) {
        if let Some(r) = self.0.get_mut(&node) {
            r.stalls = 0;
            r.avoid = Tick(0);
            if r.bads == 0 {
                self.0.remove(&node);
            }
        }
    }

    /// Whether others are asked first.
    pub(super) fn avoided(&self, node: NodeId, now: Tick) -> bool {
        self.0.get(&node).is_some_and(|r| r.avoid > now)
    }

    /// Whether it is not asked at all for now.
    pub(super) fn shunned(&self, node: NodeId, now: Tick) -> bool {
        self.0.get(&node).is_some_and(|r| r.shun > now || r.bads >= BADS_MAX)
    }

    /// Until when it is not asked at all.
    pub(super) fn shunned_until(&self, node: NodeId, now: Tick) -> Option<Tick> {
        self.0.get(&node).map(|r| r.shun).filter(|t| *t > now)
    }

    /// Whether it is out for good.
    pub(super) fn banned(&self, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|r| r.bads >= BADS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C5: waits double, the third failure in a row forgets the map, and a delivery forgives.
    #[test]
    fn stalls() {
        let (mut f, n) = (Faults::default(), NodeId([1; 32]));
        assert_eq!(f.stalled(n, Tick(0)), Verdict::Avoid);
        assert!(f.avoided(n, Tick(9_999)) && !f.avoided(n, Tick(10_000)));
        f.stalled(n, Tick(0));
        assert!(f.avoided(n, Tick(19_999)) && !f.shunned(n, Tick(0)));
        assert_eq!(f.stalled(n, Tick(0)), Verdict::Forget(Tick(60_000)));
        assert!(f.shunned(n, Tick(59_999)) && !f.shunned(n, Tick(60_000)));
        f.delivered(n);
        assert!(!f.avoided(n, Tick(0)));
    }

    /// C1: a bad piece costs five minutes, the third one the swarm; the memory is bounded.
    #[test]
    fn bads() {
        let (mut f, n) = (Faults::default(), NodeId([1; 32]));
        (0..2).for_each(|_| f.bad(n, Tick(0)));
        f.delivered(n);
        assert!(f.shunned(n, Tick(299_999)) && !f.shunned(n, Tick(300_000)) && !f.banned(n));
        f.bad(n, Tick(0));
        assert!(f.banned(n) && f.shunned(n, Tick(u64::MAX)));
        for i in 0..=255 {
            f.stalled(NodeId([i; 32]), Tick(0));
        }
        for i in 0..=255 {
            f.stalled(NodeId([[i; 16], [1; 16]].concat().try_into().unwrap()), Tick(0));
        }
        assert!(f.0.len() <= FAULTS_MAX && f.banned(n));
    }
}
