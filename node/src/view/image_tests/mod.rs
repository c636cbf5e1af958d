//! The backends `composefs` and `image` on real mounts: they show what the tree says, nobody
//! changes it, and what is shared is shared.

mod world;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use world::{LARGE, World, attack, world};

use super::tests::in_namespace;
use super::*;
use crate::store::tests::support::root_or_skip;
use crate::store::{Damage, IMAGE, SetForm};

fn data(target: &Path) -> String {
    std::fs::read_to_string(target.join("usr/data")).unwrap()
}

/// T100: root in the VM changes nothing of a composefs view, with all capabilities or with those of
/// a user namespace; what is shown is the tree, also where a publisher's attributes are orders to
/// overlayfs.
#[test]
fn t100_composefs() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Metadata);
        let spec = w.spec("web", Backend::Composefs);
        w.show(&spec, 0);
        w.compare(&spec.target, 0);
        for users in [false, true] {
            assert_eq!(attack(&spec.target, users), "", "user namespace: {users}");
        }
        w.compare(&spec.target, 0);
        w.whole();
        // No name leads to objects, and overlayfs keeps its own attributes to itself.
        let mut value = [0; 99];
        let redirect = "trusted.overlay.redirect";
        let seen = rustix::fs::getxattr(spec.target.join("usr/data"), redirect, &mut value);
        assert_eq!(seen, Err(rustix::io::Errno::NODATA));
        let names: Vec<_> = std::fs::read_dir(&spec.target).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        w.views.hide(&spec).unwrap();
        // The control: raw hard links, where the same attacks must get through and be found.
        let links = w.folder.path().join("links");
        let tree = w.store.set_tree(w.sets[0].id).unwrap().unwrap();
        w.store.link_tree(&tree, &links).unwrap();
        let did = attack(&links, false);
        for line in ["echo x > usr/data", "chmod 777", "rm -f", "mknod device", "ln usr/data"] {
            assert!(did.contains(line), "{line} is no attack: {did}");
        }
        assert_ne!(w.store.verify(&|_| {}).unwrap().damaged, []);
    });
}

/// T107: links, inode and times of a file that is shared with other VMs say nothing about them:
/// they are those of the set's own image.
#[test]
fn t107_composefs() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Metadata);
        let spec = w.spec("web", Backend::Composefs);
        w.show(&spec, 0);
        let seen = || {
            let paths = ["usr/large", "usr/data", "usr/empty"].map(|p| spec.target.join(p));
            paths.map(|p| {
                let m = p.symlink_metadata().unwrap();
                (m.nlink(), m.ino(), m.ctime(), m.ctime_nsec(), m.mtime(), m.blocks())
            })
        };
        let before = seen();
        assert_eq!((before[0].0, before[1].0), (1, 2), "links of the package, not of the store");
        let other = w.spec("other", Backend::Composefs);
        w.show(&other, 1);
        w.store.set_in_form(&w.sets[0], SetForm::Folder).unwrap();
        assert_eq!(seen(), before);
        for spec in [&spec, &other] {
            w.views.hide(spec).unwrap();
        }
    });
}

