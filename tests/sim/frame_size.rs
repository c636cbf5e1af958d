//! How many bytes a frame takes on the control stream, without encoding it.
//!
//! Records of simulated hosts are a few bytes in memory; on the wire each counts as much as a real
//! certificate with its record.

use stork_wire::codec::List;
use stork_wire::frame::{Have, OverlayFrame, PeerHint};
use stork_wire::item::Item;
use stork_wire::sign::Envelope;

/// Bytes of a host's certificate and record, both signed: see the test.
pub(crate) const HINT_BYTES: u64 = 358;
/// Length of the frame, kind of frame, kind of overlay frame.
const HEAD: u64 = 4 + 1 + 1;
/// A Hello beside its record.
pub(crate) const HELLO_BYTES: u64 = 4 + 1 + 1 + 32 + 1 + 1 + HINT_BYTES;

/// Bytes of an answer to a Hello.
pub(crate) const fn ack_bytes(hints: usize) -> u64 {
    4 + 1 + 1 + 1 + HINT_BYTES * (hints as u64 + 1)
}

/// Bytes of a number in postcard's variable form.
const fn varint(x: u64) -> u64 {
    let bits = 64 - (x | 1).leading_zeros() as u64;
    bits.div_ceil(7)
}

fn list<T, const N: usize>(all: &List<T, N>, each: impl Fn(&T) -> u64) -> u64 {
    varint(all.len() as u64) + all.iter().map(each).sum::<u64>()
}

/// Bytes of an item.
pub(crate) fn item_bytes(item: &Item) -> u64 {
    1 + 32 + varint(item.seq) + envelope_bytes(&item.envelope)
}

fn envelope_bytes(envelope: &Envelope) -> u64 {
    let body = envelope.body.len() as u64;
    let signatures = &envelope.signatures;
    let key = signatures.first().map_or(0, |s| 64 + s.key.as_bytes().len() as u64);
    let signed = varint(signatures.len() as u64) + key * signatures.len() as u64;
    varint(body) + body + signed
}

fn hints<const N: usize>(all: &List<PeerHint, N>) -> u64 {
    list(all, |_| HINT_BYTES)
}

/// Bytes of a frame with its length.
pub(crate) fn frame_bytes(frame: &OverlayFrame) -> u64 {
    HEAD + match frame {
        OverlayFrame::Ping { nonce, carries, .. } => {
            varint(u64::from(*nonce)) + 8 + 1 + varint(*carries)
        }
        OverlayFrame::Pong { nonce, .. } => varint(u64::from(*nonce)) + 8 + 1,
        OverlayFrame::Records(peers) => hints(peers),
        OverlayFrame::Shuffle { nonce, peers } | OverlayFrame::ShuffleReply { nonce, peers } => {
            varint(*nonce) + hints(peers)
        }
        OverlayFrame::Unlink => 0,
        OverlayFrame::Push { age_ms, entry, item, .. } => {
            1 + varint(u64::from(*age_ms)) + varint(u64::from(*entry)) + item_bytes(item)
        }
        OverlayFrame::IHave(all) => {
            let short = |h: &Have| varint(h.more.into()) + varint(h.waited_ms.into());
            list(all, |h| 32 + varint(h.seq) + short(h))
        }
        OverlayFrame::Graft { seq, .. } => 32 + varint(*seq),
        OverlayFrame::Prune { .. } => 32,
        OverlayFrame::Heads { heads, .. } => list(heads, |h| 32 + varint(h.seq) + 8) + 2,
        OverlayFrame::Fetch(all) => list(all, |r| 32 + varint(r.from) + varint(r.to)),
        OverlayFrame::Items(all) => list(all, item_bytes),
        OverlayFrame::SketchAsk { start, count } => {
            varint(u64::from(*start)) + varint(u64::from(*count))
        }
        OverlayFrame::Sketch { logs, start, cells, .. } => {
            8 + varint(u64::from(*logs)) + varint(u64::from(*start)) + list(cells, |_| 24)
        }
        OverlayFrame::HeadsAsk(all) => list(all, |_| 8),
        OverlayFrame::Ahead(all) => list(all, |(_, seq)| 8 + varint(*seq)),
        OverlayFrame::Knows(bits) => varint(*bits),
        OverlayFrame::PushEntry { age_ms, entry, envelope, .. } => {
            let course = varint(u64::from(*age_ms)) + varint(u64::from(*entry));
            1 + course + envelope_bytes(envelope)
        }
    }
}

/// Bytes of the items in a frame.
pub(crate) fn payload_bytes(frame: &OverlayFrame) -> u64 {
    match frame {
        OverlayFrame::Push { item, .. } => item_bytes(item),
        OverlayFrame::PushEntry { envelope, .. } => envelope_bytes(envelope),
        OverlayFrame::Items(all) => all.iter().map(item_bytes).sum(),
        _ => 0,
    }
}
