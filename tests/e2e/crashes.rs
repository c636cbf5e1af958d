//! Power cuts (T092): a host is killed at every numbered failpoint, and ends right by itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_node::failpoint;
use stork_node::store::IMAGE;
use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Host, Namespace, Package, VmFile, noise};

const FETCH: &[&str] = &["store.piece.written", "store.piece.mapped", "store.pack.renamed"];
const UNPACK: &[&str] = &["store.unpack.object", "store.unpack.before_rows", "store.unpack.done"];
const JOURNAL: &[&str] = &["store.journal.before_commit", "store.journal.after_commit"];
const SET: &[&str] = &["store.set.half_linked", "store.set.renamed"];
const GC: &[&str] = &["store.gc.marked", "store.gc.half_swept"];
const VIEW: &[&str] = &[
    "view.generation.recorded",
    "view.switch.mounted",
    "view.switch.before_umount",
    "view.switched",
];

const LAYER: &[&str] = &["view.private.made"];

/// The host that is killed; the first one is the origin, the second one goes on undisturbed.
const VICTIM: usize = 2;

/// A package of 3 MiB in two dozen files, so that every step takes more than one turn.
fn package(fleet: &Fleet, version: usize) -> Package {
    let version = version.to_string();
    let mut files = vec![
        ("lib/large.bin".to_owned(), noise(&version, 3 << 20)),
        ("share/version".to_owned(), version.clone().into_bytes()),
    ];
    files.extend((0..20).map(|i| {
        let path = format!("share/doc/{i}");
        (path.clone(), format!("{path} of {version}").into_bytes())
    }));
    let files: Vec<_> = files.iter().map(|(p, b)| (p.as_str(), b.as_slice())).collect();
    fleet.package("pkg", &version, &files)
}

/// Where hosts mount, and by which backend.
type Mounted = Option<(Namespace, &'static str)>;

fn fleet(mounted: Mounted) -> Fleet {
    let backend = mounted.as_ref().map(|(_, backend)| *backend);
    let fleet = match mounted {
        Some((namespace, _)) => Fleet::inside(namespace, &["web"], 3),
        None => Fleet::new(&["web"], 3),
    };
    for host in &fleet.hosts[1..] {
        let file = VmFile::usual(&["web"], &host.target("vm"));
        host.write_vm("vm", &if let Some(name) = backend { file.shown_as(name) } else { file });
    }
    fleet
}

/// What the VM sees, as a folder.
struct Seen {
    folder: PathBuf,
    /// Where an image was unpacked.
    _unpacked: Option<tempfile::TempDir>,
}

impl Seen {
    fn of(host: &Host) -> Self {
        let folder = host.seen("vm");
        let image = folder.join(IMAGE);
        if !image.exists() {
            return Self { folder, _unpacked: None };
        }
        let unpacked = tempfile::tempdir().unwrap();
        let folder = unpacked.path().join("tree");
        let mut fsck = Command::new("fsck.erofs");
        fsck.arg(format!("--extract={}", folder.display())).arg(&image);
        let done = fsck.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self { folder, _unpacked: Some(unpacked) }
    }

    fn is(&self, package: &Package) {
        compare_with_folder(&self.folder, &package.file);
    }
}

fn version(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("share/version")).unwrap()
}

/// What is killed in the middle still shows the old or the new package, whole, while nothing runs.
fn shows_one_of(host: &Host, packages: [&Package; 2]) {
    let seen = Seen::of(host);
    let shown = version(&seen.folder);
    let package = packages.into_iter().find(|p| version(&p.file) == shown).unwrap();
    seen.is(package);
}

