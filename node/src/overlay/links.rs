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
/// A starving host gets at most one reserved slot in this time (attack G2: 10 min).
const RESERVED_EVERY_MS: u64 = 600_000;
/// Hosts remembered for that; the oldest are forgotten first.
const RESERVED_MAX: usize = 512;
/// A link younger than this is not given up for a starving host, or the two would alternate.
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
        let (count, cap) = (self.count(class), self.cap(class));
        let full = count.all >= cap || count.inbound + own >= cap;
        if count.all < ordinary && !full {
            return class;
        }
        let waiting = |t: &Tick| now.since(*t) < RESERVED_EVERY_MS;
        if !starving || self.reserved.get(&peer.node).is_some_and(waiting) {
            return LinkClass::Transient;
        }
        if full && !self.evict_inbound(now, class, actions) {
            return LinkClass::Transient;
        }
        self.reserved.set(peer.node, now);
        class
    }

    /// Gives up an inbound link of a class that is no anchor: one that was itself given to a
    /// starving host rather than another, then the oldest. So hosts that claim to starve take the
    /// place of one another, and not, one by one, of all others (attack G2).
    fn evict_inbound(&mut self, now: Tick, class: LinkClass, actions: &mut Vec<Action>) -> bool {
        let old = self
            .links
            .values()
            .filter(|l| l.class == class && l.dialled == Dialled::There)
            .filter(|l| now.since(l.since) >= EVICT_AGE_MS)
            .filter(|l| !self.contacts.is_anchor(&l.peer.node))
            .min_by_key(|l| (self.reserved.get(&l.peer.node) != Some(&l.since), l.since))
            .map(|l| l.peer.node);
        let Some(node) = old else { return false };
        self.unlink(now, node, Why::Evicted, actions);
        true
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

    /// An own dial may displace any link of its class but an anchor: inbound before own, then the
    /// oldest (protocol.md §3a rule 5: a merge probe replaces the oldest far link).
    fn make_room(&mut self, now: Tick, class: LinkClass, actions: &mut Vec<Action>) -> bool {
        let old = self
            .links
            .values()
            .filter(|l| l.class == class && !self.contacts.is_anchor(&l.peer.node))
            .min_by_key(|l| (l.dialled == Dialled::Here, l.since))
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
        self.trees.drop_slot(link.slot);
        self.missing.drop_peer(&node);
        self.fetch_drop_peer(node);
        self.sessions.remove(&node);
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
