//! The rules of a feed, in their order: cheap first, rollback before expiry, nothing by half.

use std::cmp::Ordering;

use stork_wire::charter::{ReleaseKey, Survivor, UnixSeconds};
use stork_wire::feed::{Entry, Kind, Release, view_root};
use stork_wire::ids::{ItemHash, LogId, Position, PublicKey, PublisherId, ReleaseHash, TreeId};
use stork_wire::item::Item;
use stork_wire::limits::{CLOCK_SKEW_S, LIVE_RELEASES_MAX};
use stork_wire::sign::{Claimed, ReadyKey, Verified};
use stork_wire::text::{Arch, PackageName, Version};

use super::delegated::Vouched;
use super::epoch::Segment;
use super::live::Live;
use super::sealed;
use super::sorted::Sorted;
use super::suicide::SignedBy;
use super::{Accepted, Charter, Fact, PublisherState, Refusal, Verdict};

/// Hashes of accepted entries kept per feed, to tell a repeated entry from a second one with the
/// same number. Older ones are told apart by the journal alone, and are dropped as known.
const HASHES_MAX: usize = 4_096;

/// Releases kept per feed, to tell what a version stood for: all that can be live, and as many that
/// were withdrawn or retired.
const VERSIONS_MAX: usize = 2 * LIVE_RELEASES_MAX;

/// One publisher's feed as accepted so far.
#[derive(Debug, Default)]
pub struct FeedState {
    /// Entries with which the epochs ended that were walked.
    closed: Vec<Survivor>,
    /// The epoch whose entries come next; 0: none was looked at yet.
    pub(super) epoch: u32,
    /// So many times what stands has changed since it was last read from the journal.
    pub(super) rewinds: u32,
    head: Option<(u64, ItemHash)>,
    /// When the newest entry was signed, as it says; of an entry of an epoch before, if the open
    /// one has none.
    newest_time: UnixSeconds,
    hashes: Sorted<u64, ItemHash>,
    /// The keys that checked the newest entry, ready to check the next one; none in a feed that
    /// rests ([`FeedState::rest`]).
    ready: Vec<ReadyKey>,
    live: Live,
    /// Who has signed entries of the open epoch, and the first of each.
    pub(super) signed: Vec<SignedBy>,
    /// The highest release counter of each package, withdrawn ones included.
    counters: Sorted<(PackageName, Arch), u64>,
    /// What each version stood for first, by the entry that said so; withdrawn ones included.
    versions: Sorted<Position, (PackageName, Arch, Version, TreeId)>,
}

impl FeedState {
    /// Number and hash of the newest entry in the epoch that is open here.
    #[must_use]
    pub const fn head(&self) -> Option<(u64, ItemHash)> {
        self.head
    }
    /// Place and hash of the newest entry of all epochs.
    #[must_use]
    pub fn newest(&self) -> Option<(Position, ItemHash)> {
        let head = self.head.map(|(seq, hash)| (Position { epoch: self.epoch, seq }, hash));
        head.or_else(|| self.closed.last().map(|s| (s.at, s.hash)))
    }
    /// Place of the entry that comes next.
    #[must_use]
    pub fn next(&self) -> Position {
        let seq = self.head_seq().saturating_add(1);
        Position { epoch: self.epoch.max(1), seq }
    }
    pub(super) fn head_seq(&self) -> u64 {
        self.head.map_or(0, |(seq, _)| seq)
    }
    /// What the next entry must name as its predecessor.
    pub(super) fn last_hash(&self) -> Option<ItemHash> {
        self.newest().map(|(_, hash)| hash)
    }
    pub(super) fn closed(&self) -> &[Survivor] {
        &self.closed
    }
    /// This epoch has come to its end, and another begins.
    pub(super) fn close(&mut self, last: Survivor, next: u32) {
        self.closed.push(last);
        self.epoch = next;
        self.head = None;
        self.hashes.clear();
        self.signed = Vec::new();
    }
    pub(super) fn knows(&self, entry: &Entry, hash: ItemHash) -> bool {
        entry.epoch == self.epoch && self.is_known(entry.seq, hash)
    }
    /// Takes an entry that was judged before.
    pub(super) fn take(&mut self, entry: &Entry, hash: ItemHash) {
        self.take_hashed(entry, hash, entry.release_hash());
    }

    /// The same with the hash of its release at hand.
    fn take_hashed(&mut self, entry: &Entry, hash: ItemHash, release: Option<ReleaseHash>) {
        self.live.change(entry, release);
        self.apply(entry, hash);
    }

    /// The hash of an entry at its place; `None` where it is not of the epoch that is open here, or
    /// older than hashes are kept.
    #[must_use]
    pub fn entry_hash(&self, at: Position) -> Option<ItemHash> {
        self.hash_of(at.seq).filter(|_| at.epoch == self.epoch)
    }

