//! The roster: records of known live hosts, flooded once per host and incarnation.
//!
//! While a fleet fits, everybody knows everybody. In a larger one a record travels in its own site
//! only, save those of the few hosts that speak for it (`cells`): a host knows its site, and of
//! other sites what there is room for (design.md §5).
//!
//! It answers two questions without a message: which hosts want a group (for transfer), and which
//! two hosts of a site carry a log across sites (protocol.md §3b, §3c).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{OverlayFrame, PeerHint};
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::limits::HINTS_MAX;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

use super::Overlay;
use super::bounded::Recent;
use super::cells;
use super::io::{Action, Class, Peer};

/// Hosts whose newest flooded incarnation is remembered, so that a record is never flooded twice.
/// The oldest are forgotten first: by then their flood is long over.
const SEEN_MAX: usize = 16_384;
/// A host that was found dead is tried again after this, if no newer record came before.
const LOST_MS: u64 = 600_000;
/// A host whose record is younger than this is a newcomer, which gets the whole roster from those
/// that it asks for links while it is starving.
const NEWCOMER_MS: u64 = 60_000;
/// Hosts of other sites that a newcomer in a large fleet is told.
const FOREIGN_MAX: usize = 32;
/// Hosts of another site that are kept since they speak for it: twice as many as there should be.
const CONTACTS_KEPT_MAX: usize = 2 * cells::CONTACTS;
/// Frames of records per link and flush; what is left waits for the next one.
const RECORD_FRAMES_PER_FLUSH: usize = 4;

/// One host of the roster.
#[derive(Debug, Clone)]
struct Member {
    peer: Arc<Peer>,
    lost: Option<Tick>,
}

/// Not lost, how near, who.
type Worth = (bool, u8, NodeId);

/// Of this site, speaking for another one, or neither.
fn rank(peer: &Peer, site: &Label) -> u8 {
    if peer.site == *site { 2 } else { u8::from(peer.cell.is_some()) }
}

/// The records, and what was flooded.
#[derive(Debug)]
pub(super) struct Roster {
    map: BTreeMap<NodeId, Member>,
    /// Whoever makes room, first: the lost before the live, other sites before this one.
    by_worth: BTreeSet<Worth>,
    by_end: BTreeSet<(Tick, NodeId)>,
    pub(super) seen: Recent<NodeId, (u64, Tick)>,
    changed: bool,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self {
            map: BTreeMap::new(),
            by_worth: BTreeSet::new(),
            by_end: BTreeSet::new(),
            seen: Recent::new(SEEN_MAX),
            changed: true,
        }
    }

    /// May hosts have come or gone since this was asked?
    pub(super) const fn take_changed(&mut self) -> bool {
        core::mem::replace(&mut self.changed, false)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The last record of a host, dead or not.
    pub(super) fn last_record(&self, node: &NodeId) -> Option<&Arc<Peer>> {
        self.map.get(node).map(|m| &m.peer)
    }

    /// The last records of all hosts, dead or not.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.map.values().map(|m| &m.peer)
    }

    /// Hosts that are not known to be dead or expired.
    pub(super) fn live(&self, now: Tick) -> impl Iterator<Item = &Arc<Peer>> {
        let lost = move |m: &Member| m.lost.is_some_and(|t| now.since(t) < LOST_MS);
        self.map.values().filter(move |m| m.peer.expires > now && !lost(m)).map(|m| &m.peer)
    }

    /// Hosts of which nothing says that they are dead: one that was lost stays so until it is heard
    /// of again.
    pub(super) fn not_lost(&self, now: Tick) -> impl Iterator<Item = &Arc<Peer>> {
        let here = move |m: &&Member| m.peer.expires > now && m.lost.is_none();
        self.map.values().filter(here).map(|m| &m.peer)
    }

    /// Stores a record; a full roster gives up the expired, the dead, then hosts of other sites.
    fn put(&mut self, now: Tick, peer: &Arc<Peer>, site: &Label, max: usize) {
        let node = peer.node;
        if !self.map.contains_key(&node) && rank(peer, site) == 1 && self.has_contacts(&peer.site) {
            return;
        }
        if self.map.len() >= max && !self.map.contains_key(&node) {
            let expired = self.by_end.first().filter(|(end, _)| *end <= now).map(|(_, n)| *n);
            let least = self.by_worth.first().copied();
            let beaten = least.filter(|(live, old, _)| (*live, *old) < (true, rank(peer, site)));
            let Some(out) = expired.or_else(|| beaten.map(|(_, _, n)| n)) else { return };
            self.take_out(&out, site);
        }
        self.take_out(&node, site);
        self.changed |= peer.site == *site;
        self.by_end.insert((peer.expires, node));
        self.by_worth.insert((true, rank(peer, site), node));
        self.map.insert(node, Member { peer: Arc::clone(peer), lost: None });
    }

    /// Do enough hosts speak for this site? Whoever says so is believed (`cells`), but the insiders
    /// of a site shall not fill the roster of everybody else.
    fn has_contacts(&self, site: &Label) -> bool {
        let speak = |m: &&Member| m.peer.cell.is_some() && m.peer.site == *site;
        self.map.values().filter(speak).count() >= CONTACTS_KEPT_MAX
    }

    fn take_out(&mut self, node: &NodeId, site: &Label) {
        let Some(old) = self.map.remove(node) else { return };
        self.by_end.remove(&(old.peer.expires, *node));
        self.by_worth.remove(&(old.lost.is_none(), rank(&old.peer, site), *node));
    }

    /// Notes that a host was lost, or is back. True where that is new.
    fn mark(&mut self, node: &NodeId, lost: Option<Tick>, site: &Label) -> bool {
        let Some(member) = self.map.get_mut(node) else { return false };
        let rank = rank(&member.peer, site);
        let before = core::mem::replace(&mut member.lost, lost);
        self.by_worth.remove(&(before.is_none(), rank, *node));
        self.by_worth.insert((lost.is_none(), rank, *node));
        let new = before.is_none() != lost.is_none();
        self.changed |= new && member.peer.site == *site;
        new
    }
}

