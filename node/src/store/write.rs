//! The only code that writes files: temporary file, fsync, rename, fsync of the folder.
//!
//! Everything that the store or a view keeps in a file passes through here, so that a name that
//! can be seen always stands for whole and durable bytes. Errors are [`Fault`]s; the store
//! decides whether one latches it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
    fchmod, fchown, fdatasync, fsetxattr, fsync, futimens, openat, renameat_with, unlinkat,
};

use super::objects::Meta;
use super::sparse;

/// Every temporary name begins so; opening the store removes what is left of them.
pub(super) const TEMP: &str = ".tmp-";

/// Threads that make files durable: enough that one commit of the journal serves many files.
const SYNC_THREADS: usize = 16;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A system call on a file that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
    /// The fate of bytes already written is unknown, as after a failed fsync.
    pub(super) sync: bool,
}

impl Fault {
    pub(super) fn new(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { what, path: path.to_owned(), source: source.into(), sync: false }
    }
    fn sync(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { sync: true, ..Self::new(what, path, source) }
    }
}

/// A name that no other file of this process has.
pub(super) fn temp_name() -> String {
    format!("{TEMP}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Opens a folder for system calls relative to it.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(CWD, path, flags, Mode::empty()).map_err(|e| Fault::new("open the folder", path, e))
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), Fault> {
    let fd = open_dir(path)?;
    fsync(fd).map_err(|e| Fault::sync("make durable the folder", path, e))
}

/// Makes many files durable, several at once: the disk then writes its journal once for all of
/// them. One `syncfs` would be as fast on an idle disk, but waits for everything that the VMs of
/// this host have written too.
pub(super) fn sync_files(files: &[&Parked]) -> Result<(), Fault> {
    let share = files.len().div_ceil(SYNC_THREADS).max(1);
    std::thread::scope(|scope| {
        let sync = |part: &[&Parked]| part.iter().try_for_each(|f| f.sync());
        let threads: Vec<_> =
            files.chunks(share).map(|part| scope.spawn(move || sync(part))).collect();
        threads.into_iter().try_for_each(|t| {
            // A thread that panicked made nothing durable that we could count on.
            let lost = || io::Error::other("a thread that made files durable ended early");
            t.join().unwrap_or_else(|_| Err(Fault::sync("make durable", Path::new(""), lost())))
        })
    })
}

/// Makes a folder of mode 0700 where there is none.
pub(super) fn make_dir(path: &Path) -> Result<(), Fault> {
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(Fault::new("make the folder", path, e)),
    }
}

/// Replaces a file: after a crash either the old or the new bytes are there, never a part.
pub(super) fn write_atomic(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let mut file = NewFile::create(dir)?;
    file.write(bytes)?;
    file.sync()?;
    file.replace(&dir.join(name))?;
    sync_dir(dir)
}

/// The same by way of a file of this name, for folders that nobody tidies after a crash: what an
/// earlier one left under that name is replaced.
pub(super) fn write_by(dir: &Path, by: &str, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let path = dir.join(by);
    remove_any(&path)?;
    let mut file = NewFile::create_as(path)?;
    file.write(bytes)?;
    file.sync()?;
    file.replace(&dir.join(name))?;
    sync_dir(dir)
}

/// Makes a file of `len` bytes that are really taken from the disk, or leaves nothing.
pub(super) fn allocate(path: &Path, len: u64) -> Result<(), Fault> {
    let file = OpenFile::open(path)?;
    if file.len()? == len {
        return Ok(());
    }
    let taken = rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, len);
    taken.map_err(|e| {
        let fault = Fault::new("take space for", path, e);
        remove_file(path).err().unwrap_or(fault)
    })
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove_file(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Fault::new("remove", path, e)),
        _ => Ok(()),
    }
}

/// Renames, without replacing anything if told so, but does not make the folders durable.
pub(super) fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Fault> {
    renameat_with(CWD, from, CWD, to, flags).map_err(|e| Fault::new("rename", to, e))
}

/// Removes a folder and all that is in it, also where our user may not write into its parts.
pub(super) fn remove_tree(path: &Path) -> Result<(), Fault> {
    let denied = match std::fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => open_up(path),
        Err(e) => Err(e),
    };
    denied
        .and_then(|()| std::fs::remove_dir_all(path))
        .map_err(|e| Fault::new("remove the folder", path, e))
}

/// Removes a file or a folder with all that is in it, if there is one.
pub(super) fn remove_any(path: &Path) -> Result<(), Fault> {
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_dir() => remove_file(path),
        _ => remove_tree(path),
    }
}

/// Removes what has that name in a folder that is open, with all that is in it, if it is there.
/// Wherever names lead meanwhile, nothing outside of the folder is touched.
pub(crate) fn remove_in(folder: &OwnedFd, name: &str) -> io::Result<()> {
    let path = format!("/proc/thread-self/fd/{}/{name}", folder.as_raw_fd());
    remove_any(Path::new(&path)).map_err(|f| f.source)
}

/// Gives every folder beneath `path` the mode 0700; links are not followed.
fn open_up(path: &Path) -> io::Result<()> {
    let fd = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty())?;
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    drop(fd);
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// A name that is not lasting yet; dropped without getting a lasting one it is removed.
#[derive(Debug)]
pub(super) struct Parked {
    path: PathBuf,
    named: bool,
}

impl Parked {
    /// Makes the bytes durable.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        let file = File::open(&self.path).map_err(|e| Fault::new("open", &self.path, e))?;
        fsync(&file).map_err(|e| Fault::sync("make durable", &self.path, e))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, replacing what has it. The folder is not made durable.
    pub(super) fn replace(mut self, to: &Path) -> Result<(), Fault> {
        rename(&self.path, to, RenameFlags::empty())?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if !self.named
            && let Err(e) = unlinkat(CWD, &self.path, AtFlags::empty())
        {
            tracing::debug!(path = %self.path.display(), %e, "a temporary file stays");
        }
    }
}

