//! Passing on: an accepted item goes to the eager links of its tree, and the others hear of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{Have, OverlayFrame};
use stork_wire::ids::{ItemHash, NodeId};
use stork_wire::item::Item;
use stork_wire::limits::{HOPS_MAX, ITEMS_PER_FRAME_MAX};
use stork_wire::tick::Tick;

use super::flight::{Flight, Via};
use super::io::{Action, Class};
use super::{Key, Overlay};

/// Entries that are announced in one frame at the latest (protocol.md §3c: 64).
pub(super) const IHAVE_BATCH: usize = 64;
/// Announcements and records wait at most this long for company (protocol.md §3c: 100 ms).
const FLUSH_MS: u64 = 100;
/// So many announcements of one log that wait for a link are a stream, of which a longer piece
/// costs no more. It may wait this long; who misses something waits longer than that (`missing`).
const STREAM_MIN: usize = 4;
const STREAM_MS: u64 = 300;
/// An item that was made here goes to at least so many links, whoever pruned them (attack G16).
const ORIGIN_EAGER_MIN: usize = 2;

/// Takes what waits to be announced, with how long it waited; of a burst a range each, which costs
/// as much as one of its items.
fn announcements(now: Tick, queued: &mut Vec<(Key, Tick)>) -> List<Have, ITEMS_PER_FRAME_MAX> {
    let mut queued = core::mem::take(queued);
    queued.sort_unstable();
    let mut out: Vec<Have> = Vec::new();
    for ((log, seq), since) in queued {
        let waited_ms = u16::try_from(now.since(since)).unwrap_or(u16::MAX);
        match out.last_mut() {
            Some(h) if h.log == log && h.seq.checked_add(1) == Some(seq) => {
                (h.seq, h.more, h.waited_ms) = (seq, h.more.saturating_add(1), waited_ms);
            }
            _ => out.push(Have { log, seq, more: 0, waited_ms }),
        }
    }
    List::truncated(out)
}

/// How long a queue of announcements waits on, if it is a stream.
fn stream_until(now: Tick, queued: &[(Key, Tick)]) -> Option<Tick> {
    let ((log, _), since) = queued.first()?;
    let stream = queued.len() >= STREAM_MIN && queued.iter().all(|(key, _)| key.0 == *log);
    Some(since.after_ms(STREAM_MS)).filter(|until| stream && *until > now)
}

/// The items of an announcement, and of the last one of each range for how long it waited; no more
/// than a frame may say one by one.
pub(super) fn announced(have: &[Have]) -> impl Iterator<Item = (Key, u16)> {
    let items = have.iter().flat_map(|h| {
        let first = h.seq.saturating_sub(u64::from(h.more)).max(1).min(h.seq);
        let waited = move |seq| if seq == h.seq { h.waited_ms } else { 0 };
        (first..=h.seq).map(move |seq| ((h.log, seq), waited(seq)))
    });
    items.take(ITEMS_PER_FRAME_MAX)
}

impl Overlay {
    /// An item is durably here: heads advance, neighbours get it or hear of it.
    pub(super) fn on_committed(
        &mut self,
        now: Tick,
        item: (Key, ItemHash, &Arc<Item>),
        source: Option<NodeId>,
        actions: &mut Vec<Action>,
    ) {
        let (key, hash, item) = item;
        let early = self.early.take(&key);
        let source = source.or_else(|| early.as_ref().map(|f| f.from));
        let flight = self.take_flight(&key).or(early);
        let missing = self.missing.remove(&key);
        if let Some(missing) = &missing {
            self.release_missing(missing);
        }
        if !self.heads.advance(key.0, key.1, hash) {
            return;
        }
        self.quiet.moved = now;
        let mut have: BTreeSet<NodeId> = source.into_iter().collect();
        have.extend(missing.into_iter().flat_map(|m| m.senders));
        have.extend(flight.iter().flat_map(|f| f.others.iter().map(|(n, _)| *n)));
        if let Some(link) = source.and_then(|n| self.links.get_mut(&n)) {
            (link.sync_fails, link.sync_after, link.broken) = (0, now, 0);
        }
        let tree = source.is_none() || flight.as_ref().is_some_and(|f| f.via == Via::Tree);
        let expected = flight.as_ref().is_some_and(|f| f.expected);
        let done = self.fetch_progress(now, key.0, source);
        if tree {
            let parent = flight.as_ref().map_or(source, |f| f.parent.or(source));
            self.forward(now, key, item, (parent, flight, &have), actions);
        } else if expected && done {
            // The tree is late or broken above: hosts below wait for it, and it stays as it is.
            let parent = self.parent_of(&key.0).or(source);
            self.forward(now, key, item, (parent, flight, &have), actions);
        } else if done {
            // What sync brought is announced, never pushed, and of a whole range only the last.
            self.trees.held.set(key.0, (key.1, now));
            let links: Vec<NodeId> = self.links.keys().copied().collect();
            for node in links.into_iter().filter(|n| !have.contains(n)) {
                self.announce(now, node, key, actions);
            }
        }
    }

