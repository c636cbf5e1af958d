//! Pieces that an origin has sent to nobody yet, by stripe.
//!
//! Where there are other sites, each stripe goes to its gateway first, and all of them should be
//! equally far: a stripe that lags at the origin lags everywhere. A host that is the gateway of
//! two stripes therefore gets twice as much as others, and of the two the one that is behind.

use stork_wire::ids::NodeId;

use super::pieces::PieceSet;

/// A set of pieces, and how many of each stripe are in it.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) set: PieceSet,
    /// The gateway of each stripe in this site; empty where there is no other site.
    gateways: Vec<NodeId>,
    left: Vec<u32>,
}

impl Fresh {
    pub(super) const fn new(set: PieceSet) -> Self {
        Self { set, gateways: Vec::new(), left: Vec::new() }
    }

    fn of(&mut self, piece: u32) -> Option<&mut u32> {
        let stripes = self.left.len().max(1);
        self.left.get_mut(piece as usize % stripes)
    }

    pub(super) fn insert(&mut self, piece: u32) -> bool {
        let new = self.set.insert(piece);
        if let (true, Some(left)) = (new, self.of(piece)) {
            *left += 1;
        }
        new
    }

    pub(super) fn remove(&mut self, piece: u32) -> bool {
        let was = self.set.remove(piece);
        if let (true, Some(left)) = (was, self.of(piece)) {
            *left -= 1;
        }
        was
    }

    /// The gateways of this site.
    pub(super) fn set_gateways(&mut self, gateways: Vec<NodeId>) {
        self.left = vec![0; gateways.len()];
        self.gateways = gateways;
        for piece in self.set.iter().collect::<Vec<u32>>() {
            if let Some(left) = self.of(piece) {
                *left += 1;
            }
        }
    }

    /// Stripes of which this host is the gateway and something is left: the one with most first.
    fn stripes(&self, node: NodeId) -> Vec<(u32, u32)> {
        let all = (0u32..).zip(self.gateways.iter().zip(&self.left));
        let its = all.filter(|(_, (g, left))| **g == node && **left > 0);
        let mut its: Vec<(u32, u32)> = its.map(|(stripe, (_, left))| (*left, stripe)).collect();
        its.sort_unstable_by(|a, b| b.cmp(a));
        its
    }

    /// A piece of a stripe of which this host is the gateway.
    pub(super) fn find_own(
        &self,
        node: NodeId,
        start: u32,
        have: &PieceSet,
        fits: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (none, of) = (PieceSet::default(), u32::try_from(self.left.len()).unwrap_or(1).max(1));
        let all = self.stripes(node);
        let find =
            |stripe: u32| self.set.find(start, [have, &none], |p| p % of == stripe && fits(p));
        all.into_iter().find_map(|(_, stripe)| find(stripe))
    }

    /// How far the stripe is that is behind among those of this host, in 2^-20; who is the gateway
    /// of none, or has all of it, comes after those. `None` where there is no other site.
    pub(super) fn progress(&self, node: NodeId) -> Option<u64> {
        if self.gateways.is_empty() {
            return None;
        }
        let Some((left, _)) = self.stripes(node).first().copied() else { return Some(1 << 20) };
        let each = self.set.len().div_ceil(u32::try_from(self.left.len()).unwrap_or(1)).max(1);
        Some((u64::from(each.saturating_sub(left)) << 20) / u64::from(each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    /// A host with two stripes gets them in turn, and is behind one with a single stripe that got
    /// as many pieces.
    #[test]
    fn stripes_stay_level() {
        let mut fresh = Fresh::new(PieceSet::full(12));
        fresh.set_gateways(vec![A, B, A]);
        let none = PieceSet::empty(12);
        let mut got = Vec::new();
        while let Some(p) = fresh.find_own(A, 0, &none, |_| true) {
            assert!(fresh.remove(p) && !fresh.remove(p));
            got.push(p % 3);
        }
        assert_eq!(got, [2, 0, 2, 0, 2, 0, 2, 0]);
        assert_eq!(fresh.progress(A), Some(1 << 20));
        assert_eq!(fresh.progress(B), Some(0));
        assert!(fresh.insert(0) && fresh.insert(3) && fresh.remove(1));
        assert_eq!((fresh.progress(A), fresh.progress(B)), (Some(1 << 19), Some(1 << 18)));
        assert_eq!(fresh.find_own(B, 0, &none, |p| p != 4), Some(7));
    }
}
