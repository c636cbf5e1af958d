//! Relays: the few hosts of a site whose links into other sites are part of a log's tree.
//!
//! Were all links between sites eager, a site would get an item a dozen times (protocol.md §3c:
//! 11.9 copies; with two relays 1.06). Every host knows its own site, so that it knows whether it
//! is a relay; of other sites it knows next to nothing, so that relays say what they are, in their
//! pings. To be short, logs share 64 buckets, and a host is a relay of a bucket. A host that lies
//! gets items which it could have asked for.

use stork_wire::frame::LinkClass;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::Overlay;
use super::flight::Course;
use super::io::Action;
use super::links::Link;
use super::rng::{cut, mix};
use super::tree::entry_of;

/// Buckets of logs: the bits of a mask.
const BUCKETS: u64 = 64;

/// The bit of a log's bucket.
fn bit(log: &LogId) -> u64 {
    1 << (mix(cut(log.as_bytes())) % BUCKETS)
}

impl Link {
    /// Does the host at the other end carry this log into its site?
    fn carries(&self, log: &LogId) -> bool {
        self.carries & bit(log) != 0
    }
}

impl Overlay {
    /// Near links are eager; far links only toward a relay. (Its answer, should it get the item
    /// from elsewhere, makes it lazy again.)
    pub(super) fn default_mask(&self, log: &LogId) -> u16 {
        let eager = |l: &&Link| l.class == LinkClass::Near || l.carries(log);
        self.links.values().filter(eager).fold(0, |mask, l| mask | l.bit())
    }

    /// Does this host carry the log into its site?
    pub(super) fn carries(&self, log: &LogId) -> bool {
        self.carries & bit(log) != 0
    }

    /// Is this a link into another site, on which it is the relays' turn first?
    pub(super) fn leaves_to_relays(&self, from: &NodeId, log: &LogId) -> bool {
        let foreign = self.links.get(from).is_some_and(|l| l.peer.site != self.site);
        foreign && !self.carries(log)
    }

    /// The way of an item that was asked for: of its way into the site, any push says more.
    pub(super) fn course_asked(&self, from: &NodeId) -> Course {
        let foreign = self.links.get(from).is_some_and(|l| l.peer.site != self.site);
        let entry = if foreign { entry_of(self.me) } else { u32::MAX };
        Course { hop: 0, age_ms: 0, entry }
    }

    /// The hosts of the site may have changed: is this one a relay of other buckets now? Those that
    /// it is linked to in other sites hear of it at once.
    pub(super) fn relays_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if !self.roster.take_changed() {
            return;
        }
        let carries = self.buckets(now);
        if core::mem::replace(&mut self.carries, carries) == carries {
            return;
        }
        let away = self.links.values().filter(|l| l.peer.site != self.site);
        let away: Vec<NodeId> = away.map(|l| l.peer.node).collect();
        for node in away {
            self.ping(now, node, actions);
        }
    }

    /// The buckets of which this host is a relay, by rendezvous hashing over the site.
    fn buckets(&self, now: Tick) -> u64 {
        let live = self.roster.live(now).filter(|p| p.site == self.site);
        let others: Vec<u64> = live.map(|p| cut(p.node.as_bytes())).collect();
        let me = cut(self.me.as_bytes());
        let carried = (0..BUCKETS).filter(|bucket| {
            let weight = |node: u64| mix(node ^ mix(*bucket));
            let mine = weight(me);
            others.iter().filter(|n| weight(**n) < mine).count() < self.config.relays
        });
        carried.fold(0, |mask, bucket| mask | 1 << bucket)
    }
}
