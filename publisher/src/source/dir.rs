//! A directory as a package: everything below it, links not followed.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use stork_wire::codec::List;
use stork_wire::limits::PATH_DEPTH_MAX;
use stork_wire::manifest::TreeNode;

use super::build::{Attributes, Builder};
use super::error::{SourceError, shown};
use super::holes::HoleReader;

struct Walk<'a> {
    builder: &'a mut Builder,
    /// First name of each file that has several.
    inodes: BTreeMap<(u64, u64), Vec<u8>>,
}

/// Reads everything below `top` into the builder.
pub(super) fn read(top: &Path, builder: &mut Builder) -> Result<(), SourceError> {
    let mut walk = Walk { builder, inodes: BTreeMap::new() };
    // Directories still to be read, with their relative paths.
    let mut todo: Vec<(PathBuf, Vec<u8>)> = vec![(top.to_owned(), Vec::new())];
    while let Some((dir, relative)) = todo.pop() {
        let failed = |source| SourceError::Read { path: dir.clone(), source };
        let mut names = fs::read_dir(&dir)
            .and_then(|d| d.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>())
            .map_err(failed)?;
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let mut raw = relative.clone();
            if !raw.is_empty() {
                raw.push(b'/');
            }
            raw.extend_from_slice(name.as_bytes());
            if walk.entry(&path, &raw)? {
                if raw.iter().filter(|b| **b == b'/').count() > PATH_DEPTH_MAX {
                    let what = "deeper than 64 directories".into();
                    return Err(SourceError::Unsupported { path: shown(&raw), what });
                }
                todo.push((path, raw));
            }
        }
    }
    Ok(())
}

fn attributes(meta: &Metadata) -> Attributes {
    let mode = u16::try_from(meta.mode() & 0o7777).unwrap_or(0);
    Attributes { mode, uid: meta.uid(), gid: meta.gid(), mtime: meta.mtime() }
}

impl Walk<'_> {
    /// Takes one entry; true for a directory.
    fn entry(&mut self, path: &Path, raw: &[u8]) -> Result<bool, SourceError> {
        let failed = |source| SourceError::Read { path: path.into(), source };
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        let (kind, a) = (meta.file_type(), attributes(&meta));
        let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        if kind.is_dir() {
            self.builder.add(raw, a, TreeNode::Dir)?;
            return Ok(true);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(failed)?;
            self.builder.add_symlink(raw, a, target.as_os_str().as_bytes())?;
        } else if kind.is_file() {
            self.file(path, raw, &meta)?;
        } else if kind.is_fifo() {
            self.builder.add(raw, a, TreeNode::Fifo)?;
        } else if kind.is_char_device() {
            let (major, minor) = device();
            self.builder.add(raw, a, TreeNode::CharDevice { major, minor })?;
        } else if kind.is_block_device() {
            let (major, minor) = device();
            self.builder.add(raw, a, TreeNode::BlockDevice { major, minor })?;
        } else {
            let what = "a socket".into();
            return Err(SourceError::Unsupported { path: shown(raw), what });
        }
        Ok(false)
    }

    fn file(&mut self, path: &Path, raw: &[u8], seen: &Metadata) -> Result<(), SourceError> {
        if seen.nlink() > 1 {
            let key = (seen.dev(), seen.ino());
            if let Some(first) = self.inodes.get(&key) {
                let first = first.clone();
                return self.builder.add_hardlink(raw, attributes(seen), &first);
            }
            self.inodes.insert(key, raw.to_vec());
        }
        let failed = |source| SourceError::Read { path: path.into(), source };
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file: File =
            OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || (meta.dev(), meta.ino()) != (seen.dev(), seen.ino()) {
            return Err(SourceError::Changed(path.into()));
        }
        let size = meta.len();
        let result = self.builder.add_file(
            raw,
            attributes(&meta),
            List::empty(),
            (&mut HoleReader::new(&file, size), size),
        );
        let after = file.metadata().map_err(failed)?;
        if after.len() != size || after.mtime() != meta.mtime() {
            return Err(SourceError::Changed(path.into()));
        }
        result
    }
}
