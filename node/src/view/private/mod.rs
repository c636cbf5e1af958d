//! What a VM changed in a view that it may write: one upper layer for each generation.
//!
//! Two live overlays must never share an upper layer, and a layer belongs to what lies beneath it:
//! so each generation has a layer of its own, made from that of the generation before (or of the
//! one that a rollback shows again) before anybody sees it. Old layers stay with their generation.
//!
//! ```text
//! vms/<vm>/upper-<generation>     what the VM changed: a layer that is there is whole
//! vms/<vm>/work-<generation>      the kernel's
//! vms/<vm>/carried-<generation>   what was carried along, and what was set aside
//! vms/<vm>/aside/<generation>/    what was set aside when this generation came
//! ```
//!
//! There are no folders around these: each one costs a block of the disk for every VM.

mod carry;
mod copy;
mod judge;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, fstat, fsync};
use rustix::fs::{mkdirat, openat, renameat_with, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stork_wire::manifest::Tree;

pub use judge::Hides;

use self::carry::{Carry, CarryError, changed_since};
use self::judge::Judge;
use super::backend::Step;
use super::target::open_folder;
use super::{ViewError, ViewSpec};
use crate::failpoint;
use crate::store::{SetId, SetInfo, Store};

/// Paths of each kind that a record lists; how many there were is counted beyond.
pub(super) const LIST_MAX: usize = 200;
/// Folders of what was set aside that are kept, the newest.
const ASIDE_KEPT: usize = 10;
/// How often a layer is copied anew because the VM changed it meanwhile.
const TRIES: usize = 3;
/// A layer that is being made.
const NEW: &str = ".new-";
const UPPER: &str = "upper-";
const WORK: &str = "work-";
const RECORD: &str = "carried-";

/// A private change that was set aside, because it would hide what the new set brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadowed {
    /// Its path in the view.
    pub path: String,
    /// What it would hide, and how.
    pub hides: Hides,
}

/// What became of a VM's private changes when a generation came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Carried {
    /// The generation whose changes were carried along; none for a first one.
    pub from: Option<u64>,
    /// Files and folders that were looked at.
    pub entries: u64,
    /// Bytes that were copied; those that the file system shares are not counted.
    pub bytes: u64,
    /// What was set aside, the first of it.
    pub shadowed: Vec<Shadowed>,
    /// How many were set aside.
    pub shadowed_count: u64,
    /// Where they are now.
    pub aside: Option<PathBuf>,
    /// Configuration files of the VM that stay before those of the new set, the first of them.
    pub conffiles: Vec<String>,
    /// What the VM changed in the moment of the switch, the first of it: these changes stayed in
    /// the earlier generation.
    pub late: Vec<String>,
    /// When the copying began, by the file system's clock: seconds and nanoseconds.
    pub copied_at: (i64, u64),
}

/// The folder of a VM's layers.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    store: &'a Store,
    spec: &'a ViewSpec,
    base: PathBuf,
}

/// A layer that is on disk, whole.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

fn fail(what: &'static str, path: &Path) -> impl Fn(Errno) -> ViewError {
    move |e| ViewError::io(what, path, e)
}

fn dir(path: &Path) -> Result<OwnedFd, ViewError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(fail("open", path))
}

fn make(path: &Path) -> Result<OwnedFd, ViewError> {
    mkdirat(CWD, path, Mode::RWXU).map_err(fail("make the folder", path))?;
    dir(path)
}

impl<'a> Layers<'a> {
    /// The folder, made where it is missing: in the store, or where the VM's file says.
    pub(super) fn of(store: &'a Store, spec: &'a ViewSpec) -> Result<Self, ViewError> {
        let vm = store.vm_dir(&spec.vm)?;
        let base = match &spec.options.upper {
            None => vm,
            Some(folder) => {
                check_folder(spec, folder)?;
                folder.join(spec.vm.as_str().replace('/', "%2F"))
            }
        };
        match mkdirat(CWD, &base, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(Self { store, spec, base }),
            Err(e) => Err(ViewError::io("make the folder", base, e)),
        }
    }

    fn part(&self, kind: &str, number: u64) -> PathBuf {
        self.base.join(format!("{kind}{number}"))
    }

    fn upper(&self, number: u64) -> PathBuf {
        self.part(UPPER, number)
    }

