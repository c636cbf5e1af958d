//! The backend `tree`: the set's folder, mounted read-only at the target.
//!
//! The mount is made apart from every namespace, gets its attributes there, and is then attached:
//! nobody ever sees it writable. A switch attaches the new mount *beneath* the old one and then
//! takes the old one away, so that there is no moment without a view, and mount propagation
//! carries both steps to guests in slave namespaces. Files that are open stay readable through
//! the old mount.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, statat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use stork_wire::text::Label;

use super::mounts::{self, Home, Layer};
use super::{Backend, Isolation, ViewError, ViewSpec, sys};
use crate::failpoint;
use crate::store::{SetId, SetInfo, Store};

fn refuse(spec: &ViewSpec, why: &'static str) -> ViewError {
    ViewError::Target { vm: spec.vm.clone(), target: spec.target.clone(), why }
}

/// Checks a target without touching anything.
pub(super) fn check_target(store: &Store, spec: &ViewSpec) -> Result<(), ViewError> {
    let target = &spec.target;
    let plain = |c| matches!(c, Component::RootDir | Component::Normal(_));
    if !target.is_absolute() || !target.components().all(plain) {
        return Err(refuse(spec, "it must be an absolute path without `..`"));
    }
    if target.parent().is_none() {
        return Err(refuse(spec, "a view never covers the root of the host"));
    }
    if store.dir().starts_with(target) || target.starts_with(store.dir()) {
        return Err(refuse(spec, "it must lie outside of the store, and not hide it"));
    }
    Ok(())
}

/// Opens a folder step by step from the root, following no symbolic link: a guest that can write
/// somewhere on the path could otherwise lead the mount to any place of the host. Makes what is
/// missing where `make` says so.
pub(super) fn open_folder(
    spec: &ViewSpec,
    path: &Path,
    make: bool,
) -> Result<Option<OwnedFd>, ViewError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fail = |e: Errno| ViewError::io("open", path, e);
    let mut now = openat(CWD, "/", flags, Mode::empty()).map_err(fail)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        let mut next = openat(&now, name, flags, Mode::empty());
        if make && matches!(next, Err(Errno::NOENT)) {
            match mkdirat(&now, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => next = openat(&now, name, flags, Mode::empty()),
                Err(e) => return Err(ViewError::io("make the folder", path, e)),
            }
        }
        now = match next {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(refuse(spec, "a part of it is no folder, or a symbolic link"));
            }
            Err(e) => return Err(fail(e)),
        };
    }
    Ok(Some(now))
}

/// Makes a folder for views, as a switch would, and opens it.
pub(super) fn make_folder(vm: &Label, path: &Path) -> Result<OwnedFd, ViewError> {
    let (vm, target) = (vm.clone(), path.to_owned());
    let (backend, isolation) = (Backend::Hardlink, Isolation::None);
    let spec = ViewSpec { vm, backend, target, isolation, keep_generations: 1 };
    open_folder(&spec, path, true)?.ok_or_else(|| ViewError::io("open", path, Errno::NOENT))
}

/// Is there nothing in the folder?
pub(super) fn is_empty(path: &Path) -> Result<bool, ViewError> {
    let mut entries =
        std::fs::read_dir(path).map_err(|e| ViewError::io("list the folder", path, e))?;
    Ok(entries.next().is_none())
}

/// What is mounted at the target, the topmost first.
pub(super) fn layers(store: &Store, target: &Path) -> Result<Vec<Layer>, ViewError> {
    let mounts = mounts::here().map_err(|e| ViewError::io("read the mounts of", target, e))?;
    let home = Home::of(store.dir(), &mounts);
    Ok(home.map_or_else(Vec::new, |h| h.layers(&mounts, target)))
}

/// Which set the target shows; the kernel says so, not our records.
pub(super) fn shown(store: &Store, spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
    Ok(layers(store, &spec.target)?.first().and_then(|layer| layer.set))
}

/// Is the set mounted anywhere on this host, in any namespace?
pub(super) fn shown_anywhere(store: &Store, set: SetId) -> bool {
    let home = mounts::here().ok().and_then(|m| Home::of(store.dir(), &m));
    home.is_none_or(|home| home.shown_anywhere(set))
}

/// A mount of the set that is attached nowhere yet.
fn detached(set: &SetInfo) -> Result<OwnedFd, ViewError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let fail = |what, e| ViewError::io(what, &set.path, e);
    let mount =
        open_tree(CWD, &set.path, flags).map_err(|e| fail("clone the mount of", e.into()))?;
    let mut attributes = sys::RDONLY;
    if !set.needs_suid {
        attributes |= sys::NOSUID;
    }
    if !set.needs_devices {
        attributes |= sys::NODEV;
    }
    sys::mount_setattr(mount.as_fd(), attributes)
        .map_err(|e| fail("make read-only the mount of", e))?;
    Ok(mount)
}

/// Takes away exactly the mount whose top is open as `fd`, wherever names lead meanwhile.
fn take_away(fd: &OwnedFd, target: &Path) -> Result<(), ViewError> {
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    unmount(path, UnmountFlags::DETACH).map_err(|e| ViewError::io("unmount", target, e))
}

/// Shows a set at the target, instead of what of ours is shown there.
pub(super) fn switch(store: &Store, spec: &ViewSpec, set: &SetInfo) -> Result<(), ViewError> {
    let target = &spec.target;
    let open = || {
        open_folder(spec, target, true)?.ok_or_else(|| ViewError::io("open", target, Errno::NOENT))
    };
    let old = open()?;
    let top = layers(store, target)?.into_iter().next();
    match &top {
        Some(layer) if !layer.ours => {
            return Err(refuse(spec, "something that is not ours is mounted there"));
        }
        None if !is_empty(target)? => return Err(refuse(spec, "the folder is not empty")),
        _ => {}
    }
    let new = detached(set)?;
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
    check_shown(&open()?, spec, set)
}

/// The inode at the target must be the set's own.
fn check_shown(target: &OwnedFd, spec: &ViewSpec, set: &SetInfo) -> Result<(), ViewError> {
    let fail = |e| ViewError::io("look at", &spec.target, e);
    let seen = rustix::fs::fstat(target).map_err(fail)?;
    let want = statat(CWD, &set.path, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
    if (seen.st_dev, seen.st_ino) == (want.st_dev, want.st_ino) {
        Ok(())
    } else {
        Err(ViewError::NotShown { target: spec.target.clone(), set: set.id })
    }
}

/// Takes away mounts of ours from the top until `wanted` shows; with `None`, all of them. A crash
/// between the two steps of a switch leaves the old mount above the new one.
pub(super) fn uncover(
    store: &Store,
    spec: &ViewSpec,
    wanted: Option<SetId>,
) -> Result<(), ViewError> {
    loop {
        let layers = layers(store, &spec.target)?;
        let Some(top) = layers.first().filter(|l| l.ours) else { return Ok(()) };
        let done =
            wanted.is_some() && (top.set == wanted || !layers.iter().any(|l| l.set == wanted));
        if done {
            return Ok(());
        }
        let Some(fd) = open_folder(spec, &spec.target, false)? else { return Ok(()) };
        take_away(&fd, &spec.target)?;
    }
}
