//! What publishers ask of the driver: who they are, where their feed stands, commit this.

use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::frame::RELEASES_AT_ONCE;
use stork_wire::ids::{LogId, Position, PublicKey, PublisherId, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::LIVE_RELEASES_MAX;
use stork_wire::manifest::Variant;
use stork_wire::sign::Envelope;
use stork_wire::text::{Arch, Label, PackageName};
use tokio::sync::oneshot;

use super::content::fits;
use super::{Driver, Reply};
use crate::trust::{AdmissionError, Refusal};

/// Why an entry was not committed. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not follow the feed's head.
    #[error("the feed's head has moved: somebody else published meanwhile")]
    HeadMoved,
    /// This node does not take entries of this feed.
    #[error("this feed's entries are taken by its home nodes only")]
    NotHome,
    /// The version stands for another tree already.
    #[error("{what} is published already, as entry {at}, with another content")]
    VersionTaken {
        /// Package, version and architecture.
        what: String,
        /// The entry that published it.
        at: Position,
    },
    /// Its content is not on this node.
    #[error("the content is not here: {0}")]
    ContentMissing(String),
    /// Too much waits for the disk.
    #[error("too much waits for the disk")]
    Busy,
    /// The state was put back from a backup, and may be behind.
    #[error("this node's state was restored from a backup: it takes entries once it has caught up")]
    Restored,
    /// It is sealed, and cannot be read here.
    #[error("this host cannot read it: it has not the key of that group, or its signer may not")]
    Unread,
    /// A release for a private group is not sealed.
    #[error("group `{0}` is private: a release for it must be sealed")]
    NotSealed(String),
    /// The disk failed.
    #[error("the disk failed; see the node's status")]
    Disk,
    /// Not an entry, or of somebody else.
    #[error("{0}")]
    Malformed(String),
}

/// A publisher that was let in.
#[derive(Debug, Clone)]
pub struct PushAuth {
    /// Who.
    pub publisher: PublisherId,
    /// This node's name.
    pub node_name: Label,
}

/// A publisher's question or order.
#[derive(Debug)]
pub enum PushCall {
    /// Who is this?
    Hello {
        /// The certificate of its TLS key.
        cert: Envelope,
        /// The certificate of the delegated key that signed it, if one did.
        via: Option<Envelope>,
        /// The TLS key that it showed.
        key: PublicKey,
        /// The answer.
        answer: oneshot::Sender<Result<PushAuth, AdmissionError>>,
    },
    /// Take these charter documents.
    Documents {
        /// The documents.
        items: Vec<Item>,
        /// The answer, once all are on disk.
        answer: Reply,
    },
    /// Where does the feed stand?
    Head {
        /// Whose.
        publisher: PublisherId,
        /// The newest entry's place, and the live releases.
        answer: oneshot::Sender<(Option<Position>, List<ReleaseHash, LIVE_RELEASES_MAX>)>,
    },
    /// The newest release of a package.
    Latest {
        /// Whose.
        publisher: PublisherId,
        /// Which package.
        package: PackageName,
        /// For which machine.
        arch: Arch,
        /// The place of the entry that announced it.
        answer: oneshot::Sender<Option<Position>>,
    },
    /// The live releases of a package.
    Releases {
        /// Whose.
        publisher: PublisherId,
        /// Which package.
        package: PackageName,
        /// Only those before this place.
        before: Option<Position>,
        /// The places of the entries that announced them, the newest first, no more than fit.
        answer: oneshot::Sender<Vec<Position>>,
    },
    /// All live releases of the feed.
    Live {
        /// Whose.
        publisher: PublisherId,
        /// Only those before this place.
        before: Option<Position>,
        /// The places of the entries that announced them, the newest first, no more than fit.
        answer: oneshot::Sender<Vec<Position>>,
    },
    /// Is the feed frozen by a fork?
    Fork {
        /// Whose.
        publisher: PublisherId,
        /// The number of the fork, and the two entries of the proof.
        answer: oneshot::Sender<Option<(Position, Vec<Envelope>)>>,
    },
    /// Which of these lie behind a fork, are of a package, and were not recalled?
    Behind {
        /// Whose.
        publisher: PublisherId,
        /// Which package.
        package: PackageName,
        /// Entries that are kept aside, and those of the proof.
        entries: Vec<Envelope>,
        /// Those, no more than fit.
        answer: oneshot::Sender<List<Envelope, RELEASES_AT_ONCE>>,
    },
    /// A request was refused before it came to the driver.
    Refused {
        /// A stable word for counters.
        code: &'static str,
        /// What the publisher was told.
        why: String,
    },
    /// Commit this entry.
    Commit {
        /// Whose.
        publisher: PublisherId,
        /// The entry.
        entry: Envelope,
        /// The answer.
        answer: Reply,
    },
}

