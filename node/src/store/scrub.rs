//! Looking at everything again by and by: the slow form of a verification, which never ends.
//!
//! A round goes through the folders of objects, packs and manifests, then through the sets. Each
//! call of [`Store::scrub`] reads a bounded number of bytes, so that its caller decides how fast
//! it goes and may stop at any moment; where it stands is a small record that survives restarts.
//! Files are read around the system's cache where the file system can do that: what the disk
//! holds is looked at, and nothing that VMs use is pushed out of memory. (`stork store verify`
//! reads through the cache, and so sees what VMs see.)
//!
//! Between rounds only sizes, owners, modes and times are compared, which costs no reading:
//! [`Store::glance`].

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use stork_wire::codec::encode;
use stork_wire::ids::{ManifestId, PackId};

use super::db::{self, MANIFESTS, OBJECTS, STATE, first_id};
use super::objects::{ObjectKey, ObjectRow};
use super::packs::StoredFile;
use super::verify::hash_twice;
use super::{Damage, Store, StoreError, VerifyReport};

/// Folders of each kind.
const SHARDS: u16 = 256;
/// The kinds of files, in the order of a round.
const KINDS: [&str; 3] = ["objects", "packs", "manifests"];
/// The place after all folders: package sets.
const SETS_AT: u16 = SHARDS * 3;
/// The row of the record.
const ROW: &[u8] = b"scrub";
/// Reading around the cache wants memory and places that are multiples of this.
const ALIGN: usize = 4096;
/// Bytes that one call reads at the most.
pub const SCRUB_STEP: usize = 1 << 20;

/// How far the scrub is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubPlace {
    /// The round, from 1; 0: none was begun.
    pub round: u64,
    /// When it began, in seconds since 1970.
    pub begun: u64,
    /// Bytes that there were when it began.
    pub total: u64,
    /// Bytes looked at in it.
    pub bytes: u64,
    /// Damaged things found in it.
    pub damaged: u64,
    /// When a whole round ended last, in seconds since 1970; 0: never.
    pub finished: u64,
    /// The folder that is next, by its number in a round.
    folder: u16,
    /// The last file of it that is behind.
    after: String,
}

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubStep {
    /// Bytes that were read.
    pub bytes: u64,
    /// What was damaged, and is no longer in the store.
    pub damaged: Vec<Damage>,
    /// Somebody else needs the store now: nothing was done.
    pub busy: bool,
    /// Nothing is left to look at in this round.
    pub round_done: bool,
}

/// A file that is being read.
struct Reading {
    file: StoredFile,
    open: File,
    hasher: blake3::Hasher,
    at: u64,
}

/// A scrub: where it is, and the file that it has open.
pub struct Scrub {
    place: ScrubPlace,
    listed: Option<std::vec::IntoIter<StoredFile>>,
    reading: Option<Reading>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Opens a file to be read around the cache, or as usual where that is not possible.
pub(super) fn open_direct(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = openat(CWD, path, flags | OFlags::DIRECT, Mode::empty());
    let opened = opened.or_else(|_| openat(CWD, path, flags, Mode::empty()))?;
    Ok(opened.into())
}

/// A buffer in which [`read_direct`] finds an aligned part of `len` bytes.
pub(super) fn direct_buffer(len: usize) -> Vec<u8> {
    vec![0; len + ALIGN]
}

/// Reads at an aligned place of a file; 0 bytes: its end.
pub(super) fn read_direct<'a>(
    path: &Path,
    file: &mut File,
    at: u64,
    buffer: &'a mut [u8],
) -> std::io::Result<&'a [u8]> {
    let len = buffer.len().saturating_sub(ALIGN);
    let start = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
    let part = buffer.get_mut(start..start + len).unwrap_or_default();
    let read = match file.read_at(part, at) {
        // The file system took the flag and still cannot do it here.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
            *file = File::open(path)?;
            file.read_at(part, at)?
        }
        read => read?,
    };
    Ok(part.get(..read).unwrap_or_default())
}

impl Scrub {
    /// How far it is.
    #[must_use]
    pub const fn place(&self) -> &ScrubPlace {
        &self.place
    }

    /// Begins the next round.
    pub fn begin_round(&mut self, now_unix: u64, total: u64) {
        let (round, finished) = (self.place.round + 1, self.place.finished);
        self.place =
            ScrubPlace { round, begun: now_unix, total, finished, ..ScrubPlace::default() };
        (self.listed, self.reading) = (None, None);
    }

