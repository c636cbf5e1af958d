//! Retiring releases, and letting a feed begin anew: what makes room takes nothing from a VM.

use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use stork_publisher::charter::{self, Change, EpochOptions, Life};
use stork_publisher::keys::Passphrase;
use stork_publisher::progress::Progress;
use stork_publisher::push::{self, CarryOptions};
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::hostile::runtime;
use stork_tests::wait::wait_until;

fn home(fleet: &Fleet) -> String {
    format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr())
}

fn publish(fleet: &Fleet, what: &[&str]) -> Output {
    let mut command = Command::new(binary("stork-publish"));
    command.args(what).args(["--to", &home(fleet), "--json"]);
    command.arg("--charter").arg(&fleet.charter);
    command.output().unwrap()
}

fn pinned(host: &Host) -> VmFile {
    VmFile::usual(&["web"], &host.target("vm")).pin("tool", "= 1")
}

/// A release of the tool, as it was retired and as it is live.
fn known(host: &Host, version: &str, retired: bool) -> Option<Value> {
    let all = host.ask(&["release", "tool"])?;
    let mut all = all["releases"].as_array()?.iter();
    all.find(|r| r["version"] == version && r["retired"] == retired).cloned()
}

fn retired(host: &Host, version: &str) -> bool {
    known(host, version, true).is_some()
}

