//! Overlay views on real mounts, and what guests in user namespaces see.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, XattrFlags, linkat, mkdirat, mknodat, openat, statat,
};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::tests::{World, in_namespace, which, world};
use super::*;
use crate::store::tests::support::{
    dir, file, install, member, pack, root_or_skip, spec as set_spec, tree,
};

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| e.to_string())
}

/// Private changes go along to the next generation, but for those that would hide what it brings;
/// a rollback shows those of its own generation again, and nothing of the store is touched.
#[test]
fn private_changes_go_along() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let spec = w.spec(Backend::Overlay);
        let view = spec.target.as_path();
        let first = w.show(&spec, 0).unwrap();
        assert_eq!(which(view).unwrap(), "a");
        fs::write(view.join("usr/x/data"), "mine").unwrap();
        fs::write(view.join("usr/x/own"), "own").unwrap();
        fs::write(view.join("usr/share/x"), "changed").unwrap();
        fs::remove_file(view.join("usr/x/link")).unwrap();
        let second = w.show(&spec, 1).unwrap();
        assert_eq!(which(view).unwrap(), "b", "an old copy does not hide the new file");
        assert_eq!(read(view, "usr/x/own"), "own");
        assert_eq!(read(view, "usr/share/x"), "changed", "both sets have the same file there");
        assert!(view.join("usr/x/link").symlink_metadata().is_err(), "it stays deleted");
        let carried = w.views.carried(&spec, second.number).unwrap();
        assert_eq!((carried.from, carried.shadowed_count), (Some(first.number), 1));
        let shadowed = Shadowed { path: "usr/x/data".into(), hides: Hides::Copy };
        assert_eq!(carried.shadowed, [shadowed]);
        assert_eq!(read(&carried.aside.unwrap(), "usr/x/data"), "mine");
        // Back: the VM has again what it had then, and not what it wrote since.
        fs::write(view.join("usr/x/own"), "newer").unwrap();
        let third = w.views.show_again(&spec, &first, &w.sets[0], 1).unwrap();
        assert_eq!((third.number, third.from), (3, Some(1)));
        assert_eq!((which(view).unwrap(), read(view, "usr/x/own")), ("mine".into(), "own".into()));
        // And forward again, to what was left.
        w.views.show_again(&spec, &second, &w.sets[1], 1).unwrap();
        assert_eq!((which(view).unwrap(), read(view, "usr/x/own")), ("b".into(), "newer".into()));
        for set in &w.sets {
            assert!(w.store.verify(&|_| {}).unwrap().damaged.is_empty(), "{set:?}");
        }
        assert_eq!(read(&w.sets[0].path, "usr/x/data"), "a");
    });
}

/// Two VMs show one set, both as their first generation; and a mount by which a guest says that
/// another VM's layer is in use is not believed: it cannot know that VM's tag.
#[test]
fn layers_of_two_vms_are_told_apart() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let one = w.spec(Backend::Overlay);
        let target = w.folder.path().join("two");
        let two = ViewSpec { vm: "web/2".parse().unwrap(), target, ..one.clone() };
        let first = w.show(&one, 0).unwrap();
        assert_eq!(w.show(&two, 0).unwrap().number, first.number);
        fs::write(one.target.join("own"), "one").unwrap();
        assert!(!two.target.join("own").exists());
        let ground = Ground::of(&w.store).unwrap();
        let tags = [&one.vm, &two.vm].map(|vm| mounts::tag_of_vm(&ground, vm));
        assert_ne!(tags[0], tags[1]);
        let anywhere = |spec: &ViewSpec, number| {
            mounts::generation_anywhere(&ground, &spec.vm, w.sets[0].id, number)
        };
        assert!(anywhere(&one, 1) && anywhere(&two, 1));
        w.views.hide(&two).unwrap();
        assert!(anywhere(&one, 1) && !anywhere(&two, 1));
    });
}

/// A guest's paths may be longer than any call takes: what has several names there goes along all
/// the same, once for each name.
#[test]
fn long_paths_go_along() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let spec = w.spec(Backend::Overlay);
        w.show(&spec, 0).unwrap();
        let names = |n: usize| format!("{n:0250}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let down = |make: bool| {
            let mut at = openat(CWD, &spec.target, flags, Mode::empty()).unwrap();
            for n in 0..20 {
                if make {
                    mkdirat(&at, names(n), Mode::RWXU).unwrap();
                }
                at = openat(&at, names(n), flags, Mode::empty()).unwrap();
            }
            at
        };
        let deep = down(true);
        let made = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(&deep, "one", made, Mode::RUSR).unwrap());
        linkat(&deep, "one", &deep, "two", AtFlags::empty()).unwrap();
        drop(deep);
        w.show(&spec, 1).unwrap();
        let deep = down(false);
        for name in ["one", "two"] {
            let stat = statat(&deep, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert_eq!(stat.st_nlink, 1, "{name}");
        }
    });
}

