//! What can go wrong in the store, told so that an operator knows whose fault it is and what to
//! do.

use std::io;
use std::path::PathBuf;

use stork_wire::ids::{ContentId, LogId, ManifestId, PackId};
use stork_wire::manifest::ManifestError;

/// Why the store could not do what was asked. Unless the text says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's: the folder cannot be made or written.
    #[error("the store at `{path}` cannot be written")]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The operator's: others may look into the folder, and it does not look like a store.
    #[error("the folder `{path}` has mode {mode:o}, so that others can enter it")]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operator's: the folder is locked by another process.
    #[error("another stork-node uses this folder: `{path}`")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The operator's: the state was written by a newer stork. It was not touched.
    #[error("`{path}` has format {found}, and this stork knows formats up to {known}")]
    Newer {
        /// The file that names the format.
        path: PathBuf,
        /// The format that it names.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The disk's: the database or a row of it cannot be read.
    #[error("the state at `{path}` is damaged: {why}")]
    DamagedState {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk's: too few bytes are free.
    #[error("no space: {needed} bytes are needed, {free} are free, and {floor} must stay free")]
    NoSpace {
        /// Bytes asked for; 0 where the system did not say.
        needed: u64,
        /// Bytes free on the disk, without those that others reserved.
        free: u64,
        /// Bytes that must stay free.
        floor: u64,
    },
    /// The disk's: it is full, so that the store could not even be opened.
    #[error("the disk is full: `{path}` cannot be written")]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk's: too few inodes are free.
    #[error("no inodes: {needed} are needed, {free} are free, and {floor} must stay free")]
    NoInodes {
        /// Files to be written.
        needed: u64,
        /// Inodes free on the disk.
        free: u64,
        /// Inodes that must stay free.
        floor: u64,
    },
    /// The disk's: something could not be read or written.
    #[error("could not {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk's: an earlier write failed, and since then the store only reads.
    #[error("the store is read-only since {since} (Unix time), because of a failed write: {cause}")]
    Latched {
        /// Seconds since 1970.
        since: u64,
        /// The write that failed.
        cause: String,
    },
    /// The sender's: a piece has other bytes than its hash says. It was not kept.
    #[error("piece {index} of pack {} has the wrong bytes", pack.short())]
    BadPiece {
        /// The pack.
        pack: PackId,
        /// The number of the piece.
        index: u32,
    },
    /// The sender's or the disk's: a whole pack has other bytes than its id says. It was removed.
    #[error("pack {} has the wrong bytes", .0.short())]
    Corrupt(PackId),
    /// Ours: a request does not fit what is known of a pack.
    #[error("pack {}: {why}", pack.short())]
    PackUse {
        /// The pack.
        pack: PackId,
        /// What does not fit.
        why: &'static str,
    },
    /// Nobody's: the pack, or this part of it, is not here.
    #[error("pack {} is not here", .0.short())]
    NoPack(PackId),
    /// Nobody's: a content is not here.
    #[error("content {} is not here", .0.short())]
    NoContent(ContentId),
    /// The disk's: a stored content has other bytes than its id says.
    #[error("content {} is damaged on disk", .0.short())]
    DamagedContent(ContentId),
    /// The sender's: bytes are not the manifest that they should be.
    #[error("the bytes are not manifest {}", .0.short())]
    WrongManifest(ManifestId),
    /// The publisher's: a manifest breaks a rule.
    #[error("manifest {} is refused", id.short())]
    BadManifest {
        /// The manifest.
        id: ManifestId,
        /// The rule.
        #[source]
        source: Box<ManifestError>,
    },
    /// Ours: an item would lower the head of its log, or stand beside it.
    #[error("item {seq} of log {} does not follow its head {head}", log.short())]
    HeadWouldFall {
        /// The log.
        log: LogId,
        /// The item's number.
        seq: u64,
        /// The head's number.
        head: u64,
    },
    /// Ours: a tree was called complete while a file of it is not here.
    #[error("the tree is not complete: `{path}` is not here")]
    TreeIncomplete {
        /// The first missing file.
        path: String,
    },
}

impl StoreError {
    /// What the operator can do about it; empty where there is nothing to do.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unwritable { .. } => {
                "run stork-node as root, or give it a folder that its user may write with `--state`"
            }
            Self::Exposed { .. } => {
                "name a folder of its own with `--state`, or run `chmod 700` on this one"
            }
            Self::InUse { .. } => {
                "stop the other stork-node, or give this one another folder (`state` or `--state`)"
            }
            Self::Newer { .. } => "install the newer stork again, or restore an older copy",
            Self::DamagedState { .. } => {
                "restore the folder from a copy, or move it away and start anew: content and \
                 news are fetched again, generations and pins are lost"
            }
            Self::NoSpace { .. } => {
                "free some space, run `stork store gc`, or lower `min_free_bytes`"
            }
            Self::DiskFull { .. } => "free some space on the disk of the store, then start again",
            Self::NoInodes { .. } => "remove some files, run `stork store gc`",
            Self::Io { .. } => "look at the disk (`dmesg`, `df`), then restart stork-node",
            Self::Latched { .. } => {
                "repair the disk or free some space, then restart stork-node: it recovers by itself"
            }
            Self::DamagedContent(_) => "run `stork store verify`: what is damaged is fetched again",
            Self::BadManifest { .. } => "update stork, or ask the publisher to pack it again",
            Self::BadPiece { .. }
            | Self::Corrupt(_)
            | Self::PackUse { .. }
            | Self::NoPack(_)
            | Self::NoContent(_)
            | Self::WrongManifest(_)
            | Self::HeadWouldFall { .. }
            | Self::TreeIncomplete { .. } => "",
        }
    }

    /// The exit code of a command that fails with this (design §11).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unwritable { .. } | Self::Exposed { .. } => 77,
            Self::Newer { .. } => 78,
            Self::NoSpace { .. }
            | Self::NoInodes { .. }
            | Self::DiskFull { .. }
            | Self::InUse { .. } => 75,
            _ => 1,
        }
    }

    /// Is it that the disk has no room, so that the same may succeed later?
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::NoInodes { .. } | Self::DiskFull { .. })
    }
}
