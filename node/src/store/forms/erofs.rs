//! The forms `metadata` and `image`: the merged tree as an image of the file system EROFS.
//!
//! `metadata` is a file: names and inodes, whose regular files lead overlayfs to objects of the
//! store. `image` is a folder with one file, [`IMAGE`], that also holds every content, once and
//! page-aligned, for guests with a kernel of their own. What stands where is decided by the pure
//! room `erofs`; here it is written, durably, and read again for `stork verify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fchmod, mkdirat, openat};
use rustix::io::Errno;
use stork_wire::ids::ContentId;
use stork_wire::manifest::{Tree, TreeEntry, TreeNode};

use super::super::db::OBJECTS;
use super::super::fresh::Kind;
use super::super::merge::SetError;
use super::super::objects::{ObjectKey, ObjectRow};
use super::super::sets::SetInfo;
use super::super::write::{self, Fault, NewFile};
use super::super::{SetForm, Store, StoreError, shard};
use crate::erofs::{self, BLOCK, ErofsError, Files, HOLE, Plan, Run};
use crate::failpoint;

/// The name of the image in its folder.
pub const IMAGE: &str = "image.erofs";

/// Images are as long as a multiple of this: the unit in which guests map persistent memory.
pub const IMAGE_ALIGN: u64 = 2 * 1024 * 1024;

const HOLE_LEN: usize = 32 * 1024;
const _: () = assert!(HOLE_LEN as u64 == HOLE);

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// The objects of a tree.
struct Objects<'a> {
    by_path: BTreeMap<&'a str, ObjectKey>,
    /// Any object of a content has its bytes.
    by_content: BTreeMap<ContentId, ObjectKey>,
}

type Holes = BTreeMap<ContentId, Vec<Range<u64>>>;

impl<'a> Objects<'a> {
    /// What a tree wants; nobody has looked yet whether it is here.
    fn of(tree: &'a Tree) -> Self {
        let (mut by_path, mut by_content) = (BTreeMap::new(), BTreeMap::new());
        for entry in &tree.entries {
            let Some(row) = ObjectRow::of(entry) else { continue };
            let key = row.key();
            by_path.insert(entry.path.as_str(), key);
            by_content.entry(row.content).or_insert(key);
        }
        Self { by_path, by_content }
    }

    /// An image of names, whose files overlayfs finds from the top of the objects.
    fn metadata(&self, tree: &Tree) -> Result<Plan, ErofsError> {
        let beside = |entry: &TreeEntry| {
            let key = self.by_path.get(entry.path.as_str());
            let (folder, rest) = key.map(|key| shard(&key.0)).unwrap_or_default();
            format!("/{folder}/{rest}")
        };
        erofs::plan(tree, Files::Beside(&beside), BLOCK)
    }
}

/// The parts of a file that are no holes of an image; none where all of it is. What counts is the
/// bytes, so that every host and every disk gives the same image; the disk's own holes only save
/// reading.
fn data_of(path: &Path) -> io::Result<Option<Vec<Range<u64>>>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut out: Vec<Range<u64>> = Vec::new();
    let (mut at, mut buffer) = (0, vec![0; HOLE_LEN]);
    while at < len {
        let end = (at + HOLE).min(len);
        let part = usize::try_from(end - at).unwrap_or(HOLE_LEN);
        let part = buffer.get_mut(..part).unwrap_or_default();
        file.read_exact_at(part, at)?;
        if part.iter().any(|byte| *byte != 0) {
            match out.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => out.push(at..end),
            }
            at = end;
            continue;
        }
        at = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(end)) {
            Ok(data) => data.max(end) / HOLE * HOLE,
            Err(Errno::NXIO) => len,
            Err(_) => end,
        };
    }
    let whole = out.first().is_some_and(|first| *first == (0..len));
    Ok(Some(out).filter(|_| !whole && len > 0))
}

