//! The form `folder`: the merged tree as a folder of hard links to objects.
//!
//! All calls are relative to the folder being built, beneath it, and follow no link, so that
//! nothing outside of it can be touched whoever else plays with names (T098). While it is built
//! the folder and every folder in it has mode 0700; owner, mode and time are set last, the
//! deepest first, because every new name changes the time of its folder. Folders are made first;
//! then several threads make the other names, each in folders of its own where it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, chownat, fchmod, fchown, fstat,
    fsync, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    utimensat,
};
use rustix::io::Errno;
use stork_wire::manifest::{Tree, TreeEntry, TreeNode};

use super::super::merge::SetError;
use super::super::objects::{ObjectKey, ObjectRow};
use super::super::write::{self, Fault, NewFile, owner, times};
use super::super::{Store, StoreError, lock, shard};
use crate::failpoint;

/// Copies of one object: 65 000 links each on ext4.
const COPIES_MAX: u32 = 1_000;

/// Threads that make names, this one included: more get in each other's way in the disk's journal.
const THREADS_MAX: usize = 4;
/// Names that a thread takes at a time, and that are worth a thread.
const NAMES: usize = 256;

struct Builder<'a> {
    store: &'a Store,
    dest: &'a Path,
    root: OwnedFd,
    objects: OwnedFd,
    /// Files that have further names inside the tree, by path.
    files: BTreeMap<&'a str, ObjectKey>,
    /// Objects whose first file has no links left, and the copy that is used.
    copies: Mutex<BTreeMap<ObjectKey, u32>>,
}

/// An entry, and the object of a file.
type Named<'a> = (&'a TreeEntry, Option<ObjectKey>);

/// The folder to which one thread wrote last.
#[derive(Default)]
struct Place<'a>(Option<(&'a str, OwnedFd)>);

/// Sets the mode of a node that is neither file nor folder nor link: by a descriptor of the node
/// itself. By its name the call would follow a link that somebody has put there meanwhile.
fn set_mode(parent: BorrowedFd<'_>, name: &str, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(parent, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&node)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    // Such a descriptor takes no fchmod; the kernel's own link to it leads to the node and nowhere
    // else (proc(5), magic links).
    chmodat(CWD, format!("/proc/self/fd/{}", node.as_raw_fd()), mode, AtFlags::empty())
}

fn beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(root, path, flags, Mode::empty(), how | ResolveFlags::NO_XDEV)
}

/// Can others than root open a finished folder again?
const fn can_open(dir: &TreeEntry) -> bool {
    dir.mode & 0o500 == 0o500
}

impl<'a> Builder<'a> {
    fn fault(&self, what: &'static str, entry: &TreeEntry, e: Errno) -> SetError {
        let path = self.dest.join(entry.path.as_str());
        SetError::Store(self.store.fault(Fault::new(what, &path, e)))
    }

