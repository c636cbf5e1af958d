//! Denials: what a group's security team says must not be installed, and hosts that must not
//! connect.
//!
//! A denial is taken from a key that any version of the group's document named as a veto key, with
//! a time before that key ran out; it is in force until the group's threshold lifts it by a
//! document. So whoever comes when ends with the same denials, a team's holiday ends none, and a
//! key that has run out makes none. Nobody but the threshold ends one: not the key itself, not its
//! removal. A stolen key can deny a bounded number of things and crowds out nobody else's denials.
//!
//! A host is denied by the keys that admit hosts, of any root document. It is admitted again by a
//! certificate that is issued later.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::{HostCert, Lift, Role, UnixSeconds, VetoKey};
use stork_wire::deny::{Content, Denial, Denied};
use stork_wire::feed::Release;
use stork_wire::ids::{GroupId, LogId, NodeId, PublicKey, PublisherId, TreeId};
use stork_wire::item::{Head, Item, place_hash};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::text::Line;

use super::{Charter, Fact, GroupState, Refusal, Trust, Verdict};

/// Denials of content that one key may have.
pub const DENIALS_PER_KEY_MAX: usize = 256;
/// Denials of content in all.
pub const DENIALS_MAX: usize = 4_096;
/// Hosts that may be denied.
pub const DENIED_HOSTS_MAX: usize = 2_048;
/// Veto keys of all versions of a group's document, and denials that they lift, each.
const PAST_MAX: usize = 1_024;

/// The newest denial of one thing by one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDenial {
    /// What is denied, and by whom.
    pub what: Denied,
    /// When it was signed.
    pub signed_at: UnixSeconds,
    /// Why.
    pub reason: Line,
}

/// All denials, in force or lifted.
#[derive(Debug, Default)]
pub(super) struct Denials {
    all: BTreeMap<LogId, HeldDenial>,
    trees: BTreeSet<(TreeId, LogId)>,
    releases: BTreeSet<(PublisherId, LogId)>,
    hosts: BTreeMap<NodeId, LogId>,
    by_key: BTreeMap<PublicKey, usize>,
    /// Admission roles of earlier root documents.
    admissions: Vec<Role>,
}

/// What a group's documents say of denials.
#[derive(Debug, Clone, Default)]
pub(super) struct Vetoes {
    /// Veto keys of all versions, each as often as it differs.
    keys: Vec<VetoKey>,
    lifted: BTreeMap<LogId, UnixSeconds>,
    void: BTreeSet<PublicKey>,
}

/// Why a release is denied to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedBy {
    /// The group whose security team says so.
    pub group: String,
    /// The log of the denial, by which it can be lifted.
    pub log: LogId,
    /// Why.
    pub reason: Line,
}

impl Vetoes {
    /// Takes over a version of the group's document.
    pub(super) fn note(&mut self, keys: &[VetoKey], lifts: &[Lift]) -> Result<(), Refusal> {
        let new: Vec<_> = keys.iter().filter(|k| !self.keys.contains(k)).cloned().collect();
        let many = self.keys.len() + new.len() > PAST_MAX
            || self.lifted.len() + self.void.len() + lifts.len() > PAST_MAX;
        if many {
            return Err(Refusal::TooMany);
        }
        self.keys.extend(new);
        for lift in lifts {
            match lift {
                Lift::Denial { log, through } => {
                    let until = self.lifted.entry(*log).or_default();
                    *until = (*until).max(*through);
                }
                Lift::AllBy(key) => drop(self.void.insert(*key)),
            }
        }
        Ok(())
    }

    /// Might this key deny something then? `None`: it was never named.
    fn might(&self, key: &PublicKey, then: UnixSeconds) -> Option<bool> {
        let mut named = self.keys.iter().filter(|k| k.key == *key).peekable();
        named.peek()?;
        Some(named.any(|k| then < k.not_after))
    }

    fn lifts(&self, log: LogId, signer: &PublicKey, signed_at: UnixSeconds) -> bool {
        self.void.contains(signer) || self.lifted.get(&log).is_some_and(|t| signed_at <= *t)
    }
}

impl Denials {
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.all.iter().map(|(log, d)| Head::of(*log, d.signed_at, place_hash(*log, d.signed_at)))
    }

    /// The root document that follows has another admission role.
    pub(super) fn note_admission(&mut self, old: &Role) {
        if !self.admissions.contains(old) && self.admissions.len() < PAST_MAX {
            self.admissions.push(old.clone());
        }
    }

    /// Admission roles of earlier root documents.
    pub(super) fn earlier_admissions(&self) -> &[Role] {
        &self.admissions
    }

    fn hold(&mut self, log: LogId, denial: &Denial) {
        match &denial.what {
            Denied::Content { what: Content::Tree(tree), .. } => {
                self.trees.insert((*tree, log));
            }
            Denied::Content { what: Content::Releases { publisher, .. }, .. } => {
                self.releases.insert((*publisher, log));
            }
            Denied::Host(node) => {
                self.hosts.insert(*node, log);
            }
        }
        let Denial { what, signed_at, reason, .. } = denial.clone();
        if let (Denied::Content { signer, .. }, false) = (&what, self.all.contains_key(&log)) {
            *self.by_key.entry(*signer).or_default() += 1;
        }
        self.all.insert(log, HeldDenial { what, signed_at, reason });
    }

    fn room(&self, log: LogId, what: &Denied) -> Result<(), Refusal> {
        let content = self.all.len() - self.hosts.len();
        let fits = self.all.contains_key(&log)
            || match what {
                Denied::Content { signer, .. } => {
                    content < DENIALS_MAX
                        && self.by_key.get(signer).is_none_or(|n| *n < DENIALS_PER_KEY_MAX)
                }
                Denied::Host(_) => self.hosts.len() < DENIED_HOSTS_MAX,
            };
        if fits { Ok(()) } else { Err(Refusal::TooMany) }
    }
}

