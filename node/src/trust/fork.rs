//! Forks of a feed: two entries with one number, the proof of it, and the freeze that follows.
//!
//! Whoever holds a release key can sign two entries with one number and show each to other hosts
//! (attack A21). The two together prove it to anybody. A proof ends the feed's epoch before that
//! number: what comes after is not installed any more, until the publisher's root begins a new
//! epoch. Of several proofs the one with the lowest number counts, and only that one is kept, so
//! that all hosts end with the same state in whatever order they learn of them.

use core::fmt;

use stork_wire::feed::Entry;
use stork_wire::ids::{ItemHash, LogId, Position, PublicKey, PublisherId};
use stork_wire::item::{Cut, Head, Item, ItemKind};
use stork_wire::proof::Proof;

use stork_wire::sign::Envelope;

use super::epoch::Turn;
use super::{Fact, Refusal, Trust, Verdict};

/// Why a feed is frozen, or an entry void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freeze {
    /// The first number that does not stand: the feed stands at the one before.
    pub at: Position,
    /// Why.
    pub cause: Cause,
}

/// Why an entry does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Two entries have this number.
    Fork {
        /// The hash of the proof's body. Other hosts may hold another proof of the same fork.
        proof: ItemHash,
        /// The hashes of the two entries.
        entries: [ItemHash; 2],
    },
    /// The only key that signed it has ended itself.
    DeadKey(PublicKey),
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Fork { proof, .. } => write!(
                f,
                "frozen: two entries with number {} (proof {}); the publisher's owner must start \
                 a new epoch",
                self.at,
                proof.short()
            ),
            Cause::DeadKey(key) => write!(
                f,
                "void from number {} on: release key {} has ended itself; the publisher's owner \
                 must start a new epoch",
                self.at,
                key.short()
            ),
        }
    }
}

/// The proof that freezes a feed's open epoch.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) freeze: Freeze,
    log: LogId,
    proof: Proof,
}

impl Held {
    pub(super) fn head(&self) -> Head {
        Head::of(self.log, 1, ItemHash::of(self.log.as_bytes()))
    }
    pub(super) const fn log(&self) -> LogId {
        self.log
    }
    pub(super) const fn proof(&self) -> &Proof {
        &self.proof
    }
}

impl Trust {
    /// Why a publisher's feed is frozen; `None` where it is not.
    #[must_use]
    pub fn frozen(&self, publisher: PublisherId) -> Option<Freeze> {
        self.proofs.get(&publisher).map(|h| h.freeze)
    }

    /// The number at which a feed has forked in its open epoch, and the two entries that have it.
    #[must_use]
    pub fn fork_of(&self, publisher: PublisherId) -> Option<(Position, Vec<Envelope>)> {
        let held = self.proofs.get(&publisher)?;
        Some((held.freeze.at, held.proof.both().into_iter().cloned().collect()))
    }

    pub(super) fn judge_proof(&mut self, item: &Item) -> Result<Verdict, Refusal> {
        let proof: Proof = item.envelope.claimed()?;
        let (id, at) = (proof.publisher, proof.at);
        if item.log != LogId::proof(id, at) || item.seq != 1 {
            return Err(Refusal::WrongLog);
        }
        if !item.envelope.signatures.is_empty() {
            return Err(Refusal::Malformed("a proof is not signed itself".into()));
        }
        let Some(publisher) = self.charter.publisher(id) else {
            return Ok(Verdict::Pending { missing: None });
        };
        if at.epoch > publisher.doc().epoch {
            return Ok(Verdict::Pending { missing: Some(LogId::publisher(id)) });
        }
        if at.epoch < publisher.doc().epoch {
            // The publisher's root has spoken on that epoch.
            self.take_survivor(&proof);
            return Ok(Verdict::Known);
        }
        if self.proofs.get(&id).is_some_and(|h| h.freeze.at <= at) {
            return Ok(Verdict::Known);
        }
        self.check_both(&proof)?;
        let turn = self.freeze(item, proof);
        Ok(Verdict::Accepted { hash: item.hash(), fact: Fact::Turn(Box::new(turn)) })
    }

    /// Are both entries signed by keys that live?
    fn check_both(&self, proof: &Proof) -> Result<(), Refusal> {
        let publisher = self.charter.publisher(proof.publisher);
        for envelope in proof.both() {
            let read = envelope.read::<Entry>()?;
            let publisher = publisher.ok_or(Refusal::UnauthorisedKey)?;
            if read.body().via.is_some() {
                self.charter.verify_delegated(publisher, envelope, read)?;
                continue;
            }
            let keys = self.charter.living(publisher, read.body());
            envelope.verify::<Entry>(self.charter.fleet(), &keys, 1)?;
        }
        Ok(())
    }

    /// Does a proof that was taken still prove anything, since a key has ended itself?
    pub(super) fn still_proves(&self, proof: &Proof) -> bool {
        self.check_both(proof).is_ok()
    }

    fn freeze(&mut self, item: &Item, proof: Proof) -> Turn {
        let (id, at) = (proof.publisher, proof.at);
        let entries = proof.both().map(Envelope::hash);
        let freeze = Freeze { at, cause: Cause::Fork { proof: item.envelope.hash(), entries } };
        let log = LogId::feed_epoch(id, at.epoch);
        let mut cuts = vec![Cut { log, after: at.seq.saturating_sub(1), last: None, keep: true }];
        if let Some(old) = self.proofs.insert(id, Held { freeze, log: item.log, proof }) {
            cuts.push(Cut { log: old.log, after: 0, last: None, keep: false });
        }
        self.pending.retain(|(l, seq), _| *l != log || *seq < at.seq);
        let feed = self.feeds.entry(id).or_default();
        let replay = feed.reaches(at);
        feed.rewinds += u32::from(replay);
        let logs = if replay { self.feed_logs(id) } else { Vec::new() };
        let freeze = Some(freeze);
        let (keeps, mended) = (None, false);
        Turn { publisher: id, cuts, closed: None, logs, freeze, aside: false, keeps, mended }
    }

    /// The entry after which a later epoch begins may be one of the two of a proof: then it is
    /// taken from there, since no host has it in its journal any more.
    pub(super) fn take_survivor(&mut self, proof: &Proof) {
        let Some(publisher) = self.charter.publisher(proof.publisher) else { return };
        for envelope in proof.both() {
            let hash = envelope.hash();
            let stands = |s: &super::epoch::Segment| {
                s.epoch == proof.at.epoch && s.last == Some((proof.at.seq, hash))
            };
            if publisher.path().iter().any(stands) {
                let (log, seq) = (LogId::feed_epoch(proof.publisher, proof.at.epoch), proof.at.seq);
                let envelope = envelope.clone();
                let item = Item { kind: ItemKind::Entry, log, seq, envelope };
                self.pending.insert((log, seq), item);
            }
        }
    }
}