impl Driver {
    pub(super) fn on_push(&mut self, call: PushCall) {
        // An asker that went away meanwhile needs no answer.
        match call {
            PushCall::Hello { cert, via, key, answer } => {
                let now = self.clock.unix();
                let checked = match via {
                    None => self.trust.check_push(&cert, key, now),
                    Some(via) => self.trust.check_delegated_push(&cert, &via, key, now),
                };
                if let Err(e) = &checked {
                    self.counters.add("pushes_refused", e.code());
                    self.event("push_refused", e.to_string());
                }
                let node_name = self.name.clone();
                drop(answer.send(checked.map(|c| PushAuth { publisher: c.publisher, node_name })));
            }
            PushCall::Documents { items, answer } => self.take_documents(items, answer),
            PushCall::Head { publisher, answer } => {
                let feed = self.trust.feed(publisher);
                let newest = feed.and_then(|f| f.newest()).map(|(at, _)| at);
                let live = List::truncated(feed.into_iter().flat_map(|f| f.live()));
                drop(answer.send((newest, live)));
            }
            PushCall::Latest { publisher, package, arch, answer } => {
                let found = self.catalog.latest(publisher, &package, &arch);
                let found = found.map(|k| Position { epoch: k.epoch, seq: k.seq });
                answer.send(found).unwrap_or_default();
            }
            PushCall::Releases { publisher, package, before, answer } => {
                let own = self.catalog.of_package(&package).iter();
                let charter = self.trust.charter();
                let own = own.filter(|k| {
                    let name = k.recalled_as();
                    let stays = || charter.recalled(publisher, k.epoch, &name, k.hash).is_none();
                    let stands = k.frozen.is_none() && !k.retired;
                    k.publisher == publisher && stands && stays()
                });
                let places = own.map(crate::catalog::KnownRelease::place);
                answer.send(newest_first(places, before)).unwrap_or_default();
            }
            PushCall::Live { publisher, before, answer } => {
                let feed = self.trust.feed(publisher);
                let places = feed.into_iter().flat_map(|f| f.live_places());
                answer.send(newest_first(places, before)).unwrap_or_default();
            }
            PushCall::Fork { publisher, answer } => {
                answer.send(self.trust.fork_of(publisher)).unwrap_or_default();
            }
            PushCall::Behind { publisher, package, entries, answer } => {
                drop(answer.send(self.releases_behind(publisher, &package, entries)));
            }
            PushCall::Refused { code, why } => {
                self.counters.add("pushes_refused", code);
                self.event("push_refused", why);
            }
            PushCall::Commit { publisher, entry, answer } => {
                match self.check_commit(publisher, &entry) {
                    Ok(item) => self.judge(item, None, Some(answer)),
                    Err(e) => {
                        self.counters.add("pushes_refused", commit_code(&e));
                        self.event("push_refused", e.to_string());
                        drop(answer.send(Err(e)));
                    }
                }
            }
        }
    }

    /// The last document answers for all: the journal keeps their order.
    fn take_documents(&mut self, mut items: Vec<Item>, answer: Reply) {
        // Root before group before publisher: none of them then waits for another.
        items.sort_by_key(|i| (i.kind, i.seq));
        let mut answer = Some(answer);
        let last = items.len().saturating_sub(1);
        if !items.iter().all(|i| proves_itself(i.kind)) {
            let e = CommitError::Malformed(
                "that is no charter document, and it takes nothing away".into(),
            );
            if let Some(answer) = answer.take() {
                drop(answer.send(Err(e)));
            }
            return;
        }
        for (i, item) in items.into_iter().enumerate() {
            let reply = if i == last { answer.take() } else { None };
            self.judge(item, None, reply);
        }
        if let Some(answer) = answer {
            drop(answer.send(Ok((0, 0))));
        }
    }

