//! Fetching what heads showed to be missing, in bounded pieces, from several neighbours.
//!
//! Each neighbour has one piece out at a time, and the next one is asked for when the items of the
//! former are committed or refused: the receiver's disk sets the pace (protocol.md §3d).

use std::collections::BTreeMap;

use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Item;
use stork_wire::limits::{ITEMS_PER_FRAME_MAX, LOGS_MAX};
use stork_wire::tick::Tick;

use super::Overlay;
use super::flight::Via;
use super::io::{Action, Class, Refusal};
use super::links::Link;

/// Items of one piece, over all its logs (attack G17: ranges of at most 256 entries).
pub(super) const PIECE_ITEMS_MAX: u64 = 256;
/// Neighbours that are fetched from at once (protocol.md §3d).
pub(super) const PARALLEL_MAX: usize = 4;
/// A piece without progress is given up after this.
const PIECE_WAIT_MS: u64 = 5_000;
/// Logs that are wanted at once: every log that a node may keep.
pub(super) const WANTS_MAX: usize = LOGS_MAX;
/// Logs wanted because of one host alone. It loses them all when it does not keep its promise.
const WANTS_PER_PEER_MAX: usize = LOGS_MAX / 4;
/// Neighbours that are remembered as having a wanted item.
const SOURCES_MAX: usize = 4;

/// A log of which items are missing.
#[derive(Debug)]
struct Want {
    to: u64,
    owner: NodeId,
    sources: Vec<(NodeId, u64)>,
    busy: Option<NodeId>,
}

/// A piece that a neighbour was asked for.
#[derive(Debug)]
struct Piece {
    ranges: BTreeMap<LogId, (u64, u64)>,
    progress: Tick,
    fruitful: bool,
}

/// All that is wanted and asked for.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    wants: BTreeMap<LogId, Want>,
    running: BTreeMap<NodeId, Piece>,
    owned: BTreeMap<NodeId, usize>,
    dirty: bool,
}

impl Fetches {
    pub(super) fn is_running(&self, node: &NodeId) -> bool {
        self.running.contains_key(node)
    }

    /// Wanted logs, and pieces under way.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.wants.len(), self.running.len())
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.running.values().map(|p| p.progress.after_ms(PIECE_WAIT_MS)).min()
    }

    fn covers(&self, node: &NodeId, log: &LogId, seq: u64) -> bool {
        let range = self.running.get(node).and_then(|p| p.ranges.get(log));
        range.is_some_and(|(from, to)| (*from..=*to).contains(&seq))
    }

    fn remove_want(&mut self, log: &LogId) {
        let Some(want) = self.wants.remove(log) else { return };
        if let Some(n) = self.owned.get_mut(&want.owner) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.owned.remove(&want.owner);
            }
        }
    }

    /// A host is no source any more: of one log, or of all.
    fn drop_source(&mut self, node: NodeId, log: Option<LogId>) {
        let mut orphans = Vec::new();
        for (id, want) in &mut self.wants {
            if log.is_none_or(|l| l == *id) {
                want.sources.retain(|(n, _)| *n != node);
                want.busy = want.busy.filter(|n| *n != node);
                if want.sources.is_empty() {
                    orphans.push(*id);
                }
            }
        }
        for log in orphans {
            self.remove_want(&log);
        }
        self.dirty = true;
    }

    /// A range of a piece is over; the piece with its last range.
    fn end_range(&mut self, node: NodeId, log: &LogId) {
        if let Some(piece) = self.running.get_mut(&node) {
            piece.ranges.remove(log);
            if piece.ranges.is_empty() {
                self.running.remove(&node);
            }
        }
        if let Some(want) = self.wants.get_mut(log) {
            want.busy = None;
        }
        self.dirty = true;
    }
}

impl Overlay {
    /// A neighbour has items of a log up to `to`.
    pub(super) fn want(&mut self, log: LogId, to: u64, from: NodeId) {
        if !self.links.contains_key(&from) || self.heads.seq(&log) >= to {
            return;
        }
        let f = &mut self.fetches;
        if !f.wants.contains_key(&log) {
            let owned = f.owned.get(&from).copied().unwrap_or(0);
            if f.wants.len() >= WANTS_MAX || owned >= WANTS_PER_PEER_MAX {
                self.counters.dropped += 1;
                return;
            }
            f.owned.insert(from, owned + 1);
            let want = Want { to, owner: from, sources: Vec::new(), busy: None };
            f.wants.insert(log, want);
        }
        let Some(want) = f.wants.get_mut(&log) else { return };
        want.to = want.to.max(to);
        if let Some(known) = want.sources.iter_mut().find(|(n, _)| *n == from) {
            known.1 = known.1.max(to);
        } else if want.sources.len() < SOURCES_MAX {
            want.sources.push((from, to));
        }
        f.dirty = true;
    }

    /// Asks idle neighbours for pieces, if something changed.
    pub(super) fn plan_fetches(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if !core::mem::take(&mut self.fetches.dirty) || self.fetches.wants.is_empty() {
            return;
        }
        let idle = self.links.keys().filter(|n| !self.fetches.is_running(n)).copied();
        let count = self.links.len();
        for node in self.rng.sample(idle.collect(), count) {
            if self.fetches.running.len() >= PARALLEL_MAX {
                return;
            }
            let Some(link) = self.links.get(&node) else { continue };
            let ranges = self.piece(now, node, link);
            if ranges.is_empty() {
                continue;
            }
            for range in &ranges {
                if let Some(want) = self.fetches.wants.get_mut(&range.log) {
                    want.busy = Some(node);
                }
            }
            let map = ranges.iter().map(|r| (r.log, (r.from, r.to))).collect();
            let piece = Piece { ranges: map, progress: now, fruitful: false };
            self.fetches.running.insert(node, piece);
            let frame = OverlayFrame::Fetch(List::truncated(ranges));
            self.send(now, node, frame, Class::Control, actions);
        }
    }

