//! What follows what: a document is looked at against the one before it, and the roles that must
//! sign it are named, with those who have signed already.
//!
//! Nothing is asked of the signatures here: a change is passed from hand to hand before it has
//! them. [`Step::missing`] says what lacks; a bundle takes only what is complete.

use std::collections::BTreeMap;

use stork_wire::charter::{GroupDoc, PublisherDoc, ReleaseKey, Role, RootDoc};
use stork_wire::ids::{FleetId, ItemHash, LogId, PublicKey};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::Envelope;

use super::{Charter, CharterError, Document, claimed};

/// One document of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doc {
    /// The fleet's.
    Root(RootDoc),
    /// A group's.
    Group(GroupDoc),
    /// A publisher's.
    Publisher(PublisherDoc),
}

impl Doc {
    /// What it is, for people: `document 2 of group web`.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Root(d) => format!("root document {} of fleet {}", d.number, d.name),
            Self::Group(d) => format!("document {} of group {}", d.number, d.name),
            Self::Publisher(d) => format!("document {} of publisher {}", d.number, d.name),
        }
    }

    /// The document as an item without signatures. `log` is that of the documents before it.
    pub(super) fn item(&self, fleet: FleetId, log: Option<LogId>) -> Result<Item, CharterError> {
        let (kind, seq, envelope, first) = match self {
            Self::Root(d) => (ItemKind::Root, d.number, Envelope::unsigned(d), LogId::root(fleet)),
            Self::Group(d) => {
                (ItemKind::Group, d.number, Envelope::unsigned(d), LogId::group(d.group_id()))
            }
            Self::Publisher(d) => {
                let log = LogId::publisher(d.publisher_id());
                (ItemKind::Publisher, d.number, Envelope::unsigned(d), log)
            }
        };
        let broken = |source| CharterError::Document { kind: kind.name(), number: seq, source };
        Ok(Item { kind, log: log.unwrap_or(first), seq, envelope: envelope.map_err(broken)? })
    }
}

/// A role that must sign a document.
#[derive(Debug, Clone)]
pub struct Need {
    /// Which one, for people: `root (document 1)`.
    pub who: String,
    /// Its keys and threshold.
    pub role: Role,
    /// Those of its keys that have signed.
    pub signed: Vec<PublicKey>,
}

impl Need {
    /// How many signatures lack.
    #[must_use]
    pub fn lacks(&self) -> usize {
        self.role.needed().saturating_sub(self.signed.len())
    }
}

/// A document that follows another one.
#[derive(Debug, Clone)]
pub struct Step {
    /// The document, with those of its signatures that count.
    pub item: Item,
    /// The document before it.
    pub before: Option<Doc>,
    /// What it says.
    pub doc: Doc,
    /// Who must sign it.
    pub needs: Vec<Need>,
    /// The charter holds it already.
    pub known: bool,
}

impl Step {
    /// What lacks before it holds, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let title = self.doc.title();
        let lacks = self.needs.iter().filter(|n| n.lacks() > 0 && !self.known);
        lacks
            .map(|n| {
                let (needed, keys, of) = (n.lacks(), n.role.keys.len(), n.role.threshold);
                format!("{title}: {needed} more of {} ({of} of {keys} keys)", n.who)
            })
            .collect()
    }
}

#[derive(Debug, Clone)]
struct Link<T> {
    doc: T,
    hash: ItemHash,
}

/// The newest document of each log, from which changes go on.
#[derive(Debug)]
pub(super) struct Ledger {
    fleet: FleetId,
    root: Option<Link<RootDoc>>,
    groups: BTreeMap<LogId, Link<GroupDoc>>,
    publishers: BTreeMap<LogId, Link<PublisherDoc>>,
    held: BTreeMap<(LogId, u64), Item>,
}

fn follow(what: &str, why: impl Into<String>) -> CharterError {
    CharterError::Follow { what: what.to_owned(), why: why.into() }
}

/// Is it the next one, and does it name the one before?
fn check_place<T: Document>(
    what: &str,
    old: Option<&Link<T>>,
    (item, doc): (&Item, &T),
) -> Result<(), CharterError> {
    let (number, prev) = doc.place();
    let head = old.map_or(0, |l| l.doc.place().0);
    if item.seq != number {
        return Err(follow(what, "its number is not the one under which it is filed"));
    }
    if number <= head {
        return Err(follow(what, "the charter has another document with this number"));
    }
    if number > head.saturating_add(1) {
        return Err(follow(what, format!("the charter ends with document {head}")));
    }
    if prev != old.map(|l| l.hash) {
        return Err(follow(what, "it names another document as the one before it"));
    }
    Ok(())
}

