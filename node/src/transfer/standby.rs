//! Who would take a stripe over, and when: the hosts of a site that come before this one.
//!
//! The first of them fetches. The next ones watch it as neighbours: its end is an ended
//! connection, which they notice at once, and a broken uplink shows as pieces that only it has.
//! What they cannot see (it waits for the site above, as everybody does) gets twice the time.

use std::collections::BTreeMap;

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::lag::Lag;
use super::sites::RANKS;
use super::subscribe::Stripes;
use super::swarm::Swarm;

/// A connection that ended may be back within this time: everybody is dialled again at once.
const GONE_MS: u64 = 250;
/// Hosts of which it is remembered that they are gone. All are forgotten beyond that, and are then
/// waited for as if they were there.
const GONE_MAX: usize = 64;

/// Hosts whose connection ended, and when.
#[derive(Debug, Default)]
pub(super) struct Gone(BTreeMap<NodeId, Tick>);

impl Gone {
    pub(super) fn note(&mut self, node: NodeId, now: Tick) {
        if self.0.len() >= GONE_MAX {
            self.0.clear();
        }
        self.0.insert(node, now);
    }

    pub(super) fn is_back(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    fn has(&self, node: NodeId, now: Tick) -> bool {
        self.0.get(&node).is_some_and(|t| now.since(*t) >= GONE_MS)
    }
}

/// How one stripe stands for this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) stripe: u32,
    /// Hosts before this one that are there.
    pub(super) rank: u64,
    /// So many times the usual patience pass before this host takes the stripe.
    pub(super) waits: u64,
    /// Sites above.
    pub(super) depth: u64,
}

impl Stripes {
    /// The stripes that this host fetches or would take over.
    pub(super) fn turns(&self, lag: &Lag, now: Tick) -> Vec<Turn> {
        let rows = (0u32..).zip(self.plan.ahead.iter().zip(&self.plan.depths));
        let rows = rows.filter(|(_, (ahead, _))| ahead.len() < RANKS);
        rows.map(|(stripe, (ahead, depth))| {
            let there = ahead.iter().filter(|n| !self.gone.has(**n, now)).count() as u64;
            let waits = if there > 0 {
                there + u64::from(!lag.is_kept(stripe))
            } else if ahead.is_empty() {
                // Whoever becomes the first while another fetches waits like the second.
                u64::from(self.by_others.get(stripe as usize).copied().unwrap_or_default())
            } else {
                0
            };
            Turn { stripe, rank: there.max(waits.min(1)), waits, depth: *depth as u64 }
        })
        .collect()
    }
}

impl Swarm {
    /// A connection ended. It is noted of those that come before this host in a stripe.
    pub(super) fn standby_gone(&mut self, node: NodeId, now: Tick) {
        let Some(s) = self.stripes.as_mut().filter(|s| s.plan.watched.contains(&node)) else {
            return;
        };
        s.gone.note(node, now);
    }
}
