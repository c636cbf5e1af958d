//! `[limits]`: how fast publishers and groups may announce (attack G6). What comes faster waits,
//! and is not lost.

use serde::Deserialize;

/// A bucket of tokens: one announcement takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Tokens that come in a second; 0: no limit.
    pub per_s: u32,
    /// Tokens that a full bucket holds.
    pub burst: u32,
}

impl Bucket {
    /// As many as anybody likes.
    pub const UNLIMITED: Self = Self { per_s: 0, burst: 0 };
}

/// The buckets of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Of each publisher.
    pub publisher: Bucket,
    /// Of each group, whoever publishes to it.
    pub group: Bucket,
}

impl Default for LimitsConfig {
    /// A publisher that announces once a second uses a hundredth; one that announces without end
    /// costs each host less than a tenth of a core.
    fn default() -> Self {
        Self {
            publisher: Bucket { per_s: 100, burst: 500 },
            group: Bucket { per_s: 300, burst: 1_500 },
        }
    }
}

impl LimitsConfig {
    /// No limits at all: for measurements.
    pub const UNLIMITED: Self = Self { publisher: Bucket::UNLIMITED, group: Bucket::UNLIMITED };
}