    /// Notes that the round is at its end.
    pub fn end_round(&mut self, now_unix: u64) {
        self.place.finished = now_unix;
    }

    fn next_folder(&mut self) {
        self.listed = None;
        self.place.folder += 1;
        self.place.after.clear();
    }

    fn behind(&mut self, file: &StoredFile) {
        let name = file.path.file_name();
        self.place.after = name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    }
}

impl Store {
    /// Goes on where the last scrub of this store stood.
    pub fn scrub_begin(&self) -> Result<Scrub, StoreError> {
        let place = self.record(STATE, ROW)?.unwrap_or_default();
        Ok(Scrub { place, listed: None, reading: None, buffer: direct_buffer(SCRUB_STEP) })
    }

    /// Keeps where the scrub is. A file that is half read is read again after a restart.
    pub fn scrub_keep(&self, scrub: &Scrub) -> Result<(), StoreError> {
        self.put_row(STATE, ROW, &encode(&scrub.place))
    }

    /// Bytes that a round looks at. Walks the folders.
    pub fn scrub_total(&self) -> Result<u64, StoreError> {
        let mut total = 0;
        for kind in KINDS {
            total += self.files_of(kind)?.iter().map(|f| f.bytes).sum::<u64>();
        }
        Ok(total)
    }

    /// Looks at the next [`SCRUB_STEP`] bytes at the most. It does nothing while a release is
    /// unpacked, a set is built or the store is collected: they need the disk more.
    pub fn scrub(&self, scrub: &mut Scrub) -> Result<ScrubStep, StoreError> {
        let mut step = ScrubStep::default();
        self.check_latch()?;
        let Some(_one) = self.quiet() else { return Ok(ScrubStep { busy: true, ..step }) };
        if let Some(reading) = scrub.reading.take() {
            self.scrub_read(scrub, reading, &mut step)?;
        } else if scrub.place.folder >= SETS_AT {
            step.damaged = self.scrub_sets()?;
            step.round_done = true;
        } else if let Some(file) = self.scrub_next(scrub, &mut step)? {
            self.scrub_file(scrub, file, &mut step)?;
        }
        scrub.place.bytes += step.bytes;
        scrub.place.damaged += step.damaged.len() as u64;
        Ok(step)
    }

