//! Hosts that are known but not linked: the passive view, the graveyard and the anchors.
//!
//! The passive view holds hosts that were heard of and not found dead, the graveyard those that
//! were lost. HyParView forgets the dead; keeping them is what lets a healed partition merge
//! (protocol.md §3a: largest component 0.51 for ever without, 1.00 after a minute with).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::PeerHint;
use stork_wire::ids::NodeId;
use stork_wire::limits::HINTS_MAX;
use stork_wire::tick::Tick;

use super::Overlay;
use super::affinity::Affinity;
use super::io::{Action, Peer, Why};
use super::rng::Rng;

/// Hosts in the passive view (protocol.md §3a).
pub(super) const PASSIVE_MAX: usize = 60;
/// Hosts in the graveyard (protocol.md §3a).
pub(super) const GRAVEYARD_MAX: usize = 256;
/// Anchors: an operator names a handful.
pub(super) const ANCHORS_MAX: usize = 32;
/// New passive hosts from one informant in an hour: a quarter of the view (attack G3).
const INFORMANT_MAX: usize = PASSIVE_MAX / 4;
/// Hosts that stay in a full passive view since they are the closest.
const PASSIVE_KEPT: usize = PASSIVE_MAX / 2;
const HOUR_MS: u64 = 3_600_000;
/// A host whose dial failed is left alone so long, doubled each time up to the bound below.
const FAILED_WAIT_MS: u64 = 5_000;
const FAILED_WAIT_MS_MAX: u64 = 600_000;
/// A host that refused a link is left alone so long.
const REFUSED_WAIT_MS: u64 = 60_000;
/// The same where this node is starving: it cannot be choosy.
const REFUSED_WAIT_STARVING_MS: u64 = 5_000;
/// A host that misbehaved is neither dialled nor admitted for so long (attack G6: 10 min).
const BAN_MS: u64 = 600_000;
/// Hosts are written to disk at most this often.
const SAVE_EVERY_MS: u64 = 60_000;

/// One host that is not linked.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) peer: Arc<Peer>,
    pub(super) informant: Option<NodeId>,
    pub(super) added: Tick,
    pub(super) not_before: Tick,
    pub(super) fails: u32,
}

impl Contact {
    const fn new(peer: Arc<Peer>, informant: Option<NodeId>, now: Tick) -> Self {
        Self { peer, informant, added: now, not_before: now, fails: 0 }
    }
}

/// The three sets. A host is in at most one of them, and in none while it is linked, save that an
/// anchor stays an anchor.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    pub(super) passive: BTreeMap<NodeId, Contact>,
    pub(super) graveyard: BTreeMap<NodeId, Contact>,
    pub(super) anchors: BTreeMap<NodeId, Contact>,
}

impl Contacts {
    pub(super) fn is_anchor(&self, node: &NodeId) -> bool {
        self.anchors.contains_key(node)
    }

    /// Takes a host out of passive view and graveyard.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.passive.remove(node);
        self.graveyard.remove(node);
    }

    /// What is known of a host that is not linked.
    pub(super) fn get(&self, node: &NodeId) -> Option<&Contact> {
        let some = self.anchors.get(node).or_else(|| self.passive.get(node));
        some.or_else(|| self.graveyard.get(node))
    }

    fn any(&mut self, node: &NodeId) -> Option<&mut Contact> {
        if let Some(c) = self.anchors.get_mut(node) {
            return Some(c);
        }
        self.passive.get_mut(node).or_else(|| self.graveyard.get_mut(node))
    }

    /// Puts a host into the passive view. A random one makes room, which is none of the closest:
    /// a fair sample of all that were ever named stays, however often others are (attack G3).
    fn put_passive(&mut self, contact: Contact, to: Affinity, rng: &mut Rng) {
        let node = contact.peer.node;
        self.graveyard.remove(&node);
        if self.passive.len() >= PASSIVE_MAX && !self.passive.contains_key(&node) {
            let all = self.passive.keys().map(|n| (to.distance(n), *n));
            let mut all: Vec<(u64, NodeId)> = all.collect();
            let (_, _, distant) = all.select_nth_unstable(PASSIVE_KEPT);
            if let Some((_, out)) = rng.pick(distant) {
                self.passive.remove(&out);
            }
        }
        self.passive.insert(node, contact);
    }

    /// Puts a host into the graveyard; the one that lies there longest makes room.
    fn bury(&mut self, contact: Contact) {
        let node = contact.peer.node;
        self.passive.remove(&node);
        if self.graveyard.len() >= GRAVEYARD_MAX && !self.graveyard.contains_key(&node) {
            let oldest = self.graveyard.iter().min_by_key(|(_, c)| c.added).map(|(n, _)| *n);
            if let Some(out) = oldest {
                self.graveyard.remove(&out);
            }
        }
        self.graveyard.insert(node, contact);
    }

    /// Informants may not fill the passive view (attack G3).
    fn informant_full(&self, informant: Option<NodeId>, now: Tick) -> bool {
        let Some(who) = informant else { return false };
        let recent = |c: &&Contact| c.informant == Some(who) && now.since(c.added) < HOUR_MS;
        self.passive.values().filter(recent).count() >= INFORMANT_MAX
    }
}

