//! The roster: records of all known live hosts, flooded once per host and incarnation.
//!
//! It answers two questions without a message: which hosts want a group (for transfer), and which
//! two hosts of a site carry a log across sites (protocol.md §3b, §3c).

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{OverlayFrame, PeerHint};
use stork_wire::ids::{GroupId, LogId, NodeId};
use stork_wire::limits::HINTS_MAX;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

use super::Overlay;
use super::bounded::Recent;
use super::io::{Action, Class, Peer};
use super::rng::{cut, mix};

/// Hosts whose newest flooded incarnation is remembered, so that a record is never flooded twice.
/// The oldest are forgotten first: by then their flood is long over.
const SEEN_MAX: usize = 16_384;
/// A host that was found dead is tried again after this, if no newer record came before.
const LOST_MS: u64 = 600_000;
/// A host whose record is younger than this is a newcomer, which gets the whole roster from those
/// that it asks for links while it is starving.
const NEWCOMER_MS: u64 = 60_000;
/// Frames of records per link and flush; what is left waits for the next one.
const RECORD_FRAMES_PER_FLUSH: usize = 4;

/// One host of the roster.
#[derive(Debug, Clone)]
struct Member {
    peer: Arc<Peer>,
    lost: Option<Tick>,
}

/// The records, and what was flooded.
#[derive(Debug)]
pub(super) struct Roster {
    map: BTreeMap<NodeId, Member>,
    pub(super) seen: Recent<NodeId, (u64, Tick)>,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self { map: BTreeMap::new(), seen: Recent::new(SEEN_MAX) }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Hosts that are not known to be dead or expired.
    pub(super) fn live(&self, now: Tick) -> impl Iterator<Item = &Arc<Peer>> {
        let lost = move |m: &Member| m.lost.is_some_and(|t| now.since(t) < LOST_MS);
        self.map.values().filter(move |m| m.peer.expires > now && !lost(m)).map(|m| &m.peer)
    }

    /// Stores a record; a full roster gives up the expired, the dead, then hosts of other sites.
    fn put(&mut self, now: Tick, peer: &Arc<Peer>, site: &Label, max: usize) {
        let node = peer.node;
        if self.map.len() >= max && !self.map.contains_key(&node) {
            let worth = |m: &Member| {
                let live = m.peer.expires > now && m.lost.is_none();
                (live, m.peer.site == *site)
            };
            let least = self.map.iter().min_by_key(|(_, m)| worth(m));
            let Some((out, least)) = least.map(|(n, m)| (*n, worth(m))) else { return };
            if least >= (true, peer.site == *site) {
                return;
            }
            self.map.remove(&out);
        }
        self.map.insert(node, Member { peer: Arc::clone(peer), lost: None });
    }
}

impl Overlay {
    /// This node's own record changed: every link hears of it.
    pub(super) fn on_local(&mut self, now: Tick, peer: Arc<Peer>) {
        if peer.node != self.me {
            return;
        }
        self.local = Some(peer);
        let me = self.me;
        self.queue_record(now, me, None);
    }

    /// Takes a record. True where it says something new: the host was unknown, has changed, or was
    /// thought dead and is now here itself (`from` is `None`).
    pub(super) fn take_record(
        &mut self,
        now: Tick,
        peer: &Arc<Peer>,
        from: Option<NodeId>,
    ) -> bool {
        let node = peer.node;
        if node == self.me || peer.expires <= now {
            return false;
        }
        if self.roster.seen.get(&node).is_some_and(|(known, _)| *known >= peer.incarnation) {
            let Some(member) = self.roster.map.get_mut(&node) else { return false };
            return from.is_none() && member.lost.take().is_some();
        }
        self.roster.seen.set(node, (peer.incarnation, now));
        self.roster.put(now, peer, &self.site, self.config.roster);
        if self.roster.map.contains_key(&node) {
            self.queue_record(now, node, from);
        }
        true
    }

    /// Takes the record of a host that is here itself. True where the host is likely to lack other
    /// records: its own is news, or came by a flood a moment before.
    pub(super) fn take_newcomer(&mut self, now: Tick, peer: &Arc<Peer>) -> bool {
        let news = self.take_record(now, peer, None);
        let seen = self.roster.seen.get(&peer.node);
        news || seen.is_some_and(|(_, at)| now.since(*at) < NEWCOMER_MS)
    }