/// One overlay for all VMs of a set, switched without a gap, found again after a restart, mounted
/// anew after a reboot and after damage; a page that one VM has read is in memory for all.
#[test]
fn composefs_is_shared() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Metadata);
        let specs = ["one", "two"].map(|vm| w.spec(vm, Backend::Composefs));
        let [one, two] = &specs;
        w.show(one, 0);
        w.show(two, 0);
        let ids = specs.each_ref().map(|s| {
            let meta = s.target.join("usr/large").metadata().unwrap();
            (meta.dev(), meta.ino())
        });
        assert_eq!(ids[0], ids[1], "one file for both");
        in_memory_once(&w, [&one.target, &two.target]);
        let kept = std::fs::File::open(one.target.join("usr/data")).unwrap();
        w.show(one, 1);
        assert_eq!((data(&one.target), data(&two.target)), ("b".into(), "a".into()));
        assert_eq!(std::io::read_to_string(kept).unwrap(), "a", "open files stay");
        assert_eq!(tree::layers(&Ground::of(&w.store).unwrap(), &one.target).unwrap().len(), 1);
        let w = w.restart();
        let [one, two] = &specs;
        assert_eq!(w.views.shown(one).unwrap(), Some(w.sets[1].id));
        assert_eq!(w.views.reconcile(one).unwrap(), Reconciled::AsItWas);
        unmount(&one.target, UnmountFlags::DETACH).unwrap();
        assert_eq!(w.views.reconcile(one).unwrap(), Reconciled::ShownAgain);
        w.compare(&one.target, 1);
        // A switch that a crash cut between its two steps.
        let pending =
            w.views.record(one, w.sets[0].id, GenerationLabel::default(), (1, None)).unwrap();
        w.views.switch(one, (&w.sets[0], &pending), None).unwrap();
        let aside = w.folder.path().join("aside");
        std::fs::create_dir(&aside).unwrap();
        w.show(&ViewSpec { target: aside.clone(), ..w.spec("x", Backend::Composefs) }, 1);
        mount_bind(&aside, &one.target).unwrap();
        let w = w.restart();
        assert_eq!(w.views.reconcile(one).unwrap(), Reconciled::Finished);
        assert_eq!(data(&one.target), "a");
        // A set that was built anew is another image, and is mounted anew.
        damage(&w.sets[0].path, 1_200);
        let damaged = w.store.verify(&|_| {}).unwrap().damaged;
        assert_eq!(damaged, [Damage::Set(w.sets[0].id)]);
        assert_eq!(w.views.shown(two).unwrap(), None);
        let member = |s: &SetInfo| s.members.clone();
        let again = w.store.set_in_form(&w.sets[1], SetForm::Folder).unwrap();
        assert_eq!(member(&again), member(&w.sets[1]));
        for spec in &specs {
            w.views.hide(spec).unwrap();
            assert_eq!(w.views.shown(spec).unwrap(), None);
        }
    });
}

/// Root's files belong to root inside of a guest's user namespace; guests with other ids have
/// mounts of their own, of the same objects.
#[test]
fn composefs_maps_ids() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Metadata);
        let plain = w.spec("plain", Backend::Composefs);
        let map = IdMap { uid: 100_000, gid: 200_000, count: 65_536 };
        let mut mapped = w.spec("mapped", Backend::Composefs);
        mapped.options.idmap = Some(map);
        w.show(&plain, 0);
        w.show(&mapped, 0);
        let meta = mapped.target.join("usr/data").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000));
        let script = "stat -c %u:%g usr/data && cat usr/data; echo z >> usr/data || true";
        assert_eq!(sys::as_guest_root(map, &mapped.target, script), "0:0\na");
        w.compare(&plain.target, 0);
        assert_eq!(w.views.reconcile(&mapped).unwrap(), Reconciled::AsItWas);
        let other = IdMap { uid: 300_000, ..map };
        mapped.options.idmap = Some(other);
        assert_eq!(w.views.reconcile(&mapped).unwrap(), Reconciled::ShownAgain);
        assert_eq!(mapped.target.join("usr/data").metadata().unwrap().uid(), 300_000);
        w.show(&mapped, 1);
        assert_eq!(data(&mapped.target), "b");
        for spec in [&plain, &mapped] {
            w.views.hide(spec).unwrap();
        }
    });
}

