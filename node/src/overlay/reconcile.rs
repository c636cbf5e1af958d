//! Finding the logs in which two hosts differ, with a sketch (`sketch`).
//!
//! Whoever begins asks for cells until they decode, a few more each time; the other side answers
//! from what it has and remembers nothing. Then the one that asked knows both sides of every
//! difference: it fetches what it lacks, and says where the other lacks something. What does not
//! decode within half of the bytes of all heads ends in an exchange of these.

use std::collections::BTreeMap;

use stork_wire::codec::List;
use stork_wire::frame::{OverlayFrame, ShortLog, SketchCell};
use stork_wire::ids::NodeId;
use stork_wire::item::Head;
use stork_wire::limits::{HEADS_PER_FRAME_MAX, LOGS_MAX, SKETCH_CELLS_MAX};
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Class};
use super::sketch::{CELLS_MAX, Cell, changed, differences, seq_of, value_of};

/// Cells that are asked for first: one difference always decodes from the first one.
const FIRST_CELLS: usize = 2;
/// Then so many in all; then half as many more each time; from the last bound on a quarter more.
const SECOND_CELLS: usize = 16;
const STEEP_CELLS: usize = 256;
/// The other side's heads may change so often during one comparison; each time it begins anew.
const RESTARTS_MAX: u8 = 2;

/// What was asked of the other side's sketch, and what came.
#[derive(Debug, Default)]
pub(super) struct Asked {
    cells: Vec<Cell>,
    fingerprint: Option<[u8; 8]>,
    count: usize,
    restarts: u8,
}

/// Cells beyond which full heads are cheaper in the end: half of their bytes, with 42 B a head and
/// 24 B a cell.
fn budget(ours: usize, theirs: u32) -> usize {
    let theirs = usize::try_from(theirs).unwrap_or(LOGS_MAX).min(LOGS_MAX);
    (ours.max(theirs) * 7 / 8).min(CELLS_MAX)
}

/// How many cells to have next.
fn next_count(have: usize) -> usize {
    match have {
        _ if have < SECOND_CELLS => SECOND_CELLS,
        _ if have < STEEP_CELLS => have + have / 2,
        _ => have + have / 4,
    }
}

impl Overlay {
    pub(super) fn begin_sketch(&mut self, now: Tick, node: NodeId, actions: &mut Vec<Action>) {
        self.ask_cells(now, node, Asked::default(), FIRST_CELLS, actions);
    }

    /// Asks for the cells up to `end`, as far as one frame holds them.
    fn ask_cells(
        &mut self,
        now: Tick,
        node: NodeId,
        mut asked: Asked,
        end: usize,
        actions: &mut Vec<Action>,
    ) {
        let have = asked.cells.len();
        asked.count = end.saturating_sub(have).min(SKETCH_CELLS_MAX);
        let [start, count] = [have, asked.count].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let Some(session) = self.sessions.get_mut(&node) else { return };
        session.sketch = Some(asked);
        self.send(now, node, OverlayFrame::SketchAsk { start, count }, Class::Control, actions);
    }

    /// Somebody asks for cells: they are those of this moment, and bounded by frame and rate. Of
    /// two that begin at once the smaller id goes on, and does not answer.
    pub(super) fn on_sketch_ask(
        &mut self,
        now: Tick,
        from: NodeId,
        (start, count): (u32, u32),
        actions: &mut Vec<Action>,
    ) {
        let [at, count] = [start, count].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let end = at.saturating_add(count);
        let Some(link) = self.link_mut(&from) else { return };
        let fits = count > 0 && count <= SKETCH_CELLS_MAX && end <= CELLS_MAX;
        if !fits || !link.sketch_rate.take(now, count as u64) {
            self.counters.dropped += 1;
            return;
        }
        let both = |a: &Asked| start == 0 && a.cells.is_empty();
        if self.sessions.get(&from).and_then(|s| s.sketch.as_ref()).is_some_and(both) {
            if self.me < from {
                return;
            }
            self.sessions.remove(&from);
        }
        if let Some(link) = self.link_mut(&from) {
            link.sketch_asked = Some(now);
        }
        let fingerprint = self.heads.cut();
        let logs = u32::try_from(self.heads.len()).unwrap_or(u32::MAX);
        let cells = self.heads.cells(end).iter().skip(at).map(|c| c.to_wire());
        let cells = List::truncated(cells);
        let frame = OverlayFrame::Sketch { fingerprint, logs, start, cells };
        self.send(now, from, frame, Class::Control, actions);
    }

