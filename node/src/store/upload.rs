//! Packs that a publisher pushes: from front to back, resumed where a cut connection stopped.
//!
//! No piece hashes are known here, so that the whole is checked at the end; until then its bytes
//! are in `incoming/<pack>.up` and serve nobody.

use stork_wire::ids::PackId;

use super::fresh::Kind;
use super::packs::PACK_LEN_MAX;
use super::write::{self, Fault, OpenFile};
use super::{Store, StoreError, lock};
use crate::failpoint;

/// How much of a pushed pack is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// All of it, verified.
    Whole,
    /// The first so many bytes, not yet verified.
    Partial(u64),
}

impl Store {
    fn upload_file(&self, pack: PackId, size: u64) -> Result<(OpenFile, u64), StoreError> {
        if !(1..=PACK_LEN_MAX).contains(&size) {
            return Err(StoreError::PackUse { pack, why: "no pack has that size" });
        }
        self.check_latch()?;
        self.touch(Kind::Pack, pack.as_bytes());
        let file =
            OpenFile::open(&self.incoming(&format!("{pack}.up"))).map_err(|f| self.fault(f))?;
        let mut len = file.len().map_err(|f| self.fault(f))?;
        if len > size {
            file.cut(0).map_err(|f| self.fault(f))?;
            len = 0;
        }
        Ok((file, len))
    }

    /// How much of a pushed pack is here already.
    pub fn upload_state(&self, pack: PackId, size: u64) -> Result<UploadState, StoreError> {
        let uploading = lock(&self.uploading);
        if self.has_pack(pack) {
            return Ok(UploadState::Whole);
        }
        let (_, len) = self.upload_file(pack, size)?;
        drop(uploading);
        Ok(UploadState::Partial(len))
    }

    /// Appends bytes at exactly the end of what is here, and returns the new end.
    pub fn upload_append(
        &self,
        pack: PackId,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StoreError> {
        let uploading = lock(&self.uploading);
        let (file, len) = self.upload_file(pack, size)?;
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != len || end > size {
            return Err(StoreError::PackUse { pack, why: "the bytes do not follow what is here" });
        }
        if let Err(f) = file.write_at(bytes, offset) {
            // A part of the bytes may stand there; the next append begins where this one did.
            let cut = file.cut(len);
            let error = self.fault(f);
            cut.map_err(|f| self.fault(f))?;
            return Err(error);
        }
        drop(uploading);
        Ok(end)
    }

    /// Checks a pushed pack that is here to its end, and gives it its lasting name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the bytes are not the pack; they were removed.
    pub fn upload_finish(&self, pack: PackId, size: u64) -> Result<(), StoreError> {
        let uploading = lock(&self.uploading);
        if self.has_pack(pack) {
            return Ok(());
        }
        let (file, len) = self.upload_file(pack, size)?;
        if len != size {
            return Err(StoreError::PackUse { pack, why: "it is not here to its end" });
        }
        let mut hasher = blake3::Hasher::new();
        if let Err(e) = hasher.update_reader(file.file()) {
            let path = self.incoming(&format!("{pack}.up"));
            return Err(self.fault(Fault::new("read", &path, e)));
        }
        if *hasher.finalize().as_bytes() != pack.0 {
            write::remove_file(&self.incoming(&format!("{pack}.up"))).map_err(|f| self.fault(f))?;
            return Err(StoreError::Corrupt(pack));
        }
        file.keep(&self.pack_path(pack)).map_err(|f| self.fault(f))?;
        drop(uploading);
        failpoint::hit("store.pack.renamed");
        Ok(())
    }
}
