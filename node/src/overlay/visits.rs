//! Visits: comparing heads with a random host that is no neighbour.
//!
//! Neighbours that accept everything and pass nothing on cannot be told from a quiet fleet, so
//! twice a minute somebody else is asked for its fingerprint (attack G11: CVE-2022-47547). A dial
//! for a question costs about 7 kB in both directions together, a ping on an open connection 60 B:
//! a host that was dialled is asked twice, half a minute apart, and then another one. Hosts with
//! which heads are compared without a link are guests, on both sides; they sync like neighbours and
//! are never part of a tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::LinkClass;
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Peer};
use super::links::{Dialled, Link};

/// Guests at once. A newcomer takes the room of the one that was silent longest.
pub(super) const GUESTS_MAX: usize = 16;
/// A guest that spoke in this time keeps its room.
const GUEST_KEEP_MS: u64 = 10_000;
/// A guest that was silent so long is none any more.
const GUEST_IDLE_MS: u64 = 90_000;
/// A host is asked again rather than another one until it was visited for so long. The driver
/// closes connections without link and content after a minute.
const VISIT_MS: u64 = 45_000;
/// One visit in so many goes to a host that was lost: it may be the other side of a healed
/// partition.
const LOST_EVERY: u64 = 4;
/// Of the others, so many in a hundred go to a relay of the site that this host would replace.
const WATCH_PERCENT: u64 = 67;

impl Overlay {
    /// A neighbour or guest.
    pub(super) fn link(&self, node: &NodeId) -> Option<&Link> {
        self.links.get(node).or_else(|| self.guests.get(node))
    }

    /// The same, to change it.
    pub(super) fn link_mut(&mut self, node: &NodeId) -> Option<&mut Link> {
        self.links.get_mut(node).or_else(|| self.guests.get_mut(node))
    }

    /// Asks the host that is visited, or goes to another one.
    pub(super) fn visit_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if let Some((node, since)) = self.visit {
            if self.guests.contains_key(&node) && now.since(since) < VISIT_MS {
                self.counters.visits += 1;
                return self.ping(now, node, actions);
            }
            if !self.fetches.is_running(&node) {
                self.end_guest(node);
            }
        }
        let watched = if self.rng.percent(WATCH_PERCENT) { self.relay_to_watch(now) } else { None };
        if let Some(peer) = watched.or_else(|| self.someone_else(now)) {
            self.dial(now, &peer, LinkClass::Transient, false, actions);
        }
    }

    /// May this host be dialled for a visit?
    pub(super) fn is_free(&self, now: Tick, peer: &Peer) -> bool {
        let node = peer.node;
        let busy = self.links.contains_key(&node) || self.dialling.contains_key(&node);
        node != self.me && !busy && !self.banned(now, node)
    }

    /// A random host without a link, from everything that is known.
    fn someone_else(&mut self, now: Tick) -> Option<Arc<Peer>> {
        let lost = self.rng.below(LOST_EVERY) == 0;
        let c = &self.contacts;
        let filed = c.passive.values().chain(c.anchors.values()).map(|c| &c.peer);
        let known = filed.chain(self.roster.live(now)).filter(|p| p.expires > now);
        let dead = c.graveyard.values().map(|c| &c.peer);
        let free = |p: &&Arc<Peer>| self.is_free(now, p);
        let by_id = |p: &Arc<Peer>| (p.node, Arc::clone(p));
        let known: BTreeMap<NodeId, Arc<Peer>> = known.filter(free).map(by_id).collect();
        let dead: BTreeMap<NodeId, Arc<Peer>> = dead.filter(free).map(by_id).collect();
        let from = if known.is_empty() || (lost && !dead.is_empty()) { dead } else { known };
        let from: Vec<Arc<Peer>> = from.into_values().collect();
        self.rng.pick(&from)
    }

    /// A dial for a question was answered.
    pub(super) fn visited(&mut self, now: Tick, peer: Arc<Peer>, actions: &mut Vec<Action>) {
        let node = peer.node;
        self.learn(now, &peer, None);
        self.visit = Some((node, now));
        self.begin_guest(now, peer, Dialled::Here);
        self.counters.visits += 1;
        self.ping(now, node, actions);
    }

    /// A host that is no neighbour may compare heads with this one.
    pub(super) fn begin_guest(&mut self, now: Tick, peer: Arc<Peer>, dialled: Dialled) {
        let node = peer.node;
        if self.banned(now, node) || self.links.contains_key(&node) {
            return;
        }
        if self.guests.len() >= GUESTS_MAX && !self.guests.contains_key(&node) {
            let visit = self.visit.map(|(n, _)| n);
            let old = self.guests.iter().filter(|(n, _)| Some(**n) != visit);
            let old = old.min_by_key(|(_, l)| l.heard).map(|(n, l)| (*n, l.heard));
            match old {
                Some((out, heard)) if now.since(heard) >= GUEST_KEEP_MS => self.end_guest(out),
                _ => return self.counters.dropped += 1,
            };
        }
        // The slot is never looked at: guests are in no tree.
        let mut guest = Link::new(peer, LinkClass::Transient, dialled, 0, now);
        self.recall_refused(&mut guest);
        self.guests.insert(node, guest);
    }

    /// A guest leaves. False where it was none.
    pub(super) fn end_guest(&mut self, node: NodeId) -> bool {
        let Some(guest) = self.guests.remove(&node) else { return false };
        self.visit = self.visit.filter(|(n, _)| *n != node);
        self.fetch_drop_peer(node);
        self.sessions.remove(&node);
        self.remember_refused(guest);
        true
    }

    /// Guests that have nothing more to say.
    pub(super) fn guests_due(&mut self, now: Tick) {
        let idle = self.guests.iter().filter(|(_, l)| now.since(l.heard) >= GUEST_IDLE_MS);
        let idle: Vec<NodeId> = idle.map(|(n, _)| *n).collect();
        for node in idle {
            self.end_guest(node);
        }
    }
}
