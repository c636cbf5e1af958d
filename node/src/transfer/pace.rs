//! How fast new pieces come to a site, and after how long without one a stripe has stalled.

use std::collections::VecDeque;

use stork_wire::tick::Tick;

use super::sites::STRIPES_MAX;

/// A stripe of which nothing new came for so many usual gaps has stalled.
const STALL_GAPS: u64 = 6;
/// New pieces over which the usual gap is taken.
const TIMES: usize = 65;
const USUAL_FADES: u64 = 256;
/// But not before this time: round trips of far sites and the queues of their links take as long.
const STALL_MS_MIN: u64 = 400;
/// The same while little has come: a first piece of each stripe may be on its way over a link of
/// 1 Mbit/s, and whoever is gone is noticed by its connection.
const STALL_MS_FIRST: u64 = 10_000;
/// So many new pieces, for each stripe one, say how fast they come.
const FEW: u64 = STRIPES_MAX as u64;
const STALL_MS_MAX: u64 = 60_000;

/// When new pieces of a content were seen in this site.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began: Tick,
    /// New pieces since then, and when the last of them were seen. They come in batches.
    count: u64,
    times: VecDeque<Tick>,
    /// The shortest time that so many took; it fades.
    usual: Option<u64>,
}

impl Pace {
    pub(super) fn new(now: Tick) -> Self {
        Self { began: now, ..Self::default() }
    }

    /// A piece was seen in this site for the first time.
    pub(super) fn seen(&mut self, now: Tick) {
        self.times.push_back(now);
        if self.times.len() > TIMES {
            self.times.pop_front();
        }
        self.count += 1;
        if self.count < TIMES as u64 {
            // The first ones of all stripes come together: the time before them counts.
            let each = now.since(self.began) * (TIMES as u64 - 1) / self.count;
            self.usual = (self.count >= FEW).then_some(each);
        } else if let Some(first) = self.times.front() {
            // The last pieces may drip: they say nothing about what is usual.
            let span = now.since(*first);
            self.usual = Some(self.usual.map_or(span, |u| (u + u / USUAL_FADES).min(span)));
        }
    }

    /// After how long without a new piece a stripe has stalled.
    pub(super) fn stall_ms(&self, stripes: u32) -> u64 {
        let Some(span) = self.usual else { return STALL_MS_FIRST };
        let gaps = STALL_GAPS * u64::from(stripes);
        (span * gaps / (TIMES as u64 - 1)).clamp(STALL_MS_MIN, STALL_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen stripes share a link of 4 Mbit/s: the first piece of each takes two seconds, and
    /// none has stalled for nine.
    #[test]
    fn a_slow_link() {
        let mut pace = Pace::new(Tick(500));
        assert_eq!(pace.stall_ms(16), STALL_MS_FIRST);
        for i in 0..200 {
            // Rounds of 2.1 s, the pieces of a round close together.
            pace.seen(Tick(500 + 2_100 * (1 + i / 16) + i % 16));
            let stall = pace.stall_ms(16);
            assert!((9_000..=24_000).contains(&stall), "{stall} after {i}");
        }
    }

    /// On a fast one it is the least that round trips allow, soon; a drip at the end changes
    /// nothing.
    #[test]
    fn a_fast_link() {
        let mut pace = Pace::new(Tick(0));
        (0..100).for_each(|i| pace.seen(Tick(300 + i)));
        assert_eq!(pace.stall_ms(16), STALL_MS_MIN);
        (0..10).for_each(|i| pace.seen(Tick(1_000 + i * 1_000)));
        assert_eq!(pace.stall_ms(16), STALL_MS_MIN);
    }
}
