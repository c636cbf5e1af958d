//! What goes into the overlay and what comes out of it.

use core::net::SocketAddr;
use std::sync::Arc;

use stork_wire::charter::Cell;
use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::{GroupId, ItemHash, LogId, NodeId};
use stork_wire::item::{Head, Item};
use stork_wire::limits::HINTS_MAX;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

/// What an operator or a test may choose; everything else is a named constant beside its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Links inside the site that the node dials for (protocol.md §3a: 5).
    pub near: usize,
    /// Links to anywhere that the node dials for (protocol.md §3a: 3).
    pub far: usize,
    /// Hosts of a site that carry a log across sites by default (protocol.md §3c: 2).
    pub relays: usize,
    /// Probability of a merge probe each minute, in percent (protocol.md §3a rule 5: 10).
    pub merge_percent: u64,
    /// Records of hosts that are kept in full (design.md §5: 512).
    pub roster: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { near: 5, far: 3, relays: 2, merge_percent: 10, roster: 512 }
    }
}

/// A host whose certificate and record the driver has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its key.
    pub node: NodeId,
    /// Its site, from its certificate.
    pub site: Label,
    /// Where it listens.
    pub addrs: Vec<SocketAddr>,
    /// Rises with every change and restart.
    pub incarnation: u64,
    /// Groups that its hosts' VMs subscribe to.
    pub groups: Vec<GroupId>,
    /// Its cell, where it speaks for it.
    pub cell: Option<Cell>,
    /// When its certificate or record is worth nothing any more, on this process's clock.
    pub expires: Tick,
    /// The signed form, to hand on.
    pub hint: PeerHint,
}

/// In which frame verified hosts came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeersKind {
    /// `OverlayFrame::Records`.
    Records,
    /// `OverlayFrame::Shuffle`.
    Shuffle {
        /// Of the frame.
        nonce: u64,
    },
    /// `OverlayFrame::ShuffleReply`.
    ShuffleReply {
        /// Of the frame.
        nonce: u64,
    },
}

/// Why the driver did not commit an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It has it already.
    Duplicate,
    /// Items before it are missing, and whether it is good is not known.
    Pending,
    /// It is good, but items before it are missing: the driver keeps it, and judges it again then.
    Early,
    /// It breaks a rule, and whoever sent it should have known (attacks G6, G7).
    Invalid,
    /// Nothing here says yet who may sign in this log, or the driver is busy: later, perhaps.
    Unknown,
    /// Only a later version knows what it is: nobody is to blame, and nothing else waits for it.
    Later,
    /// It is signed, but does not follow the item before it here: the two hosts may hold different
    /// branches, so that the one before is asked for as well.
    Forked,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// This node's own record, at the start and whenever it changed. The incarnation is new.
    Local(Arc<Peer>),
    /// The day since 1970 on this host's calendar, at the start and whenever another one begins.
    Day(u32),
    /// Hosts known from disk, and the operator's anchors.
    Bootstrap {
        /// Near, far, passive and graveyard of the last run.
        known: Vec<Arc<Peer>>,
        /// Hosts that the operator named: never evicted for others, never forgotten.
        anchors: Vec<Arc<Peer>>,
    },
    /// An admitted host dialled this one and asks for a link: answered by one [`Action::Answer`].
    Hello {
        /// Who.
        peer: Arc<Peer>,
        /// The link it asks for.
        class: LinkClass,
        /// It says that it has fewer links than it needs, or this is a merge probe.
        starving: bool,
    },
    /// A host that this one dialled has answered.
    Linked {
        /// Who; the record in the answer may be newer than the one that was dialled.
        peer: Arc<Peer>,
        /// The link that it grants.
        class: LinkClass,
        /// Other hosts that it knows.
        hints: Vec<Arc<Peer>>,
    },
    /// There is no control connection to this host any more: not for one that a newer replaced.
    Down {
        /// Who.
        node: NodeId,
    },
    /// A dial came to nothing, or its connection ended before an answer.
    DialFailed {
        /// Who was dialled.
        node: NodeId,
    },
    /// A frame that holds no hosts.
    Frame {
        /// The sender, from its TLS identity.
        from: NodeId,
        /// The frame.
        frame: OverlayFrame,
    },
    /// The hosts of a frame that holds hosts, as far as they could be verified.
    Peers {
        /// The sender.
        from: NodeId,
        /// Which frame.
        kind: PeersKind,
        /// The hosts.
        peers: Vec<Arc<Peer>>,
    },
    /// What is committed: at the start, and where items were taken back.
    Heads(Vec<Head>),
    /// The driver takes no items from now on: none is fetched, delivered or asked for.
    Closed,
    /// The driver takes items again: what is lacking is looked for at once.
    Open,
    /// An item was verified and accepted, after all items before it. Whether it must be durable
    /// before it is passed on is the driver's to decide.
    Committed {
        /// Its log.
        log: LogId,
        /// Its number.
        seq: u64,
        /// Its hash.
        hash: ItemHash,
        /// The item, to pass on.
        item: Arc<Item>,
        /// Who sent it; `None`: it was made or pushed here.
        source: Option<NodeId>,
    },
    /// A delivered item was not committed.
    Refused {
        /// Who sent it.
        from: NodeId,
        /// Its log.
        log: LogId,
        /// Its number.
        seq: u64,
        /// Why.
        why: Refusal,
    },
    /// A signed item that a host passed on says that a log goes up to a number, and this node is
    /// behind.
    Behind {
        /// Who passed it on.
        from: NodeId,
        /// The log.
        log: LogId,
        /// The number.
        to: u64,
    },
    /// Items of a log are void: its head is this one now, which may be lower, or none.
    Cut {
        /// The log.
        log: LogId,
        /// Its newest item that stands.
        head: Option<Head>,
    },
    /// Items that the rules want of one neighbour after the other, whatever is here of their log:
    /// they are known by their hashes, so that anybody may bring them.
    AskBack(ItemRange),
    /// The time of [`super::Overlay::deadline`] has come.
    Deadline,
}