/// Who of these roles has signed; other signatures are dropped.
fn needs<T: Document>(
    fleet: FleetId,
    item: &Item,
    roles: Vec<(String, Role)>,
) -> Result<(Item, Vec<Need>), CharterError> {
    let mut kept = Envelope { body: item.envelope.body.clone(), ..item.envelope.clone() };
    let good = |key: &PublicKey| item.envelope.verify::<T>(fleet, &[*key], 1).is_ok();
    let mut all: Vec<PublicKey> = Vec::new();
    let needs: Vec<Need> = roles
        .into_iter()
        .map(|(who, role)| {
            let signed: Vec<PublicKey> = role.keys.iter().copied().filter(good).collect();
            all.extend(&signed);
            Need { who, role, signed }
        })
        .collect();
    let ids: Vec<_> = all.iter().map(PublicKey::key_id).collect();
    let signatures = item.envelope.signatures.iter().filter(|s| ids.contains(&s.key)).cloned();
    kept.signatures = stork_wire::codec::List::new(signatures.collect())?;
    Ok((Item { envelope: kept, ..item.clone() }, needs))
}

fn pair(who: &str, number: u64, old: Option<&Role>, new: &Role) -> Vec<(String, Role)> {
    let before =
        old.map(|r| (format!("{who} of document {}", number.saturating_sub(1)), r.clone()));
    // Where nothing changes, one line says it.
    if old == Some(new) {
        return before.into_iter().collect();
    }
    before.into_iter().chain([(format!("{who} of document {number}"), new.clone())]).collect()
}

/// May `new` follow `old`? Within an epoch release keys are only added or widened: hosts judge an
/// entry by all that its epoch ever named, so that taking a key away needs a new epoch.
fn check_epoch(what: &str, old: &PublisherDoc, new: &PublisherDoc) -> Result<(), CharterError> {
    if new.epoch == old.epoch.saturating_add(1) {
        return Ok(());
    }
    let begins = |d: &PublisherDoc| (d.epoch, d.survivor, d.compacts);
    if begins(new) != begins(old) {
        return Err(follow(
            what,
            format!("epoch {} does not follow epoch {}", new.epoch, old.epoch),
        ));
    }
    let kept = |k: &ReleaseKey| {
        new.release_keys.iter().any(|n| {
            n.key == k.key
                && n.not_after >= k.not_after
                && n.valid_through == k.valid_through
                && k.packages.iter().all(|p| n.packages.contains(p))
        })
    };
    match old.release_keys.iter().find(|k| !kept(k)) {
        None => Ok(()),
        Some(k) => {
            let key = crate::keys::fingerprint(&k.key);
            let why = format!("it takes rights from the release key {key} without a new epoch");
            Err(follow(what, why))
        }
    }
}

/// Could the groups still be founded? Hosts that come later judge their first documents by the
/// newest root document.
fn check_founders(what: &str, root: &RootDoc, held: &[Item]) -> Result<(), CharterError> {
    for item in held.iter().filter(|i| i.kind == ItemKind::Group && i.seq == 1) {
        let doc: GroupDoc = claimed(item)?;
        let name = doc.name.as_str();
        let role = root.authorities.iter().find(|a| a.names.matches(name)).map(|a| &a.role);
        let fleet = root_fleet(held)?;
        let stands = role
            .is_some_and(|r| item.envelope.verify::<GroupDoc>(fleet, &r.keys, r.needed()).is_ok());
        if !stands {
            let why = format!("group {name} could not be founded any more: keep its founder's key");
            return Err(follow(what, why));
        }
    }
    Ok(())
}

fn root_fleet(held: &[Item]) -> Result<FleetId, CharterError> {
    let first = held.iter().find(|i| i.kind == ItemKind::Root && i.seq == 1);
    let first = first.ok_or_else(|| CharterError::Broken("no root document".into()))?;
    Ok(claimed::<RootDoc>(first)?.fleet_id())
}

