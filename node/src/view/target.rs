//! Where a view is shown: which places are refused, and how one is reached.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use stork_wire::text::Label;

use super::ground::link;
use super::{Backend, Isolation, ViewError, ViewOptions, ViewSpec};

/// The target can't be a view.
pub(super) fn refuse(spec: &ViewSpec, why: &'static str) -> ViewError {
    ViewError::Target { vm: spec.vm.clone(), target: spec.target.clone(), why }
}

/// Checks a target without touching anything.
pub(super) fn check_target(store: &Path, spec: &ViewSpec) -> Result<(), ViewError> {
    let target = &spec.target;
    let plain = |c| matches!(c, Component::RootDir | Component::Normal(_));
    if !target.is_absolute() || !target.components().all(plain) {
        return Err(refuse(spec, "it must be an absolute path without `..`"));
    }
    if target.parent().is_none() {
        return Err(refuse(spec, "a view never covers the root of the host"));
    }
    if store.starts_with(target) || target.starts_with(store) {
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
    let spec = ViewSpec {
        vm,
        backend,
        target,
        isolation,
        keep_generations: 1,
        options: ViewOptions::default(),
    };
    open_folder(&spec, path, true)?.ok_or_else(|| ViewError::io("open", path, Errno::NOENT))
}

/// Is there nothing in the folder? The path is for messages only.
pub(super) fn is_empty(folder: &OwnedFd, path: &Path) -> Result<bool, ViewError> {
    let entries = std::fs::read_dir(link(folder));
    let mut entries = entries.map_err(|e| ViewError::io("list the folder", path, e))?;
    Ok(entries.next().is_none())
}
