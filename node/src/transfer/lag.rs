//! How far each stripe is behind the others in this site: what tells a broken way from a slow one.
//!
//! All stripes come at the same pace while nothing is wrong. One that has been at a place for long
//! which most others have passed has a gateway, or somebody above it, that is dead or slow, and is
//! then fetched another way. When all of them wait, nothing would be gained by that. It is time
//! that counts, not pieces: pieces are small or large, and links are slow or fast.

use stork_wire::tick::Tick;

use super::neighbour::Neighbour;
use super::pieces::PieceSet;
use super::swarm::Swarm;

/// So many pieces on their way from a gateway to the next host are no usual delay.
const KEPT_MIN: u32 = 3;

/// What this site is known to lack.
#[derive(Debug)]
pub(super) struct Lag {
    /// Pieces of each stripe that are absent.
    pub(super) absent: Vec<PieceSet>,
    /// Those of them that the gateway of the stripe has.
    kept: Vec<u32>,
    /// Pieces that this host has and no neighbour.
    alone: Vec<u32>,
    /// The middle of the numbers of absent pieces.
    pub(super) middle: u32,
}

/// When the middle of the stripes was where: how many of its pieces were absent then.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<(u32, Tick)>);

impl Passed {
    /// The middle is there now. What was lost again does not count: it only falls.
    pub(super) fn note(&mut self, middle: u32, now: Tick) {
        if self.0.last().is_none_or(|(absent, _)| middle < *absent) {
            self.0.push((middle, now));
        }
    }

    /// For how long most stripes have been further than one that lacks so many, in milliseconds.
    pub(super) fn behind_ms(&self, absent: u32, now: Tick) -> u64 {
        let at = self.0.partition_point(|(middle, _)| *middle >= absent);
        self.0.get(at).map_or(0, |(_, since)| now.since(*since))
    }
}

impl Lag {
    /// How many pieces of a stripe are absent.
    pub(super) fn of(&self, stripe: u32) -> u32 {
        self.absent.get(stripe as usize).map_or(0, PieceSet::count)
    }

    /// Whether the gateway of a stripe has most of what this site lacks more than others.
    pub(super) fn is_kept(&self, stripe: u32) -> bool {
        let behind = self.of(stripe).saturating_sub(self.middle);
        let most = |kept: u32| kept >= KEPT_MIN || (kept > 0 && 2 * kept >= behind);
        self.kept.get(stripe as usize).is_some_and(|kept| most(*kept))
    }

    /// Whether this host keeps several pieces of a stripe to itself.
    pub(super) fn keeps(&self, stripe: u32) -> bool {
        self.alone.get(stripe as usize).is_some_and(|alone| *alone >= KEPT_MIN)
    }
}

impl Swarm {
    /// Looks at all pieces. What only the gateway of its stripe has, and those that do not deliver
    /// it, does not count as here.
    pub(super) fn lag(&self, stripes: u32, gateways: &[stork_wire::ids::NodeId]) -> Lag {
        let empty = || PieceSet::empty(self.pieces());
        let mut absent: Vec<PieceSet> = (0..stripes).map(|_| empty()).collect();
        let mut kept = vec![0; stripes as usize];
        let mut alone = kept.clone();
        let maps: Vec<Option<&Neighbour>> =
            gateways.iter().map(|n| self.neighbours.get(n)).collect();
        for piece in 0..self.pieces() {
            let stripe = (piece % stripes.max(1)) as usize;
            let gateway = maps.get(stripe).copied().flatten();
            let held = gateway.is_some_and(|n| n.have.contains(piece));
            // What somebody says whose map does not count is not in the rarity.
            let counts = u16::from(held && gateway.is_some_and(|n| n.muted.is_none()));
            let (ours, rarity) = (self.have.contains(piece), self.rarity_of(piece));
            let here = ours || rarity > counts;
            if let (true, 0, Some(alone)) = (ours, rarity, alone.get_mut(stripe)) {
                *alone += 1;
            }
            if let (false, Some(set)) = (here, absent.get_mut(stripe)) {
                set.insert(piece);
                if let (true, Some(kept)) = (held, kept.get_mut(stripe)) {
                    *kept += 1;
                }
            }
        }
        let mut counts: Vec<u32> = absent.iter().map(PieceSet::count).collect();
        counts.sort_unstable();
        let middle = counts.get(counts.len() / 2).copied().unwrap_or(0);
        Lag { absent, kept, alone, middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stripe is behind since most others passed the place where it stands.
    #[test]
    fn behind_since_the_others_passed() {
        let mut passed = Passed::default();
        let at = |s: u64| Tick(s * 1_000);
        for (second, middle) in [(0, 64), (1, 60), (2, 60), (3, 50), (4, 55), (5, 40)] {
            passed.note(middle, at(second));
        }
        let behind = |absent| passed.behind_ms(absent, at(6));
        // Level with them, ahead of them, and behind since they went on from 64, 60 and 50.
        assert_eq!([behind(40), behind(3)], [0, 0]);
        assert_eq!([behind(64), behind(62), behind(60)], [5_000, 5_000, 3_000]);
        assert_eq!([behind(55), behind(50), behind(41)], [3_000, 1_000, 1_000]);
        assert_eq!(Passed::default().behind_ms(7, at(6)), 0);
    }
}
