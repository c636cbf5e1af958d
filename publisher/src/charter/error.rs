//! What goes wrong with charters: which thing, what to do about it, and the exit code.

use std::io;
use std::path::PathBuf;

use stork_wire::sign::VerifyError;
use stork_wire::text::BadText;

use super::pending::PendingError;
use crate::bundle::BundleError;
use crate::keys::{KeyError, SignError};

/// A charter that cannot be made, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum CharterError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a charter already.
    #[error("`{0}` exists and is not overwritten")]
    Exists(PathBuf),
    /// The publisher's file is no TOML of the right shape.
    #[error("`{path}` is wrong: {why}")]
    Profile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The bundle is broken.
    #[error("`{path}` cannot be used")]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: BundleError,
    },
    /// A document is not signed as it must be.
    #[error("the {kind} document {number} is not valid")]
    Document {
        /// Which kind.
        kind: &'static str,
        /// Its number.
        number: u64,
        /// What is wrong.
        #[source]
        source: VerifyError,
    },
    /// Documents do not belong together.
    #[error("the charter does not hold together: {0}")]
    Broken(String),
    /// A document does not follow the one that it should.
    #[error("the {what} does not follow the charter: {why}")]
    Follow {
        /// Which document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A file with a pending change cannot be used.
    #[error("`{path}` cannot be used")]
    Pending {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: PendingError,
    },
    /// The pending change is of another fleet.
    #[error("`{path}` is of fleet {theirs}, the charter of fleet {ours}")]
    OtherFleet {
        /// Which file.
        path: PathBuf,
        /// Its fleet.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// A change lacks signatures.
    #[error("signatures are missing: {}", .0.join("; "))]
    Unsigned(Vec<String>),
    /// A key is of no role that signs the change.
    #[error("the key {0} signs none of these documents")]
    NotASigner(String),
    /// There is no such group, publisher or key.
    #[error("the charter has no {0}")]
    NoSuch(String),
    /// What was asked for contradicts itself or a rule.
    #[error("{0}")]
    Usage(String),
    /// A name or pattern breaks a rule.
    #[error(transparent)]
    Text(#[from] BadText),
    /// More names, groups, keys or homes than a document holds.
    #[error("too many names, groups, keys or homes for one document")]
    TooMany(#[from] stork_wire::codec::TooMany),
    /// A group's key that others may read is not used.
    #[error("others may read the key of a group in `{path}` (mode {mode:o})")]
    GroupKeyExposed {
        /// Its file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file of `group-keys/` is something else.
    #[error("`{0}` is no key of a group")]
    NotAGroupKey(PathBuf),
    /// A key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A document cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl CharterError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Read { path, .. } if path.extension().is_some_and(|e| e == "req") => {
                "name the pending change that you were sent, a file of `stork-publish charter`"
                    .into()
            }
            Self::Read { .. } => {
                "name the directory by --charter DIR; make one: stork-publish charter init".into()
            }
            Self::Write { .. } => {
                "make room there, or choose a directory that you may write to".into()
            }
            Self::Exists(_) => {
                "choose another place by --dir or --out, or keep the one you have".into()
            }
            Self::Profile { .. } => "correct the file, or take it from a backup".into(),
            Self::Bundle { .. } | Self::Document { .. } | Self::Broken(_) => {
                "take charter.bundle from a backup, or fetch it from a node again".into()
            }
            Self::Follow { .. } => {
                "take the newest charter.bundle, and have the change made again on top of it".into()
            }
            Self::Pending { .. } => {
                "have it sent again: the file must arrive as `stork-publish charter` wrote it"
                    .into()
            }
            Self::OtherFleet { .. } => "name the directory of that fleet by --charter".into(),
            Self::Unsigned(_) => {
                "send the file to those who hold the keys: stork-publish charter sign FILE".into()
            }
            Self::NotASigner(_) => {
                "name another key by --key; `stork-publish charter show DIR` lists the roles".into()
            }
            Self::NoSuch(_) => "`stork-publish charter show DIR` lists what there is".into(),
            Self::Usage(_) => "see the command with --help, and docs/CEREMONY.md".into(),
            Self::Text(_) | Self::TooMany(_) => {
                "give another name; see `stork-publish charter init --help`".into()
            }
            Self::GroupKeyExposed { path, .. } => format!(
                "run `chmod 600 {}`; if others could be there, make another key: \
                 stork-publish charter private GROUP --new-key",
                path.display()
            ),
            Self::NotAGroupKey(_) => {
                "take the file from a backup, or give it another ending than .key".into()
            }
            Self::Key(e) => e.help(),
            Self::Sign(e) => e.help(),
        }
    }
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => crate::out::file_exit(source),
            Self::Document { .. }
            | Self::Broken(_)
            | Self::Follow { .. }
            | Self::OtherFleet { .. }
            | Self::Unsigned(_)
            | Self::NotASigner(_) => 4,
            Self::NoSuch(_) => 5,
            Self::Profile { .. } | Self::Bundle { .. } | Self::Pending { .. } => 78,
            Self::Text(_) | Self::TooMany(_) | Self::Usage(_) => 2,
            Self::GroupKeyExposed { .. } => 77,
            Self::Key(e) => e.exit(),
            Self::Sign(e) => e.exit(),
            Self::Exists(_) | Self::NotAGroupKey(_) => 1,
        }
    }
}
