//! A file system in a file, whose counters say what everything on it costs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::content::tools::output;

/// The size of the file system; the file is sparse.
const GIB: u64 = 24;

/// A mounted file system that is gone with this process's mount namespace.
pub(crate) struct Disk {
    _file: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    /// Makes an ext4 in a sparse file and mounts it.
    pub(crate) fn new(within: Option<&Path>) -> Result<Self> {
        let dir = match within {
            Some(within) => tempfile::tempdir_in(within)?,
            None => tempfile::tempdir_in("/var/tmp")?,
        };
        let image = dir.path().join("disk.img");
        std::fs::File::create(&image)?.set_len(GIB << 30)?;
        let mut mkfs = Command::new("mkfs.ext4");
        // Initialised at once, so that the kernel does not write while we count.
        let extra = "lazy_itable_init=0,lazy_journal_init=0";
        mkfs.args(["-q", "-m", "0", "-N", "1000000", "-E", extra]).arg(&image);
        output(&mut mkfs)?;
        let path = dir.path().join("disk");
        std::fs::create_dir(&path)?;
        output(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&path))?;
        Ok(Self { _file: dir, path })
    }

    /// Its root.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes and inodes in use, after all was written.
    pub(crate) fn used(&self) -> Result<(u64, u64)> {
        rustix::fs::sync();
        let stat = rustix::fs::statvfs(&self.path).context("statvfs")?;
        Ok(((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_files - stat.f_ffree))
    }

    /// What was added since.
    pub(crate) fn since(&self, before: (u64, u64)) -> Result<(u64, u64)> {
        let now = self.used()?;
        Ok((now.0.saturating_sub(before.0), now.1.saturating_sub(before.1)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The file stays busy until it is unmounted; what is left ends with the namespace.
        drop(output(Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.path)));
    }
}
