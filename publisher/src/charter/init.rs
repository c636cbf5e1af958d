//! A new charter on one disk: every role a key of its own, each threshold 1 of 1.
//!
//! Enough for one person and for trying stork; a team rotates to shared roles later, and no id
//! changes when it does.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use stork_wire::charter::{
    Authority, BODY_VERSION, GroupDoc, PublisherDoc, PublisherGrant, ReleaseKey, Role, RootDoc,
    UnixSeconds,
};
use stork_wire::codec::List;
use stork_wire::ids::{FleetId, GroupId, LogId, NodeId, PublicKey, PublisherId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, SecretKey};
use stork_wire::text::{GroupName, Label, Pattern};
use zeroize::Zeroizing;

use super::profile::{BUNDLE_FILE, GroupName as NamedGroup, PROFILE_FILE, Profile};
use super::{Charter, CharterError};
use crate::bundle::write_bundle;
use crate::keys::{Passphrase, Signer, generate, read_public, write_key};

const DAY_S: u64 = 86_400;
/// Group names may have up to three parts; `*` does not cross a slash.
const GROUP_PATTERNS: [&str; 3] = ["*", "*/*", "*/*/*"];

/// What to found.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where everything is written.
    pub dir: PathBuf,
    /// The fleet's name.
    pub fleet: Label,
    /// The groups.
    pub groups: Vec<GroupName>,
    /// The publisher's name.
    pub publisher: Label,
    /// Package names that the publisher may use; all if empty.
    pub packages: Vec<Pattern>,
    /// Nodes that take the publisher's entries; any if empty.
    pub homes: Vec<NodeId>,
    /// Days until all documents must have been renewed.
    pub valid_days: u32,
    /// An existing release key's public half; a new one is made otherwise.
    pub release_key: Option<PathBuf>,
    /// Keys of nodes that make beacons, public or private halves; 16 at the most.
    pub beacon_keys: Vec<PathBuf>,
    /// What the new keys are locked with.
    pub passphrase: Passphrase,
}

/// What was founded.
#[derive(Debug)]
pub struct Initialised {
    /// The charter.
    pub charter: Charter,
    /// Who publishes.
    pub profile: Profile,
}

/// Makes keys one after the other, all locked with the same passphrase.
struct Maker {
    keys: PathBuf,
    passphrase: Option<Zeroizing<String>>,
}

impl Maker {
    fn make(&self, role: &str) -> Result<SecretKey, CharterError> {
        let key = generate()?;
        let secret = self.passphrase.as_ref().map(|p| p.as_str());
        write_key(&self.keys.join(role), &key, &format!("stork {role}"), secret)?;
        Ok(key)
    }
}

fn item<T: Body>(
    (kind, log): (ItemKind, LogId),
    doc: &T,
    fleet: FleetId,
    key: &Signer,
) -> Result<Item, CharterError> {
    Ok(Item { kind, log, seq: 1, envelope: key.sign(doc, fleet)? })
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut out = items.to_vec();
    out.sort();
    out.dedup();
    out
}

fn patterns(given: &[Pattern]) -> Result<List<Pattern, 64>, CharterError> {
    if given.is_empty() {
        Ok(List::new(vec!["*".parse()?, "*/*".parse()?])?)
    } else {
        Ok(List::new(given.to_vec())?)
    }
}

/// First and last second of a new document.
#[derive(Clone, Copy)]
struct Life {
    issued: UnixSeconds,
    expires: UnixSeconds,
}

fn root_doc(
    options: &InitOptions,
    life: Life,
    (root, admission, authority): (PublicKey, PublicKey, PublicKey),
) -> Result<RootDoc, CharterError> {
    let authorities = GROUP_PATTERNS
        .iter()
        .map(|p| Ok(Authority { names: p.parse()?, role: Role::single(authority) }))
        .collect::<Result<Vec<_>, CharterError>>()?;
    Ok(RootDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: options.fleet.clone(),
        issued: life.issued,
        expires: life.expires,
        root: Role::single(root),
        admission: Role::single(admission),
        authorities: List::new(authorities)?,
    })
}

fn publisher_doc(
    options: &InitOptions,
    life: Life,
    (root, release): (PublicKey, PublicKey),
    beacons: &List<PublicKey, 16>,
) -> Result<PublisherDoc, CharterError> {
    let key = ReleaseKey {
        key: release,
        packages: patterns(&options.packages)?,
        not_after: life.expires,
        valid_through: None,
    };
    Ok(PublisherDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: options.publisher.clone(),
        issued: life.issued,
        expires: life.expires,
        root: Role::single(root),
        epoch: 1,
        survivor: None,
        release_keys: List::new(vec![key])?,
        beacon_keys: beacons.clone(),
        homes: List::new(sorted(&options.homes))?,
    })
}

