//! Opening, locking, the journal, full disks and the latch.

use std::path::Path;
use std::sync::Arc;

use stork_wire::codec::{Blob, List};
use stork_wire::frame::ItemRange;
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::{Cut, Item, ItemKind};
use stork_wire::manifest::Variant;
use stork_wire::sign::Envelope;

use super::support::*;
use crate::store::{Health, JournalItem, Room, Store, StoreError, StoreOptions, UnpackError};

fn item(log: u8, seq: u64, body: &[u8]) -> JournalItem {
    let envelope = Envelope { body: Blob::new(body.to_vec()).unwrap(), signatures: List::empty() };
    let item = Item { kind: ItemKind::Entry, log: LogId([log; 32]), seq, envelope };
    JournalItem { item, hash: ItemHash::of(body), cuts: Vec::new() }
}

/// One process at a time, and after it ended the next one gets in.
#[test]
fn one_process_a_folder() {
    let (folder, store) = store();
    let path = folder.path().join("stork");
    let second = Store::open(&path, options()).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("another stork-node uses this folder"));
    let epoch = store.epoch();
    drop(store);
    let (store, recovery) = open_when_free(&path, options());
    assert!(!recovery.created && recovery.epoch == store.epoch() && store.epoch() != epoch);
}

/// T120: a newer store is refused by its number, and not a byte of it changes.
#[test]
fn t120_newer_store_is_not_touched() {
    let (folder, store) = store();
    store.put_state("a", b"b").unwrap();
    drop(store);
    let path = folder.path().join("stork");
    std::fs::write(path.join("format"), "2\n").unwrap();
    let before = std::fs::read(path.join("state.redb")).unwrap();
    let refused = Store::open(&path, options()).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 2, known: 1, .. }), "{refused}");
    assert!(!refused.help().is_empty());
    assert_eq!(std::fs::read(path.join("state.redb")).unwrap(), before);
}

/// What is wrong with the folder is said apart, with its path.
#[test]
fn folders_that_can_not_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let refused = Store::open(&file.join("stork"), options()).unwrap_err();
    assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
    let damaged = folder.path().join("damaged");
    drop(open(&damaged));
    std::fs::write(damaged.join("state.redb"), noise("junk", 8192)).unwrap();
    let refused = Store::open(&damaged, options()).unwrap_err();
    assert!(matches!(refused, StoreError::DamagedState { .. }), "{refused}");
    assert!(refused.to_string().contains("state.redb") && !refused.help().is_empty());
    let others = folder.path().join("others");
    std::fs::create_dir(&others).unwrap();
    std::fs::write(others.join("x"), "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&others, mode).unwrap();
    let refused = Store::open(&others, options()).unwrap_err();
    assert!(matches!(refused, StoreError::Exposed { .. }), "{refused}");
}

