//! Makes the upper layer of a new generation from that of an earlier one.
//!
//! The earlier layer is what the VM wrote, and it may write still: it is walked by descriptors,
//! no link is followed, and everything about it is bounded. The new layer is nobody's yet.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use stork_wire::manifest::{TreeEntry, TreeNode};

use super::copy::{Node, has_content};
use super::judge::{Change, Hides, Judge, Verdict};
use super::{Carried, LIST_MAX, Shadowed};
use crate::catalog::IdMap;

/// Folders within folders. Each takes two descriptors while it is walked.
const DEPTH_MAX: usize = 128;
/// Files and folders of one layer.
pub(super) const ENTRIES_MAX: u64 = 200_000;
/// Bytes of paths that are remembered of files with several names, in all and of one: no call takes
/// a longer one. A guest may make each path as long as its folders are deep; what is not remembered
/// is copied once for each name.
const LINK_PATHS_MAX: usize = 16 << 20;
const LINK_PATH_MAX: usize = 4_095;

/// Why a layer could not be carried along.
#[derive(Debug)]
pub(super) enum CarryError {
    /// It is larger than it may be.
    Bound(&'static str, u64),
    /// A call failed, on this path of the layer.
    Io(&'static str, String, io::Error),
}

/// Where things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Into the new layer.
    Layer,
    /// Aside.
    Aside,
}

/// A folder on the way down, and its copies as far as they were needed.
struct Level {
    name: Vec<u8>,
    node: Node,
    layer: Option<OwnedFd>,
    aside: Option<OwnedFd>,
}

/// The copying of one layer.
pub(super) struct Carry<'a> {
    judge: &'a Judge<'a>,
    map: Option<IdMap>,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Copies of files that have several names.
    links: BTreeMap<(u64, u64, Side), Vec<u8>>,
    /// Bytes of their paths.
    link_paths: usize,
    bytes_max: u64,
    done: Carried,
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl<'a> Carry<'a> {
    /// Copies what beneath `from` is carried along into `layer`, and what is set aside into
    /// `aside`. Both are empty folders of ours.
    pub(super) fn run(
        judge: &'a Judge<'a>,
        map: Option<IdMap>,
        bytes_max: u64,
        from: OwnedFd,
        into: (OwnedFd, OwnedFd),
    ) -> Result<Carried, CarryError> {
        let io = |what: &'static str| move |e: Errno| CarryError::Io(what, "/".into(), e.into());
        let stat = rustix::fs::fstat(&from).map_err(io("look at"))?;
        let top = Node { fd: from, stat };
        let (layer, aside) = into;
        top.dress_dir(&layer).map_err(io("give an owner to"))?;
        let level = Level { name: Vec::new(), node: top, layer: Some(layer), aside: Some(aside) };
        let mut carry = Self {
            judge,
            map,
            levels: vec![level],
            path: Vec::new(),
            links: BTreeMap::new(),
            link_paths: 0,
            bytes_max,
            done: Carried::default(),
        };
        carry.folder(None)?;
        Ok(carry.done)
    }

    fn fault(&self, what: &'static str, e: impl Into<io::Error>) -> CarryError {
        CarryError::Io(what, text(&self.path), e.into())
    }

    /// Walks the last of `levels`. With `all`, everything in it goes to that side, unjudged.
    fn folder(&mut self, all: Option<Side>) -> Result<(), CarryError> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let fd = level.node.read_dir().map_err(|e| self.fault("open", e))?;
        let entries = Dir::read_from(&fd).map_err(|e| self.fault("list", e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.fault("list", e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.done.entries += 1;
            if self.done.entries > ENTRIES_MAX {
                return Err(CarryError::Bound("files and folders", ENTRIES_MAX));
            }
            let node = Node::open(fd.as_fd(), name).map_err(|e| self.fault("open", e))?;
            let Some(node) = node else { continue };
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.entry(name, node, all)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], node: Node, all: Option<Side>) -> Result<(), CarryError> {
        let (is_dir, opaque) = (node.kind() == FileType::Directory, is_opaque(&node));
        let change = match node.kind() {
            FileType::Directory => Change::Dir { opaque },
            FileType::CharacterDevice if node.stat.st_rdev == 0 => Change::Whiteout,
            _ => Change::Node,
        };
        // Names that no package can have are the VM's own.
        let path = String::from_utf8(self.path.clone()).ok();
        let verdict = match (&path, all) {
            (Some(path), None) => self.judge.judge(path, change),
            _ => Verdict::Carry,
        };
        let (verdict, side) = match (verdict, all) {
            (_, Some(side)) => (Verdict::Carry, side),
            (Verdict::Aside(hides), None) => (Verdict::Aside(hides), Side::Aside),
            (verdict, None) => (verdict, Side::Layer),
        };
        if !is_dir {
            return self.node(name, &node, path.as_deref(), (verdict, side));
        }
        let hides = match verdict {
            Verdict::Aside(hides) => Some(hides),
            Verdict::Open(hides) => {
                self.shadowed(hides);
                None
            }
            _ => None,
        };
        if let Some(hides) = hides {
            self.shadowed(hides);
        }
        let all = all.or_else(|| hides.map(|_| Side::Aside));
        let keep_opaque = opaque && verdict == Verdict::Carry;
        let needed = keep_opaque || all.is_some() || self.is_private(path.as_deref(), &node);
        self.enter(name, node, all, side, (needed, keep_opaque))
    }

    /// Goes down into a folder.
    fn enter(
        &mut self,
        name: &[u8],
        node: Node,
        all: Option<Side>,
        side: Side,
        (needed, opaque): (bool, bool),
    ) -> Result<(), CarryError> {
        if self.levels.len() > DEPTH_MAX {
            return Err(CarryError::Bound("folders within folders", DEPTH_MAX as u64));
        }
        self.levels.push(Level { name: name.to_vec(), node, layer: None, aside: None });
        if needed {
            let depth = self.levels.len();
            self.make(side, depth)?;
            if opaque && side == Side::Layer {
                self.make_opaque()?;
            }
        }
        self.folder(all)?;
        let Some(level) = self.levels.pop() else { return Ok(()) };
        for copy in level.layer.iter().chain(&level.aside) {
            // What was put in changed its time.
            level.node.dress_dir(copy).map_err(|e| self.fault("set the time of", e))?;
        }
        Ok(())
    }

    fn make_opaque(&self) -> Result<(), CarryError> {
        let Some(fd) = self.levels.last().and_then(|l| l.layer.as_ref()) else { return Ok(()) };
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(fd, "trusted.overlay.opaque", b"y", flags)
            .map_err(|e| self.fault("make opaque", e))
    }

    /// Is a folder more than the way to what is in it: the VM made it, or changed its owner or
    /// mode?
    fn is_private(&self, path: Option<&str>, node: &Node) -> bool {
        let Some(path) = path else { return true };
        let (old, new) = (self.judge.old(path), self.judge.new_entry(path));
        match (old, new) {
            (None, None) => true,
            _ => ![old, new].iter().flatten().any(|e| self.looks_like(node, e)),
        }
    }

    fn looks_like(&self, node: &Node, entry: &TreeEntry) -> bool {
        let map = |id| self.map.map_or(Some(id), |m| m.uid_of(id));
        let group = |id| self.map.map_or(Some(id), |m| m.gid_of(id));
        node.stat.st_mode & 0o7777 == u32::from(entry.mode)
            && map(entry.uid) == Some(node.stat.st_uid)
            && group(entry.gid) == Some(node.stat.st_gid)
    }

    /// A file, link, pipe, device or whiteout.
    fn node(
        &mut self,
        name: &[u8],
        node: &Node,
        path: Option<&str>,
        (verdict, side): (Verdict, Side),
    ) -> Result<(), CarryError> {
        let (verdict, side) = match verdict {
            Verdict::Drop => return Ok(()),
            Verdict::CarryChanged | Verdict::Aside(Hides::Copy | Hides::Removed) => {
                match self.compare(node, path)? {
                    Some(true) => return Ok(()),
                    // Only its owner or mode are the VM's.
                    Some(false) if verdict == Verdict::CarryChanged => {
                        (Verdict::Aside(Hides::Copy), Side::Aside)
                    }
                    _ => (verdict, side),
                }
            }
            verdict => (verdict, side),
        };
        match verdict {
            Verdict::Aside(hides) => self.shadowed(hides),
            Verdict::CarryChanged if self.done.conffiles.len() < LIST_MAX => {
                self.done.conffiles.push(text(&self.path));
            }
            _ => {}
        }
        self.put(name, node, side)
    }

    /// Does a copy have the bytes of what one of the sets has there? If so: and its owner and mode
    /// as well?
    fn compare(&self, node: &Node, path: Option<&str>) -> Result<Option<bool>, CarryError> {
        let Some(path) = path else { return Ok(None) };
        let both = [self.judge.old(path), self.judge.new_entry(path)];
        for entry in both.into_iter().flatten() {
            let TreeNode::File { content, size, .. } = &entry.node else { continue };
            let alike = has_content(node, *size, content.0);
            if alike.map_err(|e| self.fault("read", e))? {
                return Ok(Some(self.looks_like(node, entry)));
            }
        }
        Ok(None)
    }

    fn shadowed(&mut self, hides: Hides) {
        self.done.shadowed_count += 1;
        if self.done.shadowed.len() < LIST_MAX {
            let path = text(&self.path);
            self.done.shadowed.push(Shadowed { path, hides });
        }
    }

    fn put(&mut self, name: &[u8], node: &Node, side: Side) -> Result<(), CarryError> {
        let depth = self.levels.len();
        let key = (node.stat.st_dev, node.stat.st_ino, side);
        self.make(side, depth)?;
        let gone = || self.fault("open", Errno::NOENT);
        let parent = self.made_at(side, depth - 1).ok_or_else(gone)?;
        let linked = (node.stat.st_nlink > 1).then(|| self.links.get(&key)).flatten();
        if let Some(first) = linked {
            let root = self.made_at(side, 0).ok_or_else(gone)?;
            return Node::link(root, first, parent, name).map_err(|e| self.fault("link", e));
        }
        let left = self.bytes_max.saturating_sub(self.done.bytes);
        let copied = match node.copy(parent, name, left) {
            Ok(copied) => copied,
            Err(Errno::FBIG) => return Err(CarryError::Bound("bytes", self.bytes_max)),
            Err(e) => return Err(self.fault("copy", e)),
        };
        self.done.bytes += copied.unwrap_or(0);
        let length = self.path.len();
        let fits = length <= LINK_PATH_MAX && self.link_paths + length <= LINK_PATHS_MAX;
        if copied.is_some() && node.stat.st_nlink > 1 && fits {
            self.link_paths += length;
            self.links.insert(key, self.path.clone());
        }
        Ok(())
    }

    fn made_at(&self, side: Side, depth: usize) -> Option<BorrowedFd<'_>> {
        let level = self.levels.get(depth)?;
        match side {
            Side::Layer => level.layer.as_ref().map(AsFd::as_fd),
            Side::Aside => level.aside.as_ref().map(AsFd::as_fd),
        }
    }

    /// Makes copies of the first `depth` levels, where they are missing.
    fn make(&mut self, side: Side, depth: usize) -> Result<(), CarryError> {
        for at in 1..depth {
            if self.made_at(side, at).is_some() {
                continue;
            }
            let (Some(parent), Some(level)) = (self.made_at(side, at - 1), self.levels.get(at))
            else {
                continue;
            };
            let fd = make_dir(parent, &level.name, &level.node)
                .map_err(|e| self.fault("make the folder of", e))?;
            if let Some(level) = self.levels.get_mut(at) {
                match side {
                    Side::Layer => level.layer = Some(fd),
                    Side::Aside => level.aside = Some(fd),
                }
            }
        }
        Ok(())
    }
}

fn make_dir(parent: BorrowedFd<'_>, name: &[u8], like: &Node) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    like.dress_dir(&fd)?;
    Ok(fd)
}

/// Does the folder replace the one beneath it?
fn is_opaque(node: &Node) -> bool {
    node.kind() == FileType::Directory
        && node.xattr::<8>("trusted.overlay.opaque").is_some_and(|v| v == b"y")
}

/// Paths of a layer that changed after a moment of its file system's clock, `LIST_MAX` at most.
pub(super) fn changed_since(from: &OwnedFd, since: (i64, u64)) -> Result<Vec<String>, Errno> {
    let mut found = Vec::new();
    let mut entries = 0;
    look(from, &mut Vec::new(), 0, since, &mut (&mut found, &mut entries))?;
    Ok(found)
}

fn look(
    folder: &OwnedFd,
    path: &mut Vec<u8>,
    depth: usize,
    since: (i64, u64),
    found: &mut (&mut Vec<String>, &mut u64),
) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        *found.1 += 1;
        if *found.1 > ENTRIES_MAX || depth > DEPTH_MAX || found.0.len() >= LIST_MAX {
            return Ok(());
        }
        let Some(node) = Node::open(folder.as_fd(), name)? else { continue };
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if (node.stat.st_ctime, node.stat.st_ctime_nsec) > since {
            found.0.push(text(path));
        }
        if node.kind() == FileType::Directory {
            look(&node.read_dir()?, path, depth + 1, since, found)?;
        }
        path.truncate(length);
    }
    Ok(())
}
