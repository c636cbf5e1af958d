//! `[scrub]`: how slowly everything in the store is read again, so that rot is found before it
//! matters.

use serde::Deserialize;

/// How the store is looked at by and by. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// A round, in which every byte is read once, takes so long; 0: nothing is read by itself.
    pub round_s: u64,
    /// Bytes that are read in a second at the most, also where a round then takes longer.
    pub bytes_per_s_max: u64,
    /// Sizes, owners, modes and times of all files are compared so often; 0: only in a round.
    pub glance_s: u64,
}

impl Default for ScrubConfig {
    /// A month for a round is 400 KB/s for a TB; disks are read much faster by their own checks.
    fn default() -> Self {
        Self { round_s: 30 * 86_400, bytes_per_s_max: 16_000_000, glance_s: 86_400 }
    }
}

/// A round goes at this rate at least, in bytes a second: a small store need not take a month.
const RATE_MIN: u64 = 256 * 1024;

impl ScrubConfig {
    /// Is it possible?
    pub(super) const fn check(&self) -> Result<(), &'static str> {
        if self.bytes_per_s_max < 4_096 {
            return Err("[scrub] bytes_per_s_max must be 4096 at least");
        }
        Ok(())
    }

    /// Milliseconds to wait after `read` bytes, with `left` bytes to go and `left_s` seconds of the
    /// round: as slowly as the round allows. What was lost by waiting for others or by being off
    /// is made good, never faster than the limit.
    #[must_use]
    pub fn pause_ms(&self, read: u64, left: u64, left_s: u64) -> u64 {
        let rate = left.div_ceil(left_s.max(1)).max(RATE_MIN).min(self.bytes_per_s_max.max(1));
        read.saturating_mul(1_000) / rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause spreads what is left over the time that is left, within both limits.
    #[test]
    fn pauses() {
        let config = ScrubConfig { round_s: 0, bytes_per_s_max: 1 << 20, glance_s: 0 };
        assert_eq!(config.pause_ms(1 << 20, 1 << 30, 2_048), 2_000);
        assert_eq!(config.pause_ms(1 << 20, 1 << 40, 1), 1_000, "the limit");
        assert_eq!(config.pause_ms(1 << 20, 0, 100), 4_000, "the least rate");
        assert_eq!(config.pause_ms(u64::MAX, 0, 0), u64::MAX / (256 * 1024));
        assert!(ScrubConfig::default().check().is_ok());
        assert!(ScrubConfig { bytes_per_s_max: 0, ..config }.check().is_err());
    }
}
