//! The payload of an RPM package: a cpio archive of the form `newc`, one entry after the other.

use std::io::{self, Read};

const HEAD_LEN: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Bytes of a name, with its closing zero.
const NAME_LEN_MAX: u64 = 4_096;

/// What stands before the bytes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// How many names its file has.
    pub(super) nlink: u64,
    pub(super) size: u64,
}

/// Reads an archive.
pub(super) struct Archive<R> {
    reader: R,
    /// Bytes of the entry that nobody has read yet, and those up to the next one.
    left: u64,
    pad: u64,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> Archive<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self { reader, left: 0, pad: 0 }
    }

    /// The next entry; none at the archive's end.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut head = [0; HEAD_LEN];
        self.reader.read_exact(&mut head)?;
        match head.get(..6) {
            Some(b"070701" | b"070702") => {}
            Some(b"07070X") => return Err(bad("its payload has files of 4 GiB or more")),
            _ => return Err(bad("its payload is no cpio archive of the form newc")),
        }
        let field = |i: usize| -> io::Result<u64> {
            let digits = head.get(6 + 8 * i..14 + 8 * i).unwrap_or_default();
            let text = std::str::from_utf8(digits).map_err(|_e| bad("a field of no digits"))?;
            u64::from_str_radix(text, 16).map_err(|_e| bad("a field of no digits"))
        };
        let (nlink, size, name_len) = (field(4)?, field(6)?, field(11)?);
        if name_len == 0 || name_len > NAME_LEN_MAX {
            return Err(bad(format!("a name of {name_len} bytes")));
        }
        let padded = (HEAD_LEN as u64 + name_len).next_multiple_of(4) - HEAD_LEN as u64;
        let mut name = Vec::new();
        let read = (&mut self.reader).take(padded).read_to_end(&mut name)?;
        if read as u64 != padded {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        name.truncate(usize::try_from(name_len - 1).unwrap_or(0));
        let name = String::from_utf8(name).map_err(|_e| bad("a name that is no UTF-8"))?;
        if name.contains('\0') {
            return Err(bad("a name with a zero in it"));
        }
        if name == TRAILER {
            return Ok(None);
        }
        (self.left, self.pad) = (size, size.next_multiple_of(4) - size);
        Ok(Some(Entry { name, nlink, size }))
    }

    /// So many bytes of the entry.
    pub(super) fn data(&mut self, len: u64) -> impl Read + use<'_, R> {
        let len = len.min(self.left);
        self.left -= len;
        (&mut self.reader).take(len)
    }

    /// Goes on to the next entry; all bytes of this one must have been read.
    pub(super) fn finish_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(bad("an entry with more bytes than it may have"));
        }
        let pad = std::mem::take(&mut self.pad);
        io::copy(&mut (&mut self.reader).take(pad), &mut io::sink())?;
        Ok(())
    }
}