    /// The lock of those that look at everything, if nobody needs the disk more at this moment.
    fn quiet(&self) -> Option<MutexGuard<'_, ()>> {
        let one = match self.sweeping.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let free = |lock: &Mutex<()>| !matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        (free(&self.unpacking) && free(&self.building)).then_some(one)
    }

    /// Begins with a file.
    fn scrub_file(
        &self,
        scrub: &mut Scrub,
        file: StoredFile,
        step: &mut ScrubStep,
    ) -> Result<(), StoreError> {
        if file.path.starts_with(self.dir.join("manifests")) {
            // They are small, and have a rule of their own.
            step.bytes = file.bytes;
            return self.scrub_suspect(scrub, &file, step);
        }
        match open_direct(&file.path) {
            Ok(open) => {
                let hasher = blake3::Hasher::new();
                self.scrub_read(scrub, Reading { file, open, hasher, at: 0 }, step)
            }
            Err(_) => self.scrub_suspect(scrub, &file, step),
        }
    }

    /// The next file of the folder; a new folder is listed, and its rows are compared first.
    fn scrub_next(
        &self,
        scrub: &mut Scrub,
        step: &mut ScrubStep,
    ) -> Result<Option<StoredFile>, StoreError> {
        let (kind, shard) = (scrub.place.folder / SHARDS, scrub.place.folder % SHARDS);
        let shard = u8::try_from(shard).unwrap_or(0);
        if scrub.listed.is_none() {
            let kind = KINDS.get(usize::from(kind)).copied().unwrap_or("objects");
            if kind == "objects" {
                step.damaged = self.glance_locked(shard)?;
            }
            let mut files = self.files_in(kind, shard)?;
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let after = &scrub.place.after;
            let new =
                |f: &StoredFile| f.path.file_name().is_some_and(|n| *n.to_string_lossy() > **after);
            files.retain(new);
            scrub.listed = Some(files.into_iter());
        }
        let next = scrub.listed.as_mut().and_then(Iterator::next);
        if next.is_none() {
            scrub.next_folder();
        }
        Ok(next)
    }

    fn scrub_read(
        &self,
        scrub: &mut Scrub,
        mut reading: Reading,
        step: &mut ScrubStep,
    ) -> Result<(), StoreError> {
        let path = reading.file.path.clone();
        let read = read_direct(&path, &mut reading.open, reading.at, &mut scrub.buffer);
        let len = match read {
            Ok(part) => {
                reading.hasher.update(part);
                part.len() as u64
            }
            Err(_) => return self.scrub_suspect(scrub, &reading.file, step),
        };
        reading.at += len;
        step.bytes += len;
        if len > 0 && reading.at < reading.file.bytes {
            scrub.reading = Some(reading);
            return Ok(());
        }
        let hash = *reading.hasher.finalize().as_bytes();
        if self.scrub_right(&reading.file, hash)? {
            scrub.behind(&reading.file);
            return Ok(());
        }
        self.scrub_suspect(scrub, &reading.file, step)
    }

    /// Is this the hash that the file should have? What nothing claims is a collection's affair.
    fn scrub_right(&self, file: &StoredFile, hash: [u8; 32]) -> Result<bool, StoreError> {
        if !self.is_object(file) {
            return Ok(hash == file.id);
        }
        let row: Option<ObjectRow> = self.record(OBJECTS, &file.id)?;
        Ok(row.is_none_or(|row| row.content.0 == hash))
    }

    fn is_object(&self, file: &StoredFile) -> bool {
        file.path.starts_with(self.dir.join("objects"))
    }

    /// A file that is not right, or cannot be read: it is looked at once more as a whole, and what
    /// is damaged leaves the store.
    fn scrub_suspect(
        &self,
        scrub: &mut Scrub,
        file: &StoredFile,
        step: &mut ScrubStep,
    ) -> Result<(), StoreError> {
        scrub.behind(file);
        let mut report = VerifyReport::default();
        if self.is_object(file) {
            let mut damaged = BTreeSet::new();
            self.verify_object(file, &mut report, &mut damaged, &hash_twice)?;
            self.retire(&damaged, &mut report)?;
        } else if file.path.starts_with(self.dir.join("packs")) {
            self.verify_pack(PackId(file.id), &file.path, &mut report, &hash_twice)?;
        } else {
            self.verify_manifest(ManifestId(file.id), &mut report)?;
        }
        step.damaged.append(&mut report.damaged);
        Ok(())
    }

    /// Rows of manifests without files, and the records of sets.
    fn scrub_sets(&self) -> Result<Vec<Damage>, StoreError> {
        let mut report = VerifyReport::default();
        for (key, _) in self.rows(MANIFESTS)? {
            if let Some(id) = first_id(&key).map(ManifestId)
                && !self.manifest_path(id).exists()
            {
                self.verify_manifest(id, &mut report)?;
            }
        }
        self.verify_sets(&BTreeSet::new(), &mut report)?;
        Ok(report.damaged)
    }

    /// Compares the objects of one of 256 folders with their rows, without reading them: size,
    /// owner, mode, time, and whether they are there. What differs leaves the store.
    pub fn glance(&self, shard: u8) -> Result<ScrubStep, StoreError> {
        self.check_latch()?;
        let step = ScrubStep::default();
        let Some(_one) = self.quiet() else { return Ok(ScrubStep { busy: true, ..step }) };
        Ok(ScrubStep { damaged: self.glance_locked(shard)?, ..step })
    }

    fn glance_locked(&self, shard: u8) -> Result<Vec<Damage>, StoreError> {
        let mut report = VerifyReport::default();
        let mut damaged = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for file in self.files_in("objects", shard)? {
            let id = ObjectKey(file.id);
            seen.insert(id);
            let row: Option<ObjectRow> = self.record(OBJECTS, &file.id)?;
            let Some(row) = row else { continue };
            if self.looks_wrong(&file, &row).is_some() {
                self.verify_object(&file, &mut report, &mut damaged, &hash_twice)?;
            }
        }
        let rows: Vec<db::Row> = self.rows_of(OBJECTS, &[shard])?;
        for (key, value) in rows {
            let Some(id) = first_id(&key).map(ObjectKey) else { continue };
            if !seen.contains(&id) && !self.object_path(id).exists() {
                let row: ObjectRow = self.decode_row(&value)?;
                report.damaged.push(Damage::Object { content: row.content, why: "it is gone" });
                damaged.insert(id);
            }
        }
        self.retire(&damaged, &mut report)?;
        Ok(report.damaged)
    }
}
