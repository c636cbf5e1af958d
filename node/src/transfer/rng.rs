//! Pseudo-random numbers from a seed that is handed in, so that a run can be repeated (I19), and
//! the rendezvous hash by which hosts agree on an order without talking.

use stork_wire::ids::NodeId;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for choosing among neighbours.
/// Nothing secret depends on it.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        usize::try_from(self.next() % (bound as u64)).unwrap_or(0)
    }

    /// Takes up to `count` items at random, without putting back.
    pub(super) fn sample<T: Copy>(&mut self, mut from: Vec<T>, count: usize) -> Vec<T> {
        let mut out = Vec::new();
        while out.len() < count && !from.is_empty() {
            out.push(from.swap_remove(self.below(from.len())));
        }
        out
    }
}

/// The finisher of SplitMix64.
pub(super) const fn mix(x: u64) -> u64 {
    let z = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The rendezvous weight of a node for a topic: every host computes the same.
pub(super) fn rendezvous(topic: &[u8; 32], node: NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("stork 2026 transfer rendezvous v1");
    hasher.update(topic);
    hasher.update(node.as_bytes());
    let hash = hasher.finalize();
    hash.as_bytes().iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
}

/// How many of `others` come before `me` for this topic, counted up to `enough`.
pub(super) fn rank(topic: &[u8; 32], me: NodeId, others: &[NodeId], enough: usize) -> usize {
    let mine = (rendezvous(topic, me), me);
    others.iter().filter(|n| **n != me && (rendezvous(topic, **n), **n) > mine).take(enough).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly one host has each rank, whoever computes it.
    #[test]
    fn ranks_are_agreed_on() {
        let nodes: Vec<NodeId> = (0..20).map(|i| NodeId([i; 32])).collect();
        let mut ranks: Vec<usize> = nodes.iter().map(|n| rank(&[7; 32], *n, &nodes, 99)).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, (0..20).collect::<Vec<_>>());
    }

    /// The same seed gives the same sample, and a sample repeats nothing.
    #[test]
    fn samples_repeat() {
        let a = Rng::new(5).sample((0..50).collect::<Vec<u32>>(), 12);
        let mut b = Rng::new(5).sample((0..50).collect::<Vec<u32>>(), 12);
        assert_eq!(a, b);
        b.sort_unstable();
        b.dedup();
        assert_eq!(b.len(), 12);
    }
}
