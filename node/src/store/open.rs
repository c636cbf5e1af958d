//! Opening the store: folder, lock, format, database, and repair of what a crash left behind.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::db::{SETS, TxError};
use super::forms::DEBS;
use super::write::{self, Fault, TEMP};
use super::{FORMAT, SetId, Store, StoreError, StoreOptions};

/// Bytes of the database that are kept in memory. The system caches the file besides, and nearly
/// all that a node reads is near to what it wrote last.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// The store was made just now.
    pub created: bool,
    /// The random number of this opening.
    pub epoch: u64,
    /// Temporary files removed.
    pub temporary_files: u64,
    /// Package sets removed that were half built, or were built and not recorded.
    pub half_sets: u64,
    /// Records of package sets removed, whose folders are gone.
    pub lost_sets: u64,
    /// Downloads removed that can't be continued.
    pub unfinished: u64,
    /// Partial packs that can be continued.
    pub partial_packs: u64,
}

/// Errors before there is a store that could latch.
fn opening(fault: Fault) -> StoreError {
    let Fault { what, path, source, .. } = fault;
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::DiskFull { path, source },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOTDIR | Errno::EXIST) => {
            StoreError::Unwritable { path, source }
        }
        _ => StoreError::Io { what, path, source },
    }
}

/// Makes the folder, or checks that nobody else can enter it.
fn prepare_folder(dir: &Path) -> Result<bool, StoreError> {
    let unwritable = |source| StoreError::Unwritable { path: dir.to_owned(), source };
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let existed = dir.exists();
    // Whatever the system says to this, also that there is no such place: not a folder for us.
    write::make_dir(dir).map_err(|f| match opening(f) {
        StoreError::Io { path, source, .. } => StoreError::Unwritable { path, source },
        e => e,
    })?;
    let meta = std::fs::metadata(dir).map_err(unwritable)?;
    if !meta.is_dir() {
        return Err(unwritable(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    if meta.mode() & 0o077 != 0 {
        let empty = std::fs::read_dir(dir).map_err(unwritable)?.next().is_none();
        if !empty && !dir.join("format").exists() {
            return Err(StoreError::Exposed { path: dir.to_owned(), mode: meta.mode() & 0o7777 });
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir, mode).map_err(unwritable)?;
    }
    Ok(!existed)
}

/// Refuses a newer format before anything is touched; writes ours into a new store.
fn check_format(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => Err(StoreError::Newer { path, found, known: FORMAT }),
            Ok(FORMAT) => Ok(false),
            _ => Err(StoreError::DamagedState {
                path,
                why: "it should hold the number of the store's format".to_owned(),
            }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            write::write_atomic(dir, "format", format!("{FORMAT}\n").as_bytes())
                .map_err(opening)?;
            Ok(true)
        }
        Err(source) => Err(StoreError::Unwritable { path, source }),
    }
}

fn open_database(dir: &Path) -> Result<redb::Database, StoreError> {
    let path = dir.join("state.redb");
    let damaged = |why: String| StoreError::DamagedState { path: path.clone(), why };
    let storage = |e: redb::StorageError| match e {
        redb::StorageError::Io(e)
            if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            damaged(e.to_string())
        }
        redb::StorageError::Io(e) => opening(Fault::new("open the database", &path, e)),
        e => damaged(e.to_string()),
    };
    let opened = redb::Builder::new().set_cache_size(CACHE_BYTES).create(&path);
    let db = opened.map_err(|e| match e {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: dir.to_owned() },
        redb::DatabaseError::Storage(e) => storage(e),
        e => damaged(e.to_string()),
    })?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, mode)
        .map_err(|e| opening(Fault::new("set the mode of", &path, e)))?;
    Store::make_tables(&db).map_err(|e| match e {
        TxError::Refused(e) => e,
        TxError::Db(e) => match *e {
            redb::Error::Io(e) => opening(Fault::new("write the database", &path, e)),
            e => damaged(e.to_string()),
        },
    })?;
    Ok(db)
}

fn make_folders(dir: &Path) -> Result<(), StoreError> {
    for kind in ["objects", "packs", "manifests"] {
        write::make_dir(&dir.join(kind)).map_err(opening)?;
        for shard in 0..=255u8 {
            write::make_dir(&dir.join(kind).join(format!("{shard:02x}"))).map_err(opening)?;
        }
        write::sync_dir(&dir.join(kind)).map_err(opening)?;
    }
    for kind in ["objects/tmp", "incoming", "sets", "vms", "quarantine", DEBS] {
        write::make_dir(&dir.join(kind)).map_err(opening)?;
    }
    write::sync_dir(dir).map_err(opening)
}

