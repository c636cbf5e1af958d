//! The push protocol (ALPN `stork-push/1`): a publisher hands content and entries to a node.
//!
//! Each request is a bidirectional stream of its own: the publisher sends one frame (length of four
//! bytes, little endian, then canonical postcard), raw bytes where the request says so, and
//! finishes its side; the node answers with one frame, and raw bytes where the reply says so. The
//! first request of a connection is [`PushRequest::Hello`], or that of a delegated key.

use serde::{Deserialize, Serialize};

use crate::codec::List;
use crate::feed::ManifestRef;
use crate::ids::{FleetId, ManifestId, NodeId, PackId, Position, ReleaseHash};
use crate::item::Item;
use crate::limits::{LIVE_RELEASES_MAX, PACKS_MAX};
use crate::sign::Envelope;
use crate::text::{Arch, Label, Line, PackageName};

/// Entries in one answer: they fill no frame.
pub const RELEASES_AT_ONCE: usize = 32;

/// What a publisher asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushRequest {
    /// Who pushes: the certificate of the TLS key of this connection.
    Hello {
        /// The fleet.
        fleet: FleetId,
        /// A [`crate::charter::PushCert`] signed by a release key.
        cert: Envelope,
    },
    /// Charter documents that the node may not have yet, denials, suicides and withdrawals.
    /// Answered with `Taken`.
    Documents(List<Item, 4>),
    /// Where does the feed stand? Answered with `Head`.
    Head,
    /// The newest live release of a package. Answered with `Latest`.
    Latest {
        /// The package.
        package: PackageName,
        /// Its architecture.
        arch: Arch,
    },
    /// Which of these packs does the node lack? Answered with `Packs`.
    Packs(List<(PackId, u64), PACKS_MAX>),
    /// The bytes of a pack from `offset` on follow. Answered with `Taken`.
    PutPack {
        /// Which pack.
        pack: PackId,
        /// Its whole size.
        size: u64,
        /// The first byte that follows.
        offset: u64,
    },
    /// The bytes of a manifest follow. Answered with `Taken`.
    PutManifest(ManifestRef),
    /// Commit this entry if it follows the feed's head. Answered with `Committed`.
    Commit(Envelope),
    /// Answered with `Blob` and the manifest's bytes.
    GetManifest(ManifestId),
    /// Answered with `Blob` and the pack's bytes.
    GetPack(PackId),
    /// The live releases of a package, all architectures, the newest first. Answered with
    /// `Releases`.
    Releases {
        /// The package.
        package: PackageName,
        /// Only those before this place in the feed: where the last answer ended.
        before: Option<Position>,
    },
    /// Who pushes, where it is a delegated key. Answered like `Hello`.
    HelloDelegated {
        /// The fleet.
        fleet: FleetId,
        /// A [`crate::charter::PushCert`] signed by the delegated key.
        cert: Envelope,
        /// The key's certificate, a [`crate::delegated::Delegated`].
        via: Envelope,
    },
    /// All that the feed's head commits to, whatever the package, the newest first. Answered with
    /// `Releases`.
    Live {
        /// Only those before this place in the feed: where the last answer ended.
        before: Option<Position>,
    },
    /// Releases of a package that lie behind a fork of the publisher's feed, as this node has them,
    /// and were not recalled. Answered with `Releases`, in no order.
    Forked {
        /// The package.
        package: PackageName,
    },
}

/// How much of a pack a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackState {
    /// All, verified.
    Whole,
    /// So many bytes from its beginning.
    Partial(u64),
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushReply {
    /// The publisher is welcome.
    Welcome {
        /// The node.
        node: NodeId,
        /// Its name.
        name: Label,
    },
    /// Where the feed stands.
    Head {
        /// The newest entry; `None` for an empty feed.
        entry: Option<Box<Envelope>>,
        /// All live releases, which that entry's view root commits to.
        live: List<ReleaseHash, LIVE_RELEASES_MAX>,
    },
    /// The newest live release of a package: the entry that announced it.
    Latest(Option<Box<Envelope>>),
    /// One state for each pack that was asked about, in order.
    Packs(List<PackState, PACKS_MAX>),
    /// Taken, verified and on disk.
    Taken,
    /// The entry is committed and on its way.
    Committed {
        /// Its number.
        seq: u64,
        /// Peers it was handed to at once.
        peers: u32,
    },
    /// So many raw bytes follow.
    Blob(u64),
    /// Refused: nothing has changed.
    Refused {
        /// Why, as a code.
        code: Refusal,
        /// Why, for people.
        message: Line,
    },
    /// The entries that announced them. As many as there may be: there may be more before the last.
    Releases(List<Envelope, RELEASES_AT_ONCE>),
}

/// Why a node refuses a request of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not understood.
    Malformed,
    /// The key or certificate does not permit it.
    Trust,
    /// The entry does not follow the head: somebody else published meanwhile.
    HeadMoved,
    /// This node does not take entries of this feed.
    NotHome,
    /// Not there.
    NotFound,
    /// Bytes do not hash to what was announced.
    Corrupt,
    /// No room, or over a quota.
    NoSpace,
    /// Too much at once: try again.
    Busy,
    /// The node's disk failed.
    Internal,
    /// The version is published with another content already.
    VersionTaken,
}
