//! The scrub: what it finds, how it goes on after a restart, and when it waits.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use stork_wire::ids::ContentId;

use super::support::{file, install, member, noise, open, pack, small, spec, store, tree};
use crate::store::{Damage, IMAGE, SCRUB_STEP, Scrub, ScrubStep, SetForm, SetSpec, Store};

/// Flips a bit and leaves the times as they were: only reading finds it.
fn flip(path: &Path) {
    flip_at(path, usize::try_from(path.metadata().unwrap().len()).unwrap() / 2);
}

fn flip_at(path: &Path, at: usize) {
    let meta = path.metadata().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    file.sync_all().unwrap();
}

fn begin(store: &Store) -> Scrub {
    let mut scrub = store.scrub_begin().unwrap();
    scrub.begin_round(1_000, store.scrub_total().unwrap());
    scrub
}

/// Goes on to the end of the round.
fn finish(store: &Store, scrub: &mut Scrub) -> Vec<Damage> {
    let mut found = Vec::new();
    loop {
        let step = store.scrub(scrub).unwrap();
        assert!(step.bytes <= SCRUB_STEP as u64 && !step.busy);
        found.extend(step.damaged);
        if step.round_done {
            return found;
        }
    }
}

/// T094: a flipped bit in an object, a pack, a manifest and the record of a set is found by the
/// scrub. What is damaged leaves the store with the sets and trees that held it, and can be
/// fetched and built again; what is whole stays.
#[test]
fn t094_the_scrub_finds_flipped_bits() {
    let (folder, store) = store();
    let (bad, good) = (small("bad", b"bad bytes"), small("good", b"good bytes"));
    install(&store, &bad);
    install(&store, &good);
    let set = store.build_set(&spec(vec![member("bad", &bad)])).unwrap();
    let fine = store.build_set(&spec(vec![member("good", &good)])).unwrap();
    let mut scrub = begin(&store);
    assert_eq!(finish(&store, &mut scrub), []);
    assert_eq!((scrub.place().bytes, scrub.place().damaged), (scrub.place().total, 0));
    let content = ContentId::of(b"bad bytes");
    let pack = bad.manifest.packing.packs[0].id;
    flip(&store.content_path(content).unwrap());
    flip(&store.pack_path(pack));
    flip(&store.manifest_path(bad.reference().id));
    let expected = [
        Damage::Object { content, why: "it has other bytes" },
        Damage::Set(set.id),
        Damage::Tree(bad.manifest.tree.id()),
        Damage::Pack(pack),
        Damage::Manifest(bad.reference().id),
    ];
    let mut scrub = begin(&store);
    assert_eq!(finish(&store, &mut scrub), expected);
    assert_eq!(scrub.place().damaged, 5);
    assert_eq!(fs::read_dir(folder.path().join("stork/quarantine")).unwrap().count(), 4);
    assert_eq!(store.set_info(set.id).unwrap(), None);
    assert_eq!(store.set_info(fine.id).unwrap(), Some(fine.clone()));
    install(&store, &bad);
    assert_eq!(store.build_set(&spec(vec![member("bad", &bad)])).unwrap().id, set.id);
    flip(&folder.path().join(format!("stork/sets/{}.tree", fine.id)));
    assert_eq!(finish(&store, &mut begin(&store)), [Damage::Set(fine.id)]);
}

/// T093: the copies that views keep beside the objects are looked at too. A bit that is flipped in
/// the data, the names or the head of a whole image, or in an image of names, is found by the
/// scrub; the set leaves the store and can be built again, and the objects stay.
#[test]
fn t093_the_scrub_finds_flipped_bits_in_images() {
    let (_folder, store) = store();
    let packed = pack(
        tree(vec![file("data", &noise("data", 300_000))]),
        &[&noise("data", 300_000)],
        1 << 20,
        None,
    );
    install(&store, &packed);
    for form in [SetForm::Metadata, SetForm::Image] {
        let spec = SetSpec { members: vec![member("a", &packed)], form };
        let set = store.build_set(&spec).unwrap();
        let image = if form == SetForm::Image { set.path.join(IMAGE) } else { set.path.clone() };
        assert_eq!(store.stat().unwrap().copy_bytes > 300_000, form == SetForm::Image);
        assert_eq!(finish(&store, &mut begin(&store)), []);
        // What lies behind the data is padding, to which nothing leads.
        for at in if form == SetForm::Image { [1_030, 200_000] } else { [1_030, 1_200] } {
            flip_at(&image, at);
            assert_eq!(finish(&store, &mut begin(&store)), [Damage::Set(set.id)], "{form:?} {at}");
            assert_eq!(store.set_info(set.id).unwrap(), None);
            assert_eq!(store.build_set(&spec).unwrap(), set);
            assert_eq!(finish(&store, &mut begin(&store)), []);
        }
    }
}

/// A scrub goes on after a restart where it stood, reads no file twice that it had behind it, and
/// reads a file that is longer than one step in steps.
#[test]
fn the_scrub_goes_on_after_a_restart() {
    let (folder, store) = store();
    let large = noise("large", 5 * SCRUB_STEP / 2);
    let packed = pack(tree(vec![file("l", &large)]), &[&large], 1 << 20, None);
    install(&store, &packed);
    for name in ["a", "b", "c", "d"] {
        install(&store, &small(name, &noise(name, 50_000)));
    }
    let mut scrub = begin(&store);
    let total = scrub.place().total;
    while scrub.place().bytes < total / 2 {
        assert_eq!(store.scrub(&mut scrub).unwrap().damaged, []);
    }
    store.scrub_keep(&scrub).unwrap();
    let place = scrub.place().clone();
    drop((scrub, store));
    let store = open(&folder.path().join("stork"));
    let mut scrub = store.scrub_begin().unwrap();
    assert_eq!(*scrub.place(), place);
    assert_eq!(finish(&store, &mut scrub), []);
    // One file, at the most, was half read.
    let read = scrub.place().bytes;
    assert!(read >= total && read <= total + large.len() as u64, "{read} of {total}");
}

/// While a release is unpacked, a set built or the store collected, the scrub does nothing.
#[test]
fn the_scrub_waits_for_others() {
    let (_folder, store) = store();
    install(&store, &small("a", b"data"));
    let mut scrub = begin(&store);
    let busy = ScrubStep { busy: true, ..ScrubStep::default() };
    for lock in [&store.unpacking, &store.building, &store.sweeping] {
        let guard = lock.lock().unwrap();
        assert_eq!(store.scrub(&mut scrub).unwrap(), busy);
        assert_eq!(store.glance(0).unwrap(), busy);
        drop(guard);
    }
    assert_eq!(finish(&store, &mut scrub), []);
}

/// A glance finds a file with another mode, or none at all, without reading any.
#[test]
fn a_glance_finds_what_is_gone_or_dressed_otherwise() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let glance = || -> Vec<Damage> {
        (0..=255).flat_map(|shard| store.glance(shard).unwrap().damaged).collect()
    };
    assert_eq!(glance(), []);
    let content = ContentId::of(b"data");
    let path = store.content_path(content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let why = "it has another owner, mode or time";
    let tree = Damage::Tree(packed.manifest.tree.id());
    assert_eq!(glance(), [Damage::Object { content, why }, tree.clone()]);
    install(&store, &packed);
    fs::remove_file(store.content_path(content).unwrap()).unwrap();
    assert_eq!(glance(), [Damage::Object { content, why: "it is gone" }, tree]);
}
