//! A reader of images, for tests: it believes nothing and says what a kernel would see.

use super::format::{BLOCK, MAGIC, NO_BLOCK, SLOT, SUPER_AT, checksum};

/// One name of an image with what its inode says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) inode: u64,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// Device number of devices.
    pub(crate) device: u32,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// The bytes of files and links; empty for a file that is one hole without bytes here.
    pub(crate) bytes: Vec<u8>,
    /// A file in chunks: how many of them are holes.
    pub(crate) holes: usize,
}

/// An image.
pub(crate) struct Image<'a>(pub(crate) &'a [u8]);

impl Image<'_> {
    fn at(&self, at: u64, len: u64) -> &[u8] {
        &self.0[usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()]
    }
    fn number(&self, at: u64, len: u64) -> u64 {
        self.at(at, len).iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    /// Every name below the top, and the top as `.`, sorted by path.
    pub(crate) fn read(&self) -> Vec<Seen> {
        assert_eq!(self.number(SUPER_AT, 4), u64::from(MAGIC));
        let mut block = self.at(SUPER_AT, BLOCK - SUPER_AT).to_vec();
        block[4..8].fill(0);
        assert_eq!(u64::from(checksum(&block)), self.number(SUPER_AT + 4, 4), "the checksum");
        assert_eq!(self.number(SUPER_AT + 36, 4) * BLOCK, self.0.len() as u64, "the length");
        let mut out = Vec::new();
        let root = self.number(SUPER_AT + 14, 2);
        self.node(root, ".", &mut out);
        out.sort_by(|a, b| a.path.cmp(&b.path));
        let inodes: std::collections::BTreeSet<u64> = out.iter().map(|s| s.inode).collect();
        assert_eq!(inodes.len() as u64, self.number(SUPER_AT + 16, 8), "the count of inodes");
        out
    }

    fn node(&self, nid: u64, path: &str, out: &mut Vec<Seen>) {
        let at = nid * SLOT;
        let format = self.number(at, 2);
        let long = format & 1 == 1;
        let n = |o, l| self.number(at + o, l);
        let u32_of = |n: u64| u32::try_from(n).unwrap();
        let epoch = self.number(SUPER_AT + 24, 8).cast_signed();
        let (core, size, union) =
            if long { (64, n(8, 8), n(16, 4)) } else { (32, n(8, 4), n(16, 4)) };
        assert!(at % BLOCK + core <= BLOCK, "an inode in two blocks");
        let words = n(2, 2);
        let head = core + if words == 0 { 0 } else { 12 + 4 * (words - 1) };
        let mode = u16::try_from(n(4, 2)).unwrap();
        let kind = mode >> 12;
        let mut seen = Seen {
            path: path.to_owned(),
            inode: nid,
            mode,
            owner: if long {
                (u32_of(n(24, 4)), u32_of(n(28, 4)))
            } else {
                (u32_of(n(24, 2)), u32_of(n(26, 2)))
            },
            mtime: if long { n(32, 8).cast_signed() } else { epoch },
            links: u32_of(if long { n(44, 4) } else { n(6, 2) }),
            size,
            device: if matches!(kind, 2 | 6) { u32_of(union) } else { 0 },
            xattrs: self.xattrs(at + core, at + head),
            bytes: Vec::new(),
            holes: 0,
        };
        if matches!(kind, 4 | 8 | 10) {
            (seen.bytes, seen.holes) = self.bytes(format >> 1, union, size, at + head);
        }
        if kind == 4 {
            let bytes = std::mem::take(&mut seen.bytes);
            self.dir(&bytes, nid, path, out);
        }
        out.push(seen);
    }

    fn bytes(&self, layout: u64, union: u64, size: u64, behind: u64) -> (Vec<u8>, usize) {
        match layout {
            0 if size == 0 => (Vec::new(), 0),
            0 => (self.at(union * BLOCK, size).to_vec(), 0),
            2 => {
                let rest = size % BLOCK;
                let mut out = self.at(union * BLOCK, size - rest).to_vec();
                assert!(behind % BLOCK + rest <= BLOCK, "a rest in two blocks");
                out.extend_from_slice(self.at(behind, rest));
                (out, 0)
            }
            4 => {
                let chunk = BLOCK << union;
                let mut holes = 0;
                let mut out = Vec::new();
                for i in 0..size.div_ceil(chunk) {
                    let len = chunk.min(size - i * chunk);
                    let first = self.number(behind + 4 * i, 4);
                    if first == u64::from(NO_BLOCK) {
                        holes += 1;
                        if size <= 1 << 24 {
                            out.resize(out.len() + usize::try_from(len).unwrap(), 0);
                        }
                    } else {
                        out.extend_from_slice(self.at(first * BLOCK, len));
                    }
                }
                (out, holes)
            }
            other => panic!("layout {other}"),
        }
    }

    fn dir(&self, bytes: &[u8], nid: u64, path: &str, out: &mut Vec<Seen>) {
        let mut last: Vec<u8> = Vec::new();
        for block in bytes.chunks(4096) {
            let number = |at: usize, len| {
                block[at..at + len].iter().rev().fold(0_u64, |n, b| n << 8 | u64::from(*b))
            };
            let offset = |i: usize| usize::try_from(number(i * 12 + 8, 2)).unwrap();
            let count = offset(0) / 12;
            for i in 0..count {
                let end = if i + 1 < count { offset(i + 1) } else { block.len() };
                let name = block[offset(i)..end].split(|b| *b == 0).next().unwrap();
                assert!(last.as_slice() < name, "names are sorted");
                last = name.to_vec();
                let child = number(i * 12, 8);
                match name {
                    b"." => assert_eq!(child, nid),
                    b".." => {}
                    _ => {
                        let name = std::str::from_utf8(name).unwrap();
                        let path =
                            if path == "." { name.to_owned() } else { format!("{path}/{name}") };
                        self.node(child, &path, out);
                        let kind = out.last().map(|s| s.mode >> 12).unwrap();
                        let want = match block[i * 12 + 10] {
                            1 => 8,
                            2 => 4,
                            3 => 2,
                            4 => 6,
                            5 => 1,
                            7 => 10,
                            other => panic!("kind {other}"),
                        };
                        assert_eq!(kind, want);
                    }
                }
            }
        }
    }

    fn xattrs(&self, from: u64, end: u64) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        let mut at = from + 12;
        while at < end {
            let (name_len, space) = (self.number(at, 1), self.number(at + 1, 1));
            let value_len = self.number(at + 2, 2);
            let name = self.at(at + 4, name_len);
            let space = match space {
                1 => "user.",
                2 => "system.posix_acl_access",
                3 => "system.posix_acl_default",
                4 => "trusted.",
                6 => "security.",
                other => panic!("name space {other}"),
            };
            let name = format!("{space}{}", std::str::from_utf8(name).unwrap());
            out.push((name, self.at(at + 4 + name_len, value_len).to_vec()));
            at += (4 + name_len + value_len).next_multiple_of(4);
        }
        assert!(end <= from || at == end);
        out
    }
}