    /// The hash of an entry of the open epoch, as far back as hashes are kept.
    pub(super) fn hash_of(&self, seq: u64) -> Option<ItemHash> {
        self.hashes.get(&seq).copied()
    }

    /// Does the entry lie on the feed's path, and in the epoch that is open here?
    pub(super) fn check_place(
        &self,
        path: &[Segment],
        publisher: &PublisherState,
        item: &Item,
        entry: &Entry,
    ) -> Result<Option<Verdict>, Refusal> {
        let Some(segment) = path.iter().find(|s| s.epoch == entry.epoch) else {
            let want = publisher.doc().epoch;
            return Err(Refusal::WrongEpoch { got: entry.epoch, want });
        };
        if let Some((last, hash)) = segment.last
            && (entry.seq > last || (entry.seq == last && item.envelope.hash() != hash))
        {
            return Err(Refusal::Closed(entry.position()));
        }
        Ok(match entry.epoch.cmp(&self.epoch) {
            Ordering::Less => Some(Verdict::Known),
            Ordering::Greater => {
                let missing = Some(LogId::feed_epoch(entry.publisher, self.epoch));
                Some(Verdict::Pending { missing })
            }
            Ordering::Equal => None,
        })
    }
    /// What this version of the package has stood for since its first entry: that entry's number,
    /// and the tree. A withdrawn release counts: hosts may have shown it.
    #[must_use]
    pub fn version(&self, r: &Release) -> Option<(Position, TreeId)> {
        let same = |(_, (package, arch, version, _)): &(_, &(PackageName, Arch, Version, _))| {
            // The version first: it tells most of them apart.
            *version == r.version && *package == r.package && *arch == r.arch
        };
        self.versions.iter().find(same).map(|(at, (.., tree))| (*at, *tree))
    }
    /// The hashes of all live releases.
    pub fn live(&self) -> impl Iterator<Item = ReleaseHash> + '_ {
        self.live.hashes()
    }

    /// The places of the entries that announced them.
    pub fn live_places(&self) -> impl Iterator<Item = Position> + '_ {
        self.live.places()
    }

    /// Judges an entry whose claims (log, publisher, document) were looked at.
    pub(super) fn judge(
        &mut self,
        charter: &Charter,
        publisher: &PublisherState,
        item: &Item,
        read: Claimed<Entry>,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let entry = read.body();
        let head = self.head_seq();
        let seen_before = entry.seq <= head;
        if seen_before && self.is_known(entry.seq, read.hash()) {
            return Ok(Verdict::Known);
        }
        let ahead = entry.signed_at.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        let doc = publisher.doc();
        let (verified, vouched) = self.verify(charter, publisher, item, read)?;
        let entry = verified.body();
        let signers = vouched.as_ref().map_or_else(|| verified.signers(), |v| &v.by);
        if seen_before {
            return match self.hashes.get(&entry.seq) {
                // What an epoch that has ended is worth, its publisher's root has said.
                Some(_) if entry.epoch == doc.epoch => Ok(Verdict::Rival { at: entry.position() }),
                Some(_) => Err(Refusal::Equivocation(entry.seq)),
                None => Err(Refusal::Replay { seq: entry.seq, head }),
            };
        }
        check_scope(charter, publisher, signers, entry)?;
        if let Kind::Retire(retire) = &entry.kind {
            let rules: Vec<_> = publisher.rules_for(entry).collect();
            let mut names = self.live.packages(retire);
            names.try_for_each(|package| may_name(rules.iter().copied(), signers, package))?;
        }
        vouched.as_ref().map_or(Ok(()), |v| v.check_scope(entry))?;
        if entry.seq > head.saturating_add(1) {
            return Ok(Verdict::Pending { missing: Some(item.log) });
        }
        if entry.prev != self.last_hash() {
            return Err(Refusal::BrokenChain(entry.seq));
        }
        vouched.as_ref().map_or(Ok(()), |v| v.check_order(entry, self.newest_time))?;
        self.check_rollback(entry)?;
        let release = entry.release_hash();
        let live = self.live.after(entry, release);
        if live.len() > LIVE_RELEASES_MAX {
            return Err(Refusal::TooMany);
        }
        if view_root(live) != entry.view_root {
            return Err(Refusal::ViewRootMismatch);
        }
        if entry.epoch == doc.epoch {
            self.note_signers(entry.seq, signers)?;
        }
        let hash = verified.hash();
        self.take_hashed(entry, hash, release);
        let fact = Fact::Entry(Box::new(Accepted(verified.into_body())));
        Ok(Verdict::Accepted { hash, fact })
    }

    /// Checks who signed: release keys, or a delegated key for which one of them vouches.
    fn verify(
        &mut self,
        charter: &Charter,
        publisher: &PublisherState,
        item: &Item,
        read: Claimed<Entry>,
    ) -> Result<(Verified<Entry>, Option<Vouched>), Refusal> {
        if read.body().via.is_some() {
            let (verified, vouched) = charter.verify_delegated(publisher, &item.envelope, read)?;
            return Ok((verified, Some(vouched)));
        }
        self.make_ready(&charter.living(publisher, read.body()));
        match item.envelope.verify_read(read, charter.fleet(), &self.ready, 1) {
            Ok(verified) => Ok((verified, None)),
            Err(e) => Err(charter.or_dead(publisher, item, e.into())),
        }
    }

    /// Are no keys ready?
    pub(super) const fn rests(&self) -> bool {
        self.ready.is_empty()
    }

    /// Gives up the keys that are ready: they take more room than the rest of a small feed, and are
    /// made again in some microseconds.
    pub(super) fn rest(&mut self) {
        self.ready = Vec::new();
    }

    /// Makes keys ready, of which most are so already.
    fn make_ready(&mut self, keys: &[PublicKey]) {
        if !self.ready.iter().map(ReadyKey::key).eq(keys.iter().copied()) {
            self.ready = keys.iter().map(|k| ReadyKey::new(*k)).collect();
        }
    }

    fn is_known(&self, seq: u64, hash: ItemHash) -> bool {
        self.hashes.get(&seq).is_some_and(|h| *h == hash)
    }

    fn check_rollback(&self, entry: &Entry) -> Result<(), Refusal> {
        let Kind::Release(r) = &entry.kind else { return Ok(()) };
        let have = self.counters.get(&(r.package.clone(), r.arch.clone())).copied().unwrap_or(0);
        if r.release > have {
            Ok(())
        } else {
            let package = r.package.to_string();
            Err(Refusal::ReleaseNotRising { package, got: r.release, have })
        }
    }

    fn apply(&mut self, entry: &Entry, hash: ItemHash) {
        if let Kind::Release(r) = &entry.kind {
            self.counters.insert((r.package.clone(), r.arch.clone()), r.release);
            let what = (r.package.clone(), r.arch.clone(), r.version.clone(), r.tree);
            self.versions.insert(entry.position(), what);
            if self.versions.len() > VERSIONS_MAX {
                self.versions.pop_first();
            }
        }
        self.head = Some((entry.seq, hash));
        self.newest_time = entry.signed_at;
        self.hashes.insert(entry.seq, hash);
        if self.hashes.len() > HASHES_MAX {
            self.hashes.pop_first();
        }
    }
}

