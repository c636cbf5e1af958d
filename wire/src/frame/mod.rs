//! Frames of the control stream between two nodes (ALPN `stork/1`).
//!
//! A frame is a length of four bytes, little endian, and so many bytes of canonical postcard. The
//! first frame of a connection is [`Frame::Hello`] or [`Frame::Join`]; nothing else is read before.

mod bulk;
mod overlay;
mod push;
mod transfer;

pub use bulk::{BULK_HEADER_LEN_MAX, BulkHeader};
pub use overlay::{ItemRange, LinkClass, OverlayFrame, PeerHint};
pub use push::{PackState, PushReply, PushRequest, Refusal};
pub use transfer::{Bits, TransferFrame};

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, List, decode, encode};
use crate::ids::FleetId;
use crate::item::Item;
use crate::limits::HINTS_MAX;
use crate::sign::Envelope;
use crate::text::{Label, Line};

/// The control connection between two nodes.
pub const ALPN_CONTROL: &[u8] = b"stork/1";
/// The content connection between two nodes.
pub const ALPN_BULK: &[u8] = b"stork-bulk/1";
/// A publisher's connection to a node.
pub const ALPN_PUSH: &[u8] = b"stork-push/1";

/// The version of this protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// One message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The dialler introduces itself.
    Hello(Box<Hello>),
    /// The answer to a Hello.
    HelloAck(Box<HelloAck>),
    /// A host without a certificate asks to be admitted.
    Join(Box<JoinRequest>),
    /// The answer to a join request.
    Joined(Box<JoinReply>),
    /// Membership, broadcast and sync.
    Overlay(OverlayFrame),
    /// Transfer of content.
    Transfer(TransferFrame),
    /// The connection is about to be closed, and why.
    Bye(Line),
}

/// Who the dialler is, and what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u16,
    /// The fleet.
    pub fleet: FleetId,
    /// Certificate and signed record.
    pub peer: PeerHint,
    /// The link that is asked for.
    pub class: LinkClass,
    /// The sender has fewer links than it needs.
    pub starving: bool,
}

/// The answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// Certificate and signed record of the answering node.
    pub peer: PeerHint,
    /// The link that is granted; [`LinkClass::Transient`] where another was asked for but refused.
    pub class: LinkClass,
    /// Other hosts, of use above all where no link was granted.
    pub hints: List<PeerHint, HINTS_MAX>,
}

/// What a host without a certificate sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The signed token.
    pub token: Envelope,
    /// The name that the host would like, where the token leaves it open.
    pub name: Label,
}

/// The answer to a join request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// The host is admitted.
    Admitted {
        /// Its certificate.
        cert: Envelope,
        /// The root documents from the first, which the token's fleet id must match. The rest of
        /// the charter comes by sync.
        roots: List<Item, 16>,
        /// Hosts to dial first: the admitting one, and some that it knows.
        peers: List<PeerHint, HINTS_MAX>,
    },
    /// It is not, and why.
    Refused(Line),
}

impl Frame {
    /// The frame's canonical bytes without the length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
    /// Reads a frame of at most `max` bytes.
    pub fn from_bytes(bytes: &[u8], max: usize) -> Result<Self, DecodeError> {
        decode(bytes, max)
    }
    /// A name for counters and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::HelloAck(_) => "hello_ack",
            Self::Join(_) => "join",
            Self::Joined(_) => "joined",
            Self::Overlay(f) => f.name(),
            Self::Transfer(f) => f.name(),
            Self::Bye(_) => "bye",
        }
    }
}
