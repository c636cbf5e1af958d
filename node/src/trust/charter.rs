//! The charter in force: root, group and publisher documents, each a chain that is walked.

use std::collections::BTreeMap;

use stork_wire::charter::{GroupDoc, PublisherDoc, Role, RootDoc, UnixSeconds};
use stork_wire::ids::{FleetId, GroupId, ItemHash, LogId, PublicKey, PublisherId};
use stork_wire::item::{Head, Item, ItemKind};
use stork_wire::limits::{CLOCK_SKEW_S, LOGS_MAX};
use stork_wire::seal::Keyring;
use stork_wire::sign::{Body, Verified};

use super::delegation::Delegations;
use super::deny::Denials;
use super::epoch::Epochs;
use super::grant::Grants;
use super::group::GroupState;
use super::sorted::Sorted;
use super::suicide::DeadKeys;
use super::withdrawal::Withdrawals;
use super::{Fact, Refusal, Verdict};

/// A document with the hash that names it.
#[derive(Debug, Clone)]
pub(super) struct Current<T> {
    pub(super) doc: T,
    hash: ItemHash,
    /// Hashes of all versions, for replay and fork checks; one per version.
    hashes: Sorted<u64, ItemHash>,
}

/// A publisher as it stands.
#[derive(Debug, Clone)]
pub struct PublisherState {
    current: Current<PublisherDoc>,
    epochs: Epochs,
}

impl PublisherState {
    /// Its newest document.
    #[must_use]
    pub const fn doc(&self) -> &PublisherDoc {
        &self.current.doc
    }
    pub(super) const fn epochs(&self) -> &Epochs {
        &self.epochs
    }
}

/// All documents in force.
#[derive(Debug)]
pub struct Charter {
    fleet: FleetId,
    root: Option<Current<RootDoc>>,
    groups: BTreeMap<GroupId, GroupState>,
    group_logs: BTreeMap<LogId, GroupId>,
    /// Boxed: the nodes of a tree stand a third empty, and a state is large.
    publishers: BTreeMap<PublisherId, Box<PublisherState>>,
    publisher_logs: BTreeMap<LogId, PublisherId>,
    /// What narrows all of it.
    pub(super) dead: DeadKeys,
    pub(super) denials: Denials,
    pub(super) withdrawals: Withdrawals,
    pub(super) delegations: Delegations,
    pub(super) grants: Grants,
    /// Keys of private groups that this host has.
    pub(super) keys: Keyring,
    /// Feeds that stand in an epoch which has ended already.
    pub(super) walked: BTreeMap<PublisherId, u32>,
}

/// Number, predecessor and the keys that decide about a chain of documents.
pub(super) trait Document: Body {
    fn number(&self) -> u64;
    fn prev(&self) -> Option<ItemHash>;
    fn issued(&self) -> UnixSeconds;
    fn role(&self) -> &Role;
}

macro_rules! document {
    ($t:ty, $role:ident) => {
        impl Document for $t {
            fn number(&self) -> u64 {
                self.number
            }
            fn prev(&self) -> Option<ItemHash> {
                self.prev
            }
            fn issued(&self) -> UnixSeconds {
                self.issued
            }
            fn role(&self) -> &Role {
                &self.$role
            }
        }
    };
}
document!(RootDoc, root);
document!(GroupDoc, authority);
document!(PublisherDoc, root);

fn check_clock(issued: UnixSeconds, now: UnixSeconds) -> Result<(), Refusal> {
    let ahead = issued.saturating_sub(now);
    if ahead > CLOCK_SKEW_S { Err(Refusal::FutureDated(ahead)) } else { Ok(()) }
}

/// What a later version must satisfy: N+1 after N, signed by the thresholds of N and of N+1.
enum Step<T> {
    Next(Verified<T>),
    Done(Verdict),
}

fn judge_next<T: Document>(
    fleet: FleetId,
    current: &Current<T>,
    item: &Item,
    claimed: &T,
    now: UnixSeconds,
) -> Result<Step<T>, Refusal> {
    let number = claimed.number();
    if number != item.seq {
        return Err(Refusal::WrongLog);
    }
    let head = current.doc.number();
    if number <= head {
        return match current.hashes.get(&number) {
            Some(h) if *h == item.envelope.hash() => Ok(Step::Done(Verdict::Known)),
            Some(_) => {
                item.envelope.verify::<T>(
                    fleet,
                    &current.doc.role().keys,
                    current.doc.role().needed(),
                )?;
                Err(Refusal::Equivocation(number))
            }
            None => Err(Refusal::Replay { seq: number, head }),
        };
    }
    check_clock(claimed.issued(), now)?;
    if number > head.saturating_add(1) {
        return Ok(Step::Done(Verdict::Pending { missing: Some(item.log) }));
    }
    let old = current.doc.role();
    item.envelope.verify::<T>(fleet, &old.keys, old.needed())?;
    let new = claimed.role();
    let verified = item.envelope.verify::<T>(fleet, &new.keys, new.needed())?;
    if claimed.prev() != Some(current.hash) {
        return Err(Refusal::BrokenChain(number));
    }
    Ok(Step::Next(verified))
}

