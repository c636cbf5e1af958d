//! Collection, leases and verification.

use std::sync::atomic::{AtomicBool, Ordering};

use stork_wire::ids::ContentId;
use stork_wire::manifest::Variant;

use super::support::*;
use crate::store::{Damage, LeaseSet, StoreOptions, Verifying};

fn lease_set(set: crate::store::SetId) -> LeaseSet {
    LeaseSet { sets: [set].into(), ..LeaseSet::default() }
}

/// What a lease names stays with all that it needs; the rest goes; a dry run only counts.
#[test]
fn leased_things_stay() {
    let (_folder, store) = store();
    let (kept, gone) = (small("kept", b"kept"), small("gone", b"gone"));
    install(&store, &kept);
    install(&store, &gone);
    let set = store.build_set(&spec(vec![member("kept", &kept)])).unwrap();
    let old = store.build_set(&spec(vec![member("gone", &gone)])).unwrap();
    store.lease("vm/web/1", &lease_set(set.id)).unwrap();
    let count = || store.stat().map(|s| (s.objects, s.packs, s.sets, s.manifests)).unwrap();
    let before = count();
    let dry = store.gc(true).unwrap();
    assert_eq!(count(), before);
    let report = store.gc(false).unwrap();
    assert_eq!((report.objects, report.packs, report.manifests), (2, 1, 1));
    assert_eq!((report.trees, report.sets, report.seeds), (1, 1, 1));
    assert_eq!((dry.objects, dry.sets, dry.bytes), (report.objects, report.sets, report.bytes));
    assert!(set.path.is_dir() && !old.path.exists());
    assert!(store.tree_complete(kept.manifest.tree.id()).unwrap());
    assert!(!store.tree_complete(gone.manifest.tree.id()).unwrap());
    assert!(!store.has_content(ContentId::of(b"gone")).unwrap());
    assert_eq!(store.read_content(ContentId::of(b"kept")).unwrap(), b"kept");
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, []);
    store.release_lease("vm/web/1").unwrap();
    store.gc(false).unwrap();
    let after = store.stat().unwrap();
    assert_eq!((after.objects, after.packs, after.sets, after.manifests), (0, 0, 0, 0));
}

/// Packs of leased manifests are seeds: within the budget the last used stay, and a leased pack
/// stays whatever the budget says.
#[test]
fn the_seed_budget() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { seed_budget_bytes: 15_000, ..options() };
    let (store, _) = open_when_free(&folder.path().join("stork"), options);
    let all: Vec<_> = ["a", "b", "c"].iter().map(|n| small(n, &noise(n, 10_000))).collect();
    let id = |i: usize| all[i].manifest.packing.packs[0].id;
    for packed in &all {
        install(&store, packed);
    }
    let manifests = all.iter().map(|p| p.reference().id).collect();
    let lease = LeaseSet { manifests, packs: [id(0)].into(), ..LeaseSet::default() };
    store.lease("seeds", &lease).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(9_999);
    for i in [0, 1] {
        let file = std::fs::File::open(store.pack_path(id(i))).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let report = store.gc(false).unwrap();
    assert_eq!((report.packs, report.seeds), (1, 1));
    assert_eq!([0, 1, 2].map(|i| store.has_pack(id(i))), [true, false, true]);
    // Reading a pack notes its use.
    let file = std::fs::File::open(store.pack_path(id(0))).unwrap();
    drop(store.read_pack(id(0), 0, 1).unwrap());
    assert!(file.metadata().unwrap().modified().unwrap() > long_ago);
}

/// T099: what is written, or found to be here, while somebody holds is not swept, although nothing
/// leases it yet; a transfer's lease keeps the files of a tree that is half unpacked.
#[test]
fn t099_new_things_stay() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let hold = store.hold();
    let set = store.build_set(&spec(vec![member("a", &packed)])).unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!((report.sets, report.trees, report.objects), (0, 0, 0));
    store.lease("vm/a/1", &lease_set(set.id)).unwrap();
    drop(hold);
    let report = store.gc(false).unwrap();
    assert_eq!((report.sets, report.trees, report.objects), (0, 0, 0));
    // Half unpacked: the objects are here and the tree's row is not.
    let half = small("half", b"half");
    store.put_manifest(&half.reference(), &half.bytes()).unwrap();
    let shared = pack(tree(vec![file("f", b"half")]), &[b"half"], 1 << 20, None);
    install(&store, &shared);
    store
        .lease(
            "transfer",
            &LeaseSet {
                manifests: [half.reference().id].into(),
                trees: [half.manifest.tree.id()].into(),
                ..LeaseSet::default()
            },
        )
        .unwrap();
    store.ensure_variant(&half.manifest.tree.entries[2]).unwrap();
    let report = store.gc(false).unwrap();
    assert!(store.has_content(ContentId::of(b"half")).unwrap(), "{report:?}");
}

