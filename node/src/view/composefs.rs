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

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::backend::{Seen, Show, Step};
use super::mounts;
use super::tree::{clone_of, layers, restrict, swap, uncover};
use super::{Generation, IdMap, ViewError, ViewSpec, idmap};
use crate::store::{SetForm, SetInfo, Store};

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
    fn switch(&self, store: &Store, spec: &ViewSpec, step: Step<'_>) -> Result<(), ViewError> {
        swap(store, spec, step.set.id, || {
            let mount = match shared(store, spec, step.set)? {
                Some(mount) => mount,
                None => overlay(store, spec, step.set)?,
            };
            restrict(&mount, step.set)?;
            Ok(mount)
        })
    }
    fn shown(&self, store: &Store, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        let Some(top) = layers(store, &spec.target)?.into_iter().next() else { return Ok(None) };
        let Some(set) = top.set else { return Ok(None) };
        // A mount of an image that was moved away since shows nothing that counts.
        let map = spec.options.idmap;
        let here = store.set_info(set)?.and_then(|info| stamp(&info, map));
        let is_current = here.is_some() && top.generation == here;
        Ok(is_current.then(|| Seen::of_set(set)))
    }
    fn mend(&self, store: &Store, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        uncover(store, spec, Some(to.set))
    }
    fn hide(&self, store: &Store, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(store, spec, None)
    }
}

/// Tells one building of a set from another by the inode of its image, and the same with other ids.
fn stamp(set: &SetInfo, map: Option<IdMap>) -> Option<u64> {
    let inode = set.path.symlink_metadata().ok()?.ino();
    let Some(map) = map else { return Some(inode) };
    let text = format!("{inode} {} {} {}", map.uid, map.gid, map.count);
    blake3::hash(text.as_bytes()).as_bytes().first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn name(store: &Store, set: &SetInfo, map: Option<IdMap>) -> Result<String, ViewError> {
    Ok(mounts::source(&mounts::tag_of_set(store, set.id)?, set.id, stamp(set, map)))
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
fn shared(store: &Store, spec: &ViewSpec, set: &SetInfo) -> Result<Option<OwnedFd>, ViewError> {
    let name = name(store, set, spec.options.idmap)?;
    let all = mounts::here().map_err(|e| ViewError::io("read the mounts of", &set.path, e))?;
    for mount in all.iter().filter(|m| m.is_overlay_of(&name)) {
        // Another mount may hide that place, or it may be gone by now.
        let Ok(clone) = clone_of(&mount.point) else { continue };
        let Ok(top) = rustix::fs::fstat(&clone) else { continue };
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

/// The kernel's own link to what a descriptor leads to: short, without colons, and never another
/// file, whatever happens to names meanwhile.
fn link(fd: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

/// A mount of an image, attached nowhere.
pub(super) fn erofs(path: &Path) -> Result<OwnedFd, ViewError> {
    let file = open(path, OFlags::RDONLY)?;
    mount("erofs", path, &[("source", link(&file))])
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
    pub(super) fn new(store: &Store, spec: &ViewSpec, set: &'a SetInfo) -> Result<Self, ViewError> {
        let objects = open(&store.dir().join("objects"), OFlags::PATH | OFlags::DIRECTORY)?;
        let (image, map) = (erofs(&set.path)?, spec.options.idmap);
        // An overlay can't be mapped, so what lies beneath it is. Owners come from the image alone.
        if let Some(map) = map {
            let failed = |source| ViewError::IdMap { vm: spec.vm.clone(), first: map.uid, source };
            idmap::apply(image.as_fd(), map).map_err(failed)?;
        }
        Ok(Self { set, name: name(store, set, map)?, image, objects })
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
fn overlay(store: &Store, spec: &ViewSpec, set: &SetInfo) -> Result<OwnedFd, ViewError> {
    let parts = Parts::new(store, spec, set)?;
    match parts.over(&parts.image) {
        // Before 6.15 a layer must be attached somewhere when the overlay is made.
        Err(ViewError::Io { source, .. })
            if Errno::from_io_error(&source) == Some(Errno::INVAL) =>
        {
            attached(store, spec, &parts)
        }
        made => made,
    }
}

/// Makes the overlay while the image is attached in the store for a moment.
pub(super) fn attached(
    store: &Store,
    spec: &ViewSpec,
    parts: &Parts<'_>,
) -> Result<OwnedFd, ViewError> {
    let place = store.vm_dir(&spec.vm)?.join("image");
    let fail = |what, e: Errno| ViewError::io(what, &place, e);
    match rustix::fs::mkdirat(CWD, &place, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail("make the folder", e)),
    }
    let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&parts.image, "", CWD, &place, from).map_err(|e| fail("mount at", e))?;
    let made = open(&place, OFlags::PATH | OFlags::DIRECTORY).and_then(|below| parts.over(&below));
    let gone = unmount(&place, UnmountFlags::DETACH).map_err(|e| fail("unmount", e));
    if let Err(e) = std::fs::remove_dir(&place) {
        tracing::debug!(path = %place.display(), %e, "an empty folder stays");
    }
    gone.and(made)
}
