//! Room on the disk, and the latch: refusing work before the disk is full, and stopping all writes
//! after one whose outcome is unknown.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use stork_wire::manifest::Tree;

use super::db::COMMIT_FREE_MIN;
use super::objects::ObjectRow;
use super::write::{self, Fault};
use super::{Store, StoreError, lock};

/// Bytes of the ballast: room for many small transactions.
const BALLAST: u64 = 8 * 1024 * 1024;

/// Since when and why nothing is written any more.
#[derive(Debug, Clone)]
pub(super) struct Latch {
    since: u64,
    cause: String,
}

/// Can the store write?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Good,
    /// It only reads, until it is opened again.
    Latched {
        /// Seconds since 1970.
        since: u64,
        /// The write that failed.
        cause: String,
    },
}

/// What a fetch may take of the disk; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Store>,
    room: Room,
}

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files, each of which takes an inode.
    pub files: u64,
}

impl Reservation {
    /// Bytes still reserved.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.room.bytes
    }

    /// Gives back what was written by now, and so is no longer free anyhow.
    pub fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.room.bytes);
        self.room.bytes -= bytes;
        lock(&self.store.reserved).bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = lock(&self.store.reserved);
        reserved.bytes -= self.room.bytes;
        reserved.files -= self.room.files;
    }
}

/// Figures of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStat {
    /// Objects: one per content and metadata.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Whole packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Files of packs that are not whole.
    pub partial_packs: u64,
    /// Manifests.
    pub manifests: u64,
    /// Trees of which every file is here.
    pub trees: u64,
    /// Package sets that are built.
    pub sets: u64,
    /// Bytes of images and archives that views keep beside the objects.
    pub copy_bytes: u64,
    /// Bytes promised to fetches that run.
    pub reserved_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Inodes free on the disk.
    pub free_inodes: u64,
    /// Bytes that must stay free.
    pub floor_bytes: u64,
}

/// Seconds since 1970, for what people read.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn is_full(e: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT];
    e.raw_os_error().is_some_and(|raw| full.iter().any(|f| f.raw_os_error() == raw))
}

/// Errors of the disk itself, after which no write can be believed.
fn is_broken(e: &io::Error) -> bool {
    let broken = [Errno::IO, Errno::ROFS, Errno::NODEV, Errno::NXIO];
    e.raw_os_error().is_some_and(|raw| broken.iter().any(|b| b.raw_os_error() == raw))
}

impl Store {
    /// Turns a failed system call into an error, and latches the store where it must.
    pub(super) fn fault(&self, fault: Fault) -> StoreError {
        let Fault { what, path, source, sync } = fault;
        if is_full(&source) {
            let (free, inodes) = self.free().unwrap_or_default();
            if inodes == 0 && inodes_counted(&self.dir) {
                let floor = self.options.min_free_inodes;
                return StoreError::NoInodes { needed: 1, free: 0, floor };
            }
            return StoreError::NoSpace { needed: 0, free, floor: self.options.min_free_bytes };
        }
        if sync || is_broken(&source) {
            self.latch(format!("could not {what} {}: {source}", path.display()));
        }
        StoreError::Io { what, path, source }
    }

    pub(super) fn latch(&self, cause: String) {
        tracing::error!(cause, "a write failed: the store only reads until stork-node restarts");
        lock(&self.latch).get_or_insert(Latch { since: unix_now(), cause });
        self.latched.store(true, Ordering::SeqCst);
    }

    pub(super) fn check_latch(&self) -> Result<(), StoreError> {
        if self.latched.load(Ordering::SeqCst) { Err(self.latched_error()) } else { Ok(()) }
    }

    pub(super) fn latched_error(&self) -> StoreError {
        let latch = lock(&self.latch).clone();
        latch.map_or_else(
            || StoreError::Latched { since: 0, cause: String::new() },
            |l| StoreError::Latched { since: l.since, cause: l.cause },
        )
    }

    /// Can the store write?
    #[must_use]
    pub fn health(&self) -> Health {
        lock(&self.latch)
            .clone()
            .map_or(Health::Good, |l| Health::Latched { since: l.since, cause: l.cause })
    }

    /// Bytes and inodes free on the disk.
    pub(super) fn free(&self) -> Result<(u64, u64), StoreError> {
        free_at(&self.dir).map_err(|f| self.fault(f))
    }

