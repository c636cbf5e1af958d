//! What a VM sees, shown on real mounts and real links.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use super::*;
use crate::store::tests::support::{install, member, root_or_skip, small, spec};
use crate::store::tests::support::{open as open_store, store};

/// A temporary folder that can be removed although something is mounted in it, in this thread's
/// namespace.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) const fn of(folder: tempfile::TempDir) -> Self {
        Self(folder)
    }
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mine = self.0.path().canonicalize().unwrap_or_default();
        let mounts = mounts::here().unwrap_or_default();
        for mount in mounts.iter().rev().filter(|m| m.point.starts_with(&mine)) {
            // What lay on it is gone with it.
            unmount(&mount.point, UnmountFlags::DETACH).unwrap_or_default();
        }
    }
}

/// A store with two sets, `a` and `b`, each with `usr/which` that says its name.
pub(super) struct World {
    pub(super) folder: Folder,
    pub(super) store: Arc<Store>,
    pub(super) views: Views,
    pub(super) sets: [SetInfo; 2],
}

pub(super) fn world() -> World {
    let (folder, store) = store();
    let sets = ["a", "b"].map(|name| {
        let mut packed = small("x", name.as_bytes());
        packed.manifest.source.file_name = name.parse().unwrap();
        install(&store, &packed);
        let set = store.build_set(&spec(vec![member(name, &packed)])).unwrap();
        store
            .lease(name, &crate::store::LeaseSet { sets: [set.id].into(), ..Default::default() })
            .unwrap();
        set
    });
    let folder = Folder::of(folder);
    World { folder, views: Views::new(Arc::clone(&store)), store, sets }
}

impl World {
    pub(super) fn spec(&self, backend: Backend) -> ViewSpec {
        ViewSpec {
            vm: "web/1".parse().unwrap(),
            backend,
            target: self.folder.path().canonicalize().unwrap().join("vm/rootfs"),
            isolation: Isolation::None,
            keep_generations: 3,
            options: ViewOptions::default(),
        }
    }
    pub(super) fn show(&self, spec: &ViewSpec, which: usize) -> Result<Generation, ViewError> {
        self.views.show(spec, &self.sets[which], GenerationLabel::default(), 1_700_000_000)
    }
    pub(super) fn restart(self) -> Self {
        let path = self.store.dir().to_owned();
        let Self { folder, store, views, sets } = self;
        drop((store, views));
        let store = open_store(&path);
        Self { folder, views: Views::new(Arc::clone(&store)), store, sets }
    }
}

pub(super) fn which(target: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(target.join("usr/x/data"))
}

/// Runs a test in a mount namespace of its own, so that the host sees nothing of it.
pub(super) fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|s| {
        s.spawn(|| {
            sys::own_namespace();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            test();
        })
        .join()
        .unwrap();
    });
}

/// Without `isolation = "none"` a view of hard links is refused, and so are targets that can't be.
#[test]
fn refusals() {
    let w = world();
    let mut spec = w.spec(Backend::Hardlink);
    spec.isolation = Isolation::Default;
    let error = w.show(&spec, 0).unwrap_err();
    assert!(matches!(error, ViewError::NotIsolated { .. }), "{error}");
    assert!(error.help().contains("isolation = \"none\""));
    spec.isolation = Isolation::None;
    let store = w.store.dir().to_owned();
    let targets: [PathBuf; 5] = [
        "/".into(),
        "relative".into(),
        "/a/../b".into(),
        store.join("x"),
        store.parent().unwrap().to_owned(),
    ];
    for target in targets {
        let spec = ViewSpec { target, ..spec.clone() };
        assert!(matches!(w.show(&spec, 0), Err(ViewError::Target { .. })), "{:?}", spec.target);
    }
    std::fs::create_dir_all(&spec.target).unwrap();
    std::fs::write(spec.target.join("mine"), "x").unwrap();
    for backend in [Backend::Hardlink, Backend::Tree] {
        let spec = ViewSpec { backend, ..spec.clone() };
        let error = w.show(&spec, 0).unwrap_err();
        assert!(matches!(error, ViewError::Target { .. }), "{error}");
    }
    let real = spec.target.parent().unwrap().to_owned();
    std::os::unix::fs::symlink(&real, real.with_file_name("link")).unwrap();
    let target = real.with_file_name("link").join("x");
    let error = w.show(&ViewSpec { target, ..spec.clone() }, 0).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(w.views.generations(&spec.vm).unwrap(), []);
    assert_eq!(w.store.leases().unwrap().len(), 2);
}

