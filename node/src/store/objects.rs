//! Objects: one immutable file for every content and metadata that some tree shows.
//!
//! Sets are made of hard links to objects, and a link shares owner, mode and time with its inode;
//! so one content with two modes is two objects. An object counts only with its row, which is
//! written after the file is durable; the file's name is a hash over content and metadata, so
//! that no two different objects can meet.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_wire::codec::encode;
use stork_wire::ids::{ContentId, TreeId, hex};
use stork_wire::manifest::{Tree, TreeEntry, TreeNode, Xattr};

use super::db::{CONTENTS, OBJECTS, TREES, after_prefix, first_id, key};
use super::fresh::Kind;
use super::write::{self, Fault, NewFile, Parked};
use super::{Store, StoreError};
use crate::failpoint;

/// Files of one batch: what a crash makes us unpack again, and rows of one transaction.
pub(super) const BATCH_FILES_MAX: usize = 4096;

/// The name of an object: a hash over its content and metadata.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey(pub(super) [u8; 32]);

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({self})")
    }
}

/// What a file has besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) xattrs: Vec<Xattr>,
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectRow {
    pub(super) content: ContentId,
    pub(super) size: u64,
    pub(super) meta: Meta,
}

impl ObjectRow {
    /// What a tree's entry wants, if it is a file.
    pub(super) fn of(e: &TreeEntry) -> Option<Self> {
        let TreeNode::File { content, size, xattrs } = &e.node else { return None };
        let meta =
            Meta { mode: e.mode, uid: e.uid, gid: e.gid, mtime: e.mtime, xattrs: xattrs.to_vec() };
        Some(Self { content: *content, size: *size, meta })
    }

    pub(super) fn key(&self) -> ObjectKey {
        let input = encode(&(self.content, &self.meta));
        ObjectKey(blake3::derive_key("stork 2026 object v1", &input))
    }
}

/// The distinct objects of a tree, in order.
pub(super) fn object_keys(tree: &Tree) -> Vec<ObjectKey> {
    let mut keys: Vec<_> = tree.entries.iter().filter_map(ObjectRow::of).map(|o| o.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The objects in a row of [`TREES`].
pub(super) fn read_keys(row: &[u8]) -> impl Iterator<Item = ObjectKey> {
    row.chunks_exact(32).filter_map(|c| first_id(c).map(ObjectKey))
}

/// Objects that are written and will become visible together.
pub(super) struct Batch<'a> {
    store: &'a Store,
    files: Vec<(Parked, ObjectKey, ObjectRow)>,
    pub(super) notes: Vec<String>,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(store: &'a Store) -> Self {
        Self { store, files: Vec::new(), notes: Vec::new() }
    }

    pub(super) const fn len(&self) -> usize {
        self.files.len()
    }

    /// Adds a file that holds the right bytes.
    pub(super) fn add(&mut self, file: NewFile, row: ObjectRow) -> Result<(), StoreError> {
        let note = file.dress(&row.meta, self.store.root).map_err(|f| self.store.fault(f))?;
        if let Some(note) = note.filter(|n| !self.notes.contains(n)) {
            self.notes.push(note);
        }
        let object = row.key();
        self.files.push((file.park(), object, row));
        Ok(())
    }

    /// A further object with the bytes of one that is here or in this batch.
    pub(super) fn add_copy(&mut self, row: ObjectRow) -> Result<(), StoreError> {
        let here = self.files.iter().find(|(_, _, r)| r.content == row.content);
        let from = match here {
            Some((parked, _, _)) => parked.path().to_owned(),
            None => self.store.content_path(row.content)?,
        };
        let mut file = self.store.new_object_file()?;
        file.copy_from(&from).map_err(|f| self.store.fault(f))?;
        self.add(file, row)
    }

    /// Makes all files durable, names them, and then writes their rows in one transaction.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        let files = std::mem::take(&mut self.files);
        if files.is_empty() {
            return Ok(());
        }
        let store = self.store;
        let fault = |f: Fault| store.fault(f);
        let parked: Vec<&Parked> = files.iter().map(|(parked, _, _)| parked).collect();
        write::sync_files(&parked).map_err(fault)?;
        let mut rows = Vec::with_capacity(files.len());
        let mut folders = BTreeSet::new();
        for (parked, object, row) in files {
            let path = store.object_path(object);
            parked.replace(&path).map_err(fault)?;
            failpoint::hit("store.unpack.object");
            folders.extend(path.parent().map(Path::to_owned));
            rows.push((object, row));
        }
        folders.iter().try_for_each(|folder| write::sync_dir(folder)).map_err(fault)?;
        failpoint::hit("store.unpack.before_rows");
        store.write(|tx| {
            let mut objects = tx.open_table(OBJECTS)?;
            let mut contents = tx.open_table(CONTENTS)?;
            for (object, row) in &rows {
                objects.insert(object.0.as_slice(), encode(row).as_slice())?;
                contents
                    .insert(key(row.content.as_bytes(), &object.0).as_slice(), [].as_slice())?;
            }
            Ok(())
        })
    }
}