    /// The folder of `entry`.
    fn enter<'p>(
        &self,
        place: &'p mut Place<'a>,
        entry: &'a TreeEntry,
    ) -> Result<BorrowedFd<'p>, SetError> {
        let dir = entry.path.parent().unwrap_or(".");
        let fd = match place.0.take() {
            Some((now, fd)) if now == dir => fd,
            _ => beneath(&self.root, dir, OFlags::PATH)
                .map_err(|e| self.fault("enter the folder of", entry, e))?,
        };
        Ok(place.0.insert((dir, fd)).1.as_fd())
    }

    fn make_dir(&self, place: &mut Place<'a>, entry: &'a TreeEntry) -> Result<(), SetError> {
        let parent = self.enter(place, entry)?;
        mkdirat(parent, entry.path.name(), Mode::RWXU).map_err(|e| self.fault("make", entry, e))
    }

    /// Makes what is no folder.
    fn make(&self, place: &mut Place<'a>, (entry, object): Named<'a>) -> Result<(), SetError> {
        let parent = self.enter(place, entry)?;
        let name = entry.path.name();
        let node = |kind, device| mknodat(parent, name, kind, Mode::RUSR, device);
        let made = match &entry.node {
            TreeNode::Dir => return Ok(()),
            TreeNode::Symlink { target } => symlinkat(target.as_str(), parent, name),
            TreeNode::File { .. } => {
                return object.map_or(Ok(()), |object| self.link(parent, object, entry));
            }
            TreeNode::Hardlink { target } => match self.files.get(target.as_str()) {
                Some(object) => return self.link(parent, *object, entry),
                None => Err(Errno::NOENT),
            },
            TreeNode::Fifo => node(FileType::Fifo, 0),
            TreeNode::CharDevice { major, minor } => {
                node(FileType::CharacterDevice, makedev(*major, *minor))
            }
            TreeNode::BlockDevice { major, minor } => {
                node(FileType::BlockDevice, makedev(*major, *minor))
            }
        };
        match made {
            Ok(()) => self.dress_node(parent, entry),
            Err(Errno::PERM) if !self.store.root => {
                Err(SetError::NeedsRoot { path: entry.path.to_string() })
            }
            Err(e) => Err(self.fault("make", entry, e)),
        }
    }

    /// Owner, mode and time of what is no file and no folder.
    fn dress_node(&self, parent: BorrowedFd<'_>, entry: &TreeEntry) -> Result<(), SetError> {
        let (name, nofollow) = (entry.path.name(), AtFlags::SYMLINK_NOFOLLOW);
        if self.store.root {
            let (uid, gid) = owner(entry.uid, entry.gid);
            chownat(parent, name, uid, gid, nofollow)
                .map_err(|e| self.fault("give an owner to", entry, e))?;
        }
        if !matches!(entry.node, TreeNode::Symlink { .. }) {
            set_mode(parent, name, Mode::from_raw_mode(u32::from(entry.mode)))
                .map_err(|e| self.fault("set the mode of", entry, e))?;
        }
        utimensat(parent, name, &times(entry.mtime), nofollow)
            .map_err(|e| self.fault("set the time of", entry, e))
    }

    /// Links an object to the place of an entry; takes a copy of it where no further link fits.
    fn link(
        &self,
        parent: BorrowedFd<'_>,
        object: ObjectKey,
        entry: &TreeEntry,
    ) -> Result<(), SetError> {
        let mut copy = lock(&self.copies).get(&object).copied().unwrap_or(0);
        let (folder, rest) = shard(&object.0);
        while copy < COPIES_MAX {
            let from = match copy {
                0 => format!("{folder}/{rest}"),
                n => format!("{folder}/{rest}.{n}"),
            };
            match linkat(&self.objects, &from, parent, entry.path.name(), AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::MLINK) => {
                    copy += 1;
                    let mut copies = lock(&self.copies);
                    let now = copies.entry(object).or_insert(copy);
                    copy = copy.max(*now);
                    *now = copy;
                }
                Err(Errno::NOENT) if copy > 0 => self.copy_once(object, copy, &from)?,
                Err(Errno::NOENT) => {
                    return Err(SetError::Incomplete { package: entry.path.to_string() });
                }
                Err(Errno::XDEV) => {
                    return Err(SetError::OtherFileSystem {
                        path: self.dest.display().to_string(),
                    });
                }
                Err(e) => return Err(self.fault("link", entry, e)),
            }
        }
        Err(self.fault("link", entry, Errno::MLINK))
    }

    /// Makes a copy of an object, unless another thread has just done so.
    fn copy_once(&self, object: ObjectKey, copy: u32, name: &str) -> Result<(), StoreError> {
        let one = lock(&self.copies);
        if statat(&self.objects, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            self.store.copy_object(object, copy)?;
        }
        drop(one);
        Ok(())
    }

    /// Makes all names that are no folders, by several threads where there are many.
    fn make_names(&self, names: &[Named<'a>]) -> Result<(), SetError> {
        let half = names.get(names.len() / 2).map(|(entry, _)| *entry);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut place = Place::default();
            while let Some(part) = names.get(next.fetch_add(NAMES, Ordering::Relaxed)..) {
                for named in part.iter().take(NAMES) {
                    self.make(&mut place, *named).inspect_err(|_| {
                        // The others need not go on.
                        next.store(names.len() + 1, Ordering::Relaxed);
                    })?;
                    if half.is_some_and(|half| std::ptr::eq(half, named.0)) {
                        failpoint::hit("store.set.half_linked");
                    }
                }
            }
            Ok(())
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(THREADS_MAX).min(names.len().div_ceil(NAMES)).max(1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |done, other| {
                let lost = || Fault::new("link the files of", self.dest, Errno::INTR);
                let other = other.join().unwrap_or_else(|_| Err(self.store.fault(lost()).into()));
                done.and(other)
            })
        })
    }

    /// Owner, mode and time of the folders, the deepest first, and of the root.
    fn dress_dirs(&self, tree: &Tree) -> Result<(), SetError> {
        for entry in tree.entries.iter().rev().filter(|e| matches!(e.node, TreeNode::Dir)) {
            let fd = beneath(&self.root, entry.path.as_str(), OFlags::RDONLY)
                .map_err(|e| self.fault("open", entry, e))?;
            if self.store.root {
                let (uid, gid) = owner(entry.uid, entry.gid);
                fchown(&fd, uid, gid).map_err(|e| self.fault("give an owner to", entry, e))?;
            }
            fchmod(&fd, Mode::from_raw_mode(u32::from(entry.mode)))
                .map_err(|e| self.fault("set the mode of", entry, e))?;
            futimens(&fd, &times(entry.mtime))
                .map_err(|e| self.fault("set the time of", entry, e))?;
            if !can_open(entry) {
                fsync(fd).map_err(|e| self.fault("make durable", entry, e))?;
            }
        }
        // The top has no entry; its time is that of the newest entry, the same on every host.
        let newest = tree.entries.iter().map(|e| e.mtime).max().unwrap_or(0);
        fchmod(&self.root, Mode::from_raw_mode(0o755))
            .and_then(|()| futimens(&self.root, &times(newest)))
            .map_err(|e| self.store.fault(Fault::new("set the time of", self.dest, e)).into())
    }
}

