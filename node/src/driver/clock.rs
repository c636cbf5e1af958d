//! The only clock: everything else is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stork_wire::charter::UnixSeconds;
use stork_wire::tick::Tick;

/// Time since the process began, and calendar time.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    /// Seconds by which the calendar is ahead of the system's: none outside of tests.
    ahead_s: Arc<AtomicU64>,
    /// Milliseconds since 1970 that the calendar showed at least when the process began.
    floor_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self::ahead_by(Arc::default())
    }
    /// The same with a calendar so many seconds ahead, which may grow at any time: a test waits for
    /// the end of a certificate without waiting.
    #[must_use]
    pub fn ahead_by(ahead_s: Arc<AtomicU64>) -> Self {
        Self { start: Instant::now(), ahead_s, floor_ms: Arc::default() }
    }
    /// It is this time at least, whatever the system says: from now on the calendar does not show
    /// less, and goes on from there. In seconds.
    pub fn hold(&self, floor: UnixSeconds) {
        let floor_ms = floor.saturating_mul(1_000).saturating_sub(self.tick().0);
        self.floor_ms.fetch_max(floor_ms, Ordering::Relaxed);
    }
    /// What the system's calendar says, also where that is known to be past. In seconds.
    #[must_use]
    pub fn system(&self) -> UnixSeconds {
        self.shown().as_secs()
    }
    /// Milliseconds since the process began.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
    /// The moment at which a tick is reached, for a timer.
    #[must_use]
    pub fn instant(&self, tick: Tick) -> Instant {
        let far = Duration::from_hours(24);
        self.start + Duration::from_millis(tick.0).min(self.start.elapsed() + far)
    }
    /// Calendar time in seconds, not before what is known to be past.
    #[must_use]
    pub fn unix(&self) -> UnixSeconds {
        self.calendar().as_secs()
    }
    /// Calendar time in milliseconds.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.calendar().as_millis()).unwrap_or(u64::MAX)
    }

    fn calendar(&self) -> Duration {
        let floor = Duration::from_millis(self.floor_ms.load(Ordering::Relaxed));
        let floor = if floor.is_zero() { floor } else { floor + self.start.elapsed() };
        self.shown().max(floor)
    }

    fn shown(&self) -> Duration {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        system.saturating_add(Duration::from_secs(self.ahead_s.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T035: a clock that was set a year back shows the floor, and goes on from there.
    #[test]
    fn t035_the_floor_holds() {
        let clock = Clock::start();
        let (now, year) = (clock.system(), 365 * 86_400);
        clock.hold(now + year);
        assert!((now + year..now + year + 60).contains(&clock.unix()));
        assert!(clock.system() < now + 60);
        clock.hold(now);
        assert!(clock.unix() >= now + year, "a floor does not fall");
        let (a, b) = (clock.unix_ms(), clock.unix_ms());
        assert!(b >= a);
    }
}
