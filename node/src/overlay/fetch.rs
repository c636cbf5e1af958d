//! Fetching what heads showed to be missing, in bounded pieces, from several neighbours.
//!
//! Each neighbour has one piece out at a time, and the next one is asked for when the items of the
//! former are committed or refused: the receiver's disk sets the pace (protocol.md §3d).

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Item, is_moment};
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
/// Bytes that a piece is expected to have: one frame, so that an outbox of 256 KiB never sheds it.
const PIECE_BYTES: u64 = 64 * 1024;
/// Bytes of one item, until some have come: a piece of the largest entries (4 KiB) still fits.
const ITEM_BYTES: u64 = 1_024;
/// Bytes of an item beside its body: ids, number, and one signature with its key.
const ITEM_BYTES_MORE: u64 = 150;
/// A host of whose pieces nothing could be used is left alone so long, doubled each time; after so
/// many pieces in a row, since what thousands of others wait for may come late.
const BARREN_PIECES: u32 = 64;
const BARREN_MS: u64 = 1_000;
const BARREN_MS_MAX: u64 = 600_000;
/// A piece without progress is given up after this.
const PIECE_WAIT_MS: u64 = 5_000;
/// Logs that are wanted at once: every log that a node may keep.
pub(super) const WANTS_MAX: usize = LOGS_MAX;
/// Logs wanted because of one host alone: a newcomer may have but one neighbour that has them. It
/// loses them all when it does not keep its promise.
pub(super) const WANTS_PER_PEER_MAX: usize = LOGS_MAX / 4 * 3;
/// Neighbours that are remembered as having a wanted item.
const SOURCES_MAX: usize = 4;

/// A log of which items are missing.
#[derive(Debug)]
pub(super) struct Want {
    to: u64,
    owner: NodeId,
    pub(super) sources: Vec<(NodeId, u64)>,
    pub(super) busy: Option<NodeId>,
}

/// A piece that a neighbour was asked for.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) ranges: BTreeMap<LogId, (u64, u64)>,
    pub(super) progress: Tick,
    pub(super) fruitful: bool,
    pub(super) refused: bool,
}

/// All that is wanted and asked for.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    pub(super) wants: BTreeMap<LogId, Want>,
    /// Those of them whose items narrow.
    pub(super) first: BTreeSet<LogId>,
    pub(super) running: BTreeMap<NodeId, Piece>,
    pub(super) owned: BTreeMap<NodeId, usize>,
    /// Bytes of one item, smoothed; 0: none has come yet.
    item_bytes: u64,
    /// Where the next piece begins: what cannot be judged yet must not keep out what it waits for.
    last: Option<LogId>,
    /// Who was asked last for what the rules want.
    pub(super) asked_back: Option<NodeId>,
    /// Something changed, so that an idle neighbour may find something to ask for.
    dirty: bool,
}

impl Fetches {
    pub(super) fn is_running(&self, node: &NodeId) -> bool {
        self.running.contains_key(node)
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.running.values().map(|p| p.progress.after_ms(PIECE_WAIT_MS)).min()
    }

    fn covers(&self, node: &NodeId, log: &LogId, seq: u64) -> bool {
        let range = self.running.get(node).and_then(|p| p.ranges.get(log));
        // Of what has gaps, the newest comes, which may be a later one than was asked for.
        range.is_some_and(|(from, to)| *from <= seq && (seq <= *to || is_moment(*to)))
    }

