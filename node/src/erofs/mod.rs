//! Images of the read-only file system EROFS, uncompressed, from a merged tree: pure.
//!
//! [`plan`] gives the bytes of all metadata and says which bytes of which content follow where;
//! a thin shell writes both. The same tree gives the same bytes on every host. Two kinds of images
//! are made of it: one that holds every file, page-aligned, for a guest's DAX ([`Files::Inside`]),
//! and one of metadata only, whose files lead overlayfs to objects beside it ([`Files::Beside`]).
//!
//! The format is the kernel's (`fs/erofs/erofs_fs.h` and "EROFS on-disk format" of its
//! documentation): one superblock, inodes in slots of 32 bytes, sorted directory blocks, no
//! compression, no shared attributes, one device. This room opens no file and knows no store.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod dirs;
mod format;
mod layout;
mod nodes;
mod overlay;
#[cfg(test)]
pub(crate) mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use stork_wire::ids::ContentId;
use stork_wire::manifest::{Tree, TreeEntry};

pub use format::BLOCK;

/// Holes are kept in parts of this many bytes that begin at a multiple of it, as the store makes
/// them.
pub const HOLE: u64 = 32 * 1024;

/// Where the bytes of regular files are.
#[derive(Clone, Copy)]
pub enum Files<'a> {
    /// Beside the image: the path of a file's bytes from the top of the data-only layer, with a
    /// leading slash.
    Beside(&'a dyn Fn(&TreeEntry) -> String),
    /// In the image. For contents with holes, the ranges of bytes that are no hole, in order.
    Inside(&'a BTreeMap<ContentId, Vec<Range<u64>>>),
}

impl std::fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Beside(_) => "Beside",
            Self::Inside(_) => "Inside",
        })
    }
}

/// Bytes of a content that stand at one place of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose bytes.
    pub content: ContentId,
    /// The first of them.
    pub from: u64,
    /// How many.
    pub len: u64,
    /// Where they stand in the image: a multiple of [`BLOCK`].
    pub at: u64,
}

/// An image, ready to be written: `metadata` from its first byte on, then the runs; what lies
/// between and behind is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Superblock, inodes and directories.
    pub metadata: Vec<u8>,
    /// Contents, ascending by place, each of them once.
    pub runs: Vec<Run>,
    /// Bytes of the whole image: a multiple of the alignment that was asked for.
    pub len: u64,
}

/// Why a tree has no image. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErofsError {
    /// The publisher's: numbers that the kernel has no room for.
    #[error("`{path}` is a device with numbers beyond 12 and 20 bits")]
    Device {
        /// The path.
        path: String,
    },
    /// The publisher's: overlayfs would take it for a file that was removed.
    #[error("`{path}` is a character device 0:0, by which overlayfs marks what was removed")]
    Whiteout {
        /// The path.
        path: String,
    },
    /// The publisher's: an attribute outside of the name spaces that the format knows.
    #[error("`{path}` has the attribute `{name}`, which an EROFS image cannot hold")]
    Attribute {
        /// The path.
        path: String,
        /// The attribute.
        name: String,
    },
    /// The caller's: the tree was not checked.
    #[error("`{path}` has no parent or no target in its tree")]
    Tree {
        /// The path.
        path: String,
    },
    /// The operator's: block numbers have 32 bits.
    #[error("the image would be larger than 16 TiB")]
    TooLarge,
}

/// Lays out an image whose length is a multiple of `align` bytes, itself a multiple of [`BLOCK`].
///
/// # Errors
/// See [`ErofsError`]; all of them come from what the tree holds.
pub fn plan(tree: &Tree, files: Files<'_>, align: u64) -> Result<Plan, ErofsError> {
    layout::plan(tree, files, align)
}
