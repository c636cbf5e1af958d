//! The next entry of a feed: what it must follow, what it commits to, and whether we may sign it.
//!
//! The node is not believed: its head must be signed by our own release keys, and its list of live
//! releases must hash to that head's view root (design §4 "Feeds"). The same rules hold on every
//! host; here they only save the maintainer a release that nobody would take.

use stork_wire::charter::{BODY_VERSION, PublisherDoc, ReleaseKey, Survivor, UnixSeconds};
use stork_wire::feed::{Entry, Kind, Release, view_root};
use stork_wire::ids::{FleetId, ItemHash, Position, PublicKey, PublisherId, ReleaseHash};
use stork_wire::limits::LIVE_RELEASES_MAX;
use stork_wire::seal::SealError;
use stork_wire::sign::{Envelope, VerifyError};

use crate::charter::Charter;
use crate::delegate::DelegateError;

/// A feed that must not be continued, or an entry that must not be signed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The node's head or release is not signed by our release keys.
    #[error("the node shows {what} that none of our release keys signed")]
    NotOurs {
        /// What it shows.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: VerifyError,
    },
    /// The node's head is of another publisher.
    #[error("the node shows {0} of another publisher")]
    OtherPublisher(&'static str),
    /// The live releases are not those that the head commits to.
    #[error("the node's list of live releases is not what the feed's head commits to")]
    ViewRoot,
    /// The newest release is not among the live ones.
    #[error("the node shows a release that is not among the live ones")]
    NotLive,
    /// The head has a newer epoch than our publisher document.
    #[error("the feed is in epoch {head}, our publisher document in {ours}")]
    Epoch {
        /// The head's.
        head: u32,
        /// Ours.
        ours: u32,
    },
    /// The node has not reached the end of the epoch before.
    #[error(
        "the node's feed stands at another entry ({head}) than the one that begins epoch {epoch}"
    )]
    Behind {
        /// Where it stands, or should.
        head: Position,
        /// The epoch.
        epoch: u32,
    },
    /// The key is no release key, or not any more.
    #[error("the key {0} may not sign releases of this publisher")]
    NoReleaseKey(String),
    /// A document has run out.
    #[error("the {0} has run out")]
    Expired(String),
    /// The name is not ours to use.
    #[error("{who} does not permit the package name `{name}`")]
    Name {
        /// Which document or key.
        who: String,
        /// The name.
        name: String,
    },
    /// The package provides names that the group does not grant.
    #[error("group `{group}` does not let `{publisher}` provide {names}")]
    Provides {
        /// The group.
        group: String,
        /// The publisher, as the group calls it.
        publisher: String,
        /// The names.
        names: String,
    },
    /// The group does not know this publisher.
    #[error("group `{0}` has no grant for this publisher")]
    NoGrant(String),
    /// The release is larger than the group allows.
    #[error("group `{group}` allows {max} unpacked bytes, this release has {len}")]
    TooLarge {
        /// The group.
        group: String,
        /// Its limit.
        max: u64,
        /// The release.
        len: u64,
    },
    /// More live releases than a feed may have.
    #[error("the feed has {LIVE_RELEASES_MAX} live releases already")]
    TooMany,
    /// The key of a private group is not beside the charter.
    #[error("group `{0}` is private, and its key is not in group-keys beside the charter")]
    NoGroupKey(String),
    /// A private group beside others.
    #[error("group `{0}` is private: a release for it is for no other group")]
    Mixed(String),
    /// The release cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The delegated key cannot do this.
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    /// More groups or origins than fit.
    #[error("too many groups or origins for one entry")]
    List(#[from] stork_wire::codec::TooMany),
}

impl FeedError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } | Self::OtherPublisher(_) | Self::ViewRoot | Self::NotLive => {
                "do not sign anything: push to another node, and look into this one; if the \
                 release keys were rotated, fetch the newest charter.bundle first"
            }
            Self::Behind { .. } => "try again in a moment, or push to another node",
            Self::Epoch { .. } | Self::Expired(_) => {
                "fetch the newest charter.bundle, or have the document renewed by its keys"
            }
            Self::NoReleaseKey(_) => {
                "name the right key by --key; `stork-publish charter show DIR` lists them"
            }
            Self::Provides { .. } => {
                "other packages would be met by this one under these names. The group's authority \
                 grants them: `stork-publish charter grant GROUP PUBLISHER --provides NAME…`, with \
                 what it grants already; `stork-publish charter show DIR` lists that"
            }
            Self::Name { .. } | Self::NoGrant(_) | Self::TooLarge { .. } => {
                "ask the group's authority for a grant, or name other groups by --group"
            }
            Self::NoGroupKey(_) => {
                "copy the file there that `stork-publish charter private` made; mode 0600"
            }
            Self::Mixed(_) => "push once for each private group: --group NAME",
            Self::Seal(_) => "list fewer dependencies, or push to a group that is not private",
            Self::Random(_) => "try again",
            Self::TooMany => {
                "retire what newer releases have replaced: `stork-publish retire --keep 4`, or \
                 `stork-publish retire PACKAGE --keep 4`"
            }
            Self::Delegate(e) => e.help(),
            Self::List(_) => "name fewer groups by --group",
        }
    }
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::TooLarge { .. } => 7,
            Self::TooMany | Self::List(_) | Self::Seal(_) | Self::Random(_) => 1,
            Self::Mixed(_) => 2,
            Self::NoGroupKey(_) => 5,
            Self::Behind { .. } => 75,
            Self::Delegate(e) => e.exit(),
            _ => 4,
        }
    }
}