impl Overlay {
    /// Files a host that was heard of. An older record never replaces a newer one.
    pub(super) fn learn(&mut self, now: Tick, peer: &Arc<Peer>, informant: Option<NodeId>) {
        if peer.node == self.me || peer.expires <= now {
            return;
        }
        if let Some(link) = self.links.get_mut(&peer.node) {
            if link.peer.incarnation < peer.incarnation {
                link.peer = Arc::clone(peer);
            }
            return;
        }
        let dead = self.contacts.graveyard.contains_key(&peer.node);
        if let Some(known) = self.contacts.any(&peer.node) {
            let newer = known.peer.incarnation < peer.incarnation;
            if newer {
                known.peer = Arc::clone(peer);
                known.not_before = known.not_before.min(now.after_ms(REFUSED_WAIT_STARVING_MS));
            }
            // Somebody speaks of it again: it may live.
            if dead && (newer || known.not_before <= now) {
                let contact = Contact { informant, added: now, ..known.clone() };
                if !self.contacts.informant_full(informant, now) {
                    self.contacts.put_passive(contact, self.affinity, &mut self.rng);
                }
            }
            return;
        }
        if !self.contacts.informant_full(informant, now) {
            let contact = Contact::new(Arc::clone(peer), informant, now);
            self.contacts.put_passive(contact, self.affinity, &mut self.rng);
            self.touch_saved(now);
        }
    }

    /// Would this host be filed without displacing another?
    pub(super) fn has_room_for(&self, node: &NodeId) -> bool {
        let c = &self.contacts;
        let known = c.is_anchor(node) || c.passive.contains_key(node);
        let linked = self.links.contains_key(node) || c.graveyard.contains_key(node);
        known || linked || c.passive.len() < PASSIVE_MAX
    }

    /// Takes hosts from disk and the operator's anchors.
    pub(super) fn on_bootstrap(&mut self, now: Tick, known: &[Arc<Peer>], anchors: &[Arc<Peer>]) {
        for peer in anchors.iter().take(ANCHORS_MAX).filter(|p| p.node != self.me) {
            self.contacts.forget(&peer.node);
            let contact = Contact::new(Arc::clone(peer), None, now);
            if self.contacts.anchors.len() < ANCHORS_MAX {
                self.contacts.anchors.insert(peer.node, contact);
            }
        }
        for (i, peer) in known.iter().take(PASSIVE_MAX + GRAVEYARD_MAX).enumerate() {
            let linked = self.links.contains_key(&peer.node);
            // Expired records come last: for want of better ones, their addresses may do.
            if i < PASSIVE_MAX && peer.expires > now {
                self.learn(now, peer, None);
            } else if !linked && peer.node != self.me && self.contacts.any(&peer.node).is_none() {
                self.contacts.bury(Contact::new(Arc::clone(peer), None, now));
            }
        }
        self.refill_soon(now);
    }

    /// Files the host of a link that ended.
    pub(super) fn file_former(&mut self, now: Tick, peer: &Arc<Peer>, why: Why, heard: Tick) {
        let lost =
            matches!(why, Why::Gone | Why::Silent) && self.roster_lost(now, peer.node, heard);
        let mut contact = Contact::new(Arc::clone(peer), None, now);
        contact.not_before = now.after_ms(match why {
            Why::Misbehaved => BAN_MS,
            Why::Replaced => 0,
            Why::Evicted | Why::Unlinked | Why::Disagreed => REFUSED_WAIT_MS,
            Why::Gone | Why::Silent if lost => FAILED_WAIT_MS,
            Why::Gone | Why::Silent => 0,
        });
        if why == Why::Misbehaved {
            self.ban(now, peer.node);
        }
        if let Some(anchor) = self.contacts.anchors.get_mut(&peer.node) {
            let peer = Arc::clone(peer);
            *anchor = Contact { peer, ..contact };
        } else if lost || why == Why::Misbehaved {
            self.contacts.bury(contact);
        } else {
            self.contacts.put_passive(contact, self.affinity, &mut self.rng);
        }
    }