    /// Records of a flood: what is new goes on, and may be a host to link to.
    pub(super) fn on_records(&mut self, now: Tick, from: NodeId, peers: &[Arc<Peer>]) {
        let Some(link) = self.links.get_mut(&from) else { return };
        for peer in peers {
            link.records.remove(&peer.node);
        }
        let was_empty = self.contacts.passive.is_empty();
        for peer in peers.iter().take(HINTS_MAX) {
            // A flood updates what is known and fills a passive view; it does not churn a full one.
            if self.take_record(now, peer, Some(from)) && self.has_room_for(&peer.node) {
                self.learn(now, peer, None);
            }
        }
        if was_empty && !self.contacts.passive.is_empty() {
            self.refill_soon(now);
        }
    }

    /// Queues a record for all links but the one it came from.
    fn queue_record(&mut self, now: Tick, node: NodeId, from: Option<NodeId>) {
        let max = self.records_max();
        for (to, link) in &mut self.links {
            if Some(*to) != from && *to != node && link.records.len() < max {
                link.records.insert(node);
            }
        }
        self.flush_soon(now);
    }

    /// Records that may wait for one link: a whole roster, and as much news. What does not fit
    /// comes to that host by its other links, or with the next change.
    pub(super) const fn records_max(&self) -> usize {
        2 * self.config.roster
    }

    /// Queues the whole roster for one new neighbour.
    pub(super) fn queue_roster(&mut self, now: Tick, to: NodeId) {
        let all: Vec<NodeId> = self.roster.live(now).map(|p| p.node).filter(|n| *n != to).collect();
        if let Some(link) = self.links.get_mut(&to) {
            link.records.extend(all);
            self.flush_soon(now);
        }
    }

    /// Sends queued records. True where some are left.
    pub(super) fn flush_records(&mut self, now: Tick, actions: &mut Vec<Action>) -> bool {
        let mut left = false;
        let mut frames: Vec<(NodeId, Vec<PeerHint>)> = Vec::new();
        for (to, link) in &mut self.links {
            for _ in 0..RECORD_FRAMES_PER_FLUSH {
                let mut hints = Vec::new();
                while hints.len() < HINTS_MAX
                    && let Some(node) = link.records.pop_first()
                {
                    let local = self.local.as_ref().filter(|_| node == self.me);
                    let member = self.roster.map.get(&node).map(|m| &m.peer);
                    hints.extend(local.or(member).map(|p| p.hint.clone()));
                }
                if !hints.is_empty() {
                    frames.push((*to, hints));
                }
            }
            left |= !link.records.is_empty();
        }
        for (to, hints) in frames {
            let frame = OverlayFrame::Records(List::truncated(hints));
            self.send(now, to, frame, Class::Lazy, actions);
        }
        left
    }

    /// A host was found dead, of which `heard` was the last sign. False where its record is newer
    /// than that: it has restarted.
    pub(super) fn roster_lost(&mut self, now: Tick, node: NodeId, heard: Tick) -> bool {
        if self.roster.seen.get(&node).is_some_and(|(_, at)| *at > heard) {
            return false;
        }
        if let Some(member) = self.roster.map.get_mut(&node) {
            member.lost = Some(now);
        }
        true
    }

    /// Live hosts that subscribe to one of these groups, for transfer.
    #[must_use]
    pub fn interested(&self, groups: &[GroupId]) -> Vec<Arc<Peer>> {
        let wants = |p: &&Arc<Peer>| p.groups.iter().any(|g| groups.contains(g));
        self.roster.live(self.now).filter(wants).cloned().collect()
    }

    /// Does this host carry the log across sites for its site? Every node that knows the site's
    /// hosts finds the same relays, by rendezvous hashing.
    pub(super) fn is_relay(&self, node: NodeId, site: &Label, log: &LogId) -> bool {
        let key = cut(log.as_bytes());
        let weight = |n: &NodeId| (mix(cut(n.as_bytes()) ^ mix(key)), *n);
        let mine = weight(&node);
        let others = self.roster.live(self.now).filter(|p| p.site == *site).map(|p| p.node);
        let me = Some(self.me).filter(|_| *site == self.site);
        let all = others.chain(me).filter(|n| *n != node);
        all.filter(|n| weight(n) < mine).count() < self.config.relays
    }
}