/// Kills the victim at each point in turn, once while a new version comes or while garbage is
/// collected, and sees that it goes on by itself after a plain start.
fn story(points: &[&str], mounted: Mounted) {
    let mut fleet = fleet(mounted);
    let mut before = package(&fleet, 0);
    fleet.push(&before, &["web"]);
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("pkg", "0")]);
    }
    for (point, number) in points.iter().zip(1..) {
        let victim = &mut fleet.hosts[VICTIM];
        victim.stop();
        victim.with_env(failpoint::VARIABLE, point).start();
        let new = package(&fleet, number);
        fleet.push(&new, &["web"]);
        let version = number.to_string();
        if point.contains(".gc.") {
            let victim = &fleet.hosts[VICTIM];
            victim.await_vm("vm", &[("pkg", &version)]);
            let cut = victim.stork(&["store", "gc"]);
            assert!(!cut.status.success(), "{point}: the collection was not cut");
        }
        let victim = &mut fleet.hosts[VICTIM];
        assert_eq!(victim.await_death(point), Some(9), "{point}");
        shows_one_of(victim, [&before, &new]);
        fleet.hosts[1].await_vm("vm", &[("pkg", &version)]);

        let victim = fleet.hosts[VICTIM].without_env().start();
        victim.await_vm("vm", &[("pkg", &version)]);
        Seen::of(victim).is(&new);
        let collected = victim.tell(&["store", "gc"]);
        assert_eq!(collected["dry_run"], false, "{point}: {collected}");
        victim.verify_store();
        Seen::of(victim).is(&new);
        before = new;
    }
}

/// The stories below name every failpoint of the node.
#[test]
fn every_failpoint_has_its_story() {
    let told = [FETCH, UNPACK, JOURNAL, SET, GC, VIEW, LAYER].concat();
    let told: BTreeSet<_> = told.into_iter().collect();
    assert_eq!(told, failpoint::ALL.iter().copied().collect());
}

/// Killed in the middle of a fetch: what had arrived is used, the rest is fetched.
#[test]
fn t092_killed_while_fetching() {
    story(FETCH, None);
}

/// Killed in the middle of unpacking.
#[test]
fn t092_killed_while_unpacking() {
    story(UNPACK, None);
}

/// Killed around the moment at which an announcement becomes durable.
#[test]
fn t092_killed_while_writing_the_journal() {
    story(JOURNAL, None);
}

/// Killed while a package set is built.
#[test]
fn t092_killed_while_building_a_set() {
    story(SET, None);
}

/// Killed in the middle of a garbage collection.
#[test]
fn t092_killed_while_collecting_garbage() {
    story(GC, None);
}

/// Killed in the middle of a switch of a tree of hard links.
#[test]
fn t092_killed_while_switching_links() {
    story(VIEW, None);
}

/// Killed in the middle of a switch of a mount, which outlives the process.
#[test]
fn t092_killed_while_switching_mounts() {
    match Namespace::new() {
        Ok(namespace) => story(VIEW, Some((namespace, "tree"))),
        Err(why) => eprintln!("skipped: {why}"),
    }
}

/// Killed while an image of names is built, and in the middle of a switch of an overlay over it.
#[test]
fn t092_killed_while_switching_composefs() {
    match Namespace::new() {
        Ok(namespace) => story(&[SET, VIEW].concat(), Some((namespace, "composefs"))),
        Err(why) => eprintln!("skipped: {why}"),
    }
}

/// Killed while a whole image is written for a guest, and in the middle of the switch to it: what
/// the guest is handed is the old image or the new one, whole.
#[test]
fn t092_killed_while_switching_an_image() {
    if Command::new("fsck.erofs").arg("-V").output().is_err() {
        eprintln!("skipped: there is no fsck.erofs (Debian: erofs-utils)");
        return;
    }
    match Namespace::new() {
        Ok(namespace) => story(&[SET, VIEW].concat(), Some((namespace, "image"))),
        Err(why) => eprintln!("skipped: {why}"),
    }
}

/// Killed when a VM's own layer was made for the next generation, and in the middle of the switch
/// to it.
#[test]
fn t092_killed_while_switching_an_overlay() {
    match Namespace::new() {
        Ok(namespace) => story(&[LAYER, VIEW].concat(), Some((namespace, "overlay"))),
        Err(why) => eprintln!("skipped: {why}"),
    }
}
