//! Items in flight: handed to the driver, which has not said yet whether they are good.
//!
//! While an item is in flight nobody else's copy is delivered, so that a signature is checked once
//! (attack G7); whoever sent a copy is remembered, to be asked if the first copy was bad.

use std::collections::BTreeMap;

use stork_wire::ids::NodeId;
use stork_wire::item::Item;
use stork_wire::tick::Tick;

use super::bounded::Recent;
use super::io::{Action, Refusal, Why};
use super::links::{Link, Shunned};
use super::{Key, Overlay};

/// Items in flight. What does not fit is dropped; sync brings it again.
pub(super) const FLIGHTS_MAX: usize = 4_096;
/// Items in flight from one host: two pieces of sync. One host cannot fill the whole room.
const FLIGHTS_PER_PEER_MAX: usize = 512;
/// Other senders that are remembered.
const OTHERS_MAX: usize = 4;
/// The driver owes an answer; a disk that stalls longer than this costs a second delivery.
const FLIGHT_WAIT_MS: u64 = 30_000;
/// An invalid item, or one of a later version, is not taken from the same host for so long, doubled
/// each time.
const INVALID_WAIT_MS: u64 = 60_000;
const INVALID_WAIT_MS_MAX: u64 = 3_600_000;
/// An item that cannot be judged yet is asked for again after so long, doubled each time.
const UNKNOWN_WAIT_MS: u64 = 1_000;
const UNKNOWN_WAIT_MS_MAX: u64 = 600_000;
/// So many invalid items on one link end it (attack G7).
const INVALID_MAX: u32 = 3;

/// Hosts without a link of which it is remembered what was refused.
const FORMER_MAX: usize = 8;

/// What was refused of a host whose link ended: it does not begin anew by coming back.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    items: Recent<Key, Shunned>,
    barren: u32,
    fetch_after: Tick,
}

/// The same of several hosts.
pub(super) type Former = Recent<NodeId, Refused>;

/// An empty memory of that.
pub(super) const fn former() -> Former {
    Recent::new(FORMER_MAX)
}

/// By which way an item came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// Pushed, or grafted: it goes on along the tree.
    Tree,
    /// Fetched by sync: neighbours hear of the newest one only.
    Sync,
    /// Not at all: the host says that it has it, along another way of the tree.
    Told,
}

/// What a push says of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    /// Links that it has crossed.
    pub(super) hop: u8,
    pub(super) age_ms: u32,
    /// By which host it came into this site.
    pub(super) entry: u32,
}

/// One item in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) from: NodeId,
    pub(super) course: Course,
    pub(super) at: Tick,
    pub(super) via: Via,
    /// Had somebody announced it? Then it is news of the tree, though sync was faster.
    pub(super) expected: bool,
    /// Was it asked for?
    pub(super) asked: bool,
    /// The tree's parent from now on, if not `from`: who pushed it while another copy, which sync
    /// had brought, was being judged; or whoever the tree turned to with this very item.
    pub(super) parent: Option<NodeId>,
    /// Who has it as well, and how that is known.
    pub(super) others: Vec<(NodeId, Via)>,
}

impl Flight {
    pub(super) const fn new(from: NodeId, course: Course, at: Tick, via: Via) -> Self {
        Self {
            from,
            course,
            at,
            via,
            expected: false,
            asked: false,
            parent: None,
            others: Vec::new(),
        }
    }

    /// Another copy was pushed. True where it is the first, since sync brought the one in flight.
    pub(super) fn push(&mut self, node: NodeId, course: Course, now: Tick) -> bool {
        let first = self.via != Via::Tree;
        if first {
            (self.via, self.course, self.at) = (Via::Tree, course, now);
            self.parent = Some(node);
        }
        self.add(node, if first { Via::Sync } else { Via::Tree });
        first
    }

    /// Somebody else has it.
    pub(super) fn add(&mut self, node: NodeId, via: Via) {
        if let Some(known) = self.others.iter_mut().find(|(n, _)| *n == node) {
            if via == Via::Tree {
                known.1 = via;
            }
        } else if node != self.from && self.others.len() < OTHERS_MAX {
            self.others.push((node, via));
        }
    }
}

/// The items in flight.
pub(super) type Flights = BTreeMap<Key, Flight>;

