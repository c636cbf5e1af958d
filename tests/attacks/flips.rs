//! Bits that flip on the disk of a host, that runs or does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stork_node::run::open_store;
use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, VmFile, noise};
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, LabNode};
use stork_tests::wait::wait_until;
use stork_wire::item::{Item, ItemKind};
use tokio::runtime::Runtime;

use crate::check::has_event;

fn entries(node: &LabNode) -> Vec<Item> {
    let store = open_store(&node.config).unwrap();
    let mut out = Vec::new();
    let keep = |i: stork_node::store::JournalItem| {
        if i.item.kind == ItemKind::Entry {
            out.push(i.item);
        }
    };
    store.all_items(keep).unwrap();
    out
}

fn knows(runtime: &Runtime, node: &LabNode, version: &str) -> bool {
    let all = runtime.block_on(async { node.client().get("/v1/releases").await.unwrap() });
    all["releases"].as_array().unwrap().iter().any(|r| r["version"] == version)
}

/// T093: a bit flips in the body of an entry in the journal of a host that does not run. It starts,
/// does not believe that entry, gets the true one from another host, and hears what comes after it.
#[test]
fn t093_a_flipped_bit_in_the_journal() {
    let runtime = runtime();
    let mut lab = runtime.block_on(async {
        let lab = Lab::new(2).await.unwrap();
        lab.settle().await.unwrap();
        for version in ["1", "2"] {
            let package = lab.dir.path().join(version);
            fs::create_dir(&package).unwrap();
            fs::write(package.join("file"), version).unwrap();
            lab.publish(&package, "app", version).await.unwrap();
        }
        lab
    });
    wait_until("the second release", || knows(&runtime, &lab.nodes[1], "2"));
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    let before = entries(&lab.nodes[1]);
    assert_eq!(before.len(), 2);
    let body = &before[1].envelope.body;
    let path = lab.nodes[1].config.state.join("state.redb");
    let mut bytes = fs::read(&path).unwrap();
    let places = bytes.windows(body.len()).enumerate();
    let places: Vec<usize> = places.filter(|(_, w)| *w == &**body).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the entry is not in the file");
    for at in places {
        bytes[at + body.len() / 2] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    assert_ne!(entries(&lab.nodes[1]), before);
    runtime.block_on(lab.nodes[1].start()).unwrap();
    wait_until("the release again", || knows(&runtime, &lab.nodes[1], "2"));
    let package = lab.dir.path().join("1");
    runtime.block_on(lab.publish(&package, "app", "3")).unwrap();
    wait_until("the next release", || knows(&runtime, &lab.nodes[1], "3"));
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    assert_eq!(entries(&lab.nodes[1])[..2], before);
}

/// All large files below a folder, but for the journal.
fn large_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            large_files(&path, out);
        } else if meta.len() > 100_000 && path.extension().is_none_or(|e| e != "redb") {
            out.push(path);
        }
    }
}

/// Is it as it was packed?
fn same(view: &Path, package: &Path) -> bool {
    fs::read(view.join("app")).ok() == fs::read(package.join("app")).ok()
}

/// Flips a bit in each large file of a store.
fn damage(state: &Path) {
    let mut files = Vec::new();
    large_files(state, &mut files);
    // A file that is linked to is one file, however many names it has.
    let mut seen = BTreeSet::new();
    files.retain(|f| seen.insert(fs::metadata(f).unwrap().ino()));
    for file in &files {
        let mut bytes = fs::read(file).unwrap();
        bytes[70_000] ^= 1;
        fs::write(file, bytes).unwrap();
    }
}

/// T094: bits flip in the content that a VM is shown, in the pack that it came in, and in what it
/// was built from, on a host that runs: first on one that fetched it, then on the one that it was
/// pushed to. `stork store verify` moves all of it away, the other host has it, and the VM is
/// switched to good files, in one step.
#[test]
fn t094_damage_in_use_is_fetched_again() {
    let fleet = Fleet::new(&["web"], 2);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let package = fleet.package("app", "1", &[("app", &noise("app", 1 << 20))]);
    fleet.push(&package, &["web"]);
    for host in &fleet.hosts {
        host.await_vm("vm", &[("app", "1")]);
    }
    for host in fleet.hosts.iter().rev() {
        damage(&host.dir.join("state"));
        assert!(!same(&host.target("vm"), &package.file));
        let out = host.stork(&["store", "verify"]);
        assert_eq!(out.status.code(), Some(3), "{out:?}");
        wait_until(&format!("{} to show good files", host.name), || {
            same(&host.target("vm"), &package.file)
        });
        host.await_vm("vm", &[("app", "1")]);
        compare_with_folder(&host.target("vm"), &package.file);
        wait_until("all to be sound", || host.stork(&["store", "verify"]).status.success());
    }
}

/// T094: the same with nobody who asks: the scrub finds it, moves it away, tells the host and the
/// VM that was shown it, and the VM is switched to good files that came from the other host.
#[test]
fn t094_the_scrub_finds_damage_in_use() {
    let mut fleet = Fleet::new(&["web"], 2);
    let host = &mut fleet.hosts[1];
    host.configure("[scrub]\nround_s = 1\nglance_s = 0\n");
    host.restart();
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let package = fleet.package("app", "1", &[("app", &noise("app", 1 << 20))]);
    fleet.push(&package, &["web"]);
    host.await_vm("vm", &[("app", "1")]);
    assert!(!has_event(host, "damaged", ""));
    damage(&host.dir.join("state"));
    wait_until("good files", || {
        has_event(host, "vm_shown_damaged", "vm: ") && same(&host.target("vm"), &package.file)
    });
    assert!(has_event(host, "damaged", "it has other bytes; it is in quarantine"));
    assert!(host.counter("damaged", "object") >= 1 && host.counter("damaged", "set") >= 1);
    host.await_vm("vm", &[("app", "1")]);
    compare_with_folder(&host.target("vm"), &package.file);
    wait_until("a round that finds nothing", || {
        let scrub = host.tell(&["status"])["scrub"].clone();
        scrub["finished"].as_u64() >= scrub["begun"].as_u64() && scrub["damaged"] == 0
    });
    host.verify_store();
}