fn group_doc(
    options: &InitOptions,
    life: Life,
    (authority, publisher): (PublicKey, PublisherId),
    name: &GroupName,
) -> Result<GroupDoc, CharterError> {
    let grant = PublisherGrant {
        publisher,
        name: options.publisher.clone(),
        packages: patterns(&options.packages)?,
        provides: patterns(&[])?,
        release_bytes_max: 0,
    };
    Ok(GroupDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: name.clone(),
        issued: life.issued,
        expires: life.expires,
        authority: Role::single(authority),
        publishers: List::new(vec![grant])?,
    })
}

/// Creates the directory, and refuses one that holds a charter already.
fn prepare(dir: &Path) -> Result<PathBuf, CharterError> {
    let keys = dir.join("keys");
    for path in [dir.join(BUNDLE_FILE), dir.join(PROFILE_FILE), keys.clone()] {
        if fs::symlink_metadata(&path).is_ok() {
            return Err(CharterError::Exists(path));
        }
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys);
    made.map_err(|source| CharterError::Write { path: keys.clone(), source })?;
    Ok(keys)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CharterError> {
    use std::io::Write;
    let failed = |source| CharterError::Write { path: path.into(), source };
    let mut file = fs::File::create_new(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// The public halves of beacon keys, each once.
pub(super) fn read_beacon_keys(files: &[PathBuf]) -> Result<List<PublicKey, 16>, CharterError> {
    let keys = files.iter().map(|f| read_public(f).map(|(key, _)| key));
    let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
    Ok(List::new(sorted(&keys))?)
}

/// Founds a fleet with its groups and one publisher.
pub fn init(options: &InitOptions, now: UnixSeconds) -> Result<Initialised, CharterError> {
    let release = options.release_key.as_deref().map(read_public).transpose()?;
    let beacons = read_beacon_keys(&options.beacon_keys)?;
    let dir = &options.dir;
    let passphrase = options.passphrase.chosen(&dir.join("keys"))?;
    let maker = Maker { keys: prepare(dir)?, passphrase };
    let life = Life { issued: now, expires: now + u64::from(options.valid_days.max(1)) * DAY_S };

    let root_key = maker.make("root")?;
    let admission = maker.make("admission")?.public();
    let authority = maker.make("authority")?;
    let publisher_root = maker.make("publisher")?;
    let (release, release_file) = match release {
        Some((key, _)) => (key, None),
        None => (maker.make("release")?.public(), Some("keys/release".to_owned())),
    };

    let root = root_doc(options, life, (root_key.public(), admission, authority.public()))?;
    let fleet = root.fleet_id();
    let kind = (ItemKind::Root, LogId::root(fleet));
    let mut items = vec![item(kind, &root, fleet, &Signer::File(root_key))?];
    let publisher_doc = publisher_doc(options, life, (publisher_root.public(), release), &beacons)?;
    let publisher = publisher_doc.publisher_id();
    let kind = (ItemKind::Publisher, LogId::publisher(publisher));
    items.push(item(kind, &publisher_doc, fleet, &Signer::File(publisher_root))?);
    let authority_key = authority.public();
    let authority = Signer::File(authority);
    let mut groups: Vec<NamedGroup> = Vec::new();
    for name in sorted(&options.groups) {
        let doc = group_doc(options, life, (authority_key, publisher), &name)?;
        let id: GroupId = doc.group_id();
        items.push(item((ItemKind::Group, LogId::group(id)), &doc, fleet, &authority)?);
        groups.push(NamedGroup { id, name: name.to_string() });
    }
    // What is written was checked like what is read.
    let charter = Charter::from_items(&items)?;
    let path = dir.join(BUNDLE_FILE);
    let bytes = write_bundle(&charter.items)
        .map_err(|source| CharterError::Bundle { path: path.clone(), source })?;
    write_new(&path, &bytes)?;
    let profile = Profile {
        fleet,
        publisher,
        release_key: release_file,
        groups,
        origin: None,
        origin_credentials: None,
    };
    let path = dir.join(PROFILE_FILE);
    let text = toml::to_string(&profile)
        .map_err(|e| CharterError::Profile { path: path.clone(), why: e.to_string() })?;
    write_new(&path, text.as_bytes())?;
    Ok(Initialised { charter, profile })
}
