//! What is going to happen, in order: a heap of (time, order), with the events in a slab beside it,
//! so that the heap moves small keys only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use stork_node::overlay::Peer;
use stork_wire::frame::{LinkClass, OverlayFrame, PeerHint};

/// Something that can happen to a node.
#[derive(Debug)]
pub(crate) enum Ev {
    /// Its machine's deadline.
    Wake,
    /// Somebody's dial has come as far as its Hello.
    Hello { from: u32, life: u32, conn: u64, record: Arc<Peer>, class: LinkClass, starving: bool },
    /// The answer to an own dial.
    Answered { from: u32, life: u32, conn: u64, record: Arc<Peer>, class: LinkClass, hints: Hints },
    /// A dial came to nothing.
    DialFailed { peer: u32 },
    /// A connection has ended, or is noticed to have.
    Closed { peer: u32, conn: u64 },
    /// Time to look whether a connection without a link is still of use.
    IdleCheck { peer: u32, conn: u64 },
    /// A frame.
    Frame { from: u32, conn: u64, frame: OverlayFrame },
    /// An item is on disk.
    Commit { feed: u32, seq: u64 },
    /// A hostile node does what it does now and then.
    Mischief,
}

/// Signed records as frames carry them.
pub(crate) type Hints = Vec<PeerHint>;

/// An event with whom it concerns: that life of that node, no later one.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) node: u32,
    pub(crate) life: u32,
    pub(crate) ev: Ev,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slab: Vec<Option<Entry>>,
    free: Vec<u32>,
    order: u64,
}

impl Queue {
    /// Plans an event.
    pub(crate) fn push(&mut self, at: u64, entry: Entry) {
        self.order += 1;
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(room) = self.slab.get_mut(slot as usize) {
                *room = Some(entry);
            }
            slot
        } else {
            self.slab.push(Some(entry));
            u32::try_from(self.slab.len() - 1).unwrap_or(u32::MAX)
        };
        self.heap.push(Reverse((at, self.order, slot)));
    }

    /// The next event, if it is due by `end`.
    pub(crate) fn pop(&mut self, end: u64) -> Option<(u64, Entry)> {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > end {
            return None;
        }
        self.heap.pop();
        self.free.push(slot);
        let entry = self.slab.get_mut(slot as usize)?.take()?;
        Some((at, entry))
    }
}