/// A reader that opens a file of the view in a loop never misses it, over 200 switches.
#[test]
fn hardlink_switch_is_atomic() {
    let w = world();
    let spec = w.spec(Backend::Hardlink);
    w.show(&spec, 0).unwrap();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let seen = which(&spec.target).unwrap();
                assert!(seen == "a" || seen == "b");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        for i in 1..=200 {
            hardlink::switch(&w.store, &spec, &w.sets[i % 2], i as u64).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(reads.into_inner() > 200);
    assert_eq!(w.views.shown(&spec).unwrap(), Some(w.sets[0].id));
    hardlink::tidy(&w.store, &spec, true).unwrap();
    let folder = spec.target.parent().unwrap();
    let left = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 3, "the view, its record and its number");
}

/// Generations are numbered, kept as many as asked, leased, rolled back to, and the number stands
/// in a file; a hidden view leaves nothing but its last number.
#[test]
fn generations_are_kept() {
    let w = world();
    let spec = w.spec(Backend::Hardlink);
    for i in 0..5 {
        assert_eq!(w.show(&spec, i % 2).unwrap().number, i as u64 + 1);
    }
    let vm = &spec.vm;
    let numbers =
        |w: &World| w.views.generations(vm).unwrap().iter().map(|g| g.number).collect::<Vec<_>>();
    assert_eq!(numbers(&w), [3, 4, 5]);
    let file = w.store.dir().join("vms/web%2F1/generation");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "5\n");
    let target = w.views.rollback_target(vm, None).unwrap();
    assert_eq!((target.number, target.set), (4, w.sets[1].id));
    assert_eq!(w.views.rollback_target(vm, Some(3)).unwrap().set, w.sets[0].id);
    assert!(matches!(
        w.views.rollback_target(vm, Some(1)),
        Err(ViewError::NoGeneration { number: Some(1), .. })
    ));
    let leases = w.store.leases().unwrap();
    assert!(leases.iter().any(|(n, l)| n == "vm/web/1/5" && l.sets.contains(&w.sets[0].id)));
    let w = w.restart();
    assert_eq!(w.views.current(vm).unwrap().unwrap().number, 5);
    assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::AsItWas);
    w.views.hide(&spec).unwrap();
    assert!(!spec.target.exists());
    assert_eq!(std::fs::read_dir(spec.target.parent().unwrap()).unwrap().count(), 0);
    assert_eq!((numbers(&w).len(), w.store.leases().unwrap().len()), (0, 2));
    assert_eq!(w.show(&spec, 0).unwrap().number, 6);
}

/// A switch that a crash cut is finished if it was made and undone if not; a view that vanished is
/// shown again; leftovers beside the target go.
#[test]
fn hardlink_reconciles() {
    let w = world();
    let spec = w.spec(Backend::Hardlink);
    assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::Nothing);
    w.show(&spec, 0).unwrap();
    let label = GenerationLabel::default();
    w.views.record(&spec, w.sets[1].id, label.clone(), (1, None)).unwrap();
    let w = w.restart();
    assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::Undone);
    assert_eq!(which(&spec.target).unwrap(), "a");
    let pending = w.views.record(&spec, w.sets[1].id, label, (1, None)).unwrap();
    hardlink::switch(&w.store, &spec, &w.sets[1], pending.number).unwrap();
    let w = w.restart();
    assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::Finished);
    assert_eq!(w.views.current(&spec.vm).unwrap().unwrap().number, pending.number);
    std::fs::remove_dir_all(&spec.target).unwrap();
    assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::ShownAgain);
    assert_eq!(which(&spec.target).unwrap(), "b");
    let left = spec.target.with_file_name(".rootfs.stork-new-99");
    std::fs::create_dir(&left).unwrap();
    hardlink::tidy(&w.store, &spec, false).unwrap();
    assert!(left.exists(), "it may still be entered");
    hardlink::tidy(&w.store, &spec, true).unwrap();
    assert!(!left.exists());
}

