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
use super::io::{Action, Class};

/// Wanted logs of items that narrow, beside the room for all others.
pub(super) const FIRST_MAX: usize = 4_096;

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
