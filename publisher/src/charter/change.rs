//! One way for every change of a charter: the next documents are made, signed by the keys at hand,
//! and then either stand in the bundle or wait in a pending file for the signatures that lack.
//!
//! A bundle takes all documents of a change or none, and what is written was checked like what is
//! read.

use std::fs;
use std::path::{Path, PathBuf};

use stork_wire::charter::{GroupDoc, PublisherDoc, RootDoc, UnixSeconds};
use stork_wire::ids::{FleetId, PublicKey};
use stork_wire::item::{Item, ItemKind};

use super::files::{read_bounded, save_bundle, write_new, write_over};
use super::ledger::{Doc, Ledger, Step};
use super::pending::{PENDING_LEN_MAX, Pending};
use super::profile::BUNDLE_FILE;
use super::{Charter, CharterError, PendingError, describe, read_file};
use crate::keys::{Passphrase, Signer, fingerprint, read_public};

const DAY_S: u64 = 86_400;
/// Where pending files are written inside of the directory.
const PENDING_DIR: &str = "pending";
/// Keys in the directory that sign without being named.
const USUAL_KEYS: [&str; 3] = ["root", "authority", "publisher"];

/// How a change is made.
#[derive(Debug, Clone)]
pub struct Change {
    /// The directory with the bundle.
    pub dir: PathBuf,
    /// Keys that sign, as `Signer::open` takes them. If none is named: those of `keys/root`,
    /// `keys/authority` and `keys/publisher` that may.
    pub keys: Vec<String>,
    /// How to open them.
    pub passphrase: Passphrase,
    /// The pending file; by default `pending/NAME.req` in the directory.
    pub out: Option<PathBuf>,
    /// Only say what would be changed.
    pub dry_run: bool,
    /// How long the new documents hold.
    pub life: Life,
}

/// First and last second of a new document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it is made.
    pub issued: UnixSeconds,
    /// When it must have been renewed.
    pub expires: UnixSeconds,
}

impl Life {
    /// From now on, for so many days.
    #[must_use]
    pub fn days(now: UnixSeconds, days: u32) -> Self {
        Self { issued: now, expires: now + u64::from(days.max(1)) * DAY_S }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bundle holds it.
    Made,
    /// Signatures lack; it waits in this file.
    Pending(PathBuf),
    /// The charter says so already.
    AlreadySo,
    /// Nothing was written.
    DryRun,
}

/// A change, and what became of it.
#[derive(Debug)]
pub struct Changed {
    /// What became of it.
    pub outcome: Outcome,
    /// Its documents against those before them.
    pub steps: Vec<Step>,
}

impl Changed {
    pub(super) const fn nothing() -> Self {
        Self { outcome: Outcome::AlreadySo, steps: Vec::new() }
    }

    /// The signatures that lack, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.steps.iter().flat_map(Step::missing).collect()
    }
}

/// The steps of these documents on top of a charter, or of nothing.
fn steps(
    charter: Option<&Charter>,
    fleet: FleetId,
    items: &[Item],
) -> Result<Vec<Step>, CharterError> {
    let mut ledger = charter.map_or_else(|| Ok(Ledger::empty(fleet)), Ledger::of)?;
    items.iter().map(|item| ledger.step(item)).collect()
}

/// May this key sign any of these?
fn wanted(steps: &[Step], key: &PublicKey) -> bool {
    let mut needs = steps.iter().flat_map(|s| &s.needs);
    needs.any(|n| n.role.keys.contains(key))
}

impl Change {
    /// Opens the keys that are named, or the usual ones that may sign.
    fn signers(&self, steps: &[Step]) -> Result<Vec<Signer>, CharterError> {
        let mut signers = Vec::new();
        for spec in &self.keys {
            let signer = Signer::open(spec, &self.passphrase)?;
            if !wanted(steps, &signer.public()) {
                return Err(CharterError::NotASigner(fingerprint(&signer.public())));
            }
            signers.push(signer);
        }
        let usual = if self.keys.is_empty() { USUAL_KEYS.as_slice() } else { &[] };
        for name in usual {
            let path = self.dir.join("keys").join(name);
            // A machine without this key is the usual case.
            if fs::symlink_metadata(&path).is_err() || !wanted(steps, &read_public(&path)?.0) {
                continue;
            }
            signers.push(Signer::open(&path.to_string_lossy(), &self.passphrase)?);
        }
        Ok(signers)
    }