    fn check_commit(
        &self,
        publisher: PublisherId,
        envelope: &Envelope,
    ) -> Result<Item, CommitError> {
        let entry: Entry = envelope.claimed().map_err(|e| CommitError::Malformed(e.to_string()))?;
        if entry.publisher != publisher {
            return Err(CommitError::Malformed("the entry is another publisher's".into()));
        }
        let log = LogId::feed_epoch(publisher, entry.epoch);
        let item = Item { kind: ItemKind::Entry, log, seq: entry.seq, envelope: envelope.clone() };
        self.trust.check_door(&entry, self.clock.unix())?;
        let feed = self.trust.feed(publisher);
        let at = entry.position();
        if feed.and_then(|f| f.newest()).is_some_and(|h| h == (at, envelope.hash())) {
            return Ok(item);
        }
        let homes = self.trust.charter().publisher(publisher).map(|p| p.doc().homes.clone());
        if homes.is_some_and(|h| !h.is_empty() && !h.contains(&self.me)) {
            return Err(CommitError::NotHome);
        }
        if self.is_restored() {
            return Err(CommitError::Restored);
        }
        if let Some(freeze) = self.trust.frozen(publisher).filter(|f| f.at <= at) {
            return Err(CommitError::Refused(Refusal::Frozen(freeze)));
        }
        let next = feed.map_or(Position { epoch: 1, seq: 1 }, crate::trust::FeedState::next);
        if at.epoch < next.epoch {
            return Err(CommitError::Refused(Refusal::Closed(at)));
        }
        // Of a later epoch the rules speak, which know the documents.
        if at.epoch == next.epoch && at != next {
            return Err(CommitError::HeadMoved);
        }
        self.check_sealed(&entry)?;
        if matches!(entry.kind, Kind::Release(_) | Kind::Sealed(_)) {
            // Whoever keeps the content for others must be able to read what it is for.
            let read = self.trust.read_entry(&item);
            let read = read.as_ref().and_then(Entry::release).ok_or(CommitError::Unread)?;
            self.check_version(publisher, read)?;
            self.check_content(read)?;
        }
        Ok(item)
    }

    /// What is for a private group is sealed: in clear it would tell everybody.
    fn check_sealed(&self, entry: &Entry) -> Result<(), CommitError> {
        let Kind::Release(r) = &entry.kind else { return Ok(()) };
        let charter = self.trust.charter();
        let mut groups = r.groups.iter().filter_map(|g| charter.group(*g));
        match groups.find(|g| g.doc().private.is_some()) {
            Some(g) => Err(CommitError::NotSealed(g.doc().name.to_string())),
            None => Ok(()),
        }
    }

    /// One version is one content for ever: two hosts that name it must mean the same bytes. The
    /// same content again is no harm; it may be for further groups, or for longer.
    fn check_version(&self, publisher: PublisherId, r: &Release) -> Result<(), CommitError> {
        let known = self.trust.feed(publisher).and_then(|f| f.version(r)).or_else(|| {
            // Feeds do not know what sealed releases say; who reads them does.
            let mut same = self.catalog.of_package(&r.package).iter().filter(|k| {
                let (a, b) = (&k.release, r);
                k.publisher == publisher && a.arch == b.arch && a.version == b.version
            });
            same.next().map(|k| (Position { epoch: k.epoch, seq: k.seq }, k.release.tree))
        });
        match known {
            Some((at, tree)) if tree != r.tree => {
                let what = format!("{} {} ({})", r.package, r.version, r.arch);
                Err(CommitError::VersionTaken { what, at })
            }
            _ => Ok(()),
        }
    }

    /// An announcement without content would send the whole fleet looking for nothing.
    fn check_content(&self, r: &Release) -> Result<(), CommitError> {
        let missing = |what: &str| CommitError::ContentMissing(what.to_owned());
        let manifest = self
            .store
            .manifest_decoded(r.manifest.id)
            .map_err(|_e| CommitError::Disk)?
            .ok_or_else(|| missing("push the manifest first"))?;
        for variant in [Variant::Full, Variant::Delta] {
            let packs = manifest.packing.packs(variant);
            if !packs.iter().all(|p| self.store.has_pack(p.id)) {
                return Err(missing("push every pack first"));
            }
        }
        // Every host would refuse it; better that its publisher hears of it now.
        fits(&manifest, r).map_err(|why| {
            CommitError::Malformed(format!("the manifest contradicts its announcement: {why}"))
        })
    }
}

/// The newest of these places that one answer holds.
fn newest_first(places: impl Iterator<Item = Position>, before: Option<Position>) -> Vec<Position> {
    let mut places: Vec<_> = places.filter(|at| before.is_none_or(|b| *at < b)).collect();
    places.sort_unstable_by(|a, b| b.cmp(a));
    places.truncate(RELEASES_AT_ONCE);
    places
}

/// Items that need nobody's hello: who signed them is all that counts.
const fn proves_itself(kind: ItemKind) -> bool {
    use ItemKind::{Deny, Group, Publisher, Root, Suicide, Withdrawal};
    matches!(kind, Root | Group | Publisher | Deny | Suicide | Withdrawal)
}

const fn commit_code(e: &CommitError) -> &'static str {
    match e {
        CommitError::Refused(r) => r.code(),
        CommitError::HeadMoved => "head_moved",
        CommitError::NotHome => "not_home",
        CommitError::VersionTaken { .. } => "version_taken",
        CommitError::ContentMissing(_) => "content_missing",
        CommitError::Busy => "busy",
        CommitError::Restored => "restored",
        CommitError::Unread => "unread",
        CommitError::NotSealed(_) => "not_sealed",
        CommitError::Disk => "disk",
        CommitError::Malformed(_) => "malformed",
    }
}
