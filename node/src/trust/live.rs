//! The live releases of one feed: announced, and neither withdrawn nor retired.
//!
//! Every entry commits to them, so that they are the same on every host, also on those that cannot
//! read what was sealed. They are bounded; a publisher makes room by retiring those that newer ones
//! have replaced.

use stork_wire::feed::{Entry, Kind, Recall};
use stork_wire::ids::{Position, ReleaseHash};
use stork_wire::retire::Retire;
use stork_wire::text::{Arch, PackageName};

use super::sealed;
use super::sorted::Sorted;

/// A live release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveRelease {
    /// The number of the entry that announced it.
    seq: u64,
    /// The epoch of that entry.
    epoch: u32,
    /// It was sealed: what it is called here says nothing.
    sealed: bool,
    /// Its hash.
    hash: ReleaseHash,
}

impl LiveRelease {
    const fn at(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }
}

/// Package, machine and counter; of sealed ones a cover ([`sealed::cover`]).
type Name = (PackageName, Arch, u64);

/// The live releases of a feed, by their names.
#[derive(Debug, Default)]
pub(super) struct Live(Sorted<Name, LiveRelease>);

impl Live {
    pub(super) fn hashes(&self) -> impl Iterator<Item = ReleaseHash> + '_ {
        self.0.values().map(|l| l.hash)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.values().map(LiveRelease::at)
    }

    /// The packages of the live releases that are to be retired, but for those of sealed ones.
    pub(super) fn packages(&self, retire: &Retire) -> impl Iterator<Item = &PackageName> {
        let meant = |l: &LiveRelease| !l.sealed && retire.releases.binary_search(&l.at()).is_ok();
        self.0.iter().filter(move |(_, l)| meant(l)).map(|((package, ..), _)| package)
    }

    /// The hashes of what will be live with this entry: what [`Self::change`] leaves.
    pub(super) fn after(&self, entry: &Entry, release: Option<ReleaseHash>) -> Vec<ReleaseHash> {
        let new = name_of(entry);
        let stay = self.0.iter().filter(|(name, live)| stays(entry, name, live));
        // An entry that announces the same counter again takes the other one's place.
        let stay = stay.filter(|(name, _)| new.as_ref() != Some(name)).map(|(_, l)| l.hash);
        let mut all = Vec::with_capacity(self.0.len() + 1);
        all.extend(stay.chain(release));
        all
    }

    /// What an entry does to them; the hash is of what it releases.
    pub(super) fn change(&mut self, entry: &Entry, release: Option<ReleaseHash>) {
        if matches!(entry.kind, Kind::Recall(_) | Kind::Retire(_)) {
            self.0.retain(|name, live| stays(entry, name, live));
        }
        if let (Some(name), Some(hash)) = (name_of(entry), release.or_else(|| entry.release_hash()))
        {
            let Position { epoch, seq } = entry.position();
            let sealed = entry.sealed().is_some();
            self.0.insert(name, LiveRelease { seq, epoch, sealed, hash });
        }
    }
}

/// Does a live release stay so with this entry?
fn stays(entry: &Entry, (package, _, n): &Name, live: &LiveRelease) -> bool {
    match &entry.kind {
        Kind::Release(_) | Kind::Sealed(_) => true,
        Kind::Recall(Recall { package: gone, releases, .. }) => {
            package != gone || !releases.contains(n)
        }
        Kind::Retire(Retire { releases }) => releases.binary_search(&live.at()).is_err(),
    }
}

/// The name under which an entry's release is kept.
fn name_of(entry: &Entry) -> Option<Name> {
    match &entry.kind {
        Kind::Release(r) => Some((r.package.clone(), r.arch.clone(), r.release)),
        Kind::Sealed(_) => sealed::cover(entry.position()),
        Kind::Recall(_) | Kind::Retire(_) => None,
    }
}
