//! Copying one node of a VM's upper layer as it is: bytes, holes, owner, mode, time, attributes.
//!
//! The VM may change its layer meanwhile. Every node is opened once, by a descriptor that leads to
//! it and nowhere else, and looked at through that: a path is never walked twice.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags,
    chmodat, chownat, fstat, ftruncate, getxattr, ioctl_ficlone, linkat, listxattr, mknodat,
    openat, readlinkat, seek, setxattr, symlinkat, utimensat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::{Errno, pread, pwrite};

/// Bytes of the list of a node's attributes, and of one value: what the kernel allows.
const XATTR_MAX: usize = 64 * 1024;
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// The kernel's own notes in an upper layer. Those about the old lower layer mean nothing, or harm,
/// above another one. What a guest writes under this name, the kernel keeps under another.
const NOTES: &[u8] = b"trusted.overlay.";
const GUESTS_OWN: &[u8] = b"trusted.overlay.overlay.";

/// A node of the layer, held by a descriptor.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
}

/// The kernel's own link to what a descriptor holds.
fn magic(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Node {
    /// Takes hold of a name; none where it is gone meanwhile.
    pub(super) fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Self>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { stat: fstat(&fd)?, fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A folder, to be read.
    pub(super) fn read_dir(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, magic(&self.fd), flags, Mode::empty())
    }

    /// A regular file, to be read.
    pub(super) fn read_file(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(CWD, magic(&self.fd), flags, Mode::empty())
    }

    /// One attribute, if it has it and its value is no longer than `N`.
    pub(super) fn xattr<const N: usize>(&self, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; N];
        let n = getxattr(magic(&self.fd), name, value.as_mut_slice()).ok()?;
        value.truncate(n);
        Some(value)
    }

    fn copy_xattrs(&self, to: &str) -> Result<(), Errno> {
        let from = magic(&self.fd);
        let mut names = vec![0; XATTR_MAX];
        let n = match listxattr(&from, names.as_mut_slice()) {
            Ok(n) => n,
            Err(Errno::NOTSUP) => 0,
            Err(e) => return Err(e),
        };
        names.truncate(n);
        let all = names.split(|b| *b == 0).filter(|n| !n.is_empty());
        for name in all.filter(|n| !n.starts_with(NOTES) || n.starts_with(GUESTS_OWN)) {
            // The kernel adds a prefix where a guest sets it through the overlay. We do not.
            let name = CString::new(name).map_err(|_e| Errno::INVAL)?;
            let mut value = vec![0; XATTR_MAX];
            match getxattr(&from, &name, value.as_mut_slice()) {
                Ok(n) => value.truncate(n),
                // It was taken away meanwhile.
                Err(Errno::NODATA) => continue,
                Err(e) => return Err(e),
            }
            setxattr(to, &name, &value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Gives a copy this node's owner, attributes, mode and time, in this order: a change of owner
    /// takes setuid bits and capabilities away.
    fn dress(&self, to: &OwnedFd) -> Result<(), Errno> {
        let (path, stat) = (magic(to), &self.stat);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(CWD, &path, Some(uid), Some(gid), AtFlags::empty())?;
        self.copy_xattrs(&path)?;
        if self.kind() != FileType::Symlink {
            chmodat(CWD, &path, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
        }
        utimensat(CWD, &path, &times_of(stat), AtFlags::empty())
    }

    /// The same for a folder. Its time is set when all is in it.
    pub(super) fn dress_dir(&self, to: &OwnedFd) -> Result<(), Errno> {
        self.dress(to)
    }

    /// Makes a copy under a name that is free. Returns the bytes that were copied; none where this
    /// kind of node has no copy (sockets: whoever listens there makes a new one).
    ///
    /// # Errors
    /// `EFBIG` where the file has more than `bytes_max` bytes of data.
    pub(super) fn copy(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        bytes_max: u64,
    ) -> Result<Option<u64>, Errno> {
        let mut bytes = 0;
        match self.kind() {
            FileType::RegularFile => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let to = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
                bytes = copy_bytes(&self.read_file()?, &to, bytes_max)?;
            }
            FileType::Symlink => {
                let target = readlinkat(&self.fd, c"", Vec::new())?;
                symlinkat(&target, parent, name)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                mknodat(parent, name, kind, Mode::RUSR, self.stat.st_rdev)?;
            }
            _ => return Ok(None),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.dress(&openat(parent, name, flags, Mode::empty())?)?;
        Ok(Some(bytes))
    }

    /// A second name of a copy: `path` beneath `root`, where nobody but us makes names.
    pub(super) fn link(
        root: BorrowedFd<'_>,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Errno> {
        linkat(root, path, parent, name, AtFlags::empty())
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let at = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: at, last_modification: at }
}

/// Shares the bytes where the file system can, else copies what is not a hole.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd, bytes_max: u64) -> Result<u64, Errno> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(0);
    }
    let size = u64::try_from(fstat(from)?.st_size).unwrap_or(0);
    ftruncate(to, size)?;
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut done) = (0, 0);
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(size);
        at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let room = chunk.get_mut(..want).unwrap_or_default();
            let n = pread(from, room, at)?;
            if n == 0 {
                // It was cut short meanwhile.
                return Ok(done);
            }
            done += n as u64;
            if done > bytes_max {
                return Err(Errno::FBIG);
            }
            write_all(to, chunk.get(..n).unwrap_or_default(), at)?;
            at += n as u64;
        }
    }
    Ok(done)
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = pwrite(to, bytes, at)?;
        if n == 0 {
            return Err(Errno::IO);
        }
        at += n as u64;
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// Has the file exactly these bytes? Read through a descriptor, so that it is one file all along.
pub(super) fn has_content(node: &Node, size: u64, id: [u8; 32]) -> io::Result<bool> {
    if node.kind() != FileType::RegularFile || u64::try_from(node.stat.st_size) != Ok(size) {
        return Ok(false);
    }
    let file = node.read_file()?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    // A file that grows meanwhile is another one.
    while hasher.count() <= size {
        let n = pread(file.as_fd(), chunk.as_mut_slice(), hasher.count())?;
        if n == 0 {
            return Ok(*hasher.finalize().as_bytes() == id);
        }
        hasher.update(chunk.get(..n).unwrap_or_default());
    }
    Ok(false)
}