    /// What to ask a neighbour for.
    fn piece(&self, now: Tick, node: NodeId, link: &Link) -> Vec<ItemRange> {
        let mut room = PIECE_ITEMS_MAX;
        let mut ranges = Vec::new();
        for (log, want) in &self.fetches.wants {
            if room == 0 || ranges.len() >= ITEMS_PER_FRAME_MAX {
                break;
            }
            let has = want.sources.iter().find(|(n, _)| *n == node).map(|(_, to)| *to);
            let from = self.heads.seq(log).saturating_add(1);
            let Some(to) = has.filter(|to| *to >= from && want.busy.is_none()) else { continue };
            if link.shuns(&(*log, from), now) {
                continue;
            }
            let to = to.min(from.saturating_add(room - 1));
            room = room.saturating_sub(to - from + 1);
            ranges.push(ItemRange { log: *log, from, to });
        }
        ranges
    }

    /// Items that were asked for, by a graft or by a piece. Others are not taken.
    pub(super) fn on_items(
        &mut self,
        now: Tick,
        from: NodeId,
        items: Vec<Item>,
        actions: &mut Vec<Action>,
    ) {
        for item in items {
            let key = (item.log, item.seq);
            let grafted = self.missing.get(&key).is_some_and(|m| m.asked.contains(&from));
            if !grafted && !self.fetches.covers(&from, &key.0, key.1) {
                self.counters.unsolicited += 1;
                continue;
            }
            if let Some(piece) = self.fetches.running.get_mut(&from) {
                piece.progress = now;
            }
            let via = if grafted { Via::Tree } else { Via::Sync };
            if let Some(flight) = self.flights.get_mut(&key) {
                flight.add(from, Via::Sync);
            } else if self.heads.seq(&key.0) < key.1 {
                let course = self.course_asked(&from);
                self.deliver(now, from, item, (course, via), actions);
            }
        }
    }

    /// A head advanced. True where nothing of this log is wanted any more.
    pub(super) fn fetch_progress(&mut self, now: Tick, log: LogId, source: Option<NodeId>) -> bool {
        let head = self.heads.seq(&log);
        let Some(want) = self.fetches.wants.get(&log) else { return true };
        let (busy, done) = (want.busy, head >= want.to);
        if let Some(node) = busy
            && let Some(piece) = self.fetches.running.get_mut(&node)
        {
            if source == Some(node) {
                (piece.progress, piece.fruitful) = (now, true);
            }
            if piece.ranges.get(&log).is_none_or(|(_, to)| *to <= head) {
                self.fetches.end_range(node, &log);
            }
        }
        if done {
            self.fetches.remove_want(&log);
        }
        done
    }

    /// An item of this log was refused. Whoever sent an invalid one is no source of the log any
    /// more; one that cannot be judged yet is asked for again after its wait.
    pub(super) fn fetch_refused(&mut self, from: NodeId, log: LogId, why: Refusal) {
        if self.fetches.running.get(&from).is_some_and(|p| p.ranges.contains_key(&log)) {
            self.fetches.end_range(from, &log);
        }
        if why == Refusal::Invalid {
            self.fetches.drop_source(from, Some(log));
        }
    }

    /// A link ended: what it was asked for is asked elsewhere.
    pub(super) fn fetch_drop_peer(&mut self, node: NodeId) {
        self.fetches.running.remove(&node);
        self.fetches.drop_source(node, None);
    }

    /// Gives up pieces without progress. A neighbour that brought nothing at all is no source.
    pub(super) fn fetch_due(&mut self, now: Tick) {
        let late = |p: &Piece| p.progress.after_ms(PIECE_WAIT_MS) <= now;
        let running = self.fetches.running.iter();
        let nodes: Vec<NodeId> = running.filter(|(_, p)| late(p)).map(|(n, _)| *n).collect();
        for node in nodes {
            let Some(piece) = self.fetches.running.remove(&node) else { continue };
            if piece.fruitful {
                for log in piece.ranges.keys() {
                    if let Some(want) = self.fetches.wants.get_mut(log) {
                        want.busy = None;
                    }
                }
                self.fetches.dirty = true;
            } else {
                self.fetches.drop_source(node, None);
            }
        }
    }

    /// Waits of refused items run out without an event: look again now and then.
    pub(super) const fn fetch_again(&mut self) {
        self.fetches.dirty = true;
    }

    /// A neighbour wants items: as many as it may have read now, of what is committed here.
    pub(super) fn on_fetch(
        &mut self,
        now: Tick,
        to: NodeId,
        wanted: &[ItemRange],
        actions: &mut Vec<Action>,
    ) {
        let mut room = PIECE_ITEMS_MAX;
        let mut ranges = Vec::new();
        for range in wanted.iter().take(ITEMS_PER_FRAME_MAX) {
            let from = range.from.max(1);
            let last = range.to.min(self.heads.seq(&range.log));
            if last < from || room == 0 {
                continue;
            }
            let last = last.min(from.saturating_add(room - 1));
            let count = last - from + 1;
            let Some(link) = self.links.get_mut(&to) else { return };
            if !link.read_rate.take(now, count) {
                self.counters.dropped += 1;
                break;
            }
            room -= count;
            ranges.push(ItemRange { log: range.log, from, to: last });
        }
        if !ranges.is_empty() {
            actions.push(Action::ReadItems { to, ranges });
        }
    }
}
