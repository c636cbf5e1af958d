//! Relays: the few hosts of a site whose links into other sites are part of a log's tree.
//!
//! Were all links between sites eager, a site would get an item a dozen times (protocol.md §3c:
//! 11.9 copies; with two relays 1.06). Every host knows its own site, so that it knows whether it
//! is a relay; of other sites it knows next to nothing, so that relays say what they are, in their
//! pings. To be short, logs share 64 buckets, and a host is a relay of a bucket. A host that lies
//! gets items which it could have asked for.

use core::ops::Bound;
use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::LinkClass;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::Overlay;
use super::flight::Course;
use super::io::{Action, Peer};
use super::links::Link;
use super::rng::{cut, mix};
use super::tree::entry_of;

/// Buckets of logs: the bits of a mask.
const BUCKETS: u64 = 64;

/// One near link in so many begins lazy, where there are more of them than a node dials for: more
/// where relays bring the first item into a site twice.
const SPARED_ONE_IN: u64 = 5;
const SPARED_ONE_IN_OF_SITES: u64 = 4;

/// The bit of a log's bucket.
fn bit(log: &LogId) -> u64 {
    1 << (mix(cut(log.as_bytes())) % BUCKETS)
}

/// The order of a site's hosts as relays of a bucket: the least weights carry it.
pub(super) fn weight(node: u64, bucket: u64) -> u64 {
    mix(node ^ mix(bucket))
}

impl Link {
    /// Does the host at the other end carry this log into its site?
    fn carries(&self, log: &LogId) -> bool {
        self.carries & bit(log) != 0
    }
}

impl Overlay {
    /// Near links are eager, save some where there are many; far links only toward a relay. (Its
    /// answer, should it get the item from elsewhere, makes it lazy again.)
    pub(super) fn default_mask(&self, log: &LogId) -> u16 {
        let crowded = self.count(LinkClass::Near).all > self.config.near;
        let eager = |l: &&Link| match l.class {
            LinkClass::Near => !(crowded && self.spares(l, log)) || l.carries(log),
            _ => l.carries(log),
        };
        self.links.values().filter(eager).fold(0, |mask, l| mask | l.bit())
    }

    /// Both ends leave the same links out of a new tree: with 5 near links and 2 more that others
    /// dialled, the first item of a log would come four times too often (protocol.md §3c: three).
    fn spares(&self, link: &Link, log: &LogId) -> bool {
        let ends = cut(self.me.as_bytes()) ^ cut(link.peer.node.as_bytes());
        let apart = self.links.values().any(|l| l.peer.site != self.site);
        let one_in = if apart { SPARED_ONE_IN_OF_SITES } else { SPARED_ONE_IN };
        mix(ends ^ cut(log.as_bytes())).is_multiple_of(one_in)
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
        let live = self.roster.not_lost(now).filter(|p| p.site == self.site);
        let others: Vec<u64> = live.map(|p| cut(p.node.as_bytes())).collect();
        let me = cut(self.me.as_bytes());
        let carried = (0..BUCKETS).filter(|bucket| {
            let mine = weight(me, *bucket);
            let ahead = others.iter().filter(|n| weight(**n, *bucket) < mine);
            ahead.count() < self.config.relays
        });
        carried.fold(0, |mask, bucket| mask | 1 << bucket)
    }

    /// The hosts before this one in the order of a bucket, if it is one of those that come next
    /// after the relays: as many as there are relays.
    fn before(&self, site: &[&Arc<Peer>], bucket: u64) -> Vec<Arc<Peer>> {
        let mine = weight(cut(self.me.as_bytes()), bucket);
        let ahead = |p: &&&Arc<Peer>| weight(cut(p.node.as_bytes()), bucket) < mine;
        let relays = self.config.relays;
        let first = site.iter().filter(ahead).take(2 * relays);
        let first: Vec<Arc<Peer>> = first.map(|p| Arc::clone(p)).collect();
        if (relays..2 * relays).contains(&first.len()) { first } else { Vec::new() }
    }

    /// A relay in whose place this host would step, and of which it would not hear that it is dead:
    /// there is no link to it. Those who come next watch, each host in its turn, so that nobody has
    /// to be believed who says that another is dead.
    pub(super) fn relay_to_watch(&mut self, now: Tick) -> Option<Arc<Peer>> {
        let site = self.roster.not_lost(now).filter(|p| p.site == self.site);
        let site: Vec<&Arc<Peer>> = site.collect();
        let relays = (0..BUCKETS).flat_map(|bucket| self.before(&site, bucket));
        let watched = relays.filter(|p| self.is_free(now, p)).map(|p| (p.node, p));
        let watched: BTreeMap<NodeId, Arc<Peer>> = watched.collect();
        let after = watched.range((Bound::Excluded(self.watched), Bound::Unbounded)).next();
        let (node, peer) = after.or_else(|| watched.iter().next())?;
        self.watched = *node;
        Some(Arc::clone(peer))
    }
}
