//! How far each stripe is behind the others in this site: what tells a broken way from a slow one.
//!
//! All stripes come at the same pace while nothing is wrong. One that falls behind the middle of
//! them by several pieces has a gateway, or somebody above it, that is dead or slow, and is then
//! fetched another way. When all of them wait, nothing would be gained by that.

use super::pieces::PieceSet;
use super::swarm::Swarm;

/// What this site is known to lack.
#[derive(Debug)]
pub(super) struct Lag {
    /// Pieces of each stripe that are absent.
    pub(super) absent: Vec<PieceSet>,
    /// The middle of their numbers.
    pub(super) middle: u32,
}

impl Lag {
    /// By how many pieces a stripe is behind.
    pub(super) fn behind(&self, stripe: u32) -> u32 {
        let absent = self.absent.get(stripe as usize).map_or(0, PieceSet::count);
        absent.saturating_sub(self.middle)
    }
}

impl Swarm {
    /// Looks at all pieces. What only the gateway of its stripe has, and those that do not deliver
    /// it, does not count as here.
    pub(super) fn lag(&self, stripes: u32, gateways: &[stork_wire::ids::NodeId]) -> Lag {
        let empty = || PieceSet::empty(self.pieces());
        let mut absent: Vec<PieceSet> = (0..stripes).map(|_| empty()).collect();
        let maps: Vec<Option<&PieceSet>> = gateways
            .iter()
            .map(|n| self.neighbours.get(n).filter(|n| n.muted.is_none()).map(|n| &n.have))
            .collect();
        for piece in 0..self.pieces() {
            let stripe = (piece % stripes.max(1)) as usize;
            let gateway = maps.get(stripe).copied().flatten();
            let held = u16::from(gateway.is_some_and(|have| have.contains(piece)));
            let here = self.have.contains(piece) || self.rarity_of(piece) > held;
            if let (false, Some(set)) = (here, absent.get_mut(stripe)) {
                set.insert(piece);
            }
        }
        let mut counts: Vec<u32> = absent.iter().map(PieceSet::count).collect();
        counts.sort_unstable();
        let middle = counts.get(counts.len() / 2).copied().unwrap_or(0);
        Lag { absent, middle }
    }
}