    /// Passes an item on: `source` is the parent that its tree has now.
    pub(super) fn forward(
        &mut self,
        now: Tick,
        key: Key,
        item: &Arc<Item>,
        (source, flight, have): (Option<NodeId>, Option<Flight>, &BTreeSet<NodeId>),
        actions: &mut Vec<Action>,
    ) {
        let fresh = self.trees.get(&key.0).is_none();
        let mask = if fresh { self.default_mask(&key.0) } else { 0 };
        let mut eager = self.trees.touch(key.0, || mask).eager;
        let bit = |o: &Self, n: &NodeId| o.links.get(n).map_or(0, super::links::Link::bit);
        for (node, via) in flight.iter().flat_map(|f| &f.others) {
            if *via != Via::Sync {
                eager &= !bit(self, node);
            }
        }
        let parent = source.and_then(|n| self.links.get(&n)).map(|l| (l.slot, l.bit()));
        if let Some((_, bit)) = parent {
            eager |= bit;
        }
        let tree = self.trees.touch(key.0, || mask);
        (tree.eager, tree.parent) = (eager, parent.map(|(slot, _)| slot));
        let entry = flight.as_ref().map_or(0, |f| f.course.entry);
        tree.newest = (key.1, entry);
        let age_ms = flight.as_ref().map_or(0, |f| f.course.age_ms);
        tree.came = (flight.as_ref().map_or(now, |f| f.at), age_ms);
        if flight.as_ref().is_none_or(|f| !f.asked && f.via == Via::Tree) {
            tree.flowed = Some(now);
        }

        let hop = flight.as_ref().map_or(0, |f| f.course.hop).saturating_add(1);
        let age = flight.as_ref().map_or(0, |f| u64::from(f.course.age_ms) + now.since(f.at));
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
        // It stops what must not be installed: nothing goes before it, and it is not shed.
        let class = if item.kind.is_first() { Class::Control } else { Class::News };
        for to in push {
            let frame =
                OverlayFrame::Push { hop, age_ms, entry, item: Box::new(Item::clone(item)) };
            self.counters.pushes_out += 1;
            self.send(now, to, frame, class, actions);
        }
        for to in lazy {
            self.announce(now, to, key, actions);
        }
        if fresh {
            // Nobody knows yet whom a new tree misses: it is announced without company.
            self.flush_at = Some(now);
        }
    }

    /// Queues an announcement; a full batch goes at once.
    fn announce(&mut self, now: Tick, to: NodeId, key: Key, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&to) else { return };
        if key.0.is_first() {
            let have = announcements(now, &mut vec![(key, now)]);
            return self.send(now, to, OverlayFrame::IHave(have), Class::Control, actions);
        }
        link.ihave.push((key, now));
        if link.ihave.len() >= IHAVE_BATCH {
            let batch = announcements(now, &mut link.ihave);
            self.send(now, to, OverlayFrame::IHave(batch), Class::Lazy, actions);
        } else {
            self.flush_soon(now);
        }
    }

    pub(super) fn flush_soon(&mut self, now: Tick) {
        let at = now.after_ms(FLUSH_MS);
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
    }

    /// Sends what has waited: announcements and records.
    pub(super) fn flush_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if self.flush_at.is_none_or(|at| at > now) {
            return;
        }
        self.flush_at = None;
        let mut batches = Vec::new();
        for (node, link) in &mut self.links {
            if let Some(until) = stream_until(now, &link.ihave) {
                self.flush_at = Some(self.flush_at.map_or(until, |at| at.min(until)));
            } else if !link.ihave.is_empty() {
                batches.push((*node, announcements(now, &mut link.ihave)));
            }
        }
        for (to, batch) in batches {
            self.send(now, to, OverlayFrame::IHave(batch), Class::Lazy, actions);
        }
        if self.flush_records(now, actions) {
            self.flush_soon(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stork_wire::ids::LogId;

    /// Numbers that follow each other are announced together, others alone, and they say the same
    /// items; what a stranger makes of a range is bounded.
    #[test]
    fn bursts_are_announced_as_ranges() {
        let (a, b, now) = (LogId([1; 32]), LogId([2; 32]), Tick(1_000));
        let burst = [(a, 7), (b, 1), (a, 5), (a, 6), (a, 9)];
        let mut queued = burst.iter().map(|key| (*key, Tick(1_000 - key.1))).collect();
        let have = announcements(now, &mut queued);
        assert_eq!(have[0], Have { log: a, seq: 7, more: 2, waited_ms: 7 });
        assert_eq!((have.len(), queued.len()), (3, 0));
        let mut sorted = burst.to_vec();
        sorted.sort_unstable();
        assert_eq!(announced(&have).map(|(key, _)| key).collect::<Vec<_>>(), sorted);
        let endless = [Have { log: a, seq: u64::MAX, more: u16::MAX, waited_ms: 0 }];
        assert_eq!(announced(&endless).count(), ITEMS_PER_FRAME_MAX);
        let low = [Have { log: a, seq: 2, more: 9, waited_ms: 0 }];
        assert_eq!(announced(&low).map(|((_, seq), _)| seq).collect::<Vec<_>>(), [1, 2]);
    }
}
