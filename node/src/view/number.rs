//! The number of the generation beside a view: a file `NAME.generation` in the folder of the
//! target `NAME`, which guests that have that folder poll. It cannot lie in the view, because VMs
//! with other numbers show the same set; and inotify does not cross virtiofs.
//!
//! The guest may own that folder. So each step is relative to a descriptor that was reached without
//! following a link; the file is made under a new name and renamed, which replaces a link and never
//! follows one. What goes wrong here is only told: the view itself was switched.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use super::target::open_folder;
use super::{ViewError, ViewSpec};

/// The file's name, and that of the one that becomes it.
fn names(spec: &ViewSpec) -> Option<(OsString, OsString)> {
    let view = spec.target.file_name()?;
    let mut name = view.to_owned();
    name.push(".generation");
    let mut new = OsString::from(".");
    new.push(&name);
    new.push(".new");
    Some((name, new))
}

fn folder(spec: &ViewSpec) -> Result<Option<OwnedFd>, ViewError> {
    spec.target.parent().map_or(Ok(None), |parent| open_folder(spec, parent, false))
}

fn write(spec: &ViewSpec, number: u64) -> Result<(), ViewError> {
    let (Some(folder), Some((name, new))) = (folder(spec)?, names(spec)) else { return Ok(()) };
    let fail = |what, e: std::io::Error| ViewError::io(what, spec.target.with_file_name(&name), e);
    // What a crash, or a guest, left under this name.
    unlinkat(&folder, &new, AtFlags::empty()).unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let file = openat(&folder, &new, flags, mode).map_err(|e| fail("make", e.into()))?;
    let mut file = File::from(file);
    file.write_all(format!("{number}\n").as_bytes()).map_err(|e| fail("write", e))?;
    rustix::fs::fchmod(&file, mode).map_err(|e| fail("open to all", e.into()))?;
    renameat(&folder, &new, &folder, &name).map_err(|e| fail("name", e.into()))
}

/// Writes the number that the view shows now.
pub(super) fn write_beside(spec: &ViewSpec, number: u64) {
    if let Err(e) = write(spec, number) {
        tracing::warn!(vm = %spec.vm, error = %e, "the guest is not told the generation");
    }
}

/// Removes it.
pub(super) fn remove_beside(spec: &ViewSpec) {
    if let (Ok(Some(folder)), Some((name, _))) = (folder(spec), names(spec)) {
        // It may not be there, and nothing depends on it.
        unlinkat(&folder, &name, AtFlags::empty()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::view::{Backend, Isolation};

    /// The number is replaced as a whole, and links that a guest planted at both names lead the
    /// writer nowhere.
    #[test]
    fn links_of_a_guest_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "host").unwrap();
        let folder = dir.path().join("guest");
        fs::create_dir(&folder).unwrap();
        let spec = ViewSpec {
            vm: "vm".parse().unwrap(),
            backend: Backend::Tree,
            target: folder.join("packages"),
            isolation: Isolation::Default,
            keep_generations: 1,
            options: crate::catalog::ViewOptions::default(),
        };
        let file = folder.join("packages.generation");
        symlink(&precious, &file).unwrap();
        symlink(&precious, folder.join(".packages.generation.new")).unwrap();
        write_beside(&spec, 7);
        assert_eq!(fs::read_to_string(&file).unwrap(), "7\n");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "host");
        write_beside(&spec, 8);
        assert_eq!(fs::read_to_string(&file).unwrap(), "8\n");
        // A folder in the way, or a link instead of the folder, only costs the number.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        write_beside(&spec, 9);
        fs::remove_dir(&file).unwrap();
        write_beside(&spec, 9);
        remove_beside(&spec);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
        symlink(dir.path(), &folder).unwrap();
        write_beside(&spec, 10);
        assert!(!dir.path().join("packages.generation").exists());
    }
}