/// A VM that is pinned to an old release goes on showing it when that is retired, over a restart;
/// one that comes later does not get it, and is told why. Others have moved on, and the feed does.
#[test]
fn a_retired_release_stays_where_it_is_shown() {
    let mut fleet = Fleet::new(&["web"], 2);
    let usual = VmFile::usual(&["web"], &fleet.hosts[0].target("vm"));
    fleet.hosts[0].write_vm("vm", &usual.view("keep_generations = 2"));
    fleet.hosts[1].write_vm("vm", &pinned(&fleet.hosts[1]));
    for v in ["1", "2"] {
        fleet.push(&fleet.package("tool", v, &[("tool", v.as_bytes())]), &["web"]);
        fleet.hosts[0].await_vm("vm", &[("tool", v)]);
    }
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    let would = report(&publish(&fleet, &["retire", "--keep", "1", "--dry-run"]));
    assert_eq!((&would["outcome"], &would["live"]), (&"dry_run".into(), &2.into()), "{would}");
    let did = report(&publish(&fleet, &["retire", "--keep", "1"]));
    assert_eq!((&did["outcome"], &did["live"]), (&"retired".into(), &1.into()), "{did}");
    wait_until("the hosts to know", || fleet.hosts.iter().all(|h| retired(h, "1")));
    let said = |h: &Host| h.tell(&["events"]).to_string().contains("stay where they are shown");
    assert!(fleet.hosts.iter().all(said));
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    fleet.hosts[1].restart().await_vm("vm", &[("tool", "1")]);

    let late = fleet.enlist();
    late.write_vm("vm", &pinned(late));
    late.start();
    wait_until("the newcomer to know", || retired(late, "1"));
    let why = late.tell(&["why", "vm", "tool"]).to_string();
    assert!(why.contains("its publisher retired it"), "{why}");
    assert!(late.vm_shows("vm").is_empty());

    fleet.push(&fleet.package("tool", "3", &[("tool", b"3")]), &["web"]);
    fleet.hosts[0].await_vm("vm", &[("tool", "3")]);
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    assert!(fleet.hosts[2].vm_shows("vm").is_empty());
    // Nobody shows it on the first host, whose VM keeps two generations: it is forgotten there
    // once none of them has it.
    for v in ["4", "5"] {
        fleet.push(&fleet.package("tool", v, &[("tool", v.as_bytes())]), &["web"]);
        fleet.hosts[0].await_vm("vm", &[("tool", v)]);
    }
    drop(fleet.hosts[0].tell(&["store", "gc"]));
    assert!(fleet.hosts[0].release("tool", "1").is_none());
    drop(fleet.hosts[1].tell(&["store", "gc"]));
    assert!(retired(&fleet.hosts[1], "1"), "it is shown there");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The epoch in which a version is live.
fn epoch(host: &Host, version: &str) -> Option<u64> {
    known(host, version, false).and_then(|r| r["epoch"].as_u64())
}

/// A feed begins anew: between the document and the new announcements hosts lose no VM's package,
/// also over a restart, while nothing is installed anew; then what was live is there again, on
/// newcomers too, and what was before is forgotten.
#[test]
fn a_feed_begins_anew_and_vms_keep_what_they_show() {
    let mut fleet = Fleet::new(&["web"], 2);
    let versions = ["1", "2", "3"];
    fleet.hosts[0].write_vm("vm", &VmFile::usual(&["web"], &fleet.hosts[0].target("vm")));
    fleet.hosts[1].write_vm("vm", &pinned(&fleet.hosts[1]));
    for v in versions {
        fleet.push(&fleet.package("tool", v, &[("tool", v.as_bytes())]), &["web"]);
        fleet.hosts[0].await_vm("vm", &[("tool", v)]);
    }
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    drop(report(&publish(&fleet, &["retire", "tool", "1", "2"])));
    wait_until("the retirement", || fleet.hosts.iter().all(|h| retired(h, "1")));

    // What `charter compact` does, in two steps.
    let reach = CarryOptions {
        charter: fleet.charter.clone(),
        key: None,
        passphrase: Passphrase::None,
        to: vec![home(&fleet).parse().unwrap()],
    };
    let (at, count) = runtime().block_on(push::gather(&reach, &Progress::Silent)).unwrap().unwrap();
    assert_eq!((at.at.seq, count), (4, 1));
    let change = Change {
        dir: fleet.charter.clone(),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life: Life::days(now(), 10),
    };
    let options = EpochOptions::anew(at);
    charter::new_epoch(&change, &options).unwrap();
    let (read, profile) = charter::open(&fleet.charter).unwrap();
    let sent = push::send_documents(&reach.to, &read, Some(profile.publisher));
    runtime().block_on(sent).unwrap();
    wait_until("all to begin anew", || fleet.hosts.iter().all(|h| retired(h, "3")));
    fleet.hosts[0].await_vm("vm", &[("tool", "3")]);
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    for host in &mut fleet.hosts {
        host.restart();
    }
    fleet.hosts[0].await_vm("vm", &[("tool", "3")]);
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    assert!(retired(&fleet.hosts[0], "3") && retired(&fleet.hosts[1], "1"));

    let did = report(&publish(&fleet, &["carry"]));
    assert_eq!((&did["carried"], &did["epoch"]), (&1.into(), &2.into()), "{did}");
    let again = |h: &Host| epoch(h, "3") == Some(2);
    wait_until("what was live", || fleet.hosts.iter().all(again));
    let late = fleet.enlist();
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start().await_vm("vm", &[("tool", "3")]);
    let hears = late.release("tool", "1").is_some() || retired(late, "3");
    assert!(!hears, "a newcomer never hears of what was before");
    fleet.push(&fleet.package("tool", "4", &[("tool", b"4")]), &["web"]);
    fleet.hosts[0].await_vm("vm", &[("tool", "4")]);
    fleet.hosts[2].await_vm("vm", &[("tool", "4")]);
    // The pin outlives it all.
    fleet.hosts[1].await_vm("vm", &[("tool", "1")]);
    drop(fleet.hosts[1].tell(&["store", "gc"]));
    fleet.hosts[1].restart().await_vm("vm", &[("tool", "1")]);
    let twice = publish(&fleet, &["carry"]);
    assert_eq!(twice.status.code(), Some(5), "{twice:?}");
}

/// `charter compact` in one go, with two packages of which one is for another group.
#[test]
fn charter_compact() {
    let fleet = Fleet::new(&["web", "db"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web", "db"], &host.target("vm")));
    fleet.push(&fleet.package("tool", "1", &[("tool", b"1")]), &["web"]);
    fleet.push(&fleet.package("other", "1", &[("other", b"1")]), &["db"]);
    let all = [("other", "1"), ("tool", "1")];
    host.await_vm("vm", &all);
    let would = publish(&fleet, &["charter", "compact", "--dry-run"]);
    assert!(String::from_utf8_lossy(&would.stdout).contains("would carry 2 releases"), "{would:?}");
    let did = report(&publish(&fleet, &["charter", "compact"]));
    assert_eq!((&did["carried"], &did["expired"]), (&2.into(), &0.into()), "{did}");
    wait_until("what was live", || epoch(host, "1") == Some(2));
    host.await_vm("vm", &all);
    let why = host.tell(&["why", "vm", "other"]).to_string();
    assert!(why.contains("chosen"), "{why}");
}
