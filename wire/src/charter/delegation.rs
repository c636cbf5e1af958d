//! Delegations: a publisher lets another one release some of the packages that it may release.
//!
//! They stand in the publisher's document, in the order in which they are looked at. What a
//! delegate may release is never more than what its delegator may, and only what the pattern names.

use serde::{Deserialize, Serialize};

use crate::codec::List;
use crate::ids::PublisherId;
use crate::text::Pattern;

/// How many steps the format has room for, from the publisher that a VM trusts to a delegate.
pub const DELEGATION_DEPTH_MAX: u8 = 4;

/// One publisher lets another one release packages in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// To whom.
    pub to: PublisherId,
    /// Which package names; one at least.
    pub packages: List<Pattern, 64>,
    /// Whoever looks for a package that these patterns name looks at no later delegation, also
    /// where the delegate has nothing of that name.
    pub terminating: bool,
    /// How many steps may follow from here, this one counted: from 1 to [`DELEGATION_DEPTH_MAX`].
    pub depth: u8,
}

impl Delegation {
    /// Does it name the package?
    #[must_use]
    pub fn names(&self, package: &str) -> bool {
        self.packages.iter().any(|p| p.matches(package))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.packages.is_empty() {
            return Err("a delegation names no packages".into());
        }
        if self.depth == 0 || self.depth > DELEGATION_DEPTH_MAX {
            return Err(format!("a delegation of {} steps", self.depth));
        }
        Ok(())
    }
}
