//! Waiting for something that will happen, with a deadline and without fixed sleeps.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Seconds that are enough for everything on a busy machine with two cores.
pub const PATIENCE_S: u64 = 60;

/// How long to wait: ten times as long where the long forms of tests move a hundred times as much.
#[must_use]
pub fn patience() -> Duration {
    let long = std::env::var_os("STORK_LONG").is_some();
    Duration::from_secs(if long { 10 * PATIENCE_S } else { PATIENCE_S })
}

/// Looks until there is something, and panics with the name of what did not come in time.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = begun.elapsed();
        assert!(waited < patience(), "waited {waited:?} in vain for: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}
