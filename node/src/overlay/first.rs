//! What narrows is asked for before anything else: it does not wait for the piece that a neighbour
//! was asked for, nor for a place among thousands of wanted logs.

use std::collections::BTreeMap;

use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::is_moment;
use stork_wire::limits::ITEMS_PER_FRAME_MAX;
use stork_wire::tick::Tick;

use super::Overlay;
use super::fetch::{Fetches, Piece, WANTS_MAX, WANTS_PER_PEER_MAX};
use super::io::{Action, Class};

/// Wanted logs of items that narrow, beside the room for all others.
pub(super) const FIRST_MAX: usize = 4_096;

impl Fetches {
    /// Wanted logs, pieces under way, and hosts because of which something is wanted.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.wants.len(), self.running.len(), self.owned.len())
    }

    /// Is there room to want one more log, because of this neighbour? Then it is counted.
    pub(super) fn admits(&mut self, log: LogId, from: NodeId) -> bool {
        let owned = self.owned.get(&from).copied().unwrap_or(0);
        if log.is_first() {
            if self.first.len() >= FIRST_MAX {
                return false;
            }
            self.first.insert(log);
        } else if self.wants.len() - self.first.len() >= WANTS_MAX || owned >= WANTS_PER_PEER_MAX {
            return false;
        }
        self.owned.insert(from, owned + 1);
        true
    }

    /// Logs that narrow and that nobody was asked for.
    fn first_free(&self) -> Vec<LogId> {
        let free = |log: &&LogId| self.wants.get(log).is_some_and(|w| w.busy.is_none());
        self.first.iter().filter(free).copied().collect()
    }

    /// Neighbours that have a wanted log, and up to where.
    fn sources(&self, log: &LogId) -> &[(NodeId, u64)] {
        self.wants.get(log).map_or(&[], |w| &w.sources)
    }

    /// A neighbour is asked for these, beside the piece that it was asked for before.
    fn ask(&mut self, now: Tick, node: NodeId, ranges: &[(LogId, u64, u64)]) {
        let piece =
            Piece { ranges: BTreeMap::new(), progress: now, fruitful: false, refused: false };
        let piece = self.running.entry(node).or_insert(piece);
        for (log, from, to) in ranges {
            piece.ranges.insert(*log, (*from, *to));
            if let Some(want) = self.wants.get_mut(log) {
                want.busy = Some(node);
            }
        }
    }
}

impl Overlay {
    /// Asks for what is missing of logs that narrow.
    pub(super) fn plan_first(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let mut asked: BTreeMap<NodeId, Vec<(LogId, u64, u64)>> = BTreeMap::new();
        for log in self.fetches.first_free() {
            let from = self.heads.seq(&log).saturating_add(1);
            let Some((node, to)) = self.first_source(now, log, from) else { continue };
            let ranges = asked.entry(node).or_default();
            if ranges.len() < ITEMS_PER_FRAME_MAX {
                ranges.push((log, if is_moment(to) { to } else { from }, to));
            }
        }
        for (node, ranges) in asked {
            self.fetches.ask(now, node, &ranges);
            let ranges = ranges.into_iter().map(|(log, from, to)| ItemRange { log, from, to });
            let frame = OverlayFrame::Fetch(List::truncated(ranges));
            self.send(now, node, frame, Class::Control, actions);
        }
    }

    /// A neighbour that has it and may be asked.
    fn first_source(&self, now: Tick, log: LogId, from: u64) -> Option<(NodeId, u64)> {
        let sources = self.fetches.sources(&log).iter();
        let mut able = sources.filter(|(node, to)| {
            let link = self.link(node);
            *to >= from && link.is_some_and(|l| l.fetch_after <= now && !l.shuns(&(log, *to), now))
        });
        able.next().copied()
    }
}