/// How urgent a frame is, and whether it may be dropped when the outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Goes first; a full outbox closes the connection.
    Control,
    /// Items along a tree; may be dropped, since IHAVE and sync recover it.
    News,
    /// May be late, and may be dropped first.
    Lazy,
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No frame came for too long.
    Silent,
    /// The connection ended.
    Gone,
    /// The other side gave the link up.
    Unlinked,
    /// Made room for another host.
    Evicted,
    /// The two sides disagreed on the class of the link.
    Disagreed,
    /// It sent invalid items.
    Misbehaved,
    /// The same host connected again.
    Replaced,
}

/// Something for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is up.
    LinkUp {
        /// With whom.
        node: NodeId,
        /// Its class.
        class: LinkClass,
    },
    /// A link ended.
    LinkDown {
        /// With whom.
        node: NodeId,
        /// Why.
        why: Why,
    },
    /// A merge probe is on its way (protocol.md §3a rule 5).
    MergeProbe {
        /// To whom.
        node: NodeId,
    },
    /// Heads are being compared with a host.
    Comparing {
        /// With whom.
        node: NodeId,
    },
    /// A host has another item under the same number: items will prove it, or not.
    ForkSeen {
        /// Who.
        node: NodeId,
        /// Its head.
        theirs: Head,
        /// The head here.
        ours: Head,
    },
}

/// One thing that the driver must do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a frame on the control connection, if there is one.
    Send {
        /// To whom.
        to: NodeId,
        /// The frame.
        frame: OverlayFrame,
        /// How urgent.
        class: Class,
    },
    /// Dial a host; answered by `Linked` or `DialFailed`.
    Dial {
        /// Whom, and where.
        peer: Arc<Peer>,
        /// The link to ask for.
        class: LinkClass,
        /// For the Hello.
        starving: bool,
    },
    /// Answer a Hello.
    Answer {
        /// Whom.
        to: NodeId,
        /// The link that is granted; `Transient` where it was refused.
        class: LinkClass,
        /// Other hosts.
        hints: List<PeerHint, HINTS_MAX>,
    },
    /// Close the connections to a host.
    Close {
        /// Whom.
        node: NodeId,
        /// Why.
        why: Why,
    },
    /// Judge an item, and answer with `Committed` or `Refused`.
    Deliver {
        /// Who sent it.
        from: NodeId,
        /// The item, of which nothing was checked.
        item: Item,
        /// Links it has crossed, as the sender says; 0 where it was asked for.
        hop: u8,
        /// Its age in milliseconds, as the sender says; 0 where it was asked for.
        age_ms: u32,
    },
    /// Read committed items and send them in `Items` frames.
    ReadItems {
        /// To whom.
        to: NodeId,
        /// Which; already cut to what is committed here.
        ranges: Vec<ItemRange>,
    },
    /// This node speaks for its cell, or does not any more: sign a record that says so, and hand it
    /// in as `Local`.
    Summarise(Option<Cell>),
    /// Write these hosts to disk, for the next start.
    SavePeers(Vec<PeerHint>),
    /// Something happened.
    Event(Event),
}
