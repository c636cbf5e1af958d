//! Packs that arrive piece by piece, in any order, from anybody.
//!
//! A piece is checked against its hash *before* it is written. Which pieces are here is
//! remembered in a map beside the data (`incoming/<pack>.map`), and written only after the data
//! is durable; at the next opening every piece that the map claims is hashed again, so that a map
//! can lie about nothing. The pack's id follows from the hashes of its pieces, which is checked at
//! the opening: when the last piece is here, the pack is right and gets its lasting name.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stork_wire::codec::encode;
use stork_wire::ids::{PackId, PieceHash};
use stork_wire::manifest::pack_id;

use super::fresh::Kind;
use super::packs::PACK_LEN_MAX;
use super::write::{self, OpenFile};
use super::{Store, StoreError, lock};
use crate::failpoint;

/// New pieces after which the map is written for the first time, and then after as many as it
/// holds: each map costs four waits for the disk, so that a fast fetch writes few. What a crash
/// costs is fetched again: at most as much as is kept.
const MAP_PIECES_MIN: usize = 16;
/// Time after which the next piece writes the map.
const MAP_EVERY: Duration = Duration::from_secs(1);

/// What writing a piece did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The piece was here already.
    Already,
    /// The piece is new.
    New,
    /// The piece is new and the pack is now whole, durable and in its place.
    Whole,
}

/// The map beside the data.
#[derive(Serialize, Deserialize)]
struct Map {
    size: u64,
    piece_len: u32,
    have: Vec<bool>,
}

#[derive(Debug)]
struct Inner {
    have: Vec<bool>,
    left: usize,
    unmapped: usize,
    mapped_at: Instant,
    whole: bool,
}

/// A pack that is filled piece by piece, or is whole already. Open once per store, shared by all.
#[derive(Debug)]
pub struct PartialPack {
    store: Arc<Store>,
    pack: PackId,
    size: u64,
    piece_len: u32,
    pieces: Vec<PieceHash>,
    file: OpenFile,
    inner: Mutex<Inner>,
    /// Held while the map is written or the pack finished, never while pieces come in.
    mapping: Mutex<()>,
}

impl Store {
    pub(super) fn incoming(&self, name: &str) -> PathBuf {
        self.dir.join("incoming").join(name)
    }

    /// The partial pack, if somebody has it open.
    pub(super) fn partial(&self, pack: PackId) -> Option<Arc<PartialPack>> {
        lock(&self.partials).get(&pack).and_then(Weak::upgrade)
    }

    /// Ids of the partial packs on disk, of downloads and of pushes.
    pub(super) fn partial_packs(&self) -> Result<Vec<(PackId, PathBuf)>, StoreError> {
        let dir = self.dir.join("incoming");
        let names = super::open::names(&dir).map_err(|f| self.fault(f))?;
        let pack = |name: &String| {
            let stem = name.strip_suffix(".up").unwrap_or(name);
            stem.parse().ok().map(|id| (id, dir.join(name)))
        };
        Ok(names.iter().filter_map(pack).collect())
    }

    /// Opens a pack to fill it, or goes on where an earlier run stopped. All callers share one.
    pub fn open_partial(
        self: &Arc<Self>,
        pack: PackId,
        size: u64,
        piece_len: u32,
        pieces: &[PieceHash],
    ) -> Result<Arc<PartialPack>, StoreError> {
        let fits =
            (1..=PACK_LEN_MAX).contains(&size) && pack_id(pieces, piece_len, size) == Some(pack);
        if !fits {
            return Err(StoreError::PackUse { pack, why: "its pieces do not make it" });
        }
        self.touch(Kind::Pack, pack.as_bytes());
        let mut partials = lock(&self.partials);
        partials.retain(|_, p| p.strong_count() > 0);
        if let Some(open) = partials.get(&pack).and_then(Weak::upgrade) {
            if open.size != size || open.piece_len != piece_len || open.pieces != pieces {
                return Err(StoreError::PackUse { pack, why: "it is open with other pieces" });
            }
            return Ok(open);
        }
        let partial = Arc::new(self.load_partial(pack, size, piece_len, pieces)?);
        partials.insert(pack, Arc::downgrade(&partial));
        Ok(partial)
    }

