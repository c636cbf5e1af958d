//! Hashes of a pack's pieces that together make the pack's id.
//!
//! A piece of a pack is a whole subtree of the pack's BLAKE3 tree (BLAKE3 paper, section 2.1),
//! since its length is a power of two and at least one chunk of 1 KiB. Its hash is the chaining
//! value of that subtree, so that the pack's id follows from the hashes of its pieces: a manifest
//! whose pieces do not make its packs is refused before anything is fetched, and a pack whose
//! pieces were all checked need not be read and hashed once more. A pack of one piece has the same
//! hash as it.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, max_subtree_len};
use blake3::hazmat::{merge_subtrees_non_root, merge_subtrees_root};

use crate::ids::{PackId, PieceHash};

/// Splits that lead from a pack to its pieces: enough for 2³² pieces.
const DEPTH_MAX: u8 = 32;

impl PieceHash {
    /// Hashes the piece of a pack of `pack_len` bytes that begins at `offset`.
    ///
    /// Every offset and length has a hash; it is part of a pack's id only where the piece is one of
    /// those that [`pack_id`] knows.
    #[must_use]
    pub fn in_pack(bytes: &[u8], offset: u64, pack_len: u64) -> Self {
        // In this order: no subtree begins elsewhere, and BLAKE3's own answer would be a panic.
        let fits = offset.is_multiple_of(blake3::CHUNK_LEN as u64)
            && max_subtree_len(offset).is_none_or(|max| bytes.len() as u64 <= max);
        if bytes.len() as u64 == pack_len || bytes.is_empty() || !fits {
            return Self::of(bytes);
        }
        let mut hasher = blake3::Hasher::new();
        Self(hasher.set_input_offset(offset).update(bytes).finalize_non_root())
    }
}

/// The id of the pack of `pack_len` bytes that has these pieces; `None` if such pieces cannot be.
#[must_use]
pub fn pack_id(pieces: &[PieceHash], piece_len: u32, pack_len: u64) -> Option<PackId> {
    let fits = piece_len.is_power_of_two()
        && piece_len as usize >= blake3::CHUNK_LEN
        && pack_len > 0
        && pack_len.div_ceil(u64::from(piece_len)) == pieces.len() as u64;
    match pieces {
        _ if !fits => None,
        [only] => Some(PackId(only.0)),
        _ => {
            let (left, right) = halves(pieces, piece_len, pack_len, DEPTH_MAX)?;
            Some(PackId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
        }
    }
}

type Pair = (ChainingValue, ChainingValue);

fn halves(pieces: &[PieceHash], piece_len: u32, len: u64, depth: u8) -> Option<Pair> {
    let left = left_subtree_len(len);
    let count = usize::try_from(left / u64::from(piece_len)).ok()?;
    let (first, second) = pieces.split_at_checked(count)?;
    let depth = depth.checked_sub(1)?;
    Some((subtree(first, piece_len, left, depth)?, subtree(second, piece_len, len - left, depth)?))
}

fn subtree(pieces: &[PieceHash], piece_len: u32, len: u64, depth: u8) -> Option<ChainingValue> {
    if let [only] = pieces {
        return Some(only.0);
    }
    let (left, right) = halves(pieces, piece_len, len, depth)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u32 = 64 * 1024;

    fn hashes(bytes: &[u8]) -> Vec<PieceHash> {
        let offsets = (0u64..).step_by(PIECE as usize);
        let chunks = bytes.chunks(PIECE as usize).zip(offsets);
        chunks.map(|(c, at)| PieceHash::in_pack(c, at, bytes.len() as u64)).collect()
    }

    /// For every number of pieces up to forty, and last pieces of any length, the pieces make the
    /// pack.
    #[test]
    fn pieces_make_the_pack() {
        let piece = PIECE as usize;
        let mut lens: Vec<usize> = (1..=40).map(|n| n * piece).collect();
        lens.extend([1, 1023, 1024, 1025, piece - 1, piece + 1, 3 * piece + 1, 7 * piece + 5_000]);
        for len in lens {
            let byte = |i: usize| u8::try_from(i * i / 7 % 251).unwrap();
            let bytes: Vec<u8> = (0..len).map(byte).collect();
            let id = pack_id(&hashes(&bytes), PIECE, len as u64);
            assert_eq!(id, Some(PackId::of(&bytes)), "{len} bytes");
        }
    }

    /// A wrong, missing, exchanged or further piece makes another pack or none.
    #[test]
    fn other_pieces_make_no_such_pack() {
        let bytes = vec![7; 5 * PIECE as usize + 3];
        let (len, right) = (bytes.len() as u64, hashes(&bytes));
        let id = Some(PackId::of(&bytes));
        let mut wrong = right.clone();
        wrong[4].0[0] ^= 1;
        assert_ne!(pack_id(&wrong, PIECE, len), id);
        wrong.clone_from(&right);
        wrong.swap(0, 5);
        assert_ne!(pack_id(&wrong, PIECE, len), id);
        assert_eq!(pack_id(&right[1..], PIECE, len), None);
        assert_eq!(pack_id(&right, PIECE, len + u64::from(PIECE)), None);
        assert_eq!(pack_id(&right, 0, len), None);
        assert_eq!(pack_id(&right, 3, len), None);
        assert_eq!(pack_id(&[], PIECE, 0), None);
        // The same bytes at another place are another piece.
        assert_ne!(right[0], right[1]);
    }

    /// Whatever offset and length a hostile peer claims: a hash, and no panic.
    #[test]
    fn any_offset_has_a_hash() {
        for offset in [0, 1, 1024, u64::from(PIECE), u64::MAX - 1023, u64::MAX] {
            for len in [0, 1, 1024, 3 * PIECE as usize] {
                let bytes = vec![1; len];
                let hash = PieceHash::in_pack(&bytes, offset, 1 << 20);
                assert_eq!(hash, PieceHash::in_pack(&bytes, offset, 1 << 20));
            }
        }
    }
}