impl Builder<'_> {
    /// Makes the names durable; the files are since they were written. The first call writes the
    /// disk's journal for all folders, so that the others cost little.
    fn sync_dirs(&self, tree: &Tree) -> Result<(), SetError> {
        let fault = |e: Errno| {
            let fault = Fault::new("make durable the folders of", self.dest, e);
            SetError::Store(self.store.fault(Fault { sync: true, ..fault }))
        };
        for entry in tree.entries.iter().filter(|e| matches!(e.node, TreeNode::Dir) && can_open(e))
        {
            match beneath(&self.root, entry.path.as_str(), OFlags::RDONLY) {
                Ok(dir) => fsync(dir).map_err(fault)?,
                // Beneath a folder that is closed to us, where we are not root; the journal of the
                // disk is written with the others.
                Err(Errno::ACCESS) if !self.store.root => {}
                Err(e) => return Err(fault(e)),
            }
        }
        fsync(&self.root).map_err(fault)
    }
}

impl Store {
    /// Builds a merged tree as hard links in a new folder on the store's file system, durably. On
    /// an error nothing is left of it.
    pub fn link_tree(&self, tree: &Tree, dest: &Path) -> Result<(), SetError> {
        self.check_latch()?;
        let _hold = self.inner_hold();
        match mkdirat(CWD, dest, Mode::RWXU) {
            Ok(()) => {}
            Err(e) => return Err(self.fault(Fault::new("make the folder", dest, e)).into()),
        }
        let built = self.fill(tree, dest);
        if built.is_err()
            && let Err(f) = write::remove_tree(dest)
        {
            tracing::warn!(path = %dest.display(), error = %f.source, "a half-built tree stays");
        }
        built
    }

    fn fill<'t>(&self, tree: &'t Tree, dest: &Path) -> Result<(), SetError> {
        let open = |path| write::open_dir(path).map_err(|f| self.fault(f));
        let object = |entry| ObjectRow::of(entry).map(|row| row.key());
        let all: Vec<Named<'_>> = tree.entries.iter().map(|e| (e, object(e))).collect();
        let objects: Vec<ObjectKey> = all.iter().filter_map(|(_, object)| *object).collect();
        if let Some(lacks) = self.first_missing(&objects)? {
            let of = all.iter().find(|(_, object)| *object == Some(lacks));
            let package = of.map(|(entry, _)| entry.path.to_string()).unwrap_or_default();
            return Err(SetError::Incomplete { package });
        }
        let target = |e: &'t TreeEntry| match &e.node {
            TreeNode::Hardlink { target } => Some(target.as_str()),
            _ => None,
        };
        let targets: BTreeSet<&str> = tree.entries.iter().filter_map(target).collect();
        let further = all.iter().filter(|(e, _)| targets.contains(e.path.as_str()));
        let builder = Builder {
            store: self,
            dest,
            root: open(dest)?,
            objects: open(&self.dir.join("objects"))?,
            files: further.filter_map(|(e, object)| Some((e.path.as_str(), (*object)?))).collect(),
            copies: Mutex::default(),
        };
        let is_dir = |(e, _): &Named<'_>| matches!(e.node, TreeNode::Dir);
        let (dirs, names): (Vec<_>, Vec<_>) = all.into_iter().partition(is_dir);
        let mut place = Place::default();
        dirs.iter().try_for_each(|(entry, _)| builder.make_dir(&mut place, entry))?;
        builder.make_names(&names)?;
        builder.dress_dirs(tree)?;
        builder.sync_dirs(tree)
    }

    /// A further file of an object, for file systems that bound the links of one.
    fn copy_object(&self, object: ObjectKey, copy: u32) -> Result<(), StoreError> {
        let row: Option<ObjectRow> = self.record(super::super::db::OBJECTS, &object.0)?;
        let Some(row) = row else {
            return Err(self.damaged(format!("object {object} has no row")));
        };
        let path = self.object_path(object);
        let make = || {
            let mut file = NewFile::create(&self.dir.join("objects/tmp"))?;
            file.copy_from(&path)?;
            drop(file.dress(&row.meta, self.root)?);
            file.sync()?;
            let (_, rest) = shard(&object.0);
            let to = path.with_file_name(format!("{rest}.{copy}"));
            file.replace(&to)?;
            to.parent().map_or(Ok(()), write::sync_dir)
        };
        make().map_err(|f| self.fault(f))
    }
}
