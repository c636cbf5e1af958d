//! How a tree's bytes travel: packs, pieces and the delta against a base.

use serde::{Deserialize, Serialize};

use super::Tree;
use super::piece::pack_id;
use crate::codec::{List, TooMany};
use crate::ids::{ContentId, ManifestId, PackId, PieceHash, SwarmId, TreeId};
use crate::limits::{
    PACKS_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN, PIECES_MAX, PIECES_PER_PACK_MAX, PREFIX_RUNS_MAX,
    SEGMENT_LEN_MAX, TREE_ENTRIES_MAX,
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
    /// Parts of contents of the base, whose bytes one after the other are the prefix.
    pub prefix: List<Run, PREFIX_RUNS_MAX>,
}

/// A part of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The content.
    pub content: ContentId,
    /// Where the part begins.
    pub from: u64,
    /// Its bytes; 0 for all up to the end of the content.
    pub len: u64,
}

impl Run {
    /// A whole content.
    #[must_use]
    pub const fn whole(content: ContentId) -> Self {
        Self { content, from: 0, len: 0 }
    }

    /// Its length within a content of `size` bytes; `None` where it does not lie in there.
    #[must_use]
    pub fn len_in(&self, size: u64) -> Option<u64> {
        let rest = size.checked_sub(self.from)?;
        match self.len {
            0 => Some(rest),
            len => (len <= rest).then_some(len),
        }
    }
}

/// Consecutive contents of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The number of the first one.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// The packs for hosts that hold one base whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The base.
    pub base: TreeId,
    /// Contents of the payload that the base has too, in order: no pack holds them.
    pub kept: List<Span, TREE_ENTRIES_MAX>,
    /// The packs, in order; together they hold all other contents of the payload.
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

/// The piece length for packs of `total` bytes: about 1 024 to 2 048 pieces a release.
///
/// A piece goes on when it is whole, so that each step of its way costs the time of one: twice as
/// many pieces as protocol.md §3e has bring the last host of five sites from 1.074 to 1.049 of the
/// bound (docs/PROMISES.md). Four times as many bring 0.005 more, for twice the frames.
#[must_use]
pub fn piece_len_for(total: u64) -> u32 {
    let want = (total / 2048).max(1).next_power_of_two();
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
            let kept = delta.kept_flags(tree.payload().len())?;
            let fresh = tree.payload().into_iter().zip(kept).filter(|(_, kept)| !kept);
            let fresh = fresh.map(|((_, size), _)| size).sum::<u64>();
            if delta.packs.iter().map(|p| p.pack.unpacked).sum::<u64>() != fresh {
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

impl Delta {
    /// For each of `count` contents of the payload: does the base have it?
    ///
    /// # Errors
    /// When spans are empty, out of order or beyond the payload.
    pub fn kept_flags(&self, count: usize) -> Result<Vec<bool>, PackingError> {
        const WRONG: PackingError = PackingError("the contents that a delta keeps are no spans");
        let mut flags = vec![false; count];
        let mut end = 0;
        for (i, span) in self.kept.iter().enumerate() {
            let first = span.first as usize;
            // Two spans without a gap would be a second way to write one.
            if span.count == 0 || first < end || (i > 0 && first == end) {
                return Err(WRONG);
            }
            end = first.saturating_add(span.count as usize);
            flags.get_mut(first..end).ok_or(WRONG)?.fill(true);
        }
        Ok(flags)
    }

    /// Spans of the contents that are flagged.
    ///
    /// # Errors
    /// When there are more contents than a tree may have.
    pub fn spans(flags: &[bool]) -> Result<List<Span, TREE_ENTRIES_MAX>, TooMany> {
        let mut out: Vec<Span> = Vec::new();
        for (number, _) in (0u32..).zip(flags).filter(|(_, kept)| **kept) {
            match out.last_mut() {
                Some(span) if span.first + span.count == number => span.count += 1,
                _ => out.push(Span { first: number, count: 1 }),
            }
        }
        List::new(out)
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
        assert_eq!(piece_len_for(128 << 20), 64 * 1024);
        assert_eq!(piece_len_for(200 << 20), 128 * 1024);
        assert_eq!(piece_len_for(1 << 30), 1 << 19);
        assert_eq!(piece_len_for(1 << 40), 4 << 20);
    }

    /// Spans say what flags say, and nothing else is taken for them.
    #[test]
    fn kept_contents() {
        let delta = |spans: &[(u32, u32)]| Delta {
            base: TreeId::of(b""),
            kept: List::new(spans.iter().map(|&(first, count)| Span { first, count }).collect())
                .unwrap(),
            packs: List::empty(),
        };
        for flags in [&[][..], &[true], &[false], &[true, true, false, true, false]] {
            let spans = Delta::spans(flags).unwrap();
            let delta = Delta { kept: spans, ..delta(&[]) };
            assert_eq!(delta.kept_flags(flags.len()).unwrap(), flags);
        }
        for wrong in [&[(0, 0)][..], &[(0, 4)], &[(3, 1)], &[(0, 1), (1, 1)], &[(1, 1), (0, 1)]] {
            assert!(delta(wrong).kept_flags(3).is_err(), "{wrong:?}");
        }
        assert!(delta(&[(u32::MAX, u32::MAX)]).kept_flags(3).is_err());
    }

    /// A run lies within its content, and reaches to its end where it has no length.
    #[test]
    fn runs() {
        let run = |from, len| Run { content: ContentId::of(b""), from, len }.len_in(10);
        assert_eq!(run(0, 0), Some(10));
        assert_eq!(run(4, 0), Some(6));
        assert_eq!(run(4, 6), Some(6));
        assert_eq!(run(4, 7), None);
        assert_eq!(run(11, 0), None);
        assert_eq!(run(4, u64::MAX), None);
    }
}
