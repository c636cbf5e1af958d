//! Small measurements: medians, token buckets, the downlink, and the counters for status.

use std::collections::VecDeque;

use stork_wire::tick::Tick;

/// Samples that a median looks at: enough to outvote one slow sender, few enough to follow a
/// change within a second.
const SAMPLES: usize = 15;
/// The peak of the downlink fades by this part with each piece: some 200 pieces forget it.
const PEAK_FADES: u64 = 256;

/// The median of the last few samples.
#[derive(Debug, Clone, Default)]
pub(super) struct Median {
    samples: Vec<u64>,
    next: usize,
    value: u64,
}

impl Median {
    pub(super) fn add(&mut self, sample: u64) {
        if let Some(slot) = self.samples.get_mut(self.next) {
            *slot = sample;
        } else {
            self.samples.push(sample);
        }
        self.next = (self.next + 1) % SAMPLES;
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        self.value = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    }

    /// `None` before the first sample.
    pub(super) fn value(&self) -> Option<u64> {
        (!self.samples.is_empty()).then_some(self.value)
    }

    /// The largest of the last few.
    pub(super) fn most(&self) -> u64 {
        self.samples.iter().copied().max().unwrap_or(0)
    }
}

/// Whole tokens that come back at a steady pace: `size` of them per second.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    size: u64,
    /// Thousandths of a token.
    milli: u64,
    filled: Tick,
}

impl Bucket {
    pub(super) const fn new(size: u64, now: Tick) -> Self {
        Self { size, milli: size * 1000, filled: now }
    }

    pub(super) fn take(&mut self, now: Tick) -> bool {
        let come = now.since(self.filled).saturating_mul(self.size);
        self.milli = self.milli.saturating_add(come).min(self.size * 1000);
        self.filled = now;
        let has = self.milli >= 1000;
        if has {
            self.milli -= 1000;
        }
        has
    }
}

/// What the downlink has been seen to carry.
///
/// Many uploaders choose the same least progressed host at once. If it accepted them all, pieces
/// would queue on its downlink, reserved and useless, while others wait. So it accepts as many
/// as fill the downlink a few times over, counting each by the rate that it can send with.
#[derive(Debug, Clone, Default)]
pub(super) struct Downlink {
    arrivals: VecDeque<(Tick, u64)>,
    peak: u64,
}

impl Downlink {
    pub(super) fn add(&mut self, bytes: u64, now: Tick) {
        self.peak -= self.peak / PEAK_FADES;
        self.arrivals.push_back((now, bytes));
        if self.arrivals.len() <= SAMPLES {
            return;
        }
        let first = self.arrivals.pop_front().map_or(now, |(t, _)| t);
        let bytes: u64 = self.arrivals.iter().map(|(_, b)| b).sum();
        self.peak = self.peak.max(bytes / now.since(first).max(1));
    }

    /// Bytes per millisecond; 0 while that is not known.
    pub(super) const fn peak(&self) -> u64 {
        self.peak
    }
}

/// What happened so far, over all swarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Grants given.
    pub grants: u64,
    /// Times that a stripe was asked for in another site.
    pub subscriptions: u64,
    /// The same by hosts that took it over.
    pub takeovers: u64,
    /// Pieces pushed to gateways of other sites; some may have been stopped.
    pub pushes: u64,
    /// Of these, pieces that went out whole.
    pub pushed: u64,
    /// Their bytes.
    pub pushed_bytes: u64,
    /// Pieces that came along a stripe from another site.
    pub pushes_in: u64,
    /// Their bytes.
    pub pushes_in_bytes: u64,
    /// Grants that came back unused.
    pub passes: u64,
    /// Grants that ran out.
    pub expired: u64,
    /// Requests without a grant; they are ignored.
    pub ungranted: u64,
    /// Requests that an origin turned down since another host has the piece by now.
    pub withdrawn: u64,
    /// Reservations given up because their sender took too long.
    pub stolen: u64,
    /// Pieces that came although they were here.
    pub duplicates: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Pieces that did not match their hash.
    pub bad: u64,
    /// Frames that make no sense in our state, such as piece numbers out of range.
    pub nonsense: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median follows the newest samples and ignores one outlier.
    #[test]
    fn median() {
        let mut m = Median::default();
        assert_eq!(m.value(), None);
        for x in [5, 900, 6] {
            m.add(x);
        }
        assert_eq!((m.value(), m.most()), (Some(6), 900));
        (0..20).for_each(|_| m.add(40));
        assert_eq!((m.value(), m.samples.len()), (Some(40), SAMPLES));
    }

    /// A bucket never holds more than its size and refills at its size per second.
    #[test]
    fn bucket() {
        let mut b = Bucket::new(2, Tick(0));
        assert!(b.take(Tick(0)) && b.take(Tick(0)) && !b.take(Tick(0)));
        assert!(!b.take(Tick(499)) && b.take(Tick(500)));
        assert!(b.take(Tick(9000)) && b.take(Tick(9000)) && !b.take(Tick(9000)));
    }
}