    /// Shuts a host out for a while.
    pub(super) fn ban(&mut self, now: Tick, node: NodeId) {
        self.bans.set(node, now.after_ms(BAN_MS));
    }

    /// Is this host shut out for what it did?
    pub(super) fn banned(&self, now: Tick, node: NodeId) -> bool {
        self.bans.get(&node).is_some_and(|until| *until > now)
    }

    /// A dial was answered, but no link granted.
    pub(super) fn refused_dial(&mut self, now: Tick, peer: &Arc<Peer>) {
        let starving = self.is_starving();
        let wait = if starving { REFUSED_WAIT_STARVING_MS } else { REFUSED_WAIT_MS };
        self.learn(now, peer, None);
        if let Some(contact) = self.contacts.any(&peer.node) {
            contact.not_before = now.after_ms(wait);
            contact.fails = 0;
        }
        if let Some(contact) = self.contacts.graveyard.get(&peer.node).cloned() {
            self.contacts.put_passive(contact, self.affinity, &mut self.rng);
        }
        if starving {
            self.refill_soon(now);
        }
    }

    /// A dial came to nothing.
    pub(super) fn on_dial_failed(&mut self, now: Tick, node: NodeId, actions: &mut Vec<Action>) {
        let Some(dial) = self.dialling.remove(&node) else { return };
        if !self.links.contains_key(&node) && self.roster_lost(now, node, dial.since) {
            self.put_off(now, node);
        }
        self.promote_again(now, actions);
    }

    /// A host did not answer: it is left alone for a while.
    fn put_off(&mut self, now: Tick, node: NodeId) {
        let Some(contact) = self.contacts.any(&node) else { return };
        let wait = FAILED_WAIT_MS.saturating_mul(1 << contact.fails.min(7));
        contact.fails = contact.fails.saturating_add(1);
        contact.not_before = now.after_ms(wait.min(FAILED_WAIT_MS_MAX));
        if let Some(mut contact) = self.contacts.passive.get(&node).cloned() {
            contact.added = now;
            self.contacts.bury(contact);
        }
    }

    /// Some hosts for `to`: half of them linked, the rest from the passive view.
    pub(super) fn hints_for(&mut self, to: NodeId) -> List<PeerHint, HINTS_MAX> {
        let peers = self.some_peers(to, HINTS_MAX);
        List::truncated(peers.iter().map(|p| p.hint.clone()))
    }

    /// Up to `n` hosts other than `to`.
    pub(super) fn some_peers(&mut self, to: NodeId, n: usize) -> Vec<Arc<Peer>> {
        let now = self.now;
        let fit = |p: &&Arc<Peer>| p.node != to && p.expires > now;
        let links = self.links.values().map(|l| &l.peer).filter(fit);
        let linked = self.rng.sample(links.cloned().collect(), n / 2);
        let passive = self.contacts.passive.values().map(|c| &c.peer).filter(fit);
        let rest = n.saturating_sub(linked.len());
        let mut out = self.rng.sample(passive.cloned().collect(), rest);
        out.extend(linked);
        out
    }

    /// The set of known hosts changed: it will be written some time.
    pub(super) fn touch_saved(&mut self, now: Tick) {
        if self.save_at.is_none() {
            let since = now.since(self.saved);
            self.save_at = Some(now.after_ms(SAVE_EVERY_MS.saturating_sub(since).max(1_000)));
        }
    }

    /// Hands the known hosts to the driver, best first.
    pub(super) fn save(&mut self, now: Tick, actions: &mut Vec<Action>) {
        (self.saved, self.save_at) = (now, None);
        let mut seen = BTreeSet::new();
        let linked = self.links.values().map(|l| &l.peer);
        let passive = self.contacts.passive.values().map(|c| &c.peer);
        let dead = self.contacts.graveyard.values().map(|c| &c.peer);
        let hints = linked.chain(passive).chain(dead).filter(|p| seen.insert(p.node));
        let hints = hints.map(|p| p.hint.clone()).collect();
        actions.push(Action::SavePeers(hints));
    }
}
