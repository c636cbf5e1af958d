//! Key suicide: what a release key has signed counts no more in the feed's open epoch.
//!
//! Such entries are as if they had never been signed, whatever time they claim: the feed stands
//! before the first of them, a key that lives may go on from there, and every host ends with the
//! same chain in whatever order it hears. Epochs that have ended are the publisher's root's word,
//! which names the entry that stands, so that nothing in them changes. What VMs show of what is
//! void stays until the root has begun an epoch, which says what it was worth.
//!
//! Documents are not touched: a chain of them must be the same for whoever walks it, and a role
//! that has lost a key is changed by its threshold. Nor are beacon and veto keys, which the next
//! document takes away at once, nor what has been denied or recalled: a thief must not bring it
//! back by killing the key that he stole.

use std::collections::BTreeMap;

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::Entry;
use stork_wire::ids::{KeyId, LogId, Position, PublicKey, PublisherId};
use stork_wire::item::{Cut, Head, Item, place_hash};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::suicide::Suicide;
use stork_wire::text::Line;

use super::epoch::{Aside, Turn};
use super::fork::Cause;
use super::{Charter, Fact, FeedState, Freeze, PublisherState, Refusal, Trust, Verdict};

/// Sets of keys that have signed entries of one epoch. A feed has one or two; a publisher with more
/// changes its keys by the hour.
const SIGNERS_MAX: usize = 256;

/// The keys that have ended themselves.
#[derive(Debug, Default)]
pub(super) struct DeadKeys(BTreeMap<PublicKey, Line>);

/// A key has ended itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The key.
    pub key: PublicKey,
    /// Why, as it says.
    pub reason: Line,
    /// The feeds that lose something by it.
    pub turns: Vec<Turn>,
    /// What the journal must drop, of all of them.
    pub cuts: Vec<Cut>,
}

impl DeadKeys {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }
    pub(super) fn has(&self, key: &PublicKey) -> bool {
        self.0.contains_key(key)
    }
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.0.keys().map(|key| head_of(*key))
    }
}

fn head_of(key: PublicKey) -> Head {
    let log = LogId::suicide(key);
    Head::of(log, 1, place_hash(log, 1))
}

/// The first entry of the open epoch that only these keys have signed: by the first bytes of their
/// ids. Of several signers two are kept; the second is 0 where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SignedBy {
    keys: [u64; 2],
    first: u64,
}

fn tag(key: &PublicKey) -> u64 {
    let id: KeyId = key.key_id();
    id.0.first_chunk().map_or(1, |b| u64::from_be_bytes(*b)).max(1)
}

impl FeedState {
    /// Notes who signed an entry of the open epoch.
    pub(super) fn note_signers(&mut self, seq: u64, signers: &[PublicKey]) -> Result<(), Refusal> {
        let mut tags: Vec<u64> = signers.iter().map(tag).collect();
        tags.sort_unstable();
        let keys = match tags.as_slice() {
            [] => return Ok(()),
            [one] => [*one, 0],
            [one, two, ..] => [*one, *two],
        };
        if self.signed.iter().any(|s| s.keys == keys) {
            return Ok(());
        }
        if self.signed.len() >= SIGNERS_MAX {
            return Err(Refusal::TooMany);
        }
        self.signed.reserve_exact(1);
        self.signed.push(SignedBy { keys, first: seq });
        Ok(())
    }

    /// The first entry of the open epoch that nobody has signed who lives.
    fn first_void(&self, dead: &DeadKeys) -> Option<u64> {
        let dead: Vec<u64> = dead.0.keys().map(tag).collect();
        let gone = |s: &&SignedBy| s.keys.iter().all(|k| *k == 0 || dead.contains(k));
        self.signed.iter().filter(gone).map(|s| s.first).min()
    }
}

impl Charter {
    /// Has this key ended itself?
    #[must_use]
    pub fn is_dead(&self, key: &PublicKey) -> bool {
        self.dead.has(key)
    }
    /// All keys that have ended themselves, and why.
    pub fn dead_keys(&self) -> impl Iterator<Item = (&PublicKey, &Line)> {
        self.dead.0.iter()
    }

    /// Has any release key of this publisher ended itself?
    pub(super) fn any_dead(&self, publisher: &PublisherState) -> bool {
        self.dead.0.keys().any(|k| publisher.ever_named(k))
    }

    /// The keys whose signatures of an entry are good, which was accepted before.
    pub(super) fn signers(
        &self,
        publisher: &PublisherState,
        entry: &Entry,
        item: &Item,
    ) -> Vec<PublicKey> {
        if let Some(via) = &entry.via {
            // The release key that vouches counts, so that its end ends this.
            return self.vouched(publisher, via, entry).map(|v| v.by).unwrap_or_default();
        }
        let mut keys = self.living(publisher, entry);
        keys.retain(|k| item.envelope.signatures.iter().any(|s| s.key == k.key_id()));
        if keys.len() < 2 {
            return keys;
        }
        let good = item.envelope.verify::<Entry>(self.fleet(), &keys, 1);
        good.map(|v| v.signers().to_vec()).unwrap_or_default()
    }

