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
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, fstat, fsync};
use rustix::fs::{mkdirat, openat, renameat_with, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stork_wire::ids::ManifestId;

pub use judge::Hides;

use self::carry::{Carry, CarryError, changed_since};
use self::judge::Judge;
use super::backend::Step;
use super::ground::link;
use super::target::open_folder;
use super::{Ground, ViewError, ViewSpec};
use crate::failpoint;
use crate::store::remove_in;

/// Paths of each kind that a record lists; how many there were is counted beyond.
pub(super) const LIST_MAX: usize = 200;
/// Folders of what was set aside that are kept, the newest.
const ASIDE_KEPT: usize = 10;
/// How often a layer is copied anew because the VM changed it meanwhile.
const TRIES: usize = 3;
/// A layer that is being made, and a record.
const NEW: &str = ".new-";
const NEW_RECORD: &str = ".new-carried-";
const UPPER: &str = "upper-";
const WORK: &str = "work-";
const RECORD: &str = "carried-";
/// The folder of what was set aside.
const ASIDE: &str = "aside";

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

/// The folder of a VM's layers, open. All steps are by names in it that follow no link: the folder
/// may be in the state folder of a daemon that was taken over.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    ground: &'a Ground<'a>,
    spec: &'a ViewSpec,
    base: OwnedFd,
    /// Its path, for people.
    path: PathBuf,
}

/// A layer that is on disk, whole; its folders are open.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) upper: OwnedFd,
    pub(super) work: OwnedFd,
    /// Its path, for people.
    pub(super) path: PathBuf,
}

/// Bytes of a record: three lists of paths.
const RECORD_LEN_MAX: u64 = 8 << 20;

fn fail(what: &'static str, path: &Path) -> impl Fn(Errno) -> ViewError {
    move |e| ViewError::io(what, path, e)
}

