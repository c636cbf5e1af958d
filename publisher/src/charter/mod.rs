//! The charter as a publisher sees it: documents read from a bundle, with every signature and chain
//! checked before anything is pushed in their name.

mod beacons;
mod change;
#[cfg(test)]
mod change_tests;
mod delegate;
mod edit;
mod epoch;
mod error;
mod files;
mod init;
mod ledger;
mod pending;
mod private;
mod profile;
mod roles;
mod rotate;
#[cfg(test)]
mod tests;
mod verify;
mod veto;
mod words;

pub use beacons::beacons;
pub use change::{Change, Changed, Life, Outcome, import, sign};
pub use delegate::{Delegating, delegate};
pub use edit::{Granted, NewPublisher, add_group, add_publisher, grant, ungrant};
pub use epoch::{EpochOptions, Leaves, new_epoch};
pub use error::CharterError;
pub(crate) use files::{read_bounded, write_new};
pub use init::{InitOptions, Initialised, RoleKeys, init};
pub use ledger::{Doc, Need, Step};
pub use pending::{Pending, PendingError};
pub(crate) use private::sealing_key;
pub use private::{Privacy, privacy};
pub(crate) use profile::write_job;
pub use profile::{BUNDLE_FILE, GroupName, PROFILE_FILE, Profile, open, read_file, write_profile};
pub use roles::{RoleChange, RoleName};
pub use rotate::{renew, rotate, rotate_release};
pub(crate) use verify::expiry;
pub use verify::{Checked, verify};
pub use veto::{LiftWhat, VetoChange, lift, veto};
pub use words::describe;

use std::collections::BTreeMap;

