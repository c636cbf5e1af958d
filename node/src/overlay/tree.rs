//! One broadcast tree per log over the links (after Plumtree, Leitão et al., SRDS 2007).
//!
//! A tree is a mask of eager links and a parent, so that 32 768 of them are small. All other links
//! are lazy: they hear of an item's number only. A duplicate prunes a link, a graft restores one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::{ItemHash, LogId, NodeId};
use stork_wire::item::{Head, Item, ItemKind, is_moment};
use stork_wire::limits::{HOPS_MAX, LOGS_MAX};
use stork_wire::tick::Tick;

use super::flight::{Flight, Via};
use super::io::{Action, Class};
use super::{Key, Overlay};

/// Trees that are kept; the one that was used least recently goes first, and begins anew from the
/// default mask (protocol.md §3c: 32 k).
pub(super) const TREES_MAX: usize = LOGS_MAX;
/// Entries that are announced in one frame at the latest (protocol.md §3c: 64).
const IHAVE_BATCH: usize = 64;
/// Announcements and records wait at most this long for company (protocol.md §3c: 100 ms).
const FLUSH_MS: u64 = 100;
/// An item that was made here goes to at least so many links, whoever pruned them (attack G16).
const ORIGIN_EAGER_MIN: usize = 2;
/// One item is sent to one host at most so often (attack G9).
const SERVED_TIMES_MAX: u8 = 3;

/// The tree of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    eager: u16,
    parent: Option<u8>,
    lag_ms: u64,
    used: u64,
}

/// The trees, with the order of their last use.
#[derive(Debug, Default)]
pub(super) struct Trees {
    map: BTreeMap<LogId, Tree>,
    by_use: BTreeMap<u64, LogId>,
    stamp: u64,
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

    /// A slot is free: no tree may refer to it.
    pub(super) fn drop_slot(&mut self, slot: u8) {
        for tree in self.map.values_mut() {
            tree.eager &= !(1 << (slot & 15));
            tree.parent = tree.parent.filter(|p| *p != slot);
        }
    }

    /// How far the tree of this log lags behind its announcements; `None` without a parent.
    pub(super) fn parent_lag(&self, log: &LogId) -> Option<u64> {
        self.map.get(log).filter(|t| t.parent.is_some()).map(|t| t.lag_ms)
    }

    /// Notes that an item came so long after its announcement.
    pub(super) fn note_lag(&mut self, log: &LogId, lag_ms: u64) {
        if let Some(tree) = self.map.get_mut(log) {
            tree.lag_ms = (tree.lag_ms * 3).saturating_add(lag_ms) / 4;
        }
    }

    /// The tree, marked as used; made from the mask where there is none.
    fn touch(&mut self, log: LogId, mask: impl FnOnce() -> u16) -> &mut Tree {
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
        let new = || Tree { eager: mask(), parent: None, lag_ms: 0, used };
        let tree = self.map.entry(log).or_insert_with(new);
        tree.used = used;
        tree
    }
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

    /// Near links are eager; far links only where one end carries the log for its site.
    fn default_mask(&self, log: &LogId) -> u16 {
        let carries = self.is_relay(self.me, &self.site, log);
        let eager = |l: &&super::links::Link| {
            l.class == LinkClass::Near || carries || self.is_relay(l.peer.node, &l.peer.site, log)
        };
        self.links.values().filter(eager).fold(0, |mask, l| mask | l.bit())
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
        (hop, age_ms): (u8, u32),
        item: Item,
        actions: &mut Vec<Action>,
    ) {
        let key = (item.log, item.seq);
        self.counters.pushes_in += 1;
        if !self.links.contains_key(&from) || key.1 == 0 {
            return;
        }
        let in_flight = self.flights.get_mut(&key).map(|f| f.add(from, Via::Tree)).is_some();
        let known = self.heads.seq(&key.0) >= key.1 && !self.contradicts(&item);
        if in_flight || known {
            self.duplicate(now, from, key, actions);
        } else {
            self.deliver(now, from, item, (hop.min(HOPS_MAX), age_ms, Via::Tree), actions);
        }
    }

    /// Is this another item than our head, with the head's number? One of the two is forged, or the
    /// publisher signed both (attack A21): the rules must look at it.
    fn contradicts(&self, item: &Item) -> bool {
        let theirs = Head::of(item.log, item.seq, item.hash());
        self.heads.get(&item.log).is_some_and(|ours| ours.seq == theirs.seq && *ours != theirs)
    }