/// After a read through both views, the pages of the object are there, and only once.
fn in_memory_once(w: &World, targets: [&Path; 2]) {
    let large = w.sets[0].path.parent().unwrap().with_file_name("objects");
    let is_large =
        |p: &PathBuf| p.metadata().is_ok_and(|m| m.len() == LARGE as u64 && m.uid() == 0);
    let folders = std::fs::read_dir(large).unwrap().flatten();
    let files = folders.filter_map(|d| std::fs::read_dir(d.path()).ok()).flatten().flatten();
    let object = files.map(|f| f.path()).find(is_large).unwrap();
    let resident = || {
        let out = Command::new("fincore").args(["-bnro", "RES"]).arg(&object).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse::<usize>().unwrap_or(0)
    };
    let file = std::fs::File::open(&object).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(resident() < LARGE, "the page cache was emptied");
    let [first, second] = targets.map(|t| t.join("usr/large"));
    std::fs::read(first).unwrap();
    assert_eq!(resident(), LARGE);
    std::fs::read(second).unwrap();
    assert_eq!(resident(), LARGE);
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A generation whose mount some namespace still has is kept, and so are its objects; the way over
/// an attached image, which kernels before 6.15 need, gives the same view and leaves nothing.
#[test]
fn composefs_old_mounts() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Metadata);
        let spec = w.spec("web", Backend::Composefs);
        w.show(&spec, 0);
        for name in ["a", "b"] {
            w.store.release_lease(name).unwrap();
        }
        let elsewhere = w.folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        mount_bind(&spec.target, &elsewhere).unwrap();
        let built = w.store.set_tree(w.sets[1].id).unwrap();
        assert!(built.is_some());
        w.show(&spec, 1);
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 2);
        w.store.gc(false).unwrap();
        w.compare(&elsewhere, 0);
        unmount(&elsewhere, UnmountFlags::DETACH).unwrap();
        w.views.tidy(&spec).unwrap();
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 1);
        assert_eq!(w.store.gc(false).unwrap().sets, 1);
        w.compare(&spec.target, 1);

        let ground = Ground::of(&w.store).unwrap();
        let parts = composefs::Parts::new(&ground, &spec, &w.sets[1]).unwrap();
        let mount = composefs::attached(&ground, &spec, &parts).unwrap();
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, "", rustix::fs::CWD, &elsewhere, flags).unwrap();
        w.compare(&elsewhere, 1);
        assert!(!w.store.vm_dir(&spec.vm).unwrap().join("image").exists());
        unmount(&elsewhere, UnmountFlags::DETACH).unwrap();
        w.views.hide(&spec).unwrap();
    });
}

/// T100: the image of a guest: the file system's own tools find no fault in it, the kernel mounts
/// it and shows the tree, nobody writes into it, and one wrong bit is found.
#[test]
fn t100_image() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world(SetForm::Image);
        let spec = w.spec("vm", Backend::Image);
        w.show(&spec, 0);
        let file = spec.target.join(IMAGE);
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len() % crate::store::IMAGE_ALIGN, 0);
        assert!(meta.len() < 4 << 20, "holes are kept, and contents stand once");
        match Command::new("fsck.erofs").arg(&file).output() {
            Ok(out) => assert!(out.status.success(), "{out:?}"),
            Err(e) => println!("skipped: fsck.erofs does not run: {e}"),
        }
        let error = std::fs::OpenOptions::new().write(true).open(&file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let inside = w.folder.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let open = std::fs::File::open(&file).unwrap().into();
        let image = composefs::erofs(&open, &file).unwrap();
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&image, "", rustix::fs::CWD, &inside, flags).unwrap();
        w.compare(&inside, 0);
        assert_eq!(attack(&inside, false), "");
        let before = w.store.set_tree(w.sets[0].id).unwrap().unwrap();
        // A guest that runs has its image open, and keeps it when nothing else names it.
        let kept = std::fs::File::open(&file).unwrap();
        w.store.release_lease("a").unwrap();
        w.show(&spec, 1);
        assert_eq!(w.store.gc(false).unwrap().sets, 1);
        w.compare_with(&inside, &before);
        assert_eq!(kept.metadata().unwrap().len(), meta.len());
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::AsItWas);
        let names: Vec<_> = std::fs::read_dir(&spec.target).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        w.whole();
        unmount(&inside, UnmountFlags::DETACH).unwrap();
        w.views.hide(&spec).unwrap();
        // In a content, and in the metadata.
        let set = w.store.set_in_form(&w.sets[1], SetForm::Folder).unwrap();
        for at in [200 << 10, 1_500] {
            let image = w.store.set_in_form(&set, SetForm::Image).unwrap();
            damage(&image.path.join(IMAGE), at);
            let damaged = w.store.verify(&|_| {}).unwrap().damaged;
            assert_eq!(damaged, [Damage::Set(image.id)], "byte {at}");
        }
    });
}
