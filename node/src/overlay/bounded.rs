//! Two small bounded things that every part of this room uses: a map that forgets its oldest entry
//! when it is full (attack G13), and a rate limit.

use std::collections::{BTreeMap, VecDeque};

use stork_wire::tick::Tick;

/// A map of at most `max` entries, which forgets the entry that was added first.
#[derive(Debug, Clone)]
pub(super) struct Recent<K, V> {
    max: usize,
    map: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    /// An empty map with its bound.
    pub(super) const fn new(max: usize) -> Self {
        Self { max, map: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Sets a value. An entry that is there keeps its age.
    pub(super) fn set(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
        }
    }

    /// Entries at the most.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Entries now.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}

/// A rate limit: one unit per `every_ms` in the long run, `burst` units at once.
///
/// It is the generic cell rate algorithm: one time is all its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    every_ms: u64,
    burst: u64,
    spent_until: Tick,
}

impl Rate {
    /// A limit that was not used yet.
    pub(super) const fn new(every_ms: u64, burst: u64) -> Self {
        Self { every_ms, burst, spent_until: Tick(0) }
    }

    /// Takes `units` if the limit allows it.
    pub(super) fn take(&mut self, now: Tick, units: u64) -> bool {
        let start = self.spent_until.max(now);
        let after = start.after_ms(self.every_ms.saturating_mul(units));
        let fits = after.since(now) <= self.every_ms.saturating_mul(self.burst);
        if fits {
            self.spent_until = after;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oldest entry goes first, and setting a value again does not add an entry.
    #[test]
    fn recent_forgets_the_oldest() {
        let mut r = Recent::new(2);
        r.set(1, 'a');
        r.set(1, 'b');
        r.set(2, 'c');
        r.set(3, 'd');
        assert_eq!((r.get(&1), r.get(&2), r.get(&3), r.len()), (None, Some(&'c'), Some(&'d'), 2));
    }

    /// A burst, then one unit per interval; the end of time neither wraps nor panics (attack G12).
    #[test]
    fn rate_limits() {
        let mut r = Rate::new(1_000, 3);
        let taken = (0..10).filter(|_| r.take(Tick(5), 1)).count();
        assert_eq!(taken, 3);
        assert!(!r.take(Tick(500), 1));
        assert!(r.take(Tick(1_010), 1));
        assert!(!r.take(Tick(1_010), u64::MAX));
    }
}
