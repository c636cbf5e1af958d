//! The backend `composefs`: an EROFS image of names and inodes over the store's objects, put
//! together by overlayfs and mounted read-only.
//!
//! The image is mounted where nobody sees it, and an overlay is made of it and the objects, which
//! are a *data-only* layer (Linux 6.5): no name leads there, only what the image says. The overlay
//! has no upper layer, so that nobody makes it writable. It is made once per set and host, or
//! once for each map of ids: a further VM gets a clone of that mount, and shares names and pages
//! with all others. Its source names the set and a stamp of the image's inode and the map, so that
//! the kernel tells what is shown; a set that was built anew after damage is mounted anew.
//!
//! fs-verity is not asked for: many kernels lack it, and the objects are hashed by `stork verify`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::backend::{Seen, Show, Step};
use super::ground::link;
use super::mounts;
use super::tree::{clone_of, layers, restrict, swap, uncover};
use super::{Generation, Ground, IdMap, ViewError, ViewSpec, idmap};
use crate::store::{SetForm, SetInfo};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Composefs;

impl Show for Composefs {
    fn form(&self) -> SetForm {
        SetForm::Metadata
    }
    fn mounts(&self) -> bool {
        true
    }
    fn check(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        static LACKING: OnceLock<Option<&'static str>> = OnceLock::new();
        let Some(why) = *LACKING.get_or_init(lacking) else { return Ok(()) };
        Err(ViewError::Host { vm: spec.vm.clone(), backend: spec.backend, why })
    }
    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        swap(ground, spec, step.set.id, || {
            let mount = match shared(ground, spec, step.set)? {
                Some(mount) => mount,
                None => overlay(ground, spec, step.set)?,
            };
            restrict(&mount, step.set)?;
            Ok(mount)
        })
    }
    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        let Some(top) = layers(ground, &spec.target)?.into_iter().next() else { return Ok(None) };
        let Some(set) = top.set else { return Ok(None) };
        // A mount of an image that was moved away since shows nothing that counts.
        let map = spec.options.idmap;
        let here = ground.image(set).ok().and_then(|image| stamp(&image, map));
        let is_current = here.is_some() && top.generation == here;
        Ok(is_current.then(|| Seen::of_set(set)))
    }
    fn mend(&self, ground: &Ground<'_>, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        uncover(ground, spec, Some(to.set))
    }
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(ground, spec, None)
    }
}

/// Tells one building of a set from another by the inode of its image, and the same with other ids.
fn stamp(image: &OwnedFd, map: Option<IdMap>) -> Option<u64> {
    let inode = fstat(image).ok()?.st_ino;
    let Some(map) = map else { return Some(inode) };
    let text = format!("{inode} {} {} {}", map.uid, map.gid, map.count);
    blake3::hash(text.as_bytes()).as_bytes().first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn name(ground: &Ground<'_>, set: &SetInfo, map: Option<IdMap>) -> Result<String, ViewError> {
    let stamp = stamp(&ground.image(set.id)?, map);
    Ok(mounts::source(&mounts::tag_of_set(ground, set.id), set.id, stamp))
}

/// What this host lacks. Modules that can be loaded are loaded by the question.
fn lacking() -> Option<&'static str> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let has = |kind| !matches!(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC), Err(Errno::NODEV));
    if version < (6, 12) {
        return Some("Linux before 6.12 mounts no EROFS image from a file");
    }
    if !has("erofs") {
        return Some("this kernel has no EROFS");
    }
    if !has("overlay") {
        return Some("this kernel has no overlayfs");
    }
    None
}

/// A clone of a mount of the set that some VM has already.
fn shared(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    set: &SetInfo,
) -> Result<Option<OwnedFd>, ViewError> {
    let name = name(ground, set, spec.options.idmap)?;
    let all = mounts::here().map_err(|e| ViewError::io("read the mounts of", &set.path, e))?;
    for mount in all.iter().filter(|m| m.is_overlay_of(&name)) {
        // Another mount may hide that place, or it may be gone by now.
        let Ok(point) = open(&mount.point, OFlags::PATH) else { continue };
        let Ok(clone) = clone_of(&point, &mount.point) else { continue };
        let Ok(top) = fstat(&clone) else { continue };
        if mount.is_on(top.st_dev) {
            return Ok(Some(clone));
        }
    }
    Ok(None)
}