/// Releases come in while collections run: whatever is leased in the end is complete.
#[test]
fn collecting_beside_work() {
    let (_folder, store) = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                store.gc(false).unwrap();
            }
        });
        for i in 0..15 {
            let hold = store.hold();
            // The second file is the same in all, so that it is shared, swept and written again.
            let tree = tree(vec![file("own", &[i; 9]), file("same", b"same")]);
            let packed = pack(tree, &[&[i; 9], b"same"], 1 << 20, None);
            install(&store, &packed);
            let set = store.build_set(&spec(vec![member("p", &packed)])).unwrap();
            store.lease(&format!("vm/{}", i % 3), &lease_set(set.id)).unwrap();
            drop(hold);
        }
        done.store(true, Ordering::SeqCst);
    });
    let report = store.verify(&|_| {}).unwrap();
    assert_eq!(report.damaged, []);
    store.gc(false).unwrap();
    let stat = store.stat().unwrap();
    assert_eq!((stat.sets, stat.trees, stat.objects), (3, 3, 4));
}

/// A file that is open to be filled is not swept from under its writers; an abandoned one is.
#[test]
fn partial_packs_and_collection() {
    let (_folder, store) = store();
    let packed = small("a", &noise("a", 200_000));
    let pack = &packed.manifest.packing.packs[0];
    let partial = store.open_partial(pack.id, pack.size, PIECE, &pack.pieces).unwrap();
    partial.write_piece(0, &packed.full[0][..PIECE as usize]).unwrap();
    assert_eq!(store.gc(false).unwrap().packs, 0);
    drop(partial);
    assert_eq!(store.stat().unwrap().partial_packs, 1);
    assert_eq!(store.gc(false).unwrap().packs, 1);
    assert_eq!(store.stat().unwrap().partial_packs, 0);
}

/// T093, T094: flipped bits in objects, packs, manifests and records of sets are found; what is
/// damaged goes to quarantine and can be fetched and built again.
#[test]
fn t093_verification_finds_flipped_bits() {
    let (folder, store) = store();
    let (bad, good) = (small("bad", b"bad bytes"), small("good", b"good bytes"));
    install(&store, &bad);
    install(&store, &good);
    let set = store.build_set(&spec(vec![member("bad", &bad)])).unwrap();
    let fine = store.build_set(&spec(vec![member("good", &good)])).unwrap();
    let flip = |path: std::path::PathBuf| {
        let meta = path.metadata().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(meta.modified().unwrap()).unwrap();
    };
    let content = ContentId::of(b"bad bytes");
    flip(store.content_path(content).unwrap());
    flip(store.pack_path(bad.manifest.packing.packs[0].id));
    flip(store.manifest_path(bad.reference().id));
    let report = store.verify(&|_| {}).unwrap();
    let expected = [
        Damage::Object { content, why: "it has other bytes" },
        Damage::Set(set.id),
        Damage::Tree(bad.manifest.tree.id()),
        Damage::Pack(bad.manifest.packing.packs[0].id),
        Damage::Manifest(bad.reference().id),
    ];
    assert_eq!(report.damaged, expected);
    assert_eq!((report.objects, report.packs, report.manifests), (4, 2, 2));
    assert_eq!(std::fs::read_dir(folder.path().join("stork/quarantine")).unwrap().count(), 4);
    assert!(!store.has_content(content).unwrap() && !set.path.exists());
    assert_eq!(store.manifest(bad.reference().id).unwrap(), None);
    assert_eq!(store.set_info(fine.id).unwrap(), Some(fine.clone()));
    install(&store, &bad);
    let again = store.build_set(&spec(vec![member("bad", &bad)])).unwrap();
    assert_eq!(again.id, set.id);
    assert_eq!(std::fs::read(again.path.join("usr/bad/data")).unwrap(), b"bad bytes");
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, []);
    flip(folder.path().join(format!("stork/sets/{}.tree", fine.id)));
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, [Damage::Set(fine.id)]);
}

/// A file whose mode was changed on disk, or that is gone, is damaged too.
#[test]
fn verification_looks_at_metadata() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let path = store.content_path(ContentId::of(b"data")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&path, mode).unwrap();
    assert_eq!(store.verify(&|_| {}).unwrap().damaged.len(), 2);
    store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap();
    std::fs::remove_file(store.content_path(ContentId::of(b"data")).unwrap()).unwrap();
    let damaged = store.verify(&|_| {}).unwrap().damaged;
    let gone = Damage::Object { content: ContentId::of(b"data"), why: "it is gone" };
    assert_eq!(damaged, [gone, Damage::Tree(packed.manifest.tree.id())]);
}

/// A verification tells how far it is: at once, inside of a large file, never backwards, and in the
/// end that all is done, where what was hashed is all that there is.
#[test]
fn verification_tells_how_far_it_is() {
    let (_folder, store) = store();
    let large: Vec<u8> = (0..5u32 << 20).map(|i| i.to_le_bytes()[1]).collect();
    let packed = pack(tree(vec![file("large", &large)]), &[&large], 1 << 20, None);
    install(&store, &packed);
    let told = std::cell::RefCell::new(Vec::new());
    let report = store.verify(&|v: Verifying| told.borrow_mut().push(v)).unwrap();
    let told = told.into_inner();
    let (first, last) = (told[0], told[told.len() - 1]);
    assert!(told.len() > 5, "{told:?}");
    assert_eq!((first.bytes, last.bytes, last.total), (0, report.bytes, report.bytes));
    assert!(told.is_sorted_by_key(|v| v.bytes) && told.iter().all(|v| v.total == last.total));
}
