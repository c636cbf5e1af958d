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
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::backend::{Seen, Show, Step};
use super::ground::link;
use super::mounts;
use super::private::{Carried, Layer, Layers};
use super::tree::{detached, guard, layers, map_of, swap, uncover, uncover_to};
use super::{Generation, Ground, ViewError, ViewSpec, sys};
use crate::store::SetForm;

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

    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        let (set, number) = (step.set, step.next.number);
        if mounts::generation_anywhere(ground, &spec.vm, set.id, number) {
            return Err(ViewError::LayerInUse { vm: spec.vm.clone(), number });
        }
        let own = Layers::of(ground, spec)?;
        let tag = mounts::tag_of_vm(ground, &spec.vm);
        swap(ground, spec, set.id, || mount(ground, spec, step, (&own.prepare(step)?, &tag)))?;
        if let Err(e) = own.note_late(number) {
            tracing::warn!(vm = %spec.vm, "{e}");
        }
        match self.shown(ground, spec)? {
            Some(seen) if seen.is(step.next) => Ok(()),
            _ => Err(ViewError::NotShown { target: spec.target.clone(), set: set.id }),
        }
    }

    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        let top = layers(ground, &spec.target)?.into_iter().next();
        let seen = top.and_then(|l| Some((l.set?, Some(l.generation?))));
        Ok(seen.map(|(set, generation)| Seen { set, generation }))
    }

    fn mend(&self, ground: &Ground<'_>, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        let (set, number) = (Some(to.set), Some(to.number));
        uncover_to(ground, spec, Some(&|layer| layer.set == set && layer.generation == number))
    }

    fn tidy(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        kept: &BTreeSet<u64>,
    ) -> Result<(), ViewError> {
        Layers::of(ground, spec)?.tidy(kept)
    }

    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(ground, spec, None)
    }

    fn in_use(&self, ground: &Ground<'_>, generation: &Generation) -> bool {
        mounts::generation_anywhere(ground, &generation.vm, generation.set, generation.number)
    }

    fn drop_generation(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        number: u64,
    ) -> Result<(), ViewError> {
        Layers::of(ground, spec)?.remove(number)
    }

    fn carried(&self, ground: &Ground<'_>, spec: &ViewSpec, number: u64) -> Option<Carried> {
        Layers::of(ground, spec).ok()?.record(number)
    }
}

/// A mount of a generation that is attached nowhere yet.
fn mount(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    step: Step<'_>,
    (layer, tag): (&Layer, &str),
) -> Result<OwnedFd, ViewError> {
    // The overlay itself can't be mapped, so what lies beneath it is.
    let mut lower = ground.set(step.set.id)?;
    if map_of(&lower, spec, step.set)?.is_some() {
        lower = detached(ground, spec, step.set)?;
    }
    // The folders are open, and named by the kernel's links to them, not by paths.
    let (lower, upper, work) = (link(&lower), link(&layer.upper), link(&layer.work));
    let fail = |what| move |e: Errno| ViewError::io(what, &layer.path, e);
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("open an overlay for"))?;
    let name = mounts::source(tag, step.set.id, Some(step.next.number));
    let options = [
        ("source", name.as_str()),
        ("redirect_dir", "nofollow"),
        ("metacopy", "off"),
        ("index", "off"),
        ("nfs_export", "off"),
        ("xino", "auto"),
        ("upperdir", &upper),
        ("workdir", &work),
        ("lowerdir", &lower),
    ];
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), key, value).map_err(fail("set up the overlay of"))?;
    }
    fsconfig_create(fs.as_fd()).map_err(fail("make the overlay of"))?;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(fail("mount the overlay of"))?;
    sys::mount_setattr(mount.as_fd(), guard(step.set))
        .map_err(|e| ViewError::io("set attributes of the mount of", &layer.path, e))?;
    Ok(mount)
}