/// After a crash or a reboot the same generation is there with what the VM wrote; layers of dropped
/// generations go, and two mounts never write into one layer.
#[test]
fn layers_stay_with_their_generation() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let mut spec = w.spec(Backend::Overlay);
        spec.keep_generations = 2;
        w.show(&spec, 0).unwrap();
        fs::write(spec.target.join("own"), "own").unwrap();
        let pending = w.views.record(&spec, w.sets[1].id, GenerationLabel::default(), (1, None));
        let number = pending.unwrap().number;
        let private = w.store.dir().join("vms/web%2F1");
        let names = || {
            let all = fs::read_dir(&private).unwrap().map(|e| e.unwrap().file_name());
            let mut all: Vec<_> = all.map(|n| n.into_string().unwrap()).collect();
            all.retain(|n| n.contains('-') || n == "aside");
            all.sort();
            all
        };
        for name in [format!("upper-{number}"), format!("work-{number}"), ".new-9".to_owned()] {
            fs::create_dir(private.join(name)).unwrap();
        }
        fs::write(private.join(format!("carried-{number}")), "half").unwrap();
        let w = w.restart();
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::Undone);
        assert_eq!(names(), ["upper-1", "work-1"]);
        unmount(&spec.target, UnmountFlags::DETACH).unwrap();
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::ShownAgain);
        assert_eq!(read(&spec.target, "own"), "own");
        // The mount is taken away here, and lives on elsewhere.
        let elsewhere = w.folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        mount_bind(&spec.target, &elsewhere).unwrap();
        unmount(&spec.target, UnmountFlags::DETACH).unwrap();
        let error = w.views.reconcile(&spec).unwrap_err();
        assert!(matches!(error, ViewError::LayerInUse { number: 1, .. }), "{error}");
        unmount(&elsewhere, UnmountFlags::DETACH).unwrap();
        for i in 1..=4 {
            w.show(&spec, i % 2).unwrap();
            assert_eq!(read(&spec.target, "own"), "own");
        }
        w.views.tidy(&spec).unwrap();
        let kept = ["aside", "carried-5", "carried-6", "upper-5", "upper-6", "work-5", "work-6"];
        assert_eq!(names(), kept);
        // The same VM as a tree, and back: a step for the guest, and its changes are there again.
        let as_tree = ViewSpec { backend: Backend::Tree, ..spec.clone() };
        assert_eq!(w.views.reconcile(&as_tree).unwrap(), Reconciled::ShownAgain);
        assert!(!spec.target.join("own").exists());
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::ShownAgain);
        assert_eq!(read(&spec.target, "own"), "own");
    });
}

/// Whatever root of the VM leaves in its layer is copied as it is and leads nowhere; too much of
/// it is refused, and the view stays.
#[test]
fn hostile_layers() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let mut spec = w.spec(Backend::Overlay);
        let view = spec.target.clone();
        w.show(&spec, 0).unwrap();
        let own = view.join("own");
        fs::create_dir(&own).unwrap();
        symlink("/etc/shadow", own.join("shadow")).unwrap();
        symlink("../../../../../..", own.join("up")).unwrap();
        fs::write(own.join("su"), "x").unwrap();
        rustix::fs::chown(own.join("su"), Some(rustix::fs::Uid::from_raw(7)), None).unwrap();
        fs::set_permissions(own.join("su"), fs::Permissions::from_mode(0o4711)).unwrap();
        rustix::fs::setxattr(own.join("su"), "user.k", b"v", XattrFlags::empty()).unwrap();
        let forged = ("trusted.overlay.redirect", b"/usr".as_slice());
        rustix::fs::setxattr(&own, forged.0, forged.1, XattrFlags::empty()).unwrap();
        fs::hard_link(own.join("su"), own.join("su2")).unwrap();
        for (name, kind, dev) in [
            ("pipe", FileType::Fifo, 0),
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("disk", FileType::BlockDevice, rustix::fs::makedev(7, 0)),
            ("sock", FileType::Socket, 0),
        ] {
            mknodat(CWD, own.join(name), kind, Mode::RUSR, dev).unwrap();
        }
        let odd = std::ffi::OsStr::new("od\u{301}d \n");
        fs::write(own.join(odd), "odd").unwrap();
        let hole = fs::File::create(own.join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        fs::remove_dir_all(view.join("usr/share")).unwrap();
        fs::create_dir(view.join("usr/share")).unwrap();
        w.show(&spec, 1).unwrap();
        assert_eq!(fs::read_link(own.join("shadow")).unwrap(), Path::new("/etc/shadow"));
        let su = own.join("su").metadata().unwrap();
        assert_eq!((su.mode() & 0o7777, su.uid(), su.nlink()), (0o4711, 7, 2));
        assert_eq!(su.ino(), own.join("su2").metadata().unwrap().ino());
        let mut value = [0; 8];
        let n = rustix::fs::getxattr(own.join("su"), "user.k", &mut value[..]).unwrap();
        assert_eq!(&value[..n], b"v");
        assert!(own.join("pipe").metadata().unwrap().file_type().is_fifo());
        assert_eq!(own.join("null").metadata().unwrap().rdev(), rustix::fs::makedev(1, 3));
        assert!(fs::File::open(own.join("null")).is_err(), "devices do not count");
        assert!(!own.join("sock").exists());
        assert_eq!(read(&own, odd.to_str().unwrap()), "odd");
        assert!(own.join("hole").metadata().unwrap().blocks() < 100);
        let names = fs::read_dir(view.join("usr/share")).unwrap().count();
        assert_eq!(names, 0, "a folder that was replaced stays so");
        assert!(view.join("own/usr").symlink_metadata().is_err());
        // Bounds: what is too much is said, and the view stays as it is.
        fs::write(own.join("large"), vec![1; 1 << 20]).unwrap();
        spec.options.upper_bytes_max = 1 << 19;
        let refused = |spec: &ViewSpec, what: &str| match w.show(spec, 0).unwrap_err() {
            ViewError::PrivateTooLarge { what: found, .. } => assert_eq!(found, what),
            e => panic!("{e}"),
        };
        refused(&spec, "bytes");
        spec.options.upper_bytes_max = 1 << 30;
        let mut deep = own;
        for _ in 0..200 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        refused(&spec, "folders within folders");
        assert_eq!(which(&view).unwrap(), "b");
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 2);
    });
}

