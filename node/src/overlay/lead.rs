//! Lead: a tree turns toward the neighbour that would have brought its items earlier.
//!
//! A tree grows along the fastest ways there are when it begins, and every repair makes it slower.
//! Announcements say for how long they waited, so that a host knows when a push along another link
//! would have come. A link that would have been clearly faster for three of the last four items
//! takes the parent's place (protocol.md §3c, latency optimisation).
//!
//! Nobody can lie much: the wait that counts is bounded, and whoever then lets the tree stand
//! still is not followed again for a while.

use stork_wire::frame::OverlayFrame;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::io::{Action, Class};
use super::{Key, Overlay};

/// A lead counts from so many milliseconds on, and from this share of the item's age on.
const LEAD_MS: u64 = 20;
const LEAD_OF_AGE: u64 = 4;
/// Items that are looked at, and how many of them a link must have led.
const LOOKED_AT: u32 = 4;
const LED: u32 = 3;
/// More than this is not believed of an announcement's wait: twice as long as it may wait.
const WAITED_MS_MAX: u64 = 200;
/// A parent of which an item had to be grafted around is not followed for so long.
const NO_LEAD_MS: u64 = 600_000;

/// The link that leads in a tree, and for which of the last items it did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lead {
    slot: u8,
    bits: u8,
    seq: u64,
}

impl Lead {
    /// A slot is free: what it led is void.
    pub(super) fn forget(&mut self, slot: u8) {
        if self.slot == slot {
            *self = Self::default();
        }
    }

    /// Notes whether a link led with an item. True where it has led often enough.
    fn note(&mut self, slot: u8, seq: u64, led: bool) -> bool {
        if self.slot != slot {
            if !led || self.bits != 0 {
                return false;
            }
            *self = Self { slot, bits: 0, seq: 0 };
        }
        if seq <= self.seq {
            return false;
        }
        self.seq = seq;
        self.bits = (self.bits << 1 | u8::from(led)) & ((1 << LOOKED_AT) - 1);
        self.bits.count_ones() >= LED
    }
}

/// The link, other than the parent's, along which the newest item would have come first: whoever is
/// below this host in the tree announces later, so that this one is most likely not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Second {
    slot: u8,
    seq: u64,
    could: Tick,
}

impl Second {
    fn note(&mut self, slot: u8, seq: u64, could: Tick) {
        if seq > self.seq || (seq == self.seq && could < self.could) {
            *self = Self { slot, seq, could };
        }
    }

    /// Its slot, if it announced one of the last two items.
    pub(super) fn slot(&self, newest: u64) -> Option<u8> {
        (self.seq > 0 && self.seq >= newest.saturating_sub(1)).then_some(self.slot)
    }

    /// A slot is free.
    pub(super) fn forget(&mut self, slot: u8) {
        if self.slot == slot {
            *self = Self::default();
        }
    }
}

/// When an item that was announced now would have come as a push.
pub(super) fn could_push(now: Tick, waited_ms: u16) -> Tick {
    Tick(now.0.saturating_sub(u64::from(waited_ms).min(WAITED_MS_MAX)))
}

impl Overlay {
    /// An announcement of an item that the tree has brought already.
    pub(super) fn announced_late(
        &mut self,
        now: Tick,
        from: NodeId,
        key: Key,
        could: Tick,
        actions: &mut Vec<Action>,
    ) {
        let slot = self.links.get(&from).map(|l| l.slot);
        let Some(tree) = self.trees.get_mut(&key.0) else { return };
        let came = tree.came;
        let near = key.1 <= tree.newest.0.saturating_add(1);
        if let Some(slot) = slot.filter(|s| near && tree.parent != Some(*s)) {
            tree.second.note(slot, key.1, could);
        }
        if tree.newest.0 == key.1 {
            self.lead(now, from, (key, could), came, actions);
        }
    }

    /// The parent's push of an item that another had announced before. True where the tree turned
    /// to that other one.
    pub(super) fn announced_early(
        &mut self,
        now: Tick,
        parent: NodeId,
        (key, age_ms): (Key, u32),
        (from, could): (NodeId, Tick),
        actions: &mut Vec<Action>,
    ) -> bool {
        let slot = self.links.get(&parent).map(|l| l.slot);
        let led = slot.is_some() && self.trees.get(&key.0).is_some_and(|(_, p)| p == slot);
        led && self.lead(now, from, (key, could), (now, age_ms), actions)
    }

    /// True where the tree turned.
    fn lead(
        &mut self,
        now: Tick,
        from: NodeId,
        (key, could): (Key, Tick),
        (came, age_ms): (Tick, u32),
        actions: &mut Vec<Action>,
    ) -> bool {
        let least = LEAD_MS.max(u64::from(age_ms) / LEAD_OF_AGE);
        let led = came.since(could) >= least;
        let Some(link) = self.links.get(&from).filter(|l| l.no_lead_until <= now) else {
            return false;
        };
        let (slot, bit, inside) = (link.slot, link.bit(), link.peer.site == self.site);
        let Some(tree) = self.trees.get_mut(&key.0) else { return false };
        let old = self.links.values().find(|l| Some(l.slot) == tree.parent);
        let Some(old) = old.filter(|l| l.slot != slot) else { return false };
        // The way into a site is the relays' matter.
        if inside != (old.peer.site == self.site) || !tree.lead.note(slot, key.1, led) {
            return false;
        }
        let node = old.peer.node;
        tree.eager = (tree.eager | bit) & !old.bit();
        tree.parent = Some(slot);
        tree.lead = Lead::default();
        self.counters.leads += 1;
        let graft = OverlayFrame::Graft { log: key.0, seq: 0 };
        self.send(now, from, graft, Class::Control, actions);
        self.prune(now, node, key, actions);
        true
    }

    /// An item had to be asked for: the tree's parent did not bring it.
    pub(super) fn parent_failed(&mut self, now: Tick, log: &LogId, actions: &mut Vec<Action>) {
        let Some((_, Some(slot))) = self.trees.get(log) else { return };
        if let Some(link) = self.links.values_mut().find(|l| l.slot == slot) {
            link.no_lead_until = now.after_ms(NO_LEAD_MS);
            let node = link.peer.node;
            self.doubt(now, node, actions);
        }
    }
}
