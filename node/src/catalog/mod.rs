//! The catalog: which releases exist, and which of them each VM of this host wants.
//!
//! Pure. The trust room says which entries are accepted; here they become releases, and a VM's file
//! becomes the exact list of releases that it should show, with the reason for each choice
//! (`stork why`). Nothing here fetches or shows anything.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod constraint;
mod resolve;
#[cfg(test)]
mod tests;
mod vm;

pub use constraint::{Constraint, ConstraintError, compare_versions};
pub use resolve::{Choice, Considered, Outcome, Shown, Wish};
pub use vm::{BackendKind, FileError, HookRule, OnFailure, Subscription, VmFile, VmPin};

use std::collections::BTreeMap;

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::ids::{ManifestId, PublisherId, ReleaseHash};
use stork_wire::text::{Arch, PackageName};

/// One announced release that is not withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRelease {
    /// Who announced it.
    pub publisher: PublisherId,
    /// The number of the entry that announced it.
    pub seq: u64,
    /// When that entry was signed.
    pub signed_at: UnixSeconds,
    /// From then on it is not installed anew.
    pub expires: UnixSeconds,
    /// Its hash.
    pub hash: ReleaseHash,
    /// What was announced.
    pub release: Release,
}

/// All live releases, by package.
#[derive(Debug, Default)]
pub struct Catalog {
    releases: BTreeMap<PackageName, Vec<KnownRelease>>,
    /// The highest floor announced: releases below it must not be shown (attack A4).
    floors: BTreeMap<(PublisherId, PackageName, Arch), u64>,
    count: usize,
}

impl Catalog {
    /// Takes an accepted entry.
    pub fn apply(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::Release(r) => {
                let key = (entry.publisher, r.package.clone(), r.arch.clone());
                let floor = self.floors.entry(key).or_default();
                *floor = (*floor).max(r.min_secure_release);
                self.releases.entry(r.package.clone()).or_default().push(KnownRelease {
                    publisher: entry.publisher,
                    seq: entry.seq,
                    signed_at: entry.signed_at,
                    expires: entry.expires,
                    hash: r.hash(),
                    release: (**r).clone(),
                });
                self.count += 1;
            }
            Kind::Recall(recall) => {
                let Some(all) = self.releases.get_mut(&recall.package) else { return };
                let before = all.len();
                all.retain(|k| {
                    k.publisher != entry.publisher || !recall.releases.contains(&k.release.release)
                });
                self.count -= before - all.len();
            }
        }
    }

    /// Live releases in all.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }
    /// Is there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// All live releases, by package name, in the order in which they were announced.
    pub fn all(&self) -> impl Iterator<Item = &KnownRelease> {
        self.releases.values().flatten()
    }
    /// The live releases of one package.
    #[must_use]
    pub fn of_package(&self, package: &PackageName) -> &[KnownRelease] {
        self.releases.get(package).map_or(&[], Vec::as_slice)
    }
    /// A release by its hash.
    #[must_use]
    pub fn by_hash(&self, hash: ReleaseHash) -> Option<&KnownRelease> {
        self.all().find(|k| k.hash == hash)
    }
    /// The releases that a manifest belongs to.
    pub fn by_manifest(&self, manifest: ManifestId) -> impl Iterator<Item = &KnownRelease> {
        self.all().filter(move |k| k.release.manifest.id == manifest)
    }
    /// The lowest release counter that may be shown.
    #[must_use]
    pub fn floor(&self, k: &KnownRelease) -> u64 {
        let key = (k.publisher, k.release.package.clone(), k.release.arch.clone());
        self.floors.get(&key).copied().unwrap_or(0)
    }
    /// The newest live release of a package of one publisher.
    #[must_use]
    pub fn latest(
        &self,
        publisher: PublisherId,
        package: &PackageName,
        arch: &Arch,
    ) -> Option<&KnownRelease> {
        let own = |k: &&KnownRelease| k.publisher == publisher && k.release.arch == *arch;
        self.of_package(package).iter().filter(own).max_by(|a, b| {
            compare_versions(&a.release.version, &b.release.version)
                .then(a.release.release.cmp(&b.release.release))
        })
    }
}
