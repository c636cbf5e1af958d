//! Active links: who is admitted, how a link begins and ends, and the slots that trees refer to.
//!
//! An inbound host never displaces a link that this node dialled or an anchor (attack G2); part of
//! the room for links is kept for own dials, so that inbound hosts alone can never surround a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::Overlay;
use super::bounded::Recent;
use super::io::{Action, Class, Event, Peer, Why};
pub(super) use super::link::{Dialled, Link, Pair, Shunned};
pub(super) use super::link::{PRUNED_MAX, REFUSED_MAX, SERVED_MAX};

/// Near links beyond the target that inbound hosts may take (protocol.md §3a: 5 + 2).
pub(super) const NEAR_SLACK: usize = 2;
/// Far links beyond the target, for merge probes and starving hosts (protocol.md §3a: 3 + 1).
pub(super) const FAR_SLACK: usize = 1;
/// Near links that only own dials fill (attack G2: at least two outbound).
pub(super) const NEAR_OWN: usize = 2;
/// Far links that only own dials fill.
pub(super) const FAR_OWN: usize = 1;
/// A host takes a reserved place or that of another at most once in this time (attack G2: 10 min).
const CONTEST_EVERY_MS: u64 = 600_000;
/// Hosts remembered for that; the oldest are forgotten first.
const RESERVED_MAX: usize = 512;
/// A link younger than this is not given up for another host.
const EVICT_AGE_MS: u64 = 5_000;
/// How many links of a class there are, and how many of them the other side dialled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) all: usize,
    pub(super) inbound: usize,
}

/// The links, by host.
pub(super) type Links = BTreeMap<NodeId, Link>;

/// Memory of reserved slots.
pub(super) const fn reserved() -> Recent<NodeId, Tick> {
    Recent::new(RESERVED_MAX)
}

impl Overlay {
    /// Links of a class now.
    pub(super) fn count(&self, class: LinkClass) -> Count {
        let mut c = Count::default();
        for l in self.links.values().filter(|l| l.class == class) {
            c.all += 1;
            c.inbound += usize::from(l.dialled == Dialled::There);
        }
        c
    }

    /// The same without those that are doubted, whose places are as good as free.
    pub(super) fn count_sure(&self, class: LinkClass) -> Count {
        let mut c = self.count(class);
        for l in self.links.values().filter(|l| l.class == class && l.doubted) {
            c.all -= 1;
            c.inbound -= usize::from(l.dialled == Dialled::There);
        }
        c
    }

    /// Makes room for a newcomer where only doubted links take it.
    fn evict_doubted(&mut self, now: Tick, class: LinkClass, actions: &mut Vec<Action>) {
        if self.count(class).all < self.cap(class) {
            return;
        }
        let doubted = self.links.values().find(|l| l.class == class && l.doubted);
        if let Some(node) = doubted.map(|l| l.peer.node) {
            self.close(now, node, Why::Silent, actions);
        }
    }

    /// The most links of a class that there may ever be (invariant I1).
    pub(super) const fn cap(&self, class: LinkClass) -> usize {
        match class {
            LinkClass::Near => self.config.near + NEAR_SLACK,
            LinkClass::Far => self.config.far + FAR_SLACK,
            LinkClass::Transient => 0,
        }
    }

    /// Answers an inbound host.
    pub(super) fn on_hello(
        &mut self,
        now: Tick,
        peer: Arc<Peer>,
        class: LinkClass,
        starving: bool,
        actions: &mut Vec<Action>,
    ) {
        let to = peer.node;
        let since = self.links.get(&to).map(|l| l.since);
        self.end_guest(to);
        self.end_link(now, to, Why::Replaced, actions);
        let granted = self.admit(now, &peer, class, starving, actions);
        // Who asks for no link needs no other hosts.
        let asks = class != LinkClass::Transient;
        let hints = if asks { self.hints_for(to) } else { List::empty() };
        actions.push(Action::Answer { to, class: granted, hints });
        let news = self.take_newcomer(now, &peer);
        if granted == LinkClass::Transient {
            self.learn(now, &peer, None);
            if !asks {
                self.begin_guest(now, peer, Dialled::There);
            }
        } else {
            self.dialling.remove(&to);
            self.begin_link(now, peer, granted, Dialled::There, actions);
            // Who connects again and again is not young again and again (`EVICT_AGE_MS`).
            if let (Some(link), Some(since)) = (self.links.get_mut(&to), since) {
                link.since = since;
            }
            self.greet(now, to, starving && news, actions);
        }
    }

