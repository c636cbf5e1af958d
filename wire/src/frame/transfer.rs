//! Frames of content transfer (design §7, protocol.md §3e). The bytes travel on the bulk
//! connection.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, List};
use crate::ids::{ManifestId, SwarmId};
use crate::limits::{PIECES_MAX, PIECES_PER_PACK_MAX, SMALL_LEN_MAX};

/// A set of piece numbers, one bit each, lowest bit first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bits(Blob<{ PIECES_MAX / 8 }>);

impl Bits {
    /// The set of these numbers below `len`.
    #[must_use]
    pub fn from_pieces(pieces: impl IntoIterator<Item = u32>, len: u32) -> Self {
        let mut bytes = vec![0u8; (len as usize).div_ceil(8).min(PIECES_MAX / 8)];
        for p in pieces {
            if p < len
                && let Some(b) = bytes.get_mut(p as usize / 8)
            {
                *b |= 1 << (p % 8);
            }
        }
        Self(Blob::new(bytes).unwrap_or_default())
    }

    /// The numbers in the set that are below `len`.
    pub fn pieces(&self, len: u32) -> impl Iterator<Item = u32> + '_ {
        let all = self.0.iter().zip(0u32..);
        all.flat_map(|(b, i)| (0..8).filter(move |k| b & (1 << k) != 0).map(move |k| i * 8 + k))
            .filter(move |p| *p < len)
    }
}

/// One message about content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferFrame {
    /// Tell me once you have this manifest.
    Interest(ManifestId),
    /// I have that manifest.
    HasManifest(ManifestId),
    /// Send me that manifest on the bulk connection.
    GetManifest(ManifestId),
    /// Not now: ask again after this time, or ask another.
    Busy {
        /// Which manifest.
        manifest: ManifestId,
        /// Milliseconds to wait.
        retry_ms: u32,
    },
    /// I take part in this swarm, and have these pieces.
    Open {
        /// Which swarm.
        swarm: SwarmId,
        /// How many pieces it has.
        pieces: u32,
        /// Those that the sender has.
        have: Bits,
    },
    /// Pieces that the sender has since got and verified.
    Have {
        /// Which swarm.
        swarm: SwarmId,
        /// Their numbers.
        pieces: List<u32, PIECES_PER_PACK_MAX>,
    },
    /// You may ask me for one piece of this swarm now.
    Grant {
        /// Which swarm.
        swarm: SwarmId,
        /// For so many milliseconds.
        ttl_ms: u32,
    },
    /// Use of a grant: send me this piece.
    Request {
        /// Which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// A grant that is not used.
    Pass(SwarmId),
    /// That piece is no longer wanted.
    Cancel {
        /// Which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// To an origin: nobody near has this piece, please offer it again.
    Rare {
        /// Which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
    },
    /// I have no room for another neighbour in this swarm; ask again later.
    Refuse {
        /// Which swarm.
        swarm: SwarmId,
        /// Milliseconds to wait.
        retry_ms: u32,
    },
    /// I do not take part in this swarm (any more).
    Close(SwarmId),
    /// Of a gateway in another site: push to me what you have and get of this stripe, the pieces
    /// whose number modulo `of` is `stripe`.
    Subscribe {
        /// Which swarm.
        swarm: SwarmId,
        /// Which stripe.
        stripe: u32,
        /// Of how many.
        of: u32,
        /// How many pieces the swarm has.
        pieces: u32,
        /// Those that are not wanted.
        have: Bits,
    },
    /// The end of that.
    Unsubscribe {
        /// Which swarm.
        swarm: SwarmId,
        /// Which stripe.
        stripe: u32,
        /// Of how many.
        of: u32,
    },
    /// Send me this manifest and the packs of this variant of it together, as soon as you have
    /// both. Only for what is known to be small from its announcement.
    GetSmall {
        /// Which manifest.
        manifest: ManifestId,
        /// Which variant of it.
        swarm: SwarmId,
    },
    /// The answer.
    Small {
        /// Which manifest.
        manifest: ManifestId,
        /// Which variant of it.
        swarm: SwarmId,
        /// The manifest, then the packs in its order.
        bytes: Blob<SMALL_LEN_MAX>,
    },
}

impl TransferFrame {
    /// Types of frame that are known here; a number from this on belongs to a later version.
    pub(super) const KINDS: u64 = 17;

    /// The manifest that it names.
    #[must_use]
    pub const fn manifest(&self) -> Option<ManifestId> {
        match self {
            Self::Interest(m) | Self::HasManifest(m) | Self::GetManifest(m) => Some(*m),
            Self::Busy { manifest, .. }
            | Self::GetSmall { manifest, .. }
            | Self::Small { manifest, .. } => Some(*manifest),
            _ => None,
        }
    }
    /// The swarm that it names.
    #[must_use]
    pub const fn swarm(&self) -> Option<SwarmId> {
        match self {
            Self::Interest(_) | Self::HasManifest(_) | Self::GetManifest(_) => None,
            Self::Busy { .. } => None,
            Self::Open { swarm, .. }
            | Self::Have { swarm, .. }
            | Self::Grant { swarm, .. }
            | Self::Request { swarm, .. }
            | Self::Pass(swarm)
            | Self::Cancel { swarm, .. }
            | Self::Rare { swarm, .. }
            | Self::Refuse { swarm, .. }
            | Self::Close(swarm)
            | Self::Subscribe { swarm, .. }
            | Self::Unsubscribe { swarm, .. }
            | Self::GetSmall { swarm, .. }
            | Self::Small { swarm, .. } => Some(*swarm),
        }
    }

    /// A name for counters and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Interest(_) => "interest",
            Self::HasManifest(_) => "has_manifest",
            Self::GetManifest(_) => "get_manifest",
            Self::Busy { .. } => "busy",
            Self::Open { .. } => "open",
            Self::Have { .. } => "have",
            Self::Grant { .. } => "grant",
            Self::Request { .. } => "request",
            Self::Pass(_) => "pass",
            Self::Cancel { .. } => "cancel",
            Self::Rare { .. } => "rare",
            Self::Refuse { .. } => "refuse",
            Self::Close(_) => "close",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::GetSmall { .. } => "get_small",
            Self::Small { .. } => "small",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits hold what was put in, and numbers beyond the length are dropped on both sides.
    #[test]
    fn bits() {
        let b = Bits::from_pieces([0, 7, 8, 99], 10);
        assert_eq!(b.pieces(10).collect::<Vec<_>>(), [0, 7, 8]);
        assert_eq!(b.pieces(8).collect::<Vec<_>>(), [0, 7]);
    }
}
