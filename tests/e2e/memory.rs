//! How much memory a node as a whole takes while a large image comes over QUIC and is unpacked, and
//! while a change of it comes as a delta: the figures of docs/PROMISES.md.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stork_tests::fleet::{Fleet, Package, VmFile, noise};
use stork_tests::wait::wait_until;

/// Mebibytes of the image, and of data in it: in the gate, and with `STORK_LONG=1`.
const MIB: (u64, u64) = (96, 16);
const MIB_LONG: (u64, u64) = (4_096, 1_024);
/// Bytes of each run of data.
const RUN: usize = 4 << 20;

/// Anonymous memory of a process in KiB.
fn anonymous_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The most that a process took while something was done.
fn most_kib(pid: u32, work: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(anonymous_kib(pid));
                std::thread::park_timeout(Duration::from_millis(20));
            }
            most
        });
        work();
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

/// Writes runs of noise over the image, all of them or the one in 20 that changes.
fn write(image: &Path, (mib, filled): (u64, u64), version: &str) {
    let file = File::options().write(true).create(true).truncate(false).open(image).unwrap();
    file.set_len(mib << 20).unwrap();
    let runs = (filled << 20) / RUN as u64;
    let every = (mib << 20) / runs;
    for run in 0..runs {
        if version == "1" || run % 20 == 0 {
            let bytes = noise(&format!("{version} {run}"), RUN);
            file.write_all_at(&bytes, run * every).unwrap();
        }
    }
}

/// A host takes the image in full, and then a change of it.
#[test]
fn a_node_takes_a_large_image_in_little_memory() {
    let size = if std::env::var_os("STORK_LONG").is_some() { MIB_LONG } else { MIB };
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let idle = anonymous_kib(host.pid());
    for (version, most_mib) in [("1", 64), ("2", 160)] {
        let folder = fleet.folder("disk");
        write(&folder.join("disk.img"), size, version);
        let package = Package { file: folder, named: Some(("disk".into(), version.into())) };
        let most = most_kib(host.pid(), || {
            fleet.push(&package, &["web"]);
            wait_until("the VM to show it", || {
                host.vm_shows("vm").get("disk").is_some_and(|v| v == version)
            });
        });
        let release = host.await_whole("disk", version);
        println!("{} as {}: {most} KiB anonymous, {idle} idle", version, release["fetched_as"]);
        assert!(most <= most_mib << 10, "{most} KiB for version {version}");
    }
}
