//! How much may be under way at once: by what the uplink carries, and by how long a push takes.
//!
//! Too little leaves a link idle for the round trips of grant, request and acknowledgement. Too
//! much stands in queues, where it binds pieces to receivers long before they can be sent, makes
//! everything look late, and is lost when a stripe goes another way. A mebibyte is 8 ms of a link
//! of 1 Gbit/s and nearly a second of one of 10 Mbit/s; so it is time that is bounded.

use std::collections::VecDeque;

use stork_wire::tick::Tick;

/// The uplink is measured over such periods.
const PERIOD_MS: u64 = 500;
/// The best of so many counts: five seconds, longer than a lull between two contents.
const PERIODS: usize = 10;
/// So much of what the uplink carries may be promised or under way: the queues of two slow links
/// (50 ms each, there and back) and a little.
const WINDOW_MS: u64 = 250;
/// But always so many bytes: what the uplink carries is not known before it was filled, and eight
/// small pieces keep one of 10 Mbit/s busy through the round trips.
const WINDOW_MIN: u64 = 512 * 1024;

/// What the uplink has carried lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Uplink {
    /// Bytes of whole periods, the newest last.
    periods: VecDeque<u64>,
    /// The number of the period that runs, and its bytes.
    current: (u64, u64),
}

impl Uplink {
    /// A piece has left.
    pub(super) fn sent(&mut self, bytes: u64, now: Tick) {
        let period = now.0 / PERIOD_MS;
        let (running, sum) = self.current;
        if period != running {
            // Periods without anything say nothing about the link.
            self.periods.push_back(sum);
            if self.periods.len() > PERIODS {
                self.periods.pop_front();
            }
            self.current = (period, 0);
        }
        self.current.1 += bytes;
    }

    /// Bytes that may be promised or under way; `most` is what the operator allows.
    pub(super) fn window(&self, most: u64) -> u64 {
        let best = self.periods.iter().copied().max().unwrap_or(0).max(self.current.1);
        (best * WINDOW_MS / PERIOD_MS).clamp(WINDOW_MIN.min(most), most)
    }
}

/// A push that takes no longer than the best by this part, and these milliseconds, met no queue.
const NO_QUEUE_PART: u64 = 4;
const NO_QUEUE_MS: u64 = 10;
/// One that takes so many times as long stood in one.
const QUEUE_TIMES: u64 = 2;
const QUEUE_MS: u64 = 40;
/// So many pieces are always under way to a host: one crosses while the next one is read.
const AHEAD_MIN: u32 = 2;

/// How many pieces may be under way to one host of another site: more while they meet no queue,
/// fewer when they do (after TCP Vegas, Brakmo and Peterson 1995, with pieces for segments).
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    pieces: u32,
    /// The shortest time that one took, in milliseconds; 0 if unknown. It does not fade: in a queue
    /// that stands for long, what is usual would become what is best. A way that becomes longer
    /// within one content gets little ahead.
    best: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { pieces: AHEAD_MIN, best: 0 }
    }
}

impl Ahead {
    /// A piece was pushed in so many milliseconds.
    pub(super) fn took(&mut self, ms: u64) {
        let ms = ms.max(1);
        self.best = if self.best == 0 { ms } else { self.best.min(ms) };
        if ms <= self.best + self.best / NO_QUEUE_PART + NO_QUEUE_MS {
            self.pieces = self.pieces.saturating_add(1);
        } else if ms > self.best * QUEUE_TIMES + QUEUE_MS {
            self.pieces = self.pieces.saturating_sub(1).max(AHEAD_MIN);
        }
    }

    /// Pieces that may be under way, of `most`.
    pub(super) fn pieces(&mut self, most: u32) -> u32 {
        self.pieces = self.pieces.min(most.max(AHEAD_MIN));
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const MOST: u64 = 1024 * KIB;

    /// The window is a quarter of a second of what the link carries, between its bounds; a lull
    /// does not end it, five seconds of less do.
    #[test]
    fn a_window_by_time() {
        let mut up = Uplink::default();
        assert_eq!(up.window(MOST), WINDOW_MIN);
        // 10 Mbit/s in pieces of 64 KiB: 19 a second.
        (0..100).for_each(|i| up.sent(64 * KIB, Tick(i * 52)));
        assert_eq!(up.window(MOST), WINDOW_MIN);
        // 25 Mbit/s.
        (0..200).for_each(|i| up.sent(64 * KIB, Tick(10_000 + i * 21)));
        let faster = up.window(MOST) / KIB;
        assert!((700..900).contains(&faster), "{faster}");
        // 1 Gbit/s.
        (0..2_000).for_each(|i| up.sent(64 * KIB, Tick(20_000 + i / 2)));
        assert_eq!((up.window(MOST), up.window(64 * KIB)), (MOST, 64 * KIB));
        up.sent(64 * KIB, Tick(60_000));
        assert_eq!(up.window(MOST), MOST);
        (0..400).for_each(|i| up.sent(64 * KIB, Tick(60_021 + i * 21)));
        assert_eq!(up.window(MOST) / KIB, faster);
    }

    /// A link that carries 20 pieces a second after a round trip of 100 ms gets a few pieces ahead,
    /// not as many as may be; one that is never full gets those.
    #[test]
    fn ahead_of_a_slow_link() {
        let (mut ahead, mut free) = (Ahead::default(), 0);
        let mut under_way: VecDeque<(u64, u64)> = VecDeque::new();
        for now in 0..20_000 {
            while under_way.front().is_some_and(|(_, ends)| *ends <= now) {
                let (since, _) = under_way.pop_front().unwrap();
                ahead.took(now - since);
            }
            while under_way.len() < ahead.pieces(16) as usize {
                free = now.max(free) + 50;
                under_way.push_back((now, free + 100));
            }
        }
        assert!((3..=7).contains(&ahead.pieces(16)), "{ahead:?}");
        let mut fast = Ahead::default();
        (0..50).for_each(|_| fast.took(100));
        assert_eq!(fast.pieces(16), 16);
    }
}
