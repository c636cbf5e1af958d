//! Withdrawals: releases that a publisher takes back, and what it halts, beside its feed.
//!
//! A withdrawal is taken from a release key that any document of its epoch named for the package,
//! or from the publisher's root by any document of that epoch. It reaches releases of its epoch and
//! of those before; a halt ends with its epoch. So a key that was taken away by a new epoch can do
//! nothing to what comes after, and whoever comes when ends with the same. Dead keys may still
//! withdraw: that only narrows, and to void what they have withdrawn would bring it back.
//!
//! What the root has halted, only the root lets go on: halts of the two levels do not meet.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::{LogId, PublicKey, PublisherId, ReleaseHash};
use stork_wire::item::{Cut, Head, Item, place_hash};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::text::{Line, PackageName};
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::{Charter, Fact, PublisherState, Refusal, Trust, Verdict};

/// Recalls that one key of a publisher may have made; those of the root likewise.
pub const RECALLS_PER_KEY_MAX: usize = 256;
/// Packages that a publisher may have halted on each level.
pub const HALTS_MAX: usize = 64;
/// Recalls of all publishers.
pub const RECALLS_MAX: usize = 8_192;

/// One recall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecall {
    /// What was signed.
    pub withdrawal: Withdrawal,
    /// The release key that did; `None`: the root.
    signer: Option<PublicKey>,
}

/// The newest word on one package, or on all of a publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldHalt {
    log: LogId,
    seq: u64,
    /// Is it halted?
    pub halted: bool,
    /// When that was signed.
    pub signed_at: UnixSeconds,
    /// Why.
    pub reason: Line,
}

/// What can be halted: one package, or all of a publisher.
type HaltKey = (PublisherId, Level, Option<PackageName>);

/// All withdrawals.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    recalls: BTreeMap<LogId, HeldRecall>,
    releases: BTreeSet<(ReleaseHash, LogId)>,
    /// Of open epochs.
    halts: BTreeMap<HaltKey, HeldHalt>,
}

impl Withdrawals {
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        let recalls = self.recalls.keys().map(|log| (*log, 1));
        let all = recalls.chain(self.halts.values().map(|h| (h.log, h.seq)));
        all.map(|(log, seq)| Head::of(log, seq, place_hash(log, seq)))
    }

    fn room(&self, w: &Withdrawal, signer: Option<PublicKey>) -> Result<(), Refusal> {
        let fits = match &w.what {
            What::Recall { .. } => {
                let own =
                    |r: &&HeldRecall| r.withdrawal.publisher == w.publisher && r.signer == signer;
                self.recalls.len() < RECALLS_MAX
                    && self.recalls.values().filter(own).count() < RECALLS_PER_KEY_MAX
            }
            What::Halt { package, .. } => {
                let known = self.halts.contains_key(&(w.publisher, w.by, package.clone()));
                let own = |k: &&HaltKey| k.0 == w.publisher && k.1 == w.by;
                known || self.halts.keys().filter(own).count() < HALTS_MAX
            }
        };
        if fits { Ok(()) } else { Err(Refusal::TooMany) }
    }

    fn hold(&mut self, log: LogId, w: Withdrawal, signer: Option<PublicKey>) {
        match &w.what {
            What::Recall { releases, .. } => {
                self.releases.extend(releases.iter().map(|hash| (*hash, log)));
                self.recalls.insert(log, HeldRecall { withdrawal: w, signer });
            }
            What::Halt { package, halted } => {
                let (signed_at, seq) = (w.signed_at, w.seq());
                let halt =
                    HeldHalt { log, seq, halted: *halted, signed_at, reason: w.reason.clone() };
                self.halts.insert((w.publisher, w.by, package.clone()), halt);
            }
        }
    }

    /// The number that is known of a withdrawal's log.
    fn known(&self, log: LogId, w: &Withdrawal) -> u64 {
        match &w.what {
            What::Recall { .. } => u64::from(self.recalls.contains_key(&log)),
            What::Halt { package, .. } => {
                let halt = self.halts.get(&(w.publisher, w.by, package.clone()));
                halt.filter(|h| h.log == log).map_or(0, |h| h.seq)
            }
        }
    }
}

impl Trust {
    pub(super) fn judge_withdrawal(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let w: Withdrawal = item.envelope.claimed()?;
        let (id, log) = (w.publisher, w.log());
        if item.log != log || item.seq != w.seq() {
            return Err(Refusal::WrongLog);
        }
        let Some(publisher) = self.charter.publisher(id) else {
            return Ok(Verdict::Pending { missing: None });
        };
        let doc = publisher.doc();
        if w.document > doc.number || w.epoch > doc.epoch {
            return Ok(Verdict::Pending { missing: Some(LogId::publisher(id)) });
        }
        if w.epoch < doc.epoch && matches!(w.what, What::Halt { .. }) {
            return Err(Refusal::WrongEpoch { got: w.epoch, want: doc.epoch });
        }
        let head = self.charter.withdrawals.known(log, &w);
        if item.seq == head {
            return Ok(Verdict::Known);
        }
        if item.seq < head {
            return Err(Refusal::Replay { seq: item.seq, head });
        }
        let ahead = w.signed_at.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        let signer = self.charter.check_signer(publisher, item, &w)?;
        self.charter.withdrawals.room(&w, signer)?;
        self.charter.withdrawals.hold(log, w.clone(), signer);
        let fact = Fact::Withdrawal(Box::new(w));
        Ok(Verdict::Accepted { hash: item.hash(), fact })
    }
}