    /// Decides on an inbound host. Only what this says `Transient` to gets no link.
    fn admit(
        &mut self,
        now: Tick,
        peer: &Arc<Peer>,
        class: LinkClass,
        starving: bool,
        actions: &mut Vec<Action>,
    ) -> LinkClass {
        let (own, ordinary) = match class {
            LinkClass::Near if peer.site == self.site => (NEAR_OWN, self.cap(class)),
            LinkClass::Far => (FAR_OWN, self.config.far),
            _ => return LinkClass::Transient,
        };
        // Both dial at once: the dial of the larger id stands, as in the transport.
        let ours_stands = self.dialling.contains_key(&peer.node) && self.me > peer.node;
        if peer.node == self.me || ours_stands || self.banned(now, peer.node) {
            return LinkClass::Transient;
        }
        let (count, cap) = (self.count_sure(class), self.cap(class));
        let full = count.all >= cap || count.inbound + own >= cap;
        if count.all < ordinary && !full {
            self.evict_doubted(now, class, actions);
            return class;
        }
        let waiting = |t: &Tick| now.since(*t) < CONTEST_EVERY_MS;
        if self.reserved.get(&peer.node).is_some_and(waiting) {
            return LinkClass::Transient;
        }
        let room = starving && !full;
        if room {
            self.evict_doubted(now, class, actions);
        } else if !self.evict_inbound(now, class, peer.node, actions) {
            return LinkClass::Transient;
        }
        self.reserved.set(peer.node, now);
        class
    }

    /// Gives up the most distant inbound link of a class that is no anchor, if the newcomer is
    /// closer. So hosts that ask for links without end get their fair share of them (attack G2),
    /// and those that are surrounded find room elsewhere without having to know that they are.
    fn evict_inbound(
        &mut self,
        now: Tick,
        class: LinkClass,
        newcomer: NodeId,
        actions: &mut Vec<Action>,
    ) -> bool {
        let distance = |n: &NodeId| self.affinity.distance(n);
        let inbound = self.links.values().filter(|l| {
            let anchor = self.contacts.is_anchor(&l.peer.node);
            !anchor && l.class == class && l.dialled == Dialled::There
        });
        let inbound = inbound.map(|l| (distance(&l.peer.node), l.peer.node, l.since));
        let farthest = inbound.max().filter(|(far, _, since)| {
            now.since(*since) >= EVICT_AGE_MS && distance(&newcomer) < *far
        });
        let Some((_, node, _)) = farthest.filter(|_| self.is_close(now, class, &newcomer)) else {
            return false;
        };
        self.unlink(now, node, Why::Evicted, actions);
        true
    }

    /// Are few known hosts closer? Only then is a link worth the place of another: else each one
    /// that is given up would look for the next, while a fleet starts.
    fn is_close(&self, now: Tick, class: LinkClass, node: &NodeId) -> bool {
        let distance = self.affinity.distance(node);
        let filed = self.contacts.passive.keys();
        let near = class == LinkClass::Near;
        let listed = self.roster.not_lost(now).filter(|p| !near || p.site == self.site);
        let known = listed.map(|p| &p.node).chain(filed.filter(|_| !near));
        let closer = known.filter(|n| self.affinity.distance(n) < distance);
        closer.take(2 * self.cap(class)).count() < 2 * self.cap(class)
    }