    /// Refuses where fewer than `needed` bytes would be free above the floor.
    pub(super) fn check_free(&self, needed: u64, floor: u64) -> Result<(), StoreError> {
        let (free, _) = self.free()?;
        if free < needed.saturating_add(floor) {
            return Err(StoreError::NoSpace { needed, free, floor });
        }
        Ok(())
    }

    /// Takes some space that is given up when a full disk must be freed: also removing needs some.
    pub(super) fn load_ballast(&self) {
        let room = self.check_free(BALLAST * 4, 0);
        let loaded = room.is_ok().then(|| write::allocate(&self.dir.join("ballast"), BALLAST));
        if let Some(Err(f)) = loaded {
            tracing::debug!(error = %f.source, "there is no ballast for a full disk");
        }
    }

    /// Gives up the ballast, if only that makes room for a transaction that frees space.
    pub(super) fn room_to_free(&self) -> Result<(), StoreError> {
        if self.check_free(COMMIT_FREE_MIN * 2, 0).is_err() {
            write::remove_file(&self.dir.join("ballast")).map_err(|f| self.fault(f))?;
        }
        Ok(())
    }

    /// Promises a part of the disk to a fetch, so that several together never fill it.
    pub fn reserve(self: &Arc<Self>, room: Room) -> Result<Reservation, StoreError> {
        self.check_latch()?;
        let (free, inodes) = self.free()?;
        let mut reserved = lock(&self.reserved);
        let floor = self.options.min_free_inodes;
        let inodes = inodes.saturating_sub(reserved.files);
        // Some file systems count no inodes and say 0 of 0.
        if inodes < room.files.saturating_add(floor) && inodes_counted(&self.dir) {
            return Err(StoreError::NoInodes { needed: room.files, free: inodes, floor });
        }
        let floor = self.options.min_free_bytes;
        let free = free.saturating_sub(reserved.bytes);
        if free < room.bytes.saturating_add(floor) {
            return Err(StoreError::NoSpace { needed: room.bytes, free, floor });
        }
        reserved.bytes += room.bytes;
        reserved.files += room.files;
        drop(reserved);
        Ok(Reservation { store: Arc::clone(self), room })
    }

    /// What the files of a tree would take of the disk that are not here yet. Holes count: a
    /// manifest does not tell them.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn lacks(&self, tree: &Tree) -> Result<Room, StoreError> {
        let mut room = Room::default();
        let mut seen = std::collections::HashSet::new();
        for entry in &tree.entries {
            let Some(row) = ObjectRow::of(entry) else { continue };
            if seen.insert(row.key()) && !self.has_object(row.key())? {
                room.bytes = room.bytes.saturating_add(row.size);
                room.files += 1;
            }
        }
        Ok(room)
    }

    /// Figures of the store. Walks the folders, so it is not for every second.
    pub fn stat(&self) -> Result<StoreStat, StoreError> {
        let (free_bytes, free_inodes) = self.free()?;
        let mut stat = StoreStat {
            free_bytes,
            free_inodes,
            reserved_bytes: lock(&self.reserved).bytes,
            floor_bytes: self.options.min_free_bytes,
            ..StoreStat::default()
        };
        for file in self.files_of("objects")? {
            stat.objects += 1;
            stat.object_bytes += file.bytes;
        }
        for file in self.files_of("packs")? {
            stat.packs += 1;
            stat.pack_bytes += file.bytes;
        }
        stat.partial_packs = self.partial_packs()?.len() as u64;
        let count = |rows: Vec<_>| rows.len() as u64;
        stat.manifests = count(self.rows(super::db::MANIFESTS)?);
        stat.trees = count(self.rows(super::db::TREES)?);
        stat.sets = count(self.rows(super::db::SETS)?);
        stat.copy_bytes = self.copy_bytes()?;
        Ok(stat)
    }
}

fn free_at(dir: &Path) -> Result<(u64, u64), Fault> {
    let v =
        rustix::fs::statvfs(dir).map_err(|e| Fault::new("ask for the free space of", dir, e))?;
    Ok((v.f_bavail.saturating_mul(v.f_frsize), v.f_favail))
}

fn inodes_counted(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|v| v.f_files > 0)
}
