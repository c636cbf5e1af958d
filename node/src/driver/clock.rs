//! The only clock: everything else is told the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stork_wire::charter::UnixSeconds;
use stork_wire::tick::Tick;

/// Time since the process began, and calendar time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
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
    /// Calendar time in seconds.
    #[must_use]
    pub fn unix(&self) -> UnixSeconds {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
    /// Calendar time in milliseconds.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}
