//! Bundles: releases of several packages that VMs switch to together, or not at all.
//!
//! Every member says what the whole is, so that a host that has some of them knows which lack.

use serde::{Deserialize, Serialize};

use crate::codec::List;
use crate::text::{Label, PackageName};

/// Members of a bundle at the most.
pub const BUNDLE_MEMBERS_MAX: usize = 32;

/// The bundle that a release belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bundle {
    /// Its name, of the publisher's choice; a later bundle of the same packages has another one.
    pub name: Label,
    /// All its packages, this one included: sorted, each once, two at least.
    pub members: List<PackageName, BUNDLE_MEMBERS_MAX>,
}

impl Bundle {
    /// Is it one to which this package belongs?
    pub(crate) fn check(&self, package: &PackageName) -> Result<(), String> {
        if self.members.len() < 2 {
            return Err("a bundle of less than two packages".into());
        }
        if !self.members.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
            return Err("members of the bundle: not sorted, or twice the same".into());
        }
        if !self.members.contains(package) {
            return Err("it is no member of its own bundle".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use crate::ids::hex;

    fn bundle(members: &[&str]) -> Bundle {
        let members = members.iter().map(|m| m.parse().unwrap()).collect();
        Bundle { name: "s2".parse().unwrap(), members: List::new(members).unwrap() }
    }

    /// What a bundle may be, and its bytes.
    #[test]
    fn bundles() {
        let a = "a".parse().unwrap();
        let good = bundle(&["a", "b"]);
        assert_eq!(good.check(&a), Ok(()));
        assert_eq!(hex(&encode(&good)), "0273320201610162");
        for bad in [&["a"][..], &["b", "a"], &["a", "a"], &["b", "c"]] {
            assert!(bundle(bad).check(&a).is_err(), "{bad:?}");
        }
    }
}
