//! What is done to a store until the power fails, and what must hold after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stork_wire::codec::{Blob, List};
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::manifest::{TreeNode, Variant};
use stork_wire::sign::Envelope;

use crate::store::tests::support::{
    Packed, dir, fetch, file, install, link, member, noise, open_when_free, options, pack, spec,
    tree,
};
use crate::store::{Health, JournalItem, LeaseSet, SetInfo, Store, StoreError, StoreOptions};
use crate::view::{Backend, GenerationLabel, Isolation, ViewOptions, ViewSpec, Views};

/// The folders of one host: its store, and a VM's root.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    fn store(&self) -> PathBuf {
        self.0.join("stork")
    }

    fn spec(&self) -> ViewSpec {
        ViewSpec {
            vm: "vm".parse().unwrap(),
            backend: Backend::Hardlink,
            target: self.0.join("vm/rootfs"),
            isolation: Isolation::None,
            keep_generations: 1,
            options: ViewOptions::default(),
        }
    }

    /// A new store with nothing in it.
    pub(super) fn prepare(&self) {
        drop(open_when_free(&self.store(), options()));
        fs::create_dir(self.0.join("vm")).unwrap();
    }
}

/// A package in two versions: a file that crosses packs, small ones, one in both, and a link.
fn package(version: &str) -> Packed {
    let (large, small) = (noise(version, 150_000), version.as_bytes());
    let entries = vec![
        dir("usr"),
        file("usr/large", &large),
        file("usr/same", b"the same in both"),
        link("usr/link", "large"),
        dir("usr/share"),
        file("usr/share/version", small),
    ];
    pack(tree(entries), &[&large, small, b"the same in both"], 100_000, None)
}

fn item(seq: u64) -> JournalItem {
    let body = format!("item {seq}").into_bytes();
    let envelope = Envelope { body: Blob::new(body.clone()).unwrap(), signatures: List::empty() };
    let item = Item { kind: ItemKind::Entry, log: LogId([7; 32]), seq, envelope };
    JournalItem { item, hash: ItemHash::of(&body), cuts: Vec::new() }
}

/// What the process tells the world, a line at a time.
struct Marks(File);

impl Marks {
    fn tell(&mut self, text: &str) {
        self.0.write_all(format!("{text}\n").as_bytes()).unwrap();
    }
}

fn keep(store: &Store, name: &str, packed: &Packed) {
    let what = LeaseSet {
        manifests: [packed.reference().id].into(),
        trees: [packed.manifest.tree.id()].into(),
        ..LeaseSet::default()
    };
    store.lease(name, &what).unwrap();
}

fn show(store: &Arc<Store>, views: &Views, place: &Place, packed: &Packed) -> SetInfo {
    let _hold = store.hold();
    let set = store.build_set(&spec(vec![member("pkg", packed)])).unwrap();
    views.show(&place.spec(), &set, GenerationLabel::default(), 1_700_000_000).unwrap();
    set
}

/// Everything that a store is asked for, one after the other; what is acknowledged is told.
pub(super) fn work(place: &Place, marks: &Path) {
    let mut marks = Marks(File::options().append(true).open(marks).unwrap());
    let (store, _) = open_when_free(&place.store(), options());
    marks.tell("open");
    work_on(&store, place, &mut marks);
}

/// The same on a disk that fails once: whatever was asked for then fails, and after that the store
/// only reads, or goes on as if nothing had been.
pub(super) fn work_with_fault(place: &Place, marks: &Path) {
    let mut marks = Marks(File::options().append(true).open(marks).unwrap());
    let Ok((store, _)) = Store::open(&place.store(), options()) else { return };
    marks.tell("open");
    let done = catch_unwind(AssertUnwindSafe(|| work_on(&store, place, &mut marks)));
    if done.is_ok() {
        return marks.tell("through");
    }
    if matches!(store.health(), Health::Latched { .. }) {
        marks.tell("latched");
        let refused = |e: StoreError| matches!(e, StoreError::Latched { .. });
        assert!(refused(store.put_state("a", b"b").unwrap_err()));
        assert!(refused(store.commit_items(&[item(9)]).unwrap_err()));
        assert!(refused(
            store.put_manifest(&package("4").reference(), &package("4").bytes()).unwrap_err()
        ));
        return;
    }
    let two = package("2");
    keep(&store, "two", &two);
    install(&store, &two);
    marks.tell("tree 2");
    show(&store, &Views::new(Arc::clone(&store)), place, &two);
    marks.tell("shown 2");
    marks.tell("went on");
}

fn work_on(store: &Arc<Store>, place: &Place, marks: &mut Marks) {
    let views = Views::new(Arc::clone(store));
    for seq in 1..=3 {
        store.commit_items(&[item(seq)]).unwrap();
        marks.tell(&format!("head {seq}"));
    }
    let (one, two) = (package("1"), package("2"));
    keep(store, "one", &one);
    install(store, &one);
    marks.tell("tree 1");
    show(store, &views, place, &one);
    marks.tell("shown 1");
    store.commit_items(&[item(4), item(5)]).unwrap();
    marks.tell("head 5");

    // The second version comes from a publisher, in parts, and is unpacked from its packs.
    keep(store, "two", &two);
    for (pack, bytes) in two.manifest.packing.packs(Variant::Full).iter().zip(&two.full) {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let at = store.upload_append(pack.id, pack.size, 0, first).unwrap();
        store.upload_append(pack.id, pack.size, at, rest).unwrap();
        store.upload_finish(pack.id, pack.size).unwrap();
    }
    store.put_manifest(&two.reference(), &two.bytes()).unwrap();
    marks.tell("pushed 2");
    store.unpack(&two.manifest, Variant::Full, &|_| {}).unwrap();
    marks.tell("tree 2");
    show(store, &views, place, &two);
    marks.tell("shown 2");

    // The first one goes, and half of another fetch with it.
    marks.tell("collecting");
    let third = package("3");
    let part = &third.manifest.packing.packs[0];
    let partial = store.open_partial(part.id, part.size, 65_536, &part.pieces).unwrap();
    partial.write_piece(0, &third.full[0][..65_536]).unwrap();
    partial.flush().unwrap();
    drop(partial);
    store.release_lease("one").unwrap();
    store.gc(false).unwrap();
    store.put_state("last", b"word").unwrap();
    marks.tell("head 5");
    marks.tell("collected");
}