use stork_wire::charter::{GroupDoc, PublisherDoc, ReleaseKey, Role, RootDoc};
use stork_wire::ids::{FleetId, GroupId, ItemHash, LogId, PublicKey, PublisherId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::seal::Keyring;
use stork_wire::sign::Body;

/// A charter whose signatures and chains were checked. Expiry is left to who uses it.
#[derive(Debug, Clone)]
pub struct Charter {
    /// The fleet.
    pub fleet: FleetId,
    /// The root document in force.
    pub root: RootDoc,
    /// The group documents in force, by id.
    pub groups: BTreeMap<GroupId, GroupDoc>,
    /// The publisher documents in force, by id.
    pub publishers: BTreeMap<PublisherId, PublisherDoc>,
    /// All documents, those that others need first in front.
    pub items: Vec<Item>,
    /// Keys of private groups that lie beside it; none where only documents were read.
    pub keys: Keyring,
}

/// What all three kinds of document have in common.
trait Document: Body {
    const KIND: &'static str;
    fn place(&self) -> (u64, Option<ItemHash>);
    fn role(&self) -> &Role;
}

impl Document for RootDoc {
    const KIND: &'static str = "root";
    fn place(&self) -> (u64, Option<ItemHash>) {
        (self.number, self.prev)
    }
    fn role(&self) -> &Role {
        &self.root
    }
}
impl Document for GroupDoc {
    const KIND: &'static str = "group";
    fn place(&self) -> (u64, Option<ItemHash>) {
        (self.number, self.prev)
    }
    fn role(&self) -> &Role {
        &self.authority
    }
}
impl Document for PublisherDoc {
    const KIND: &'static str = "publisher";
    fn place(&self) -> (u64, Option<ItemHash>) {
        (self.number, self.prev)
    }
    fn role(&self) -> &Role {
        &self.root
    }
}

fn claimed<T: Document>(item: &Item) -> Result<T, CharterError> {
    item.envelope.claimed().map_err(|source| CharterError::Document {
        kind: T::KIND,
        number: item.seq,
        source,
    })
}

/// Walks one log from its first document: each is numbered, names its predecessor, and is signed
/// by the role of its predecessor and by its own.
fn walk<T: Document>(
    log: &[Item],
    fleet: FleetId,
    founder: Option<&Role>,
) -> Result<T, CharterError> {
    let mut last: Option<(T, ItemHash)> = None;
    for (item, number) in log.iter().zip(1u64..) {
        let doc: T = claimed(item)?;
        let prev = last.as_ref().map(|(_, hash)| *hash);
        if item.seq != number || doc.place() != (number, prev) {
            let why = format!("{} document {number} is missing or not its own successor", T::KIND);
            return Err(CharterError::Broken(why));
        }
        let before = last.as_ref().map(|(d, _)| d.role()).or(founder);
        for role in before.into_iter().chain([doc.role()]) {
            item.envelope
                .verify::<T>(fleet, &role.keys, role.needed())
                .map_err(|source| CharterError::Document { kind: T::KIND, number, source })?;
        }
        last = Some((doc, item.envelope.hash()));
    }
    last.map(|(d, _)| d).ok_or_else(|| CharterError::Broken(format!("no {} document", T::KIND)))
}

/// The items of one kind by log, each log in order of its numbers.
fn logs(items: &[Item], kind: ItemKind) -> BTreeMap<LogId, Vec<Item>> {
    let mut out: BTreeMap<LogId, Vec<Item>> = BTreeMap::new();
    for item in items.iter().filter(|i| i.kind == kind) {
        out.entry(item.log).or_default().push(item.clone());
    }
    for log in out.values_mut() {
        log.sort_by_key(|i| i.seq);
        log.dedup();
    }
    out
}

/// The veto keys that any version of a group's document names.
fn veto_keys(charter: &Charter, group: GroupId) -> Vec<PublicKey> {
    let log = LogId::group(group);
    let items = charter.items.iter().filter(|i| i.log == log);
    let docs = items.filter_map(|i| i.envelope.claimed::<GroupDoc>().ok());
    docs.flat_map(|d| d.veto.to_vec()).map(|v| v.key).collect()
}

fn own_log(ok: bool, kind: &str) -> Result<(), CharterError> {
    let broken = || CharterError::Broken(format!("a {kind} document stands in a foreign log"));
    if ok { Ok(()) } else { Err(broken()) }
}

impl Charter {
    /// Checks documents and takes the newest of each log.
    pub fn from_items(items: &[Item]) -> Result<Self, CharterError> {
        let roots = logs(items, ItemKind::Root);
        let first = |log: &[Item]| log.first().cloned();
        let (Some((root_log, chain)), 1) = (roots.first_key_value(), roots.len()) else {
            return Err(CharterError::Broken(
                "it must hold the root documents of one fleet".into(),
            ));
        };
        let founding = first(chain).map(|i| claimed::<RootDoc>(&i)).transpose()?;
        let fleet = founding.map(|d| d.fleet_id());
        let fleet = fleet.ok_or_else(|| CharterError::Broken("no root document".into()))?;
        own_log(*root_log == LogId::root(fleet), "root")?;
        let root: RootDoc = walk(chain, fleet, None)?;
        let mut all = chain.clone();
        let mut publishers = BTreeMap::new();
        for (log, chain) in logs(items, ItemKind::Publisher) {
            let Some(one) = first(&chain) else { continue };
            let id = claimed::<PublisherDoc>(&one)?.publisher_id();
            own_log(log == LogId::publisher(id), "publisher")?;
            publishers.insert(id, walk(&chain, fleet, None)?);
            all.extend(chain);
        }
        let mut groups = BTreeMap::new();
        for (log, chain) in logs(items, ItemKind::Group) {
            let Some(one) = first(&chain) else { continue };
            let doc: GroupDoc = claimed(&one)?;
            own_log(log == LogId::group(doc.group_id()), "group")?;
            let founder = root.authorities.iter().find(|a| a.names.matches(doc.name.as_str()));
            let nobody = || CharterError::Broken(format!("nobody may found group {}", doc.name));
            let founder = founder.ok_or_else(nobody)?;
            groups.insert(doc.group_id(), walk(&chain, fleet, Some(&founder.role))?);
            all.extend(chain);
        }
        let keys = Keyring::default();
        Ok(Self { fleet, root, groups, publishers, items: all, keys })
    }

    /// The release keys that any document of one epoch of a publisher names: entries are judged by
    /// those of their own epoch, so that later documents need not carry keys which are retired.
    #[must_use]
    pub fn release_keys(&self, publisher: PublisherId, epoch: u32) -> Vec<ReleaseKey> {
        let log = LogId::publisher(publisher);
        let mut keys: Vec<ReleaseKey> = Vec::new();
        for item in self.items.iter().filter(|i| i.log == log) {
            let doc = item.envelope.claimed::<PublisherDoc>();
            for key in doc.iter().filter(|d| d.epoch == epoch).flat_map(|d| &d.release_keys) {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
        }
        keys
    }

    /// The publisher of this name, or with this id.
    pub fn publisher_named(&self, name: &str) -> Result<PublisherId, CharterError> {
        let matches = self
            .publishers
            .iter()
            .filter(|(id, d)| d.name.as_str() == name || id.to_string() == name);
        let ids: Vec<PublisherId> = matches.map(|(id, _)| *id).collect();
        match ids.as_slice() {
            [] => Err(CharterError::NoSuch(format!("publisher `{name}`"))),
            [id] => Ok(*id),
            _ => {
                let why = format!("several publishers have the name `{name}`: name one by its id");
                Err(CharterError::Usage(why))
            }
        }
    }

    /// The id of the group with this name.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        self.groups.iter().find(|(_, d)| d.name.as_str() == name).map(|(id, _)| *id)
    }
}
