//! From packs back to contents, with every hash checked: for `verify`, for the base of a delta, and
//! as the proof in tests that hosts can unpack what was packed.

use std::io::{self, Read};

use stork_wire::ids::{ContentId, PackId};
use stork_wire::manifest::{Manifest, Pack, Run, Variant};

use super::{Base, read_runs, zst};
use crate::source::{CopyError, Spool};

/// Packs that do not hold what their manifest says.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A pack is not there or cannot be read.
    #[error("pack {} cannot be read", pack.short())]
    Read {
        /// Which pack.
        pack: PackId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A pack's bytes do not hash to its id or pieces.
    #[error("pack {} is not what its manifest says", .0.short())]
    Hash(PackId),
    /// A pack does not decompress to what was announced.
    #[error("pack {} does not unpack", pack.short())]
    Frame {
        /// Which pack.
        pack: PackId,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A file's bytes do not hash to its content id.
    #[error("content {} is not what its manifest says", .0.short())]
    Content(ContentId),
    /// The variant needs a base that was not given.
    #[error("this delta needs its base")]
    NoBase,
    /// The temporary file failed.
    #[error("cannot write the contents to a temporary file")]
    Spool(#[source] io::Error),
}

impl UnpackError {
    /// Is it the content that is wrong, and not our disk?
    #[must_use]
    pub const fn is_mismatch(&self) -> bool {
        matches!(self, Self::Hash(_) | Self::Frame { .. } | Self::Content(_))
    }
}

/// Checks a pack's size and hash. That its pieces make it was checked with the manifest.
pub fn check_pack(pack: &Pack, bytes: &[u8]) -> Result<(), UnpackError> {
    if bytes.len() as u64 == pack.size && PackId::of(bytes) == pack.id {
        Ok(())
    } else {
        Err(UnpackError::Hash(pack.id))
    }
}

/// The payload as one stream over all packs.
struct Payload<'a> {
    packs: Vec<(&'a Pack, &'a [Run])>,
    fetch: &'a dyn Fn(&Pack) -> io::Result<Vec<u8>>,
    base: Option<Base<'a>>,
    next: usize,
    segment: io::Cursor<Vec<u8>>,
    error: Option<UnpackError>,
}

impl Payload<'_> {
    fn load(&mut self, at: usize) -> Result<Vec<u8>, UnpackError> {
        let Some(&(pack, prefix)) = self.packs.get(at) else { return Ok(Vec::new()) };
        let source = (self.fetch)(pack);
        let bytes = source.map_err(|source| UnpackError::Read { pack: pack.id, source })?;
        check_pack(pack, &bytes)?;
        let old = match (prefix, self.base) {
            ([], _) => None,
            (_, None) => return Err(UnpackError::NoBase),
            (runs, Some(base)) => Some(read_runs(base, runs).map_err(UnpackError::Spool)?),
        };
        let old = old.as_deref();
        zst::decompress(&bytes, pack.unpacked, old)
            .map_err(|source| UnpackError::Frame { pack: pack.id, source })
    }
}

impl Read for Payload<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.segment.read(buf)?;
            if n > 0 || buf.is_empty() || self.next >= self.packs.len() {
                return Ok(n);
            }
            let at = self.next;
            self.next += 1;
            match self.load(at) {
                Ok(bytes) => self.segment = io::Cursor::new(bytes),
                Err(e) => {
                    self.error = Some(e);
                    return Err(io::Error::other("a pack is wrong"));
                }
            }
        }
    }
}

/// A content of the base, read in parts.
struct Kept<'a> {
    base: Base<'a>,
    content: ContentId,
    at: u64,
}

impl Read for Kept<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.base.contents.len_of(&self.content).unwrap_or(0).saturating_sub(self.at);
        let mut bytes = Vec::new();
        self.base.contents.read_into(
            &self.content,
            self.at,
            left.min(buf.len() as u64),
            &mut bytes,
        )?;
        self.at += bytes.len() as u64;
        io::Cursor::new(bytes).read(buf)
    }
}

/// Unpacks a variant. `fetch` gives the bytes of a pack; at most one pack with its prefix and
/// segment is in memory.
pub fn unpack(
    manifest: &Manifest,
    variant: Variant,
    base: Option<Base<'_>>,
    fetch: &dyn Fn(&Pack) -> io::Result<Vec<u8>>,
) -> Result<Spool, UnpackError> {
    let contents = manifest.tree.payload();
    let (packs, kept) = match (variant, &manifest.packing.delta) {
        (Variant::Full, _) => {
            let packs = manifest.packing.packs.iter().map(|p| (p, &[][..])).collect();
            (packs, vec![false; contents.len()])
        }
        (Variant::Delta, Some(d)) => {
            let packs = d.packs.iter().map(|p| (&p.pack, &p.prefix[..])).collect();
            (packs, d.kept_flags(contents.len()).map_err(|_e| UnpackError::NoBase)?)
        }
        (Variant::Delta, None) => return Err(UnpackError::NoBase),
    };
    let segment = io::Cursor::new(Vec::new());
    let mut payload = Payload { packs, fetch, base, next: 0, segment, error: None };
    let mut spool = Spool::new().map_err(UnpackError::Spool)?;
    for ((id, size), kept) in contents.into_iter().zip(kept) {
        let added = if kept {
            let base = base.ok_or(UnpackError::NoBase)?;
            spool.add(&mut Kept { base, content: id, at: 0 }, size)
        } else {
            spool.add(&mut payload, size)
        };
        match added {
            Ok(got) if got == (id, size) => {}
            Ok(_) => return Err(UnpackError::Content(id)),
            Err(CopyError::Write(e)) => return Err(UnpackError::Spool(e)),
            Err(CopyError::Read(_)) => {
                return Err(payload.error.take().unwrap_or(UnpackError::Content(id)));
            }
        }
    }
    Ok(spool)
}
