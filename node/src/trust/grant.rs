//! What hosts may take part in: their certificates, and what admission keys have said since.
//!
//! The newest word of a key that admits hosts takes the place of what the certificate says. A key
//! that did so once, and does not any more, is heard too, but only where it narrows: what it said
//! before it was replaced must not come undone with it, and who has stolen it must win nothing. All
//! hosts judge so, and whoever renews a certificate writes down what came of it.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::{HostScope, Role, UnixSeconds};
use stork_wire::codec::List;
use stork_wire::grant::HostGrant;
use stork_wire::ids::{LogId, NodeId, PublicKey};
use stork_wire::item::{Head, Item, place_hash};
use stork_wire::limits::CLOCK_SKEW_S;

use super::{Charter, Fact, Refusal, Trust, Verdict};

/// Hosts of which one key may speak.
pub(super) const GRANTS_PER_KEY_MAX: usize = 4_096;
/// Words of all keys.
pub(super) const GRANTS_MAX: usize = 8_192;

/// The newest word of one key on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldGrant {
    /// Which host.
    pub node: NodeId,
    /// Which key.
    pub signer: PublicKey,
    /// What it may take part in.
    pub scope: HostScope,
    /// When it was signed.
    pub signed_at: UnixSeconds,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Grants {
    all: BTreeMap<LogId, HeldGrant>,
    of: BTreeSet<(NodeId, LogId)>,
    by_key: BTreeMap<PublicKey, usize>,
}

impl Grants {
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.all.iter().map(|(log, g)| Head::of(*log, g.signed_at, place_hash(*log, g.signed_at)))
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = &HeldGrant> {
        let (low, high) = (LogId([0; 32]), LogId([0xff; 32]));
        self.of.range((node, low)..=(node, high)).filter_map(|(_, log)| self.all.get(log))
    }

    fn room(&self, log: LogId, signer: &PublicKey) -> Result<(), Refusal> {
        let of_key = self.by_key.get(signer).copied().unwrap_or_default();
        let fits = self.all.len() < GRANTS_MAX && of_key < GRANTS_PER_KEY_MAX;
        if fits || self.all.contains_key(&log) { Ok(()) } else { Err(Refusal::TooMany) }
    }

    pub(super) fn hold(&mut self, log: LogId, grant: &HostGrant) {
        let HostGrant { node, signer, scope, signed_at, .. } = grant.clone();
        self.of.insert((node, log));
        let held = HeldGrant { node, signer, scope, signed_at };
        if self.all.insert(log, held).is_none() {
            *self.by_key.entry(signer).or_default() += 1;
        }
    }
}

/// What both say.
fn both(a: HostScope, b: &HostScope) -> HostScope {
    let groups = match (a.groups, &b.groups) {
        (None, other) => other.clone(),
        (some, None) => some,
        (Some(a), Some(b)) => {
            let in_both = a.into_iter().filter(|g| b.binary_search(g).is_ok());
            Some(List::truncated(in_both))
        }
    };
    let labels = a.labels.into_iter().filter(|l| b.labels.binary_search(l).is_ok());
    HostScope { labels: List::truncated(labels), groups }
}

impl Trust {
    pub(super) fn judge_grant(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let grant: HostGrant = item.envelope.claimed()?;
        let log = grant.log();
        if item.log != log || item.seq != grant.signed_at {
            return Err(Refusal::WrongLog);
        }
        let head = self.charter.grants.all.get(&log).map_or(0, |g| g.signed_at);
        if item.seq == head {
            return Ok(Verdict::Known);
        }
        if item.seq < head {
            return Err(Refusal::Replay { seq: item.seq, head });
        }
        let Some(root) = self.charter.root() else {
            return Ok(Verdict::Pending { missing: Some(LogId::root(self.fleet())) });
        };
        item.envelope.verify::<HostGrant>(self.fleet(), &[grant.signer], 1)?;
        let alone = |r: &Role| r.needed() == 1 && r.keys.contains(&grant.signer);
        let earlier = self.charter.denials.earlier_admissions();
        if !alone(&root.admission) && !earlier.iter().any(alone) {
            return Err(Refusal::UnauthorisedKey);
        }
        let ahead = grant.signed_at.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        self.charter.grants.room(log, &grant.signer)?;
        self.charter.grants.hold(log, &grant);
        Ok(Verdict::Accepted { hash: item.hash(), fact: Fact::Grant(Box::new(grant)) })
    }
}

impl Charter {
    /// What a host may take part in whose certificate says this.
    #[must_use]
    pub fn scope_of(
        &self,
        node: NodeId,
        by_cert: Option<Box<HostScope>>,
    ) -> Option<Box<HostScope>> {
        let admits = |g: &&HeldGrant| {
            self.root()
                .is_some_and(|r| r.admission.needed() == 1 && r.admission.keys.contains(&g.signer))
        };
        let newest = self.grants.of(node).filter(admits).max_by_key(|g| (g.signed_at, g.signer));
        let since = newest.map_or(0, |g| g.signed_at);
        let later = self.grants.of(node).filter(|g| !admits(g) && g.signed_at > since);
        let scope = match newest {
            Some(grant) => Some(Box::new(grant.scope.clone())),
            None => by_cert,
        };
        let Some(narrower) = later.max_by_key(|g| (g.signed_at, g.signer)) else {
            return scope.filter(|s| !s.says_nothing());
        };
        let all = || HostScope { labels: List::empty(), groups: None };
        let scope = both(scope.map_or_else(all, |s| *s), &narrower.scope);
        Some(Box::new(scope)).filter(|s| !s.says_nothing())
    }

    /// Has anybody spoken of this host since it was admitted?
    #[must_use]
    pub fn was_granted(&self, node: NodeId) -> bool {
        self.grants.of(node).next().is_some()
    }

    /// When the next word on a host may be signed: now, or in the second after the newest one.
    #[must_use]
    pub fn granted_from(&self, node: NodeId, now: UnixSeconds) -> UnixSeconds {
        let newest = self.grants.of(node).map(|g| g.signed_at).max();
        newest.map_or(now, |at| now.max(at.saturating_add(1)))
    }

    /// All of them.
    pub fn host_grants(&self) -> impl Iterator<Item = &HeldGrant> {
        self.grants.all.values()
    }
}
