//! Limits of rate on real nodes: they hold, urgent content passes, and windows open and close.

use std::time::Duration;

use serde_json::Value;
use stork_node::transfer::{Rate, Rates, Schedule, Window};
use stork_tests::fleet::{Fleet, VmFile, noise, report};
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, LabNode, wait_for};
use stork_tests::wait::{PATIENCE_S, wait_until};

const MIB: u64 = 1024 * 1024;
const LEN: u64 = 6 * MIB;
/// How long the window of a test stays closed, in seconds: until its calendar has moved on.
const TWO_HOURS: u64 = 2 * 3_600;

/// Two hosts, of which the first has these settings and no VM.
fn seed_and_host(settings: &str) -> Fleet {
    let mut fleet = Fleet::new(&["web"], 2);
    fleet.hosts[0].configure(settings);
    fleet.hosts[0].restart();
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    assert_eq!(host.tell(&["reload"])["vms"], 1);
    fleet
}

fn waits(status: &Value, way: &str) -> u64 {
    status["bandwidth"]["waits"][way].as_u64().unwrap()
}

/// The only host with the content may send 1 MiB/s: it waits again and again, sends each byte once,
/// and the transfer takes as long as that needs, less what a full bucket holds. Faster would be a
/// limit that does not hold; how much slower a busy machine is, is not asked.
#[test]
fn a_limited_seed_waits() {
    let fleet = seed_and_host("[bandwidth]\nup = \"1 MiB/s\"\n");
    let bytes = noise("bandwidth", usize::try_from(LEN).unwrap());
    let package = fleet.package("big", "1", &[("big.bin", &bytes)]);
    fleet.push(&package, &["web"]);
    let release = fleet.hosts[1].await_whole("big", "1");
    let status = fleet.hosts[0].tell(&["status"]);
    let took = release["took_ms"].as_u64().unwrap();
    let (served, full) =
        (status["bytes"]["served"].as_u64().unwrap(), release["full_bytes"].as_u64());
    println!("{took} ms, {} waits, {served} bytes served", waits(&status, "up"));
    // A second's worth is in the bucket, and the last piece may be owed.
    let least = (LEN - 2 * MIB) * 1_000 / MIB;
    assert!(took >= least, "{took} ms for {LEN} bytes at 1 MiB/s, less than {least}");
    assert!(waits(&status, "up") > 10, "{status}");
    assert_eq!((waits(&status, "down"), waits(&status, "wan_up")), (0, 0));
    let full = full.unwrap();
    assert!((full..full + full / 10).contains(&served), "{served} bytes served of {full}");
    assert_eq!(status["bandwidth"]["limits"]["up"]["bytes_per_s"], MIB);
    assert!(waits(&fleet.hosts[1].tell(&["status"]), "down") == 0, "it has no limit");
}

/// Where nothing normal may leave, a release waits; a security release passes it. Without the
/// limit the first one goes on, and nothing of it was lost.
#[test]
fn urgent_content_passes_a_closed_way() {
    let mut fleet = seed_and_host("[bandwidth]\nup = \"none\"\n");
    let slow = fleet.package("slow", "1", &[("slow.bin", &noise("slow", 300_000))]);
    let fast = fleet.package("fast", "1", &[("fast.bin", &noise("fast", 300_000))]);
    fleet.push(&slow, &["web"]);
    wait_until("the seed to hold it back", || waits(&fleet.hosts[0].tell(&["status"]), "up") > 0);
    let mut push = fleet.push_command(0, &fast, &["web"]);
    drop(report(&push.args(["--urgency", "security"]).output().unwrap()));
    fleet.hosts[1].await_whole("fast", "1");
    let release = fleet.hosts[1].release("slow", "1").unwrap();
    assert_eq!((&release["state"], &release["fetched_bytes"]), (&"fetching".into(), &0.into()));
    let out = fleet.hosts[0].node(&["check-config"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fleet.hosts[0].configure("[bandwidth]\nup = \"unlimited\"\n");
    fleet.hosts[0].restart();
    fleet.hosts[1].await_vm("vm", &[("fast", "1"), ("slow", "1")]);
}

/// A setting that is wrong stops the start, with its line and what to write.
#[test]
fn wrong_settings_are_named() {
    let mut fleet = Fleet::new(&["web"], 1);
    fleet.hosts[0].stop();
    fleet.hosts[0].configure("[bandwidth]\nup = \"4Mb/s\"\n");
    let out = fleet.hosts[0].node(&["check-config"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(78), "{error}");
    assert!(error.contains("line 2") && error.contains("bits and bytes"), "{error}");
    assert!(error.contains("help: write for example `\"40 MB/s\"`"), "{error}");
}

/// The window that holds now on a calendar in seconds since 1970, for about two hours.
fn closed_until(unix_s: u64) -> (Schedule, u64) {
    let minute = |s: u64| u16::try_from(s / 60 % 1_440).unwrap();
    let (from, until) = (unix_s - 60, unix_s + TWO_HOURS);
    let rates = Rates { down: Some(Rate::Nothing), ..Rates::default() };
    let window = Window { days: [true; 7], from: minute(from), to: minute(until), rates };
    (Schedule { base: Rates::default(), windows: vec![window] }, until / 60 * 60)
}

async fn status(node: &LabNode) -> Value {
    node.client().get("/v1/status").await.unwrap()
}

/// Nothing normal comes to a host while its window is closed, and status says until when. When the
/// calendar has passed that, it comes by itself.
#[test]
fn a_window_ends() {
    let limit = Duration::from_secs(PATIENCE_S);
    runtime().block_on(async {
        let mut lab = Lab::new(2).await.unwrap();
        let now = status(&lab.nodes[1]).await["clock"]["now"].as_u64().unwrap();
        let (schedule, until) = closed_until(now);
        lab.nodes[1].stop().await.unwrap();
        lab.nodes[1].config.bandwidth = schedule;
        lab.nodes[1].start().await.unwrap();
        lab.nodes[1].add_vm("vm").unwrap();
        lab.settle().await.unwrap();
        let package = lab.dir.path().join("package");
        std::fs::create_dir(&package).unwrap();
        std::fs::write(package.join("blob"), noise("window", 300_000)).unwrap();
        lab.publish(&package, "blob", "1").await.unwrap();
        let held = wait_for("the host to hold it back", limit, || async {
            let status = status(&lab.nodes[1]).await;
            (waits(&status, "down") > 0).then_some(status)
        });
        let held = held.await.unwrap();
        assert_eq!(held["bytes"]["fetched"].as_u64().map(|b| b < 100_000), Some(true), "{held}");
        let shown = &held["bandwidth"];
        assert_eq!(shown["limits"]["down"]["closed"], true);
        assert_eq!(shown["changes_at"], until);
        assert_eq!(shown["then"]["down"]["closed"], false);
        assert_eq!(lab.nodes[1].event_ms("content_whole", "blob 1").await, None);
        lab.pass(Duration::from_secs(TWO_HOURS));
        let whole = || lab.nodes[1].event_ms("content_whole", "blob 1");
        wait_for("the content", limit, whole).await.unwrap();
        let open = status(&lab.nodes[1]).await;
        assert_eq!(open["bandwidth"]["limits"]["down"]["closed"], false);
        assert!(lab.nodes[1].event_ms("bandwidth", "no limits").await.is_some());
        lab.stop().await.unwrap();
    });
}