    /// What stands in the record of a generation's layer.
    pub(super) fn record(&self, number: u64) -> Option<Carried> {
        let bytes = std::fs::read(self.part(RECORD, number)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn write_record(&self, number: u64, record: &Carried) -> Result<(), ViewError> {
        let bytes = serde_json::to_vec(record)
            .map_err(|e| ViewError::io("encode the record of", self.upper(number), e))?;
        Ok(self.store.write_file(&self.base, &format!("{RECORD}{number}"), &bytes)?)
    }

    /// The layer of a generation that is about to be shown, made where it is missing. Durable.
    pub(super) fn prepare(&self, step: Step<'_>) -> Result<Layer, ViewError> {
        let number = step.next.number;
        let layer = Layer { upper: self.upper(number), work: self.part(WORK, number) };
        if layer.upper.is_dir() {
            return Ok(layer);
        }
        let new = self.part(NEW, number);
        let source = step.next.from.filter(|n| self.upper(*n).is_dir());
        for attempt in 1..=TRIES {
            for old in [&new, &layer.work, &self.part(RECORD, number), &self.aside(number)] {
                self.store.remove_folder(old)?;
            }
            drop(make(&layer.work)?);
            let upper = make(&new)?;
            let Some(source) = source else {
                self.dress_top(&upper)?;
                break;
            };
            let begun = fstat(&upper).map_err(fail("look at", &new))?;
            let begun = (begun.st_ctime, begun.st_ctime_nsec);
            let mut record = self.carry(step, source, upper)?;
            record.copied_at = begun;
            self.write_record(number, &record)?;
            let changed = self.changed(source, begun)?;
            if changed.is_empty() || attempt == TRIES {
                break;
            }
        }
        let base = dir(&self.base)?;
        syncfs(&base).map_err(fail("make durable", &new))?;
        renameat_with(CWD, &new, CWD, &layer.upper, RenameFlags::NOREPLACE)
            .map_err(fail("name the layer", &layer.upper))?;
        fsync(&base).map_err(fail("make durable", &layer.upper))?;
        failpoint::hit("view.private.made");
        Ok(layer)
    }

    /// A first layer's top looks like that of every set, to the guest.
    fn dress_top(&self, upper: &OwnedFd) -> Result<(), ViewError> {
        let map = self.spec.options.idmap;
        let uid = map.and_then(|m| m.uid_of(0)).unwrap_or(0);
        let gid = map.and_then(|m| m.gid_of(0)).unwrap_or(0);
        fchown(upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| fchmod(upper, Mode::from_raw_mode(0o755)))
            .map_err(fail("give an owner to", &self.base))
    }

    fn aside(&self, number: u64) -> PathBuf {
        self.base.join("aside").join(number.to_string())
    }

    fn carry(&self, step: Step<'_>, from: u64, upper: OwnedFd) -> Result<Carried, ViewError> {
        let old = step.from.map(|g| g.set).filter(|set| *set != step.set.id);
        let (store, new_tree) = (self.store, self.tree(step.set.id)?);
        let old_tree = old.map(|set| self.tree(set)).transpose()?;
        let old_tree = old_tree.as_ref().unwrap_or(&new_tree);
        let mut conffiles: BTreeSet<String> = self.spec.options.keep.iter().cloned().collect();
        conffiles.extend(conffiles_of(store, step.set)?);
        if let Some(old) = old.map(|set| store.set_info(set)).transpose()?.flatten() {
            conffiles.extend(conffiles_of(store, &old)?);
        }
        let judge = Judge::new(old_tree, &new_tree, conffiles);
        let aside = self.aside(step.next.number);
        match mkdirat(CWD, self.base.join("aside"), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(ViewError::io("make the folder", aside, e)),
        }
        let into = (upper, make(&aside)?);
        let source = dir(&self.upper(from))?;
        let (map, bytes_max) = (self.spec.options.idmap, self.spec.options.upper_bytes_max);
        let mut record = Carry::run(&judge, map, bytes_max, source, into)
            .map_err(|e| self.explain(&aside, from, e))?;
        record.from = Some(from);
        if record.shadowed_count > 0 {
            record.aside = Some(aside);
        } else {
            self.store.remove_folder(&aside)?;
        }
        Ok(record)
    }

    fn explain(&self, aside: &Path, from: u64, e: CarryError) -> ViewError {
        if let Err(e) = self.store.remove_folder(aside) {
            tracing::warn!("what was half set aside stays: {e}");
        }
        match e {
            CarryError::Bound(what, max) => {
                ViewError::PrivateTooLarge { vm: self.spec.vm.clone(), what, max }
            }
            CarryError::Io(what, path, source) => {
                ViewError::io(what, self.upper(from).join(path), source)
            }
        }
    }

    fn tree(&self, set: SetId) -> Result<Tree, ViewError> {
        self.store.set_tree(set)?.ok_or(ViewError::NoSet(set))
    }

    fn changed(&self, number: u64, since: (i64, u64)) -> Result<Vec<String>, ViewError> {
        let upper = self.upper(number);
        changed_since(&dir(&upper)?, since).map_err(fail("look for changes in", &upper))
    }

    /// After a switch: notes what the VM changed in the earlier layer since that was copied.
    pub(super) fn note_late(&self, number: u64) -> Result<(), ViewError> {
        let Some(mut record) = self.record(number) else { return Ok(()) };
        let Some(from) = record.from else { return Ok(()) };
        record.late = self.changed(from, record.copied_at)?;
        if record.late.is_empty() {
            return Ok(());
        }
        self.write_record(number, &record)
    }

    /// Removes the layer of a generation that is dropped.
    pub(super) fn remove(&self, number: u64) -> Result<(), ViewError> {
        for kind in [UPPER, WORK, RECORD] {
            self.store.remove_folder(&self.part(kind, number))?;
        }
        Ok(())
    }

    /// Removes half-made layers, those of generations that are gone, and what was set aside long
    /// ago.
    pub(super) fn tidy(&self, kept: &BTreeSet<u64>) -> Result<(), ViewError> {
        let list = |path: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        for name in list(&self.base) {
            let number = [UPPER, WORK, RECORD].iter().find_map(|kind| name.strip_prefix(kind));
            let number = number.and_then(|n| n.parse::<u64>().ok());
            if number.is_some_and(|n| !kept.contains(&n)) || name.starts_with(NEW) {
                self.store.remove_folder(&self.base.join(name))?;
            }
        }
        let aside = self.base.join("aside");
        let mut numbers: Vec<u64> = list(&aside).iter().filter_map(|n| n.parse().ok()).collect();
        numbers.sort_unstable();
        let spare = numbers.len().saturating_sub(ASIDE_KEPT);
        for number in numbers.into_iter().take(spare) {
            self.store.remove_folder(&self.aside(number))?;
        }
        Ok(())
    }
}

/// A folder for layers that the operator names: whoever could write into it could change what a
/// VM sees.
fn check_folder(spec: &ViewSpec, folder: &Path) -> Result<(), ViewError> {
    let refuse = |why| ViewError::Target { vm: spec.vm.clone(), target: folder.to_owned(), why };
    let fd = open_folder(spec, folder, false)?
        .ok_or_else(|| refuse("the folder that `upper` names is not there"))?;
    let stat = fstat(&fd).map_err(fail("look at", folder))?;
    let others = stat.st_mode & 0o022 != 0 || stat.st_uid != rustix::process::geteuid().as_raw();
    if others {
        return Err(refuse("others than stork-node may write to the folder that `upper` names"));
    }
    Ok(())
}

/// The configuration files that the packages of a set name (`conffiles` of a Debian package), as
/// paths of the view.
fn conffiles_of(store: &Store, set: &SetInfo) -> Result<Vec<String>, ViewError> {
    let mut out = Vec::new();
    for (_, manifest, _) in &set.members {
        let Some(manifest) = store.manifest_decoded(*manifest)? else { continue };
        let files = manifest.source.control_files.iter();
        for file in files.filter(|f| f.name.as_str() == "conffiles") {
            let lines = String::from_utf8_lossy(&file.bytes).into_owned();
            // A line may begin with a flag, such as `remove-on-upgrade`.
            let paths = lines.lines().filter_map(|l| l.split_whitespace().next_back());
            out.extend(paths.filter_map(|p| p.strip_prefix('/')).map(str::to_owned));
        }
    }
    Ok(out)
}
