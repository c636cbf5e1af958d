//! One broadcast tree per log over the links (after Plumtree, Leitão et al., SRDS 2007).
//!
//! A tree is a mask of eager links and a parent, so that 32 768 of them are small. All other links
//! are lazy: they hear of an item's number only. A duplicate prunes a link, a graft restores one.

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Head, Item, is_moment};
use stork_wire::limits::{HOPS_MAX, LOGS_MAX};
use stork_wire::text::Label;
use stork_wire::tick::Tick;

use super::bounded::Recent;
use super::flight::{Course, Flight, Via};
use super::io::{Action, Class};
use super::lag::Lag;
use super::lead::{Lead, Second};
use super::rng::{cut, mix};
use super::{Key, Overlay};

/// Trees that are kept; the one that was used least recently goes first, and begins anew from the
/// default mask (protocol.md §3c: 32 k).
pub(super) const TREES_MAX: usize = LOGS_MAX;
/// Items that sync brought before the tree did, and how long a copy of the tree may be late. The
/// oldest are forgotten first: those below then wait for their timers.
const HELD_MAX: usize = 256;
const HELD_MS: u64 = 2_000;
/// Trees for which another parent is looked for at once when a link ends. The others find one with
/// their next item, a quarter of a second later than it could be here.
const ORPHANS_MAX: usize = 64;
/// One item is sent to one host at most so often (attack G9).
const SERVED_TIMES_MAX: u8 = 3;

/// The tree of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    pub(super) eager: u16,
    pub(super) parent: Option<u8>,
    /// The newest item, and by which host it came into this site.
    pub(super) newest: (u64, u32),
    /// When it came, and its age in milliseconds as the parent said.
    pub(super) came: (Tick, u32),
    /// When an item last came that nobody had been asked for.
    pub(super) flowed: Option<Tick>,
    pub(super) lead: Lead,
    pub(super) second: Second,
    lag: Lag,
    used: u64,
}

/// The trees, with the order of their last use.
#[derive(Debug)]
pub(super) struct Trees {
    map: BTreeMap<LogId, Tree>,
    by_use: BTreeMap<u64, LogId>,
    stamp: u64,
    /// Newest items that sync brought before the tree, which did not go on along the tree.
    pub(super) held: Recent<LogId, (u64, Tick)>,
    /// Next items of trees that lost their parent, and who was asked for them, in case it has them.
    pub(super) hoped: Recent<LogId, (u64, NodeId)>,
}

impl Default for Trees {
    fn default() -> Self {
        let (map, by_use) = (BTreeMap::new(), BTreeMap::new());
        let hoped = Recent::new(2 * ORPHANS_MAX);
        Self { map, by_use, stamp: 0, held: Recent::new(HELD_MAX), hoped }
    }
}

impl Trees {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The eager mask and the parent's slot.
    pub(super) fn get(&self, log: &LogId) -> Option<(u16, Option<u8>)> {
        self.map.get(log).map(|t| (t.eager, t.parent))
    }

    #[cfg(test)]
    pub(super) fn masks(&self) -> impl Iterator<Item = (u16, Option<u8>)> {
        self.map.values().map(|t| (t.eager, t.parent))
    }

    /// A slot is free: no tree may refer to it. Answers those that have lost their parent, of the
    /// ones that were used last.
    pub(super) fn drop_slot(&mut self, slot: u8) -> Vec<LogId> {
        let lost = |log: &&LogId| self.map.get(log).is_some_and(|t| t.parent == Some(slot));
        let orphans = self.by_use.values().rev().filter(lost).take(ORPHANS_MAX).copied();
        let orphans = orphans.collect();
        for tree in self.map.values_mut() {
            tree.eager &= !(1 << (slot & 15));
            tree.parent = tree.parent.filter(|p| *p != slot);
            tree.lead.forget(slot);
            tree.second.forget(slot);
        }
        orphans
    }

    /// The tree, to change it; unlike [`Self::touch`] that is no use.
    pub(super) fn get_mut(&mut self, log: &LogId) -> Option<&mut Tree> {
        self.map.get_mut(log)
    }

    /// How far the tree of this log lags behind its announcements; `None` without a parent.
    pub(super) fn parent_lag(&self, log: &LogId) -> Option<u64> {
        self.map.get(log).filter(|t| t.parent.is_some()).map(|t| t.lag.ms())
    }

    /// When it last brought an item that nobody had been asked for.
    pub(super) fn flowed(&self, log: &LogId) -> Option<Tick> {
        self.map.get(log).and_then(|t| t.flowed)
    }

    /// Notes that an item came so long after its announcement.
    pub(super) fn note_lag(&mut self, log: &LogId, lag_ms: u64) {
        if let Some(tree) = self.map.get_mut(log) {
            tree.lag.note(lag_ms);
        }
    }

