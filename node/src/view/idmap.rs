//! Ids of a view for guests whose root is another user of the host, and of views whose files belong
//! to a daemon that is not root.
//!
//! A mount takes its map from a user namespace. The kernel makes one only together with a process,
//! so a short-lived one is made, its map is written, a descriptor of its namespace is kept, and it
//! ends. The sandbox forbids that later; so the maps that VM files ask for are made before
//! ([`prepare_all`]), and kept for as long as the process runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::fstat;

use super::sys;
use crate::catalog::{IdMap, VmFile};

/// Whose the files of the store are: user and group.
pub(super) type Owner = (u32, u32);

const ROOT: Owner = (0, 0);

/// Which ids of files are shown as which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Map {
    /// The first ids, as the files have them.
    from: Owner,
    /// The first ids, as the host sees them in the view.
    to: Owner,
    count: u32,
}

impl Map {
    /// The map of a mount of the store's own files. Those of a store whose daemon could not give
    /// them owners all belong to it: they are shown as root's, the guest's root's where it has ids
    /// of its own. None where nothing is to be mapped.
    pub(super) fn of_files(owner: Owner, guest: Option<IdMap>) -> Option<Self> {
        if owner == ROOT {
            return guest.map(Self::of_guest);
        }
        let to = guest.map_or(ROOT, |m| (m.uid, m.gid));
        Some(Self { from: owner, to, count: 1 })
    }

    /// The map of what has its owners from an image.
    pub(super) const fn of_guest(guest: IdMap) -> Self {
        Self { from: ROOT, to: (guest.uid, guest.gid), count: guest.count }
    }

    /// The first user of the host, for messages.
    pub(super) const fn first(self) -> u32 {
        self.to.0
    }
}

/// Whose a folder is.
pub(super) fn owner_of(folder: &OwnedFd) -> io::Result<Owner> {
    let stat = fstat(folder)?;
    Ok((stat.st_uid, stat.st_gid))
}

/// All that a view may need, in a store of that owner.
pub(super) fn maps_of(owner: Owner, guest: Option<IdMap>) -> impl Iterator<Item = Map> {
    Map::of_files(owner, guest).into_iter().chain(guest.map(Map::of_guest))
}

/// Makes the maps that these VMs need, while that can be done.
pub fn prepare_all<'a>(state: &std::path::Path, vms: impl IntoIterator<Item = &'a VmFile>) {
    use std::os::unix::fs::MetadataExt;
    let owner = state.metadata().map_or(ROOT, |m| (m.uid(), m.gid()));
    for map in vms.into_iter().flat_map(|vm| maps_of(owner, vm.view.idmap)) {
        if let Err(e) = prepare(map) {
            tracing::warn!("the map of ids from {} on cannot be made: {e}", map.first());
        }
    }
}

/// Maps that are kept; VM files that ask for more different ones are refused.
const MAPS_MAX: usize = 256;

/// One for the process, because what it may not make any more, it must not lose.
static MAPS: Mutex<BTreeMap<Map, OwnedFd>> = Mutex::new(BTreeMap::new());

/// Is it there?
pub(super) fn is_ready(map: Map) -> bool {
    MAPS.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&map)
}

/// Makes a map, where it is not there yet.
pub(super) fn prepare(map: Map) -> io::Result<()> {
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    if maps.contains_key(&map) {
        return Ok(());
    }
    if maps.len() >= MAPS_MAX {
        return Err(io::Error::other("too many different maps of ids"));
    }
    let namespace = sys::user_namespace(
        &format!("{} {} {}\n", map.from.0, map.to.0, map.count),
        &format!("{} {} {}\n", map.from.1, map.to.1, map.count),
    )?;
    maps.insert(map, namespace);
    Ok(())
}

/// Gives a mount that is attached nowhere yet a map.
pub(super) fn apply(mount: BorrowedFd<'_>, map: Map) -> io::Result<()> {
    prepare(map)?;
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(namespace) = maps.get(&map) else { return Err(io::ErrorKind::NotFound.into()) };
    sys::mount_idmap(mount, namespace.as_fd())
}
