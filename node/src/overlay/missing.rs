//! Missing items: announced by IHAVE, but not arrived along the tree.
//!
//! After a while the announcer is asked with a graft, which repairs the tree as well; after that
//! other announcers, then sync (protocol.md §3c).

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::frame::{Have, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::is_moment;
use stork_wire::tick::Tick;

use super::flight::Via;
use super::forward::announced;
use super::io::{Action, Class};
use super::lead::could_push;
use super::links::Link;
use super::{Key, Overlay};

/// Missing items in all (attack G8). What does not fit comes by sync.
pub(super) const MISSING_MAX: usize = 10_000;
/// Missing items that one host announced first (attack G8).
pub(super) const MISSING_PER_PEER_MAX: usize = 1_000;
/// Announcers that are remembered of one item, and so asked (protocol.md §3c).
const SENDERS_MAX: usize = 4;
/// A graft's wait on a log with a tree: bounds of the adaptive value (protocol.md §3c).
const GRAFT_WAIT_MS_MIN: u64 = 500;
const GRAFT_WAIT_MS_MAX: u64 = 3_000;
/// A graft's wait on a log without a parent (protocol.md §3c: 50 ms, at which one push in thirty of
/// a new tree among 10 000 hosts is asked for while it comes).
const ORPHAN_WAIT_MS: u64 = 80;
/// The same for what a host of another site announced to one that is no relay.
const FOREIGN_WAIT_MS: u64 = 200;
/// Items that were announced so long ago, of a burst that did not come, are asked for together.
const HURRY_MS: u64 = 100;
/// The least wait until the next announcer is asked; twice the round trip where that is more.
const NEXT_WAIT_MS_MIN: u64 = 100;
/// Items so far above the head are fetched as ranges at once (protocol.md §3c: 64).
const WINDOW: u64 = 64;
/// A host that broke so many promises one after the other is not listened to for a while, which
/// doubles with every so many more (attack G8). Sync brings what it has all the same.
const BROKEN_MAX: u32 = 64;
const DEAF_MS: u64 = 1_000;
const DEAF_MS_MAX: u64 = 600_000;
/// An item whose predecessor is on its way waits for it at most so often.
const WAITS_MAX: u8 = 10;

/// One missing item.
#[derive(Debug, Clone)]
pub(super) struct MissingItem {
    pub(super) senders: Vec<NodeId>,
    pub(super) asked: Vec<NodeId>,
    pub(super) first: Tick,
    /// When the first announcer's push would have come.
    pub(super) could: Tick,
    pub(super) owner: NodeId,
    next: Tick,
    waits: u8,
}

/// All missing items, with their timers in order.
#[derive(Debug, Default)]
pub(super) struct Missing {
    map: BTreeMap<Key, MissingItem>,
    timers: BTreeSet<(Tick, Key)>,
}

impl Missing {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&MissingItem> {
        self.map.get(key)
    }

    /// Was this host asked for the item? For one that is a time: for it, or for an earlier one.
    pub(super) fn asked(&self, key: &Key, from: NodeId) -> bool {
        let first = if is_moment(key.1) { (key.0, 0) } else { *key };
        self.map.range(first..=*key).any(|(_, m)| m.asked.contains(&from))
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<MissingItem> {
        let item = self.map.remove(key)?;
        self.timers.remove(&(item.next, *key));
        Some(item)
    }

    fn insert(&mut self, key: Key, item: MissingItem) {
        self.timers.insert((item.next, key));
        self.map.insert(key, item);
    }

    /// The one before it was asked for, since nothing comes along the tree: this one is not waited
    /// for either.
    fn hurry(&mut self, now: Tick, key: Key) {
        let late = |m: &MissingItem| m.asked.is_empty() && now.since(m.first) >= HURRY_MS;
        if self.map.get(&key).is_some_and(late)
            && let Some(mut item) = self.remove(&key)
        {
            item.next = now;
            self.insert(key, item);
        }
    }

    fn pop_due(&mut self, now: Tick) -> Option<(Key, MissingItem)> {
        let (_, key) = self.timers.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(&key).map(|item| (key, item))
    }

    /// A link ended: it is not asked any more.
    pub(super) fn drop_peer(&mut self, node: &NodeId) {
        let mut empty = Vec::new();
        for (key, item) in &mut self.map {
            item.senders.retain(|n| n != node);
            if item.senders.is_empty() {
                empty.push(*key);
            }
        }
        for key in empty {
            self.remove(&key);
        }
    }
}

impl Link {
    /// It was asked for an item that it said it has, and did not send it.
    fn broke_promise(&mut self, now: Tick) {
        self.broken = self.broken.saturating_add(1);
        if let Some(times) = (self.broken / BROKEN_MAX).checked_sub(1) {
            self.deaf_until = now.after_ms((DEAF_MS << times.min(10)).min(DEAF_MS_MAX));
        }
    }
}

impl Overlay {
    /// A neighbour says what it has.
    pub(super) fn on_ihave(
        &mut self,
        now: Tick,
        from: NodeId,
        entries: &[Have],
        actions: &mut Vec<Action>,
    ) {
        if self.links.get(&from).is_some_and(|l| l.deaf_until > now) {
            self.counters.dropped += entries.len() as u64;
            return;
        }
        for (key, waited_ms) in announced(entries) {
            if !is_moment(key.1) && key.1 > self.heads.seq(&key.0).saturating_add(WINDOW) {
                self.want(key.0, key.1, from);
                continue;
            }
            let could = could_push(now, waited_ms);
            self.announced_late(now, from, key, could, actions);
            self.note_missing(now, from, key);
            if let Some(item) = self.missing.map.get_mut(&key).filter(|m| m.owner == from) {
                item.could = item.could.min(could);
            }
        }
    }

    /// A neighbour has an item that is missing here.
    pub(super) fn note_missing(&mut self, now: Tick, from: NodeId, key: Key) {
        let patient = self.leaves_to_relays(&from, &key.0);
        let shuns = self.links.get(&from).is_none_or(|l| l.shuns(&key, now));
        if self.closed || self.heads.seq(&key.0) >= key.1 || shuns {
            return;
        }
        if let Some(flight) = self.coming_mut(&key) {
            flight.add(from, Via::Told);
            return;
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        if let Some(item) = self.missing.map.get_mut(&key) {
            if item.senders.len() < SENDERS_MAX && !item.senders.contains(&from) {
                item.senders.push(from);
            }
            return;
        }
        if self.missing.len() >= MISSING_MAX || link.missing >= MISSING_PER_PEER_MAX {
            self.counters.dropped += 1;
            return;
        }
        link.missing += 1;
        let orphan = if patient { FOREIGN_WAIT_MS } else { ORPHAN_WAIT_MS };
        let wait = self.trees.parent_lag(&key.0).map_or(orphan, |lag| {
            let wait = lag.saturating_mul(4).saturating_add(link.rtt_ms.saturating_mul(2));
            wait.clamp(GRAFT_WAIT_MS_MIN, GRAFT_WAIT_MS_MAX)
        });
        self.missing.insert(
            key,
            MissingItem {
                senders: vec![from],
                asked: Vec::new(),
                first: now,
                could: now,
                owner: from,
                next: now.after_ms(wait),
                waits: 0,
            },
        );
    }

    /// An item is not missing any more: the room of its announcer is free again.
    pub(super) fn release_missing(&mut self, item: &MissingItem) {
        if let Some(link) = self.links.get_mut(&item.owner) {
            link.missing = link.missing.saturating_sub(1);
        }
    }

    pub(super) fn missing_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        while let Some((key, item)) = self.missing.pop_due(now) {
            self.fire(now, key, item, actions);
        }
    }

    /// Whom to ask next: rather a host that was asked for another item of this log, and so sends
    /// the coming ones as well, than one that would send them too.
    fn next_sender(&self, log: &LogId, item: &MissingItem) -> Option<NodeId> {
        let (eager, parent) = self.trees.get(log).unwrap_or((0, None));
        let sends = |n: &&NodeId| {
            let link = self.links.get(*n);
            link.is_some_and(|l| l.bit() & eager != 0 && Some(l.slot) != parent)
        };
        let left = item.senders.iter().filter(|n| !item.asked.contains(n));
        left.clone().find(sends).or_else(|| left.clone().next()).copied()
    }

    /// Who was asked for the item before this one, is to have this one as well, and must be asked
    /// now, since nothing else brings it.
    fn asked_before(&self, now: Tick, before: &Key, item: &MissingItem) -> Option<NodeId> {
        let asked = self.missing.get(before)?.asked.last().copied()?;
        let late = item.asked.is_empty() && now.since(item.first) >= HURRY_MS;
        let silent = late && item.senders.contains(&asked) && !self.flows(now, &before.0);
        silent.then_some(asked)
    }

    /// The timer of a missing item: graft, wait for its predecessor, or leave it to sync.
    fn fire(&mut self, now: Tick, key: Key, mut item: MissingItem, actions: &mut Vec<Action>) {
        let (log, seq) = key;
        let head = self.heads.seq(&log);
        let before = (log, seq.saturating_sub(1));
        let here = self.flights.contains_key(&before) || self.early.contains(&before);
        let coming = here || self.missing.get(&before).is_some();
        let gaps = is_moment(seq);
        let together = self.asked_before(now, &before, &item).filter(|_| !gaps);
        let waits = together.is_none() && item.waits < WAITS_MAX;
        if !gaps && head < before.1 && coming && waits {
            item.waits += 1;
            item.next = now.after_ms(NEXT_WAIT_MS_MIN);
            self.missing.insert(key, item);
            return;
        }
        if let Some(asked) = item.asked.last().copied() {
            if let Some(link) = self.links.get_mut(&asked) {
                link.broke_promise(now);
            }
            self.doubt(now, asked, actions);
        }
        self.parent_failed(now, &log, actions);
        let next = self.next_sender(&log, &item);
        let next = next.filter(|_| head == before.1 || (gaps && head < seq));
        let ask = together.or(next);
        let Some((node, rtt)) = ask.and_then(|n| self.links.get(&n).map(|l| (n, l.rtt_ms))) else {
            self.release_missing(&item);
            if head < seq {
                for node in item.senders {
                    self.want(log, seq, node);
                }
            }
            return;
        };
        item.asked.push(node);
        item.next = now.after_ms(rtt.saturating_mul(2).max(NEXT_WAIT_MS_MIN));
        self.missing.insert(key, item);
        self.make_eager(&log, node);
        self.counters.grafts += 1;
        self.send(now, node, OverlayFrame::Graft { log, seq }, Class::Control, actions);
        if !gaps && !self.flows(now, &log) {
            self.missing.hurry(now, (log, seq.saturating_add(1)));
        }
    }
}
