//! When a node looks for hosts under the names of its settings: when it has no link at all.

use stork_wire::frame::{Hello, LinkClass, PROTOCOL_VERSION};
use stork_wire::tick::Tick;

use super::Driver;
use crate::config::NodeConfig;
use crate::net::{Round, Seeds};

/// A node is alone for so long before it looks: the hosts that it knows come first.
const ALONE_MS: u64 = 2_000;
/// From one round to the next, doubled while nothing comes of it.
const WAIT_MS: u64 = 1_000;
const WAIT_MS_MAX: u64 = 300_000;

/// All that this part keeps.
pub(super) struct Bootstrap {
    seeds: Seeds,
    /// Since when there is no link.
    alone: Option<Tick>,
    rounds: u32,
    not_before: Tick,
    running: bool,
}

impl Bootstrap {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let seeds = Seeds { named: config.bootstrap.clone(), file: config.bootstrap_file.clone() };
        Self { seeds, alone: None, rounds: 0, not_before: Tick(0), running: false }
    }

    /// Is it time for a round?
    fn due(&mut self, now: Tick, alone: bool) -> bool {
        if !alone {
            (self.alone, self.rounds) = (None, 0);
            return false;
        }
        let since = *self.alone.get_or_insert(now);
        let nobody = self.seeds.named.is_empty() && self.seeds.file.is_none();
        let wait = now.since(since) < ALONE_MS || now < self.not_before;
        !nobody && !self.running && !wait
    }

    fn ended(&mut self, now: Tick) {
        self.running = false;
        let wait = (WAIT_MS << self.rounds.min(16)).min(WAIT_MS_MAX);
        self.rounds = self.rounds.saturating_add(1);
        self.not_before = now.after_ms(wait);
    }
}

impl Driver {
    /// Looks for hosts by name, if there is no link to any.
    pub(super) fn bootstrap_if_alone(&mut self) {
        let alone = self.overlay.links().next().is_none();
        if !self.bootstrap.due(self.clock.tick(), alone) {
            return;
        }
        let Some(peer) = self.own_hint() else { return };
        self.bootstrap.running = true;
        let (fleet, class) = (self.trust.fleet(), LinkClass::Transient);
        let hello = Hello { protocol: PROTOCOL_VERSION, fleet, peer, class, starving: true };
        self.net.bootstrap(self.bootstrap.seeds.clone(), Box::new(hello));
    }

    pub(super) fn on_bootstrapped(&mut self, round: &Round) {
        self.bootstrap.ended(self.clock.tick());
        let word = if round.reached > 0 { "reached" } else { "failed" };
        self.counters.add("bootstrap", word);
        // Where somebody answered, the others are not missed. At most one for each entry.
        for why in round.errors.iter().filter(|_| round.reached == 0) {
            self.event("bootstrap_failed", why.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a node that is alone looks, not at once, one round at a time and ever less often; a
    /// link ends that.
    #[test]
    fn ever_less_often() {
        let named = vec!["seed.example:7749".parse().unwrap()];
        let config = NodeConfig { bootstrap: named, ..NodeConfig::default() };
        let mut b = Bootstrap::new(&config);
        assert!(!b.due(Tick(0), false) && !b.due(Tick(100), true) && !b.due(Tick(2_000), true));
        let (mut now, mut waits) = (Tick(2_100), Vec::new());
        for _ in 0..11 {
            let begun = now;
            while !b.due(now, true) {
                now = now.after_ms(100);
            }
            waits.push(now.since(begun) / 1_000);
            b.running = true;
            assert!(!b.due(now.after_ms(900_000), true), "one at a time");
            b.ended(now);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(!b.due(now.after_ms(400_000), false));
        assert!(!b.due(now.after_ms(400_100), true) && b.due(now.after_ms(402_200), true));
        assert!(!Bootstrap::new(&NodeConfig::default()).due(Tick(9_000_000), true));
    }
}
