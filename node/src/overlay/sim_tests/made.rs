//! What simulated fleets are made of: ids, records and items, each a function of small numbers.

use std::sync::Arc;

use stork_wire::codec::{Blob, List};
use stork_wire::frame::{OverlayFrame, PeerHint};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::Envelope;
use stork_wire::tick::Tick;

use super::super::Peer;
use super::super::rng::mix;

pub(super) fn node_id(i: usize) -> NodeId {
    let mut id = [0; 32];
    for (k, slot) in id.chunks_mut(8).enumerate() {
        slot.copy_from_slice(&mix((i as u64 + 1) * 8 + k as u64).to_be_bytes());
    }
    NodeId(id)
}

pub(super) fn log_id(i: u8) -> LogId {
    LogId::of(&[i])
}

pub(super) fn envelope(body: Vec<u8>) -> Envelope {
    Envelope { body: Blob::new(body).unwrap(), signatures: List::empty() }
}

pub(super) fn make_item(log: LogId, seq: u64) -> Item {
    let mut body = log.0.to_vec();
    body.extend(seq.to_be_bytes());
    Item { kind: ItemKind::Entry, log, seq, envelope: envelope(body) }
}

pub(super) fn make_peer(i: usize, incarnation: u64, sites: usize) -> Arc<Peer> {
    let node = node_id(i);
    let mut body = node.0.to_vec();
    body.extend(incarnation.to_be_bytes());
    Arc::new(Peer {
        node,
        site: format!("site-{}", i % sites).parse().unwrap(),
        addrs: vec![],
        incarnation,
        groups: vec![],
        cell: None,
        expires: Tick(u64::MAX),
        hint: PeerHint { cert: envelope(body), record: envelope(vec![]) },
    })
}

/// A simulated record is its host's id and its incarnation.
pub(super) fn record_key(hint: &PeerHint) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = hint.cert.body.iter().skip(at).take(8);
        bytes.fold(0, |acc, b| (acc << 8) | u64::from(*b))
    };
    (number(0), number(32))
}

/// What a host keeps to itself, though it is a good neighbour otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mute {
    Nothing,
    /// Items. It says that it has them, and does not send them.
    Items,
    /// Everything that has to do with items.
    All,
    /// The same, and it names only hosts that do so too.
    Poison,
}

impl Mute {
    pub(super) const fn keeps(self, frame: &OverlayFrame) -> bool {
        let items = matches!(frame, OverlayFrame::Push { .. } | OverlayFrame::Items(_));
        let member = matches!(
            frame,
            OverlayFrame::Ping { .. }
                | OverlayFrame::Pong { .. }
                | OverlayFrame::Records(_)
                | OverlayFrame::Shuffle { .. }
                | OverlayFrame::ShuffleReply { .. }
                | OverlayFrame::Unlink
        );
        match self {
            Self::Nothing => false,
            Self::Items => items,
            Self::All | Self::Poison => !member,
        }
    }
}
