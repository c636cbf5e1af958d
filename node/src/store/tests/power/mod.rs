//! T091: power cuts. A process works on a store while `strace` writes down what it asks of the
//! disk. Then the disk is made anew as it may be after a power cut at any moment of that, with what
//! was not made durable lost in whole or in part, and everything that was promised must hold.
//!
//! In the gate some hundred disks are looked at, chosen evenly; `STORK_LONG=1` looks at all.

mod content;
mod disk;
mod trace;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use disk::Disk;
use work::Place;

/// Disks that the gate looks at.
const IN_GATE: usize = 100;
/// Names what a process that was started by a test does, and where.
const VARIABLE: &str = "STORK_TEST_POWER";

/// A folder in memory where there is one: thousands of disks are written.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn strace_or_skip() -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: there is no strace here");
    }
    found
}

/// What the child of a test does; a test by itself it is nothing.
#[test]
fn power_worker() {
    let Ok(job) = std::env::var(VARIABLE) else { return };
    let (kind, root) = job.split_once(' ').unwrap();
    let place = Place(PathBuf::from(root).join("disk"));
    let marks = PathBuf::from(root).join("marks");
    match kind {
        "store" => work::work(&place, &marks),
        "fault" => work::work_with_fault(&place, &marks),
        _ => careless(&place, &marks),
    }
}

/// Replaces a file as it must not be done.
fn careless(place: &Place, marks: &Path) {
    fs::write(place.0.join("new"), "new").unwrap();
    fs::rename(place.0.join("new"), place.0.join("file")).unwrap();
    use std::io::Write;
    let mut marks = fs::File::options().append(true).open(marks).unwrap();
    marks.write_all(b"replaced\n").unwrap();
}

/// Records what the worker does in a prepared folder.
fn record(kind: &str, prepare: impl Fn(&Place), fault: Option<&str>) -> (tempfile::TempDir, Disk) {
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    let (place, marks) = (Place(root.join("disk")), root.join("marks"));
    fs::create_dir(&place.0).unwrap();
    fs::write(&marks, "").unwrap();
    prepare(&place);
    let mut disk = Disk::of(&place.0, &marks);
    let args = ["store::tests::power::power_worker", "--exact", "--test-threads", "1"];
    let job = format!("{kind} {}", root.display());
    for call in trace::record(&root.join("log"), &args, (VARIABLE, &job), fault) {
        disk.take(&call);
    }
    (folder, disk)
}

/// Looks at disks after power cuts; in the gate at some of them.
fn look(disk: &Disk, check: impl Fn(&Place, &[&str])) {
    let long = std::env::var_os("STORK_LONG").is_some();
    let moments = 0..disk.moments();
    let all: Vec<_> = moments
        .flat_map(|m| disk.fates(m, if long { 8 } else { 2 }).into_iter().map(move |f| (m, f)))
        .collect();
    let every = if long { 1 } else { (all.len() / IN_GATE).max(1) };
    let (mut known, mut failed) = (BTreeSet::new(), 0);
    let folder = folder();
    for (moment, fate) in all.iter().copied().step_by(every) {
        let crash = disk.crash(moment, fate, &mut known);
        if !crash.new {
            continue;
        }
        let place = Place(folder.path().canonicalize().unwrap().join("disk"));
        fs::create_dir(&place.0).unwrap();
        disk.write(&crash, &place.0, ".rootfs.stork-view");
        let told = disk.told(moment);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&place, &told);
        }));
        if checked.is_err() {
            failed += 1;
            println!("a power cut at {moment} of {}, {fate:?}, told {told:?}", disk.moments());
            if failed == 1 {
                disk.print_before(moment);
            }
        }
        fs::remove_dir_all(&place.0).unwrap();
    }
    println!("{} disks of {} power cuts were looked at", known.len(), all.len());
    assert_eq!(failed, 0, "disks on which something does not hold; the first is described above");
}

/// T091: at whatever moment the power fails, a store that is used for everything opens again, has
/// all that it acknowledged, shows a whole generation, no older one than was shown, goes on, and
/// keeps nothing for ever that nobody needs.
#[test]
fn t091_power_cuts_while_a_store_is_used() {
    if !strace_or_skip() {
        return;
    }
    let (_folder, disk) = record("store", Place::prepare, None);
    look(&disk, work::check);
}

/// The test finds what it should: a file that is replaced without making it durable is found empty
/// or not replaced, although it was said to be.
#[test]
fn careless_writing_is_found() {
    if !strace_or_skip() {
        return;
    }
    let (_folder, disk) = record(
        "careless",
        |place| {
            fs::write(place.0.join("file"), "old").unwrap();
        },
        None,
    );
    let found = std::cell::RefCell::new(BTreeSet::new());
    look(&disk, |place, told| {
        let now = fs::read_to_string(place.0.join("file")).unwrap_or_default();
        found.borrow_mut().insert((told.contains(&"replaced"), now));
    });
    let found = found.into_inner();
    for wrong in ["", "old", "new"] {
        assert!(found.contains(&(true, wrong.to_owned())), "{found:?}");
    }
}

/// Calls that fail once, with an error of a broken disk and of a full one, and which of them fail
/// in the gate. To open a store takes 777 `mkdirat`.
const FAULTS: &[(&str, &str, [u32; 2])] = &[
    ("fsync", "EIO", [6, 9]),
    ("fdatasync", "EIO", [2, 9]),
    ("pwrite64", "EIO", [9, 40]),
    ("pwrite64", "ENOSPC", [9, 40]),
    ("renameat2", "EIO", [2, 9]),
    ("linkat", "ENOSPC", [2, 9]),
    ("linkat", "EMLINK", [1, 4]),
    ("mkdirat", "ENOSPC", [3, 780]),
    ("unlink", "EIO", [2, 9]),
];

/// T090: a call fails once, at any place: what was asked for is not acknowledged. Then the store
/// only reads and says so, or goes on as if nothing had been. Whatever was acknowledged before is
/// there after a restart, also if all that was not made durable is lost.
#[test]
fn t090_a_disk_that_fails_once() {
    if !strace_or_skip() {
        return;
    }
    let long = std::env::var_os("STORK_LONG").is_some();
    let mut ends = std::collections::BTreeMap::new();
    for (call, error, [first, second]) in FAULTS {
        let all = (1..60).chain(770..800);
        let places: Vec<u32> = if long { all.collect() } else { vec![*first, *second] };
        for place in places {
            let fault = format!("{call}:error={error}:when={place}");
            let (folder, disk) = record("fault", Place::prepare, Some(&fault));
            let told = disk.told(disk.moments() - 1);
            let last = told.last().copied().unwrap_or("not open").to_owned();
            println!("{fault}: {told:?}");
            work::check(&Place(folder.path().canonicalize().unwrap().join("disk")), &told);
            let crash = disk.crash(disk.moments() - 1, disk::Fate::Lost, &mut BTreeSet::new());
            let lost = self::folder();
            let lost = Place(lost.path().canonicalize().unwrap());
            disk.write(&crash, &lost.0, ".rootfs.stork-view");
            work::check(&lost, &told);
            *ends.entry((*call, *error, last.clone())).or_insert(0) += 1;
            if last == "through" {
                break;
            }
        }
    }
    println!("{ends:#?}");
    let latched = |call: &str| {
        ends.iter().any(|((c, e, end), _)| *c == call && *e == "EIO" && end == "latched")
    };
    assert!(latched("fsync") && latched("pwrite64"), "{ends:?}");
    assert!(ends.keys().any(|(_, e, end)| *e == "ENOSPC" && end == "went on"), "{ends:?}");
}
