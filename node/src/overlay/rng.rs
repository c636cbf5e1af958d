//! The only source of chance in this room: `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014).
//!
//! The seed is a constructor argument, so that the same seed and the same inputs give the same
//! actions (invariant I19). It is not for secrets: nonces only tell answers apart.

/// A small deterministic generator.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

/// The output function of `SplitMix64`, of use as a mixing hash as well.
pub(super) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The first eight bytes of an id as a number.
pub(super) fn cut(id: &[u8; 32]) -> u64 {
    id.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
}

impl Rng {
    /// A generator that the seed determines.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`; 0 where `n` is 0. The bias is below 2^-40 for the sizes used here.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// One of the candidates; `None` where there are none.
    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64);
        usize::try_from(at).ok().and_then(|i| from.get(i)).cloned()
    }

    /// Up to `n` distinct candidates in random order.
    pub(super) fn sample<T>(&mut self, mut from: Vec<T>, n: usize) -> Vec<T> {
        let mut out = Vec::new();
        while out.len() < n && !from.is_empty() {
            let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
            out.push(from.swap_remove(at));
        }
        out
    }

    /// True in so many of a hundred cases.
    pub(super) const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same numbers, another seed gives others, and bounds hold.
    #[test]
    fn seeded() {
        let (mut a, mut b, mut c) = (Rng::new(1), Rng::new(1), Rng::new(2));
        let draw = |r: &mut Rng| (0..64).map(|_| r.below(10)).collect::<Vec<_>>();
        let first = draw(&mut a);
        assert_eq!(first, draw(&mut b));
        assert_ne!(first, draw(&mut c));
        assert!(first.iter().all(|x| *x < 10));
        assert_eq!(a.pick::<u8>(&[]), None);
        let mut all = a.sample(vec![1, 2, 3], 9);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    }
}