/// What a tree's files should be, by path.
type Files = BTreeMap<String, Vec<u8>>;

fn files_of(packed: &Packed, version: &str) -> Files {
    let bytes = |path: &str| match path {
        "usr/large" => noise(version, 150_000),
        "usr/same" => b"the same in both".to_vec(),
        _ => version.as_bytes().to_vec(),
    };
    let files = packed.manifest.tree.entries.iter();
    let files = files.filter(|e| matches!(e.node, TreeNode::File { .. }));
    files.map(|e| (e.path.to_string(), bytes(e.path.as_str()))).collect()
}

fn files_at(root: &Path, at: &Path, out: &mut Files) {
    for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files_at(root, &path, out);
        } else if entry.file_type().unwrap().is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            out.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// Which version a view shows, wholly; 0: there is none.
fn version_at(target: &Path, packages: &[(u64, Files)]) -> u64 {
    if !target.exists() {
        return 0;
    }
    let mut files = Files::new();
    files_at(target, target, &mut files);
    let found = packages.iter().find(|(_, f)| *f == files).map(|(n, _)| *n);
    found.unwrap_or_else(|| panic!("no whole generation: {:?}", files.keys()))
}

fn number(told: &[&str], word: &str) -> u64 {
    let last = told.iter().rev().find_map(|t| t.strip_prefix(word));
    last.map_or(0, |n| n.trim().parse().unwrap())
}

/// Opens a store that was just closed. Another test of this process may begin a child at that very
/// moment, which has the lock until it runs its program.
fn open(place: &Place, options: StoreOptions) -> Arc<Store> {
    loop {
        match Store::open(&place.store(), options) {
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap().0,
        }
    }
}

/// Looks at what a power cut left: the view before anything runs, the store when it is open, and
/// both when everything was tidied and then given up.
pub(super) fn check(place: &Place, told: &[&str]) {
    let packed = [1, 2].map(|n: u64| (n, package(&n.to_string())));
    let packages = packed.each_ref().map(|(n, p)| (*n, files_of(p, &n.to_string())));
    let target = place.spec().target;
    let shown = number(told, "shown");
    let before = version_at(&target, &packages);
    assert!(before >= shown, "{before} is shown after {shown}");

    let store = open(place, options());
    let head = store.heads().unwrap().first().map_or(0, |h| h.seq);
    assert!(head >= number(told, "head"), "the head fell to {head}");
    let known: Vec<u64> = store.log_items(LogId([7; 32])).unwrap().iter().map(|i| i.seq).collect();
    assert!(known.iter().copied().eq(1..=head), "{known:?}");
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, []);
    let kept = |n: usize| store.tree_complete(packed[n - 1].1.manifest.tree.id()).unwrap();
    assert!(number(told, "tree") < 2 || kept(2));
    assert!(!told.contains(&"tree 1") || told.contains(&"collecting") || kept(1));
    if told.contains(&"pushed 2") {
        assert!(packed[1].1.manifest.packing.packs.iter().all(|p| store.has_pack(p.id)));
    }

    // The view is whole after it was brought together with its records, and is not set back.
    let views = Views::new(Arc::clone(&store));
    views.reconcile(&place.spec()).unwrap();
    let after = version_at(&target, &packages);
    assert!(after >= shown, "{after} is shown after {shown}");
    assert!(views.current(&place.spec().vm).unwrap().is_some() || after == 0);

    // It goes on: the second version comes and is shown, whatever was there of it.
    keep(&store, "two", &packed[1].1);
    install(&store, &packed[1].1);
    fetch(&store, &packed[1].1, Variant::Full);
    show(&store, &views, place, &packed[1].1);
    assert_eq!(version_at(&target, &packages), 2);
    drop((views, store));
    nothing_leaks(place);
}

/// With nothing wanted any more, nothing stays but the words of others.
fn nothing_leaks(place: &Place) {
    let none = StoreOptions { seed_budget_bytes: 0, ..options() };
    let store = open(place, none);
    let views = Views::new(Arc::clone(&store));
    views.hide(&place.spec()).unwrap();
    for (name, _) in store.leases().unwrap() {
        store.release_lease(&name).unwrap();
    }
    store.gc(false).unwrap();
    let stat = store.stat().unwrap();
    let left =
        [stat.objects, stat.packs, stat.partial_packs, stat.manifests, stat.trees, stat.sets];
    assert_eq!(left, [0; 6]);
    for folder in ["objects/tmp", "incoming", "sets", "quarantine"] {
        let names: Vec<_> = fs::read_dir(place.store().join(folder)).unwrap().collect();
        assert!(names.is_empty(), "{folder}: {names:?}");
    }
    let mut files = Files::new();
    files_at(&place.0, &place.0, &mut files);
    let known = ["stork/state.redb", "stork/format", "stork/ballast", "stork/vms/vm/generation"];
    files.retain(|name, _| !known.contains(&name.as_str()));
    assert!(files.is_empty(), "{:?}", files.keys());
    let root = place.store().metadata().unwrap();
    assert_eq!(root.mode() & 0o777, 0o700);
}
