//! Trust: which signed item is believed, and why another is not.
//!
//! Pure rules over the charter and the feeds. [`Trust::judge`] is the one door: the driver hands in
//! every item, from whoever it came, and stores what is accepted before anything is shown or passed
//! on. Each rule has its own [`Refusal`], named after the attack that it stops
//! (acceptance/security.md §1); blame is for what the fact proves, so an item that only came too
//! early is pending, not refused.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
#[cfg(test)]
mod admission_tests;
mod beacon;
#[cfg(test)]
mod beacon_tests;
mod branch;
#[cfg(test)]
mod branch_tests;
mod charter;
mod delegated;
#[cfg(test)]
mod delegated_tests;
mod delegation;
mod deny;
#[cfg(test)]
mod document_tests;
mod entry;
mod epoch;
#[cfg(test)]
mod epoch_tests;
mod expiry;
mod fact;
mod feed;
mod floor;
mod fork;
#[cfg(test)]
mod fork_tests;
mod fresh;
mod grant;
#[cfg(test)]
mod grant_tests;
mod group;
#[cfg(test)]
mod history_tests;
mod live;
#[cfg(test)]
mod narrow_order_tests;
#[cfg(test)]
mod narrow_tests;
mod permit;
mod policy;
mod refusal;
#[cfg(test)]
mod retire_tests;
mod sealed;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod signer_tests;
mod sorted;
mod suicide;
#[cfg(test)]
pub(crate) mod tests;
mod withdrawal;
#[cfg(test)]
mod withdrawal_tests;

pub use admission::{AdmissionError, CheckedPeer};
pub use charter::{Charter, PublisherState};
pub use delegation::{DEPTH, Delegate, Search, SearchError, search};
pub use deny::{DENIALS_MAX, DENIALS_PER_KEY_MAX, DENIED_HOSTS_MAX, DeniedBy, HeldDenial};
pub use epoch::{Aside, Turn};
pub use expiry::{Due, Expired};
pub use fact::{Accepted, Fact};
pub use feed::FeedState;
pub use floor::Floor;
pub use fork::{Cause, Freeze};
pub use fresh::Freshness;
pub use grant::HeldGrant;
pub use group::GroupState;
pub use permit::{PERMITS_MAX, PermitError, Permits};
pub use policy::{
    Attested, Candidate, Decision, Effect, OnStale, Rule, RuleError, Subject, decide,
};
pub use refusal::Refusal;
pub use sealed::cover_number;
pub use suicide::Death;
pub use withdrawal::{HALTS_MAX, HeldHalt, HeldRecall, RECALLS_MAX, RECALLS_PER_KEY_MAX};

use std::collections::{BTreeMap, VecDeque};

use stork_wire::charter::{GroupDoc, UnixSeconds};
use stork_wire::feed::Entry;
use stork_wire::ids::{FleetId, ItemHash, LogId, Position, PublicKey, PublisherId};
use stork_wire::item::{Head, Item, ItemKind};
use stork_wire::sign::{Claimed, ReadyKey};

/// Items that wait for one that comes before them, in all. A dropped one comes again by sync.
pub const PENDING_MAX: usize = 1_024;
/// Entries that wait, in one feed: a publisher that runs ahead cannot take the room of others.
pub const PENDING_PER_LOG_MAX: usize = 256;
/// Items that narrow and wait: room of their own, so that entries cannot take it.
pub const PENDING_FIRST_MAX: usize = 256;
/// Feeds whose keys are kept ready; of more that speak at once, keys are made again and again.
const BUSY_MAX: usize = 256;

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
    /// It was accepted before, or has only told which branch of an ended epoch stands.
    Known,
    /// It waits for earlier items of this log; nobody is to blame.
    Pending {
        /// The log of which items are missing; `None` where it is not known which.
        missing: Option<LogId>,
    },
    /// It is a beacon whose head has not come yet: it waits until this log has got there.
    Behind {
        /// The feed's log.
        log: LogId,
        /// The number of the head.
        to: u64,
    },
    /// It is a second entry with the number of one that was accepted, signed by a key that may:
    /// the two are a [`stork_wire::proof::Proof`]. Nothing has changed yet.
    Rival {
        /// The number.
        at: Position,
    },
    /// It is refused, and nothing has changed.
    Refused(Refusal),
}

type Judged = Result<Verdict, Refusal>;