/// A file that is being written and has no lasting name yet.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    name: Parked,
    end: u64,
}

impl NewFile {
    /// A new empty file of mode 0600 in `dir`.
    pub(super) fn create(dir: &Path) -> Result<Self, Fault> {
        Self::create_as(dir.join(temp_name()))
    }

    /// A new empty file of mode 0600 that has this name until it gets its lasting one.
    fn create_as(path: PathBuf) -> Result<Self, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(CWD, &path, flags | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Fault::new("create", &path, e))?;
        Ok(Self { file: fd.into(), name: Parked { path, named: false }, end: 0 })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let written = self.file.write_all_at(bytes, self.end);
        self.end += bytes.len() as u64;
        written.map_err(|e| Fault::new("write", &self.name.path, e))
    }

    /// Appends bytes, and leaves a hole where they are long zeros.
    pub(super) fn write_sparse(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (zeros, len) = sparse::first_run(rest, self.end);
            let (now, later) = rest.split_at(len);
            rest = later;
            if zeros {
                self.end += now.len() as u64;
                let grown = self.file.set_len(self.end);
                grown.map_err(|e| Fault::new("write", &self.name.path, e))?;
            } else {
                self.write(now)?;
            }
        }
        Ok(())
    }

    /// Fills the new file with the bytes of another one, sharing its blocks where the disk can, and
    /// leaving its holes as holes.
    pub(super) fn copy_from(&mut self, from: &Path) -> Result<(), Fault> {
        let source = File::open(from).map_err(|e| Fault::new("open", from, e))?;
        if rustix::fs::ioctl_ficlone(&self.file, &source).is_err() {
            let copied = sparse::copy(&source, &self.file);
            copied.map_err(|e| Fault::new("write", &self.name.path, e))?;
        }
        Ok(())
    }

    /// Gives the file its owner, mode, time and attributes, and says what could not be given.
    pub(super) fn dress(&self, meta: &Meta, root: bool) -> Result<Option<String>, Fault> {
        let fault = |what, e: rustix::io::Errno| Fault::new(what, &self.name.path, e);
        let mut note = None;
        let mut mode = meta.mode;
        if root {
            let (uid, gid) = owner(meta.uid, meta.gid);
            fchown(&self.file, uid, gid).map_err(|e| fault("give an owner to", e))?;
        } else if (meta.uid, meta.gid) != own_ids() {
            note = Some("owners of files are not set, because stork-node is not root".to_owned());
            // A setuid bit must never stand on a file of another owner than was meant.
            mode &= 0o1777;
        }
        for x in &meta.xattrs {
            let set = fsetxattr(&self.file, x.name.as_str(), &x.value, XattrFlags::empty());
            match set {
                Ok(()) => {}
                Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {
                    note = Some(format!("the attribute `{}` cannot be set here", x.name));
                }
                Err(e) => return Err(fault("set an attribute of", e)),
            }
        }
        fchmod(&self.file, Mode::from_raw_mode(u32::from(mode)))
            .map_err(|e| fault("set the mode of", e))?;
        futimens(&self.file, &times(meta.mtime)).map_err(|e| fault("set the time of", e))?;
        Ok(note)
    }

    /// The file itself, for what writes in its own order.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Makes the bytes durable.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        fsync(&self.file).map_err(|e| Fault::sync("make durable", &self.name.path, e))
    }

    /// Gives the file its name, replacing what has it. The folder is not made durable.
    pub(super) fn replace(self, to: &Path) -> Result<(), Fault> {
        self.name.replace(to)
    }

    /// Closes the file, to be made durable and named later with others.
    pub(super) fn park(self) -> Parked {
        self.name
    }
}

/// A file that is filled out of order and lives on over restarts: a partial pack.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    /// Opens a file, or makes it with mode 0600.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Fault::new("open", path, e))?;
        Ok(Self { file: fd.into(), path: path.to_owned() })
    }
    /// Opens a file to read it.
    pub(super) fn read_only(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).map_err(|e| Fault::new("open", path, e))?;
        Ok(Self { file, path: path.to_owned() })
    }
    pub(super) fn len(&self) -> Result<u64, Fault> {
        let meta = self.file.metadata().map_err(|e| Fault::new("look at", &self.path, e))?;
        Ok(meta.len())
    }
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Fault> {
        self.file.write_all_at(bytes, offset).map_err(|e| Fault::new("write", &self.path, e))
    }
    pub(super) fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let mut out = vec![0; len];
        self.file.read_exact_at(&mut out, offset).map_err(|e| Fault::new("read", &self.path, e))?;
        Ok(out)
    }
    pub(super) fn cut(&self, len: u64) -> Result<(), Fault> {
        self.file.set_len(len).map_err(|e| Fault::new("cut", &self.path, e))
    }
    pub(super) fn sync_data(&self) -> Result<(), Fault> {
        fdatasync(&self.file).map_err(|e| Fault::sync("make durable", &self.path, e))
    }
    /// Makes the bytes durable and gives the file its lasting name.
    pub(super) fn keep(&self, to: &Path) -> Result<(), Fault> {
        fsync(&self.file).map_err(|e| Fault::sync("make durable", &self.path, e))?;
        rename(&self.path, to, RenameFlags::empty())?;
        to.parent().map_or(Ok(()), sync_dir)
    }
}

/// Both times of a file, from seconds since 1970.
pub(super) const fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner and group in the words of rustix.
pub(super) fn owner(uid: u32, gid: u32) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))
}

/// The owner and group that our files get by themselves.
pub(super) fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