    /// The tree, marked as used; made from the mask where there is none.
    pub(super) fn touch(&mut self, log: LogId, mask: impl FnOnce() -> u16) -> &mut Tree {
        self.stamp += 1;
        let used = self.stamp;
        if let Some(tree) = self.map.get(&log) {
            self.by_use.remove(&tree.used);
        } else if self.map.len() >= TREES_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.map.remove(&oldest);
        }
        self.by_use.insert(used, log);
        let new = || Tree {
            eager: mask(),
            parent: None,
            newest: (0, 0),
            came: (Tick(0), 0),
            flowed: None,
            lead: Lead::default(),
            second: Second::default(),
            lag: Lag::default(),
            used,
        };
        let tree = self.map.entry(log).or_insert_with(new);
        tree.used = used;
        tree
    }
}

/// How a host is named as its site's way in: the origin of an item is 0.
pub(super) fn entry_of(node: NodeId) -> u32 {
    u32::try_from(mix(cut(node.as_bytes())) >> 32).unwrap_or(u32::MAX).max(1)
}

impl Overlay {
    /// A new link starts lazy in every tree that has a parent, so that it costs no duplicates
    /// (protocol.md §3c: redundancy 0.011 instead of 2.2 after 30 % deaths).
    pub(super) fn trees_link_up(&mut self, node: NodeId) {
        let Some(link) = self.links.get(&node) else { return };
        let bit = link.bit();
        let near = link.class == LinkClass::Near;
        for tree in self.trees.map.values_mut() {
            if near && tree.parent.is_none() {
                tree.eager |= bit;
            }
        }
    }

    /// Trees whose parent is gone ask a neighbour that is not below this host in the tree, as far
    /// as it is known, for the next item: the parent may have had it under way. If it is not there
    /// yet it is pushed; should that neighbour be below, the next item comes as ever. A parent in
    /// another site is replaced by one in another site: all of this one is below.
    pub(super) fn graft_orphans(
        &mut self,
        now: Tick,
        site: &Label,
        orphans: Vec<LogId>,
        actions: &mut Vec<Action>,
    ) {
        for log in orphans {
            let tree = self.trees.map.get(&log).filter(|t| t.parent.is_none());
            let Some((eager, second)) = tree.map(|t| (t.eager, t.second.slot(t.newest.0))) else {
                continue;
            };
            let away = *site != self.site;
            let like = self.links.iter().filter(|(_, l)| {
                l.bit() & eager == 0 && !l.doubted && (l.peer.site != self.site) == away
            });
            let best = like.min_by_key(|(_, l)| (Some(l.slot) != second, l.rtt_ms));
            let Some(node) = best.map(|(n, _)| *n) else { continue };
            self.make_eager(&log, node);
            let next = self.heads.seq(&log).saturating_add(1);
            let comes = is_moment(next) || self.flights.contains_key(&(log, next));
            let seq = if comes { 0 } else { next };
            self.trees.hoped.set(log, (seq, node));
            let graft = OverlayFrame::Graft { log, seq };
            self.send(now, node, graft, Class::Control, actions);
        }
    }

    /// Was this host asked for this item because the tree needs it?
    pub(super) fn was_grafted(&self, key: &Key, from: NodeId) -> bool {
        let hoped = self.trees.hoped.get(&key.0).is_some_and(|h| *h == (key.1, from));
        hoped || self.missing.asked(key, from)
    }

    /// Where the items of a log come from.
    pub(super) fn parent_of(&self, log: &LogId) -> Option<NodeId> {
        let (_, slot) = self.trees.get(log)?;
        self.links.values().find(|l| Some(l.slot) == slot).map(|l| l.peer.node)
    }

    pub(super) fn make_eager(&mut self, log: &LogId, node: NodeId) {
        if let (Some(tree), Some(link)) = (self.trees.map.get_mut(log), self.links.get(&node)) {
            tree.eager |= link.bit();
        }
    }

    /// An item came along a tree.
    pub(super) fn on_push(
        &mut self,
        now: Tick,
        from: NodeId,
        mut course: Course,
        item: Item,
        actions: &mut Vec<Action>,
    ) {
        let key = (item.log, item.seq);
        self.counters.pushes_in += 1;
        let Some(link) = self.links.get(&from).filter(|_| key.1 != 0) else { return };
        course.hop = course.hop.min(HOPS_MAX);
        if link.peer.site != self.site {
            course.entry = entry_of(self.me);
        }
        if let Some(flight) = self.coming_mut(&key) {
            if !flight.push(from, course, now) {
                self.duplicate(now, from, (key, course.entry), actions);
            }
        } else if self.heads.seq(&key.0) < key.1 || self.contradicts(&item) {
            self.deliver(now, from, item, (course, Via::Tree), actions);
        } else if self.was_held(now, &item) {
            // Sync was faster, and did not pass it on: the hosts below wait for it.
            let flight = Flight::new(from, course, now, Via::Tree);
            let have = [from].into();
            self.forward(now, key, &Arc::new(item), (Some(from), Some(flight), &have), actions);
        } else {
            self.duplicate(now, from, (key, course.entry), actions);
        }
    }

