//! Whole packs: one file each, named by its hash, kept to serve others.

use std::fs::{FileTimes, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use stork_wire::ids::PackId;
use stork_wire::limits::SEGMENT_LEN_MAX;

use super::fresh::Kind;
use super::write::{OpenFile, TEMP};
use super::{Store, StoreError, unshard};

/// A pack's time of use is written at most this often, so that serving costs no writes.
const USE_EVERY: Duration = Duration::from_secs(600);

/// The largest pack: a segment that does not compress grows by less than 1/128 and some bytes.
pub(super) const PACK_LEN_MAX: u64 = SEGMENT_LEN_MAX + SEGMENT_LEN_MAX / 128 + 1024;

/// A file of `objects/`, `packs/` or `manifests/`.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) id: [u8; 32],
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Seconds since 1970 of its last change; of a pack, its last use.
    pub(super) used: i64,
}

impl Store {
    pub(super) fn pack_path(&self, pack: PackId) -> PathBuf {
        self.sharded("packs", pack.as_bytes())
    }

    /// Is the whole pack here?
    #[must_use]
    pub fn has_pack(&self, pack: PackId) -> bool {
        self.touch(Kind::Pack, pack.as_bytes());
        self.pack_path(pack).is_file()
    }

    /// The size of a pack that is here whole.
    pub fn pack_size(&self, pack: PackId) -> Result<Option<u64>, StoreError> {
        if !self.has_pack(pack) {
            return Ok(None);
        }
        let file = self.open_pack(pack)?;
        file.len().map(Some).map_err(|f| self.fault(f))
    }

    /// Bytes of a pack that is here whole or open in parts: exactly `len` of them from `offset`.
    /// Of a partial pack only verified pieces are read.
    pub fn read_pack(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let end = offset.saturating_add(len as u64);
        if end > PACK_LEN_MAX {
            return Err(StoreError::PackUse { pack, why: "no pack is that long" });
        }
        if self.has_pack(pack) {
            let file = self.open_pack(pack)?;
            if end > file.len().map_err(|f| self.fault(f))? {
                return Err(StoreError::PackUse { pack, why: "the range ends beyond the pack" });
            }
            return file.read_at(offset, len).map_err(|f| self.fault(f));
        }
        match self.partial(pack) {
            Some(partial) => partial.read_range(offset, len),
            None => Err(StoreError::NoPack(pack)),
        }
    }

    /// Opens a whole pack and notes its use.
    pub(super) fn open_pack(&self, pack: PackId) -> Result<OpenFile, StoreError> {
        let path = self.pack_path(pack);
        let file = OpenFile::read_only(&path).map_err(|f| {
            if f.source.kind() == std::io::ErrorKind::NotFound {
                StoreError::NoPack(pack)
            } else {
                self.fault(f)
            }
        })?;
        let now = SystemTime::now();
        let used = file.file().metadata().and_then(|m: Metadata| m.modified());
        let old = used.is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age > USE_EVERY));
        if old && let Err(e) = file.file().set_times(FileTimes::new().set_modified(now)) {
            tracing::debug!(%e, pack = %pack.short(), "the use of a pack was not noted");
        }
        Ok(file)
    }

    /// The files of a sharded folder. Copies of an object (`.1`, …) have the id of the object.
    pub(super) fn files_of(&self, kind: &str) -> Result<Vec<StoredFile>, StoreError> {
        let mut out = Vec::new();
        for folder in 0..=255u8 {
            out.append(&mut self.files_in(kind, folder)?);
        }
        Ok(out)
    }

    /// The files of one of the 256 folders of a kind.
    pub(super) fn files_in(&self, kind: &str, folder: u8) -> Result<Vec<StoredFile>, StoreError> {
        let folder = format!("{folder:02x}");
        let dir = self.dir.join(kind).join(&folder);
        let names = super::open::names(&dir).map_err(|f| self.fault(f))?;
        let mut out = Vec::with_capacity(names.len());
        for name in names.into_iter().filter(|n| !n.starts_with(TEMP)) {
            let stem = name.split('.').next().unwrap_or(&name);
            let Some(id) = unshard(&folder, stem) else { continue };
            let path = dir.join(&name);
            // A file that was removed since is simply not there.
            let Ok(meta) = path.symlink_metadata() else { continue };
            out.push(StoredFile { id, path, bytes: meta.len(), used: meta.mtime() });
        }
        Ok(out)
    }
}