/// What a crash leaves is removed, counted, and what is whole stays.
#[test]
fn leftovers_are_removed() {
    let (folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let set = store.build_set(&spec(vec![member("a", &packed)])).unwrap();
    drop(store);
    let path = folder.path().join("stork");
    for name in ["objects/tmp/.tmp-1-1", "packs/00/.tmp-1-2", ".tmp-1-3"] {
        std::fs::write(path.join(name), "x").unwrap();
    }
    std::fs::write(path.join(format!("incoming/{}", "ab".repeat(32))), "x").unwrap();
    std::fs::create_dir_all(path.join("sets/.build-abc/usr")).unwrap();
    std::fs::create_dir_all(path.join(format!("sets/{}/usr", "ab".repeat(32)))).unwrap();
    let (store, found) = open_when_free(&path, options());
    assert_eq!((found.temporary_files, found.half_sets, found.unfinished), (3, 2, 1));
    assert_eq!(store.sets().unwrap(), std::slice::from_ref(&set));
    drop(store);
    std::fs::remove_dir_all(&set.path).unwrap();
    let (store, found) = open_when_free(&path, options());
    assert_eq!((found.lost_sets, store.sets().unwrap().len()), (1, 0));
    assert_eq!(store.build_set(&spec(vec![member("a", &packed)])).unwrap(), set);
}

/// Items come back in order after a restart, a head never falls, and a refused batch leaves
/// nothing.
#[test]
fn the_journal() {
    let (folder, store) = store();
    store.commit_items(&[item(2, 1, b"x"), item(1, 1, b"a"), item(1, 2, b"b")]).unwrap();
    store.commit_items(&[item(1, 300, b"c")]).unwrap();
    store.commit_items(&[item(1, 300, b"c")]).unwrap();
    for refused in [item(1, 299, b"old"), item(1, 300, b"fork")] {
        let error = store.commit_items(&[item(3, 1, b"new"), refused]).unwrap_err();
        assert!(matches!(error, StoreError::HeadWouldFall { head: 300, .. }), "{error}");
    }
    drop(store);
    let store = open(&folder.path().join("stork"));
    let mut seen = Vec::new();
    store.all_items(|i| seen.push((i.item.log.0[0], i.item.seq))).unwrap();
    assert_eq!(seen, [(1, 1), (1, 2), (1, 300), (2, 1)]);
    let heads: Vec<_> = store.heads().unwrap().iter().map(|h| (h.log.0[0], h.seq)).collect();
    assert_eq!(heads, [(1, 300), (2, 1)]);
    let range = |from, to| ItemRange { log: LogId([1; 32]), from, to };
    let seqs = |range, bytes, count| {
        let items = store.items(range, bytes, count).unwrap();
        items.iter().map(|i| i.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(range(1, 1000), 10_000, 10), [1, 2, 300]);
    assert_eq!(seqs(range(2, 299), 10_000, 10), [2]);
    assert_eq!(seqs(range(1, 1000), 10_000, 2), [1, 2]);
    assert_eq!(seqs(range(1, 1000), 1, 10), [1]);
    assert_eq!(seqs(range(9, 3), 10_000, 10), [0u64; 0]);
}

/// Small state is listed by prefix, changed together, and a token counts once, for ever.
#[test]
fn small_state_and_tokens() {
    let (folder, store) = store();
    for (name, value) in [("a:1", "x"), ("a:2", "y"), ("b", "z")] {
        store.put_state(name, value.as_bytes()).unwrap();
    }
    store.put_states(&[("a:1".into(), None), ("a:3".into(), Some(b"w".to_vec()))]).unwrap();
    let names: Vec<_> = store.list_state("a:").unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["a:2", "a:3"]);
    store.remove_state("b").unwrap();
    assert_eq!(store.get_state("b").unwrap(), None);
    assert!(store.used_token([7; 16], u64::MAX).unwrap());
    assert!(!store.used_token([7; 16], u64::MAX).unwrap());
    drop(store);
    let store = open(&folder.path().join("stork"));
    assert!(!store.used_token([7; 16], u64::MAX).unwrap());
    assert_eq!(store.get_state("a:2").unwrap().unwrap(), b"y");
}

/// Reservations add up, are given back, and leave the floor alone.
#[test]
fn reservations() {
    let folder = tempfile::tempdir().unwrap();
    let floor = 1 << 20;
    let options = StoreOptions { min_free_bytes: floor, ..options() };
    let (store, _) = open_when_free(&folder.path().join("stork"), options);
    let bytes = |bytes| Room { bytes, files: 0 };
    // Others write and delete meanwhile: twice so much is more than there can be.
    let free = store.stat().unwrap().free_bytes;
    let most = free / 4 * 3;
    let first = store.reserve(bytes(most)).unwrap();
    let refused = store.reserve(bytes(most)).unwrap_err();
    assert!(matches!(refused, StoreError::NoSpace { .. }) && refused.is_no_space());
    assert_eq!(store.stat().unwrap().reserved_bytes, most);
    drop(first);
    let mut second = store.reserve(bytes(free / 2)).unwrap();
    second.written(free / 4);
    assert_eq!(store.stat().unwrap().reserved_bytes, second.bytes());
}

/// After a write whose outcome is unknown the store only reads, and says why; opening it again
/// recovers.
#[test]
fn the_latch() {
    let (folder, store) = store();
    store.put_state("a", b"b").unwrap();
    store.latch("a test".to_owned());
    let error = store.put_state("a", b"c").unwrap_err();
    assert!(matches!(&error, StoreError::Latched { cause, .. } if cause == "a test"), "{error}");
    assert!(matches!(store.health(), Health::Latched { .. }));
    assert_eq!(store.get_state("a").unwrap().unwrap(), b"b");
    let packed = small("a", b"data");
    assert!(store.put_manifest(&packed.reference(), &packed.bytes()).is_err());
    assert!(store.unpack(&packed.manifest, Variant::Full, &|_| {}).is_err());
    assert!(store.gc(false).is_err() && store.gc(true).is_ok());
    drop(store);
    let store = open(&folder.path().join("stork"));
    assert_eq!(store.health(), Health::Good);
    store.put_state("a", b"c").unwrap();
}

/// A tmpfs that ends with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", dir.path(), "tmpfs", flags, size.as_c_str()).unwrap();
        Self(dir)
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// T088: a disk that fills up while a release is fetched and unpacked is survived: a clear error,
/// nothing half done, no latch, and the same works when there is room again.
#[test]
fn t088_full_disk() {
    if !root_or_skip("a small tmpfs") {
        return;
    }
    let disk = SmallDisk::new(24 << 20);
    let store: Arc<Store> = open(&disk.path().join("stork"));
    let bytes = noise("large", 6 << 20);
    let packed = pack(tree(vec![file("f", &bytes)]), &[&bytes], 32 << 20, None);
    fetch(&store, &packed, Variant::Full);
    let ballast = disk.path().join("ballast");
    let fill = |left: u64| {
        let free = store.stat().unwrap().free_bytes;
        std::fs::write(&ballast, vec![1; usize::try_from(free - left).unwrap()]).unwrap();
    };
    fill(3 << 20);
    let error = store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap_err();
    assert!(matches!(&error, UnpackError::Store(e) if e.is_no_space()), "{error}");
    std::fs::remove_file(&ballast).unwrap();
    fill(64 << 10);
    let other = noise("other", 1 << 20);
    let pushed = stork_wire::ids::PackId::of(&other);
    let error = store.upload_append(pushed, 1 << 20, 0, &other).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let error = store.put_state("a", b"b").unwrap_err();
    assert!(error.is_no_space() && !error.help().is_empty(), "{error}");
    assert_eq!(store.health(), Health::Good);
    std::fs::remove_file(&ballast).unwrap();
    store.upload_append(pushed, 1 << 20, 0, &other).unwrap();
    store.put_state("a", b"b").unwrap();
    store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap();
    assert!(store.tree_complete(packed.manifest.tree.id()).unwrap());
    let tmp = disk.path().join("stork/objects/tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
    drop(store);
}

/// A disk that others filled to the last byte: what removes works nevertheless, on the ballast, and
/// then there is room again. A new store on a full disk is refused in words.
#[test]
fn a_full_disk_can_be_freed() {
    if !root_or_skip("a small tmpfs") {
        return;
    }
    let disk = SmallDisk::new(48 << 20);
    let store: Arc<Store> = open(&disk.path().join("stork"));
    let bytes = noise("large", 6 << 20);
    let packed = pack(tree(vec![file("f", &bytes)]), &[&bytes], 32 << 20, None);
    install(&store, &packed);
    let trees = [packed.manifest.tree.id()].into();
    store.lease("x", &crate::store::LeaseSet { trees, ..Default::default() }).unwrap();
    let free = usize::try_from(store.stat().unwrap().free_bytes).unwrap();
    std::fs::write(disk.path().join("ballast"), vec![1; free]).unwrap();
    let error = Store::open(&disk.path().join("new"), options()).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(store.put_state("a", b"b").unwrap_err().is_no_space());
    store.release_lease("x").unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!((report.objects, report.packs), (1, 1));
    assert_eq!(store.health(), Health::Good);
    store.put_state("a", b"b").unwrap();
}

/// Of a log whose numbers are times one row is kept, with its head; a question for an older one is
/// answered with it.
#[test]
fn of_beacons_the_newest_is_kept() {
    let (folder, store) = store();
    let at = |n: u64| 1_800_000_000 + n;
    store.commit_items(&[item(1, at(0), b"a"), item(1, at(7), b"b"), item(2, 1, b"x")]).unwrap();
    store.commit_items(&[item(1, at(9_000), b"c")]).unwrap();
    assert!(store.commit_items(&[item(1, at(8), b"old")]).is_err());
    drop(store);
    let store = open(&folder.path().join("stork"));
    let mut seen = Vec::new();
    store.all_items(|i| seen.push((i.item.log.0[0], i.item.seq))).unwrap();
    assert_eq!(seen, [(1, at(9_000)), (2, 1)]);
    let range = ItemRange { log: LogId([1; 32]), from: at(7), to: u64::MAX };
    assert_eq!(store.items(range, usize::MAX, 256).unwrap().len(), 1);
}

/// What a proof or a new epoch makes void goes in the transaction that stores it: rows, head, and
/// where they must still be known by name, a copy aside. It is so after a restart.
#[test]
fn t020_void_items_go_with_what_says_so() {
    let (folder, store) = store();
    let all: Vec<_> = (1..=5).map(|seq| item(1, seq, &seq.to_be_bytes())).collect();
    store.commit_items(&all).unwrap();
    let log = LogId([1; 32]);
    let seqs =
        |s: &Store| -> Vec<u64> { s.log_items(log).unwrap().iter().map(|i| i.seq).collect() };
    let head = |s: &Store| s.heads().unwrap().iter().find(|h| h.log == log).map(|h| h.seq);
    let cut = |after, last, keep| vec![Cut { log, after, last, keep }];
    let mut proof = item(2, 1, b"proof");
    proof.cuts = cut(3, None, true);
    // In one batch with an item that it makes void, and refused as a whole with a bad one.
    let bad = item(1, 1, b"another");
    let batch = [item(1, 6, b"six"), proof, bad];
    assert!(store.commit_items(&batch).is_err());
    assert_eq!((seqs(&store).len(), head(&store)), (5, Some(5)));
    store.commit_items(&batch[..2]).unwrap();
    assert_eq!((seqs(&store), head(&store)), (vec![1, 2, 3], Some(3)));
    let path = folder.path().join("stork");
    drop(store);
    let (store, _) = open_when_free(&path, options());
    assert_eq!((seqs(&store), head(&store)), (vec![1, 2, 3], Some(3)));
    let aside: Vec<u64> = store.items_aside().unwrap().iter().map(|i| i.seq).collect();
    assert_eq!(aside, [4, 5, 6]);
    let log = all[2].item.log;
    let page = |from, max| store.log_items_aside(log, from, max).unwrap();
    assert_eq!([page(1, 2).len(), page(6, 2).len(), page(7, 2).len()], [2, 1, 0]);
    assert_eq!(page(1, 2)[1].seq, 5);
    // The log goes on with other items, and an entry that is not what must stand goes as well.
    store.commit_items(&[item(1, 4, b"other four")]).unwrap();
    let mut doc = item(3, 1, b"doc");
    doc.cuts = cut(3, Some(all[2].hash), false);
    store.commit_items(&[doc]).unwrap();
    assert_eq!((seqs(&store), head(&store)), (vec![1, 2, 3], Some(3)));
    let mut doc = item(3, 2, b"doc 2");
    doc.cuts = cut(3, Some(ItemHash([9; 32])), false);
    store.commit_items(&[doc]).unwrap();
    assert_eq!((seqs(&store), head(&store)), (vec![1, 2], Some(2)));
    let mut doc = item(3, 3, b"doc 3");
    doc.cuts = cut(0, None, false);
    store.commit_items(&[doc]).unwrap();
    assert_eq!((seqs(&store), head(&store), store.items_aside().unwrap().len()), (vec![], None, 3));
}
