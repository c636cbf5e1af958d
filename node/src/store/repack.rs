//! Making a full pack again from the files that it holds.
//!
//! A host that came by delta has the files but not the full packs that newcomers need. The same
//! zstd with the same parameters gives the same bytes; where it doesn't, the result is thrown
//! away.

use stork_wire::ids::PackId;
use stork_wire::limits::WINDOW_LOG_FULL;
use stork_wire::manifest::Manifest;
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use super::fresh::Kind;
use super::write::NewFile;
use super::{Store, StoreError, write};

/// The level at which publishers compress.
const LEVEL: i32 = 12;

/// Compresses as a publisher does; `None` where this zstd can't.
fn compress(segment: &[u8]) -> Option<Vec<u8>> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        CParameter::WindowLog(WINDOW_LOG_FULL),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    let mut out = Vec::with_capacity(compress_bound(segment.len()));
    context.compress2(&mut out, segment).ok()?;
    Some(out)
}

impl Store {
    /// Makes full pack number `index` of a manifest again. True if the pack is here now, false if
    /// this zstd makes other bytes of it.
    ///
    /// # Errors
    /// [`StoreError::NoContent`] where a file of it is not here.
    pub fn repack(&self, manifest: &Manifest, index: usize) -> Result<bool, StoreError> {
        let Some(pack) = manifest.packing.packs.get(index) else { return Ok(false) };
        if self.has_pack(pack.id) {
            return Ok(true);
        }
        let _hold = self.inner_hold();
        let from: u64 = manifest.packing.packs.iter().take(index).map(|p| p.unpacked).sum();
        let segment = self.segment(manifest, from, from + pack.unpacked)?;
        let Some(bytes) = compress(&segment).filter(|b| PackId::of(b) == pack.id) else {
            return Ok(false);
        };
        self.keep_pack(pack.id, &bytes)?;
        Ok(true)
    }

    /// The bytes of the payload in a range.
    fn segment(&self, manifest: &Manifest, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::with_capacity(usize::try_from(to - from).unwrap_or(0));
        let mut start = 0;
        for (content, size) in manifest.tree.payload() {
            let end = start + size;
            if start < to && end > from {
                let skip = from.saturating_sub(start);
                self.append_content(content, skip, to.min(end) - start.max(from), &mut out)?;
            }
            start = end;
        }
        Ok(out)
    }

    /// Keeps a pack whose hash was checked.
    fn keep_pack(&self, pack: PackId, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_latch()?;
        self.touch(Kind::Pack, pack.as_bytes());
        let keep = || {
            let mut file = NewFile::create(&self.dir.join("incoming"))?;
            file.write(bytes)?;
            file.sync()?;
            let path = self.pack_path(pack);
            file.replace(&path)?;
            path.parent().map_or(Ok(()), write::sync_dir)
        };
        keep().map_err(|f| self.fault(f))
    }
}
