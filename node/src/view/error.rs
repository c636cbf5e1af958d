//! What can go wrong when a view is shown, told so that an operator knows what to change.

use std::io;
use std::path::PathBuf;

use stork_wire::text::Label;

use super::{Backend, mounts_for};
use crate::store::{SetError, SetId, StoreError};

/// Why a view was not shown. The VM goes on seeing what it saw before.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree of links could not be built.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The operator's: the target can't be a view.
    #[error("the target `{}` of {vm} is refused: {why}", target.display())]
    Target {
        /// The VM.
        vm: Label,
        /// The target.
        target: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The operator's: the daemon took the right for it away from itself at its start.
    #[error("the view of {vm} at `{}` is not possible: {why}", target.display())]
    Sandbox {
        /// The VM.
        vm: Label,
        /// The target.
        target: PathBuf,
        /// Why.
        why: &'static str,
        /// How it is to be shown.
        mounted: Backend,
    },
    /// The system's: this host has no means for it.
    #[error("the view of {vm} cannot be of the backend \"{}\" on this host: {why}", backend.name())]
    Host {
        /// The VM.
        vm: Label,
        /// What was asked for.
        backend: Backend,
        /// What is missing.
        why: &'static str,
    },
    /// The operator's: a hard-linked view isn't isolated, and that was not said to be wanted.
    #[error(
        "the view of {vm} is made of hard links: root of the VM could write into files that \
         other VMs share"
    )]
    NotIsolated {
        /// The VM.
        vm: Label,
    },
    /// The system's: a mount, rename or look failed.
    #[error("could not {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Ours: after the switch another tree is there than should be.
    #[error("after the switch `{}` does not show set {}", target.display(), set.short())]
    NotShown {
        /// The target.
        target: PathBuf,
        /// What it should show.
        set: SetId,
    },
    /// The system's: the ids of a mount could not be mapped.
    #[error("the ids of the view of {vm} can't be mapped to those from {first} on")]
    IdMap {
        /// The VM.
        vm: Label,
        /// The first of them.
        first: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The VM's: it changed more in its view than may be carried along.
    #[error("the private changes of {vm} are more than {max} {what}")]
    PrivateTooLarge {
        /// The VM.
        vm: Label,
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// The VM's: another mount still writes into the layer that would be mounted.
    #[error("generation {number} of {vm} is still mounted elsewhere, and may be written there")]
    LayerInUse {
        /// The VM.
        vm: Label,
        /// The generation.
        number: u64,
    },
    /// The operator's: this daemon may not give files to other users.
    #[error(
        "`{path}` in the view of {vm} {what}, and stork-node may only make plain files of its own, \
         which are shown as root's"
    )]
    Owner {
        /// The VM.
        vm: Label,
        /// The first such path.
        path: String,
        /// What it is.
        what: String,
    },
    /// What the view helper said, or that it said nothing.
    #[error("{why}")]
    Helper {
        /// The VM.
        vm: Label,
        /// What it said.
        why: String,
        /// What to do about it.
        help: String,
    },
    /// The operator's: there is no such generation.
    #[error("{vm} has no earlier generation{}", numbered(*number))]
    NoGeneration {
        /// The VM.
        vm: Label,
        /// The number asked for, if one was.
        number: Option<u64>,
    },
    /// Ours: a set was released or damaged before it was shown.
    #[error("set {} is no longer in the store", .0.short())]
    NoSet(SetId),
    /// The disk's: a record of a generation can't be read.
    #[error("the record `{0}` of a generation is damaged")]
    BadRecord(String),
}

fn numbered(number: Option<u64>) -> String {
    number.map_or_else(String::new, |n| format!(" {n}"))
}

impl ViewError {
    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
        e: impl Into<io::Error>,
    ) -> Self {
        Self::Io { what, path: path.into(), source: e.into() }
    }

    /// What the operator can do about it; empty where there is nothing to do.
    #[must_use]
    pub fn help(&self) -> &str {
        match self {
            Self::Store(e) | Self::Set(SetError::Store(e)) => e.help(),
            Self::Helper { help, .. } => help,
            Self::Owner { .. } => {
                "use the backend \"composefs\", which needs no owners on the host's disk, or run \
                 the daemon with the drop-in deploy/systemd/tree.conf"
            }
            Self::Set(SetError::OtherFileSystem { .. }) => {
                "put the target on the file system of the store, or use the backend \"tree\""
            }
            Self::Set(SetError::Conflict { .. }) => {
                "hold or remove one of the two packages for this VM"
            }
            Self::Set(SetError::Privilege { .. }) => {
                "allow it in the VM's file (`privileged` in [view]), if the publisher is to be \
                 trusted that far"
            }
            Self::Target { .. } => {
                "name an absolute path of real folders; the last one is made, or must be empty"
            }
            Self::Sandbox { mounted, .. } if mounts_for(*mounted) => {
                "restart stork-node with the view helper (deploy/systemd/helpers.conf), or use the \
                 backend \"hardlink\""
            }
            Self::Sandbox { .. } => {
                "make the folder, name it in `[sandbox] views` of node.toml, and restart stork-node"
            }
            Self::Host { backend: Backend::Composefs, .. } => {
                "use the backend \"tree\", which shares files and memory just as well"
            }
            Self::Host { .. } => "use the backend \"tree\"",
            Self::IdMap { .. } => {
                "restart stork-node: it makes the maps that VM files ask for at its start. It \
                 needs CAP_SETUID and CAP_SETGID then, Linux 5.12, and a store on a file system \
                 that can (ext4, xfs, btrfs can)"
            }
            Self::PrivateTooLarge { what: "bytes", .. } => {
                "raise `upper_mib_max` in [view] of the VM's file, or remove files in the VM"
            }
            Self::PrivateTooLarge { .. } => {
                "remove files in the VM, or keep what changes outside of the view"
            }
            Self::LayerInUse { .. } => "end the processes that `stork vm holders` lists",
            Self::NotIsolated { .. } => {
                "use the backend \"tree\" as root, or set `isolation = \"none\"` in the VM's file \
                 if you trust that VM's root"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run stork-node as root (it needs CAP_SYS_ADMIN to mount), or use the backend \
                 \"hardlink\""
            }
            Self::Io { .. } | Self::NotShown { .. } => "look at `findmnt` and at `dmesg`",
            Self::NoGeneration { .. } => "`stork vm` lists the generations that are kept",
            Self::Set(_) | Self::NoSet(_) | Self::BadRecord(_) => "",
        }
    }
}