/// The mounted view: read-only for everybody, switched without a gap, asked of the kernel after a
/// restart, and gone when hidden.
#[test]
fn tree_view() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let spec = w.spec(Backend::Tree);
        assert_eq!(w.views.shown(&spec).unwrap(), None);
        w.show(&spec, 0).unwrap();
        assert_eq!(which(&spec.target).unwrap(), "a");
        assert_eq!(w.views.shown(&spec).unwrap(), Some(w.sets[0].id));
        for path in ["usr/x/data", "new"] {
            let error = std::fs::write(spec.target.join(path), "x").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
        let flags = rustix::fs::statvfs(&spec.target).unwrap().f_flag;
        for flag in ["RDONLY", "NOSUID", "NODEV"] {
            let flag = rustix::fs::StatVfsMountFlags::from_name(flag).unwrap();
            assert!(flags.contains(flag), "{flag:?}");
        }
        let kept = std::fs::File::open(spec.target.join("usr/x/data")).unwrap();
        w.show(&spec, 1).unwrap();
        assert_eq!(which(&spec.target).unwrap(), "b");
        assert_eq!(std::io::read_to_string(kept).unwrap(), "a", "open files stay");
        assert_eq!(tree::layers(&Ground::of(&w.store).unwrap(), &spec.target).unwrap().len(), 1);
        let w = w.restart();
        assert_eq!(w.views.shown(&spec).unwrap(), Some(w.sets[1].id));
        unmount(&spec.target, UnmountFlags::DETACH).unwrap();
        assert_eq!(w.views.shown(&spec).unwrap(), None);
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::ShownAgain);
        assert_eq!(which(&spec.target).unwrap(), "b");
        w.views.hide(&spec).unwrap();
        assert!(std::fs::read_dir(&spec.target).unwrap().next().is_none());
    });
}

/// A crash between mounting beneath and unmounting leaves two mounts; the next start finishes it.
#[test]
fn tree_reconciles_a_cut_switch() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let spec = w.spec(Backend::Tree);
        w.show(&spec, 0).unwrap();
        let pending =
            w.views.record(&spec, w.sets[1].id, GenerationLabel::default(), (1, None)).unwrap();
        tree::switch(&Ground::of(&w.store).unwrap(), &spec, &w.sets[1]).unwrap();
        // The old one above the new one, as before the last step of the switch.
        mount_bind(&w.sets[0].path, &spec.target).unwrap();
        let sets: Vec<_> = tree::layers(&Ground::of(&w.store).unwrap(), &spec.target)
            .unwrap()
            .iter()
            .map(|l| l.set)
            .collect();
        assert_eq!(sets, [Some(w.sets[0].id), Some(w.sets[1].id)]);
        let w = w.restart();
        assert_eq!(w.views.reconcile(&spec).unwrap(), Reconciled::Finished);
        assert_eq!(which(&spec.target).unwrap(), "b");
        assert_eq!(tree::layers(&Ground::of(&w.store).unwrap(), &spec.target).unwrap().len(), 1);
        assert_eq!(w.views.current(&spec.vm).unwrap().unwrap().number, pending.number);
        // Something of others at the target is never covered.
        w.views.hide(&spec).unwrap();
        mount_bind("/dev", &spec.target).unwrap();
        assert!(matches!(w.show(&spec, 0), Err(ViewError::Target { .. })));
        unmount(&spec.target, UnmountFlags::DETACH).unwrap();
    });
}

/// A guest in a mount namespace of its own, slave of ours, sees every switch without ever missing
/// a file, and its mount keeps a dropped generation from being swept.
#[test]
fn guests_see_the_switch() {
    if !root_or_skip("mounting") {
        return;
    }
    in_namespace(|| {
        let w = world();
        let mut spec = w.spec(Backend::Tree);
        spec.keep_generations = 1;
        let parent = spec.target.parent().unwrap().to_owned();
        std::fs::create_dir_all(&parent).unwrap();
        mount_bind(&parent, &parent).unwrap();
        mount_change(&parent, MountPropagationFlags::SHARED).unwrap();
        w.show(&spec, 0).unwrap();
        let done = AtomicBool::new(false);
        let (ready, is_ready) = mpsc::channel();
        let seen_b = AtomicBool::new(false);
        std::thread::scope(|s| {
            let guest = s.spawn(|| {
                sys::own_namespace();
                let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                mount_change("/", slave).unwrap();
                ready.send(()).unwrap();
                let mut last = String::new();
                while !done.load(Ordering::SeqCst) {
                    last = which(&spec.target).unwrap();
                    if last == "b" {
                        seen_b.store(true, Ordering::SeqCst);
                    }
                }
                last = which(&spec.target).unwrap_or(last);
                let error = std::fs::write(spec.target.join("usr/x/data"), "x").unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
                last
            });
            is_ready.recv().unwrap();
            for i in 1..=21 {
                w.show(&spec, i % 2).unwrap();
            }
            let start = Instant::now();
            while !seen_b.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
            assert_eq!(guest.join().unwrap(), "b");
        });
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 1);
        // A bind mount elsewhere still shows set `b`: its generation stays until that is gone.
        let elsewhere = w.folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        mount_bind(&w.sets[1].path, &elsewhere).unwrap();
        w.show(&spec, 0).unwrap();
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 2);
        unmount(&elsewhere, UnmountFlags::DETACH).unwrap();
        w.views.tidy(&spec).unwrap();
        assert_eq!(w.views.generations(&spec.vm).unwrap().len(), 1);
    });
}
