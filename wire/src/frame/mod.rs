//! Frames of the control stream between two nodes (ALPN `stork/1`).
//!
//! A frame is a length of four bytes, little endian, and so many bytes of canonical postcard. The
//! first frame of a connection is [`Frame::Hello`] or [`Frame::Join`]; nothing else is read before.

mod bulk;
#[cfg(test)]
mod golden;
mod overlay;
mod push;
mod short;
mod transfer;

pub use bulk::{BULK_HEADER_LEN_MAX, BulkHeader};
pub use overlay::{Have, ItemRange, LinkClass, OverlayFrame, PeerHint, ShortLog, SketchCell};
pub use push::{PackState, PushReply, PushRequest, RELEASES_AT_ONCE, Refusal};
pub use transfer::{Bits, TransferFrame};

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, List, decode, encode};
use crate::ids::{FleetId, GroupKeyId};
use crate::item::Item;
use crate::limits::{HINTS_MAX, KEYS_PER_FRAME_MAX, ROOTS_MAX};
use crate::seal::GroupKey;
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
    /// A host asks for the keys of private groups that its certificate grants it.
    KeysAsk(List<GroupKeyId, KEYS_PER_FRAME_MAX>),
    /// Those that the asked one has and the asker may have.
    Keys(List<GroupKey, KEYS_PER_FRAME_MAX>),
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
        roots: List<Item, ROOTS_MAX>,
        /// Hosts to dial first: the admitting one, and some that it knows.
        peers: List<PeerHint, HINTS_MAX>,
    },
    /// It is not, and why.
    Refused(Line),
}

/// Does the frame name a type that this version does not know?
fn is_later_type(bytes: &[u8]) -> bool {
    let Ok((outer, rest)) = postcard::take_from_bytes::<u64>(bytes) else { return false };
    let known = match outer {
        Frame::OVERLAY => OverlayFrame::KINDS,
        Frame::TRANSFER => TransferFrame::KINDS,
        _ => return outer >= Frame::KINDS,
    };
    postcard::take_from_bytes::<u64>(rest).is_ok_and(|(inner, _)| inner >= known)
}

impl Frame {
    /// Types of frame that are known here; a number from this on belongs to a later version.
    const KINDS: u64 = 9;
    /// The numbers of the two types that hold types of their own.
    const OVERLAY: u64 = 4;
    const TRANSFER: u64 = 5;

