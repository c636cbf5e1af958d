//! A new epoch of the publisher's feed: how its owner goes on after a fork or a stolen key.
//!
//! The publisher's root says after which entry the feed goes on; what else followed it is void on
//! every host. Hosts judge an entry by the release keys that documents of its own epoch named, so
//! that a key which is taken away need not stay in later documents. This is also the only way to
//! take one away: within an epoch keys are only added.

use std::path::PathBuf;

use stork_wire::charter::{PublisherDoc, ReleaseKey, Survivor, UnixSeconds};
use stork_wire::codec::List;
use stork_wire::ids::{ItemHash, Position, PublicKey};
use stork_wire::text::Pattern;

use super::init::read_beacon_keys;
use super::ledger::Doc;
use super::roles::Called;
use super::{Change, Changed, CharterError, read_file};
use crate::keys::read_public;

/// Which release keys the new epoch does without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaves {
    /// All that were in use if there is a new one, none otherwise.
    Replaced,
    /// This one: a file, a fingerprint, a key id or a public key.
    Key(String),
}

/// What the new epoch is to be.
#[derive(Debug, Clone)]
pub struct EpochOptions {
    /// The publisher; the one of `publisher.toml` if not given.
    pub publisher: Option<String>,
    /// The last entry that stands, and its hash; `None`: no entry stands.
    pub after: Option<(u64, ItemHash)>,
    /// The feed begins anew, and what was live at this entry is carried over.
    pub compacts: Option<Survivor>,
    /// The epoch of that entry; the one in force if not given.
    pub of_epoch: Option<u32>,
    /// A new release key.
    pub release_key: Option<PathBuf>,
    /// The release keys that end.
    pub leaves: Leaves,
    /// Beacon keys instead of those in use; none: those in use stay.
    pub beacon_keys: Vec<PathBuf>,
}

impl EpochOptions {
    /// The feed begins anew, with the keys that it has; what was live at this entry is carried
    /// over.
    #[must_use]
    pub const fn anew(at: Survivor) -> Self {
        Self {
            publisher: None,
            after: None,
            compacts: Some(at),
            of_epoch: None,
            release_key: None,
            leaves: Leaves::Replaced,
            beacon_keys: Vec::new(),
        }
    }
}

/// Makes the document that begins the epoch.
pub fn new_epoch(
    change: &Change,
    options: &EpochOptions,
) -> Result<(Changed, PublisherDoc), CharterError> {
    let charter = read_file(&change.dir)?;
    let id = change.publisher(&charter, options.publisher.as_deref())?;
    let mut doc = change.next_publisher(&charter, id)?;
    let epoch = options.of_epoch.unwrap_or(doc.epoch);
    doc.survivor = options.after.map(|(seq, hash)| Survivor { at: Position { epoch, seq }, hash });
    doc.compacts = options.compacts;
    doc.epoch += 1;
    let new = options.release_key.as_deref().map(read_public).transpose()?.map(|(key, _)| key);
    doc.release_keys = release_keys(&doc.release_keys, &options.leaves, new, change.life.expires)?;
    if !options.beacon_keys.is_empty() {
        doc.beacon_keys = read_beacon_keys(&options.beacon_keys)?;
    }
    let name = format!("publisher-{}-{}", doc.name, doc.number);
    let changed = change.make(&charter, &[Doc::Publisher(doc.clone())], &name)?;
    Ok((changed, doc))
}

/// The keys of the new epoch: a new one may all that those could which end.
fn release_keys(
    old: &[ReleaseKey],
    leaves: &Leaves,
    new: Option<PublicKey>,
    not_after: UnixSeconds,
) -> Result<List<ReleaseKey, 16>, CharterError> {
    let in_use = old.iter().filter(|k| k.valid_through.is_none());
    let called = match leaves {
        Leaves::Replaced => None,
        Leaves::Key(name) => Some(Called::read(name)?),
    };
    let ends = |k: &&ReleaseKey| called.as_ref().map_or_else(|| new.is_some(), |c| c.is(&k.key));
    let (ended, mut keys): (Vec<&ReleaseKey>, Vec<&ReleaseKey>) = in_use.partition(ends);
    if let Leaves::Key(name) = leaves
        && ended.is_empty()
    {
        return Err(CharterError::NoSuch(format!("release key `{name}` in use")));
    }
    let mut packages: Vec<Pattern> = Vec::new();
    let kept = keys.iter().find(|k| Some(k.key) == new);
    for name in ended.iter().chain(kept).flat_map(|k| k.packages.iter()) {
        if !packages.contains(name) {
            packages.push(name.clone());
        }
    }
    let new = match new {
        Some(key) if matches!(leaves, Leaves::Key(_)) && ended.iter().any(|k| k.key == key) => {
            let why = "the new release key is the one that is taken away".to_owned();
            return Err(CharterError::Usage(why));
        }
        Some(key) => {
            keys.retain(|k| k.key != key);
            let packages = List::new(packages)?;
            Some(ReleaseKey { key, packages, not_after, valid_through: None })
        }
        None => None,
    };
    let mut all: Vec<ReleaseKey> = keys.into_iter().cloned().chain(new).collect();
    if all.is_empty() {
        let why = "no release key would be left: name a new one by --release-key";
        return Err(CharterError::Usage(why.into()));
    }
    all.sort_by_key(|k| k.key);
    Ok(List::new(all)?)
}