    /// Makes documents the next ones of their logs. `name` is that of the pending file.
    pub(super) fn make(
        &self,
        charter: &Charter,
        docs: &[Doc],
        name: &str,
    ) -> Result<Changed, CharterError> {
        let items = items(charter, docs)?;
        let (mut steps, signers) = self.prepared(Some(charter), charter.fleet, &items)?;
        if self.dry_run {
            return Ok(Changed { outcome: Outcome::DryRun, steps });
        }
        steps = signed(Some(charter), charter.fleet, steps, &signers)?;
        self.settle(Some(charter), charter.fleet, steps, name)
    }

    /// The first documents of a fleet that are signed in part.
    pub(super) fn found(&self, fleet: FleetId, items: &[Item]) -> Result<Changed, CharterError> {
        self.settle(None, fleet, steps(None, fleet, items)?, "founding")
    }

    fn prepared(
        &self,
        charter: Option<&Charter>,
        fleet: FleetId,
        items: &[Item],
    ) -> Result<(Vec<Step>, Vec<Signer>), CharterError> {
        let steps = steps(charter, fleet, items)?;
        let signers = if self.dry_run { Vec::new() } else { self.signers(&steps)? };
        Ok((steps, signers))
    }

    fn settle(
        &self,
        charter: Option<&Charter>,
        fleet: FleetId,
        steps: Vec<Step>,
        name: &str,
    ) -> Result<Changed, CharterError> {
        if steps.iter().all(|s| s.missing().is_empty()) {
            add(&self.dir, charter, &steps)?;
            return Ok(Changed { outcome: Outcome::Made, steps });
        }
        let path = match &self.out {
            Some(path) => path.clone(),
            None => {
                let dir = self.dir.join(PENDING_DIR);
                let made = fs::create_dir_all(&dir);
                made.map_err(|source| CharterError::Write { path: dir.clone(), source })?;
                dir.join(format!("{}.req", name.replace('/', ".")))
            }
        };
        write_new(&path, text(&path, fleet, &steps)?.as_bytes())?;
        Ok(Changed { outcome: Outcome::Pending(path), steps })
    }
}

/// Documents as items of their logs.
fn items(charter: &Charter, docs: &[Doc]) -> Result<Vec<Item>, CharterError> {
    docs.iter()
        .map(|doc| {
            let prev = match doc {
                Doc::Root(d) => d.prev,
                Doc::Group(d) => d.prev,
                Doc::Publisher(d) => d.prev,
            };
            let log = charter.items.iter().find(|i| Some(i.envelope.hash()) == prev);
            doc.item(charter.fleet, log.map(|i| i.log))
        })
        .collect()
}

/// Adds the signatures of these keys wherever they count.
fn signed(
    charter: Option<&Charter>,
    fleet: FleetId,
    steps_before: Vec<Step>,
    signers: &[Signer],
) -> Result<Vec<Step>, CharterError> {
    let mut items = Vec::new();
    for step in steps_before {
        let mut item = step.item;
        for signer in signers {
            let key = signer.public();
            let asked =
                step.needs.iter().any(|n| n.role.keys.contains(&key) && !n.signed.contains(&key));
            if asked {
                let envelope = &mut item.envelope;
                match item.kind {
                    ItemKind::Root => signer.add_to::<RootDoc>(envelope, fleet)?,
                    ItemKind::Group => signer.add_to::<GroupDoc>(envelope, fleet)?,
                    _ => signer.add_to::<PublisherDoc>(envelope, fleet)?,
                }
            }
        }
        items.push(item);
    }
    steps(charter, fleet, &items)
}

