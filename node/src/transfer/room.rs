//! Whether the downlink has room for one piece more: what may be on its way to us at once.
//!
//! A host that takes every grant has more on its way than its link carries: it stands in queues,
//! bound to senders long before it comes, while the host that needs it most waits. One that takes
//! too few passes on grants that nobody gives twice.

use std::collections::BTreeMap;

use stork_wire::ids::{NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::swarm::Swarm;

/// Pieces whose bytes may be on their way at once, whatever the configured window is
/// (protocol.md §3e).
const INFLIGHT_PIECES: u64 = 8;
/// Uploaders are accepted until together they can fill the downlink so many times. One is not
/// enough, since each sends one piece after the other and ours waits behind another. Measured
/// in `sim_tests`: 8 pieces at any rate cost 4 % of the makespan at 64 hosts.
const OVERBOOK: u64 = 3;
/// The same for a swarm while a more urgent one still has something to get.
const INFLIGHT_PIECES_BEHIND: u64 = 2;
/// What one sender has on its way counts as often as it fills so many bytes, which take it at the
/// least and at the most so long: small pieces share its way, and each of them need not fill ours.
/// On slow ways a piece counts alone, or else queues fill; on fast ones several must be under way.
const UNIT_BYTES: u64 = 256 * 1024;
const UNIT_MS_MIN: u64 = 4;
const UNIT_MS_MAX: u64 = 20;

/// What comes from one host.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    bytes: u64,
    /// The longest of its pieces.
    longest: u64,
    /// Bytes per millisecond.
    rate: u64,
}

impl Load {
    fn add(&mut self, bytes: u64, rate: u64) {
        self.bytes += bytes;
        self.longest = self.longest.max(bytes);
        self.rate = self.rate.max(rate);
    }

    fn units(&self) -> u64 {
        let ms = |ms: u64| self.rate.saturating_mul(ms);
        let unit = UNIT_BYTES.clamp(ms(UNIT_MS_MIN), ms(UNIT_MS_MAX)).max(self.longest);
        self.bytes.div_ceil(unit.max(1))
    }
}

/// How much room the downlink has for one piece of one swarm from one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Bytes on their way to us in all swarms.
    inflight: u64,
    /// The rates that they can come with, together, in bytes per millisecond.
    rate: u64,
    /// How many units that is.
    units: u64,
    /// Another piece from this host is a further unit.
    adds: bool,
    /// What the downlink has carried; 0 if unknown.
    pub(super) peak: u64,
    /// Whether a more urgent swarm can still use the downlink.
    behind: bool,
}

impl Room {
    /// The room for a piece of `swarm` that `from` would send; the downlink has carried `peak`.
    pub(super) fn of(
        swarms: &BTreeMap<SwarmId, Swarm>,
        (swarm, from): (SwarmId, NodeId),
        peak: u64,
        now: Tick,
    ) -> Self {
        let its = swarms.get(&swarm);
        let urgency = its.map(|s| s.urgency);
        let mut loads: BTreeMap<NodeId, Load> = BTreeMap::new();
        for s in swarms.values() {
            for (piece, slots) in &s.inflight {
                for r in slots.iter().filter(|r| !r.is_late(now)) {
                    loads.entry(r.from).or_default().add(s.len_of(*piece), r.rate);
                }
            }
        }
        let mut own = loads.get(&from).copied().unwrap_or_default();
        let before = own.units();
        own.add(its.map_or(0, |s| s.len_max), 0);
        Self {
            inflight: swarms.values().map(|s| s.inflight_bytes).sum(),
            rate: loads.values().map(|l| l.rate.saturating_mul(l.units())).sum(),
            units: loads.values().map(Load::units).sum(),
            adds: own.units() > before,
            peak,
            behind: swarms.values().any(|s| Some(s.urgency) < urgency && !s.inflight.is_empty()),
        }
    }

    /// Whether a piece that comes at `rate` is to be asked for; the operator allows `window` bytes.
    pub(super) fn fits(self, swarm: &Swarm, rate: u64, window: u64) -> bool {
        if self.behind {
            return swarm.inflight_bytes < INFLIGHT_PIECES_BEHIND * swarm.len_max;
        }
        let more = self.rate.saturating_add(rate) > OVERBOOK * self.peak;
        let full = self.adds && self.units >= OVERBOOK && more;
        !full && self.inflight < window.max(INFLIGHT_PIECES * swarm.len_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    /// Small pieces of one host share a unit, long ones are one each, and a fast host's unit is
    /// what it sends in four milliseconds.
    #[test]
    fn units_of_a_way() {
        let units = |pieces: u64, kib: u64, rate: u64| {
            let mut load = Load::default();
            (0..pieces).for_each(|_| load.add(kib * KIB, rate));
            load.units()
        };
        assert_eq!((units(0, 64, 0), units(3, 64, 1_250), units(4, 64, 6_500)), (0, 3, 3));
        assert_eq!((units(4, 64, 50_000), units(5, 64, 50_000)), (1, 2));
        assert_eq!((units(3, 256, 50_000), units(3, 1_024, 50_000)), (3, 3));
        assert_eq!(units(8, 256, 250_000), 3);
    }
}
