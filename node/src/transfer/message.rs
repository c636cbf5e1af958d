//! What goes into the planner and what comes out of it.

use stork_wire::feed::Urgency;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};

use super::bandwidth::Limits;
use super::pieces::PieceSet;
use super::sites::Members;
use super::small::Small;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes that may be promised or under way to others at once, at the most: a quarter of a
    /// second of what the uplink carries is enough. Two pieces are always allowed.
    pub upload_window: u64,
    /// Bytes that may be asked for at once. Eight pieces are always allowed.
    pub download_window: u64,
    /// Bytes a second that may be taken from the origin store; 0: there is none.
    pub store_bytes_per_s: u64,
}

impl Default for Config {
    /// 1 MiB up is 8 ms at 1 Gbit/s; 8 MiB down is eight uploaders of that kind.
    fn default() -> Self {
        Self { upload_window: 1024 * 1024, download_window: 8 * 1024 * 1024, store_bytes_per_s: 0 }
    }
}

/// What part this host takes in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Wants the pieces, and serves those that it has.
    Leech,
    /// Has everything and serves anything that is asked for.
    Seed,
    /// The publisher's first host: sends each piece once, and again only when it got rare.
    Origin,
}

/// Why a piece or a manifest did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes came and are not what they claim to be.
    Bad,
    /// The bytes did not come, or too slowly.
    Stalled,
    /// The connection ended.
    Gone,
}

/// What a list of candidates is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A manifest.
    Manifest(ManifestId),
    /// A swarm.
    Swarm(SwarmId),
}

/// How to take part in a swarm.
#[derive(Debug, Clone)]
pub struct Join {
    /// Which swarm.
    pub swarm: SwarmId,
    /// The manifest that describes it.
    pub manifest: ManifestId,
    /// Bytes of each piece, in order.
    pub lens: Vec<u32>,
    /// The pieces that are verified and on disk.
    pub have: PieceSet,
    /// Its class.
    pub urgency: Urgency,
    /// Our part.
    pub role: Role,
    /// Who else takes part.
    pub members: Members,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// An admitted control connection exists.
    PeerUp {
        /// To whom.
        node: NodeId,
        /// Whether it is in our site.
        same_site: bool,
    },
    /// That connection ended.
    PeerDown {
        /// To whom.
        node: NodeId,
    },
    /// A frame came over it.
    Frame {
        /// From whom.
        from: NodeId,
        /// The frame.
        frame: TransferFrame,
    },
    /// The host wants a release: its manifest first.
    WantManifest {
        /// Which manifest.
        manifest: ManifestId,
        /// Hosts that want it as well.
        interested: Vec<NodeId>,
        /// Hosts that have it from the publisher.
        origins: Vec<NodeId>,
        /// Its class.
        urgency: Urgency,
        /// Its bytes.
        size: u64,
        /// How all of it may come at once, where it is small.
        small: Option<Small>,
    },
    /// A manifest is on disk and may be served.
    HaveManifest {
        /// Which manifest.
        manifest: ManifestId,
    },
    /// A manifest is neither wanted nor served any more.
    DropManifest {
        /// Which manifest.
        manifest: ManifestId,
    },
    /// A manifest that was asked for is verified and on disk.
    ManifestArrived {
        /// Which manifest.
        manifest: ManifestId,
        /// From whom.
        from: NodeId,
    },
    /// It is not.
    ManifestFailed {
        /// Which manifest.
        manifest: ManifestId,
        /// From whom.
        from: NodeId,
        /// Why.
        fault: Fault,
    },
    /// A `SendManifest` has ended, well or not.
    ManifestSent {
        /// Which manifest.
        manifest: ManifestId,
        /// To whom.
        to: NodeId,
    },
    /// Take part in a swarm.
    Join(Box<Join>),
    /// The candidates changed.
    Roster {
        /// Of what.
        topic: Topic,
        /// They.
        members: Members,
    },
    /// Take part no longer.
    Leave {
        /// In which swarm.
        swarm: SwarmId,
    },
    /// A piece is verified and on disk.
    PieceArrived {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// From whom; ourselves if it came another way, such as a publisher's push.
        from: NodeId,
    },
    /// An expected piece did not come.
    PieceFailed {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// From whom.
        from: NodeId,
        /// Why.
        fault: Fault,
    },
    /// A `SendPiece` has ended well.
    PieceSent {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// To whom.
        to: NodeId,
        /// How many bytes it was.
        bytes: u32,
    },
    /// A `SendPiece` has ended otherwise: stopped, cut off, or not readable here.
    PieceSendFailed {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// To whom.
        to: NodeId,
    },
    /// From now on content may go at these rates.
    Limits(Limits),
    /// The time that `deadline` named has come.
    Deadline,
}

