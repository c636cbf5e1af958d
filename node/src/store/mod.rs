//! The host's one copy of everything: objects, packs, partial downloads, manifests, package sets,
//! and one embedded database (design §8).
//!
//! **Durable before visible**: bytes are made durable, then renamed to their name, then the
//! folder is made durable, then the row in the database is written. A row therefore always stands
//! for whole bytes, and what has no row is removed at the next start or by [`Store::gc`].
//!
//! **One way out of trouble**: the first write whose outcome is unknown latches the store, which
//! then only reads and says since when and why; opening it again recovers. A full disk doesn't
//! latch: what was begun is removed and [`StoreError::NoSpace`] is returned.
//!
//! Beside what design §8 lists, the folder holds `format` (a number), `quarantine/` (damaged files,
//! for a week) and `ballast` (space given up so that a full disk can be freed).
//!
//! Every call blocks, so it belongs on a thread that may block.

mod db;
mod error;
mod forms;
mod fresh;
mod gc;
mod journal;
mod leases;
mod manifests;
mod merge;
mod objects;
mod open;
mod packs;
mod partial;
mod prefix;
mod repack;
mod scrub;
mod sets;
mod space;
mod sparse;
mod unpack;
mod upload;
mod verify;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

pub use error::StoreError;
pub use forms::{IMAGE, IMAGE_ALIGN, SYSEXT_NAME, SetForm, repository_key};
pub use fresh::Hold;
pub use gc::GcReport;
pub use journal::JournalItem;
pub use leases::LeaseSet;
pub use merge::{SetError, SetId, SetMember, SetSpec};
pub use objects::ObjectKey;
pub use open::Recovery;
pub use partial::{PartialPack, Written};
pub use scrub::{SCRUB_STEP, Scrub, ScrubPlace, ScrubStep};
pub use sets::SetInfo;
pub use space::{Health, Reservation, Room, StoreStat};
pub use unpack::{UnpackError, UnpackReport};
pub use upload::UploadState;
pub use verify::{Damage, VerifyReport, Verifying};
pub(crate) use write::remove_in;

use stork_wire::ids::PackId;

/// The format of the folder. A store of a newer format is refused and not touched.
pub const FORMAT: u32 = 1;

/// What the operator sets.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Bytes that must stay free on the disk; no fetch is begun that would take them.
    pub min_free_bytes: u64,
    /// Inodes that must stay free on the disk.
    pub min_free_inodes: u64,
    /// Bytes of packs that are kept only to serve others.
    pub seed_budget_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            min_free_bytes: 1024 * 1024 * 1024,
            min_free_inodes: 10_000,
            seed_budget_bytes: 10 * 1024 * 1024 * 1024,
        }
    }
}

/// The store. One process has it open at a time; threads share it behind an `Arc`.
pub struct Store {
    dir: PathBuf,
    options: StoreOptions,
    epoch: u64,
    db: redb::Database,
    /// May we give owners, as root may?
    root: bool,
    latched: AtomicBool,
    latch: Mutex<Option<space::Latch>>,
    /// Bytes promised to fetches that run.
    reserved: Mutex<Room>,
    partials: Mutex<BTreeMap<PackId, Weak<PartialPack>>>,
    fresh: Mutex<fresh::Fresh>,
    /// One push appends to a pack at a time.
    uploading: Mutex<()>,
    /// One segment is unpacked at a time, which bounds memory.
    unpacking: Mutex<()>,
    /// One set is built at a time, so that two builds of one set meet.
    building: Mutex<()>,
    /// One collection or verification at a time.
    sweeping: Mutex<()>,
    /// Holds the lock on the folder; released when the process ends, however it ends.
    _lock: OwnedFd,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Takes a lock. A thread that panicked under it left at worst an unfinished batch, which is
/// on disk as after a crash, so that going on is right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `ab/cdef…` of an id: 256 folders keep each of them short.
fn shard(id: &[u8; 32]) -> (String, String) {
    let name = stork_wire::ids::hex(id);
    let (folder, rest) = name.split_at(2);
    (folder.to_owned(), rest.to_owned())
}

/// The id of a name made by [`shard`].
fn unshard(folder: &str, rest: &str) -> Option<[u8; 32]> {
    let bytes = stork_wire::ids::unhex(&format!("{folder}{rest}"))?;
    <[u8; 32]>::try_from(bytes).ok()
}

impl Store {
    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Are files given the owners that packages name? Where not, all belong to this process.
    #[must_use]
    pub const fn gives_owners(&self) -> bool {
        self.root
    }

    /// A random number of this opening: what was promised under another one is void.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    fn sharded(&self, kind: &str, id: &[u8; 32]) -> PathBuf {
        let (folder, rest) = shard(id);
        self.dir.join(kind).join(folder).join(rest)
    }

    fn db_path(&self) -> PathBuf {
        self.dir.join("state.redb")
    }

    /// Replaces a file outside the database durably, for small files of views: after a crash the
    /// old or the new bytes are there.
    pub fn write_file(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_latch()?;
        write::write_atomic(dir, name, bytes).map_err(|f| self.fault(f))
    }

    /// The same in a folder that is not the store's, by way of a file with the name `by`: what a
    /// crash left of that is replaced the next time, and whoever knows the name may remove it.
    pub fn write_file_by(
        &self,
        dir: &Path,
        by: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.check_latch()?;
        write::write_by(dir, by, name, bytes).map_err(|f| self.fault(f))
    }

    /// Makes the names in a folder durable, before something is written that relies on them.
    pub fn sync_folder(&self, dir: &Path) -> Result<(), StoreError> {
        write::sync_dir(dir).map_err(|f| self.fault(f))
    }

    /// Removes a folder of the store's or of a view's making, with all that is in it, or a file.
    pub fn remove_folder(&self, path: &Path) -> Result<(), StoreError> {
        write::remove_any(path).map_err(|f| self.fault(f))
    }

    /// The folder of a VM's small files, made where it is missing.
    pub fn vm_dir(&self, vm: &stork_wire::text::Label) -> Result<PathBuf, StoreError> {
        let path = self.dir.join("vms").join(vm.as_str().replace('/', "%2F"));
        write::make_dir(&path).map_err(|f| self.fault(f))?;
        Ok(path)
    }
}
