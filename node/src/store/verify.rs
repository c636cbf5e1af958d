//! Hashing everything again: what a disk changed is moved away and forgotten, so that it is
//! fetched again, and never served or shown as if it were whole.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use stork_wire::ids::{ContentId, ManifestId, PackId, TreeId};

use super::db::{self, MANIFESTS, OBJECTS, TREES, first_id};
use super::merge::{SetId, set_id};
use super::objects::{ObjectKey, ObjectRow, object_keys, read_keys};
use super::packs::StoredFile;
use super::scrub::{direct_buffer, open_direct, read_direct};
use super::write;
use super::{Store, StoreError, lock};

/// One damaged thing, which is no longer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A file with other bytes or other metadata than it should have, or none at all.
    Object {
        /// The content that it should hold.
        content: ContentId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A pack with other bytes.
    Pack(PackId),
    /// A manifest with other bytes, or none at all.
    Manifest(ManifestId),
    /// A tree that is no longer complete.
    Tree(TreeId),
    /// A package set that showed a damaged file and is to be built and shown again.
    Set(SetId),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { content, why } => write!(f, "content {content}: {why}"),
            Self::Pack(id) => write!(f, "pack {id}: other bytes"),
            Self::Manifest(id) => write!(f, "manifest {id}: other bytes, or gone"),
            Self::Tree(id) => write!(f, "tree {id}: no longer complete"),
            Self::Set(id) => write!(f, "set {id}: built from damaged files"),
        }
    }
}

/// Bytes that are read before they are hashed.
const CHUNK: usize = 1 << 20;

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifying {
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes that there were when it began.
    pub total: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Objects looked at.
    pub objects: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Manifests looked at.
    pub manifests: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What was damaged.
    pub damaged: Vec<Damage>,
    /// Where the damaged files are now.
    pub quarantine: PathBuf,
}

/// How a file is hashed; `None` where it cannot be read.
pub(super) type HashOf<'a> = &'a dyn Fn(&Path) -> Option<[u8; 32]>;

/// Hashes a file, first as the disk has it and then as the system's cache shows it: `None` where
/// the two differ, or it cannot be read.
pub(super) fn hash_twice(path: &Path) -> Option<[u8; 32]> {
    let mut file = open_direct(path).ok()?;
    let mut buffer = direct_buffer(CHUNK);
    let mut hasher = blake3::Hasher::new();
    loop {
        match read_direct(path, &mut file, hasher.count(), &mut buffer).ok()? {
            [] => break,
            part => hasher.update(part),
        };
    }
    let hash = *hasher.finalize().as_bytes();
    hash_file(path, &|_| {}).filter(|shown| *shown == hash)
}

/// Hashes a file, and tells after each chunk how many of its bytes are done.
fn hash_file(path: &Path, done: &dyn Fn(u64)) -> Option<[u8; 32]> {
    let mut file = File::open(path).ok()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(*hasher.finalize().as_bytes()),
            Ok(n) => hasher.update(buffer.get(..n)?),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        done(hasher.count());
    }
}

impl Store {
    /// Hashes every object, pack and manifest again and removes what is damaged. `progress` is
    /// told how far it is: at once, within large files, and at the end.
    pub fn verify(&self, progress: &dyn Fn(Verifying)) -> Result<VerifyReport, StoreError> {
        let _one = lock(&self.sweeping);
        self.check_latch()?;
        let quarantine = self.dir.join("quarantine");
        let mut report = VerifyReport { quarantine, ..VerifyReport::default() };
        let (objects, packs) = (self.files_of("objects")?, self.files_of("packs")?);
        let manifests = self.manifest_ids()?;
        let sizes = manifests.iter().filter_map(|id| self.manifest_path(*id).metadata().ok());
        let total = objects.iter().chain(&packs).map(|f| f.bytes);
        let total = total.chain(sizes.map(|m| m.len())).sum();
        let at = |bytes| progress(Verifying { bytes, total });
        at(0);
        self.verify_objects(&objects, &mut report, &at)?;
        for file in packs {
            let before = report.bytes;
            report.packs += 1;
            report.bytes += file.bytes;
            let hash = |path: &Path| hash_file(path, &|n| at(before + n));
            self.verify_pack(PackId(file.id), &file.path, &mut report, &hash)?;
        }
        for id in manifests {
            report.manifests += 1;
            report.bytes += self.verify_manifest(id, &mut report)?;
        }
        at(report.bytes);
        Ok(report)
    }

    /// Hashes a pack, and moves it away if it is damaged.
    pub(super) fn verify_pack(
        &self,
        id: PackId,
        path: &Path,
        report: &mut VerifyReport,
        hash: HashOf<'_>,
    ) -> Result<(), StoreError> {
        if hash(path) != Some(id.0) && path.exists() {
            self.quarantine(path, "pack")?;
            report.damaged.push(Damage::Pack(id));
        }
        Ok(())
    }

    /// Hashes a manifest, and moves it away if it is damaged; returns its size.
    pub(super) fn verify_manifest(
        &self,
        id: ManifestId,
        report: &mut VerifyReport,
    ) -> Result<u64, StoreError> {
        let bytes = std::fs::read(self.manifest_path(id)).unwrap_or_default();
        // A manifest that was swept meanwhile has no row either.
        if ManifestId::of(&bytes) != id && self.manifest_row(id)?.is_some() {
            self.quarantine(&self.manifest_path(id), "manifest")?;
            self.write(|tx| db::remove(tx, MANIFESTS, id.as_bytes()))?;
            report.damaged.push(Damage::Manifest(id));
        }
        Ok(bytes.len() as u64)
    }