impl Overlay {
    /// Hands an item to the driver, unless it is in flight or shunned.
    pub(super) fn deliver(
        &mut self,
        now: Tick,
        from: NodeId,
        item: Item,
        (course, via): (Course, Via),
        actions: &mut Vec<Action>,
    ) {
        let key = (item.log, item.seq);
        let closed = self.closed;
        let Some(link) = self.link_mut(&from) else { return };
        if closed || link.shuns(&key, now) {
            return;
        }
        let mine = link.flights;
        if self.flights.len() >= FLIGHTS_MAX || mine >= FLIGHTS_PER_PEER_MAX {
            self.counters.dropped += 1;
            return;
        }
        if let Some(link) = self.link_mut(&from) {
            link.flights += 1;
        }
        let mut flight = Flight::new(from, course, now, via);
        if let Some(missing) = self.missing.remove(&key) {
            self.release_missing(&missing);
            (flight.expected, flight.asked) = (true, !missing.asked.is_empty());
            self.trees.note_lag(&key.0, now.since(missing.first));
            if via == Via::Tree && missing.asked.is_empty() {
                let was = (missing.owner, missing.could);
                let turned = self.announced_early(now, from, (key, course.age_ms), was, actions);
                flight.parent = turned.then_some(missing.owner);
            }
            self.ungraft(now, &missing.asked, (from, key), actions);
            for node in missing.senders {
                flight.add(node, Via::Told);
            }
        }
        self.flights.insert(key, flight);
        self.counters.delivered += 1;
        let Course { hop, age_ms, .. } = course;
        actions.push(Action::Deliver { from, item, hop, age_ms });
    }

    pub(super) fn take_flight(&mut self, key: &Key) -> Option<Flight> {
        let flight = self.flights.remove(key)?;
        if let Some(link) = self.link_mut(&flight.from) {
            link.flights = link.flights.saturating_sub(1);
        }
        Some(flight)
    }

    /// The driver did not commit an item.
    pub(super) fn on_refused(
        &mut self,
        now: Tick,
        from: NodeId,
        key: Key,
        why: Refusal,
        actions: &mut Vec<Action>,
    ) {
        let mut flight = self.take_flight(&key);
        if why == Refusal::Early && self.keep_early(now, key, &mut flight) {
            return;
        }
        let others = flight.map(|f| f.others).unwrap_or_default();
        match why {
            // A proof that is settled, of a log that is no log here: it is not asked for again.
            Refusal::Duplicate if self.heads.seq(&key.0) == 0 => {
                self.fetch_refused(now, from, key.0, why);
            }
            Refusal::Duplicate => {}
            Refusal::Pending | Refusal::Early => {
                self.want(key.0, key.1, from);
                for (node, _) in others {
                    self.want(key.0, key.1, node);
                }
            }
            Refusal::Invalid | Refusal::Unknown | Refusal::Later | Refusal::Forked => {
                self.fetch_refused(now, from, key.0, why);
                self.shun(now, from, key, why, actions);
                for (node, _) in others {
                    self.note_missing(now, node, key);
                }
                if why == Refusal::Forked {
                    self.ask_rival(now, from, (key.0, key.1.saturating_sub(1)), actions);
                }
            }
        }
    }

    fn shun(&mut self, now: Tick, from: NodeId, key: Key, why: Refusal, actions: &mut Vec<Action>) {
        let Some(link) = self.link_mut(&from) else { return };
        let times = link.refused.get(&key).map_or(0, |s| s.times);
        let (wait, max) = if matches!(why, Refusal::Invalid | Refusal::Later) {
            (INVALID_WAIT_MS, INVALID_WAIT_MS_MAX)
        } else {
            (UNKNOWN_WAIT_MS, UNKNOWN_WAIT_MS_MAX)
        };
        let until = now.after_ms((wait << times.min(10)).min(max));
        link.refused.set(key, Shunned { until, times: times.saturating_add(1) });
        // The wait is over without an event: look at what is wanted then.
        self.house_at = self.house_at.min(until);
        if why == Refusal::Invalid {
            self.count_invalid(now, from, actions);
        }
    }

    /// A neighbour sent what nobody may send; who goes on is closed.
    fn count_invalid(&mut self, now: Tick, from: NodeId, actions: &mut Vec<Action>) {
        let Some(link) = self.link_mut(&from) else { return };
        link.invalid = link.invalid.saturating_add(1);
        if link.invalid >= INVALID_MAX {
            self.close(now, from, Why::Misbehaved, actions);
        }
    }

    /// An entry of which not even its place can be read.
    pub(super) fn on_placeless(&mut self, now: Tick, from: NodeId, actions: &mut Vec<Action>) {
        self.counters.unsolicited += 1;
        self.count_invalid(now, from, actions);
    }

    /// A link ended: what was refused of it is kept for when it comes back.
    pub(super) fn remember_refused(&mut self, link: Link) {
        let Link { peer, refused: items, barren, fetch_after, .. } = link;
        if items.len() > 0 {
            self.former.set(peer.node, Refused { items, barren, fetch_after });
        }
    }

    /// A link begins: what was refused of this host is still refused.
    pub(super) fn recall_refused(&self, link: &mut Link) {
        if let Some(known) = self.former.get(&link.peer.node) {
            link.refused = known.items.clone();
            (link.barren, link.fetch_after) = (known.barren, known.fetch_after);
        }
    }

    /// Forgets items to which the driver never answered.
    pub(super) fn flights_due(&mut self, now: Tick) {
        let late = |f: &Flight| f.at.after_ms(FLIGHT_WAIT_MS) <= now;
        let keys: Vec<Key> =
            self.flights.iter().filter(|(_, f)| late(f)).map(|(k, _)| *k).collect();
        for key in keys {
            self.take_flight(&key);
        }
    }
}
