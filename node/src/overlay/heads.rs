//! The heads of all committed logs, with their fingerprint and their sketch.

use core::ops::Bound;
use std::collections::BTreeMap;

use stork_wire::frame::ShortLog;
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::Head;
use stork_wire::limits::LOGS_MAX;

use super::sketch::{Cell, Sketch, value_of};

/// Logs of one short id that are looked at: two are an attack already, and more help nobody.
const SAME_SHORT_MAX: usize = 8;

/// The newest committed item of each log. The fingerprint is a wrapping sum, so that one changed
/// head is exchanged in constant time (protocol.md §3d, invariant I9).
#[derive(Debug, Default)]
pub(super) struct Heads {
    map: BTreeMap<LogId, Head>,
    sum: u128,
    sketch: Sketch,
}

impl Heads {
    /// The number of a log's newest item; 0 where there is none.
    pub(super) fn seq(&self, log: &LogId) -> u64 {
        self.map.get(log).map_or(0, |h| h.seq)
    }

    pub(super) fn get(&self, log: &LogId) -> Option<&Head> {
        self.map.get(log)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Heads in the order of their logs, from the one after `after` on.
    pub(super) fn page(&self, after: Option<LogId>, max: usize) -> Vec<Head> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.map.range((from, Bound::Unbounded)).take(max).map(|(_, h)| *h).collect()
    }

    /// The heads of all logs with this short id: nearly always one or none.
    pub(super) fn of_short(&self, short: ShortLog) -> Vec<Head> {
        let [mut first, mut last] = [LogId([0; 32]), LogId([0xff; 32])];
        for (i, b) in short.0.into_iter().enumerate() {
            for end in [&mut first, &mut last] {
                if let Some(slot) = end.0.get_mut(i) {
                    *slot = b;
                }
            }
        }
        self.map.range(first..=last).take(SAME_SHORT_MAX).map(|(_, h)| *h).collect()
    }

    /// The first cells of the sketch of all heads.
    pub(super) fn cells(&mut self, count: usize) -> &[Cell] {
        self.sketch.cells(count, self.map.values())
    }

    /// Cells of the sketch that are kept.
    pub(super) const fn cells_kept(&self) -> usize {
        self.sketch.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Head> {
        self.map.values()
    }

    /// Replaces everything: what a start finds on disk.
    pub(super) fn reset(&mut self, heads: &[Head]) {
        *self = Self::default();
        for head in heads {
            self.set(*head);
        }
    }

    /// Advances a head; false where it does not advance, or there are too many logs.
    pub(super) fn advance(&mut self, log: LogId, seq: u64, hash: ItemHash) -> bool {
        let known = self.map.contains_key(&log);
        if seq <= self.seq(&log) || (!known && self.map.len() >= LOGS_MAX) {
            return false;
        }
        self.set(Head::of(log, seq, hash));
        true
    }

    /// Takes a head back to one before it, or away: items of the log are void.
    pub(super) fn cut_back(&mut self, log: LogId, head: Option<Head>) {
        if let Some(old) = self.map.remove(&log) {
            self.sum = self.sum.wrapping_sub(old.fingerprint());
            self.sketch.change(ShortLog::of(&log), value_of(&old), 0);
        }
        if let Some(head) = head {
            self.set(head);
        }
    }

    fn set(&mut self, head: Head) {
        let old = self.map.insert(head.log, head);
        if let Some(old) = &old {
            self.sum = self.sum.wrapping_sub(old.fingerprint());
        }
        let before = old.as_ref().map_or(0, value_of);
        self.sketch.change(ShortLog::of(&head.log), before, value_of(&head));
        self.sum = self.sum.wrapping_add(head.fingerprint());
    }

    /// The whole fingerprint.
    pub(super) const fn fingerprint(&self) -> u128 {
        self.sum
    }

    /// The fingerprint as pings carry it.
    pub(super) fn cut(&self) -> [u8; 8] {
        let mut out = [0; 8];
        for (slot, b) in out.iter_mut().zip(self.sum.to_be_bytes()) {
            *slot = b;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The running sum is what a fresh count gives (invariant I9), and heads never go back.
    #[test]
    fn fingerprint_is_incremental() {
        let (a, b) = (LogId([1; 32]), LogId([2; 32]));
        let mut h = Heads::default();
        h.cells(16);
        assert!(h.advance(a, 1, ItemHash([1; 32])));
        assert!(h.advance(b, 4, ItemHash([2; 32])));
        assert!(h.advance(a, 2, ItemHash([3; 32])));
        assert!(!h.advance(a, 2, ItemHash([9; 32])));
        assert!(!h.advance(a, 1, ItemHash([9; 32])));
        h.cut_back(b, None);
        assert_eq!(h.seq(&b), 0);
        h.cut_back(a, Some(Head::of(a, 1, ItemHash([1; 32]))));
        assert!(h.advance(a, 2, ItemHash([3; 32])) && h.advance(b, 4, ItemHash([2; 32])));
        let mut fresh = Heads::default();
        let mut all: Vec<Head> = h.iter().copied().collect();
        all.reverse();
        fresh.reset(&all);
        assert_eq!((fresh.fingerprint(), fresh.cut()), (h.fingerprint(), h.cut()));
        assert_eq!(fresh.cells(16), h.cells(16));
        assert_ne!(h.cut(), [0; 8]);
    }
}