    fn verify_objects(
        &self,
        files: &[StoredFile],
        report: &mut VerifyReport,
        at: &dyn Fn(u64),
    ) -> Result<(), StoreError> {
        let mut damaged = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for file in files {
            let before = report.bytes;
            report.objects += 1;
            report.bytes += file.bytes;
            seen.insert(ObjectKey(file.id));
            let hash = |path: &Path| hash_file(path, &|n| at(before + n));
            self.verify_object(file, report, &mut damaged, &hash)?;
        }
        for (key, value) in self.rows(OBJECTS)? {
            let Some(id) = first_id(&key).map(ObjectKey) else { continue };
            if !seen.contains(&id) && !self.object_path(id).exists() {
                let row: ObjectRow = self.decode_row(&value)?;
                let why = "it is gone";
                report.damaged.push(Damage::Object { content: row.content, why });
                damaged.insert(id);
            }
        }
        self.verify_sets(&damaged, report)?;
        if damaged.is_empty() { Ok(()) } else { self.forget(&damaged, report) }
    }

    /// Looks at one file of an object as a whole, and moves it away if it is damaged.
    pub(super) fn verify_object(
        &self,
        file: &StoredFile,
        report: &mut VerifyReport,
        damaged: &mut BTreeSet<ObjectKey>,
        hash: HashOf<'_>,
    ) -> Result<(), StoreError> {
        let row: Option<ObjectRow> = self.record(OBJECTS, &file.id)?;
        // A file without a row is claimed by nobody; a collection removes it.
        let Some(row) = row else { return Ok(()) };
        if let Some(why) = self.object_damage(file, &row, hash) {
            self.quarantine(&file.path, "object")?;
            report.damaged.push(Damage::Object { content: row.content, why });
            damaged.insert(ObjectKey(file.id));
        }
        Ok(())
    }

    /// Takes damaged objects out of the store, with the sets and trees that hold them.
    pub(super) fn retire(
        &self,
        damaged: &BTreeSet<ObjectKey>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        if damaged.is_empty() {
            return Ok(());
        }
        self.verify_sets(damaged, report)?;
        self.forget(damaged, report)
    }

    /// Moves away the sets that show a damaged file, or whose own record is damaged.
    pub(super) fn verify_sets(
        &self,
        damaged: &BTreeSet<ObjectKey>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        for set in self.sets()? {
            let tree = self.set_tree(set.id).unwrap_or_default().unwrap_or_default();
            let manifests = set.members.iter().map(|m| m.1);
            let right = set_id(&set.tag, &tree, manifests) == set.id && self.form_whole(&set)?;
            if !right || object_keys(&tree).iter().any(|k| damaged.contains(k)) {
                self.quarantine_set(set.id)?;
                report.damaged.push(Damage::Set(set.id));
            }
        }
        Ok(())
    }

    fn object_damage(
        &self,
        file: &StoredFile,
        row: &ObjectRow,
        hash: HashOf<'_>,
    ) -> Option<&'static str> {
        if file.bytes != row.size {
            return Some("it has another size");
        }
        if hash(&file.path) != Some(row.content.0) {
            return Some("it has other bytes");
        }
        self.looks_wrong(file, row)
    }

    /// What can be told without reading the file.
    pub(super) fn looks_wrong(&self, file: &StoredFile, row: &ObjectRow) -> Option<&'static str> {
        if file.bytes != row.size {
            return Some("it has another size");
        }
        let Ok(meta) = file.path.symlink_metadata() else { return Some("it is gone") };
        let owner_right = !self.root || (meta.uid(), meta.gid()) == (row.meta.uid, row.meta.gid);
        // Bits beyond the permissions may have been left out where we are not root.
        let mask = if self.root { 0o7777 } else { 0o777 };
        let mode_right = meta.mode() & mask == u32::from(row.meta.mode) & mask;
        if owner_right && mode_right && meta.mtime() == row.meta.mtime {
            None
        } else {
            Some("it has another owner, mode or time")
        }
    }

    /// Forgets damaged objects, and the trees that hold them.
    fn forget(
        &self,
        damaged: &BTreeSet<ObjectKey>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        for (key, value) in self.rows(TREES)? {
            if let Some(tree) = first_id(&key).map(TreeId)
                && read_keys(&value).any(|k| damaged.contains(&k))
            {
                self.write(|tx| db::remove(tx, TREES, &key))?;
                report.damaged.push(Damage::Tree(tree));
            }
        }
        let ids: Vec<_> = damaged.iter().map(|k| k.0).collect();
        // A further copy of a damaged object was hashed too, and stays if it is whole.
        self.remove_object_rows(&ids)
    }

    fn quarantine(&self, path: &Path, kind: &str) -> Result<(), StoreError> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let unique = write::temp_name();
        let to = self.dir.join("quarantine").join(format!("{kind}-{name}{unique}"));
        if !path.exists() {
            return Ok(());
        }
        write::rename(path, &to, RenameFlags::NOREPLACE).map_err(|f| self.fault(f))
    }
}
