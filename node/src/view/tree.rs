//! The backend `tree`: the set's folder, mounted read-only at the target.
//!
//! The mount is made apart from every namespace, gets its attributes there, and is then attached:
//! nobody ever sees it writable. A switch attaches the new mount *beneath* the old one and then
//! takes the old one away, so that there is no moment without a view, and mount propagation
//! carries both steps to guests in slave namespaces. Files that are open stay readable through
//! the old mount.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::backend::{Seen, Show, Step};
use super::mounts::{self, Home, Layer};
use super::target::{is_empty, open_folder, refuse};
use super::{Generation, Ground, ViewError, ViewSpec, idmap, sys};
use crate::failpoint;
use crate::store::{SetForm, SetId, SetInfo};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Tree {
    /// What the set is: any form that is a folder.
    pub(super) form: SetForm,
}

impl Show for Tree {
    fn form(&self) -> SetForm {
        self.form
    }
    fn mounts(&self) -> bool {
        true
    }
    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        switch(ground, spec, step.set)
    }
    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        Ok(shown(ground, spec)?.map(Seen::of_set))
    }
    fn mend(&self, ground: &Ground<'_>, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        uncover_to(ground, spec, Some(&|layer| layer.tag.is_none() && layer.set == Some(to.set)))
    }
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(ground, spec, None)
    }
}

/// What is mounted at the target, the topmost first.
pub(super) fn layers(ground: &Ground<'_>, target: &Path) -> Result<Vec<Layer>, ViewError> {
    let mounts = mounts::here().map_err(|e| ViewError::io("read the mounts of", target, e))?;
    let home = Home::of(ground.dir(), &mounts);
    Ok(home.map_or_else(Vec::new, |h| h.layers(&mounts, target)))
}

/// Which set the target shows; the kernel says so, not our records.
pub(super) fn shown(ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
    let top = layers(ground, &spec.target)?.into_iter().next();
    Ok(top.filter(|layer| layer.tag.is_none()).and_then(|layer| layer.set))
}

/// A mount of what is open, attached nowhere; the path is for messages only.
pub(super) fn clone_of(what: &OwnedFd, path: &Path) -> Result<OwnedFd, ViewError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(what, "", flags).map_err(|e| ViewError::io("clone the mount of", path, e))
}

/// Makes a mount that is attached nowhere yet read-only, and gives it what the set needs and no
/// more.
pub(super) fn restrict(mount: &OwnedFd, set: &SetInfo) -> Result<(), ViewError> {
    sys::mount_setattr(mount.as_fd(), sys::RDONLY | guard(set))
        .map_err(|e| ViewError::io("make read-only the mount of", &set.path, e))
}

/// What does not count in a mount of this set: setuid bits and devices, but where the VM's file
/// granted them when the set was built.
pub(super) const fn guard(set: &SetInfo) -> u64 {
    let suid = if set.needs_suid { 0 } else { sys::NOSUID };
    let devices = if set.needs_devices { 0 } else { sys::NODEV };
    suid | devices
}

/// How the ids of a set's folder are mapped in a view; none where they are shown as they are.
pub(super) fn map_of(
    folder: &OwnedFd,
    spec: &ViewSpec,
    set: &SetInfo,
) -> Result<Option<idmap::Map>, ViewError> {
    let owner = idmap::owner_of(folder).map_err(|e| ViewError::io("look at", &set.path, e))?;
    Ok(idmap::Map::of_files(owner, spec.options.idmap))
}

/// A read-only mount of the set's folder, with the ids that the guest is to see, attached nowhere.
pub(super) fn detached(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    set: &SetInfo,
) -> Result<OwnedFd, ViewError> {
    let folder = ground.set(set.id)?;
    let mount = clone_of(&folder, &set.path)?;
    if let Some(map) = map_of(&folder, spec, set)? {
        let failed = |source| ViewError::IdMap { vm: spec.vm.clone(), first: map.first(), source };
        idmap::apply(mount.as_fd(), map).map_err(failed)?;
    }
    restrict(&mount, set)?;
    Ok(mount)
}

