//! A new epoch of the publisher's feed: how its owner goes on after a fork or a stolen key.
//!
//! The publisher's root says after which entry the feed goes on; what else followed it is void on
//! every host. Entries of earlier epochs are still judged under the newest document, so that old
//! release keys stay in it, for what they signed until then.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use stork_wire::charter::{PublisherDoc, ReleaseKey, Survivor, UnixSeconds};
use stork_wire::codec::List;
use stork_wire::ids::{ItemHash, LogId, Position};
use stork_wire::item::{Item, ItemKind};
use stork_wire::text::Pattern;

use super::init::read_beacon_keys;
use super::profile::{BUNDLE_FILE, open};
use super::{Charter, CharterError};
use crate::bundle::write_bundle;
use crate::keys::{Passphrase, Signer, read_public};

const DAY_S: u64 = 86_400;

/// What the new epoch is to be.
#[derive(Debug, Clone)]
pub struct EpochOptions {
    /// The publisher's directory.
    pub dir: PathBuf,
    /// The last entry that stands, and its hash; `None`: no entry stands.
    pub after: Option<(u64, ItemHash)>,
    /// The epoch of that entry; the one in force if not given.
    pub of_epoch: Option<u32>,
    /// The publisher's root key, as `Signer::open` takes it; `keys/publisher` if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// A release key instead of those in use, which sign nothing more.
    pub release_key: Option<PathBuf>,
    /// Beacon keys instead of those in use; none: those in use stay.
    pub beacon_keys: Vec<PathBuf>,
    /// Days until the document must have been renewed.
    pub valid_days: u32,
}

/// Makes the document, and writes it into the directory's bundle.
pub fn new_epoch(
    options: &EpochOptions,
    now: UnixSeconds,
) -> Result<(Charter, PublisherDoc), CharterError> {
    let (charter, profile) = open(&options.dir)?;
    let id = profile.publisher;
    let missing = || CharterError::Broken("the bundle has no such publisher".into());
    let old = charter.publishers.get(&id).ok_or_else(missing)?;
    let log = LogId::publisher(id);
    let last = charter.items.iter().find(|i| i.log == log && i.seq == old.number);
    let last = last.ok_or_else(missing)?;
    let default = || options.dir.join("keys/publisher").to_string_lossy().into_owned();
    let spec = options.key.clone().unwrap_or_else(default);
    let signer = Signer::open(&spec, &options.passphrase)?;

    let epoch = options.of_epoch.unwrap_or(old.epoch);
    let survivor = options.after.map(|(seq, hash)| Survivor { at: Position { epoch, seq }, hash });
    let expires = now + u64::from(options.valid_days.max(1)) * DAY_S;
    let mut doc = PublisherDoc {
        number: old.number + 1,
        prev: Some(last.envelope.hash()),
        issued: now,
        expires,
        epoch: old.epoch + 1,
        survivor,
        ..old.clone()
    };
    if let Some(file) = &options.release_key {
        let key = read_public(file)?.0;
        doc.release_keys = replaced(old, survivor, key, expires)?;
    }
    if !options.beacon_keys.is_empty() {
        doc.beacon_keys = read_beacon_keys(&options.beacon_keys)?;
    }
    let envelope = signer.sign(&doc, charter.fleet)?;
    let item = Item { kind: ItemKind::Publisher, log, seq: doc.number, envelope };
    let items: Vec<Item> = charter.items.iter().cloned().chain([item]).collect();
    // What is written was checked like what is read: one signature may not be enough.
    let charter = Charter::from_items(&items)?;
    write_over(&options.dir.join(BUNDLE_FILE), &charter)?;
    Ok((charter, doc))
}

/// The old keys sign nothing beyond what stands, the new one all that they could.
fn replaced(
    old: &PublisherDoc,
    survivor: Option<Survivor>,
    key: stork_wire::ids::PublicKey,
    expires: UnixSeconds,
) -> Result<List<ReleaseKey, 16>, CharterError> {
    let mut names: Vec<Pattern> = Vec::new();
    let mut keys: Vec<ReleaseKey> = Vec::new();
    for before in old.release_keys.iter().filter(|k| k.key != key) {
        if before.valid_through.is_none() {
            names.extend(before.packages.iter().cloned());
        }
        let end = survivor.map(|s| s.at);
        if let Some(last) = before.valid_through.into_iter().chain(end).min() {
            keys.push(ReleaseKey { valid_through: Some(last), ..before.clone() });
        }
    }
    let mut packages: Vec<Pattern> = Vec::new();
    for name in names {
        if !packages.contains(&name) {
            packages.push(name);
        }
    }
    let packages = List::new(packages)?;
    keys.push(ReleaseKey { key, packages, not_after: expires, valid_through: None });
    keys.sort_by_key(|k| k.key);
    Ok(List::new(keys)?)
}

/// Writes a bundle in the place of the old one: the old or the new is there at every moment.
fn write_over(path: &Path, charter: &Charter) -> Result<(), CharterError> {
    let bytes = write_bundle(&charter.items)
        .map_err(|source| CharterError::Bundle { path: path.into(), source })?;
    let new = path.with_extension("bundle.new");
    let failed = |source| CharterError::Write { path: new.clone(), source };
    let mut file = fs::File::create(&new).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(|source| CharterError::Write { path: path.into(), source })
}
