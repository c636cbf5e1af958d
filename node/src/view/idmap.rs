//! Ids of a view for guests whose root is another user of the host.
//!
//! A mount takes its map from a user namespace. The kernel makes one only together with a process,
//! so a short-lived one is made, its map is written, a descriptor of its namespace is kept, and it
//! ends. The sandbox forbids that later; so the maps that VM files ask for are made before
//! ([`prepare`]), and kept for as long as the daemon runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::sys;
use crate::catalog::IdMap;

/// Maps that are kept; VM files that ask for more different ones are refused.
const MAPS_MAX: usize = 256;

/// One for the process, because what it may not make any more, it must not lose.
static MAPS: Mutex<BTreeMap<IdMap, OwnedFd>> = Mutex::new(BTreeMap::new());

/// Makes a map, where it is not there yet.
pub fn prepare(map: IdMap) -> io::Result<()> {
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    if maps.contains_key(&map) {
        return Ok(());
    }
    if maps.len() >= MAPS_MAX {
        return Err(io::Error::other("too many different maps of ids"));
    }
    let namespace = sys::user_namespace(
        &format!("0 {} {}\n", map.uid, map.count),
        &format!("0 {} {}\n", map.gid, map.count),
    )?;
    maps.insert(map, namespace);
    Ok(())
}

/// Gives a mount that is attached nowhere yet a map.
pub(super) fn apply(mount: BorrowedFd<'_>, map: IdMap) -> io::Result<()> {
    prepare(map)?;
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(namespace) = maps.get(&map) else { return Err(io::ErrorKind::NotFound.into()) };
    sys::mount_idmap(mount, namespace.as_fd())
}
