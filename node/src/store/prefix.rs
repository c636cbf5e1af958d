//! The old bytes that a delta pack is unpacked with.
//!
//! They are parts of files of the base, and are not hashed before they are used: a part of a
//! large image would cost reading all of it. What comes out of the pack is hashed in any case, and
//! if that is wrong, the old files are looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use stork_wire::ids::{ContentId, PackId};
use stork_wire::limits::PREFIX_LEN_MAX;
use stork_wire::manifest::Run;

use super::unpack::UnpackError;
use super::write::Fault;
use super::{Store, StoreError};

impl Store {
    /// The bytes of a prefix; none for a full pack.
    pub(super) fn read_prefix(&self, pack: PackId, runs: &[Run]) -> Result<Vec<u8>, UnpackError> {
        let mut parts = Vec::new();
        let mut total = 0u64;
        for run in runs {
            let (_, row) = self.object_of(run.content)?.ok_or(UnpackError::NoBase(run.content))?;
            let len = run.len_in(row.size).ok_or(UnpackError::BadPrefix(pack))?;
            total = total.saturating_add(len);
            if total > PREFIX_LEN_MAX {
                return Err(UnpackError::LongPrefix(pack));
            }
            parts.push((run.content, run.from, len));
        }
        let mut out = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        for (content, from, len) in parts {
            self.append_content(content, from, len, &mut out)?;
        }
        Ok(out)
    }

    /// Appends a part of a content, which is not checked.
    pub(super) fn append_content(
        &self,
        content: ContentId,
        from: u64,
        len: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let path = self.content_path(content)?;
        let mut read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            file.take(len).read_to_end(out)
        };
        match read() {
            Ok(n) if n as u64 == len => Ok(()),
            Ok(_) => Err(StoreError::DamagedContent(content)),
            Err(e) => Err(self.fault(Fault::new("read", &path, e))),
        }
    }

    /// Hashes every content of a prefix.
    ///
    /// # Errors
    /// [`StoreError::DamagedContent`] where one is not what it was.
    pub(super) fn check_prefix(&self, runs: &[Run]) -> Result<(), StoreError> {
        for content in runs.iter().map(|r| r.content).collect::<BTreeSet<_>>() {
            let path = self.content_path(content)?;
            let mut hasher = blake3::Hasher::new();
            let read = File::open(&path).and_then(|f| hasher.update_reader(f).map(drop));
            read.map_err(|e| self.fault(Fault::new("read", &path, e)))?;
            if *hasher.finalize().as_bytes() != content.0 {
                return Err(StoreError::DamagedContent(content));
            }
        }
        Ok(())
    }
}