    fn load_partial(
        self: &Arc<Self>,
        pack: PackId,
        size: u64,
        piece_len: u32,
        pieces: &[PieceHash],
    ) -> Result<PartialPack, StoreError> {
        let whole = self.pack_path(pack).is_file();
        let (file, have) = if whole {
            (self.open_pack(pack)?, vec![true; pieces.len()])
        } else {
            self.check_latch()?;
            let path = self.incoming(&pack.to_string());
            let file = OpenFile::open(&path).map_err(|f| self.fault(f))?;
            file.cut(size).map_err(|f| self.fault(f))?;
            let map = self.read_map(pack).filter(|m| {
                m.size == size && m.piece_len == piece_len && m.have.len() == pieces.len()
            });
            (file, map.map_or_else(|| vec![false; pieces.len()], |m| m.have))
        };
        let mut partial = PartialPack {
            store: Arc::clone(self),
            pack,
            size,
            piece_len,
            pieces: pieces.to_vec(),
            file,
            inner: Mutex::new(Inner {
                left: 0,
                have,
                unmapped: 0,
                mapped_at: Instant::now(),
                whole,
            }),
            mapping: Mutex::default(),
        };
        if !whole {
            partial.verify_claims();
            partial.write_map()?;
        }
        Ok(partial)
    }

    fn read_map(&self, pack: PackId) -> Option<Map> {
        let bytes = std::fs::read(self.incoming(&format!("{pack}.map"))).ok()?;
        postcard::from_bytes(&bytes).ok()
    }
}

impl PartialPack {
    /// Which pack it is.
    #[must_use]
    pub const fn id(&self) -> PackId {
        self.pack
    }

    /// Which pieces are here.
    #[must_use]
    pub fn have(&self) -> Vec<bool> {
        lock(&self.inner).have.clone()
    }

