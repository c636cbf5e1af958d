//! Active links: who is admitted, how a link begins and ends, and the slots that trees refer to.
//!
//! An inbound host never displaces a link that this node dialled or an anchor (attack G2); part of
//! the room for links is kept for own dials, so that inbound hosts alone can never surround a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::bounded::{Rate, Recent};
use super::io::{Action, Class, Event, Peer, Why};
use super::sketch::CELLS_MAX;
use super::sync::HeadsOut;
use super::{Key, Overlay};

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
/// Logs per link for which the last prune is remembered; forgetting costs one prune too many.
pub(super) const PRUNED_MAX: usize = 1_024;
/// Items per link whose sends are counted (attack G9).
pub(super) const SERVED_MAX: usize = 1_024;
/// Items per link that were refused and are not asked for again for a while.
pub(super) const REFUSED_MAX: usize = 1_024;
/// Items per second that one host may have read from this node's disk, and at once.
const READ_BURST: u64 = 8_192;

/// Replies to shuffles that were not asked for: those of an honest host come late at times, one for
/// each shuffle at the most; more of them end the link (attack G3).
const STRANGE_EVERY_MS: u64 = 30_000;
const STRANGE_BURST: u64 = 8;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialled {
    Here,
    There,
}

/// A refused item is left alone until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shunned {
    pub(super) until: Tick,
    pub(super) times: u32,
}

/// Two fingerprints that were compared: ours and theirs.
pub(super) type Pair = ([u8; 8], [u8; 8]);

/// Everything that is known of one active link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Arc<Peer>,
    pub(super) class: LinkClass,
    pub(super) dialled: Dialled,
    pub(super) slot: u8,
    pub(super) since: Tick,
    // Liveness.
    pub(super) heard: Tick,
    pub(super) sent: Tick,
    pub(super) pinged: Tick,
    pub(super) ping: Option<(u32, Tick)>,
    pub(super) rtt_ms: u64,
    pub(super) disagreed: u8,
    // Sync.
    pub(super) compared: bool,
    pub(super) differs: Option<(Tick, [u8; 8])>,
    /// The fingerprints that differ now, and since when.
    pub(super) still: Option<(Tick, Pair)>,
    pub(super) sync_after: Tick,
    pub(super) synced: Option<(Tick, Pair)>,
    pub(super) sync_fails: u32,
    pub(super) heads_sent: Option<Tick>,
    pub(super) heads_out: Option<HeadsOut>,
    pub(super) heads_rate: Rate,
    pub(super) sketch_rate: Rate,
    pub(super) short_rate: Rate,
    pub(super) sketch_failed: bool,
    pub(super) read_rate: Rate,
    pub(super) barren: u32,
    pub(super) fetch_after: Tick,
    pub(super) refused: Recent<Key, Shunned>,
    pub(super) invalid: u32,
    // Tree.
    pub(super) carries: u64,
    pub(super) ihave: Vec<Key>,
    pub(super) records: BTreeSet<NodeId>,
    pub(super) pruned: Recent<LogId, u64>,
    pub(super) served: Recent<Key, u8>,
    pub(super) missing: usize,
    pub(super) broken: u32,
    pub(super) deaf_until: Tick,
    pub(super) flights: usize,
    pub(super) shuffle_rate: Rate,
    pub(super) strange_rate: Rate,
}

impl Link {
    pub(super) fn new(
        peer: Arc<Peer>,
        class: LinkClass,
        dialled: Dialled,
        slot: u8,
        now: Tick,
    ) -> Self {
        Self {
            peer,
            class,
            dialled,
            slot,
            since: now,
            heard: now,
            sent: now,
            pinged: now,
            ping: None,
            rtt_ms: 50,
            disagreed: 0,
            compared: false,
            differs: None,
            still: None,
            sync_after: now,
            synced: None,
            sync_fails: 0,
            heads_sent: None,
            heads_out: None,
            // A whole set of heads is 33 frames: two sets at once, one every two seconds.
            heads_rate: Rate::new(60, 66),
            // Two whole sketches at once, then 12 kB a second; and as many short ids.
            sketch_rate: Rate::new(2, 2 * CELLS_MAX as u64),
            short_rate: Rate::new(2, 2 * CELLS_MAX as u64),
            sketch_failed: false,
            read_rate: Rate::new(1, READ_BURST),
            barren: 0,
            fetch_after: now,
            refused: Recent::new(REFUSED_MAX),
            invalid: 0,
            carries: 0,
            ihave: Vec::new(),
            records: BTreeSet::new(),
            pruned: Recent::new(PRUNED_MAX),
            served: Recent::new(SERVED_MAX),
            missing: 0,
            broken: 0,
            deaf_until: now,
            flights: 0,
            shuffle_rate: Rate::new(10_000, 3),
            strange_rate: Rate::new(STRANGE_EVERY_MS, STRANGE_BURST),
        }
    }

    /// The bit of this link in a tree's mask.
    pub(super) const fn bit(&self) -> u16 {
        1 << (self.slot & 15)
    }

    /// Is this item left alone because it was refused before?
    pub(super) fn shuns(&self, key: &Key, now: Tick) -> bool {
        self.refused.get(key).is_some_and(|s| s.until > now)
    }
}

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

    /// Gives up the oldest inbound link of a class that is no anchor.
    fn evict_inbound(&mut self, now: Tick, class: LinkClass, actions: &mut Vec<Action>) -> bool {
        let old = self
            .links
            .values()
            .filter(|l| l.class == class && l.dialled == Dialled::There)
            .filter(|l| now.since(l.since) >= EVICT_AGE_MS)
            .filter(|l| !self.contacts.is_anchor(&l.peer.node))
            .min_by_key(|l| l.since)
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