    /// Did sync bring this very item a moment ago?
    fn was_held(&mut self, now: Tick, item: &Item) -> bool {
        let held = self.trees.held.get(&item.log).copied();
        let fresh = held.is_some_and(|(n, at)| n == item.seq && now.since(at) < HELD_MS);
        let same = || Head::of(item.log, item.seq, item.envelope.hash());
        if !fresh || self.heads.get(&item.log) != Some(&same()) {
            return false;
        }
        self.trees.held.set(item.log, (0, now));
        true
    }

    /// Is this another item than our head, with the head's number? One of the two is forged, or the
    /// publisher signed both (attack A21): the rules must look at it.
    fn contradicts(&self, item: &Item) -> bool {
        let theirs = Head::of(item.log, item.seq, item.hash());
        self.heads.get(&item.log).is_some_and(|ours| ours.seq == theirs.seq && *ours != theirs)
    }

    /// The sender is pruned, once per item, unless it is the parent: then the tree is right and the
    /// item came faster by another way.
    fn duplicate(
        &mut self,
        now: Tick,
        from: NodeId,
        (key, entry): (Key, u32),
        actions: &mut Vec<Action>,
    ) {
        self.counters.duplicates += 1;
        let Some(link) = self.links.get(&from) else { return };
        let (slot, bit, inside) = (link.slot, link.bit(), link.peer.site == self.site);
        let Some(tree) = self.trees.map.get_mut(&key.0) else {
            return self.prune(now, from, key, actions);
        };
        if tree.parent == Some(slot) {
            return;
        }
        let (newest, ours) = tree.newest;
        if inside && newest == key.1 && entry < ours {
            // The site has two ways in, of which one is enough.
            return self.change_parent(now, from, (key, entry), actions);
        }
        if inside && newest == key.1 && entry > ours && tree.eager & bit != 0 {
            // The other end sees the same, and will not send it again.
            return;
        }
        tree.eager &= !bit;
        self.prune(now, from, key, actions);
    }

    /// The log comes from this link now. A former parent in the same site gets it from here next
    /// time, and does the same; one in another site is not needed.
    fn change_parent(
        &mut self,
        now: Tick,
        to: NodeId,
        (key, entry): (Key, u32),
        actions: &mut Vec<Action>,
    ) {
        let Some((slot, bit)) = self.links.get(&to).map(|l| (l.slot, l.bit())) else { return };
        let Some(tree) = self.trees.map.get_mut(&key.0) else { return };
        let old = tree.parent.replace(slot);
        tree.eager |= bit;
        tree.newest.1 = entry;
        let Some(old) = self.links.values().find(|l| Some(l.slot) == old) else { return };
        let (node, bit) = (old.peer.node, old.bit());
        if old.peer.site != self.site {
            tree.eager &= !bit;
        }
        self.prune(now, node, key, actions);
    }

    /// An item that several were asked for has come from one: the others stay out of the tree, or
    /// the next item would come from all of them.
    pub(super) fn ungraft(
        &mut self,
        now: Tick,
        asked: &[NodeId],
        (from, key): (NodeId, Key),
        actions: &mut Vec<Action>,
    ) {
        for node in asked.iter().filter(|n| **n != from) {
            // Also where it was the parent: the tree gets another with this very item.
            self.on_prune(*node, &key.0);
            self.prune(now, *node, key, actions);
        }
    }

    /// Asks to be left out of the tree, once per item.
    pub(super) fn prune(&mut self, now: Tick, from: NodeId, key: Key, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&from) else { return };
        if link.pruned.get(&key.0).is_none_or(|seq| *seq < key.1) {
            link.pruned.set(key.0, key.1);
            self.counters.prunes += 1;
            let frame = OverlayFrame::Prune { log: key.0 };
            self.send(now, from, frame, Class::Control, actions);
        }
    }

    pub(super) fn on_prune(&mut self, from: NodeId, log: &LogId) {
        if let (Some(tree), Some(link)) = (self.trees.map.get_mut(log), self.links.get(&from)) {
            tree.eager &= !link.bit();
            tree.parent = tree.parent.filter(|p| *p != link.slot);
        }
    }

    /// A neighbour wants to be in the tree, and most often misses an item. What is unknown here is
    /// ignored, but for the next item, which it gets when it comes.
    pub(super) fn on_graft(
        &mut self,
        now: Tick,
        from: NodeId,
        (log, seq): Key,
        actions: &mut Vec<Action>,
    ) {
        let have = self.heads.seq(&log);
        let Some(link) = self.links.get_mut(&from) else { return };
        if seq > have.saturating_add(1) || !link.read_rate.take(now, 1) {
            return;
        }
        if seq == 0 || seq > have {
            return self.make_eager(&log, from);
        }
        let times = link.served.get(&(log, seq)).copied().unwrap_or(0);
        if times >= SERVED_TIMES_MAX {
            self.counters.dropped += 1;
            return;
        }
        link.served.set((log, seq), times + 1);
        self.make_eager(&log, from);
        // Of a log with gaps only the newest item is there, which may be a later one.
        let to = if is_moment(seq) { u64::MAX } else { seq };
        let ranges = vec![stork_wire::frame::ItemRange { log, from: seq, to }];
        actions.push(Action::ReadItems { to: from, ranges });
    }
}