/// What a peer is blamed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It sent bytes that are not the piece (attack C1).
    BadPiece,
    /// It sent bytes that are not the manifest.
    BadManifest,
    /// It claims pieces and does not deliver them (attack C5).
    FalseHave,
    /// It keeps asking for what it was not granted.
    Ungranted,
    /// Its frames contradict the manifest, such as a wrong number of pieces.
    Nonsense,
}

/// Worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There are too many swarms; this one was not joined. Leave one and join again.
    TooManySwarms(SwarmId),
    /// The list of pieces is empty, too long, or does not fit the pieces that are there.
    BadJoin(SwarmId),
    /// There are too many manifests; this one is not looked for.
    TooManyManifests(ManifestId),
    /// A reservation was given up because its sender took too long.
    Stolen {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// From whom.
        from: NodeId,
    },
    /// No neighbour helps; others, then the origin, then the origin store are asked.
    Hungry {
        /// Which swarm.
        swarm: SwarmId,
    },
}

/// One thing that the shell must do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a frame on the control connection.
    Send {
        /// To whom.
        to: NodeId,
        /// The frame.
        frame: TransferFrame,
    },
    /// Make a transient control connection; `PeerUp` follows if that works.
    Connect {
        /// To whom.
        node: NodeId,
    },
    /// Stream a manifest on the bulk connection, then report `ManifestSent`.
    SendManifest {
        /// To whom.
        to: NodeId,
        /// Which manifest.
        manifest: ManifestId,
    },
    /// Send the manifest and all pieces of this swarm in one `Small` frame, if they fit. Nothing is
    /// reported: who asked turns to others if it does not come.
    SendSmall {
        /// To whom.
        to: NodeId,
        /// Which manifest.
        manifest: ManifestId,
        /// Which variant of it.
        swarm: SwarmId,
    },
    /// Check and keep such an answer; `ManifestArrived` or `ManifestFailed` end it.
    TakeSmall {
        /// From whom.
        from: NodeId,
        /// Which manifest.
        manifest: ManifestId,
        /// Which variant of it.
        swarm: SwarmId,
        /// The manifest, then its packs.
        bytes: Vec<u8>,
    },
    /// Stream a piece on the bulk connection, then report `PieceSent` or `PieceSendFailed`.
    SendPiece {
        /// To whom.
        to: NodeId,
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// Stop that stream, and report `PieceSendFailed` unless it has ended already.
    StopPiece {
        /// To whom.
        to: NodeId,
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// Accept this piece from this peer; `PieceArrived` and `PieceFailed` end it.
    Expect {
        /// From whom.
        from: NodeId,
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// Accept it no longer.
    Unexpect {
        /// From whom.
        from: NodeId,
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// Accept this manifest from this peer.
    ExpectManifest {
        /// From whom.
        from: NodeId,
        /// Which manifest.
        manifest: ManifestId,
    },
    /// Accept it no longer.
    UnexpectManifest {
        /// From whom.
        from: NodeId,
        /// Which manifest.
        manifest: ManifestId,
    },
    /// Ask the origin store for a piece; `PieceArrived` or `PieceFailed` from `ORIGIN_STORE`
    /// follow, unless `Unexpect` takes it back.
    FetchPiece {
        /// Of which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// Ask it for a manifest; likewise.
    FetchManifest {
        /// Which manifest.
        manifest: ManifestId,
    },
    /// Every piece is here.
    Complete {
        /// Of which swarm.
        swarm: SwarmId,
    },
    /// A peer did wrong; the driver decides what follows from it.
    Blame {
        /// Who.
        node: NodeId,
        /// What.
        why: Why,
    },
    /// Worth a line in the log.
    Event(Event),
}
