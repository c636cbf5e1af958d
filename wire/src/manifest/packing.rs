//! How a tree's bytes travel: packs, pieces and the delta against a base.

use serde::{Deserialize, Serialize};

use super::Tree;
use super::piece::pack_id;
use crate::codec::List;
use crate::ids::{ContentId, ManifestId, PackId, PieceHash, SwarmId, TreeId};
use crate::limits::{
    PACKS_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN, PIECES_MAX, PIECES_PER_PACK_MAX, PREFIX_RUNS_MAX,
    SEGMENT_LEN_MAX,
};

/// One compressed segment of a payload: a single zstd frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// The hash of its bytes.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of the payload that it holds.
    pub unpacked: u64,
    /// The hashes of its pieces, each of the packing's piece length but the last.
    pub pieces: List<PieceHash, PIECES_PER_PACK_MAX>,
}

/// A pack that needs bytes of the base as prefix dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaPack {
    /// The pack.
    pub pack: Pack,
    /// Contents of the base, whose bytes one after the other are the prefix.
    pub prefix: List<ContentId, PREFIX_RUNS_MAX>,
}

/// The packs for hosts that hold one base whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The base.
    pub base: TreeId,
    /// The packs, in order; together they hold the same payload as the full ones.
    pub packs: List<DeltaPack, PACKS_MAX>,
}

/// How a release's payload is cut and compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    /// Bytes of a piece of every pack but the last one of a pack.
    pub piece_len: u32,
    /// The full packs, in the order of the payload.
    pub packs: List<Pack, PACKS_MAX>,
    /// The delta, if it is worth it.
    pub delta: Option<Delta>,
}

/// Which packs of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// All of it.
    Full,
    /// For those who hold the base.
    Delta,
}

/// A packing that does not fit its tree or the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packing is wrong: {0}")]
pub struct PackingError(&'static str);

/// The piece length for packs of `total` bytes: about 512 to 1 024 pieces a release.
#[must_use]
pub fn piece_len_for(total: u64) -> u32 {
    let want = (total / 1024).max(1).next_power_of_two();
    u32::try_from(want).unwrap_or(PIECE_LEN_MAX).clamp(PIECE_LEN_MIN, PIECE_LEN_MAX)
}

impl Pack {
    /// Describes pack bytes.
    ///
    /// # Errors
    /// When it would have more pieces than a pack may have.
    pub fn describe(bytes: &[u8], unpacked: u64, piece_len: u32) -> Result<Self, PackingError> {
        let len = bytes.len() as u64;
        let offsets = (0u64..).step_by(piece_len as usize);
        let chunks = bytes.chunks(piece_len as usize).zip(offsets);
        let pieces = chunks.map(|(c, at)| PieceHash::in_pack(c, at, len)).collect();
        Ok(Self {
            id: PackId::of(bytes),
            size: len,
            unpacked,
            pieces: List::new(pieces).map_err(|_e| PackingError("too many pieces in a pack"))?,
        })
    }

    fn check(&self, piece_len: u32) -> Result<(), PackingError> {
        if self.unpacked == 0 || self.unpacked > SEGMENT_LEN_MAX {
            return Err(PackingError("a segment is empty or longer than 32 MiB"));
        }
        // A zstd frame of incompressible bytes grows by less than 1/128 and some bytes.
        if self.size == 0 || self.size > self.unpacked + self.unpacked / 128 + 1024 {
            return Err(PackingError("a pack is empty or larger than what it holds"));
        }
        if self.size.div_ceil(u64::from(piece_len)) != self.pieces.len() as u64 {
            return Err(PackingError("the number of pieces does not fit the size of a pack"));
        }
        if pack_id(&self.pieces, piece_len, self.size) != Some(self.id) {
            return Err(PackingError("the pieces of a pack do not make the pack"));
        }
        Ok(())
    }
}

impl Packing {
    /// Checks the packing against the limits and against the tree.
    pub fn check(&self, tree: &Tree) -> Result<(), PackingError> {
        if !(PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&self.piece_len)
            || !self.piece_len.is_power_of_two()
        {
            return Err(PackingError("the piece length is out of range"));
        }
        let payload = tree.payload_len();
        self.packs.iter().try_for_each(|p| p.check(self.piece_len))?;
        if self.packs.iter().map(|p| p.unpacked).sum::<u64>() != payload {
            return Err(PackingError("the packs do not hold the payload"));
        }
        if [Variant::Full, Variant::Delta].iter().any(|v| self.piece_count(*v) > PIECES_MAX) {
            return Err(PackingError("a variant has more than 65536 pieces"));
        }
        if let Some(delta) = &self.delta {
            delta.packs.iter().try_for_each(|p| p.pack.check(self.piece_len))?;
            if delta.packs.iter().map(|p| p.pack.unpacked).sum::<u64>() != payload {
                return Err(PackingError("the delta packs do not hold the payload"));
            }
        }
        Ok(())
    }

    /// The packs of a variant in order; none where there is no delta.
    #[must_use]
    pub fn packs(&self, variant: Variant) -> Vec<&Pack> {
        match (variant, &self.delta) {
            (Variant::Full, _) => self.packs.iter().collect(),
            (Variant::Delta, Some(d)) => d.packs.iter().map(|p| &p.pack).collect(),
            (Variant::Delta, None) => Vec::new(),
        }
    }

    /// Pieces of a variant: numbered from 0, through its packs in order.
    #[must_use]
    pub fn piece_count(&self, variant: Variant) -> usize {
        self.packs(variant).iter().map(|p| p.pieces.len()).sum()
    }

    /// Bytes to fetch for a variant.
    #[must_use]
    pub fn bytes(&self, variant: Variant) -> u64 {
        self.packs(variant).iter().map(|p| p.size).sum()
    }
}

impl SwarmId {
    /// The swarm of one variant of one manifest.
    #[must_use]
    pub fn for_variant(manifest: ManifestId, variant: Variant) -> Self {
        let mut input = manifest.as_bytes().to_vec();
        input.push(match variant {
            Variant::Full => 0,
            Variant::Delta => 1,
        });
        Self::of(&input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces grow with the release and stay between 64 KiB and 4 MiB.
    #[test]
    fn piece_lengths() {
        assert_eq!(piece_len_for(0), 64 * 1024);
        assert_eq!(piece_len_for(64 << 20), 64 * 1024);
        assert_eq!(piece_len_for(100 << 20), 128 * 1024);
        assert_eq!(piece_len_for(1 << 30), 1 << 20);
        assert_eq!(piece_len_for(1 << 40), 4 << 20);
    }
}
