//! Writes tar archives as dpkg reads them: ustar headers with GNU long names, no pax records.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// Bytes that a name field holds.
const NAME_LEN: usize = 100;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

impl Kind {
    const fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Hardlink => b'1',
            Self::Symlink => b'2',
            Self::Char(..) => b'3',
            Self::Block(..) => b'4',
            Self::Dir => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// One entry without its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) path: &'a str,
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970; what is before is written as 1970.
    pub(super) mtime: i64,
    /// Bytes that follow; 0 for all but files.
    pub(super) size: u64,
    /// Where a link leads.
    pub(super) link: &'a str,
}

/// A number in octal digits with a closing zero, or in base 256 where it is too large for them.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits) == 0 {
        let text = format!("{value:0digits$o}\0");
        field.copy_from_slice(text.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    for (to, from) in field.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    if let Some(first) = field.first_mut() {
        *first |= 0x80;
    }
}

fn text(field: &mut [u8], text: &str) {
    for (to, from) in field.iter_mut().zip(text.as_bytes()) {
        *to = *from;
    }
}

/// Who owns an entry, by name: dpkg looks a name up first, and numbers are what the tree has.
const fn owner(id: u32) -> &'static str {
    if id == 0 { "root" } else { "" }
}

fn header(head: &Head<'_>, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut rest = block.as_mut_slice();
    let mut field = |len: usize| {
        let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
        rest = later;
        now
    };
    text(field(NAME_LEN), head.path);
    number(field(8), head.mode.into());
    number(field(8), head.uid.into());
    number(field(8), head.gid.into());
    number(field(12), head.size);
    number(field(12), u64::try_from(head.mtime).unwrap_or(0));
    field(8).fill(b' ');
    field(1).fill(flag);
    text(field(NAME_LEN), head.link);
    text(field(8), "ustar  ");
    text(field(32), owner(head.uid));
    text(field(32), owner(head.gid));
    let (major, minor) = match head.kind {
        Kind::Char(major, minor) | Kind::Block(major, minor) => (major, minor),
        _ => (0, 0),
    };
    number(field(8), major.into());
    number(field(8), minor.into());
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    if let Some(field) = block.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    block
}

/// The zeros that fill the last block.
pub(super) fn padding(size: u64) -> usize {
    let block = BLOCK as u64;
    usize::try_from((block - size % block) % block).unwrap_or(0)
}

/// An archive that is being written.
pub(super) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out }
    }

    fn long(&mut self, flag: u8, name: &str) -> io::Result<()> {
        let size = name.len() as u64 + 1;
        let head = Head {
            path: "././@LongLink",
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            size,
            link: "",
        };
        self.out.write_all(&header(&head, flag))?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&vec![0; 1 + padding(size)])
    }

    /// Writes the head of an entry; its bytes follow by [`Self::bytes`], then [`Self::end_entry`].
    pub(super) fn begin(&mut self, head: &Head<'_>) -> io::Result<()> {
        if head.link.len() > NAME_LEN {
            self.long(b'K', head.link)?;
        }
        if head.path.len() > NAME_LEN {
            self.long(b'L', head.path)?;
        }
        self.out.write_all(&header(head, head.kind.flag()))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(super) fn end_entry(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&vec![0; padding(size)])
    }

    /// Ends the archive and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small numbers are octal, large ones base 256, and padding fills a block.
    #[test]
    fn numbers_and_padding() {
        let mut field = [0; 8];
        number(&mut field, 0o755);
        assert_eq!(&field, b"0000755\0");
        number(&mut field, 1 << 21);
        assert_eq!(field, [0x80, 0, 0, 0, 0, 0x20, 0, 0]);
        let mut size = [0; 12];
        number(&mut size, 8 << 30);
        assert_eq!(size[0], 0x80);
        assert_eq!([padding(0), padding(1), padding(512), padding(513)], [0, 511, 0, 511]);
    }
}