impl Store {
    pub(super) fn object_path(&self, object: ObjectKey) -> PathBuf {
        self.sharded("objects", &object.0)
    }

    pub(super) fn new_object_file(&self) -> Result<NewFile, StoreError> {
        self.check_latch()?;
        NewFile::create(&self.dir.join("objects/tmp")).map_err(|f| self.fault(f))
    }

    /// Is the object here? What is said to be here is not swept while anybody holds.
    pub(super) fn has_object(&self, object: ObjectKey) -> Result<bool, StoreError> {
        self.touch(Kind::Object, &object.0);
        Ok(self.row(OBJECTS, &object.0)?.is_some())
    }

    /// The first of these objects that is not here. One look at the database for all of them.
    pub(super) fn first_missing(
        &self,
        objects: &[ObjectKey],
    ) -> Result<Option<ObjectKey>, StoreError> {
        objects.iter().for_each(|object| self.touch(Kind::Object, &object.0));
        self.read(|tx| {
            let table = tx.open_table(OBJECTS)?;
            for object in objects {
                if table.get(object.0.as_slice())?.is_none() {
                    return Ok(Some(*object));
                }
            }
            Ok(None)
        })
    }

    /// Some object with this content.
    pub(super) fn object_of(
        &self,
        content: ContentId,
    ) -> Result<Option<(ObjectKey, ObjectRow)>, StoreError> {
        let prefix = content.as_bytes().as_slice();
        let end = after_prefix(prefix);
        let object = self.read(|tx| {
            let table = tx.open_table(CONTENTS)?;
            let mut rows = match &end {
                Some(end) => table.range(prefix..end.as_slice())?,
                None => table.range(prefix..)?,
            };
            let Some(row) = rows.next() else { return Ok(None) };
            Ok(row?.0.value().get(32..).and_then(first_id).map(ObjectKey))
        })?;
        let Some(object) = object else { return Ok(None) };
        self.touch(Kind::Object, &object.0);
        Ok(self.record(OBJECTS, &object.0)?.map(|row| (object, row)))
    }

    /// One object of each content that has one of these sizes, and where it lies. Reads all rows.
    pub fn of_sizes(
        &self,
        sizes: &BTreeSet<u64>,
    ) -> Result<Vec<(u64, ContentId, PathBuf)>, StoreError> {
        let mut found: std::collections::BTreeMap<ContentId, (u64, ObjectKey)> =
            std::collections::BTreeMap::new();
        for (key, value) in self.rows(OBJECTS)? {
            let row: ObjectRow = self.decode_row(&value)?;
            if let Some(id) = first_id(&key).filter(|_| sizes.contains(&row.size)) {
                found.entry(row.content).or_insert((row.size, ObjectKey(id)));
            }
        }
        let place = |(content, (size, key))| (size, content, self.object_path(key));
        Ok(found.into_iter().map(place).collect())
    }

    /// Is a file with these bytes here?
    pub fn has_content(&self, content: ContentId) -> Result<bool, StoreError> {
        Ok(self.object_of(content)?.is_some())
    }

    pub(super) fn content_path(&self, content: ContentId) -> Result<PathBuf, StoreError> {
        let (object, _) = self.object_of(content)?.ok_or(StoreError::NoContent(content))?;
        Ok(self.object_path(object))
    }

    /// The bytes of a content, checked against its id.
    pub fn read_content(&self, content: ContentId) -> Result<Vec<u8>, StoreError> {
        let path = self.content_path(content)?;
        let bytes = std::fs::read(&path).map_err(|e| self.fault(Fault::new("read", &path, e)))?;
        if ContentId::of(&bytes) == content {
            Ok(bytes)
        } else {
            Err(StoreError::DamagedContent(content))
        }
    }

    /// Makes sure that a file entry's object is here, from any object with the same content.
    pub fn ensure_variant(&self, entry: &TreeEntry) -> Result<Option<ObjectKey>, StoreError> {
        let Some(row) = ObjectRow::of(entry) else { return Ok(None) };
        let object = row.key();
        if !self.has_object(object)? {
            let mut batch = Batch::new(self);
            batch.add_copy(row)?;
            batch.commit()?;
        }
        Ok(Some(object))
    }

    /// Is every file of the tree here?
    pub fn tree_complete(&self, tree: TreeId) -> Result<bool, StoreError> {
        self.touch(Kind::Tree, tree.as_bytes());
        Ok(self.row(TREES, tree.as_bytes())?.is_some())
    }

    /// Notes that every file of the tree is here.
    ///
    /// # Errors
    /// [`StoreError::TreeIncomplete`] where one is not.
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeId, StoreError> {
        for entry in &tree.entries {
            if let Some(row) = ObjectRow::of(entry)
                && !self.has_object(row.key())?
            {
                return Err(StoreError::TreeIncomplete { path: entry.path.to_string() });
            }
        }
        let id = tree.id();
        self.touch(Kind::Tree, id.as_bytes());
        let keys: Vec<u8> = object_keys(tree).iter().flat_map(|k| k.0).collect();
        self.put_row(TREES, id.as_bytes(), &keys)?;
        Ok(id)
    }
}
