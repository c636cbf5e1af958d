//! Numbers and records of the format, little-endian, as the kernel reads them.

/// Bytes of a block: 4 KiB, the page of every machine that DAX runs on.
pub const BLOCK: u64 = 1 << BLOCK_BITS;
pub(super) const BLOCK_BITS: u8 = 12;
/// Inodes begin at multiples of this; their number is the place divided by it.
pub(super) const SLOT: u64 = 32;
/// The superblock stands here, and the first inode behind it.
pub(super) const SUPER_AT: u64 = 1_024;
pub(super) const SUPER_LEN: u64 = 128;
/// The magic number of the superblock.
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;

/// The superblock's checksum counts; times are kept.
const COMPATIBLE: u32 = 0x1 | 0x2;
/// Files in chunks (`CHUNKED_FILE`): a reader that does not know them must not mount it.
const CHUNKS: u32 = 0x4;
/// No chunk: a hole.
pub(super) const NO_BLOCK: u32 = u32::MAX;

/// How the bytes of an inode are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Whole blocks elsewhere.
    Plain,
    /// Whole blocks elsewhere, and the rest directly behind the inode.
    Inline,
    /// A table of chunks behind the inode.
    Chunks,
}

impl Layout {
    const fn code(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2,
            Self::Chunks => 4,
        }
    }
}

/// What an inode says about its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    /// Words of attributes: 0 for none, else 1 + bytes behind the header / 4.
    pub(super) xattr_words: u16,
    /// Type and permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) links: u32,
    pub(super) size: u64,
    /// First block, device number or chunk format.
    pub(super) union: u32,
    pub(super) number: u32,
}

/// Bytes of an inode of the short form: 16-bit owners, 32-bit size, the image's own time.
pub(super) const SHORT: u64 = 32;
/// Bytes of an inode of the long form.
pub(super) const LONG: u64 = 64;

impl Inode {
    /// Does the short form hold it, in an image of this time?
    pub(super) fn is_short(&self, epoch: i64) -> bool {
        let small = |n: u32| u16::try_from(n).is_ok();
        let owners = small(self.uid) && small(self.gid) && small(self.links);
        owners && self.mtime == epoch && u32::try_from(self.size).is_ok()
    }

    /// The record, in the form that [`Inode::is_short`] says.
    pub(super) fn bytes(&self, epoch: i64) -> Vec<u8> {
        let mut out = Record::default();
        let code = self.layout.code() << 1;
        if self.is_short(epoch) {
            // `is_short` said that these fit.
            let short = |n: u32| u16::try_from(n).unwrap_or_default();
            out.u16(code).u16(self.xattr_words).u16(self.mode).u16(short(self.links));
            out.u32(u32::try_from(self.size).unwrap_or_default()).u32(0).u32(self.union);
            out.u32(self.number).u16(short(self.uid)).u16(short(self.gid)).u32(0);
        } else {
            out.u16(code | 1).u16(self.xattr_words).u16(self.mode).u16(0);
            out.u64(self.size).u32(self.union).u32(self.number).u32(self.uid).u32(self.gid);
            out.u64(self.mtime.cast_unsigned()).u32(0).u32(self.links).zeros(16);
        }
        out.0
    }
}

/// A record that grows field by field.
#[derive(Default)]
pub(super) struct Record(pub(super) Vec<u8>);

impl Record {
    pub(super) fn u8(&mut self, n: u8) -> &mut Self {
        self.bytes(&[n])
    }
    pub(super) fn u16(&mut self, n: u16) -> &mut Self {
        self.bytes(&n.to_le_bytes())
    }
    pub(super) fn u32(&mut self, n: u32) -> &mut Self {
        self.bytes(&n.to_le_bytes())
    }
    pub(super) fn u64(&mut self, n: u64) -> &mut Self {
        self.bytes(&n.to_le_bytes())
    }
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(super) fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
    /// Zeros up to a multiple of four.
    pub(super) fn pad4(&mut self) -> &mut Self {
        self.zeros(self.0.len().next_multiple_of(4) - self.0.len())
    }
}

/// What the superblock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Super {
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// The time of all inodes of the short form.
    pub(super) epoch: i64,
    pub(super) blocks: u32,
    pub(super) uuid: [u8; 16],
    pub(super) chunks: bool,
}

/// The name of every volume.
const VOLUME: &[u8; 16] = b"stork\0\0\0\0\0\0\0\0\0\0\0";

impl Super {
    /// The record with a checksum of zero; [`checksum`] is over it and the rest of its block.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Record::default();
        out.u32(MAGIC).u32(0).u32(COMPATIBLE).u8(BLOCK_BITS).u8(0).u16(self.root);
        out.u64(self.inodes).u64(self.epoch.cast_unsigned()).u32(0).u32(self.blocks);
        // Metadata begins at block 0, so that an inode's number is its place in the image.
        out.u32(0).u32(0).bytes(&self.uuid).bytes(VOLUME);
        out.u32(if self.chunks { CHUNKS } else { 0 }).u16(0).u16(0).u16(0).u8(0).u8(0);
        out.u32(0).u64(0).u8(0).zeros(23);
        out.0
    }
}

/// Where the checksum stands in the image.
pub(super) const CHECKSUM_AT: u64 = SUPER_AT + 4;
/// Where the volume's id stands in the image.
pub(super) const UUID_AT: u64 = SUPER_AT + 48;

/// CRC-32C (Castagnoli) without the final inversion, as the kernel's `crc32c(~0, …)`.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 }
        })
    })
}

/// A device number as inodes hold it; `None` where its parts have no room.
pub(super) const fn device(major: u32, minor: u32) -> Option<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    Some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C (RFC 3720 B.4 with the final inversion), and device numbers as
    /// the kernel's `new_encode_dev` packs them.
    #[test]
    fn known_values() {
        assert_eq!(!checksum(b"123456789"), 0xE306_9283);
        assert_eq!(!checksum(&[0; 32]), 0x8A91_36AA);
        assert_eq!(device(8, 1), Some(0x801));
        assert_eq!(device(0xabc, 0x12345), Some(0x123a_bc45));
        assert_eq!((device(4096, 0), device(0, 1 << 20)), (None, None));
    }

    /// Records have the lengths that the format gives them.
    #[test]
    fn lengths() {
        let sb = Super { root: 36, inodes: 1, epoch: 0, blocks: 1, uuid: [0; 16], chunks: true };
        assert_eq!(sb.bytes().len() as u64, SUPER_LEN);
        let inode = Inode {
            layout: Layout::Plain,
            xattr_words: 0,
            mode: 0o100_644,
            uid: 0,
            gid: 65_535,
            mtime: 7,
            links: 1,
            size: 3,
            union: 0,
            number: 1,
        };
        assert_eq!(inode.bytes(7).len() as u64, SHORT);
        assert_eq!(inode.bytes(8).len() as u64, LONG);
        for long in [
            Inode { gid: 65_536, ..inode },
            Inode { size: 1 << 32, ..inode },
            Inode { links: 65_536, ..inode },
        ] {
            assert_eq!(long.bytes(7).len() as u64, LONG);
        }
    }
}
