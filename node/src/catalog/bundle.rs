//! Bundles: releases that a VM switches to together, or not at all.
//!
//! A VM has a bundle where every member that it is to show is of the same bundle of the same
//! publisher. Members to which the VM does not subscribe, and which nothing brings in, do not
//! count: the operator left them out.

use std::collections::BTreeMap;

use stork_wire::ids::PublisherId;
use stork_wire::text::PackageName;

use super::{Choice, KnownRelease};

/// What names a bundle: its publisher and its name.
pub(super) type BundleKey = (PublisherId, String);

/// The bundle that a release belongs to.
#[must_use]
pub fn key_of(known: &KnownRelease) -> Option<(PublisherId, String)> {
    let bundle = known.release.bundle.as_ref()?;
    Some((known.publisher, bundle.name.to_string()))
}

/// Of each bundle that is not complete, a member that lacks; `expected` says which packages the VM
/// is to show if they can be had.
pub(super) fn broken(
    wish: &BTreeMap<PackageName, Choice>,
    expected: impl Fn(&PackageName) -> bool,
) -> BTreeMap<BundleKey, PackageName> {
    let mut out = BTreeMap::new();
    for choice in wish.values() {
        let Some(key) = key_of(&choice.known) else { continue };
        if out.contains_key(&key) {
            continue;
        }
        let members = choice.known.release.bundle.iter().flat_map(|b| b.members.iter());
        let lacks = members.filter(|m| expected(m)).find(|m| {
            let other = wish.get(*m).and_then(|c| key_of(&c.known));
            other.as_ref() != Some(&key)
        });
        if let Some(lacks) = lacks {
            out.insert(key, lacks.clone());
        }
    }
    out
}

/// Which of the releases that are to be shown must wait, because other members of their bundles are
/// not whole: `ready` says which are.
#[must_use]
pub fn waiting(
    wish: &BTreeMap<PackageName, Choice>,
    ready: impl Fn(&KnownRelease) -> bool,
) -> Vec<PackageName> {
    let late: Vec<BundleKey> =
        wish.values().filter(|c| !ready(&c.known)).filter_map(|c| key_of(&c.known)).collect();
    let waits = |c: &Choice| key_of(&c.known).is_some_and(|key| late.contains(&key));
    wish.iter().filter(|(_, c)| waits(c)).map(|(p, _)| p.clone()).collect()
}
