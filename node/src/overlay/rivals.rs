//! Rivals: items of neighbours that have the number of an item here, but other bytes.
//!
//! Where two hosts hold different branches of a log, numbers alone bring neither the other's items:
//! each thinks that it has them. So the other's item is asked for by its number, and the rules see
//! both (attack A21). What comes of it, a proof, is an item like any other; what it makes void is
//! taken out of the heads here.

use core::ops::Bound;

use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Head;
use stork_wire::tick::Tick;

use super::io::{Action, Class};
use super::{Key, Overlay};

/// Rivals that are asked for; the oldest question is forgotten first.
pub(super) const RIVALS_MAX: usize = 256;
/// Items that are asked for at one time because the rules want them.
const BACK_MAX: u64 = 64;

impl Overlay {
    /// Asks a neighbour for its item with this number.
    pub(super) fn ask_rival(
        &mut self,
        now: Tick,
        node: NodeId,
        key: Key,
        actions: &mut Vec<Action>,
    ) {
        if key.1 == 0 || !self.links.contains_key(&node) {
            return;
        }
        self.rivals.set((key, node), true);
        let frame = OverlayFrame::Graft { log: key.0, seq: key.1 };
        self.send(now, node, frame, Class::Control, actions);
    }

    /// Asks the next neighbour for items whose hashes the rules know.
    pub(super) fn ask_back(&mut self, now: Tick, range: ItemRange, actions: &mut Vec<Action>) {
        let after = self.fetches.asked_back.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.links.range((after, Bound::Unbounded)).map(|(node, _)| *node);
        let Some(node) = rest.chain(self.links.keys().copied()).next() else { return };
        self.fetches.asked_back = Some(node);
        let last = range.to.min(range.from.saturating_add(BACK_MAX - 1));
        (range.from..=last).for_each(|seq| self.rivals.set(((range.log, seq), node), true));
        let range = ItemRange { to: last, ..range };
        let frame = OverlayFrame::Fetch(List::truncated([range]));
        self.send(now, node, frame, Class::Control, actions);
    }

    /// Was this item asked for as a rival? Once for each question.
    pub(super) fn take_rival(&mut self, key: Key, from: NodeId) -> bool {
        let asked = self.rivals.get(&(key, from)).copied().unwrap_or(false);
        if asked {
            self.rivals.set((key, from), false);
        }
        asked
    }

    /// Items of a log are void: its head goes back, or is gone, and what others have beyond it is
    /// not wanted any more.
    pub(super) fn on_cut(&mut self, log: LogId, head: Option<Head>) {
        self.heads.cut_back(log, head);
        self.forget_want(&log);
    }
}
