//! Affinity: how well two hosts suit each other as neighbours, for no reason but to be fair.
//!
//! Whoever asks first or most often would win the places for inbound links, and whoever is named
//! most often a place in the passive view: that is how insiders surround a host (attacks G2, G3).
//! So places that are wanted go to the hosts of the least distance, a number that two hosts share,
//! that no third one can influence, and that is drawn anew each day. Repeating a wish or a name
//! then wins nothing: of all who ask, a fair sample stays, as with the min-wise samplers of Brahms
//! (Bortnikov et al., Computer Networks 2009). Both ends agree on it, so that those whom a host
//! wants most are mostly those who want it.
//!
//! A host that makes keys until one is close to a victim is as far away as anybody on the next day.

use std::sync::Arc;

use stork_wire::ids::NodeId;

use super::Overlay;
use super::io::Peer;
use super::rng::{cut, mix};

/// Distances from one host on one day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affinity {
    me: u64,
    day: u64,
}

impl Affinity {
    pub(super) fn new(me: &NodeId) -> Self {
        Self { me: cut(me.as_bytes()), day: 0 }
    }

    /// The distance of another host; the least is the closest. It is the same from there to here.
    pub(super) fn distance(&self, other: &NodeId) -> u64 {
        let other = mix(cut(other.as_bytes()));
        mix(mix(self.me).wrapping_add(other) ^ mix(self.day))
    }

    /// The closest of these hosts.
    pub(super) fn closest(&self, from: Vec<Arc<Peer>>) -> Option<Arc<Peer>> {
        from.into_iter().min_by_key(|p| self.distance(&p.node))
    }
}

impl Overlay {
    /// Another day began, counted from 1970: distances are drawn anew. Links stay as they are.
    pub(super) const fn on_day(&mut self, day: u32) {
        self.affinity.day = day as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(i: u64) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&mix(i).to_be_bytes());
        NodeId(id)
    }

    /// Two hosts share their distance, and another day has another order.
    #[test]
    fn distances_are_shared_and_change_with_the_day() {
        let all: Vec<NodeId> = (0..50).map(id).collect();
        let order = |day| {
            let mut from = Affinity::new(&all[0]);
            from.day = day;
            let mut rest = all[1..].to_vec();
            rest.sort_by_key(|n| from.distance(n));
            for other in &rest {
                let mut back = Affinity::new(other);
                back.day = day;
                assert_eq!(from.distance(other), back.distance(&all[0]));
            }
            rest
        };
        assert_ne!(order(1), order(2));
        assert_eq!(order(3), order(3));
    }
}