impl Charter {
    /// The release key that signed and may, or the root (`None`).
    fn check_signer(
        &self,
        publisher: &PublisherState,
        item: &Item,
        w: &Withdrawal,
    ) -> Result<Option<PublicKey>, Refusal> {
        let fleet = self.fleet();
        for root in publisher.roots_of(w.epoch) {
            if item.envelope.verify::<Withdrawal>(fleet, &root.keys, root.needed()).is_ok() {
                return Ok(None);
            }
        }
        if w.by == Level::Root {
            return Err(Refusal::UnauthorisedKey);
        }
        let rules: Vec<_> =
            publisher.rules_of(w.epoch).filter(|k| w.signed_at < k.not_after).collect();
        let mut keys: Vec<PublicKey> = rules.iter().map(|k| k.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let good = item.envelope.verify::<Withdrawal>(fleet, &keys, 1)?;
        let package = match &w.what {
            What::Recall { package, .. } => Some(package),
            What::Halt { package, .. } => package.as_ref(),
        };
        let may = |key: &&PublicKey| {
            let mut own = rules.iter().filter(|r| r.key == **key);
            own.any(|r| package.is_none_or(|p| r.packages.iter().any(|n| n.matches(p.as_str()))))
        };
        match good.signers().iter().find(may) {
            Some(key) => Ok(Some(*key)),
            None => {
                let what = package.map(PackageName::as_str).unwrap_or_default();
                Err(Refusal::OutOfScope(format!("the signing key may not withdraw `{what}`")))
            }
        }
    }

    /// Why a release was recalled; `None` where it was not.
    #[must_use]
    pub fn recalled(
        &self,
        publisher: PublisherId,
        epoch: u32,
        package: &PackageName,
        hash: ReleaseHash,
    ) -> Option<&Line> {
        self.recall_of(publisher, epoch, package, hash).map(|(_, reason)| reason)
    }

    /// The recall that took a release back: its log, and why.
    #[must_use]
    pub fn recall_of(
        &self,
        publisher: PublisherId,
        epoch: u32,
        package: &PackageName,
        hash: ReleaseHash,
    ) -> Option<(LogId, &Line)> {
        let range = (hash, LogId([0; 32]))..=(hash, LogId([0xff; 32]));
        self.withdrawals.releases.range(range).find_map(|(_, log)| {
            let w = &self.withdrawals.recalls.get(log)?.withdrawal;
            let named = matches!(&w.what, What::Recall { package: p, .. } if p == package);
            (w.publisher == publisher && w.epoch >= epoch && named).then_some((*log, &w.reason))
        })
    }

    /// Why nothing of a package is installed anew; `None` where it is.
    #[must_use]
    pub fn halted(&self, publisher: PublisherId, package: &PackageName) -> Option<&Line> {
        self.halt_of(publisher, package).map(|(_, reason)| reason)
    }

    /// The halt that holds a package up: its log, and why.
    #[must_use]
    pub fn halt_of(&self, publisher: PublisherId, package: &PackageName) -> Option<(LogId, &Line)> {
        if self.withdrawals.halts.is_empty() {
            return None;
        }
        let asked = [Level::Root, Level::Release].into_iter().flat_map(|level| {
            [None, Some(package.clone())].map(|package| (publisher, level, package))
        });
        let halt = asked.filter_map(|key| self.withdrawals.halts.get(&key)).find(|h| h.halted);
        halt.map(|h| (h.log, &h.reason))
    }

    /// All recalls.
    pub fn recalls(&self) -> impl Iterator<Item = &Withdrawal> {
        self.withdrawals.recalls.values().map(|r| &r.withdrawal)
    }

    /// Packages that are halted, or all of a publisher (`None`), with who says so and why.
    pub fn halts(
        &self,
    ) -> impl Iterator<Item = (PublisherId, Level, Option<&PackageName>, &HeldHalt)> {
        let on = self.withdrawals.halts.iter().filter(|(_, h)| h.halted);
        on.map(|((id, level, package), halt)| (*id, *level, package.as_ref(), halt))
    }

    /// A new epoch has begun: halts of the one before are over.
    pub(super) fn end_halts(&mut self, publisher: PublisherId) -> Vec<Cut> {
        let over = self.withdrawals.halts.extract_if(.., |(id, ..), _| *id == publisher);
        over.map(|(_, h)| Cut { log: h.log, after: 0, last: None, keep: false }).collect()
    }
}