    /// The keys that may sign this entry. In an epoch that has ended dead ones count: which entry
    /// stands there, the root has said.
    pub(super) fn living(&self, publisher: &PublisherState, entry: &Entry) -> Vec<PublicKey> {
        let mut keys = publisher.keys_for(entry);
        if entry.epoch == publisher.doc().epoch {
            keys.retain(|k| !self.dead.has(k));
        }
        keys
    }

    /// What to say where no key that lives has signed: is it a dead one's?
    pub(super) fn or_dead(&self, publisher: &PublisherState, item: &Item, why: Refusal) -> Refusal {
        if self.dead.0.is_empty() {
            return why;
        }
        let Ok(entry) = item.envelope.claimed::<Entry>() else { return why };
        let mut dead: Vec<PublicKey> = publisher.keys_for(&entry);
        dead.retain(|k| self.dead.has(k));
        let by = item.envelope.verify::<Entry>(self.fleet(), &dead, 1).ok();
        let key = by.and_then(|v| v.signers().first().copied());
        key.map_or(why, |k| Refusal::RevokedKey(k.short()))
    }
}

impl Trust {
    pub(super) fn judge_suicide(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let body: Suicide = item.envelope.claimed()?;
        let key = body.key;
        if item.log != LogId::suicide(key) || item.seq != 1 {
            return Err(Refusal::WrongLog);
        }
        if self.charter.dead.has(&key) {
            return Ok(Verdict::Known);
        }
        item.envelope.verify::<Suicide>(self.fleet(), &[key], 1)?;
        if !self.charter.publishers().any(|(_, p)| p.ever_named(&key)) {
            // A key that nobody has named may wait for the document that does.
            return Ok(Verdict::Pending { missing: None });
        }
        let ahead = body.signed_at.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        self.charter.dead.0.insert(key, body.reason.clone());
        let turns = self.bury(key);
        let cuts = turns.iter().flat_map(|t| t.cuts.iter().copied()).collect();
        let death = Death { key, reason: body.reason, turns, cuts };
        Ok(Verdict::Accepted { hash: item.hash(), fact: Fact::Suicide(Box::new(death)) })
    }

    /// Takes out of all feeds what stands by a dead key alone.
    fn bury(&mut self, key: PublicKey) -> Vec<Turn> {
        let named = self
            .charter
            .publishers()
            .filter(|(_, p)| p.rules_of(p.doc().epoch).any(|k| k.key == key));
        let ids: Vec<PublisherId> = named.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.bury_in(id, key)).collect()
    }

    fn bury_in(&mut self, id: PublisherId, key: PublicKey) -> Option<Turn> {
        let epoch = self.charter.publisher(id)?.doc().epoch;
        let log = LogId::feed_epoch(id, epoch);
        let void_proof = self.proofs.get(&id).filter(|h| !self.still_proves(h.proof()));
        let void_proof = void_proof.map(super::fork::Held::log);
        let mut cuts = Vec::new();
        if let Some(log) = void_proof {
            self.proofs.remove(&id);
            cuts.push(Cut { log, after: 0, last: None, keep: false });
        }
        // What waits is judged again when its turn comes.
        let feed = self.feeds.entry(id).or_default();
        let first = if feed.epoch == epoch { feed.first_void(&self.charter.dead) } else { None };
        if let Some(first) = first {
            self.beacons.drop_beyond(id, epoch, first);
            let after = first.saturating_sub(1);
            cuts.push(Cut { log, after, last: None, keep: true });
        }
        if cuts.is_empty() {
            return None;
        }
        feed.rewinds += 1;
        let at = Position { epoch, seq: first.unwrap_or_else(|| feed.next().seq) };
        let dead = Freeze { at, cause: Cause::DeadKey(key) };
        let freeze = self.frozen(id).or(Some(dead));
        let logs = self.feed_logs(id);
        let aside = void_proof.is_some();
        let (keeps, mended) = (None, false);
        Some(Turn { publisher: id, cuts, closed: None, logs, freeze, aside, keeps, mended })
    }

    /// Why an entry that is kept aside may still be shown, if it may.
    #[must_use]
    pub fn kept_aside(&self, entry: &Entry) -> Option<Aside> {
        let publisher = self.charter.publisher(entry.publisher)?;
        let carried = publisher.compacted().is_some_and(|c| entry.position() <= c.at);
        if carried && !publisher.path().iter().any(|s| s.epoch == entry.epoch) {
            return Some(Aside::Retired);
        }
        self.aside(entry).map(Aside::Frozen)
    }

    /// Why an entry that is kept aside does not stand, now.
    #[must_use]
    pub fn aside(&self, entry: &Entry) -> Option<Freeze> {
        let publisher = self.charter.publisher(entry.publisher)?;
        if publisher.doc().epoch != entry.epoch {
            return None;
        }
        let dead = publisher.keys_for(entry).into_iter().find(|k| self.charter.dead.has(k));
        let dead = dead.map(|k| Freeze { at: entry.position(), cause: Cause::DeadKey(k) });
        self.frozen(entry.publisher).or(dead)
    }
}
