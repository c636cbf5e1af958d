//! The catalog: which releases exist, and which of them each VM of this host wants.
//!
//! Pure. The trust room says which entries are accepted; here they become releases, and a VM's file
//! becomes the exact list of releases that it should show, with the reason for each choice
//! (`stork why`). Nothing here fetches or shows anything.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod because;
#[cfg(test)]
mod because_tests;
pub mod bundle;
mod constraint;
pub mod depends;
#[cfg(test)]
mod depends_tests;
#[cfg(test)]
mod floor_tests;
mod narrow;
mod one_head;
mod outcome;
mod plan;
#[cfg(test)]
mod policy_tests;
mod resolve;
mod rights;
#[cfg(test)]
mod tests;
mod vm;
mod vm_text;
mod vm_when;
mod window;
#[cfg(test)]
mod world;

pub use because::{Because, Document};
pub use constraint::{Constraint, ConstraintError, compare_versions};
pub use narrow::{Narrow, OnDeny, OnRecall};
pub use one_head::{MixAndMatch, check_one_head};
pub use outcome::{Outcome, Privilege};
pub use plan::{Choice, Plan, Wish};
pub use resolve::{Considered, Privileges, Scene, Shown};
pub use vm::{
    Backend, CheckRule, FileError, HookRule, IdMap, OnDepends, OnFailure, Subscription,
    ViewOptions, VmFile, VmHold, VmPin,
};
pub use window::{SwitchRule, Window, WindowError, Withdrawals};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::{Entry, Kind, Recall, Release};
use stork_wire::ids::{GroupId, ManifestId, Position, PublisherId, ReleaseHash};
use stork_wire::retire::Retire;
use stork_wire::seal::Sealed;
use stork_wire::text::{Arch, PackageName};

use crate::trust::{Freeze, cover_number};

/// One announced release that is not withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRelease {
    /// Who announced it.
    pub publisher: PublisherId,
    /// The epoch of the entry that announced it.
    pub epoch: u32,
    /// The number of that entry.
    pub seq: u64,
    /// The number of the publisher document under which it was signed.
    pub document: u64,
    /// When that entry was signed.
    pub signed_at: UnixSeconds,
    /// From then on it is not installed anew.
    pub expires: UnixSeconds,
    /// Its hash.
    pub hash: ReleaseHash,
    /// It lies behind this fork of the feed: it stays where it is shown, and goes nowhere else.
    pub frozen: Option<Freeze>,
    /// Its publisher retired it: it stays where it is shown, and is installed nowhere anew.
    pub retired: bool,
    /// The entry behind that fork that withdrew it; none where nothing did, or nobody knows which.
    pub withdrawn_at: Option<Box<Position>>,
    /// What was announced.
    pub release: Release,
    /// The private group for which it was sealed: only its hosts may see it or its content.
    pub sealed: Option<GroupId>,
}

impl KnownRelease {
    /// Under which name its publisher recalls it: not its own where it was sealed.
    #[must_use]
    pub fn recalled_as(&self) -> Cow<'_, PackageName> {
        let cover = self.sealed.and_then(|_| Sealed::cover());
        cover.map_or_else(|| Cow::Borrowed(&self.release.package), Cow::Owned)
    }

    /// The place of the entry that announced it.
    #[must_use]
    pub const fn place(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }

    /// Does a recall in its feed mean it?
    fn is_meant(&self, publisher: PublisherId, recall: &Recall) -> bool {
        let number = match self.sealed {
            None => self.release.release,
            Some(_) => cover_number(self.place()),
        };
        self.publisher == publisher
            && recall.releases.contains(&number)
            && recall.package == *self.recalled_as()
    }
}

/// What becomes of a publisher's releases that stand no longer, when its feed is built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallen {
    /// They are gone.
    Gone,
    /// The feed is frozen: they stay where they are shown.
    Frozen(Freeze),
    /// The feed began anew, and carries over what was announced up to this place: until then it
    /// stays where it is shown.
    Retired(Position),
}

/// All live releases, by package, and those that are retired as long as somebody shows them.
#[derive(Debug, Default)]
pub struct Catalog {
    releases: BTreeMap<PackageName, Vec<KnownRelease>>,
    /// The highest floor announced: releases below it must not be shown (attack A4).
    floors: BTreeMap<(PublisherId, PackageName, Arch), u64>,
    count: usize,
}

impl Catalog {
    /// Takes an accepted entry; one that is sealed and cannot be read here says nothing.
    pub fn apply(&mut self, entry: &Entry) {
        if let Kind::Recall(recall) = &entry.kind {
            let (publisher, mut gone) = (entry.publisher, 0);
            for all in self.named(recall) {
                gone += all.extract_if(.., |k| k.is_meant(publisher, recall)).count();
            }
            self.count -= gone;
        }
        if let Kind::Retire(Retire { releases }) = &entry.kind {
            for known in self.releases.values_mut().flatten() {
                let own = known.publisher == entry.publisher;
                known.retired |= own && releases.binary_search(&known.place()).is_ok();
            }
        }
        let Some(r) = entry.release() else { return };
        let key = (entry.publisher, r.package.clone(), r.arch.clone());
        let floor = self.floors.entry(key).or_default();
        *floor = (*floor).max(r.min_secure_release);
        self.add(entry, r, None);
    }