fn two_sets(w: &World, old: &[(&str, &[u8])], new: &[(&str, &[u8])]) -> [SetInfo; 2] {
    [old, new].map(|files| {
        let mut entries = vec![dir("etc"), dir("lib")];
        entries.extend(files.iter().map(|(path, bytes)| file(path, bytes)));
        let contents: Vec<&[u8]> = files.iter().map(|(_, bytes)| *bytes).collect();
        let packed = pack(tree(entries), &contents, 1 << 20, None);
        install(&w.store, &packed);
        w.store.build_set(&set_spec(vec![member("app", &packed)])).unwrap()
    })
}

/// Configuration files that the VM changed stay; those that it only touched, and whole copies of
/// what a package had, give way.
#[test]
fn conffiles_win() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let mut spec = w.spec(Backend::Overlay);
        spec.options.keep = vec!["etc".into()];
        let old: [(&str, &[u8]); 4] =
            [("etc/a", b"a1"), ("etc/b", b"b1"), ("lib/c", b"c1"), ("lib/gone", b"g1")];
        let new: [(&str, &[u8]); 3] = [("etc/a", b"a2"), ("etc/b", b"b2"), ("lib/c", b"c2")];
        let sets = two_sets(&w, &old, &new);
        let show = |i: usize| w.views.show(&spec, &sets[i], GenerationLabel::default(), 1).unwrap();
        show(0);
        let view = &spec.target;
        fs::write(view.join("etc/a"), "mine").unwrap();
        // Opened for writing and not changed: the whole file is in the layer all the same.
        for path in ["etc/b", "lib/c"] {
            fs::OpenOptions::new().append(true).open(view.join(path)).unwrap();
        }
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(view.join("lib/gone"), mode).unwrap();
        let number = show(1).number;
        let seen = ["etc/a", "etc/b", "lib/c"].map(|p| read(view, p));
        assert_eq!(seen, ["mine", "b2", "c2"]);
        assert!(!view.join("lib/gone").exists(), "what a package took away does not come back");
        let carried = w.views.carried(&spec, number).unwrap();
        assert_eq!(carried.conffiles, ["etc/a"]);
        let shadowed = Shadowed { path: "lib/gone".into(), hides: Hides::Removed };
        assert_eq!(carried.shadowed, [shadowed]);
    });
}

/// Files of root in the set belong to root inside of a guest's user namespace, and to nobody's
/// root outside; the guest writes as its own root into an overlay.
#[test]
fn ids_are_mapped() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let map = IdMap { uid: 100_000, gid: 200_000, count: 65_536 };
        for backend in [Backend::Tree, Backend::Overlay] {
            let mut spec = w.spec(backend);
            spec.options.idmap = Some(map);
            spec.target = spec.target.with_file_name(backend.name());
            w.show(&spec, 0).unwrap();
            let meta = spec.target.join("usr/x/data").metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000), "{backend:?}");
            let top = spec.target.metadata().unwrap();
            assert_eq!((top.uid(), top.gid()), (100_000, 200_000), "{backend:?}");
            let script =
                "stat -c %u:%g usr/x/data && echo z >> usr/x/data && stat -c %u usr/x/data";
            let said = sys::as_guest_root(map, &spec.target, script);
            match backend {
                Backend::Overlay => assert_eq!(said, "0:0\n0\n"),
                _ => assert_eq!(said, "0:0\n"),
            }
            let set = w.sets[0].path.join("usr/x/data").metadata().unwrap();
            assert_eq!((set.uid(), set.len()), (0, 1), "the store's own is as it was");
            w.show(&spec, 1).unwrap();
            assert_eq!(which(&spec.target).unwrap(), "b");
        }
    });
}
