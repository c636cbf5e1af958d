//! What a publisher can rely on: one release at a time, nothing twice, nothing lost when it is cut.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use stork_tests::compare::{compare_with_folder, disk_usage};
use stork_tests::fleet::{Fleet, Package, VmFile, noise, report};
use stork_tests::wait::wait_until;

/// Bytes of content that a push takes some time for.
const LARGE: usize = 64 * 1024 * 1024;

/// Two pushes at the same time: both are published, with numbers that follow each other, and a VM
/// shows both. The same push again says that it is published already, and succeeds.
#[test]
fn pushes_at_the_same_time_and_twice() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let packages = ["a", "b", "c"].map(|n| fleet.package(n, "1", &[(n, &noise(n, 300_000))]));
    let running: Vec<_> = packages
        .iter()
        .map(|p| {
            let mut push = fleet.push_command(0, p, &["web"]);
            push.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let reports: Vec<_> =
        running.into_iter().map(|child| report(&child.wait_with_output().unwrap())).collect();
    let mut numbers: Vec<u64> = reports.iter().map(|r| r["seq"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3], "{reports:?}");
    assert!(reports.iter().all(|r| r["outcome"] == "published"), "{reports:?}");
    host.await_vm("vm", &[("a", "1"), ("b", "1"), ("c", "1")]);

    let again = fleet.push(&packages[0], &["web"]);
    assert_eq!(again["outcome"], "already_published", "{again}");
    assert_eq!(again["seq"], reports[0]["seq"], "no entry was made: {again}");
}

/// A push of 64 MiB is killed when a part of it has arrived. The same command again sends only what
/// is missing, and every host shows the content.
#[test]
fn an_interrupted_push_goes_on_where_it_stopped() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let package = fleet.package("big", "1", &[("big.bin", &noise("big", LARGE))]);
    let mut push = fleet.push_command(0, &package, &["web"]);
    let mut child = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folders = ["incoming", "packs"].map(|f| fleet.hosts[0].dir.join("state").join(f));
    wait_until("a part to arrive", || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the push ended before it could be killed: {ended:?}");
        disk_usage(&[&folders[0], &folders[1]]) > 4 * 1024 * 1024
    });
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(host.release("big", "1").is_none(), "nothing is announced before all has arrived");

    let report = fleet.push(&package, &["web"]);
    assert_eq!(report["outcome"], "published", "{report}");
    let node = &report["nodes"][0];
    let bytes = |key: &str| node[key].as_u64().unwrap();
    let kept = bytes("resumed_bytes") + bytes("present_bytes");
    assert!(kept >= 1024 * 1024, "what had arrived is not sent again: {report}");
    let full = report["full_bytes"].as_u64().unwrap();
    assert!(bytes("sent_bytes") < full && kept + bytes("sent_bytes") >= full, "{report}");
    host.await_vm("vm", &[("big", "1")]);
    compare_with_folder(&host.target("vm"), &package.file);
}

/// A version that goes backwards is refused before anything is sent, and said so; with
/// `--allow-lower` it is published.
#[test]
fn a_lower_version_needs_a_word() {
    let fleet = Fleet::new(&["web"], 1);
    let [new, old] = ["2", "1"].map(|v| fleet.package("a", v, &[("a", v.as_bytes())]));
    fleet.push(&new, &["web"]);
    let refused = fleet.push_command(0, &old, &["web"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(error.contains("version 1 is lower than 2"), "{error}");
    let mut command = fleet.push_command(0, &old, &["web"]);
    let done = report(&command.arg("--allow-lower").output().unwrap());
    assert_eq!((&done["outcome"], &done["seq"]), (&"published".into(), &2.into()), "{done}");
}

/// The same version with another content is refused: by the publisher's program for the newest
/// version, and by the node for any other, counted and with nothing announced. The same content
/// again is done already, and for a further group it is a release of its own.
#[test]
fn a_version_stands_for_one_content() {
    let fleet = Fleet::new(&["web", "db"], 1);
    let host = &fleet.hosts[0];
    let [one, two] = ["1", "2"].map(|v| fleet.package("a", v, &[("a", v.as_bytes())]));
    fleet.push(&one, &["web"]);
    fleet.push(&two, &["web"]);
    let again = fleet.push(&two, &["web"]);
    assert_eq!((&again["outcome"], &again["seq"]), (&"already_published".into(), &2.into()));
    assert_eq!(fleet.push(&two, &["db"])["seq"], 3);

    let change = |package: &Package| std::fs::write(package.file.join("a"), b"changed").unwrap();
    change(&two);
    let refused = fleet.push_command(0, &two, &["web"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(7), "{error}");
    assert!(error.contains("a 2 (all) is published already, as entry 3"), "{error}");
    change(&one);
    let mut command = fleet.push_command(0, &one, &["web"]);
    let refused = command.arg("--allow-lower").output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(7), "{error}");
    assert!(error.contains("refuses: a 1 (all) is published already, as entry 1"), "{error}");
    assert!(error.contains("help: give what changed a new version"), "{error}");
    assert_eq!(host.counter("pushes_refused", "version_taken"), 1);
    let three = fleet.package("a", "3", &[("a", b"changed")]);
    assert_eq!(fleet.push(&three, &["web"])["seq"], 4, "the feed goes on");
}