impl Overlay {
    /// This node's own record changed: every link hears of it.
    pub(super) fn on_local(&mut self, now: Tick, peer: Arc<Peer>) {
        if peer.node != self.me {
            return;
        }
        let spoke = self.local.replace(peer).is_some_and(|p| p.cell.is_some());
        let me = self.me;
        self.queue_record(now, me, None, spoke);
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
            return from.is_none() && self.roster.mark(&node, None, &self.site);
        }
        self.roster.seen.set(node, (peer.incarnation, now));
        let spoke = self.roster.map.get(&node).is_some_and(|m| m.peer.cell.is_some());
        self.roster.put(now, peer, &self.site, self.config.roster);
        if self.roster.map.contains_key(&node) {
            self.queue_record(now, node, from, spoke);
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

    /// Is the fleet larger than what a host keeps of it?
    pub(super) fn fleet_is_large(&self) -> bool {
        self.roster.map.len() >= self.config.roster
    }

    /// Queues a record for all links but the one it came from; in a large fleet for those of its
    /// site, unless the host speaks for that, or `spoke` and others must hear that it stopped.
    fn queue_record(&mut self, now: Tick, node: NodeId, from: Option<NodeId>, spoke: bool) {
        let large = self.fleet_is_large();
        let local = self.local.as_ref().filter(|p| p.node == node);
        let known = local.or_else(|| self.roster.map.get(&node).map(|m| &m.peer));
        let Some(known) = known else { return };
        let (site, speaks) = (known.site.clone(), spoke || known.cell.is_some());
        let max = self.records_max();
        for (to, link) in &mut self.links {
            if Some(*to) != from
                && *to != node
                && (!large || speaks || link.peer.site == site)
                && link.records.len() < max
            {
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

    /// Queues the whole roster for one new neighbour; in a large fleet, its site and some others.
    pub(super) fn queue_roster(&mut self, now: Tick, to: NodeId) {
        let Some(site) = self.links.get(&to).map(|l| l.peer.site.clone()) else { return };
        let live = self.roster.live(now).filter(|p| p.node != to);
        let (same, mut others): (Vec<_>, Vec<_>) = live.cloned().partition(|p| p.site == site);
        if self.fleet_is_large() {
            let (speak, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|p| p.cell.is_some());
            others = self.rng.sample(rest, FOREIGN_MAX);
            others.extend(speak);
        }
        if let Some(link) = self.links.get_mut(&to) {
            link.records.extend(same.iter().chain(&others).map(|p| p.node));
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
        self.roster.mark(&node, Some(now), &self.site);
        true
    }

    /// Live hosts that subscribe to one of these groups, for transfer.
    #[must_use]
    pub fn interested(&self, groups: &[GroupId]) -> Vec<Arc<Peer>> {
        let wants = |p: &&Arc<Peer>| p.groups.iter().any(|g| groups.contains(g));
        self.roster.live(self.now).filter(wants).cloned().collect()
    }
}