    /// The frame's canonical bytes without the length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
    /// Reads a frame of at most `max` bytes. A type of frame that is not known here is told apart
    /// from bytes that are no frame: a later version may send it (attack T119).
    pub fn from_bytes(bytes: &[u8], max: usize) -> Result<Self, DecodeError> {
        if bytes.len() <= max && is_later_type(bytes) {
            return Err(DecodeError::UnknownType);
        }
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
            Self::KeysAsk(_) => "keys_ask",
            Self::Keys(_) => "keys",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Blob;
    use crate::ids::{LogId, ManifestId, SwarmId, hex, unhex};
    use crate::item::Head;
    use crate::limits::{FRAME_LEN_MAX, HEADS_PER_FRAME_MAX, SKETCH_CELLS_MAX};

    /// The frames of a sketch are these bytes and no others; written by hand from the page.
    #[test]
    fn golden_sketch_frames() {
        let (a, b) = (ShortLog([0xa1; 8]), ShortLog([0xb2; 8]));
        let mut cell = [0; 24];
        (cell[0], cell[8], cell[23]) = (1, 2, 3);
        let frames = [
            (OverlayFrame::SketchAsk { start: 300, count: 2 }, "040dac0202"),
            (
                OverlayFrame::Sketch {
                    fingerprint: [7; 8],
                    logs: 10_000,
                    start: 0,
                    cells: List::truncated([SketchCell(cell)]),
                },
                "040e0707070707070707904e0001\
                 010000000000000002000000000000000000000000000003",
            ),
            (
                OverlayFrame::HeadsAsk(List::truncated([a, b])),
                "040f02a1a1a1a1a1a1a1a1b2b2b2b2b2b2b2b2",
            ),
            (
                OverlayFrame::Ahead(List::truncated([(a, 5), (b, 128)])),
                "041002a1a1a1a1a1a1a1a105b2b2b2b2b2b2b2b28001",
            ),
        ];
        for (frame, text) in frames {
            let (frame, bytes) = (Frame::Overlay(frame), unhex(text).unwrap());
            assert_eq!(hex(&frame.to_bytes()), text);
            assert_eq!(Frame::from_bytes(&bytes, FRAME_LEN_MAX), Ok(frame));
            let longer: Vec<u8> = bytes.into_iter().chain([0]).collect();
            assert!(Frame::from_bytes(&longer, FRAME_LEN_MAX).is_err());
        }
    }

    /// The longest frames of sync fit into a frame, and one element more is refused.
    #[test]
    fn the_longest_frames_of_sync_fit() {
        let sketch = |n| {
            let cells = List::<SketchCell, 9_999>::truncated(vec![SketchCell([9; 24]); n]);
            encode(&(4u8, 14u8, [7u8; 8], u32::MAX, u32::MAX, cells))
        };
        let full = sketch(SKETCH_CELLS_MAX);
        assert!(Frame::from_bytes(&full, FRAME_LEN_MAX).is_ok());
        assert!(Frame::from_bytes(&sketch(SKETCH_CELLS_MAX + 1), FRAME_LEN_MAX).is_err());
        let all = vec![(ShortLog([1; 8]), u64::MAX); HEADS_PER_FRAME_MAX];
        let ahead = Frame::Overlay(OverlayFrame::Ahead(List::truncated(all)));
        assert!(ahead.to_bytes().len() <= FRAME_LEN_MAX);
        let head = Head { log: LogId([1; 32]), seq: u64::MAX, hash: [1; 8] };
        let heads = List::truncated(vec![head; HEADS_PER_FRAME_MAX]);
        let heads = Frame::Overlay(OverlayFrame::Heads { heads, last: true, answer: true });
        assert!(heads.to_bytes().len() <= FRAME_LEN_MAX);
    }

    /// A type that only a later version knows is told apart from nonsense; the counts of known
    /// types are right, so that no known type is taken for a later one.
    #[test]
    fn t119_later_types_are_not_malformed() {
        let read = |bytes: &[u8]| Frame::from_bytes(bytes, FRAME_LEN_MAX);
        let keys = Frame::Keys(List::truncated([GroupKey::from_bytes([9; 32])]));
        let empty = Envelope { body: Blob::default(), signatures: List::empty() };
        let (hop, age_ms, entry, envelope) = (1, 0, 0, Box::new(empty));
        let push = OverlayFrame::PushEntry { hop, age_ms, entry, envelope };
        let push = Frame::Overlay(push);
        let swarm = SwarmId([1; 32]);
        let (manifest, bytes) = (ManifestId([2; 32]), Blob::new(vec![3]).unwrap());
        let end = Frame::Transfer(TransferFrame::Small { manifest, swarm, bytes });
        for last in [keys, push, end] {
            let bytes = last.to_bytes();
            assert_eq!(read(&bytes), Ok(last));
            let at = usize::from(matches!(bytes[0], 4 | 5));
            let mut later = bytes;
            later[at] += 1;
            assert_eq!(read(&later), Err(DecodeError::UnknownType));
            later[at] = 0xff;
            later.splice(at + 1..at + 1, [0x7f]);
            assert_eq!(read(&later), Err(DecodeError::UnknownType));
        }
        assert!(matches!(read(&[]), Err(DecodeError::Malformed(_))));
        assert!(matches!(read(&[4]), Err(DecodeError::Malformed(_))));
        assert!(matches!(read(&[4, 1, 9]), Err(DecodeError::Malformed(_))));
    }
}
