//! What became of a release for a VM, in a word of its own for each reason, and as text.

use stork_wire::text::{PackageName, Version};

use super::depends::DependsError;
use super::narrow::Narrow;
use crate::trust::Freeze;

/// An entry of a tree that asks for more than files: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// Its path.
    pub path: String,
    /// What it is.
    pub what: &'static str,
}

/// Why a release is chosen, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is what the VM should show.
    Chosen,
    /// It is shown and stays, although the VM's file asks for an older one: going back needs a
    /// permit.
    Kept,
    /// A better one was chosen.
    Older,
    /// For another machine.
    OtherArch,
    /// For none of the groups through which the VM subscribes to it.
    NotForGroup,
    /// The group does not let its publisher release it any more; the group's name.
    NotGranted(String),
    /// The version is outside of the subscription's constraint.
    Constraint(String),
    /// The version is outside of the pin.
    Pinned(String),
    /// The package is held at what is shown.
    Held(String),
    /// The VM's trust rules do not allow it; the rule's place in the file, from 0.
    Denied(Option<usize>),
    /// The rule asks for more publishers that announce the same content.
    NotAttested {
        /// How many do.
        have: usize,
        /// How many must.
        need: usize,
    },
    /// The feed is not fresh, and the VM takes nothing from such a feed: nothing new, or nothing.
    NotFresh {
        /// Not even what is shown stays.
        hide: bool,
    },
    /// It holds files that need a grant of the VM's file.
    Privileged(Privilege),
    /// The VM shows a later one of the same publisher, with this counter.
    Downgrade(u64),
    /// Below the publisher's floor.
    BelowFloor(u64),
    /// Its entry has expired, and it is not shown yet.
    Expired,
    /// Rolled back on this VM.
    Skipped,
    /// It lies behind a fork of its feed, and is not shown yet.
    Frozen(Freeze),
    /// Its publisher retired it, and it is not shown yet.
    Retired,
    /// It was recalled, is denied or halted.
    Narrowed(Narrow),
    /// A newer release of it has expired; an older one is no substitute.
    Stale(Version),
    /// A newer release of it needs privileges; an older one is no substitute.
    Blocked(Version),
    /// With it the VM would take more of the host than it may.
    OverQuota {
        /// `bytes` or `files`, or how bytes are counted.
        what: &'static str,
        /// How many the VM would take with it.
        with: u64,
        /// How many it may take.
        limit: u64,
    },
    /// What it needs is not there.
    Depends(DependsError),
    /// Its bundle is not complete in this VM.
    Bundle {
        /// The bundle.
        name: String,
        /// A member that lacks.
        lacks: PackageName,
    },
}

impl Outcome {
    /// May the VM go on showing it?
    #[must_use]
    pub const fn may_stay(&self) -> bool {
        matches!(self, Self::Chosen | Self::Kept | Self::Older)
    }

    /// Is it what the VM should show?
    #[must_use]
    pub const fn is_choice(&self) -> bool {
        matches!(self, Self::Chosen | Self::Kept)
    }

    /// Did somebody who may take it from the VM, so that an older one may come in its place: its
    /// group, its publisher, or the VM's own rules?
    pub(super) const fn takes_away(&self) -> bool {
        matches!(
            self,
            Self::NotForGroup
                | Self::NotGranted(_)
                | Self::Denied(_)
                | Self::NotAttested { .. }
                | Self::BelowFloor(_)
                | Self::OtherArch
                | Self::Narrowed(_)
        )
    }

    /// Is it out by the operator's choice alone? Such releases do not count where the newest one
    /// that stands is looked for.
    pub(super) const fn is_choice_of_operator(&self) -> bool {
        matches!(
            self,
            Self::OtherArch
                | Self::NotForGroup
                | Self::NotGranted(_)
                | Self::Constraint(_)
                | Self::Pinned(_)
                | Self::Held(_)
                | Self::Denied(_)
                | Self::Skipped
        )
    }
}

impl core::fmt::Display for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Kept => {
                f.write_str("kept: the VM's file asks for an older one, which needs a permit")
            }
            Self::Older => f.write_str("a newer or more trusted one was chosen"),
            Self::OtherArch => f.write_str("it is for another architecture"),
            Self::NotForGroup => f.write_str("it is for none of the groups of this VM"),
            Self::NotGranted(g) => {
                write!(f, "group `{g}` does not let its publisher release it any more")
            }
            Self::Constraint(c) => write!(f, "the subscription asks for {c}"),
            Self::Pinned(c) => write!(f, "the package is pinned to {c}"),
            Self::Held(why) if why.is_empty() => f.write_str("the package is held"),
            Self::Held(why) => write!(f, "the package is held: {why}"),
            Self::Denied(Some(n)) => write!(f, "trust rule {} denies it", n + 1),
            Self::Denied(None) => f.write_str("no trust rule allows it"),
            Self::NotAttested { have, need } => {
                write!(f, "{have} of the publishers that its rule names announce it, {need} must")
            }
            Self::NotFresh { hide: false } => {
                f.write_str("its feed is not fresh, and this VM takes nothing new from such a feed")
            }
            Self::NotFresh { hide: true } => {
                f.write_str("its feed is not fresh, and this VM shows nothing of such a feed")
            }
            Self::Privileged(p) => {
                write!(f, "`{}` is {}, which needs `privileged` in the VM's file", p.path, p.what)
            }
            Self::Downgrade(have) => {
                write!(f, "the VM shows a later release ({have}): going back needs a permit")
            }
            Self::BelowFloor(n) => write!(f, "the publisher withdrew everything below release {n}"),
            Self::Expired => f.write_str("its announcement has expired"),
            Self::Skipped => f.write_str("it was rolled back on this VM"),
            Self::Frozen(freeze) => freeze.fmt(f),
            Self::Retired => f.write_str(
                "its publisher retired it: it stays where it is shown, and comes nowhere anew",
            ),
            Self::Narrowed(why) => why.fmt(f),
            Self::Stale(v) => write!(f, "the newer {v} has expired, so nothing older is installed"),
            Self::Blocked(v) => {
                write!(f, "the newer {v} needs privileges, so nothing older is installed")
            }
            Self::OverQuota { what, with, limit } => {
                write!(f, "over the quota of this VM: {with} {what} with it, {limit} are allowed")
            }
            Self::Depends(e) => e.fmt(f),
            Self::Bundle { name, lacks } => {
                write!(f, "its bundle `{name}` is not complete: `{lacks}` lacks")
            }
        }
    }
}