/// The names in a folder.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Fault> {
    let list = || {
        std::fs::read_dir(dir)?
            .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    };
    list().map_err(|e| Fault::new("list the folder", dir, e))
}

fn remove_temps(dir: &Path) -> Result<u64, Fault> {
    let mut removed = 0;
    for name in names(dir)? {
        if name.starts_with(TEMP) {
            write::remove_file(&dir.join(name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// May this process give files to other users, and work with them afterwards?
fn may_give_owners() -> bool {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::CHOWN | CapabilitySet::FOWNER | CapabilitySet::DAC_OVERRIDE;
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(needed))
}

impl Store {
    /// Opens the store in `dir`, makes it where there is none, and repairs what a crash left.
    ///
    /// # Errors
    /// Says apart, with the path: a folder that can't be written, a full disk, another process in
    /// the folder, a newer format (nothing is touched), and a damaged database.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Arc<Self>, Recovery), StoreError> {
        prepare_folder(dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|source| StoreError::Unwritable { path: dir.to_owned(), source })?;
        let guard = write::open_dir(&dir).map_err(opening)?;
        flock(&guard, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            Errno::WOULDBLOCK => StoreError::InUse { path: dir.clone() },
            e => opening(Fault::new("lock", &dir, e)),
        })?;
        let created = check_format(&dir)?;
        make_folders(&dir)?;
        let db = open_database(&dir)?;
        let store = Self {
            options,
            epoch: random().map_err(|e| opening(Fault::new("draw a number for", &dir, e)))?,
            db,
            root: may_give_owners(),
            latched: AtomicBool::new(false),
            latch: Mutex::default(),
            reserved: Mutex::default(),
            partials: Mutex::default(),
            fresh: Mutex::default(),
            uploading: Mutex::default(),
            unpacking: Mutex::default(),
            building: Mutex::default(),
            sweeping: Mutex::default(),
            _lock: guard,
            dir,
        };
        let mut recovery = Recovery { created, epoch: store.epoch, ..Recovery::default() };
        store.recover(&mut recovery)?;
        store.load_ballast();
        Ok((Arc::new(store), recovery))
    }

    fn recover(&self, found: &mut Recovery) -> Result<(), StoreError> {
        for folder in ["", "objects/tmp", "incoming", "sets", DEBS] {
            let removed = remove_temps(&self.dir.join(folder)).map_err(opening)?;
            found.temporary_files += removed;
        }
        let vms = self.dir.join("vms");
        for vm in names(&vms).map_err(opening)? {
            found.temporary_files += remove_temps(&vms.join(vm)).map_err(opening)?;
        }
        for kind in ["manifests", "packs"] {
            for shard in 0..=255u8 {
                let dir = self.dir.join(kind).join(format!("{shard:02x}"));
                found.temporary_files += remove_temps(&dir).map_err(opening)?;
            }
        }
        self.recover_incoming(found)?;
        self.recover_sets(found)
    }

    /// A download without its map, or a map without its download, can't be continued.
    fn recover_incoming(&self, found: &mut Recovery) -> Result<(), StoreError> {
        let dir = self.dir.join("incoming");
        let all = names(&dir).map_err(opening)?;
        for name in &all {
            let partner = match name.rsplit_once('.') {
                Some((_, "up")) => continue,
                Some((data, "map")) => data.to_owned(),
                _ => format!("{name}.map"),
            };
            if all.contains(&partner) {
                found.partial_packs += u64::from(partner.ends_with(".map"));
            } else {
                write::remove_file(&dir.join(name)).map_err(opening)?;
                found.unfinished += 1;
            }
        }
        Ok(())
    }

    /// A set's row is written last: a folder without one is half built, a row without one is void.
    fn recover_sets(&self, found: &mut Recovery) -> Result<(), StoreError> {
        let dir = self.dir.join("sets");
        for name in names(&dir).map_err(opening)? {
            let id = name.strip_suffix(".tree").unwrap_or(&name).parse::<SetId>().ok();
            let known = match id {
                Some(id) => self.row(SETS, id.as_bytes())?.is_some(),
                None => false,
            };
            if known {
                continue;
            }
            if name.ends_with(".tree") {
                write::remove_file(&dir.join(name)).map_err(opening)?;
            } else {
                write::remove_any(&dir.join(name)).map_err(opening)?;
                found.half_sets += 1;
            }
        }
        for (key, _) in self.rows(SETS)? {
            let Some(id) = super::db::first_id(&key).map(SetId) else { continue };
            if dir.join(id.to_string()).symlink_metadata().is_err() {
                self.write(|tx| super::db::remove(tx, SETS, &key))?;
                found.lost_sets += 1;
            }
        }
        Ok(())
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::from)
}
