//! What archives of every kind are written from: contents of the store, checked on their way.

use std::io::{self, Read, Seek, SeekFrom};

use ring::digest::{Context, SHA256};
use stork_wire::ids::ContentId;

const CHUNK: usize = 64 * 1024;

/// Gives the bytes of a content.
pub type Open<'a> = dyn FnMut(ContentId) -> io::Result<Box<dyn Read>> + 'a;

/// An archive that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub len: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Why the bytes of a content were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The disk's: a file of the store has other bytes than its name says.
    #[error("the store's file for content {} is damaged", .0.short())]
    Damaged(ContentId),
    /// The disk's.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
}

/// Length and hash of a file from its beginning.
pub fn describe<R: Read + Seek>(file: &mut R) -> io::Result<Written> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut len = 0;
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        len += n as u64;
        hash.update(chunk.get(..n).unwrap_or_default());
    }
    let sha256 = hash.finish().as_ref().try_into().unwrap_or_default();
    Ok(Written { len, sha256 })
}

/// Copies the bytes of a content, and checks that they are these.
pub fn copy_content(
    content: ContentId,
    size: u64,
    reader: Box<dyn Read>,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CopyError> {
    // One byte more, so that a file that is too long is seen.
    let mut reader = reader.take(size.saturating_add(1));
    let mut hash = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        let bytes = chunk.get(..n).unwrap_or_default();
        left = left.checked_sub(n as u64).ok_or(CopyError::Damaged(content))?;
        hash.update(bytes);
        out(bytes)?;
    }
    let right = left == 0 && *hash.finalize().as_bytes() == content.0;
    if right { Ok(()) } else { Err(CopyError::Damaged(content)) }
}