/// Who signs: the publisher of a charter.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// The charter.
    pub charter: &'a Charter,
    /// The publisher.
    pub publisher: PublisherId,
    /// Its document in force.
    pub doc: &'a PublisherDoc,
}

/// Where a feed stands, checked.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The newest entry and its hash.
    pub head: Option<(Entry, ItemHash)>,
    /// The live releases that it commits to.
    pub live: Vec<ReleaseHash>,
}

/// A release that is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The number of its entry.
    pub seq: u64,
    /// Its place in the feed.
    pub at: Position,
    /// From then on it is not installed anew.
    pub expires: UnixSeconds,
    /// What was announced.
    pub release: Release,
    /// Its hash, by which it is recalled.
    pub hash: ReleaseHash,
    /// Was it sealed for a private group?
    pub sealed: bool,
}

impl Author<'_> {
    fn fleet(&self) -> FleetId {
        self.charter.fleet
    }

    /// Checks that an entry is ours: signed by a release key of its epoch that may sign its number.
    fn entry(&self, envelope: &Envelope, what: &'static str) -> Result<Entry, FeedError> {
        let ours = |source| FeedError::NotOurs { what, source };
        let claim: Entry = envelope.claimed().map_err(ours)?;
        let may = |k: &&ReleaseKey| k.valid_through.is_none_or(|last| claim.position() <= last);
        let keys = self.charter.release_keys(self.publisher, claim.epoch);
        let keys: Vec<PublicKey> = keys.iter().filter(may).map(|k| k.key).collect();
        let keys = self.signers_of(&claim, keys).map_err(ours)?;
        let entry = envelope.verify::<Entry>(self.fleet(), &keys, 1).map_err(ours)?.into_body();
        if entry.publisher != self.publisher {
            return Err(FeedError::OtherPublisher(what));
        }
        Ok(entry)
    }

    /// Checks the head that a node shows.
    pub fn standing(
        &self,
        entry: Option<&Envelope>,
        live: &[ReleaseHash],
    ) -> Result<Standing, FeedError> {
        let Some(envelope) = entry else {
            // Nothing at all is what a feed begins with, and an epoch that begins anew.
            return match self.doc.survivor {
                None if live.is_empty() => Ok(Standing::default()),
                None => Err(FeedError::ViewRoot),
                Some(s) => Err(FeedError::Behind { head: s.at, epoch: self.doc.epoch }),
            };
        };
        let entry = self.entry(envelope, "a head")?;
        if view_root(live.iter().copied()) != entry.view_root {
            return Err(FeedError::ViewRoot);
        }
        if entry.epoch > self.doc.epoch {
            return Err(FeedError::Epoch { head: entry.epoch, ours: self.doc.epoch });
        }
        let stands = Survivor { at: entry.position(), hash: envelope.hash() };
        if entry.epoch < self.doc.epoch && self.doc.survivor != Some(stands) {
            return Err(FeedError::Behind { head: entry.position(), epoch: self.doc.epoch });
        }
        Ok(Standing { head: Some((entry, envelope.hash())), live: live.to_vec() })
    }

    /// Checks the newest release of a package that a node shows.
    pub fn latest(&self, standing: &Standing, shown: &Envelope) -> Result<Published, FeedError> {
        let entry = self.entry(shown, "a release")?;
        let live = entry.release_hash().filter(|h| standing.live.contains(h));
        let hash = live.ok_or(FeedError::NotLive)?;
        self.read(entry, hash)
    }

    /// Checks a release of an epoch that has ended, which is to be announced again.
    pub fn carried(&self, kept: &Envelope) -> Result<Published, FeedError> {
        let entry = self.entry(kept, "a carried release")?;
        let hash = entry.release_hash().ok_or(FeedError::NotLive)?;
        self.read(entry, hash)
    }

    fn read(&self, entry: Entry, hash: ReleaseHash) -> Result<Published, FeedError> {
        let at = entry.position();
        let sealed = entry.sealed().is_some();
        let release = match entry.kind {
            Kind::Release(r) => *r,
            Kind::Sealed(s) => s.read(self.publisher, &self.charter.keys)?,
            Kind::Recall(_) | Kind::Retire(_) => return Err(FeedError::NotLive),
        };
        Ok(Published { seq: entry.seq, at, expires: entry.expires, release, hash, sealed })
    }
}

impl Author<'_> {
    /// The entry that follows `standing` and leaves `live`.
    pub fn follow(
        &self,
        standing: &Standing,
        live: impl IntoIterator<Item = ReleaseHash>,
        (now, expires): (UnixSeconds, UnixSeconds),
        kind: Kind,
    ) -> Entry {
        let (doc, head) = (self.doc, standing.head.as_ref());
        Entry {
            version: BODY_VERSION,
            publisher: self.publisher,
            epoch: doc.epoch,
            seq: self.next_seq(standing),
            prev: head.map(|(_, hash)| *hash),
            document: doc.number,
            // A clock behind the head's does not let a feed run backwards.
            signed_at: now.max(head.map_or(0, |(e, _)| e.signed_at)),
            expires,
            view_root: view_root(live),
            kind,
            via: None,
        }
    }

    /// Entries of earlier epochs after which the open one counts on: counters rise above all that
    /// they announced.
    pub(crate) fn entries_before(&self) -> u64 {
        self.doc.survivor.or(self.doc.compacts).map_or(0, |s| s.at.seq)
    }

    /// A new epoch of the publisher document begins its own numbers, after the entry that stands.
    pub(crate) fn next_seq(&self, standing: &Standing) -> u64 {
        let head = standing.head.as_ref().filter(|(e, _)| e.epoch == self.doc.epoch);
        head.map_or(0, |(e, _)| e.seq) + 1
    }
}
