//! What the kernel lets this process mount: tried in a mount namespace of its own, so that nothing
//! is left behind and nobody sees it.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount,
    open_tree, unmount,
};

use super::sys;

/// What was seen: `Ok` where it works, and in both cases the evidence for people.
pub type Probe = Result<String, String>;

/// What was tried.
#[derive(Debug, Clone)]
pub struct Probes {
    /// The new calls for mounts: `fsopen`, `open_tree`, `mount_setattr`.
    pub api: Probe,
    /// `MOVE_MOUNT_BENEATH`: a mount is replaced without a moment without any.
    pub beneath: Probe,
    /// overlayfs as a view has it.
    pub overlay: Probe,
    /// overlayfs with lower layers that hold only data.
    pub data_only: Probe,
    /// EROFS.
    pub erofs: Probe,
}

impl Probes {
    fn none(why: &str) -> Self {
        Self::of(&Err(why.to_owned()))
    }

    /// The same answer to everything.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let it = || probe.clone();
        Self { api: it(), beneath: it(), overlay: it(), data_only: it(), erofs: it() }
    }
}

/// A folder that is on every machine, and is covered in the namespace of the probe.
const PLACE: &str = "/tmp";

/// Tries everything, in a thread of its own that ends with its namespace.
#[must_use]
pub fn probe() -> Probes {
    let tried = std::thread::scope(|s| s.spawn(in_thread).join());
    tried.unwrap_or_else(|_panic| Probes::none("the probe ended early"))
}

fn in_thread() -> Probes {
    if let Err(e) = sys::private_namespace() {
        return Probes::none(&format!("no right to mount (a new mount namespace: {e})"));
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if let Err(e) = mount_change("/", private) {
        return Probes::none(&format!("no right to mount (making mounts private: {e})"));
    }
    let api = place();
    if api.is_err() {
        return Probes { api, ..Probes::none("needs the new mount calls") };
    }
    Probes { api, beneath: beneath(), overlay: overlay(), data_only: data_only(), erofs: erofs() }
}

fn said<T>(what: &'static str, done: Result<T, Errno>) -> Result<T, String> {
    done.map_err(|e| format!("{what}: {e}"))
}

/// An empty file system at the place, made by the new calls.
fn place() -> Probe {
    let fs = said("fsopen", fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC))?;
    said("fsconfig", fsconfig_create(fs.as_fd()))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let made = said("fsmount", fsmount(fs.as_fd(), flags, MountAttrFlags::empty()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    said("move_mount", move_mount(&made, "", CWD, PLACE, flags))?;
    let copy = open_tree(CWD, PLACE, OpenTreeFlags::OPEN_TREE_CLONE);
    let copy = said("open_tree", copy)?;
    sys::mount_setattr(copy.as_fd(), sys::RDONLY).map_err(|e| format!("mount_setattr: {e}"))?;
    Ok("fsopen, open_tree and mount_setattr work".to_owned())
}

fn folders(names: &[&str]) -> Result<(), String> {
    let make = |name: &&str| {
        std::fs::create_dir(Path::new(PLACE).join(name)).map_err(|e| format!("mkdir: {e}"))
    };
    names.iter().try_for_each(make)
}

fn beneath() -> Probe {
    folders(&["one", "two", "at"])?;
    let clone = |from: &str| {
        let tree = open_tree(CWD, format!("{PLACE}/{from}"), OpenTreeFlags::OPEN_TREE_CLONE);
        said("open_tree", tree)
    };
    let attach = |from: &str, more| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | more;
        let done = move_mount(clone(from)?, "", CWD, format!("{PLACE}/at"), flags);
        said("move_mount", done)
    };
    attach("one", MoveMountFlags::empty())?;
    attach("two", MoveMountFlags::MOVE_MOUNT_BENEATH)?;
    Ok("a mount beneath another one works".to_owned())
}

fn overlay() -> Probe {
    folders(&["lower", "upper", "work", "merged"])?;
    let layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    overlay_with(&format!("{layers},redirect_dir=nofollow,metacopy=off,index=off"))?;
    Ok("mounts, without references between its layers".to_owned())
}

fn data_only() -> Probe {
    folders(&["meta", "data"])?;
    overlay_with("lowerdir=/tmp/meta::/tmp/data,metacopy=on,redirect_dir=on")?;
    Ok("mounts, with a lower layer of data only".to_owned())
}

fn overlay_with(options: &str) -> Result<(), String> {
    let at = format!("{PLACE}/merged");
    let options = std::ffi::CString::new(options).unwrap_or_default();
    said("mount", mount("overlay", &at, "overlay", MountFlags::empty(), Some(options.as_c_str())))?;
    said("unmount", unmount(&at, UnmountFlags::DETACH))
}

fn erofs() -> Probe {
    said("fsopen", fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC))?;
    Ok("the kernel has it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probing changes no mount that others see, and tells root from others.
    #[test]
    fn nothing_is_left_behind() {
        let before = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let probes = probe();
        let after = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let ours = |text: &str| text.lines().filter(|l| l.contains(" /tmp ")).count();
        assert_eq!(ours(&before), ours(&after));
        if rustix::process::geteuid().is_root() {
            assert!(probes.api.is_ok(), "{probes:?}");
        } else {
            assert!(probes.api.is_err(), "{probes:?}");
        }
    }
}
