//! Writes the payload of a package: a cpio archive of the form `newc`.

use std::io::{self, Write};

/// One entry without its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    /// The path from the top, without a slash before it.
    pub(super) path: &'a str,
    /// The same for all names of one file.
    pub(super) inode: u32,
    /// How many names it has.
    pub(super) names: u32,
    /// Type and permissions.
    pub(super) mode: u16,
    /// Seconds since 1970.
    pub(super) mtime: u32,
    /// Major and minor number of a device.
    pub(super) rdev: (u32, u32),
    /// Bytes that follow.
    pub(super) size: u32,
}

/// An archive that is being written.
pub(super) struct Archive<W> {
    out: W,
    len: u64,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, len: 0 }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Entries and names begin at multiples of four.
    pub(super) fn pad(&mut self) -> io::Result<()> {
        let missing = self.len.next_multiple_of(4) - self.len;
        let zeros = [0; 4];
        self.bytes(zeros.get(..usize::try_from(missing).unwrap_or(0)).unwrap_or_default())
    }

    /// What stands before the bytes of an entry; [`Self::pad`] after them.
    pub(super) fn begin(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.begin_named(head, &format!("./{}", head.path))
    }

    fn begin_named(&mut self, head: &Head<'_>, name: &str) -> io::Result<()> {
        let (major, minor) = head.rdev;
        let name_len = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let mut text = String::from("070701");
        let fields = [head.inode, head.mode.into(), 0, 0, head.names, head.mtime, head.size];
        for field in fields.into_iter().chain([0, 0, major, minor, name_len, 0]) {
            text.push_str(&format!("{field:08x}"));
        }
        self.bytes(text.as_bytes())?;
        self.bytes(name.as_bytes())?;
        self.bytes(&[0])?;
        self.pad()
    }

    /// The end of the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let nothing =
            Head { path: "", inode: 0, names: 1, mode: 0, mtime: 0, rdev: (0, 0), size: 0 };
        self.begin_named(&nothing, "TRAILER!!!")?;
        Ok(self.out)
    }
}
