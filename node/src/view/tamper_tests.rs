//! T100: what root of a guest tries against its view, and what becomes of the store.

use super::tests::{World, in_namespace, world};
use super::*;
use crate::store::tests::support::root_or_skip;

/// What is tried, each by itself; what succeeds is printed.
const ATTACK: &str = r#"
try() { if ( eval "$1" ) >/dev/null 2>&1; then echo "$1"; fi; }
try 'mount -o remount,rw,bind .'
try 'mount -o remount,rw .'
try 'mount -o bind,remount,rw,suid,dev . .'
try 'echo evil > usr/x/data'
try 'printf evil | dd of=usr/x/data conv=notrunc'
try 'truncate -s 0 usr/share/x'
try 'chmod 4777 usr/x/data'
try 'chown 1:1 usr/x/data'
try 'touch -d 2001-01-01 usr/x/data'
try 'mknod null c 1 3'
try 'mkfifo pipe'
try 'ln usr/x/data second'
try 'ln -s /etc/shadow shadow'
try 'mkdir folder'
try 'mv usr/x usr/y'
try 'rm usr/share/x'
try 'setfattr -n user.x -v y usr/x/data'
"#;

/// What of it an overlay allows: its own layer is the guest's, and a mount that is writable may be
/// made so again; devices and setuid files do not count there all the same.
fn allowed_in_a_layer(line: &str) -> bool {
    !line.contains("suid,dev")
}

fn assert_store_is_whole(w: &World) {
    assert_eq!(w.store.verify(&|_| {}).unwrap().damaged, []);
    for (set, name) in w.sets.iter().zip(["a", "b"]) {
        let root = &set.path;
        assert_eq!(std::fs::read_to_string(root.join("usr/x/data")).unwrap(), name);
        let names = std::fs::read_dir(root).unwrap().count();
        assert_eq!(names, 1, "nothing is new in the store");
    }
}

/// Root of a guest with ids, mounts and processes of its own; and a root with the host's ids who
/// lacks only `CAP_SYS_ADMIN`, as a container's has. Neither changes a bit of the store through a
/// tree or an overlay; through raw hard links the second one does, which shows that the attack
/// is one.
#[test]
fn t100_root_of_a_guest_changes_nothing_that_is_shared() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let map = IdMap { uid: 100_000, gid: 100_000, count: 65_536 };
        for (backend, idmap) in [
            (Backend::Tree, Some(map)),
            (Backend::Tree, None),
            (Backend::Overlay, Some(map)),
            (Backend::Overlay, None),
        ] {
            let mut spec = w.spec(backend);
            spec.target = spec.target.with_file_name(format!("{backend:?}-{}", idmap.is_some()));
            spec.options.idmap = idmap;
            // Another VM's layer for each, so that all begin alike.
            spec.vm = format!("vm-{backend:?}-{}", idmap.is_some()).to_lowercase().parse().unwrap();
            w.show(&spec, 0).unwrap();
            let said = match idmap {
                Some(map) => sys::as_guest_root(map, &spec.target, ATTACK),
                None => sys::as_container_root(&spec.target, ATTACK),
            };
            match backend {
                Backend::Tree => assert_eq!(said, "", "{spec:?}"),
                _ => {
                    assert!(said.lines().all(allowed_in_a_layer), "{said}");
                    assert!(said.contains("echo evil"), "the attack ran: {said}");
                }
            }
            assert_store_is_whole(&w);
            w.show(&spec, 1).unwrap();
            assert_store_is_whole(&w);
        }
        // The control.
        let spec = w.spec(Backend::Hardlink);
        w.show(&spec, 0).unwrap();
        let said = sys::as_container_root(&spec.target, ATTACK);
        assert!(said.contains("echo evil"), "{said}");
        assert_ne!(w.store.verify(&|_| {}).unwrap().damaged, [], "hard links share the file");
    });
}

/// Who still holds an old file is listed, by what it holds; who uses what is shown is not.
#[test]
fn holders_of_old_files() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        for backend in [Backend::Tree, Backend::Overlay] {
            let mut spec = w.spec(backend);
            spec.target = spec.target.with_file_name(backend.name());
            w.show(&spec, 0).unwrap();
            let path = spec.target.join("usr/x/data");
            let kept = std::fs::File::open(&path).unwrap();
            let me = std::process::id();
            let mine = |w: &World| {
                let all = w.views.holders(&spec).unwrap().processes;
                all.into_iter().filter(|h| h.pid == me).collect::<Vec<_>>()
            };
            assert_eq!(mine(&w), [], "it is what is shown");
            w.show(&spec, 1).unwrap();
            let found = mine(&w);
            assert_eq!(found.len(), 1, "{backend:?}: {found:?}");
            assert_eq!(found[0].holds, "file");
            drop(kept);
            assert_eq!(mine(&w), []);
            w.views.hide(&spec).unwrap();
        }
    });
}