/// Copies bytes inside the kernel, sharing blocks where the disk can.
fn copy(run: &Run, from: &Path, to: &File) -> io::Result<()> {
    let (mut source, mut target) = (File::open(from)?, to);
    source.seek(SeekFrom::Start(run.from))?;
    target.seek(SeekFrom::Start(run.at))?;
    let copied = io::copy(&mut source.take(run.len), &mut target)?;
    if copied == run.len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Store {
    /// The objects of a tree, all of which must be here, asked of the database at once.
    fn objects_of<'a>(&self, tree: &'a Tree) -> Result<Objects<'a>, SetError> {
        let objects = Objects::of(tree);
        for key in objects.by_path.values() {
            self.touch(Kind::Object, &key.0);
        }
        let missing = self.read(|tx| {
            let table = tx.open_table(OBJECTS)?;
            for (path, key) in &objects.by_path {
                if table.get(key.0.as_slice())?.is_none() {
                    return Ok(Some(*path));
                }
            }
            Ok(None)
        })?;
        match missing {
            Some(path) => Err(SetError::Incomplete { package: path.to_owned() }),
            None => Ok(objects),
        }
    }

    fn holes_of(&self, objects: &Objects<'_>) -> Result<Holes, StoreError> {
        let mut holes = Holes::new();
        for (content, object) in &objects.by_content {
            let path = self.object_path(*object);
            let data = data_of(&path).map_err(|e| self.fault(Fault::new("read", &path, e)))?;
            holes.extend(data.map(|data| (*content, data)));
        }
        Ok(holes)
    }

    /// A new file beside `dest` that begins with the metadata of an image.
    fn begin(&self, plan: &Plan, dest: &Path) -> Result<NewFile, StoreError> {
        self.check_latch()?;
        self.check_free(plan.len, self.options.min_free_bytes)?;
        let folder = dest.parent().unwrap_or(&self.dir);
        let mut file = NewFile::create(folder).map_err(|f| self.fault(f))?;
        file.write(&plan.metadata).map_err(|f| self.fault(f))?;
        Ok(file)
    }

    /// Makes the file read-only and durable, and gives it its name.
    fn finish(&self, file: NewFile, dest: &Path) -> Result<(), StoreError> {
        let mode = Mode::from_raw_mode(0o444);
        fchmod(file.file(), mode)
            .map_err(|e| self.fault(Fault::new("set the mode of", dest, e)))?;
        file.sync().and_then(|()| file.replace(dest)).map_err(|f| self.fault(f))
    }

    pub(super) fn build_metadata(&self, tree: &Tree, dest: &Path) -> Result<(), SetError> {
        let plan = self.objects_of(tree)?.metadata(tree)?;
        let file = self.begin(&plan, dest)?;
        failpoint::hit("store.set.half_linked");
        Ok(self.finish(file, dest)?)
    }

    pub(super) fn build_image(&self, tree: &Tree, dest: &Path) -> Result<(), SetError> {
        let objects = self.objects_of(tree)?;
        let holes = self.holes_of(&objects)?;
        let plan = erofs::plan(tree, Files::Inside(&holes), IMAGE_ALIGN)?;
        mkdirat(CWD, dest, Mode::RWXU)
            .map_err(|e| self.fault(Fault::new("make the folder", dest, e)))?;
        let built = self.fill_image(&plan, &objects, &dest.join(IMAGE), dest);
        if built.is_err()
            && let Err(f) = write::remove_any(dest)
        {
            tracing::warn!(path = %dest.display(), error = %f.source, "a half-built image stays");
        }
        Ok(built?)
    }

    fn fill_image(
        &self,
        plan: &Plan,
        objects: &Objects<'_>,
        path: &Path,
        folder: &Path,
    ) -> Result<(), StoreError> {
        let file = self.begin(plan, path)?;
        let half = plan.runs.len() / 2;
        for (i, run) in plan.runs.iter().enumerate() {
            let object =
                objects.by_content.get(&run.content).ok_or(StoreError::NoContent(run.content))?;
            let from = self.object_path(*object);
            copy(run, &from, file.file())
                .map_err(|e| self.fault(Fault::new("copy into an image", &from, e)))?;
            if i == half {
                failpoint::hit("store.set.half_linked");
            }
        }
        let grown = file.file().set_len(plan.len);
        grown.map_err(|e| self.fault(Fault::new("write", path, e)))?;
        self.finish(file, path)?;
        // Whoever runs the guest may be another user than ours.
        let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, folder, open, Mode::empty())
            .and_then(|fd| fchmod(fd, Mode::from_raw_mode(0o755)))
            .map_err(|e| self.fault(Fault::new("set the mode of", folder, e)))?;
        write::sync_dir(folder).map_err(|f| self.fault(f))
    }

    /// Are the bytes of a set of these forms still those that its tree gives? Contents in an image
    /// are hashed again.
    pub(super) fn image_whole(&self, set: &SetInfo) -> Result<bool, StoreError> {
        let Some(tree) = self.set_tree(set.id)? else { return Ok(false) };
        let (plan, path) = if set.form == SetForm::Metadata {
            (Objects::of(&tree).metadata(&tree), set.path.clone())
        } else {
            // Holes are found in the objects again. Where one of them is damaged or gone, the set
            // is moved away for that, and what is said here is moot.
            let Ok(objects) = self.objects_of(&tree) else { return Ok(true) };
            let Ok(holes) = self.holes_of(&objects) else { return Ok(true) };
            (erofs::plan(&tree, Files::Inside(&holes), IMAGE_ALIGN), set.path.join(IMAGE))
        };
        let Ok(plan) = plan else { return Ok(false) };
        Ok(is_image(&plan, &tree, &path).unwrap_or(false))
    }
}

/// Does the file hold this image?
fn is_image(plan: &Plan, tree: &Tree, path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != plan.len {
        return Ok(false);
    }
    let mut buffer = vec![0; CHUNK];
    for part in plan.metadata.chunks(CHUNK) {
        let Some(read) = buffer.get_mut(..part.len()) else { return Ok(false) };
        file.read_exact(read)?;
        if read != part {
            return Ok(false);
        }
    }
    let sizes: BTreeMap<ContentId, u64> = tree
        .entries
        .iter()
        .filter_map(|e| match &e.node {
            TreeNode::File { content, size, .. } => Some((*content, *size)),
            _ => None,
        })
        .collect();
    // The runs of one content follow each other.
    for runs in plan.runs.chunk_by(|a, b| a.content == b.content) {
        let Some(content) = runs.first().map(|r| r.content) else { continue };
        let size = sizes.get(&content).copied().unwrap_or(0);
        if hash_of(runs, size, &mut file, &mut buffer)? != content.0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The hash of a content of `size` bytes that stands in these runs, with zeros between them.
fn hash_of(runs: &[Run], size: u64, file: &mut File, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let zeros = |hasher: &mut blake3::Hasher, end: u64| {
        io::copy(&mut io::repeat(0).take(end.saturating_sub(hasher.count())), hasher).map(drop)
    };
    for run in runs {
        zeros(&mut hasher, run.from)?;
        file.seek(SeekFrom::Start(run.at))?;
        let mut rest = file.by_ref().take(run.len);
        loop {
            let n = rest.read(buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
    }
    zeros(&mut hasher, size)?;
    Ok(*hasher.finalize().as_bytes())
}
