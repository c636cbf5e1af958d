//! How fast hosts and sites are, what the lower bound is, and who fails when.

use super::{Content, Links};
use crate::rng::Rng;

/// 1 Gbit/s in bytes per millisecond.
const GBIT: u64 = 125_000;

/// What a host is like, and what happens to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    /// Bytes per millisecond.
    pub(super) up: u64,
    pub(super) down: u64,
    /// Microseconds.
    pub(super) joins: u64,
    pub(super) dies: Option<u64>,
    pub(super) stalls: Option<u64>,
}

/// The rates of one site's link to the others, in bytes per millisecond.
pub(super) const fn wan(links: Links) -> u64 {
    match links {
        Links::Homog | Links::Asym | Links::LanWan => GBIT,
    }
}

fn host(links: Links, rng: &mut Rng, origin: bool) -> Fate {
    let (up, down) = match links {
        Links::LanWan => (10 * GBIT, 10 * GBIT),
        Links::Asym if !origin => match rng.below(10) {
            0..=2 => (GBIT, GBIT),
            3..=6 => (GBIT * 3 / 10, GBIT),
            _ => (GBIT / 10, GBIT),
        },
        Links::Homog | Links::Asym => (GBIT, GBIT),
    };
    Fate { up, down, joins: 0, dies: None, stalls: None }
}

/// The origin and all hosts, and the bound in microseconds.
pub(super) fn fates(options: &Content, bytes: u64, rng: &mut Rng) -> (Vec<Fate>, u64) {
    let mut all: Vec<Fate> =
        (0..=options.nodes).map(|i| host(options.links, rng, i == 0)).collect();
    let bound = bound(options, bytes, &all);
    let count = |share: f64| crate::faults::portion(options.nodes as usize, share);
    let mut order: Vec<usize> = (1..all.len()).collect();
    for i in (1..order.len()).rev() {
        let j = usize::try_from(rng.below(i as u64 + 1)).unwrap_or(0);
        order.swap(i, j);
    }
    let (dead, stalled) = (count(options.deaths), count(options.stalls));
    let late = count(options.late);
    for (n, i) in order.into_iter().enumerate() {
        // Any time in the first four fifths (protocol.md §3e).
        let at = rng.below(bound * 4 / 5 + 1);
        let Some(fate) = all.get_mut(i) else { continue };
        if n < dead {
            fate.dies = Some(at);
        } else if n < dead + stalled {
            fate.stalls = Some(at);
        } else if n < dead + stalled + late {
            fate.joins = at;
        }
    }
    (all, bound)
}

/// Nothing can be faster: the origin sends everything, everybody receives everything, all copies
/// are sent by somebody, and each site gets it over its link.
fn bound(options: &Content, bytes: u64, all: &[Fate]) -> u64 {
    let origin = all.first().map_or(GBIT, |f| f.up);
    let slowest = all.iter().skip(1).map(|f| f.down).min().unwrap_or(GBIT);
    let sum: u64 = all.iter().map(|f| f.up).sum();
    let us = |bytes: u64, rate: u64| bytes.saturating_mul(1_000) / rate.max(1);
    let mut bound = us(bytes, origin).max(us(bytes, slowest));
    bound = bound.max(us(bytes * u64::from(options.nodes), sum));
    if options.sites > 1 {
        bound = bound.max(us(bytes, wan(options.links)));
    }
    bound
}