/// The charter, the feeds, and what waits.
#[derive(Debug)]
pub struct Trust {
    charter: Charter,
    feeds: BTreeMap<PublisherId, Box<FeedState>>,
    /// Feeds whose keys are ready, in the order in which these were made.
    busy: VecDeque<PublisherId>,
    pending: BTreeMap<(LogId, u64), Item>,
    /// Of each frozen feed the proof with the lowest number, in the feed's open epoch.
    proofs: BTreeMap<PublisherId, fork::Held>,
    /// Logs of epochs that began since [`Trust::take_ready`] was asked last.
    begun: Vec<LogId>,
    beacons: beacon::Beacons,
    /// Feeds of which a second branch of an ended epoch was seen.
    walks: branch::Walks,
    /// The newest times in what was accepted.
    times: floor::Times,
}

impl Trust {
    /// Knows only the fleet's id: the first root document must hash to it.
    #[must_use]
    pub fn new(fleet: FleetId) -> Self {
        Self {
            charter: Charter::new(fleet),
            feeds: BTreeMap::new(),
            busy: VecDeque::new(),
            pending: BTreeMap::new(),
            proofs: BTreeMap::new(),
            begun: Vec::new(),
            beacons: beacon::Beacons::new(),
            walks: branch::Walks::default(),
            times: floor::Times { threshold: 0, any: 0 },
        }
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
        self.feeds.get(&publisher).map(Box::as_ref)
    }
    /// Is this place on the path that a publisher's feed has taken, by its newest document?
    #[must_use]
    pub fn on_path(&self, publisher: PublisherId, at: Position) -> bool {
        let path = self.charter.publisher(publisher).map(PublisherState::path).unwrap_or_default();
        let on = |s: &epoch::Segment| {
            s.epoch == at.epoch && s.last.is_none_or(|(last, _)| at.seq <= last)
        };
        path.iter().any(on)
    }
    /// All feeds.
    pub fn feeds(&self) -> impl Iterator<Item = (&PublisherId, &FeedState)> {
        self.feeds.iter().map(|(id, feed)| (id, feed.as_ref()))
    }
    /// Items that wait.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len() + self.beacons.waiting_len()
    }

    /// The release keys whose signatures of an entry are good, by any document of its epoch.
    #[must_use]
    pub fn signers(&self, item: &Item) -> Vec<PublicKey> {
        let Ok(read) = item.envelope.read::<Entry>() else { return Vec::new() };
        let publisher = self.charter.publisher(read.body().publisher);
        if let (Some(publisher), Some(via)) = (publisher, &read.body().via) {
            // The release key that vouches: documents name no other.
            let vouched = self.charter.vouched(publisher, via, read.body());
            return vouched.map(|v| v.by).unwrap_or_default();
        }
        let keys = publisher.map(|p| p.keys_for(read.body())).unwrap_or_default();
        let keys: Vec<ReadyKey> = keys.into_iter().map(ReadyKey::new).collect();
        let verified = item.envelope.verify_read(read, self.charter.fleet(), &keys, 1);
        verified.map(|v| v.signers().to_vec()).unwrap_or_default()
    }

    /// Judges one item. What is accepted is in force at once; the caller stores it before it shows
    /// or forwards anything that follows from it.
    pub fn judge(&mut self, item: &Item, now: UnixSeconds) -> Verdict {
        let verdict = match item.kind {
            ItemKind::Root => self.charter.judge_root(item, now),
            ItemKind::Group => self.charter.judge_group(item, now),
            ItemKind::Publisher => self.judge_publisher(item, now),
            ItemKind::Entry => match item.envelope.read() {
                Ok(read) => self.judge_entry(item, read, now),
                Err(e) => Err(e.into()),
            },
            ItemKind::Proof => self.judge_proof(item),
            ItemKind::Beacon => self.judge_beacon(item, now),
            ItemKind::Deny => self.judge_deny(item, now),
            ItemKind::Suicide => self.judge_suicide(item, now),
            ItemKind::Withdrawal => self.judge_withdrawal(item, now),
            ItemKind::Grant => self.judge_grant(item, now),
            ItemKind::Later(_) => Err(Refusal::LaterKind),
        };
        self.judged(item, verdict)
    }

    /// The same for an entry that was read from the item's envelope ahead, with signatures that
    /// were checked then. The rules are the same, and so is the verdict.
    pub fn judge_read(&mut self, item: &Item, read: Claimed<Entry>, now: UnixSeconds) -> Verdict {
        if item.kind != ItemKind::Entry || read.hash() != item.envelope.hash() {
            return self.judge(item, now);
        }
        let verdict = self.judge_entry(item, read, now);
        self.judged(item, verdict)
    }

    fn judged(&mut self, item: &Item, verdict: Judged) -> Verdict {
        let verdict = verdict.unwrap_or_else(Verdict::Refused);
        match &verdict {
            Verdict::Pending { .. } => self.keep_pending(item),
            Verdict::Accepted { fact, .. } => {
                self.times.note(item, fact);
                self.drop_void_beacons(item.log, fact);
            }
            _ => {}
        }
        verdict
    }

    /// Takes waiting items whose turn may have come: the next one of this log, and the first one of
    /// an epoch that has begun. Call after each accepted item until there is none.
    pub fn take_ready(&mut self, after: LogId, seq: u64) -> Vec<Item> {
        let first = core::mem::take(&mut self.begun).into_iter().map(|log| (log, 1));
        let keys: Vec<(LogId, u64)> =
            core::iter::once((after, seq.saturating_add(1))).chain(first).collect();
        let mut ready: Vec<Item> = keys.iter().filter_map(|key| self.pending.remove(key)).collect();
        let reached = keys.iter().filter_map(|(log, next)| self.beacons.take_reached(*log, *next));
        ready.extend(reached);
        ready
    }

    /// Takes what may have waited for this charter document, which was accepted: entries and
    /// beacons of a publisher, publishers that a group names. To look at everything instead, for
    /// each of ten thousand documents, took minutes.
    pub fn take_unlocked(&mut self, document: &Item) -> Vec<Item> {
        let mut logs = vec![document.log];
        match document.kind {
            ItemKind::Publisher => {
                let id = self.charter.publisher_of(document.log).map(|(id, _)| id);
                logs.extend(id.into_iter().flat_map(|id| self.feed_logs(id)));
                logs.extend(id.map(LogId::beacon));
                let state = id.and_then(|id| self.charter.publisher(id));
                let delegates = state.into_iter().flat_map(|p| p.doc().delegations.iter());
                logs.extend(delegates.map(|d| LogId::publisher(d.to)));
            }
            ItemKind::Group => {
                let doc = document.envelope.claimed::<GroupDoc>();
                let named = doc.iter().flat_map(|d| d.publishers.iter());
                logs.extend(named.map(|g| LogId::publisher(g.publisher)));
            }
            _ => return self.take_all_pending(),
        }
        // What narrows does not say in its log what it waits for; little of it ever does.
        let narrow = self.pending.values().filter(|i| i.kind.is_first()).map(|i| i.log);
        logs.extend(narrow.collect::<Vec<_>>());
        logs.sort_unstable();
        logs.dedup();
        let of_log = |log: &LogId| (*log, 0)..=(*log, u64::MAX);
        let keys = logs.iter().flat_map(|log| self.pending.range(of_log(log)).map(|(k, _)| *k));
        let keys: Vec<(LogId, u64)> = keys.collect();
        let mut ready: Vec<Item> = keys.iter().filter_map(|k| self.pending.remove(k)).collect();
        ready.extend(self.beacons.take_waiting_of(&logs));
        ready
    }

    /// Takes everything that waits, to be judged again after much has changed.
    pub fn take_all_pending(&mut self) -> Vec<Item> {
        let waiting = self.beacons.take_waiting();
        core::mem::take(&mut self.pending).into_values().chain(waiting).collect()
    }

    fn keep_pending(&mut self, item: &Item) {
        if item.kind.is_first() {
            let all = self.pending.values().filter(|i| i.kind.is_first()).count();
            if all < PENDING_FIRST_MAX {
                self.pending.insert((item.log, item.seq), item.clone());
            }
            return;
        }
        let of_log = self.pending.range((item.log, 0)..=(item.log, u64::MAX)).count();
        if self.pending.len() < PENDING_MAX && of_log < PENDING_PER_LOG_MAX {
            self.pending.insert((item.log, item.seq), item.clone());
        }
    }

    /// All heads, for the overlay.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        let mut heads = self.charter.heads();
        for (publisher, feed) in &self.feeds {
            let log = |epoch| LogId::feed_epoch(*publisher, epoch);
            heads.extend(feed.closed().iter().map(|s| Head::of(log(s.at.epoch), s.at.seq, s.hash)));
            heads.extend(feed.head().map(|(seq, hash)| Head::of(log(feed.epoch), seq, hash)));
        }
        heads.extend(self.proofs.values().map(fork::Held::head));
        heads.extend(self.beacons.heads());
        heads
    }
}
