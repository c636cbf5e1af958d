//! What is going to happen in a simulated world, in order.

use stork_wire::frame::{LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::NodeId;
use stork_wire::item::Item;

/// What can happen to a host.
#[derive(Debug)]
pub(super) enum Ev {
    Deadline,
    Hello { from: usize, class: LinkClass, starving: bool },
    Ack { from: usize, class: LinkClass, hints: Vec<PeerHint> },
    DialFailed { node: NodeId },
    Down { node: NodeId },
    Frame { from: usize, conn: u64, frame: OverlayFrame },
    Judge { from: NodeId, item: Item },
}

/// Something that will happen, ordered by time, then by when it was planned.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) ev: Ev,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