/// A new mount of a file system, attached nowhere.
fn mount(
    kind: &'static str,
    path: &Path,
    options: &[(&'static str, String)],
) -> Result<OwnedFd, ViewError> {
    let fail = |what| move |e: Errno| ViewError::io(what, path, e);
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("prepare the mount of"))?;
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, value.as_str())
            .map_err(fail("set up the mount of"))?;
    }
    fsconfig_set_flag(fs.as_fd(), "ro").map_err(fail("set up the mount of"))?;
    fsconfig_create(fs.as_fd()).map_err(fail("read the image of"))?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, read_only).map_err(fail("mount"))
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, ViewError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|e| ViewError::io("open", path, e))
}

/// A mount of an image, attached nowhere; the path is for messages only.
pub(super) fn erofs(image: &OwnedFd, path: &Path) -> Result<OwnedFd, ViewError> {
    mount("erofs", path, &[("source", link(image))])
}

/// What an overlay is made of.
pub(super) struct Parts<'a> {
    set: &'a SetInfo,
    name: String,
    /// The image, mounted and attached nowhere.
    image: OwnedFd,
    objects: OwnedFd,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        ground: &Ground<'_>,
        spec: &ViewSpec,
        set: &'a SetInfo,
    ) -> Result<Self, ViewError> {
        let objects = ground.objects()?;
        let (image, map) = (erofs(&ground.image(set.id)?, &set.path)?, spec.options.idmap);
        // An overlay can't be mapped, so what lies beneath it is. Owners come from the image alone.
        if let Some(map) = map {
            let failed = |source| ViewError::IdMap { vm: spec.vm.clone(), first: map.uid, source };
            idmap::apply(image.as_fd(), idmap::Map::of_guest(map)).map_err(failed)?;
        }
        Ok(Self { set, name: name(ground, set, map)?, image, objects })
    }

    /// The overlay over the image, which is seen at `below`.
    fn over(&self, below: &OwnedFd) -> Result<OwnedFd, ViewError> {
        let lower = format!("{}::{}", link(below), link(&self.objects));
        let options = [
            ("source", self.name.clone()),
            ("metacopy", "on".to_owned()),
            ("redirect_dir", "follow".to_owned()),
            ("lowerdir", lower),
        ];
        mount("overlay", &self.set.path, &options)
    }
}

/// The overlay of a set, attached nowhere.
fn overlay(ground: &Ground<'_>, spec: &ViewSpec, set: &SetInfo) -> Result<OwnedFd, ViewError> {
    let parts = Parts::new(ground, spec, set)?;
    match parts.over(&parts.image) {
        // Before 6.15 a layer must be attached somewhere when the overlay is made.
        Err(ViewError::Io { source, .. })
            if Errno::from_io_error(&source) == Some(Errno::INVAL) =>
        {
            attached(ground, spec, &parts)
        }
        made => made,
    }
}

/// Makes the overlay while the image is attached in the store for a moment.
pub(super) fn attached(
    ground: &Ground<'_>,
    spec: &ViewSpec,
    parts: &Parts<'_>,
) -> Result<OwnedFd, ViewError> {
    const PLACE: &str = "image";
    let folder = ground.vm_folder(&spec.vm)?;
    let path = ground.vm_path(&spec.vm).join(PLACE);
    let fail = |what, e: Errno| ViewError::io(what, &path, e);
    match mkdirat(&folder, PLACE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail("make the folder", e)),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(&folder, PLACE, flags, Mode::empty()).map_err(|e| fail("open", e));
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&parts.image, "", open()?, "", how).map_err(|e| fail("mount at", e))?;
    let below = open()?;
    let made = parts.over(&below);
    let gone = unmount(link(&below), UnmountFlags::DETACH).map_err(|e| fail("unmount", e));
    drop(below);
    if let Err(e) = unlinkat(&folder, PLACE, AtFlags::REMOVEDIR) {
        tracing::debug!(path = %path.display(), %e, "an empty folder stays");
    }
    gone.and(made)
}
