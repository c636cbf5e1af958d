//! What takes a release away from a VM that it would otherwise get: a recall, a denial, a halt, or
//! an ended epoch of which this host does not know the end.
//!
//! Asked each time that a VM is planned, so that it does not matter whether it came before the
//! release or after.

use serde::Deserialize;
use stork_wire::ids::{LogId, Position};

use super::{KnownRelease, VmFile};
use crate::trust::{Charter, DeniedBy};

/// What happens to a release that a VM shows when a security team denies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnDeny {
    /// It is taken away.
    #[default]
    Remove,
    /// It stays until something newer may take its place; nobody installs it anew.
    Keep,
}

/// What happens to a release that was taken back while what is to replace it is not whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnRecall {
    /// It stays until the older one is on disk.
    #[default]
    Older,
    /// It goes at once, and leaves a hole.
    Remove,
}

/// Why a release is taken away, or not installed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Narrow {
    /// Its publisher has taken it back; in which log, and why.
    Recalled(LogId, String),
    /// The security team of a group of this VM denies it.
    Denied(DeniedBy),
    /// Its publisher has halted it; in which log, and why.
    Halted(LogId, String),
    /// Its epoch has ended with this entry, and what is here of it does not reach that far: a key
    /// that its publisher has taken out of use may have made it up.
    Unsettled(Position),
}

impl core::fmt::Display for Narrow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Recalled(_, why) => write!(f, "its publisher recalled it: {why}"),
            Self::Denied(d) => {
                write!(f, "the security team of group `{}` denies it: {}", d.group, d.reason)
            }
            Self::Halted(_, why) => write!(f, "its publisher has halted it: {why}"),
            Self::Unsettled(end) => write!(
                f,
                "epoch {} ended with entry {}, which is not here yet: until then a key that is \
                 out of use may have made it up",
                end.epoch, end.seq
            ),
        }
    }
}

impl Narrow {
    /// What speaks against a release for this VM, the strongest first.
    #[must_use]
    pub fn of(vm: &VmFile, known: &KnownRelease, charter: &Charter) -> Option<Self> {
        let (publisher, r) = (known.publisher, &known.release);
        let recalled = charter.recall_of(publisher, known.epoch, &known.recalled_as(), known.hash);
        let recalled = recalled.map(|(log, why)| Self::Recalled(log, why.to_string()));
        let groups = || vm.groups.iter().map(|g| g.as_str());
        let denied = || charter.denied(groups(), publisher, r).map(Self::Denied);
        let halted = || charter.halt_of(publisher, &r.package);
        let halted = || halted().map(|(log, why)| Self::Halted(log, why.to_string()));
        let unsettled = || charter.unsettled(publisher, known.epoch).map(Self::Unsettled);
        recalled.or_else(denied).or_else(halted).or_else(unsettled)
    }

    /// Must a release that is shown go?
    #[must_use]
    pub const fn takes_away(&self, vm: &VmFile) -> bool {
        match self {
            Self::Recalled(..) => true,
            Self::Denied(_) => matches!(vm.on_deny, OnDeny::Remove),
            Self::Halted(..) | Self::Unsettled(_) => false,
        }
    }
}