    /// Is the pack whole and in its lasting place?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        lock(&self.inner).whole
    }

    /// Forgets every claimed piece whose bytes don't hash right.
    fn verify_claims(&mut self) {
        let claimed = self.have();
        let good: Vec<bool> = claimed
            .iter()
            .zip(&self.pieces)
            .enumerate()
            .map(|(i, (claimed, hash))| {
                *claimed
                    && self.bounds(i).is_some_and(|(at, len)| {
                        self.file
                            .read_at(at, len)
                            .is_ok_and(|b| PieceHash::in_pack(&b, at, self.size) == *hash)
                    })
            })
            .collect();
        let inner = self.inner.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.left = good.iter().filter(|g| !**g).count();
        inner.have = good;
    }

    /// Where a piece is in the pack.
    fn bounds(&self, index: usize) -> Option<(u64, usize)> {
        let at = u64::from(self.piece_len).checked_mul(u64::try_from(index).ok()?)?;
        let len = self.size.checked_sub(at).filter(|l| *l > 0)?.min(u64::from(self.piece_len));
        Some((at, usize::try_from(len).ok()?))
    }

    /// Checks a piece and writes it.
    ///
    /// # Errors
    /// [`StoreError::BadPiece`] where the bytes are not the piece: nothing was written, and its
    /// sender is to blame. [`StoreError::Corrupt`] where all pieces were right and the whole is
    /// not the pack: the manifest contradicts itself, and the file was removed.
    pub fn write_piece(&self, index: u32, bytes: &[u8]) -> Result<Written, StoreError> {
        let (pack, i) = (self.pack, index as usize);
        let bad = StoreError::BadPiece { pack, index };
        let (Some((at, len)), Some(hash)) = (self.bounds(i), self.pieces.get(i)) else {
            return Err(StoreError::PackUse { pack, why: "it has no piece of that number" });
        };
        if bytes.len() != len || PieceHash::in_pack(bytes, at, self.size) != *hash {
            return Err(bad);
        }
        let (here, left) = {
            let inner = lock(&self.inner);
            (inner.whole || inner.have.get(i).copied().unwrap_or_default(), inner.left)
        };
        if here {
            // All pieces were here, but the end of it failed, for want of space perhaps: once
            // more.
            return if left == 0 && self.finish()? {
                Ok(Written::Whole)
            } else {
                Ok(Written::Already)
            };
        }
        self.store.check_latch()?;
        self.file.write_at(bytes, at).map_err(|f| self.store.fault(f))?;
        failpoint::hit("store.piece.written");
        let (left, map) = self.mark(i);
        if left == 0 {
            self.finish()?;
            return Ok(Written::Whole);
        }
        if map {
            self.write_map()?;
        }
        Ok(Written::New)
    }

    /// Notes a written piece; returns how many are left and whether the map is due.
    fn mark(&self, index: usize) -> (usize, bool) {
        let mut inner = lock(&self.inner);
        if let Some(have) = inner.have.get_mut(index).filter(|h| !**h) {
            *have = true;
            inner.left -= 1;
            inner.unmapped += 1;
        }
        let mapped = inner.have.len() - inner.left - inner.unmapped;
        let enough = inner.unmapped >= MAP_PIECES_MIN.max(mapped);
        let due = enough || inner.mapped_at.elapsed() >= MAP_EVERY;
        (inner.left, due)
    }

    /// Makes the pieces that are here durable and writes the map, if anything is new.
    pub fn flush(&self) -> Result<(), StoreError> {
        let inner = lock(&self.inner);
        let nothing = inner.whole || inner.unmapped == 0;
        drop(inner);
        if nothing { Ok(()) } else { self.write_map() }
    }

    fn write_map(&self) -> Result<(), StoreError> {
        let mapping = lock(&self.mapping);
        let have = {
            let mut inner = lock(&self.inner);
            if inner.whole {
                return Ok(());
            }
            inner.unmapped = 0;
            inner.mapped_at = Instant::now();
            inner.have.clone()
        };
        // The data first: a map must never claim bytes that a power cut can take.
        self.file.sync_data().map_err(|f| self.store.fault(f))?;
        let map = encode(&Map { size: self.size, piece_len: self.piece_len, have });
        let dir = self.store.dir.join("incoming");
        write::write_atomic(&dir, &format!("{}.map", self.pack), &map)
            .map_err(|f| self.store.fault(f))?;
        drop(mapping);
        failpoint::hit("store.piece.mapped");
        Ok(())
    }

    /// Makes the whole durable and gives it its lasting name; true for the one call that did it.
    /// Its pieces were all checked, and make the pack.
    fn finish(&self) -> Result<bool, StoreError> {
        let mapping = lock(&self.mapping);
        if lock(&self.inner).whole {
            return Ok(false);
        }
        self.store.touch(Kind::Pack, self.pack.as_bytes());
        let kept = self.file.keep(&self.store.pack_path(self.pack));
        kept.map_err(|f| self.store.fault(f))?;
        failpoint::hit("store.pack.renamed");
        lock(&self.inner).whole = true;
        let map = self.store.incoming(&format!("{}.map", self.pack));
        write::remove_file(&map).map_err(|f| self.store.fault(f))?;
        drop(mapping);
        Ok(true)
    }

    /// The bytes of a piece, if it is here.
    pub fn read_piece(&self, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let i = index as usize;
        let here = lock(&self.inner).have.get(i).copied().unwrap_or_default();
        let Some((at, len)) = self.bounds(i).filter(|_| here) else { return Ok(None) };
        self.file.read_at(at, len).map(Some).map_err(|f| self.store.fault(f))
    }

    /// Bytes that may cross pieces, all of which must be here.
    pub(super) fn read_range(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let end = offset.saturating_add(len as u64);
        let piece = u64::from(self.piece_len);
        if end > self.size {
            let why = "the range ends beyond the pack";
            return Err(StoreError::PackUse { pack: self.pack, why });
        }
        let have = self.have();
        let here = (offset / piece..end.div_ceil(piece))
            .all(|i| usize::try_from(i).is_ok_and(|i| have.get(i).copied().unwrap_or_default()));
        if !here {
            return Err(StoreError::NoPack(self.pack));
        }
        self.file.read_at(offset, len).map_err(|f| self.store.fault(f))
    }
}

impl Drop for PartialPack {
    fn drop(&mut self) {
        if let Err(e) = self.flush() {
            tracing::debug!(%e, pack = %self.pack.short(), "the map of a partial pack is behind");
        }
    }
}