    /// Cells came, which nobody else has asked for.
    pub(super) fn on_sketch(
        &mut self,
        now: Tick,
        from: NodeId,
        (fingerprint, logs, start): ([u8; 8], u32, u32),
        cells: &[SketchCell],
        actions: &mut Vec<Action>,
    ) {
        let session = self.sessions.get_mut(&from);
        let Some(asked) = session.and_then(|s| {
            let fits = |a: &mut Asked| a.cells.len() == start as usize && a.count == cells.len();
            s.sketch.take_if(fits)
        }) else {
            self.counters.unsolicited += 1;
            return;
        };
        let Some(cells) = cells.iter().map(Cell::from_wire).collect::<Option<Vec<_>>>() else {
            self.sessions.remove(&from);
            return self.sketch_failed(from);
        };
        let same = asked.fingerprint.is_none_or(|f| f == fingerprint);
        let Asked { cells: mut all, restarts, .. } = asked;
        if !same {
            if restarts >= RESTARTS_MAX {
                return self.heads_instead(now, from, actions);
            }
            let again = Asked { restarts: restarts + 1, ..Asked::default() };
            return self.ask_cells(now, from, again, all.len() + cells.len(), actions);
        }
        all.extend(cells);
        let apart = self.heads.len().abs_diff(usize::try_from(logs).unwrap_or(usize::MAX));
        let (have, most) = (all.len(), budget(self.heads.len(), logs));
        match differences(&all, self.heads.cells(have)) {
            Some(found) if found.is_empty() && fingerprint != self.heads.cut() => {
                self.heads_instead(now, from, actions);
            }
            Some(found) => {
                self.sessions.remove(&from);
                self.counters.sketches += 1;
                self.settle(now, from, found, actions);
            }
            // Every log that only one side has is a difference, and each takes more than a cell.
            None if have >= most || apart >= most => self.heads_instead(now, from, actions),
            None => {
                let asked =
                    Asked { cells: all, fingerprint: Some(fingerprint), count: 0, restarts };
                self.ask_cells(now, from, asked, next_count(have).min(most), actions);
            }
        }
    }

    /// The next comparison with this host is by full heads.
    pub(super) fn sketch_failed(&mut self, node: NodeId) {
        self.counters.sketches_failed += 1;
        if let Some(link) = self.link_mut(&node) {
            link.sketch_failed = true;
        }
    }

    /// This comparison goes on with full heads.
    fn heads_instead(&mut self, now: Tick, node: NodeId, actions: &mut Vec<Action>) {
        self.counters.sketches_failed += 1;
        self.send_heads(now, node, true, actions);
    }

    /// What differs is known: wants, and what the other side should know.
    fn settle(
        &mut self,
        now: Tick,
        from: NodeId,
        found: BTreeMap<ShortLog, u64>,
        actions: &mut Vec<Action>,
    ) {
        let (mut ask, mut ahead, mut heads) = (Vec::new(), Vec::new(), Vec::new());
        for (short, by) in found {
            let ours = self.heads.of_short(short);
            let [own] = ours.as_slice() else {
                // Unknown here, or several logs: full heads say which.
                ask.push(short);
                heads.extend(ours);
                continue;
            };
            let theirs = changed(value_of(own), by);
            let seq = seq_of(theirs);
            if seq == 0 {
                heads.push(*own);
            } else if seq > own.seq {
                self.want(own.log, seq, from);
            } else if seq < own.seq {
                ahead.push((short, own.seq));
            } else {
                // A fork: full heads prove to both sides that the hashes differ.
                ask.push(short);
                heads.push(*own);
            }
        }
        self.ask_heads(now, from, &ask, actions);
        for chunk in ahead.chunks(HEADS_PER_FRAME_MAX) {
            let frame = OverlayFrame::Ahead(List::truncated(chunk.iter().copied()));
            self.send(now, from, frame, Class::Control, actions);
        }
        self.send_some_heads(now, from, &heads, actions);
    }

    fn ask_heads(&mut self, now: Tick, to: NodeId, ask: &[ShortLog], actions: &mut Vec<Action>) {
        for chunk in ask.chunks(HEADS_PER_FRAME_MAX) {
            let frame = OverlayFrame::HeadsAsk(List::truncated(chunk.iter().copied()));
            self.send(now, to, frame, Class::Control, actions);
        }
    }

    /// Sends a few heads. What exceeds two frames is left to the next comparison.
    fn send_some_heads(
        &mut self,
        now: Tick,
        to: NodeId,
        heads: &[Head],
        actions: &mut Vec<Action>,
    ) {
        for chunk in heads.chunks(HEADS_PER_FRAME_MAX).take(2) {
            let heads = List::truncated(chunk.iter().copied());
            let frame = OverlayFrame::Heads { heads, last: true, answer: false };
            self.send(now, to, frame, Class::Control, actions);
        }
    }

    /// The other side wants the full heads of some logs.
    pub(super) fn on_heads_ask(
        &mut self,
        now: Tick,
        from: NodeId,
        logs: &[ShortLog],
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.link_mut(&from) else { return };
        if !link.short_rate.take(now, logs.len() as u64) {
            self.counters.dropped += 1;
            return;
        }
        let heads: Vec<Head> = logs.iter().flat_map(|short| self.heads.of_short(*short)).collect();
        self.send_some_heads(now, from, &heads, actions);
    }

    /// The other side has more of some logs than this one, as its sketch showed.
    pub(super) fn on_ahead(
        &mut self,
        now: Tick,
        from: NodeId,
        logs: &[(ShortLog, u64)],
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.link_mut(&from) else { return };
        if !link.short_rate.take(now, logs.len() as u64) {
            self.counters.dropped += 1;
            return;
        }
        let mut ask = Vec::new();
        for (short, seq) in logs {
            match self.heads.of_short(*short).as_slice() {
                [own] => self.want(own.log, *seq, from),
                _ => ask.push(*short),
            }
        }
        self.ask_heads(now, from, &ask, actions);
    }
}
