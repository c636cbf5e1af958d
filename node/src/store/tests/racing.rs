//! Somebody plays with names while a tree is built.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use stork_wire::manifest::{Tree, TreeNode};

use super::support::*;
use crate::store::{Health, Store};

/// Folders of one branch, in the order in which they lie within each other.
const BRANCH: [&str; 4] = ["a", "a/b", "a/b/c", "a/b/c/d"];
/// Trees that are built in the gate, and swaps of names with `STORK_LONG=1`.
const BUILDS: u64 = 60;
const SWAPS_LONG: u64 = 1_000_000;

/// A tree with a few files in each of the folders, in three branches.
fn contested() -> Tree {
    let mut entries = Vec::new();
    for branch in ["", "b/", "c/"] {
        if !branch.is_empty() {
            entries.push(dir(branch.trim_end_matches('/')));
        }
        for folder in BRANCH {
            entries.push(dir(&format!("{branch}{folder}")));
            let files = (0..4).map(|n| file(&format!("{branch}{folder}/file{n}"), b"data"));
            entries.extend(files);
            entries.push(link(&format!("{branch}{folder}/link"), "file0"));
        }
    }
    tree(entries)
}

/// Path, mode, links, times and bytes of something.
type Found = (PathBuf, u32, u64, [i64; 4], Vec<u8>);

/// All that is in a folder, and itself.
fn census(folder: &Path) -> Vec<Found> {
    let mut out = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        let bytes = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        out.push((path, meta.mode(), meta.nlink(), times, bytes));
    }
    out.sort();
    out
}

/// A folder with the same names in it, in which nothing must happen.
fn forbidden(at: &Path) {
    for folder in BRANCH {
        std::fs::create_dir_all(at.join(folder)).unwrap();
        for name in ["file0", "mine"] {
            std::fs::write(at.join(folder).join(name), "not yours").unwrap();
        }
    }
}

/// Swaps folders of the tree that is built just now for a link that leads out of it, and back, as
/// fast as it can; counts the swaps.
fn race(now: &Mutex<PathBuf>, link: &Path, done: &AtomicBool, swaps: &AtomicU64) {
    let mut turn = 0;
    while !done.load(Ordering::Relaxed) {
        // Held for a while, so that the link can be put in order when it is not.
        let top = now.lock().unwrap();
        for _ in 0..10 {
            turn += 1;
            let folder = top.join(BRANCH[turn % BRANCH.len()]);
            let swap = || renameat_with(CWD, &folder, CWD, link, RenameFlags::EXCHANGE);
            if swap().is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
                // Until it is back; the builder may take the whole tree away meanwhile.
                while swap().is_err() && folder.symlink_metadata().is_ok() {}
            }
        }
        drop(top);
        std::thread::yield_now();
    }
}

/// Puts the link back where the racer lost it together with the tree.
fn repair(link: &Path, target: &Path) {
    if !link.is_symlink() {
        if link.exists() {
            std::fs::remove_dir_all(link).unwrap();
        }
        std::os::unix::fs::symlink(target, link).unwrap();
    }
}

/// T098: while trees are built, somebody who may write among them swaps their folders for a link
/// that leads out. A tree is built, or is refused and taken away again; never is anything made,
/// changed or removed outside of it. `STORK_LONG=1` goes on for a million swaps.
#[test]
fn t098_folders_swapped_for_links() {
    let (folder, store) = store();
    let path = folder.path().join("stork");
    install(&store, &pack(contested(), &[b"data"], 1 << 20, None));
    let mut store = Some(store);
    let outside = folder.path().join("outside");
    forbidden(&outside);
    let before = census(&outside);
    let (link, tree) = (folder.path().join("link"), contested());
    let now = Mutex::new(folder.path().join("none"));
    let (done, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let long = std::env::var_os("STORK_LONG").is_some();
    let (mut built, mut refused) = (0, 0);
    std::thread::scope(|s| {
        repair(&link, &outside);
        s.spawn(|| race(&now, &link, &done, &swaps));
        let mut n = 0;
        let raced = |refused| swaps.load(Ordering::Relaxed) > 100 && refused > 0;
        let wanted = |n, refused| n < BUILDS || (!raced(refused) && n < 100 * BUILDS);
        while wanted(n, refused) || (long && swaps.load(Ordering::Relaxed) < SWAPS_LONG) {
            n += 1;
            let dest = path.join(format!("sets/.build-{n}"));
            now.lock().unwrap().clone_from(&dest);
            match store.as_ref().unwrap().link_tree(&tree, &dest) {
                Ok(()) => built += 1,
                Err(_) => refused += 1,
            }
            let quiet = now.lock().unwrap();
            repair(&link, &outside);
            drop(std::fs::remove_dir_all(&dest));
            drop(quiet);
            // A fault while names are made durable latches the store, as it should.
            if store.as_ref().unwrap().health() != Health::Good {
                drop(store.take());
                store = Some(open(&path));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.load(Ordering::Relaxed);
    println!("{swaps} swaps: {built} trees were built, {refused} refused");
    assert!(swaps > 100 && refused > 0, "nobody raced: {swaps} swaps, {refused} refused");
    assert_eq!(census(&outside), before);
    // With nobody there, the next one is what it should be.
    let store: std::sync::Arc<Store> = store.unwrap();
    let dest = path.join("sets/.build-0");
    store.link_tree(&tree, &dest).unwrap();
    super::trees::assert_shows(&dest, &tree);
}

/// T098: pipes and devices get their mode by another call than files and folders do. While a tree
/// with many pipes is built, somebody swaps them for a link to a file of somebody else: its mode
/// stays what it was.
#[test]
fn t098_pipes_swapped_for_links() {
    const PIPES: usize = 200;
    let (folder, store) = store();
    let path = folder.path().join("stork");
    let mut entries = vec![dir("a")];
    entries.extend((0..PIPES).map(|n| {
        let mut pipe = dir(&format!("a/pipe{n:03}"));
        (pipe.node, pipe.mode) = (TreeNode::Fifo, 0o666);
        pipe
    }));
    let tree = tree(entries);
    let (secret, link) = (folder.path().join("secret"), folder.path().join("link"));
    std::fs::write(&secret, "not yours").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let done = AtomicBool::new(false);
    let (mut swaps, mut built) = (0, 0);
    // Until somebody came between, on a machine that does other things as well.
    let mut n = 0;
    while n < 8 || (swaps == 0 && n < 1_000) {
        n += 1;
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let dest = path.join(format!("sets/.build-{n}"));
        done.store(false, Ordering::Relaxed);
        let both = Barrier::new(2);
        std::thread::scope(|s| {
            let racer = s.spawn(|| {
                both.wait();
                let pipe = |n: usize| dest.join(format!("a/pipe{n:03}"));
                let swap = |n| renameat_with(CWD, pipe(n), CWD, &link, RenameFlags::EXCHANGE);
                let done = || done.load(Ordering::Relaxed);
                let mut count = 0;
                // Each one the moment it is there, until the next one is.
                for n in 0..PIPES - 1 {
                    while swap(n).is_err() && !done() {}
                    while !pipe(n + 1).exists() && !done() {}
                    count += usize::from(swap(n).is_ok());
                }
                count
            });
            both.wait();
            built += usize::from(store.link_tree(&tree, &dest).is_ok());
            done.store(true, Ordering::Relaxed);
            swaps += racer.join().unwrap();
        });
        let mode = secret.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "after {swaps} swaps, in tree {n}");
    }
    println!("{swaps} swaps, {built} trees were built");
    assert!(swaps > 0, "nobody raced");
}
