//! The file system of the state folder: links, shared blocks, verity, room.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, ioctl_ficlone, openat, statfs,
    statvfs, statx,
};

use crate::view::probe::Probe;

/// Inodes that the store leaves free (store::StoreOptions).
const INODES_MIN: u64 = 10_000;

pub(super) struct Disk {
    pub(super) reflink: Probe,
    pub(super) links: Probe,
    pub(super) verity: Probe,
    pub(super) space: Probe,
    pub(super) inodes: Probe,
}

/// The folder, or the nearest one above it that is there.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// Names of file systems by the magic numbers of statfs(2), and what one file may have of links.
const KINDS: &[(u64, &str, &str)] = &[
    (0xef53, "ext4", "65 000 links to one file; the store makes a second copy then"),
    (0x5846_5342, "xfs", "2 147 483 647 links to one file"),
    (0x9123_683e, "btrfs", "65 535 links to one file in a folder"),
    (0x0102_1994, "tmpfs", "no limit, and everything is gone after a reboot"),
    (0x2fc1_2fc1, "zfs", "no limit"),
    (0xca45_1a4e, "bcachefs", "no limit"),
    (0x794c_7630, "overlayfs", "as the file system below has"),
];

pub(super) fn look(state: &Path, min_free: u64) -> Disk {
    let at = nearest(state);
    let shown = at.display();
    let kind = statfs(&at).ok().and_then(|s| {
        let magic = u64::try_from(s.f_type).unwrap_or(0);
        KINDS.iter().find(|(number, _, _)| *number == magic)
    });
    let name = kind.map_or("another file system", |(_, name, _)| name);
    let links = match kind {
        Some((_, name, limit)) => format!("{shown} is {name}: {limit}"),
        None => format!("{shown} is no file system that is known here"),
    };
    let (space, inodes) = room(&at, min_free);
    Disk {
        reflink: reflink(&at).map(|()| format!("a copy on {shown} ({name}) shared its blocks")),
        links: linked(&at).map(|()| links),
        verity: verity(&at).map(|()| format!("{shown} ({name}) says so")),
        space,
        inodes,
    }
}

/// Two files without names, of which the second takes the blocks of the first.
fn reflink(at: &Path) -> Result<(), String> {
    let open = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(CWD, at, flags, Mode::RUSR | Mode::WUSR);
        file.map_err(|e| format!("a file without a name in {}: {e}", at.display()))
    };
    let (from, to) = (std::fs::File::from(open()?), open()?);
    (&from).write_all(&[7; 65_536]).map_err(|e| format!("writing: {e}"))?;
    ioctl_ficlone(&to, &from).map_err(|e| format!("{}: {e}", at.display()))
}

/// Are there links at all? Asked of a folder, which has one for each folder in it, or of the file
/// system's own word for it: what is left is the case of a file system without any.
fn linked(at: &Path) -> Result<(), String> {
    const FAT: [u64; 2] = [0x4d44, 0x2011_bab0];
    let magic = statfs(at).map_err(|e| format!("{}: {e}", at.display()))?.f_type;
    if FAT.contains(&u64::try_from(magic).unwrap_or(0)) {
        return Err(format!("{} is FAT, which has no links", at.display()));
    }
    Ok(())
}

fn verity(at: &Path) -> Result<(), String> {
    let mask = statx(CWD, at, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .map_err(|e| format!("{}: {e}", at.display()))?
        .stx_attributes_mask;
    // ext4 names the attribute whether the kernel was built with it or not.
    let built = "/sys/fs/ext4/features";
    if Path::new(built).exists() && !Path::new(built).join("verity").exists() {
        return Err(format!("{built} has no `verity`"));
    }
    if mask.contains(StatxAttributes::VERITY) {
        Ok(())
    } else {
        Err(format!("{} does not know the attribute", at.display()))
    }
}

fn room(at: &Path, min_free: u64) -> (Probe, Probe) {
    let stat = match statvfs(at) {
        Ok(stat) => stat,
        Err(e) => {
            let why = format!("{}: {e}", at.display());
            return (Err(why.clone()), Err(why));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mib = |n: u64| n >> 20;
    let text = format!(
        "{} MiB are free in {}, {} MiB must stay so",
        mib(free),
        at.display(),
        mib(min_free)
    );
    let space = if free > min_free { Ok(text) } else { Err(text) };
    let inodes = match (stat.f_files, stat.f_favail) {
        (0, _) => Ok("the file system makes them as they are needed".to_owned()),
        (_, free) if free > INODES_MIN => Ok(format!("{free} inodes are free")),
        (_, free) => Err(format!("{free} inodes are free, {INODES_MIN} must stay so")),
    };
    (space, inodes)
}