impl Ledger {
    /// Of a fleet that is not founded yet.
    pub(super) const fn empty(fleet: FleetId) -> Self {
        Self {
            fleet,
            root: None,
            groups: BTreeMap::new(),
            publishers: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Of a charter that was checked.
    pub(super) fn of(charter: &Charter) -> Result<Self, CharterError> {
        let mut ledger = Self::empty(charter.fleet);
        let mut items: Vec<&Item> = charter.items.iter().collect();
        items.sort_by_key(|i| (i.kind, i.log, i.seq));
        for item in items {
            ledger.take(item)?;
        }
        Ok(ledger)
    }

    fn take(&mut self, item: &Item) -> Result<(), CharterError> {
        let hash = item.envelope.hash();
        match item.kind {
            ItemKind::Root => self.root = Some(Link { doc: claimed(item)?, hash }),
            ItemKind::Group => {
                self.groups.insert(item.log, Link { doc: claimed(item)?, hash });
            }
            ItemKind::Publisher => {
                self.publishers.insert(item.log, Link { doc: claimed(item)?, hash });
            }
            _ => return Err(CharterError::Broken("a bundle holds charter documents only".into())),
        }
        self.held.insert((item.log, item.seq), item.clone());
        Ok(())
    }

    /// Looks at a document, and goes on from it.
    pub(super) fn step(&mut self, item: &Item) -> Result<Step, CharterError> {
        let held = self.held.get(&(item.log, item.seq));
        let known = held.is_some_and(|h| h.envelope.body == item.envelope.body);
        let (before, doc, (item, needs)) = match item.kind {
            ItemKind::Root => self.root_step(item, known)?,
            ItemKind::Group => self.group_step(item, known)?,
            ItemKind::Publisher => self.publisher_step(item, known)?,
            _ => return Err(CharterError::Broken("that is no charter document".into())),
        };
        if !known {
            self.take(&item)?;
        }
        Ok(Step { item, before, doc, needs, known })
    }

    fn root_step(&self, item: &Item, known: bool) -> Result<Looked, CharterError> {
        let doc: RootDoc = claimed(item)?;
        let title = Doc::Root(doc.clone()).title();
        if known {
            return Ok((None, Doc::Root(doc), (item.clone(), Vec::new())));
        }
        check_place(&title, self.root.as_ref(), (item, &doc))?;
        let ours = doc.number > 1 || doc.fleet_id() == self.fleet;
        if !ours || item.log != LogId::root(self.fleet) {
            return Err(follow(&title, "it is of another fleet"));
        }
        let held: Vec<Item> = self.held.values().cloned().collect();
        check_founders(&title, &doc, &held)?;
        let old = self.root.as_ref().map(|l| &l.doc);
        let roles = pair("the root", doc.number, old.map(|d| &d.root), &doc.root);
        let needs = needs::<RootDoc>(self.fleet, item, roles)?;
        Ok((old.cloned().map(Doc::Root), Doc::Root(doc), needs))
    }

    fn group_step(&self, item: &Item, known: bool) -> Result<Looked, CharterError> {
        let doc: GroupDoc = claimed(item)?;
        let title = Doc::Group(doc.clone()).title();
        if known {
            return Ok((None, Doc::Group(doc), (item.clone(), Vec::new())));
        }
        let old = self.groups.get(&item.log);
        check_place(&title, old, (item, &doc))?;
        let old = old.map(|l| &l.doc);
        if old.is_some_and(|d| d.name != doc.name) {
            return Err(follow(&title, "a group keeps its name"));
        }
        if old.is_none() && item.log != LogId::group(doc.group_id()) {
            return Err(follow(&title, "it stands in the log of another group"));
        }
        if old.is_none() && self.groups.values().any(|l| l.doc.name == doc.name) {
            return Err(follow(&title, "there is another group of this name"));
        }
        let who = format!("the authority of group {}", doc.name);
        let mut roles = pair(&who, doc.number, old.map(|d| &d.authority), &doc.authority);
        if old.is_none() {
            let root = self.root.as_ref().map(|l| &l.doc);
            let authorities = root.map(|r| r.authorities.as_ref()).unwrap_or_default();
            let founder = authorities.iter().find(|a| a.names.matches(doc.name.as_str()));
            let nobody = || follow(&title, "the root document lets nobody found it");
            let founder = founder.ok_or_else(nobody)?;
            if founder.role != doc.authority {
                roles.push(("those who may found it".into(), founder.role.clone()));
            }
        }
        let needs = needs::<GroupDoc>(self.fleet, item, roles)?;
        Ok((old.cloned().map(Doc::Group), Doc::Group(doc), needs))
    }

    fn publisher_step(&self, item: &Item, known: bool) -> Result<Looked, CharterError> {
        let doc: PublisherDoc = claimed(item)?;
        let title = Doc::Publisher(doc.clone()).title();
        if known {
            return Ok((None, Doc::Publisher(doc), (item.clone(), Vec::new())));
        }
        let old = self.publishers.get(&item.log);
        check_place(&title, old, (item, &doc))?;
        let old = old.map(|l| &l.doc);
        match old {
            Some(old) => check_epoch(&title, old, &doc)?,
            None if item.log != LogId::publisher(doc.publisher_id()) => {
                return Err(follow(&title, "it stands in the log of another publisher"));
            }
            None => {}
        }
        let who = format!("the root of publisher {}", doc.name);
        let roles = pair(&who, doc.number, old.map(|d| &d.root), &doc.root);
        let needs = needs::<PublisherDoc>(self.fleet, item, roles)?;
        Ok((old.cloned().map(Doc::Publisher), Doc::Publisher(doc), needs))
    }
}

/// The document before, the document, and who must sign it.
type Looked = (Option<Doc>, Doc, (Item, Vec<Need>));