/// Opens a folder by its name in another one.
fn sub(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Makes one.
fn make(parent: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, ViewError> {
    mkdirat(parent, name, Mode::RWXU).map_err(fail("make the folder", path))?;
    sub(parent, name).map_err(fail("open", path))
}

/// Opens one, and makes it where it is missing.
fn ensure(parent: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, ViewError> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => sub(parent, name).map_err(fail("open", path)),
        Err(e) => Err(ViewError::io("make the folder", path, e)),
    }
}

fn named(kind: &str, number: u64) -> String {
    format!("{kind}{number}")
}

impl<'a> Layers<'a> {
    /// The folder, made where it is missing: in the store, or where the VM's file says.
    pub(super) fn of(ground: &'a Ground<'a>, spec: &'a ViewSpec) -> Result<Self, ViewError> {
        let (base, path) = match &spec.options.upper {
            None => (ground.vm_folder(&spec.vm)?, ground.vm_path(&spec.vm)),
            Some(folder) => {
                let name = spec.vm.as_str().replace('/', "%2F");
                let path = folder.join(&name);
                (ensure(&open_upper(spec, folder)?, &name, &path)?, path)
            }
        };
        Ok(Self { ground, spec, base, path })
    }

    fn upper(&self, number: u64) -> PathBuf {
        self.path.join(named(UPPER, number))
    }

    /// The layer of a generation, where it is on disk.
    fn layer(&self, number: u64) -> Result<Option<Layer>, ViewError> {
        let path = self.upper(number);
        let opened = sub(&self.base, &named(UPPER, number))
            .and_then(|upper| Ok((upper, sub(&self.base, &named(WORK, number))?)));
        match opened {
            Ok((upper, work)) => Ok(Some(Layer { upper, work, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(ViewError::io("open the layer", path, e)),
        }
    }

    fn remove_named(&self, name: &str) -> Result<(), ViewError> {
        let failed = |e| ViewError::io("remove", self.path.join(name), e);
        remove_in(&self.base, name).map_err(failed)
    }

    /// What stands in the record of a generation's layer.
    pub(super) fn record(&self, number: u64) -> Option<Carried> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.base, named(RECORD, number), flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(RECORD_LEN_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it, durably: after a crash the old or the new one is there.
    fn write_record(&self, number: u64, record: &Carried) -> Result<(), ViewError> {
        let (name, new) = (named(RECORD, number), named(NEW_RECORD, number));
        let fail = |what, e: io::Error| ViewError::io(what, self.path.join(&name), e);
        let bytes = serde_json::to_vec(record).map_err(|e| fail("encode", e.into()))?;
        self.remove_named(&new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.base, &new, flags, mode).map_err(|e| fail("make", e.into()))?;
        let mut file = File::from(file);
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|e| fail("write", e))?;
        renameat_with(&self.base, &new, &self.base, &name, RenameFlags::empty())
            .and_then(|()| fsync(&self.base))
            .map_err(|e| fail("name", e.into()))
    }

    /// The layer of a generation that is about to be shown, made where it is missing. Durable.
    pub(super) fn prepare(&self, step: Step<'_>) -> Result<Layer, ViewError> {
        let number = step.next.number;
        if let Some(layer) = self.layer(number)? {
            return Ok(layer);
        }
        let (new, work, path) = (named(NEW, number), named(WORK, number), self.upper(number));
        let source = match step.next.from {
            Some(from) => self.layer(from)?.map(|layer| (from, layer)),
            None => None,
        };
        for attempt in 1..=TRIES {
            for old in [&new, &work, &named(RECORD, number)] {
                self.remove_named(old)?;
            }
            self.remove_aside(number)?;
            drop(make(&self.base, &work, &path)?);
            let upper = make(&self.base, &new, &path)?;
            let Some((from, source)) = &source else {
                self.dress_top(&upper)?;
                break;
            };
            let begun = fstat(&upper).map_err(fail("look at", &path))?;
            let begun = (begun.st_ctime, begun.st_ctime_nsec);
            let mut record = self.carry(step, (*from, source), upper)?;
            record.copied_at = begun;
            self.write_record(number, &record)?;
            let changed = Self::changed(source, begun)?;
            if changed.is_empty() || attempt == TRIES {
                break;
            }
        }
        syncfs(&self.base).map_err(fail("make durable", &path))?;
        let last = named(UPPER, number);
        renameat_with(&self.base, &new, &self.base, &last, RenameFlags::NOREPLACE)
            .map_err(fail("name the layer", &path))?;
        fsync(&self.base).map_err(fail("make durable", &path))?;
        failpoint::hit("view.private.made");
        self.layer(number)?.ok_or_else(|| ViewError::io("open the layer", path, Errno::NOENT))
    }

    /// A first layer's top looks like that of every set, to the guest.
    fn dress_top(&self, upper: &OwnedFd) -> Result<(), ViewError> {
        let map = self.spec.options.idmap;
        let uid = map.and_then(|m| m.uid_of(0)).unwrap_or(0);
        let gid = map.and_then(|m| m.gid_of(0)).unwrap_or(0);
        fchown(upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| fchmod(upper, Mode::from_raw_mode(0o755)))
            .map_err(fail("give an owner to", &self.path))
    }

    fn aside_path(&self) -> PathBuf {
        self.path.join(ASIDE)
    }

    /// What was set aside for a generation, or half of it.
    fn remove_aside(&self, number: u64) -> Result<(), ViewError> {
        let failed = |e| ViewError::io("remove from", self.aside_path(), e);
        match sub(&self.base, ASIDE) {
            Ok(all) => remove_in(&all, &number.to_string()).map_err(failed),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(e.into())),
        }
    }

    fn carry(
        &self,
        step: Step<'_>,
        (from, source): (u64, &Layer),
        upper: OwnedFd,
    ) -> Result<Carried, ViewError> {
        let old = step.from.map(|g| g.set).filter(|set| *set != step.set.id);
        let new_tree = self.ground.set_tree(step.set.id)?;
        let old_tree = old.map(|set| self.ground.set_tree(set)).transpose()?;
        let old_tree = old_tree.as_ref().unwrap_or(&new_tree);
        let mut conffiles: BTreeSet<String> = self.spec.options.keep.iter().cloned().collect();
        conffiles.extend(conffiles_of(self.ground, step.manifests)?);
        let judge = Judge::new(old_tree, &new_tree, conffiles);
        let number = step.next.number;
        let path = self.aside_path().join(number.to_string());
        let all = ensure(&self.base, ASIDE, &path)?;
        let into = (upper, make(&all, &number.to_string(), &path)?);
        let from_upper = source.upper.try_clone();
        let from_upper = from_upper.map_err(|e| ViewError::io("open", &source.path, e))?;
        let (map, bytes_max) = (self.spec.options.idmap, self.spec.options.upper_bytes_max);
        let mut record = Carry::run(&judge, map, bytes_max, from_upper, into)
            .map_err(|e| self.explain(number, &source.path, e))?;
        record.from = Some(from);
        if record.shadowed_count > 0 {
            record.aside = Some(path);
        } else {
            self.remove_aside(number)?;
        }
        Ok(record)
    }

    fn explain(&self, number: u64, upper: &Path, e: CarryError) -> ViewError {
        if let Err(e) = self.remove_aside(number) {
            tracing::warn!("what was half set aside stays: {e}");
        }
        match e {
            CarryError::Bound(what, max) => {
                ViewError::PrivateTooLarge { vm: self.spec.vm.clone(), what, max }
            }
            CarryError::Io(what, path, source) => ViewError::io(what, upper.join(path), source),
        }
    }

    fn changed(layer: &Layer, since: (i64, u64)) -> Result<Vec<String>, ViewError> {
        changed_since(&layer.upper, since).map_err(fail("look for changes in", &layer.path))
    }

    /// After a switch: notes what the VM changed in the earlier layer since that was copied.
    pub(super) fn note_late(&self, number: u64) -> Result<(), ViewError> {
        let Some(mut record) = self.record(number) else { return Ok(()) };
        let Some(from) = record.from else { return Ok(()) };
        let Some(source) = self.layer(from)? else { return Ok(()) };
        record.late = Self::changed(&source, record.copied_at)?;
        if record.late.is_empty() {
            return Ok(());
        }
        self.write_record(number, &record)
    }

    /// Removes the layer of a generation that is dropped.
    pub(super) fn remove(&self, number: u64) -> Result<(), ViewError> {
        [UPPER, WORK, RECORD].iter().try_for_each(|kind| self.remove_named(&named(kind, number)))
    }

    /// Removes half-made layers, those of generations that are gone, and what was set aside long
    /// ago.
    pub(super) fn tidy(&self, kept: &BTreeSet<u64>) -> Result<(), ViewError> {
        let list = |folder: &OwnedFd| -> Vec<String> {
            let entries = std::fs::read_dir(link(folder)).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        for name in list(&self.base) {
            let number = [UPPER, WORK, RECORD].iter().find_map(|kind| name.strip_prefix(kind));
            let number = number.and_then(|n| n.parse::<u64>().ok());
            if number.is_some_and(|n| !kept.contains(&n)) || name.starts_with(NEW) {
                self.remove_named(&name)?;
            }
        }
        let Ok(aside) = sub(&self.base, ASIDE) else { return Ok(()) };
        let mut numbers: Vec<u64> = list(&aside).iter().filter_map(|n| n.parse().ok()).collect();
        numbers.sort_unstable();
        let spare = numbers.len().saturating_sub(ASIDE_KEPT);
        numbers.into_iter().take(spare).try_for_each(|number| self.remove_aside(number))
    }
}

/// Opens a folder for layers that the operator names: whoever could write into it could change what
/// a VM sees.
fn open_upper(spec: &ViewSpec, folder: &Path) -> Result<OwnedFd, ViewError> {
    let refuse = |why| ViewError::Target { vm: spec.vm.clone(), target: folder.to_owned(), why };
    let fd = open_folder(spec, folder, false)?
        .ok_or_else(|| refuse("the folder that `upper` names is not there"))?;
    let stat = fstat(&fd).map_err(fail("look at", folder))?;
    let others = stat.st_mode & 0o022 != 0 || stat.st_uid != rustix::process::geteuid().as_raw();
    if others {
        return Err(refuse("others than stork-node may write to the folder that `upper` names"));
    }
    Ok(fd)
}

/// The configuration files that packages name (`conffiles` of a Debian package), as paths of the
/// view.
fn conffiles_of(ground: &Ground<'_>, manifests: &[ManifestId]) -> Result<Vec<String>, ViewError> {
    let mut out = Vec::new();
    for id in manifests {
        let Some(manifest) = ground.manifest(*id)? else { continue };
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
