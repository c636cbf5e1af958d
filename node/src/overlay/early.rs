//! Early items: good ones that were judged before their turn, since an item before them has not
//! come.
//!
//! They happen where a tree changes while news flow along it: what the new parent sends overtakes
//! what the old one had on its way. The rules keep the item, and this file keeps by which way it
//! came, so that it goes on along its tree as if it had come in its turn, and not back to those who
//! sent it. What is missing before it is most likely on its way: it is fetched a moment later only.

use std::collections::BTreeMap;

use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::flight::Flight;
use super::{Key, Overlay};

/// Early items, as many as the rules keep (`trust::PENDING_MAX`). Of what does not fit, those
/// before it are fetched at once, and it comes again.
pub(super) const EARLY_MAX: usize = 1_024;
/// What was missing before an early item is fetched after this, if the tree has brought anything in
/// the time below, and else at once.
const WAIT_MS: u64 = 100;
const FLOWS_MS: u64 = 500;
/// After this the rules may have lost it, or it waits for what nobody has: it is asked for again.
const KEEP_MS: u64 = 5_000;

#[derive(Debug)]
struct Waiting {
    flight: Flight,
    since: Tick,
    fetched: bool,
}

/// The early items, and when the next one has waited long enough.
#[derive(Debug, Default)]
pub(super) struct Early {
    map: BTreeMap<Key, Waiting>,
    next: Option<Tick>,
}

impl Early {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) const fn deadline(&self) -> Option<Tick> {
        self.next
    }

    /// Its turn has come, if it was early.
    pub(super) fn take(&mut self, key: &Key) -> Option<Flight> {
        self.map.remove(key).map(|w| w.flight)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.map.contains_key(key)
    }
}

impl Waiting {
    fn sources(&self) -> impl Iterator<Item = NodeId> {
        [self.flight.from].into_iter().chain(self.flight.others.iter().map(|(n, _)| *n))
    }
}

impl Overlay {
    /// How an item came that is being judged, or waits for those before it.
    pub(super) fn coming_mut(&mut self, key: &Key) -> Option<&mut Flight> {
        self.flights.get_mut(key).or_else(|| self.early.map.get_mut(key).map(|w| &mut w.flight))
    }

    /// Who sent this item, which the driver refused as early and judges again.
    #[must_use]
    pub fn early_source(&self, log: LogId, seq: u64) -> Option<NodeId> {
        self.early.map.get(&(log, seq)).map(|w| w.flight.from)
    }

    /// Do items of this log come along its tree just now, without being asked for?
    pub(super) fn flows(&self, now: Tick, log: &LogId) -> bool {
        self.trees.flowed(log).is_some_and(|at| now.since(at) < FLOWS_MS)
    }

    /// The driver keeps an item until those before it have come. False where there is no room.
    pub(super) fn keep_early(&mut self, now: Tick, key: Key, flight: &mut Option<Flight>) -> bool {
        let room = self.early.len() < EARLY_MAX;
        let Some(flight) = flight.take_if(|_| room) else { return false };
        let fetched = !self.flows(now, &key.0);
        let waiting = Waiting { flight, since: now, fetched };
        let sources: Vec<NodeId> = waiting.sources().filter(|_| fetched).collect();
        self.early.map.insert(key, waiting);
        for node in sources {
            self.want(key.0, key.1.saturating_sub(1), node);
        }
        if fetched {
            return true;
        }
        let due = now.after_ms(WAIT_MS);
        self.early.next = Some(self.early.next.map_or(due, |at| at.min(due)));
        true
    }

    /// Asks for what is missing before early items.
    pub(super) fn early_due(&mut self, now: Tick) {
        if self.early.next.is_none_or(|at| at > now) {
            return;
        }
        let mut wanted: Vec<(Key, NodeId)> = Vec::new();
        let mut next: Option<Tick> = None;
        for ((log, seq), waiting) in self.early.map.iter_mut().filter(|(_, w)| !w.fetched) {
            let due = waiting.since.after_ms(WAIT_MS);
            if due <= now {
                waiting.fetched = true;
                let before = seq.saturating_sub(1);
                wanted.extend(waiting.sources().map(|node| ((*log, before), node)));
            } else {
                next = Some(next.map_or(due, |at| at.min(due)));
            }
        }
        self.early.next = next;
        for ((log, to), node) in wanted {
            self.want(log, to, node);
        }
    }

    /// Gives up items that were early for too long.
    pub(super) fn early_house(&mut self, now: Tick) {
        let late = |w: &Waiting| w.since.after_ms(KEEP_MS) <= now;
        let late = self.early.map.iter().filter(|(_, w)| late(w));
        let late: Vec<Key> = late.map(|(k, _)| *k).collect();
        for key in late {
            let Some(waiting) = self.early.map.remove(&key) else { continue };
            for node in waiting.sources() {
                self.want(key.0, key.1, node);
            }
        }
    }
}