    fn remove_want(&mut self, log: &LogId) {
        let Some(want) = self.wants.remove(log) else { return };
        self.first.remove(log);
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

    /// A range of a piece is over; with its last range the piece, which is returned. Only then
    /// is it worth to look for more: a look goes over all wanted logs.
    fn end_range(&mut self, node: NodeId, log: &LogId) -> Option<Piece> {
        if let Some(want) = self.wants.get_mut(log) {
            want.busy = None;
        }
        let piece = self.running.get_mut(&node)?;
        piece.ranges.remove(log);
        if !piece.ranges.is_empty() {
            return None;
        }
        self.dirty = true;
        self.running.remove(&node)
    }

    /// Items that a piece may have now.
    fn piece_items(&self) -> u64 {
        let each = if self.item_bytes == 0 { ITEM_BYTES } else { self.item_bytes };
        (PIECE_BYTES / each.max(1)).clamp(1, PIECE_ITEMS_MAX)
    }

    fn note_bytes(&mut self, bytes: u64) {
        let old = if self.item_bytes == 0 { bytes } else { self.item_bytes };
        self.item_bytes = (old * 7 + bytes) / 8;
    }
}

impl Overlay {
    /// A neighbour has items of a log up to `to`.
    pub(super) fn want(&mut self, log: LogId, to: u64, from: NodeId) {
        if self.link(&from).is_none() || self.heads.seq(&log) >= to {
            return;
        }
        let f = &mut self.fetches;
        if !f.wants.contains_key(&log) {
            if !f.admits(log, from) {
                self.counters.dropped += 1;
                return;
            }
            let want = Want { to, owner: from, sources: Vec::new(), busy: None };
            f.wants.insert(log, want);
        }
        let Some(want) = f.wants.get_mut(&log) else { return };
        want.to = want.to.max(to);
        if let Some(known) = want.sources.iter_mut().find(|(n, _)| *n == from) {
            known.1 = known.1.max(to);
        } else {
            // Neighbours that promise and do not deliver must not keep the visited host out.
            if want.sources.len() >= SOURCES_MAX && self.visit.is_some_and(|(n, _)| n == from) {
                want.sources.pop();
            }
            if want.sources.len() < SOURCES_MAX {
                want.sources.push((from, to));
            }
        }
        f.dirty = true;
    }

    /// A signed item of this neighbour says that a log goes up to here. It has all of it, or it
    /// would not have passed the item on.
    pub(super) fn on_behind(&mut self, from: NodeId, log: LogId, to: u64) {
        self.want(log, to, from);
    }

    /// Asks idle neighbours for pieces, if something changed.
    pub(super) fn plan_fetches(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if !core::mem::take(&mut self.fetches.dirty) || self.fetches.wants.is_empty() {
            return;
        }
        self.plan_first(now, actions);
        let all = self.links.iter().chain(&self.guests);
        let idle = all.filter(|(n, l)| l.fetch_after <= now && !self.fetches.is_running(n));
        let idle: Vec<NodeId> = idle.map(|(n, _)| *n).collect();
        let count = idle.len();
        let mut order = self.rng.sample(idle, count);
        order.sort_by_key(|n| self.visit.is_none_or(|(visit, _)| visit != *n));
        for node in order {
            if self.fetches.running.len() >= PARALLEL_MAX {
                return;
            }
            let Some(link) = self.link(&node) else { continue };
            let ranges = self.piece(now, node, link);
            if ranges.is_empty() {
                continue;
            }
            for range in &ranges {
                if let Some(want) = self.fetches.wants.get_mut(&range.log) {
                    want.busy = Some(node);
                }
            }
            self.fetches.last = ranges.last().map(|r| r.log);
            let map = ranges.iter().map(|r| (r.log, (r.from, r.to))).collect();
            let piece = Piece { ranges: map, progress: now, fruitful: false, refused: false };
            self.fetches.running.insert(node, piece);
            let frame = OverlayFrame::Fetch(List::truncated(ranges));
            self.send(now, node, frame, Class::Control, actions);
        }
    }