    /// The releases among which those are that a recall names: all, where it names sealed ones.
    fn named(&mut self, recall: &Recall) -> impl Iterator<Item = &mut Vec<KnownRelease>> {
        let covered = Sealed::cover().is_some_and(|c| c == recall.package);
        let own = recall.package.clone();
        self.releases.iter_mut().filter(move |(p, _)| covered || **p == own).map(|(_, all)| all)
    }

    fn add(&mut self, entry: &Entry, r: &Release, frozen: Option<Freeze>) {
        self.releases.entry(r.package.clone()).or_default().push(KnownRelease {
            publisher: entry.publisher,
            epoch: entry.epoch,
            seq: entry.seq,
            document: entry.document,
            signed_at: entry.signed_at,
            expires: entry.expires,
            hash: entry.release_hash().unwrap_or_else(|| r.hash()),
            frozen,
            retired: false,
            withdrawn_at: None,
            release: r.clone(),
            sealed: entry.sealed().map(|s| s.group),
        });
        self.count += 1;
    }

    /// Takes an entry from behind a fork, which VMs may show.
    pub fn apply_frozen(&mut self, entry: &Entry, freeze: Freeze) {
        if let Kind::Recall(recall) = &entry.kind {
            let publisher = entry.publisher;
            for known in self.named(recall).flatten().filter(|k| k.is_meant(publisher, recall)) {
                known.frozen = Some(freeze);
                known.withdrawn_at.get_or_insert_with(|| Box::new(entry.position()));
            }
        }
        let (Some(r), Some(hash)) = (entry.release(), entry.release_hash()) else { return };
        if self.by_hash(hash).is_none() {
            self.add(entry, r, Some(freeze));
        }
    }

    /// Takes an entry that was kept aside when its feed began anew, which VMs may show.
    pub fn apply_retired(&mut self, entry: &Entry) {
        let (Some(r), Some(hash)) = (entry.release(), entry.release_hash()) else { return };
        if self.by_hash(hash).is_none() {
            self.add(entry, r, None);
            if let Some(known) = self.releases.get_mut(&r.package).and_then(|all| all.last_mut()) {
                known.retired = true;
            }
        }
    }

    /// Forgets retired releases but for those that somebody shows.
    pub fn forget_retired(&mut self, is_shown: impl Fn(&KnownRelease) -> bool) {
        let before = self.count;
        for all in self.releases.values_mut() {
            let gone = all.extract_if(.., |k| k.retired && !is_shown(k)).count();
            self.count -= gone;
        }
        if self.count != before {
            self.releases.retain(|_, all| !all.is_empty());
        }
    }

    /// Builds what is known of a publisher anew, from all entries that stand.
    pub fn rebuild<'a>(
        &mut self,
        publisher: PublisherId,
        entries: impl Iterator<Item = &'a Entry>,
        fallen: Fallen,
    ) {
        let mut before = self.forget(publisher);
        self.floors.retain(|(p, _, _), _| *p != publisher);
        for entry in entries {
            self.apply(entry);
        }
        if let Fallen::Frozen(freeze) = fallen {
            // What was recalled meanwhile lives again, but a recall holds against new installation.
            let hashes: BTreeSet<ReleaseHash> = before.iter().map(|k| k.hash).collect();
            for known in self.releases.values_mut().flatten() {
                if known.publisher == publisher && !hashes.contains(&known.hash) {
                    known.frozen = Some(freeze);
                }
            }
        }
        before.retain(|k| self.by_hash(k.hash).is_none());
        for known in before {
            let stays = match fallen {
                Fallen::Gone => continue,
                Fallen::Frozen(freeze) => KnownRelease { frozen: Some(freeze), ..known },
                Fallen::Retired(to) if known.frozen.is_none() && known.place() <= to => {
                    KnownRelease { retired: true, ..known }
                }
                Fallen::Retired(_) => continue,
            };
            self.count += 1;
            self.releases.entry(stays.release.package.clone()).or_default().push(stays);
        }
    }

    fn forget(&mut self, publisher: PublisherId) -> Vec<KnownRelease> {
        let mut gone = Vec::new();
        for all in self.releases.values_mut() {
            gone.extend(all.extract_if(.., |k| k.publisher == publisher));
        }
        self.releases.retain(|_, all| !all.is_empty());
        self.count -= gone.len();
        gone
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
        let own = |k: &&KnownRelease| {
            let stands = k.frozen.is_none() && !k.retired;
            k.publisher == publisher && k.release.arch == *arch && stands
        };
        self.of_package(package).iter().filter(own).max_by(|a, b| {
            compare_versions(&a.release.version, &b.release.version)
                .then(a.release.release.cmp(&b.release.release))
        })
    }
}
