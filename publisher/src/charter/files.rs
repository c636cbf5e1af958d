//! Files of a charter on disk: read with a bound, and replaced so that the old or the new one is
//! there at every moment.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Charter, CharterError};
use crate::bundle::write_bundle;

/// Reads a file that may have at most `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, CharterError> {
    let failed = |source| CharterError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(failed(io::Error::other("it is too long")));
    }
    Ok(bytes)
}

/// Writes a file that was not there.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CharterError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CharterError::Exists(path.into()),
        _ => CharterError::Write { path: path.into(), source },
    };
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Writes a file in the place of the old one.
pub(super) fn write_over(path: &Path, bytes: &[u8]) -> Result<(), CharterError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let failed = |source| CharterError::Write { path: new.clone(), source };
    let mut file = File::create(&new).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    let moved = fs::rename(&new, path).and_then(|()| match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    });
    moved.map_err(|source| CharterError::Write { path: path.into(), source })
}

/// Writes a charter as a bundle, in the place of the one that is there.
pub(super) fn save_bundle(path: &Path, charter: &Charter) -> Result<(), CharterError> {
    let bytes = write_bundle(&charter.items)
        .map_err(|source| CharterError::Bundle { path: path.into(), source })?;
    write_over(path, &bytes)
}
