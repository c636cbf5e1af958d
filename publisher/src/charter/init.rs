//! A new charter: every role a key of its own that is made here, and further keys of other people.
//!
//! Where one signature is enough the fleet is founded at once. Where a threshold asks for more, the
//! first documents wait in a pending file until the others have signed.

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

use super::profile::{
    BUNDLE_FILE, GroupName as NamedGroup, PROFILE_FILE, Profile, read_file, save_profile,
};
use super::roles::check_threshold;
use super::{Change, Changed, Charter, CharterError, Life, Outcome, RoleName};
use crate::keys::{Passphrase, Signer, generate, read_public, write_key};

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
    /// Names that its packages may provide beside their own; none if empty.
    pub provides: Vec<Pattern>,
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
    /// Keys of others, and thresholds.
    pub roles: RoleKeys,
}

/// Keys of roles beside those that are made, and how many must sign; 1 where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct RoleKeys {
    /// Public halves: of `root`, `admission`, `authority` or `publisher`.
    pub keys: Vec<(RoleName, PathBuf)>,
    /// Thresholds of the same roles.
    pub thresholds: Vec<(RoleName, u8)>,
}

impl RoleKeys {
    /// The role with the key that was made for it.
    fn role(&self, name: &RoleName, made: PublicKey) -> Result<Role, CharterError> {
        let mut keys = vec![made];
        for (_, file) in self.keys.iter().filter(|(r, _)| r == name) {
            keys.push(read_public(file)?.0);
        }
        let threshold = self.thresholds.iter().rev().find(|(r, _)| r == name);
        let threshold = threshold.map_or(1, |(_, t)| *t);
        let keys = sorted(&keys);
        check_threshold(name, threshold, keys.len())?;
        Ok(Role { keys: List::new(keys)?, threshold })
    }

    /// Are these roles that a new charter has?
    fn check(&self) -> Result<(), CharterError> {
        let known =
            [RoleName::Root, RoleName::Admission, RoleName::Authority, RoleName::Publisher(None)];
        let names = self.keys.iter().map(|(r, _)| r);
        match names.chain(self.thresholds.iter().map(|(r, _)| r)).find(|r| !known.contains(r)) {
            None => Ok(()),
            Some(r) => {
                let why = format!("{r}: a new charter has root, admission, authority, publisher");
                Err(CharterError::Usage(why))
            }
        }
    }
}

/// What was founded.
#[derive(Debug)]
pub struct Initialised {
    /// The charter; `None` while signatures lack.
    pub charter: Option<Charter>,
    /// Who publishes.
    pub profile: Profile,
    /// The first documents, and whether they hold.
    pub changed: Changed,
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

/// The patterns that are given; without any, all names.
pub(super) fn patterns(given: &[Pattern]) -> Result<List<Pattern, 64>, CharterError> {
    if given.is_empty() {
        Ok(List::new(vec!["*".parse()?, "*/*".parse()?])?)
    } else {
        Ok(List::new(given.to_vec())?)
    }
}

fn root_doc(
    options: &InitOptions,
    life: Life,
    (root, admission, authority): (Role, Role, Role),
) -> Result<RootDoc, CharterError> {
    let authorities = GROUP_PATTERNS
        .iter()
        .map(|p| Ok(Authority { names: p.parse()?, role: authority.clone() }))
        .collect::<Result<Vec<_>, CharterError>>()?;
    Ok(RootDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: options.fleet.clone(),
        issued: life.issued,
        expires: life.expires,
        root,
        admission,
        authorities: List::new(authorities)?,
        admission_before: List::empty(),
    })
}

fn publisher_doc(
    options: &InitOptions,
    life: Life,
    (root, release): (Role, PublicKey),
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
        root,
        epoch: 1,
        survivor: None,
        release_keys: List::new(vec![key])?,
        beacon_keys: beacons.clone(),
        homes: List::new(sorted(&options.homes))?,
        delegations: List::empty(),
        compacts: None,
    })
}

fn group_doc(
    options: &InitOptions,
    life: Life,
    (authority, publisher): (Role, PublisherId),
    name: &GroupName,
) -> Result<GroupDoc, CharterError> {
    let grant = PublisherGrant {
        publisher,
        name: options.publisher.clone(),
        packages: patterns(&options.packages)?,
        provides: List::new(options.provides.clone())?,
        release_bytes_max: 0,
    };
    Ok(GroupDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: name.clone(),
        issued: life.issued,
        expires: life.expires,
        authority,
        publishers: List::new(vec![grant])?,
        veto: List::empty(),
        lifts: List::empty(),
        private: None,
        beacon_s: None,
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
    let (dir, roles) = (&options.dir, &options.roles);
    roles.check()?;
    // Whatever is wrong about roles is found before the first key is written.
    let trial = generate()?.public();
    for name in [RoleName::Root, RoleName::Admission, RoleName::Authority] {
        roles.role(&name, trial)?;
    }
    roles.role(&RoleName::Publisher(None), trial)?;
    let passphrase = options.passphrase.chosen(&dir.join("keys"))?;
    let maker = Maker { keys: prepare(dir)?, passphrase };
    let life = Life::days(now, options.valid_days);

    let root_key = maker.make("root")?;
    let admission = roles.role(&RoleName::Admission, maker.make("admission")?.public())?;
    let authority_key = maker.make("authority")?;
    let authority = roles.role(&RoleName::Authority, authority_key.public())?;
    let publisher_key = maker.make("publisher")?;
    let publisher_role = roles.role(&RoleName::Publisher(None), publisher_key.public())?;
    let (release, release_file) = match release {
        Some((key, _)) => (key, None),
        None => (maker.make("release")?.public(), Some("keys/release".to_owned())),
    };

    let root = roles.role(&RoleName::Root, root_key.public())?;
    let root = root_doc(options, life, (root, admission, authority.clone()))?;
    let fleet = root.fleet_id();
    let kind = (ItemKind::Root, LogId::root(fleet));
    let mut items = vec![item(kind, &root, fleet, &Signer::File(root_key))?];
    let publisher_doc = publisher_doc(options, life, (publisher_role, release), &beacons)?;
    let publisher = publisher_doc.publisher_id();
    let kind = (ItemKind::Publisher, LogId::publisher(publisher));
    items.push(item(kind, &publisher_doc, fleet, &Signer::File(publisher_key))?);
    let signer = Signer::File(authority_key);
    let mut groups: Vec<NamedGroup> = Vec::new();
    for name in sorted(&options.groups) {
        let doc = group_doc(options, life, (authority.clone(), publisher), &name)?;
        let id: GroupId = doc.group_id();
        items.push(item((ItemKind::Group, LogId::group(id)), &doc, fleet, &signer)?);
        groups.push(NamedGroup { id, name: name.to_string() });
    }
    let change = Change {
        dir: dir.clone(),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life,
    };
    let changed = change.found(fleet, &items)?;
    let founded = changed.outcome == Outcome::Made;
    let charter = if founded { Some(read_file(dir)?) } else { None };
    let profile = Profile {
        fleet,
        publisher,
        release_key: release_file,
        groups,
        origin: None,
        origin_credentials: None,
    };
    save_profile(dir, &profile)?;
    Ok(Initialised { charter, profile, changed })
}
