//! The backend `hardlink`: a tree of hard links at the target, for hosts where nothing may be
//! mounted.
//!
//! The new tree is built beside the target and takes its place in one rename, so that every path
//! exists at every moment. Root of the VM can write into the shared inodes; therefore the VM's
//! file must say `isolation = "none"`. A record beside the target says which inode is which set.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::backend::{Seen, Show, Step};
use super::target::{is_empty, open_folder};
use super::{Ground, Isolation, ViewError, ViewSpec};
use crate::failpoint;
use crate::store::{SetForm, SetId, SetInfo, Store};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Hardlink;

impl Show for Hardlink {
    fn form(&self) -> SetForm {
        SetForm::Folder
    }
    fn mounts(&self) -> bool {
        false
    }
    fn check(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        check(spec)
    }
    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        switch(ground.store()?, spec, step.set, step.next.number)
    }
    fn shown(&self, _: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        Ok(shown(spec)?.map(Seen::of_set))
    }
    fn tidy(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        _: &BTreeSet<u64>,
    ) -> Result<(), ViewError> {
        tidy(ground.store()?, spec, false)
    }
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        hide(ground.store()?, spec)
    }
}

/// A replaced tree is removed after this time: whoever was on the way into it has arrived.
const GRACE: Duration = Duration::from_secs(2);

/// So many replaced trees may wait for the timer that removes them; a switch that finds more
/// removes old ones itself. To remove one takes as long as to build one.
const LEFT_MAX: usize = 8;

/// Which folder shows which set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Record {
    trees: Vec<(u64, SetId)>,
}

/// The names that a view uses in the folder of its target.
struct Names {
    folder: PathBuf,
    prefix: String,
    record: String,
}

fn names(spec: &ViewSpec) -> Result<Names, ViewError> {
    let parts = spec.target.parent().zip(spec.target.file_name());
    let (folder, name) = parts.ok_or_else(|| ViewError::Target {
        vm: spec.vm.clone(),
        target: spec.target.clone(),
        why: "it has no folder",
    })?;
    let name = name.to_string_lossy();
    Ok(Names {
        folder: folder.to_owned(),
        prefix: format!(".{name}.stork-new-"),
        record: format!(".{name}.stork-view"),
    })
}

fn inode(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().filter(std::fs::Metadata::is_dir).map(|m| m.ino())
}

fn read_record(names: &Names) -> Record {
    // A record that can't be read is none: the target is then not ours, and is not touched.
    let bytes = std::fs::read(names.folder.join(&names.record)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn write_record(store: &Store, names: &Names, record: &Record) -> Result<(), ViewError> {
    let bytes = serde_json::to_vec(record)
        .map_err(|e| ViewError::io("encode", names.folder.join(&names.record), e))?;
    // A name that `tidy` knows, since nobody else removes what a crash leaves in a VM's folder.
    let by = format!("{}record", names.prefix);
    Ok(store.write_file_by(&names.folder, &by, &names.record, &bytes)?)
}

/// Which set the target shows, by its inode.
pub(super) fn shown(spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
    let names = names(spec)?;
    let Some(ino) = inode(&spec.target) else { return Ok(None) };
    Ok(read_record(&names).trees.iter().find(|(i, _)| *i == ino).map(|(_, set)| *set))
}

/// Refuses where root of the VM could change what others see and nobody said that this is fine.
pub(super) fn check(spec: &ViewSpec) -> Result<(), ViewError> {
    match spec.isolation {
        Isolation::None => Ok(()),
        Isolation::Default => Err(ViewError::NotIsolated { vm: spec.vm.clone() }),
    }
}

/// Removes replaced and half-built trees, except those that a reader may still be walking into.
pub(super) fn tidy(store: &Store, spec: &ViewSpec, at_once: bool) -> Result<(), ViewError> {
    let names = names(spec)?;
    for path in left(&names) {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let changed = UNIX_EPOCH + Duration::from_secs(meta.ctime().try_into().unwrap_or(0));
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        if at_once || age > GRACE {
            store.remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Replaced and half-built trees.
fn left(names: &Names) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(&names.folder).into_iter().flatten().flatten();
    let prefix = names.prefix.clone();
    let ours = move |e: &DirEntry| e.file_name().to_string_lossy().starts_with(&prefix);
    entries.filter(ours).map(|e| e.path())
}

/// Shows a set at the target, instead of what of ours is there.
pub(super) fn switch(
    store: &Store,
    spec: &ViewSpec,
    set: &SetInfo,
    number: u64,
) -> Result<(), ViewError> {
    let names = names(spec)?;
    drop(open_folder(spec, &names.folder, true)?);
    if left(&names).nth(LEFT_MAX).is_some() {
        tidy(store, spec, false)?;
    }
    let old = inode(&spec.target);
    let old_set = shown(spec)?;
    let foreign = match (old, old_set) {
        (Some(_), None) => {
            let folder = open_folder(spec, &spec.target, false)?;
            !folder.map_or(Ok(true), |fd| is_empty(&fd, &spec.target))?
        }
        (None, _) => spec.target.symlink_metadata().is_ok(),
        (Some(_), Some(_)) => false,
    };
    if foreign {
        let why = "there is something that stork did not put there";
        return Err(ViewError::Target { vm: spec.vm.clone(), target: spec.target.clone(), why });
    }
    let tree = store.set_tree(set.id)?.ok_or(ViewError::NoSet(set.id))?;
    let new = names.folder.join(format!("{}{number}", names.prefix));
    store.remove_folder(&new)?;
    store.link_tree(&tree, &new)?;
    let ino = inode(&new).ok_or(ViewError::NoSet(set.id))?;
    let mut record = Record { trees: vec![(ino, set.id)] };
    record.trees.extend(old.zip(old_set));
    write_record(store, &names, &record)?;
    failpoint::hit("view.switch.mounted");
    let flags = if old.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, &new, CWD, &spec.target, flags)
        .map_err(|e| ViewError::io("put the new tree in place of", &spec.target, e))?;
    failpoint::hit("view.switch.before_umount");
    // A record without the old tree must not be there before the new one is.
    store.sync_folder(&names.folder)?;
    record.trees.truncate(1);
    write_record(store, &names, &record)
}

/// Removes the tree at the target, if it is ours.
pub(super) fn hide(store: &Store, spec: &ViewSpec) -> Result<(), ViewError> {
    let names = names(spec)?;
    if shown(spec)?.is_some() {
        let gone = names.folder.join(format!("{}gone", names.prefix));
        store.remove_folder(&gone)?;
        renameat_with(CWD, &spec.target, CWD, &gone, RenameFlags::NOREPLACE)
            .map_err(|e| ViewError::io("remove", &spec.target, e))?;
        write_record(store, &names, &Record::default())?;
    }
    tidy(store, spec, true)?;
    let record = names.folder.join(&names.record);
    match std::fs::remove_file(&record) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(ViewError::io("remove", record, e))
        }
        _ => Ok(()),
    }
}
