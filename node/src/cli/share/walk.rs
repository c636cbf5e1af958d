//! Walks a VM's folder, in which root of the VM may change everything at any moment.
//!
//! Every step is relative to a folder that is open, stays beneath the top and on its disk, and
//! follows no link. A file is opened by way of a descriptor that only names it, and only once that
//! was seen to be a regular file: no device, pipe or socket is ever opened.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2,
};

/// Folders in folders that are entered.
const DEPTH_MAX: usize = 128;
/// Names that are looked at.
const NAMES_MAX: u64 = 10_000_000;

/// A regular file, as it was when it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// Beneath the top.
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
    /// Which file it is, whatever its name.
    pub(super) id: (u64, u64),
}

/// What a walk saw.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Regular files with bytes, each once however many names it has.
    pub(super) files: Vec<Seen>,
    /// Names that could not be looked at, or were beyond a bound.
    pub(super) passed_over: u64,
    names: u64,
    known: std::collections::HashSet<(u64, u64)>,
}

fn beneath(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let name = CString::new(name.as_bytes())?;
    Ok(openat2(dir, name, flags, Mode::empty(), how | ResolveFlags::NO_XDEV)?)
}

/// Opens the top, which the operator names: links on the way to it are followed.
pub(super) fn open_top(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

const fn id_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Opens a regular file beneath the top to read it, if it is still the one that was seen.
pub(super) fn open_seen(top: &OwnedFd, seen: &Seen) -> io::Result<File> {
    let named = beneath(top.as_fd(), seen.path.as_os_str(), OFlags::PATH)?;
    let stat = fstat(&named)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !regular || id_of(&stat) != seen.id || size_of(&stat) != seen.size {
        return Err(io::ErrorKind::NotFound.into());
    }
    // The kernel's own link to a descriptor leads to that file and nowhere else.
    let link = format!("/proc/self/fd/{}", named.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(openat(CWD, link, flags, Mode::empty())?.into())
}

impl Walked {
    /// Looks at everything beneath the top.
    pub(super) fn of(top: &OwnedFd) -> io::Result<Self> {
        let mut walked = Self::default();
        walked.folder(top.as_fd(), Path::new(""), 0)?;
        walked.known.clear();
        Ok(walked)
    }

    fn folder(&mut self, dir: BorrowedFd<'_>, path: &Path, depth: usize) -> io::Result<()> {
        let mut folders: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.names += 1;
            if self.names > NAMES_MAX {
                self.passed_over += 1;
                return Ok(());
            }
            match entry.file_type() {
                FileType::Directory => folders.push(name.to_owned()),
                FileType::RegularFile => self.file(dir, path, name),
                FileType::Unknown => self.passed_over += 1,
                _ => {}
            }
        }
        for name in folders {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            // What went away meanwhile, or lies on another disk, is passed over.
            match beneath(dir, &name, flags) {
                Ok(next) if depth < DEPTH_MAX => {
                    let walked = self.folder(next.as_fd(), &path.join(&name), depth + 1);
                    self.passed_over += u64::from(walked.is_err());
                }
                _ => self.passed_over += 1,
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr) {
        let stat = beneath(dir, name, OFlags::PATH).and_then(|fd| Ok(fstat(&fd)?));
        let Ok(stat) = stat else {
            self.passed_over += 1;
            return;
        };
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let (size, id) = (size_of(&stat), id_of(&stat));
        if regular && size > 0 && self.known.insert(id) {
            self.files.push(Seen { path: path.join(name), size, id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Links, pipes and empty files are no files to be shared; what was swapped for a link or for
    /// another file since it was seen is not opened.
    #[test]
    fn hostile_names() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(&outside, "secret").unwrap();
        std::fs::write(root.join("usr/bin/one"), "11111").unwrap();
        std::fs::hard_link(root.join("usr/bin/one"), root.join("again")).unwrap();
        std::fs::write(root.join("two"), "22222").unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink("/", root.join("all")).unwrap();
        rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let top = open_top(&root).unwrap();
        let walked = Walked::of(&top).unwrap();
        assert_eq!((walked.files.len(), walked.passed_over), (2, 0), "{walked:?}");
        for seen in &walked.files {
            assert!(open_seen(&top, seen).is_ok());
        }
        std::fs::remove_dir_all(root.join("usr")).unwrap();
        symlink(dir.path(), root.join("usr")).unwrap();
        for name in ["two", "again"] {
            std::fs::remove_file(root.join(name)).unwrap();
            symlink(&outside, root.join(name)).unwrap();
        }
        for seen in &walked.files {
            assert!(open_seen(&top, seen).is_err(), "{seen:?}");
        }
    }
}
