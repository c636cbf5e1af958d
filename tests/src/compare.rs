//! Comparing what a VM is shown with what `dpkg -x` unpacks, file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders at the top that a merged `/usr` moves below `usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// Directory, hash of a file's bytes, target of a link, or the kind of what else it is.
    what: String,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    is_dir: bool,
    inode: (u64, u64),
}

type Tree = BTreeMap<PathBuf, Node>;

fn node(path: &Path) -> Node {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let (what, mode) = if kind.is_dir() {
        ("directory".to_owned(), meta.mode())
    } else if kind.is_symlink() {
        // The mode of a link means nothing.
        (format!("link to {}", fs::read_link(path).unwrap().display()), 0)
    } else if kind.is_file() {
        let hash = blake3::hash(&fs::read(path).unwrap());
        (format!("{} bytes, hash {}", meta.len(), hash.to_hex()), meta.mode())
    } else {
        (format!("{kind:?} {}", meta.rdev()), meta.mode())
    };
    let (mtime, inode) = (meta.mtime(), (meta.dev(), meta.ino()));
    Node { what, mode, owner: (meta.uid(), meta.gid()), mtime, is_dir: kind.is_dir(), inode }
}

fn walk(root: &Path, below: &Path, out: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let found = node(&root.join(&path));
        let is_dir = found.is_dir;
        out.insert(path.clone(), found);
        if is_dir {
            walk(root, &path, out);
        }
    }
}

fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    walk(root, Path::new(""), &mut out);
    out
}

/// The path under which a merged `/usr` has a path of a package.
fn merged(path: &Path, is_dir: bool) -> PathBuf {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    let deeper = path.components().count() > 1;
    if MERGED.contains(&first.as_str()) && (deeper || is_dir) {
        Path::new("usr").join(path)
    } else {
        path.to_owned()
    }
}

/// Gives directories the time that the package says, where `dpkg -x` does not: its `tar` first
/// makes a file in place of a link that is absolute or climbs, and puts the link there at the end,
/// which sets the directory's time to now.
fn mend_times(deb: &Path, tree: &mut Tree) {
    let climbs = |n: &Node| n.what.starts_with("link to /") || n.what.starts_with("link to ..");
    let touched = |(path, node): (&PathBuf, &Node)| {
        climbs(node).then(|| path.parent().unwrap_or_else(|| Path::new("")).to_owned())
    };
    let touched: BTreeSet<PathBuf> = tree.iter().filter_map(touched).collect();
    let out = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).output().unwrap();
    for entry in tar::Archive::new(out.stdout.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let path: PathBuf = entry.path().unwrap().components().skip(1).collect();
        if let Some(node) = tree.get_mut(&path).filter(|_| touched.contains(&path)) {
            node.mtime = i64::try_from(entry.header().mtime().unwrap()).unwrap();
        }
    }
}

/// What `dpkg -x` unpacks of packages together, with `/usr` merged. A directory that several share
/// has the newest of their times.
fn unpacked(debs: &[&Path]) -> Tree {
    let mut out = Tree::new();
    // All stay until the end, so that no inode number is used twice.
    let dir = tempfile::tempdir().unwrap();
    for (deb, number) in debs.iter().zip(0..) {
        let dir = dir.path().join(format!("{number}"));
        let done = Command::new("dpkg").arg("-x").arg(deb).arg(&dir).status().unwrap();
        assert!(done.success(), "dpkg -x {}", deb.display());
        let mut found = tree(&dir);
        mend_times(deb, &mut found);
        for (path, mut node) in found {
            let path = merged(&path, node.is_dir);
            if let Some(other) = out.get(&path) {
                assert!(node.is_dir && other.is_dir, "{} is in two packages", path.display());
                node.mtime = node.mtime.max(other.mtime);
            }
            out.insert(path, node);
        }
    }
    out
}

/// How two trees differ, in words; empty if they are the same.
fn differences(shown: &Tree, wanted: &Tree) -> Vec<String> {
    let root = rustix::process::geteuid().is_root();
    let mut out = Vec::new();
    for path in wanted.keys().chain(shown.keys()).collect::<BTreeSet<_>>() {
        let at = path.display();
        let (got, want) = match (shown.get(path), wanted.get(path)) {
            (Some(got), Some(want)) => (got, want),
            // The folder that a merged `/usr` needs need not be in the package.
            (Some(got), None) if path == Path::new("usr") && got.is_dir => continue,
            (got, _) => {
                out.push(format!("{at}: {}", if got.is_some() { "too much" } else { "missing" }));
                continue;
            }
        };
        if got.what != want.what {
            out.push(format!("{at}: {}, not {}", got.what, want.what));
        }
        if got.mode != want.mode {
            out.push(format!("{at}: mode {:o}, not {:o}", got.mode, want.mode));
        }
        if got.mtime != want.mtime {
            out.push(format!("{at}: time {}, not {}", got.mtime, want.mtime));
        }
        if root && got.owner != want.owner {
            out.push(format!("{at}: owner {:?}, not {:?}", got.owner, want.owner));
        }
    }
    out.extend(split_links(shown, wanted));
    out
}

/// Names that are one file in the package and several in the view.
fn split_links(shown: &Tree, wanted: &Tree) -> Vec<String> {
    let mut first: BTreeMap<(u64, u64), &PathBuf> = BTreeMap::new();
    let mut out = Vec::new();
    for (path, node) in wanted.iter().filter(|(_, n)| !n.is_dir) {
        let other = *first.entry(node.inode).or_insert(path);
        let inode = |p: &PathBuf| shown.get(p).map(|n| n.inode);
        if inode(other) != inode(path) {
            out.push(format!("{} is no hard link to {}", path.display(), other.display()));
        }
    }
    out
}

/// A view shows exactly what `dpkg -x` unpacks of these packages: content, mode, links, times, and
/// owners where the test runs as root. Returns how many entries were compared.
pub fn compare_with_dpkg(view: &Path, debs: &[&Path]) -> usize {
    let (shown, wanted) = (tree(view), unpacked(debs));
    let wrong = differences(&shown, &wanted);
    assert!(wrong.is_empty(), "{} differs from dpkg -x:\n{}", view.display(), wrong.join("\n"));
    assert!(!shown.is_empty(), "{} shows nothing", view.display());
    shown.len()
}

/// A view shows exactly the files of a folder: paths and contents.
pub fn compare_with_folder(view: &Path, folder: &Path) {
    let what = |t: Tree| t.into_iter().map(|(p, n)| (p, n.what)).collect::<BTreeMap<_, _>>();
    assert_eq!(what(tree(view)), what(tree(folder)), "{}", view.display());
}

/// Bytes on disk of regular files below these paths, each inode counted once. What vanishes
/// meanwhile does not count.
#[must_use]
pub fn disk_usage(roots: &[&Path]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    let mut todo: Vec<PathBuf> = roots.iter().map(|r| (*r).to_owned()).collect();
    while let Some(path) = todo.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|e| e.path()));
        } else if meta.is_file() && seen.insert((meta.dev(), meta.ino())) {
            bytes += meta.blocks() * 512;
        }
    }
    bytes
}