/// Was the key in use when this was signed?
pub(super) fn usable(key: &ReleaseKey, entry: &Entry) -> bool {
    let last = key.valid_through;
    entry.signed_at < key.not_after && last.is_none_or(|last| entry.position() <= last)
}

/// Name patterns of the keys that signed, and of every group that the release is for.
pub(super) fn check_scope(
    charter: &Charter,
    publisher: &PublisherState,
    signers: &[PublicKey],
    entry: &Entry,
) -> Result<(), Refusal> {
    let package = match &entry.kind {
        Kind::Release(r) => &r.package,
        Kind::Recall(r) => &r.package,
        Kind::Sealed(s) => match s.opened() {
            Some(r) => &r.package,
            None => return sealed::check_group(charter, entry.publisher, s.group),
        },
        // What it retires its feed knows.
        Kind::Retire(_) => return Ok(()),
    };
    may_name(publisher.rules_for(entry), signers, package)?;
    entry.release().map_or(Ok(()), |r| check_groups(charter, entry.publisher, r))
}

/// May one of those who signed release this package?
fn may_name<'a>(
    mut rules: impl Iterator<Item = &'a ReleaseKey>,
    signers: &[PublicKey],
    package: &PackageName,
) -> Result<(), Refusal> {
    let named = |k: &ReleaseKey| k.packages.iter().any(|p| p.matches(package.as_str()));
    if rules.any(|k| named(k) && signers.contains(&k.key)) {
        return Ok(());
    }
    Err(Refusal::OutOfScope(format!("the signing key may not release `{package}`")))
}

/// Each group has let the publisher release this at some time. Whether it does so still decides
/// what a VM shows, and not what is in the feed: what is in a chain can not be taken out of it.
fn check_groups(charter: &Charter, publisher: PublisherId, r: &Release) -> Result<(), Refusal> {
    for id in &r.groups {
        let Some(group) = charter.group(*id) else {
            let what = format!("the group {} is not known", id.short());
            return Err(Refusal::OutOfScope(what));
        };
        group.ever_allowed(publisher, r).or_else(|why| {
            let mut for_whom = charter.delegations.ever(publisher, &r.package);
            let by = for_whom.any(|from| group.ever_allowed(from, r).is_ok());
            if by { Ok(()) } else { Err(why) }
        })?;
    }
    Ok(())
}