    /// What to ask a neighbour for.
    fn piece(&self, now: Tick, node: NodeId, link: &Link) -> Vec<ItemRange> {
        let mut room = self.fetches.piece_items();
        let mut ranges = Vec::new();
        let after = self.fetches.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.fetches.wants.range((after, Bound::Unbounded));
        let again = self.fetches.last.into_iter().flat_map(|l| self.fetches.wants.range(..=l));
        for (log, want) in rest.chain(again) {
            if room == 0 || ranges.len() >= ITEMS_PER_FRAME_MAX {
                break;
            }
            let has = want.sources.iter().find(|(n, _)| *n == node).map(|(_, to)| *to);
            let from = self.heads.seq(log).saturating_add(1);
            let Some(to) = has.filter(|to| *to >= from && want.busy.is_none()) else { continue };
            let from = if is_moment(to) { to } else { from };
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
            let grafted = self.was_grafted(&key, from);
            let rival = self.take_rival(key, from);
            if !grafted && !rival && !self.fetches.covers(&from, &key.0, key.1) {
                self.counters.unsolicited += 1;
                continue;
            }
            if let Some(piece) = self.fetches.running.get_mut(&from) {
                piece.progress = now;
            }
            self.fetches.note_bytes(item.envelope.body.len() as u64 + ITEM_BYTES_MORE);
            let via = if grafted { Via::Tree } else { Via::Sync };
            if let Some(flight) = self.coming_mut(&key) {
                flight.add(from, Via::Sync);
            } else if rival || self.heads.seq(&key.0) < key.1 {
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
            let over = piece.ranges.get(&log).is_none_or(|(_, to)| *to <= head);
            let ended = over.then(|| self.fetches.end_range(node, &log)).flatten();
            self.piece_ended(now, node, ended);
        }
        if done {
            self.fetches.remove_want(&log);
        }
        done
    }

    /// An item of this log was refused. Whoever sent an invalid one is no source of the log any
    /// more; one that cannot be judged yet is asked for again after its wait.
    pub(super) fn fetch_refused(&mut self, now: Tick, from: NodeId, log: LogId, why: Refusal) {
        let piece = self.fetches.running.get_mut(&from);
        if let Some(piece) = piece.filter(|p| p.ranges.contains_key(&log)) {
            // Of a host with a later version what is known here must come all the same.
            piece.refused |= why != Refusal::Later;
            let ended = self.fetches.end_range(from, &log);
            self.piece_ended(now, from, ended);
        }
        if matches!(why, Refusal::Invalid | Refusal::Duplicate) {
            self.fetches.drop_source(from, Some(log));
        }
    }

    /// A piece came to its end. Where nothing of it could be used, the host waits longer each time:
    /// what is refused of it may be more than is remembered item by item.
    fn piece_ended(&mut self, now: Tick, node: NodeId, piece: Option<Piece>) {
        let (Some(piece), Some(link)) = (piece, self.link_mut(&node)) else { return };
        if piece.fruitful || !piece.refused {
            link.barren = 0;
            return;
        }
        link.barren = link.barren.saturating_add(1);
        let Some(times) = link.barren.checked_sub(BARREN_PIECES) else { return };
        link.fetch_after = now.after_ms((BARREN_MS << times.min(10)).min(BARREN_MS_MAX));
        let again = link.fetch_after;
        self.house_at = self.house_at.min(again);
    }

    /// Nothing of this log is wanted any more.
    pub(super) fn forget_want(&mut self, log: &LogId) {
        self.fetches.remove_want(log);
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
            let (from, head) = (range.from.max(1), self.heads.seq(&range.log));
            let newest_only = is_moment(head);
            let last = if newest_only { head } else { range.to.min(head) };
            if last < from || room == 0 {
                continue;
            }
            let last = last.min(from.saturating_add(room - 1));
            let count = if newest_only { 1 } else { last - from + 1 };
            let Some(link) = self.link_mut(&to) else { return };
            if !link.read_rate.take(now, count) {
                self.counters.dropped += 1;
                break;
            }
            room -= count;
            let to = if newest_only { u64::MAX } else { last };
            ranges.push(ItemRange { log: range.log, from, to });
        }
        if !ranges.is_empty() {
            actions.push(Action::ReadItems { to, ranges });
        }
    }
}
