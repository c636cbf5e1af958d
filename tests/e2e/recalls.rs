//! Recalls: what is withdrawn leaves every VM that shows it, and no host takes it any more.

use std::process::Command;

use serde_json::Value;
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::wait::wait_until;

fn recall(fleet: &Fleet, what: &[&str]) -> Command {
    let home = &fleet.hosts[0];
    let mut command = Command::new(binary("stork-publish"));
    command.arg("recall").args(what);
    command.arg("--to").arg(format!("{}@{}", home.id(), home.addr()));
    command.arg("--charter").arg(&fleet.charter).arg("--json");
    command.args(["--reason", "it does not start"]);
    command
}

/// A release that two hosts show is recalled: their VMs go back to the one before it, a host that
/// comes later never shows it, and the next release goes on from there. When everything is
/// recalled, the package leaves. Each host can say why.
#[test]
fn a_recall_reaches_vms_that_show_the_release() {
    let mut fleet = Fleet::new(&["web"], 2);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let versions = ["1", "2", "3"].map(|v| fleet.package("tool", v, &[("tool", v.as_bytes())]));
    for (package, version) in versions[..2].iter().zip(["1", "2"]) {
        fleet.push(package, &["web"]);
        fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", version)]));
    }
    let would = report(&recall(&fleet, &["tool", "2", "--dry-run"]).output().unwrap());
    assert_eq!(
        (&would["outcome"], &would["recalled"][0]["left"]),
        (&"dry_run".into(), &"1".into())
    );
    let did = report(&recall(&fleet, &["tool", "2"]).output().unwrap());
    assert_eq!((&did["outcome"], &did["seq"]), (&"recalled".into(), &3.into()), "{did}");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "1")]));
    assert!(fleet.hosts.iter().all(|h| h.release("tool", "2").is_none()));
    let said = |h: &Host| h.tell(&["events"]).to_string();
    assert!(fleet.hosts.iter().all(|h| said(h).contains("it does not start")));

    let twice = recall(&fleet, &["tool", "2"]).output().unwrap();
    assert_eq!(twice.status.code(), Some(5), "{twice:?}");
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("tool 2 is not published, or was recalled already"), "{said}");

    let late = fleet.enlist();
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start().await_vm("vm", &[("tool", "1")]);
    fleet.push(&versions[2], &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("tool", "3")]));

    let all = report(&recall(&fleet, &["tool", "1", "3"]).output().unwrap());
    assert!(all["recalled"].as_array().unwrap().iter().all(|r| r["left"] == Value::Null), "{all}");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[]));
    wait_until("the files to leave", || {
        fleet.hosts.iter().all(|h| !h.seen("vm").join("tool").exists())
    });
}
