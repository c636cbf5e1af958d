//! The backend `overlay`: the set's folder beneath a layer of the VM's own, which takes its writes.
//!
//! Options of the mount, each with its reason:
//!
//! - `redirect_dir=nofollow`, `metacopy=off`, `index=off`: with them the upper layer would hold
//!   references into the lower one, and each generation has another lower one. So a renamed folder
//!   of a package is copied (`mv` does that by itself), and a hard link to a file of a package
//!   becomes a file of its own when it is written. What an upper layer could say in this way is not
//!   believed either.
//! - no `userxattr`: root of the host mounts it, and the kernel's notes are `trusted.*`, which no
//!   guest in a user namespace can write.
//! - `xino=auto`, `nfs_export=off`: the kernel's defaults, said so that a host's own cannot differ.
//!
//! The source of the mount names set and generation, so that `shown` is asked of the kernel.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::backend::{Seen, Show, Step};
use super::mounts;
use super::private::{Carried, Layer, Layers};
use super::tree::{detached, guard, layers, swap, uncover, uncover_to};
use super::{Generation, ViewError, ViewSpec, sys};
use crate::store::{SetForm, Store};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Overlay;

impl Show for Overlay {
    fn form(&self) -> SetForm {
        SetForm::Folder
    }
    fn mounts(&self) -> bool {
        true
    }
    fn per_generation(&self) -> bool {
        true
    }

    fn switch(&self, store: &Store, spec: &ViewSpec, step: Step<'_>) -> Result<(), ViewError> {
        let (set, number) = (step.set, step.next.number);
        if mounts::generation_anywhere(store, &spec.vm, set.id, number) {
            return Err(ViewError::LayerInUse { vm: spec.vm.clone(), number });
        }
        let own = Layers::of(store, spec)?;
        let tag = mounts::tag_of_vm(store, &spec.vm)?;
        swap(store, spec, set.id, || mount(spec, step, &own.prepare(step)?, &tag))?;
        if let Err(e) = own.note_late(number) {
            tracing::warn!(vm = %spec.vm, "{e}");
        }
        match self.shown(store, spec)? {
            Some(seen) if seen.is(step.next) => Ok(()),
            _ => Err(ViewError::NotShown { target: spec.target.clone(), set: set.id }),
        }
    }

    fn shown(&self, store: &Store, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        let top = layers(store, &spec.target)?.into_iter().next();
        let seen = top.and_then(|l| Some((l.set?, Some(l.generation?))));
        Ok(seen.map(|(set, generation)| Seen { set, generation }))
    }

    fn mend(&self, store: &Store, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        let (set, number) = (Some(to.set), Some(to.number));
        uncover_to(store, spec, Some(&|layer| layer.set == set && layer.generation == number))
    }

    fn tidy(&self, store: &Store, spec: &ViewSpec, kept: &BTreeSet<u64>) -> Result<(), ViewError> {
        Layers::of(store, spec)?.tidy(kept)
    }

    fn hide(&self, store: &Store, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(store, spec, None)
    }

    fn in_use(&self, store: &Store, generation: &Generation) -> bool {
        mounts::generation_anywhere(store, &generation.vm, generation.set, generation.number)
    }

    fn drop_generation(
        &self,
        store: &Store,
        spec: &ViewSpec,
        number: u64,
    ) -> Result<(), ViewError> {
        Layers::of(store, spec)?.remove(number)
    }

    fn carried(&self, store: &Store, spec: &ViewSpec, number: u64) -> Option<Carried> {
        Layers::of(store, spec).ok()?.record(number)
    }
}

/// A colon parts the folders of the old option.
fn escaped(path: &Path) -> PathBuf {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").into()
}

/// A mount of a generation that is attached nowhere yet.
fn mount(spec: &ViewSpec, step: Step<'_>, layer: &Layer, tag: &str) -> Result<OwnedFd, ViewError> {
    // The overlay itself can't be mapped, so what lies beneath it is.
    let mapped = spec.options.idmap.map(|_| detached(spec, step.set)).transpose()?;
    let lower = mapped.as_ref().map_or_else(
        || step.set.path.clone(),
        |fd| format!("/proc/thread-self/fd/{}", fd.as_raw_fd()).into(),
    );
    let fail = |what| move |e: Errno| ViewError::io(what, &layer.upper, e);
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("open an overlay for"))?;
    let name = mounts::source(tag, step.set.id, Some(step.next.number));
    let options = [
        ("source", Path::new(&name)),
        ("redirect_dir", Path::new("nofollow")),
        ("metacopy", Path::new("off")),
        ("index", Path::new("off")),
        ("nfs_export", Path::new("off")),
        ("xino", Path::new("auto")),
        ("upperdir", &layer.upper),
        ("workdir", &layer.work),
    ];
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), key, value).map_err(fail("set up the overlay of"))?;
    }
    let path = lower.as_path();
    // `lowerdir+` takes any path, from Linux 6.5 on.
    fsconfig_set_string(fs.as_fd(), "lowerdir+", path)
        .or_else(|_e| fsconfig_set_string(fs.as_fd(), "lowerdir", escaped(path)))
        .map_err(fail("set up the lower folder of"))?;
    fsconfig_create(fs.as_fd()).map_err(fail("make the overlay of"))?;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(fail("mount the overlay of"))?;
    sys::mount_setattr(mount.as_fd(), guard(step.set))
        .map_err(|e| ViewError::io("set attributes of the mount of", &layer.upper, e))?;
    Ok(mount)
}
