//! Manifests: what a release contains and how its bytes are packed (design §6).
//!
//! A manifest has two parts. The **tree** is what a VM is shown; its hash is the [`TreeId`]. The
//! **packing** only says how to fetch it: the same tree packed by another zstd has the same tree
//! id.

mod check;
mod older;
mod packing;
mod piece;

pub use check::TreeError;
pub use packing::{
    Delta, DeltaPack, Pack, Packing, PackingError, Run, Span, Variant, piece_len_for,
};
pub use piece::pack_id;

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, DecodeError, List, decode, encode};
use crate::feed::ManifestRef;
use crate::ids::{ContentId, ManifestId, PieceHash, TreeId};
use crate::limits::{MANIFEST_LEN_MAX, MANIFEST_PIECE_LEN, TREE_ENTRIES_MAX};
use crate::text::{Line, LinkTarget, TreePath};

/// One file, directory or link of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Where it is, relative to the tree's top.
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Time of last change, in seconds since 1970.
    pub mtime: i64,
    /// What it is.
    pub node: TreeNode,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeNode {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// The hash of its bytes.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
        /// Extended attributes, sorted by name.
        xattrs: List<Xattr, 32>,
    },
    /// A symbolic link.
    Symlink {
        /// What the link holds.
        target: LinkTarget,
    },
    /// A second name of a regular file that stands earlier in the tree.
    Hardlink {
        /// The first name.
        target: TreePath,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Xattr {
    /// Its name, with the name space.
    pub name: Line,
    /// Its value.
    pub value: Blob<4096>,
}

/// All entries of a release, sorted by path bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Sorted by path; every parent directory stands before what is in it.
    pub entries: List<TreeEntry, TREE_ENTRIES_MAX>,
}

/// What the source package was, so that it can be shown and rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The kind of file it was made from.
    pub format: SourceFormat,
    /// Its file name.
    pub file_name: Line,
    /// Its size in bytes; 0 for a directory.
    pub size: u64,
    /// Its SHA-256; zeros for a directory.
    pub sha256: [u8; 32],
    /// The control file of a `.deb`, as it stands there.
    pub control: Blob<65_536>,
    /// Maintainer scripts and other members of the control archive; a tree view runs none. Of an
    /// RPM package: its main header, without what its payload says of itself.
    pub control_files: List<ControlFile, 64>,
}

/// What a package was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// A Debian binary package.
    Deb,
    /// A tar archive.
    Tar,
    /// A directory.
    Directory,
    /// An RPM package.
    Rpm,
}

/// One member of a package's control archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFile {
    /// Its name: `postinst`, `conffiles`, …
    pub name: Line,
    /// Its permission bits.
    pub mode: u16,
    /// Its bytes.
    pub bytes: Blob<1_048_576>,
}

impl ControlFile {
    /// Is this a script that a package manager would run?
    #[must_use]
    pub fn is_script(&self) -> bool {
        matches!(
            self.name.as_str(),
            "preinst" | "postinst" | "prerm" | "postrm" | "config" | "triggers"
        )
    }
}

/// The version of manifests that are written; those of version 1 are still read.
pub const MANIFEST_VERSION: u8 = 2;

/// All that a host must know to fetch and show a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u8,
    /// What a VM is shown.
    pub tree: Tree,
    /// What it was made from.
    pub source: Source,
    /// How to fetch it.
    pub packing: Packing,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the canonical bytes of a manifest.
    #[error("the manifest is {0}")]
    Decode(DecodeError),
    /// A version that is not known here.
    #[error("manifest version {0} is not known here: update stork")]
    Version(u8),
    /// The tree breaks a rule.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The packing breaks a rule.
    #[error(transparent)]
    Packing(#[from] PackingError),
}

impl From<DecodeError> for ManifestError {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e)
    }
}

impl Tree {
    /// The identity of what a VM is shown.
    #[must_use]
    pub fn id(&self) -> TreeId {
        TreeId::of(&encode(self))
    }

    /// The distinct file contents in order of first appearance, with their sizes: the payload.
    #[must_use]
    pub fn payload(&self) -> Vec<(ContentId, u64)> {
        let mut seen = std::collections::BTreeSet::new();
        let mut out = Vec::new();
        for e in &self.entries {
            if let TreeNode::File { content, size, .. } = &e.node
                && *size > 0
                && seen.insert(*content)
            {
                out.push((*content, *size));
            }
        }
        out
    }

    /// Bytes of all distinct contents.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.payload().iter().map(|(_, size)| size).sum()
    }
}

impl Manifest {
    /// Reads a manifest and checks every rule that holds in itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let max = usize::try_from(MANIFEST_LEN_MAX).unwrap_or(usize::MAX);
        // The version is the first byte of all versions.
        let m: Self = match bytes.first() {
            Some(1) => decode::<older::Manifest>(bytes, max)?.into(),
            Some(&other) if other != MANIFEST_VERSION => {
                return Err(ManifestError::Version(other));
            }
            _ => decode(bytes, max)?,
        };
        m.tree.check()?;
        m.packing.check(&m.tree)?;
        Ok(m)
    }

    /// How an entry refers to these manifest bytes.
    #[must_use]
    pub fn reference(bytes: &[u8]) -> ManifestRef {
        ManifestRef {
            id: ManifestId::of(bytes),
            size: bytes.len() as u64,
            pieces: PieceHash::of(&manifest_pieces(bytes)),
        }
    }
}

/// The concatenated hashes of a manifest's pieces: what is sent ahead of a large manifest.
#[must_use]
pub fn manifest_pieces(bytes: &[u8]) -> Vec<u8> {
    let piece = usize::try_from(MANIFEST_PIECE_LEN).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    for chunk in bytes.chunks(piece) {
        out.extend_from_slice(PieceHash::of(chunk).as_bytes());
    }
    out
}
