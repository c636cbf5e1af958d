//! The charter as a publisher sees it: documents read from a bundle, with every signature and chain
//! checked before anything is pushed in their name.

mod epoch;
mod init;
mod profile;
#[cfg(test)]
mod tests;

pub use epoch::{EpochOptions, new_epoch};
pub use init::{InitOptions, Initialised, init};
pub use profile::{BUNDLE_FILE, GroupName, PROFILE_FILE, Profile, open, read_file};

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use stork_wire::charter::{GroupDoc, PublisherDoc, Role, RootDoc};
use stork_wire::ids::{FleetId, GroupId, ItemHash, LogId, PublisherId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, VerifyError};
use stork_wire::text::BadText;

use crate::bundle::BundleError;
use crate::keys::{KeyError, SignError};

/// A charter that cannot be made, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum CharterError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a charter already.
    #[error("`{0}` exists: a charter is never overwritten")]
    Exists(PathBuf),
    /// The publisher's file is no TOML of the right shape.
    #[error("`{path}` is wrong: {why}")]
    Profile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The bundle is broken.
    #[error("`{path}` cannot be used")]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: BundleError,
    },
    /// A document is not signed as it must be.
    #[error("the {kind} document {number} is not valid")]
    Document {
        /// Which kind.
        kind: &'static str,
        /// Its number.
        number: u64,
        /// What is wrong.
        #[source]
        source: VerifyError,
    },
    /// Documents do not belong together.
    #[error("the charter does not hold together: {0}")]
    Broken(String),
    /// A name or pattern breaks a rule.
    #[error(transparent)]
    Text(#[from] BadText),
    /// More names, groups, keys or homes than a document holds.
    #[error("too many names, groups, keys or homes for one document")]
    TooMany(#[from] stork_wire::codec::TooMany),
    /// A key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A document cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl CharterError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Read { .. } => {
                "name the directory by --charter DIR; make one: stork-publish charter init".into()
            }
            Self::Write { .. } => "choose a directory that you may write to, by --dir".into(),
            Self::Exists(_) => "choose another directory by --dir, or keep the one you have".into(),
            Self::Profile { .. } => "correct the file, or take it from a backup".into(),
            Self::Bundle { .. } | Self::Document { .. } | Self::Broken(_) => {
                "take charter.bundle from a backup, or fetch it from a node again".into()
            }
            Self::Text(_) | Self::TooMany(_) => {
                "give another name; see `stork-publish charter init --help`".into()
            }
            Self::Key(e) => e.help(),
            Self::Sign(_) => "check the key and the values of the document".into(),
        }
    }
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => crate::out::file_exit(source),
            Self::Document { .. } | Self::Broken(_) => 4,
            Self::Profile { .. } | Self::Bundle { .. } => 78,
            Self::Text(_) | Self::TooMany(_) => 2,
            Self::Key(e) => e.exit(),
            _ => 1,
        }
    }
}

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
        Ok(Self { fleet, root, groups, publishers, items: all })
    }

    /// The id of the group with this name.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<GroupId> {
        self.groups.iter().find(|(_, d)| d.name.as_str() == name).map(|(id, _)| *id)
    }
}