impl<T: Document> Current<T> {
    pub(super) fn first(v: Verified<T>) -> Self {
        let hash = v.hash();
        let doc = v.into_body();
        let mut hashes = Sorted::default();
        hashes.insert(doc.number(), hash);
        Self { hashes, doc, hash }
    }
    pub(super) fn replace(&mut self, v: Verified<T>) -> ItemHash {
        self.hash = v.hash();
        self.doc = v.into_body();
        self.hashes.insert(self.doc.number(), self.hash);
        self.hash
    }
    pub(super) fn head(&self, log: LogId) -> Head {
        Head::of(log, self.doc.number(), self.hash)
    }
}

fn accepted(hash: ItemHash, kind: ItemKind) -> Verdict {
    Verdict::Accepted { hash, fact: Fact::Charter(kind) }
}

impl Charter {
    pub(super) fn new(fleet: FleetId) -> Self {
        Self {
            fleet,
            root: None,
            groups: BTreeMap::new(),
            group_logs: BTreeMap::new(),
            publishers: BTreeMap::new(),
            publisher_logs: BTreeMap::new(),
            dead: DeadKeys::new(),
            denials: Denials::default(),
            withdrawals: Withdrawals::default(),
            delegations: Delegations::new(),
            grants: Grants::default(),
            keys: Keyring::default(),
            walked: BTreeMap::new(),
        }
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }
    /// The newest root document.
    #[must_use]
    pub fn root(&self) -> Option<&RootDoc> {
        self.root.as_ref().map(|c| &c.doc)
    }
    /// One group.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&GroupState> {
        self.groups.get(&id)
    }
    /// The group of a name.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<&GroupState> {
        self.groups.values().find(|g| g.doc().name.as_str() == name)
    }
    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &GroupState> {
        self.groups.values()
    }
    /// One publisher.
    #[must_use]
    pub fn publisher(&self, id: PublisherId) -> Option<&PublisherState> {
        self.publishers.get(&id).map(Box::as_ref)
    }
    /// All publishers.
    pub fn publishers(&self) -> impl Iterator<Item = (&PublisherId, &PublisherState)> {
        self.publishers.iter().map(|(id, p)| (id, p.as_ref()))
    }
    /// The name that a group gives a publisher; any group's where several do, else its own.
    #[must_use]
    pub fn publisher_name(&self, id: PublisherId) -> String {
        let granted = self.groups.values().find_map(|g| g.grant(id)).map(|g| g.name.to_string());
        granted
            .or_else(|| self.publisher(id).map(|p| p.doc().name.to_string()))
            .unwrap_or_else(|| id.short())
    }
    /// Charter documents in force.
    #[must_use]
    pub fn document_count(&self) -> usize {
        usize::from(self.root.is_some()) + self.groups.len() + self.publishers.len()
    }
    /// The keys that admit hosts, and how many must sign.
    #[must_use]
    pub fn admission(&self) -> Option<(&[PublicKey], usize)> {
        self.root().map(|r| (&*r.admission.keys, r.admission.needed()))
    }

    /// The publisher whose documents are in this log.
    #[must_use]
    pub fn publisher_of(&self, log: LogId) -> Option<(PublisherId, &PublisherState)> {
        let id = *self.publisher_logs.get(&log)?;
        self.publisher(id).map(|p| (id, p))
    }

    pub(super) fn heads(&self) -> Vec<Head> {
        let root = self.root.iter().map(|c| c.head(LogId::root(self.fleet)));
        let groups = self.groups.values().map(GroupState::head);
        let publishers =
            self.publishers.iter().map(|(id, p)| p.current.head(LogId::publisher(*id)));
        let narrow = self.dead.heads().chain(self.denials.heads()).chain(self.withdrawals.heads());
        let narrow = narrow.chain(self.grants.heads());
        root.chain(groups).chain(publishers).chain(narrow).collect()
    }

    pub(super) fn judge_root(&mut self, item: &Item, now: UnixSeconds) -> Result<Verdict, Refusal> {
        let doc: RootDoc = item.envelope.claimed()?;
        if item.log != LogId::root(self.fleet) {
            return Err(Refusal::WrongLog);
        }
        let Some(current) = &mut self.root else {
            if doc.number != 1 {
                return Ok(Verdict::Pending { missing: Some(item.log) });
            }
            if doc.fleet_id() != self.fleet || item.seq != 1 {
                return Err(Refusal::WrongLog);
            }
            check_clock(doc.issued, now)?;
            let v =
                item.envelope.verify::<RootDoc>(self.fleet, &doc.root.keys, doc.root.needed())?;
            let hash = v.hash();
            self.root = Some(Current::first(v));
            return Ok(accepted(hash, ItemKind::Root));
        };
        match judge_next(self.fleet, current, item, &doc, now)? {
            Step::Done(v) => Ok(v),
            Step::Next(v) => {
                if v.body().admission != current.doc.admission {
                    self.denials.note_admission(&current.doc.admission);
                }
                Ok(accepted(current.replace(v), ItemKind::Root))
            }
        }
    }

    pub(super) fn judge_group(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let doc: GroupDoc = item.envelope.claimed()?;
        let Some(root) = self.root.as_ref().map(|c| &c.doc) else {
            return Ok(Verdict::Pending { missing: Some(LogId::root(self.fleet)) });
        };
        if let Some(id) = self.group_logs.get(&item.log)
            && let Some(group) = self.groups.get_mut(id)
        {
            let step = judge_next(self.fleet, &group.current, item, &doc, now)?;
            return match step {
                Step::Done(v) => Ok(v),
                Step::Next(v) if v.body().name != group.doc().name => {
                    Err(Refusal::NameTaken(v.body().name.to_string()))
                }
                Step::Next(v) => Ok(accepted(group.replace(v)?, ItemKind::Group)),
            };
        }
        if doc.number != 1 {
            return Ok(Verdict::Pending { missing: Some(item.log) });
        }
        let id = doc.group_id();
        if item.log != LogId::group(id) || item.seq != 1 {
            return Err(Refusal::WrongLog);
        }
        if self.groups.len() >= LOGS_MAX {
            return Err(Refusal::TooMany);
        }
        check_clock(doc.issued, now)?;
        let authority = root.authorities.iter().find(|a| a.names.matches(doc.name.as_str()));
        let Some(authority) = authority else {
            return Err(Refusal::OutOfScope(format!(
                "no authority of the fleet may found a group named `{}`",
                doc.name
            )));
        };
        let role = &authority.role;
        let v = item.envelope.verify::<GroupDoc>(self.fleet, &role.keys, role.needed())?;
        if self.groups.values().any(|g| g.doc().name == doc.name) {
            return Err(Refusal::NameTaken(doc.name.to_string()));
        }
        let hash = v.hash();
        self.groups.insert(id, GroupState::first(id, v));
        self.group_logs.insert(item.log, id);
        Ok(accepted(hash, ItemKind::Group))
    }

    pub(super) fn judge_publisher(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let doc: PublisherDoc = item.envelope.claimed()?;
        if let Some(id) = self.publisher_logs.get(&item.log)
            && let Some(publisher) = self.publishers.get_mut(id)
        {
            let step = judge_next(self.fleet, &publisher.current, item, &doc, now)?;
            return match step {
                Step::Done(v) => Ok(v),
                Step::Next(v) => {
                    publisher.check_next(v.body())?;
                    self.delegations.note(*id, v.body())?;
                    publisher.epochs.note(&publisher.current.doc, v.body());
                    Ok(accepted(publisher.current.replace(v), ItemKind::Publisher))
                }
            };
        }
        if doc.number != 1 {
            return Ok(Verdict::Pending { missing: Some(item.log) });
        }
        let id = doc.publisher_id();
        if item.log != LogId::publisher(id) || item.seq != 1 {
            return Err(Refusal::WrongLog);
        }
        if self.publishers.len() >= LOGS_MAX {
            return Err(Refusal::TooMany);
        }
        check_clock(doc.issued, now)?;
        let v =
            item.envelope.verify::<PublisherDoc>(self.fleet, &doc.root.keys, doc.root.needed())?;
        let named = self.groups.values().any(|g| g.ever_named(id));
        if !named && !self.delegations.ever_named(id) {
            // A publisher that no group names is nobody, however well it signs itself.
            return Ok(Verdict::Pending { missing: None });
        }
        self.delegations.note(id, v.body())?;
        let hash = v.hash();
        let state = PublisherState { current: Current::first(v), epochs: Epochs::default() };
        self.publishers.insert(id, Box::new(state));
        self.publisher_logs.insert(item.log, id);
        Ok(accepted(hash, ItemKind::Publisher))
    }
}
