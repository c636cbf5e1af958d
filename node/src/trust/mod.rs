//! Trust: which signed item is believed, and why another is not.
//!
//! Pure rules over the charter and the feeds. [`Trust::judge`] is the one door: the driver hands in
//! every item, from whoever it came, and stores what is accepted before anything is shown or passed
//! on. Each rule has its own [`Refusal`], named after the attack that it stops
//! (acceptance/security.md §1); blame is for what the fact proves, so an item that only came too
//! early is pending, not refused.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
mod charter;
mod feed;
mod policy;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;

pub use admission::{AdmissionError, CheckedPeer};
pub use charter::{Charter, GroupState, PublisherState};
pub use feed::{FeedState, LiveRelease};
pub use policy::{Decision, Effect, Rule, RuleError, Subject, decide};
pub use refusal::Refusal;

use std::collections::BTreeMap;

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::Entry;
use stork_wire::ids::{FleetId, ItemHash, LogId, PublisherId};
use stork_wire::item::{Head, Item, ItemKind};
use stork_wire::limits::LOGS_MAX;

/// Items that wait for one that comes before them, in all. A dropped one comes again by sync.
pub const PENDING_MAX: usize = 1_024;
/// Entries that wait, in one feed: a publisher that runs ahead cannot take the room of others.
pub const PENDING_PER_LOG_MAX: usize = 256;

/// A fact that passed every rule; only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<T>(T);

impl<T> Accepted<T> {
    /// The accepted value.
    pub const fn get(&self) -> &T {
        &self.0
    }
}

/// What an accepted item says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A charter document took effect.
    Charter(ItemKind),
    /// A feed has a new entry.
    Entry(Box<Accepted<Entry>>),
}

/// The judgement on one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passed every rule and follows what was accepted before.
    Accepted {
        /// Hash of its body.
        hash: ItemHash,
        /// What it says.
        fact: Fact,
    },
    /// It was accepted before.
    Known,
    /// It waits for earlier items of this log; nobody is to blame.
    Pending {
        /// The log of which items are missing; `None` where it is not known which.
        missing: Option<LogId>,
    },
    /// It is refused, and nothing has changed.
    Refused(Refusal),
}

/// The charter, the feeds, and what waits.
#[derive(Debug)]
pub struct Trust {
    charter: Charter,
    feeds: BTreeMap<PublisherId, FeedState>,
    pending: BTreeMap<(LogId, u64), Item>,
}

impl Trust {
    /// Knows only the fleet's id: the first root document must hash to it.
    #[must_use]
    pub const fn new(fleet: FleetId) -> Self {
        Self { charter: Charter::new(fleet), feeds: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.charter.fleet()
    }
    /// The charter in force.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }
    /// One publisher's feed.
    #[must_use]
    pub fn feed(&self, publisher: PublisherId) -> Option<&FeedState> {
        self.feeds.get(&publisher)
    }
    /// All feeds.
    pub fn feeds(&self) -> impl Iterator<Item = (&PublisherId, &FeedState)> {
        self.feeds.iter()
    }
    /// Items that wait.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Judges one item. What is accepted is in force at once; the caller stores it before it shows
    /// or forwards anything that follows from it.
    pub fn judge(&mut self, item: &Item, now: UnixSeconds) -> Verdict {
        let verdict = match item.kind {
            ItemKind::Root => self.charter.judge_root(item, now),
            ItemKind::Group => self.charter.judge_group(item, now),
            ItemKind::Publisher => self.charter.judge_publisher(item, now),
            ItemKind::Entry => self.judge_entry(item, now),
        };
        let verdict = match verdict {
            Ok(v) => v,
            Err(refusal) => Verdict::Refused(refusal),
        };
        if matches!(verdict, Verdict::Pending { .. }) {
            self.keep_pending(item);
        }
        verdict
    }

    /// Takes a waiting item whose turn may have come. Call after each accepted item until `None`.
    pub fn take_ready(&mut self, after: LogId, seq: u64) -> Vec<Item> {
        let mut out = Vec::new();
        if let Some(next) = self.pending.remove(&(after, seq.saturating_add(1))) {
            out.push(next);
        }
        out
    }

    /// Takes everything that waits, to be judged again after a charter document was accepted.
    pub fn take_all_pending(&mut self) -> Vec<Item> {
        core::mem::take(&mut self.pending).into_values().collect()
    }

    fn keep_pending(&mut self, item: &Item) {
        let of_log = self.pending.range((item.log, 0)..=(item.log, u64::MAX)).count();
        if self.pending.len() < PENDING_MAX && of_log < PENDING_PER_LOG_MAX {
            self.pending.insert((item.log, item.seq), item.clone());
        }
    }

    fn judge_entry(&mut self, item: &Item, now: UnixSeconds) -> Result<Verdict, Refusal> {
        let entry: Entry = item.envelope.claimed().map_err(Refusal::from)?;
        if item.log != LogId::feed(entry.publisher) || item.seq != entry.seq {
            return Err(Refusal::WrongLog);
        }
        let Some(publisher) = self.charter.publisher(entry.publisher) else {
            // Not known yet, or never: it waits for a document, and is dropped when room is short.
            return Ok(Verdict::Pending { missing: None });
        };
        if entry.document > publisher.doc().number {
            return Ok(Verdict::Pending { missing: Some(LogId::publisher(entry.publisher)) });
        }
        if self.feeds.len() >= LOGS_MAX && !self.feeds.contains_key(&entry.publisher) {
            return Err(Refusal::TooMany);
        }
        let feed = self.feeds.entry(entry.publisher).or_default();
        feed.judge(&self.charter, publisher, item, &entry, now)
    }

    /// All heads, for the overlay.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        let mut heads = self.charter.heads();
        for (publisher, feed) in &self.feeds {
            if let Some((seq, hash)) = feed.head() {
                heads.push(Head::of(LogId::feed(*publisher), seq, hash));
            }
        }
        heads
    }
}
