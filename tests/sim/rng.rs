//! The simulator's only source of chance: `SplitMix64`, seeded on the command line, so that the
//! same seed gives the same run to the last event (invariant I19).

/// A small deterministic generator.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

/// Spreads a number over all 64 bits.
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash of two numbers.
pub(crate) const fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b)
}

impl Rng {
    /// A generator that the seed determines.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub(crate) const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// A number below `n` that names a node.
    pub(crate) fn node(&mut self, n: usize) -> u32 {
        u32::try_from(self.below(n as u64)).unwrap_or(0)
    }

    /// True in this share of all cases, in millionths.
    pub(crate) const fn ppm(&mut self, ppm: u64) -> bool {
        self.below(1_000_000) < ppm
    }

    /// All of them in random order.
    pub(crate) fn shuffled<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        for i in (1..all.len()).rev() {
            let j = usize::try_from(self.below(i as u64 + 1)).unwrap_or(0);
            all.swap(i, j);
        }
        all
    }
}
