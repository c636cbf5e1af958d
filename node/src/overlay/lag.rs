//! How far a log's tree lags behind what others announce of it, which says how long to wait before
//! a missing item is asked for (protocol.md §3c: adaptive graft timers).

/// So much of one item's lag counts whatever is known of its tree.
const FREE_MS: u64 = 250;

/// The mean lag of the last items, in milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Lag(u64);

impl Lag {
    pub(super) const fn ms(self) -> u64 {
        self.0
    }

    /// An item came so long after its first announcement. A tree that is slow becomes known as slow
    /// within some ten items. One that stood still since hosts above it died, and then brings all
    /// that is late at once, does not: of each item twice what is known counts at the most. Else
    /// what is missing next, below dead hosts again, would be waited for up to three seconds.
    pub(super) fn note(&mut self, ms: u64) {
        let counts = ms.min(self.0.saturating_mul(2).max(FREE_MS));
        self.0 = self.0.saturating_mul(3).saturating_add(counts) / 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three late items after a fault change little, and a slow tree is known after ten.
    #[test]
    fn a_fault_is_not_a_slow_tree() {
        let mut lag = Lag(20);
        (0..3).for_each(|_| lag.note(1_000));
        assert!(4 * lag.ms() <= 700, "{lag:?}");
        (0..20).for_each(|_| lag.note(20));
        assert!(lag.ms() <= 25, "{lag:?}");
        (0..12).for_each(|_| lag.note(1_000));
        assert!(4 * lag.ms() >= 2_000, "{lag:?}");
        (0..100).for_each(|_| lag.note(u64::MAX));
        lag.note(0);
    }
}