    /// The sender is pruned, once per item, unless it is the parent: then the tree is right and the
    /// item came faster by another way.
    fn duplicate(&mut self, now: Tick, from: NodeId, key: Key, actions: &mut Vec<Action>) {
        self.counters.duplicates += 1;
        let Some(link) = self.links.get_mut(&from) else { return };
        if let Some(tree) = self.trees.map.get_mut(&key.0) {
            if tree.parent == Some(link.slot) {
                return;
            }
            tree.eager &= !link.bit();
        }
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

    /// A neighbour misses an item and wants to be in the tree. What is unknown here is ignored.
    pub(super) fn on_graft(
        &mut self,
        now: Tick,
        from: NodeId,
        (log, seq): Key,
        actions: &mut Vec<Action>,
    ) {
        let have = self.heads.seq(&log);
        let Some(link) = self.links.get_mut(&from) else { return };
        if seq == 0 || seq > have || !link.read_rate.take(now, 1) {
            return;
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

    /// An item is durably here: heads advance, neighbours get it or hear of it.
    pub(super) fn on_committed(
        &mut self,
        now: Tick,
        item: (Key, ItemHash, &Arc<Item>),
        source: Option<NodeId>,
        actions: &mut Vec<Action>,
    ) {
        let (key, hash, item) = item;
        let flight = self.take_flight(&key);
        let missing = self.missing.remove(&key);
        if let Some(missing) = &missing {
            self.release_missing(missing);
        }
        if !self.heads.advance(key.0, key.1, hash) {
            return;
        }
        let mut have: BTreeSet<NodeId> = source.into_iter().collect();
        have.extend(missing.into_iter().flat_map(|m| m.senders));
        have.extend(flight.iter().flat_map(|f| f.others.iter().map(|(n, _)| *n)));
        if let Some(link) = source.and_then(|n| self.links.get_mut(&n)) {
            (link.sync_fails, link.sync_after) = (0, now);
        }
        let tree = source.is_none() || flight.as_ref().is_some_and(|f| f.via == Via::Tree);
        let done = self.fetch_progress(now, key.0, source);
        if tree {
            self.forward(now, key, item, (source, flight, &have), actions);
        } else if done {
            // What sync brought is announced, never pushed, and of a whole range only the last.
            let links: Vec<NodeId> = self.links.keys().copied().collect();
            for node in links.into_iter().filter(|n| !have.contains(n)) {
                self.announce(now, node, key, actions);
            }
        }
    }

    fn forward(
        &mut self,
        now: Tick,
        key: Key,
        item: &Arc<Item>,
        (source, flight, have): (Option<NodeId>, Option<Flight>, &BTreeSet<NodeId>),
        actions: &mut Vec<Action>,
    ) {
        let mask = if self.trees.get(&key.0).is_none() { self.default_mask(&key.0) } else { 0 };
        let mut eager = self.trees.touch(key.0, || mask).eager;
        let bit = |o: &Self, n: &NodeId| o.links.get(n).map_or(0, super::links::Link::bit);
        for (node, via) in flight.iter().flat_map(|f| &f.others) {
            if *via == Via::Tree {
                eager &= !bit(self, node);
            }
        }
        let parent = source.and_then(|n| self.links.get(&n)).map(|l| (l.slot, l.bit()));
        if let Some((_, bit)) = parent {
            eager |= bit;
        }
        let tree = self.trees.touch(key.0, || mask);
        (tree.eager, tree.parent) = (eager, parent.map(|(slot, _)| slot));

        let hop = flight.as_ref().map_or(0, |f| f.hop).saturating_add(1);
        let age = flight.as_ref().map_or(0, |f| u64::from(f.age_ms) + now.since(f.at));
        let age_ms = u32::try_from(age).unwrap_or(u32::MAX);
        let (mut push, mut lazy): (Vec<NodeId>, Vec<NodeId>) = self
            .links
            .keys()
            .copied()
            .filter(|n| !have.contains(n))
            .partition(|n| eager & bit(self, n) != 0 && hop <= HOPS_MAX);
        if source.is_none() && push.len() < ORIGIN_EAGER_MIN {
            let more = self.rng.sample(lazy.clone(), ORIGIN_EAGER_MIN - push.len());
            lazy.retain(|n| !more.contains(n));
            push.extend(more);
        }
        // A proof stops what must not be installed: nothing goes before it, and it is not shed.
        let proof = item.kind == ItemKind::Proof;
        let class = if proof { Class::Control } else { Class::News };
        for to in push {
            let frame = OverlayFrame::Push { hop, age_ms, item: Box::new(Item::clone(item)) };
            self.counters.pushes_out += 1;
            self.send(now, to, frame, class, actions);
        }
        for to in lazy {
            self.announce(now, to, key, actions);
        }
    }

    /// Queues an announcement; a full batch goes at once.
    fn announce(&mut self, now: Tick, to: NodeId, key: Key, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&to) else { return };
        link.ihave.push(key);
        if link.ihave.len() >= IHAVE_BATCH {
            let batch = core::mem::take(&mut link.ihave);
            self.send(now, to, OverlayFrame::IHave(List::truncated(batch)), Class::Lazy, actions);
        } else {
            self.flush_soon(now);
        }
    }

    pub(super) fn flush_soon(&mut self, now: Tick) {
        self.flush_at.get_or_insert_with(|| now.after_ms(FLUSH_MS));
    }

    /// Sends what has waited: announcements and records.
    pub(super) fn flush_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if self.flush_at.is_none_or(|at| at > now) {
            return;
        }
        self.flush_at = None;
        let queued = self.links.iter_mut().filter(|(_, l)| !l.ihave.is_empty());
        let batches: Vec<(NodeId, Vec<Key>)> =
            queued.map(|(n, l)| (*n, core::mem::take(&mut l.ihave))).collect();
        for (to, batch) in batches {
            self.send(now, to, OverlayFrame::IHave(List::truncated(batch)), Class::Lazy, actions);
        }
        if self.flush_records(now, actions) {
            self.flush_soon(now);
        }
    }
}