    /// A dial was answered.
    pub(super) fn on_linked(
        &mut self,
        now: Tick,
        peer: Arc<Peer>,
        class: LinkClass,
        hints: &[Arc<Peer>],
        actions: &mut Vec<Action>,
    ) {
        let node = peer.node;
        let dial = self.dialling.remove(&node);
        let starving = dial.as_ref().is_some_and(|d| d.starving);
        let news = self.take_newcomer(now, &peer);
        for hint in hints {
            self.learn(now, hint, Some(node));
        }
        if self.links.contains_key(&node) || node == self.me {
            return;
        }
        if dial.as_ref().is_some_and(|d| d.class == LinkClass::Transient) {
            self.visited(now, peer, actions);
            return;
        }
        let site_fits = class != LinkClass::Near || peer.site == self.site;
        let wanted = site_fits && dial.as_ref().is_some_and(|d| d.class == class);
        if class == LinkClass::Transient || !wanted {
            if class != LinkClass::Transient {
                self.send(now, node, OverlayFrame::Unlink, Class::Control, actions);
            }
            self.refused_dial(now, &peer);
            return;
        }
        if self.count(class).all >= self.cap(class) && !self.make_room(now, class, actions) {
            self.send(now, node, OverlayFrame::Unlink, Class::Control, actions);
            self.learn(now, &peer, None);
            return;
        }
        self.begin_link(now, peer, class, Dialled::Here, actions);
        self.greet(now, node, starving && news, actions);
    }

    /// An own dial may displace any link of its class but an anchor: one that is doubted, the most
    /// distant inbound one, or else the oldest own one (protocol.md §3a rule 5: a merge probe
    /// replaces an old far link).
    fn make_room(&mut self, now: Tick, class: LinkClass, actions: &mut Vec<Action>) -> bool {
        let old = self
            .links
            .values()
            .filter(|l| l.class == class && !self.contacts.is_anchor(&l.peer.node))
            .min_by_key(|l| match l.dialled {
                _ if l.doubted => (0, 0),
                Dialled::There => (1, u64::MAX - self.affinity.distance(&l.peer.node)),
                Dialled::Here => (2, l.since.0),
            })
            .map(|l| l.peer.node);
        let Some(node) = old else { return false };
        self.unlink(now, node, Why::Evicted, actions);
        true
    }

    fn begin_link(
        &mut self,
        now: Tick,
        peer: Arc<Peer>,
        class: LinkClass,
        dialled: Dialled,
        actions: &mut Vec<Action>,
    ) {
        let node = peer.node;
        let used = self.links.values().fold(0u16, |m, l| m | l.bit());
        let slot = u8::try_from(used.trailing_ones()).unwrap_or(15);
        self.contacts.forget(&node);
        self.guests.remove(&node);
        let mut link = Link::new(peer, class, dialled, slot, now);
        self.recall_refused(&mut link);
        self.links.insert(node, link);
        self.trees_link_up(node);
        self.promotion_worked();
        self.touch_saved(now);
        actions.push(Action::Event(Event::LinkUp { node, class }));
    }

    /// Ends a link and everything that hangs on it. The host is filed by the caller's reason.
    pub(super) fn end_link(
        &mut self,
        now: Tick,
        node: NodeId,
        why: Why,
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.links.remove(&node) else { return };
        let orphans = self.trees.drop_slot(link.slot);
        self.graft_orphans(now, &link.peer.site, orphans, actions);
        self.missing.drop_peer(&node);
        self.fetch_drop_peer(node);
        self.sessions.remove(&node);
        if matches!(why, Why::Gone | Why::Silent) {
            self.note_loss(now);
        }
        self.file_former(now, &link.peer, why, link.heard);
        self.remember_refused(link);
        self.refill_soon(now);
        self.touch_saved(now);
        actions.push(Action::Event(Event::LinkDown { node, why }));
    }

    /// Gives a link up in peace: the other side is told, the connection stays.
    pub(super) fn unlink(&mut self, now: Tick, node: NodeId, why: Why, actions: &mut Vec<Action>) {
        self.send(now, node, OverlayFrame::Unlink, Class::Control, actions);
        self.end_link(now, node, why, actions);
    }

    /// Ends a link, or what there is without one, and its connections.
    pub(super) fn close(&mut self, now: Tick, node: NodeId, why: Why, actions: &mut Vec<Action>) {
        if self.end_guest(node) && why == Why::Misbehaved {
            self.ban(now, node);
        }
        self.end_link(now, node, why, actions);
        actions.push(Action::Close { node, why });
    }
}
