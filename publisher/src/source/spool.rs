//! The contents of a package in one temporary file, so that no package has to fit into memory.
//!
//! Each distinct content is kept once and found by its hash. The file has no name and is gone when
//! the process is. Long zeros are holes in it, so that a disk image takes what it holds and not
//! what it could hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use stork_wire::ids::ContentId;

const CHUNK_LEN: usize = 128 * 1024;
static ZEROS: [u8; CHUNK_LEN] = [0; CHUNK_LEN];

/// Distinct contents, found by their hash.
#[derive(Debug)]
pub struct Spool {
    file: File,
    end: u64,
    index: BTreeMap<ContentId, (u64, u64)>,
}

/// Reads until the buffer is full or nothing follows.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// Reading a content into the spool failed on one of two sides.
#[derive(Debug)]
pub enum CopyError {
    /// The source could not be read.
    Read(io::Error),
    /// The temporary file could not be written.
    Write(io::Error),
}

impl Spool {
    /// An empty spool in the directory for temporary files.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, end: 0, index: BTreeMap::new() })
    }

    /// Takes all bytes of `reader`, at most `max`, and returns their hash and number. More than
    /// `max` bytes are not read: the caller sees by the number that there may be more.
    pub fn add(&mut self, reader: &mut dyn Read, max: u64) -> Result<(ContentId, u64), CopyError> {
        // What was read and dropped before must not stand where a hole will be.
        self.file.set_len(self.end).map_err(CopyError::Write)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_LEN];
        let mut len = 0u64;
        let mut reader = reader.take(max);
        loop {
            let n = fill(&mut reader, &mut buffer).map_err(CopyError::Read)?;
            if n == 0 {
                break;
            }
            let chunk = buffer.get(..n).unwrap_or_default();
            hasher.update(chunk);
            if ZEROS.get(..n) != Some(chunk) {
                self.file.write_all_at(chunk, self.end + len).map_err(CopyError::Write)?;
            }
            len += n as u64;
        }
        self.file.set_len(self.end + len).map_err(CopyError::Write)?;
        let id = ContentId(*hasher.finalize().as_bytes());
        if let std::collections::btree_map::Entry::Vacant(slot) = self.index.entry(id) {
            slot.insert((self.end, len));
            self.end += len;
        }
        Ok((id, len))
    }

    /// The size of a content; `None` if it is not here.
    #[must_use]
    pub fn len_of(&self, id: &ContentId) -> Option<u64> {
        self.index.get(id).map(|(_, len)| *len)
    }

    /// Appends `len` bytes of a content from `from` on to `out`.
    ///
    /// # Errors
    /// `NotFound` if the content is not here or is shorter than that.
    pub fn read_into(
        &self,
        id: &ContentId,
        from: u64,
        len: u64,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("content {id}"));
        let (offset, whole) = *self.index.get(id).ok_or_else(missing)?;
        if from.checked_add(len).is_none_or(|end| end > whole) {
            return Err(missing());
        }
        let start = out.len();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        out.resize(start + len, 0);
        let target = out.get_mut(start..).unwrap_or_default();
        self.file.read_exact_at(target, offset + from)
    }

    /// Number of distinct contents.
    #[must_use]
    pub fn count(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Zeros take no room, a content that was there already leaves nothing behind, and what comes
    /// after it has its own bytes.
    #[test]
    fn zeros_are_holes() {
        let mut spool = Spool::new().unwrap();
        let mut image = vec![0; 16 << 20];
        image[9 << 20] = 7;
        let (first, _) = spool.add(&mut image.as_slice(), u64::MAX).unwrap();
        let ones = vec![1; 1 << 20];
        let (second, _) = spool.add(&mut ones.as_slice(), u64::MAX).unwrap();
        // Dropped again, and then zeros at the same place.
        assert_eq!(spool.add(&mut ones.as_slice(), u64::MAX).unwrap().0, second);
        let zeros = vec![0; 3 << 20];
        let (third, _) = spool.add(&mut zeros.as_slice(), u64::MAX).unwrap();
        for (id, want) in [(first, &image), (second, &ones), (third, &zeros)] {
            let mut got = Vec::new();
            spool.read_into(&id, 0, want.len() as u64, &mut got).unwrap();
            assert!(got == *want);
        }
        let meta = spool.file.metadata().unwrap();
        assert_eq!(meta.len(), 20 << 20);
        assert!(meta.blocks() * 512 <= 2 << 20, "{}", meta.blocks());
    }
}
