//! How fast one connection may bring frames (attack G6). What comes faster is read later: QUIC's
//! windows then hold the sender back, so that nothing is lost and nobody else waits.

use std::time::Duration;

use tokio::time::Instant;

/// Frames of one control connection in a second, in the long run: more than any honest host sends
/// while it catches up or serves one that does.
const FRAMES_PER_S: u32 = 4_000;
/// Frames at once.
const FRAMES_BURST: u32 = 8_192;
/// Who was too fast waits for so many frames' time, not for each frame anew.
const PAUSE: Duration = Duration::from_millis(100);
/// The time of one frame.
const FRAME: Duration = Duration::from_micros(1_000_000 / FRAMES_PER_S as u64);

/// The bucket of one connection.
#[derive(Debug, Default)]
pub(super) struct FrameRate {
    spent_until: Option<Instant>,
}

impl FrameRate {
    /// Counts a frame; `Some`: the next one is to be read then.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let spent = self.spent_until.map_or(now, |t| t.max(now)) + FRAME;
        self.spent_until = Some(spent);
        let over = spent.duration_since(now).checked_sub(FRAME * FRAMES_BURST)?;
        Some(now + over + PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst is read at once, then frames at the rate, with a pause now and then.
    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut rate, begun) = (FrameRate::default(), Instant::now());
        let (mut now, mut pauses) = (begun, 0);
        for _ in 0..FRAMES_BURST + 10 * FRAMES_PER_S {
            if let Some(until) = rate.take(now) {
                (now, pauses) = (until, pauses + 1);
            }
        }
        let took = now.duration_since(begun).as_millis();
        assert!((9_800..=10_200).contains(&took), "{took}");
        assert!((95..=105).contains(&pauses), "{pauses}");
    }
}