fn text(path: &Path, fleet: FleetId, steps: &[Step]) -> Result<String, CharterError> {
    let pending = Pending { fleet, items: steps.iter().map(|s| s.item.clone()).collect() };
    let mut comments: Vec<String> = steps.iter().flat_map(describe).collect();
    comments.push("Look at it and sign it by: stork-publish charter sign FILE --key KEY".into());
    pending.text(&comments).map_err(|source| CharterError::Pending { path: path.into(), source })
}

/// Writes complete documents into the bundle.
fn add(dir: &Path, charter: Option<&Charter>, steps: &[Step]) -> Result<(), CharterError> {
    let old = charter.map(|c| c.items.clone()).unwrap_or_default();
    let new = steps.iter().filter(|s| !s.known).map(|s| s.item.clone());
    let items: Vec<Item> = old.into_iter().chain(new).collect();
    save_bundle(&dir.join(BUNDLE_FILE), &Charter::from_items(&items)?)
}

/// A pending file and the charter that it is to be added to: none before the fleet is founded.
fn opened(dir: &Path, file: &Path) -> Result<(Option<Charter>, Pending, Vec<Step>), CharterError> {
    let failed = |source: PendingError| CharterError::Pending { path: file.into(), source };
    let bytes = read_bounded(file, PENDING_LEN_MAX as u64)?;
    let pending = Pending::parse(&bytes).map_err(failed)?;
    let founding = pending.items.first().is_some_and(|i| i.kind == ItemKind::Root && i.seq == 1);
    let bundle = dir.join(BUNDLE_FILE);
    let charter = match fs::symlink_metadata(&bundle) {
        Err(_) if founding => None,
        _ => Some(read_file(dir)?),
    };
    if let Some(ours) = charter.as_ref().map(|c| c.fleet).filter(|f| *f != pending.fleet) {
        let (theirs, ours) = (pending.fleet.short(), ours.short());
        return Err(CharterError::OtherFleet { path: file.into(), theirs, ours });
    }
    let steps = steps(charter.as_ref(), pending.fleet, &pending.items)?;
    Ok((charter, pending, steps))
}

/// Signs a pending file, in its place. `consent` is shown what it changes, and asked.
pub fn sign(
    change: &Change,
    file: &Path,
    consent: impl FnOnce(&[Step]) -> Result<bool, CharterError>,
) -> Result<Changed, CharterError> {
    let (charter, pending, before) = opened(&change.dir, file)?;
    if !consent(&before)? || change.dry_run {
        return Ok(Changed { outcome: Outcome::DryRun, steps: before });
    }
    if before.iter().all(|s| s.known) {
        return Ok(Changed { outcome: Outcome::AlreadySo, steps: before });
    }
    let signers = change.signers(&before)?;
    if signers.is_empty() {
        return Err(CharterError::Usage("no key is named, and none lies in the directory".into()));
    }
    let count =
        |steps: &[Step]| -> usize { steps.iter().map(|s| s.item.envelope.signatures.len()).sum() };
    let had = count(&before);
    let steps = signed(charter.as_ref(), pending.fleet, before, &signers)?;
    let path = change.out.clone().unwrap_or_else(|| file.into());
    if count(&steps) == had {
        return Ok(Changed { outcome: Outcome::AlreadySo, steps });
    }
    write_over(&path, text(&path, pending.fleet, &steps)?.as_bytes())?;
    Ok(Changed { outcome: Outcome::Pending(path), steps })
}

/// Adds a pending file to the bundle of a directory, once it has all signatures.
pub fn import(dir: &Path, file: &Path, dry_run: bool) -> Result<Changed, CharterError> {
    let (charter, _, steps) = opened(dir, file)?;
    let changed = Changed { outcome: Outcome::Made, steps };
    if changed.steps.iter().all(|s| s.known) {
        return Ok(Changed { outcome: Outcome::AlreadySo, ..changed });
    }
    let missing = changed.missing();
    if !missing.is_empty() {
        return Err(CharterError::Unsigned(missing));
    }
    if dry_run {
        return Ok(Changed { outcome: Outcome::DryRun, ..changed });
    }
    add(dir, charter.as_ref(), &changed.steps)?;
    Ok(changed)
}
