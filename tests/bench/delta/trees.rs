//! Two trees on disk, compared byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

const CHUNK: usize = 1 << 20;

fn walk(root: &Path) -> Result<BTreeMap<PathBuf, fs::Metadata>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = path.symlink_metadata()?;
            if meta.is_dir() {
                todo.push(path.clone());
            }
            out.insert(path.strip_prefix(root)?.to_owned(), meta);
        }
    }
    Ok(out)
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(CHUNK as u64).read_to_end(&mut left)?;
        b.by_ref().take(CHUNK as u64).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

/// Paths at which the trees differ in kind, mode, owner, time, size, target or bytes.
pub(super) fn differences(a: &Path, b: &Path) -> Result<Vec<String>> {
    let (left, right) = (walk(a)?, walk(b)?);
    let mut out = Vec::new();
    for path in left.keys().chain(right.keys().filter(|p| !left.contains_key(*p))) {
        let (Some(l), Some(r)) = (left.get(path), right.get(path)) else {
            out.push(path.display().to_string());
            continue;
        };
        let facts = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime());
        let size = |m: &fs::Metadata| if m.is_dir() { 0 } else { m.len() };
        let mut same = facts(l) == facts(r) && size(l) == size(r);
        if same && l.is_file() {
            same = same_bytes(&a.join(path), &b.join(path))?;
        } else if same && l.is_symlink() {
            same = fs::read_link(a.join(path))? == fs::read_link(b.join(path))?;
        }
        if !same {
            out.push(path.display().to_string());
        }
    }
    Ok(out)
}

/// Bytes that the files of a tree take on disk; holes take none.
pub(super) fn disk_bytes(tree: &Path) -> Result<u64> {
    Ok(walk(tree)?.values().filter(|m| m.is_file()).map(|m| m.blocks() * 512).sum())
}