impl Trust {
    pub(super) fn judge_deny(&mut self, item: &Item, now: UnixSeconds) -> Result<Verdict, Refusal> {
        let denial: Denial = item.envelope.claimed()?;
        let log = denial.what.log();
        if item.log != log || item.seq != denial.signed_at {
            return Err(Refusal::WrongLog);
        }
        let head = self.charter.denials.all.get(&log).map_or(0, |d| d.signed_at);
        if item.seq == head {
            return Ok(Verdict::Known);
        }
        if item.seq < head {
            return Err(Refusal::Replay { seq: item.seq, head });
        }
        let missing = match &denial.what {
            Denied::Content { group, signer, .. } => {
                self.check_veto(*group, *signer, item, &denial)?
            }
            Denied::Host(_) => self.check_host_denial(item)?,
        };
        if missing.is_some() {
            return Ok(Verdict::Pending { missing });
        }
        let ahead = denial.signed_at.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        self.charter.denials.room(log, &denial.what)?;
        self.charter.denials.hold(log, &denial);
        Ok(Verdict::Accepted { hash: item.hash(), fact: Fact::Deny(Box::new(denial)) })
    }

    /// Is it signed by a key that might deny something in this group then? Returns the log of the
    /// document that lacks.
    fn check_veto(
        &self,
        group: GroupId,
        signer: PublicKey,
        item: &Item,
        denial: &Denial,
    ) -> Result<Option<LogId>, Refusal> {
        item.envelope.verify::<Denial>(self.fleet(), &[signer], 1)?;
        let Some(state) = self.charter.group(group) else {
            return Ok(Some(LogId::group(group)));
        };
        match state.vetoes.might(&signer, denial.signed_at) {
            Some(true) => Ok(None),
            Some(false) => {
                let name = &state.doc().name;
                let what = format!("veto key {} of group `{name}` had run out", signer.short());
                Err(Refusal::NotVeto(what))
            }
            // A document that names it may be on its way.
            None => Ok(Some(LogId::group(group))),
        }
    }

    fn check_host_denial(&self, item: &Item) -> Result<Option<LogId>, Refusal> {
        let Some(root) = self.charter.root() else {
            return Ok(Some(LogId::root(self.fleet())));
        };
        let fleet = self.fleet();
        let by = |r: &Role| item.envelope.verify::<Denial>(fleet, &r.keys, r.needed()).map(|_| ());
        let newest = by(&root.admission);
        let past = self.charter.denials.admissions.iter().any(|r| by(r).is_ok());
        if past { Ok(None) } else { newest.map(|()| None).map_err(Refusal::from) }
    }
}

impl Charter {
    /// Is this release denied by one of these groups?
    #[must_use]
    pub fn denied<'a>(
        &self,
        groups: impl Iterator<Item = &'a str>,
        publisher: PublisherId,
        r: &Release,
    ) -> Option<DeniedBy> {
        if self.denials.all.is_empty() {
            return None;
        }
        let groups: Vec<&GroupState> = groups.filter_map(|g| self.group_named(g)).collect();
        let (low, high) = (LogId([0; 32]), LogId([0xff; 32]));
        let trees = self.denials.trees.range((r.tree, low)..=(r.tree, high)).map(|(_, l)| l);
        let releases = self.denials.releases.range((publisher, low)..=(publisher, high));
        trees.chain(releases.map(|(_, l)| l)).find_map(|log| {
            let held = self.denials.all.get(log)?;
            let Denied::Content { group, what, .. } = &held.what else { return None };
            let group = groups.iter().find(|g| g.id() == *group)?;
            let meant = match what {
                Content::Tree(tree) => *tree == r.tree,
                Content::Releases { publisher: whose, package, from, to } => {
                    *whose == publisher
                        && package.matches(r.package.as_str())
                        && (*from..=*to).contains(&r.release)
                }
            };
            (meant && self.in_force(*log, held)).then(|| DeniedBy {
                group: group.doc().name.to_string(),
                log: *log,
                reason: held.reason.clone(),
            })
        })
    }

    /// Does a denial hold? One of a host holds against earlier certificates for ever.
    fn in_force(&self, log: LogId, held: &HeldDenial) -> bool {
        let Denied::Content { group, signer, .. } = &held.what else { return true };
        let group = self.group(*group);
        !group.is_some_and(|g| g.vetoes.lifts(log, signer, held.signed_at))
    }

    /// All denials with their logs, and whether each is in force.
    pub fn denials(&self) -> impl Iterator<Item = (LogId, &HeldDenial, bool)> {
        self.denials.all.iter().map(|(log, d)| (*log, d, self.in_force(*log, d)))
    }

    /// Why the host of a certificate must not connect; `None` where it may.
    #[must_use]
    pub fn denied_host(&self, node: NodeId, issued: UnixSeconds) -> Option<&Line> {
        let held = self.denials.all.get(self.denials.hosts.get(&node)?)?;
        (issued <= held.signed_at).then_some(&held.reason)
    }

    /// When a new certificate of a host may be issued: now, or in the second after its denial. The
    /// denial may be of this second, or of a clock that is ahead of ours.
    #[must_use]
    pub fn admitted_from(&self, node: NodeId, now: UnixSeconds) -> UnixSeconds {
        let held = self.denials.hosts.get(&node).and_then(|log| self.denials.all.get(log));
        held.map_or(now, |held| now.max(held.signed_at.saturating_add(1)))
    }

    /// Why this certificate must not be used; `None` where it may.
    #[must_use]
    pub fn denied_cert(&self, cert: &HostCert) -> Option<&Line> {
        self.denied_host(cert.node, cert.issued)
    }
}