/// Takes away exactly the mount whose top is open as `fd`, wherever names lead meanwhile.
fn take_away(fd: &OwnedFd, target: &Path) -> Result<(), ViewError> {
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    unmount(path, UnmountFlags::DETACH).map_err(|e| ViewError::io("unmount", target, e))
}

/// Shows a set at the target, instead of what of ours is shown there.
pub(super) fn switch(ground: &Ground<'_>, spec: &ViewSpec, set: &SetInfo) -> Result<(), ViewError> {
    swap(ground, spec, set.id, || detached(ground, spec, set))
}

/// Puts a new mount, which is attached nowhere yet, in place of what of ours is at the target.
pub(super) fn swap(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    set: SetId,
    new: impl FnOnce() -> Result<OwnedFd, ViewError>,
) -> Result<(), ViewError> {
    let target = &spec.target;
    let open = || {
        open_folder(spec, target, true)?.ok_or_else(|| ViewError::io("open", target, Errno::NOENT))
    };
    let old = open()?;
    let top = layers(ground, target)?.into_iter().next();
    match &top {
        Some(layer) if !layer.ours => {
            return Err(refuse(spec, "something that is not ours is mounted there"));
        }
        None if !is_empty(&old, target)? => return Err(refuse(spec, "the folder is not empty")),
        _ => {}
    }
    let new = new()?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let attach = |flags| move_mount(&new, "", &old, "", flags);
    let beneath = if top.is_some() {
        attach(flags | MoveMountFlags::MOVE_MOUNT_BENEATH)
    } else {
        Err(Errno::INVAL)
    };
    match beneath {
        Ok(()) => {
            failpoint::hit("view.switch.mounted");
            failpoint::hit("view.switch.before_umount");
            take_away(&old, target)?;
        }
        Err(Errno::INVAL) => {
            if top.is_some() {
                tracing::warn!(
                    vm = %spec.vm,
                    "the kernel can't mount beneath (Linux 6.5 can): the old mount stays below"
                );
            }
            attach(flags).map_err(|e| ViewError::io("mount at", target, e))?;
            failpoint::hit("view.switch.mounted");
        }
        Err(e) => return Err(ViewError::io("mount beneath", target, e)),
    }
    check_shown(&open()?, &new, spec, set)
}

/// The inode at the target must be the top of the new mount.
fn check_shown(
    target: &OwnedFd,
    new: &OwnedFd,
    spec: &ViewSpec,
    set: SetId,
) -> Result<(), ViewError> {
    let look = |fd| rustix::fs::fstat(fd).map_err(|e| ViewError::io("look at", &spec.target, e));
    let (seen, want) = (look(target)?, look(new)?);
    if (seen.st_dev, seen.st_ino) == (want.st_dev, want.st_ino) {
        Ok(())
    } else {
        Err(ViewError::NotShown { target: spec.target.clone(), set })
    }
}

/// Takes away mounts of ours from the top until `wanted` shows; with `None`, all of them. A crash
/// between the two steps of a switch leaves the old mount above the new one.
pub(super) fn uncover(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    wanted: Option<SetId>,
) -> Result<(), ViewError> {
    match wanted {
        None => uncover_to(ground, spec, None),
        wanted => uncover_to(ground, spec, Some(&|layer| layer.set == wanted)),
    }
}

/// The same for a mount that is told by more than its set. Where none is wanted, all stay.
pub(super) fn uncover_to(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    wanted: Option<&dyn Fn(&Layer) -> bool>,
) -> Result<(), ViewError> {
    loop {
        let layers = layers(ground, &spec.target)?;
        let Some(top) = layers.first().filter(|l| l.ours) else { return Ok(()) };
        if wanted.is_some_and(|wanted| wanted(top) || !layers.iter().any(wanted)) {
            return Ok(());
        }
        let Some(fd) = open_folder(spec, &spec.target, false)? else { return Ok(()) };
        take_away(&fd, &spec.target)?;
    }
}
