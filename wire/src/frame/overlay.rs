//! Frames of membership, broadcast and sync (protocol.md §3a, §3c, §3d).

use serde::{Deserialize, Serialize};

use crate::codec::List;
use crate::ids::LogId;
use crate::item::{Head, Item};
use crate::limits::{HEADS_PER_FRAME_MAX, HINTS_MAX, ITEMS_PER_FRAME_MAX, SKETCH_CELLS_MAX};
use crate::sign::Envelope;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkClass {
    /// An overlay link inside the site.
    Near,
    /// An overlay link to anywhere, kept random.
    Far,
    /// No overlay link: for content, or a question.
    Transient,
}

/// A host's certificate and its own signed record, together: one without the other says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHint {
    /// The certificate, signed by an admission key.
    pub cert: Envelope,
    /// The record, signed by the host.
    pub record: Envelope,
}

/// A range of a log, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemRange {
    /// The log.
    pub log: LogId,
    /// First number.
    pub from: u64,
    /// Last number.
    pub to: u64,
}

/// An item that the sender has, and some before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Have {
    /// The log.
    pub log: LogId,
    /// The item's number in it.
    pub seq: u64,
    /// So many items before it are announced, too.
    pub more: u16,
    /// Milliseconds since the sender could have pushed it: announcements wait for company.
    pub waited_ms: u16,
}

impl Have {
    /// An item that is announced without delay.
    #[must_use]
    pub const fn new(log: LogId, seq: u64) -> Self {
        Self { log, seq, more: 0, waited_ms: 0 }
    }
}

/// The first 8 bytes of a log's id. Logs that share them are told apart by their full heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShortLog(pub [u8; 8]);

impl ShortLog {
    /// Of a log.
    #[must_use]
    pub fn of(log: &LogId) -> Self {
        let mut cut = [0; 8];
        for (slot, b) in cut.iter_mut().zip(log.as_bytes()) {
            *slot = *b;
        }
        Self(cut)
    }
}

/// One cell of a sketch: three numbers of 8 bytes, big endian (docs/PROTOCOL.md, "Sketches").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchCell(pub [u8; 24]);

/// One message of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverlayFrame {
    /// Are you there? Sent where nothing else was sent for a while.
    Ping {
        /// Comes back in the pong.
        nonce: u32,
        /// The sum of all head fingerprints, cut to 8 bytes.
        fingerprint: [u8; 8],
        /// The class in which the sender holds this link: a disagreement is cut.
        class: LinkClass,
        /// The buckets of logs that the sender carries into its site.
        carries: u64,
    },
    /// The answer to a ping.
    Pong {
        /// Of the ping.
        nonce: u32,
        /// Of the answering node.
        fingerprint: [u8; 8],
        /// Of the answering node.
        class: LinkClass,
    },
    /// A changed record, flooded once per incarnation.
    Records(List<PeerHint, HINTS_MAX>),
    /// An exchange of passive views.
    Shuffle {
        /// Comes back in the reply.
        nonce: u64,
        /// Some hosts the sender knows, itself included.
        peers: List<PeerHint, HINTS_MAX>,
    },
    /// The answer, with at most as many hosts.
    ShuffleReply {
        /// Of the shuffle.
        nonce: u64,
        /// Some hosts the answering node knows.
        peers: List<PeerHint, HINTS_MAX>,
    },
    /// The link becomes transient; no blame.
    Unlink,
    /// An item along a log's tree.
    Push {
        /// Links it has crossed.
        hop: u8,
        /// Milliseconds since it was accepted first.
        age_ms: u32,
        /// A short name of the host by which it came into the sender's site; 0 where it was made
        /// there. Of no meaning between two sites.
        entry: u32,
        /// The item.
        item: Box<Item>,
    },
    /// Items that the sender has, along the links that are not in the tree.
    IHave(List<Have, ITEMS_PER_FRAME_MAX>),
    /// Send me that item, and make this link part of the log's tree.
    Graft {
        /// The log.
        log: LogId,
        /// The missing item; 0: none, only those to come. The one after the other's head: when it
        /// has it.
        seq: u64,
    },
    /// I have that already: take this link out of the log's tree.
    Prune {
        /// The log.
        log: LogId,
    },
    /// All heads of the sender, in as many frames as needed.
    Heads {
        /// Sorted by log.
        heads: List<Head, HEADS_PER_FRAME_MAX>,
        /// Was this the last frame?
        last: bool,
        /// Does the sender want ours in return?
        answer: bool,
    },
    /// Send me these items.
    Fetch(List<ItemRange, ITEMS_PER_FRAME_MAX>),
    /// Items that were asked for.
    Items(List<Item, ITEMS_PER_FRAME_MAX>),
    /// Send me these cells of the sketch of your heads.
    SketchAsk {
        /// The first cell.
        start: u32,
        /// How many; more than [`SKETCH_CELLS_MAX`] are not sent.
        count: u32,
    },
    /// Cells of the sketch of the sender's heads, all made from the same heads.
    Sketch {
        /// The fingerprint of those heads, as in a ping.
        fingerprint: [u8; 8],
        /// How many heads they are.
        logs: u32,
        /// The number of the first cell.
        start: u32,
        /// The cells.
        cells: List<SketchCell, SKETCH_CELLS_MAX>,
    },
    /// Send me the full heads of these logs.
    HeadsAsk(List<ShortLog, HEADS_PER_FRAME_MAX>),
    /// The newest items of logs in which the receiver is behind, as the sender saw in its sketch.
    Ahead(List<(ShortLog, u64), HEADS_PER_FRAME_MAX>),
    /// What the sender reads beyond the frames before this one, as bits; unknown ones mean nothing.
    /// Said once, as a connection begins. Who does not know it leaves it out, as any later frame.
    Knows(u64),
    /// [`Self::Push`] of an item that lies where its body says, in the feed of a publisher, to a
    /// host that [knows](Self::Knows) it.
    PushEntry {
        /// Links it has crossed.
        hop: u8,
        /// Milliseconds since it was accepted first.
        age_ms: u32,
        /// As in [`Self::Push`].
        entry: u32,
        /// The entry.
        envelope: Box<Envelope>,
    },
}

impl OverlayFrame {
    /// Types of frame that are known here; a number from this on belongs to a later version.
    pub(super) const KINDS: u64 = 19;

    /// A name for counters and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Records(_) => "records",
            Self::Shuffle { .. } => "shuffle",
            Self::ShuffleReply { .. } => "shuffle_reply",
            Self::Unlink => "unlink",
            Self::Push { .. } => "push",
            Self::IHave(_) => "ihave",
            Self::Graft { .. } => "graft",
            Self::Prune { .. } => "prune",
            Self::Heads { .. } => "heads",
            Self::Fetch(_) => "fetch",
            Self::Items(_) => "items",
            Self::SketchAsk { .. } => "sketch_ask",
            Self::Sketch { .. } => "sketch",
            Self::HeadsAsk(_) => "heads_ask",
            Self::Ahead(_) => "ahead",
            Self::Knows(_) => "knows",
            Self::PushEntry { .. } => "push_entry",
        }
    }
}
