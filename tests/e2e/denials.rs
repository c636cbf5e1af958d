//! Denials: what a security team denies leaves the VMs of its group until its threshold lifts it,
//! and a host that is denied is shut out until it is admitted again.

use std::process::Command;

use serde_json::Value;
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::wait::wait_until;

fn publish(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(binary("stork-publish"));
    command.args(args).arg("--charter").arg(&fleet.charter).arg("--json");
    command
}

fn to(host: &Host) -> String {
    format!("{}@{}", host.id(), host.addr())
}

fn said(host: &Host, kind: &str, text: &str) -> bool {
    let events = host.tell(&["events"]);
    let events = events["events"].as_array().unwrap();
    events.iter().any(|e| e["kind"] == kind && e["text"].as_str().unwrap().contains(text))
}

/// The newest release is denied: one VM goes back to the one before, one keeps what it shows as its
/// file says, a VM of another group is not asked; a late host does not install it. The group's next
/// document lifts the denial, and what was denied comes back.
#[test]
fn t029_t030_a_denial_reaches_vms_until_it_is_lifted() {
    let mut fleet = Fleet::new(&["web", "db"], 2);
    let keys = fleet.folder("team");
    let veto = keys.join("veto").to_str().unwrap().to_owned();
    let public = format!("{veto}.pub");
    let made = ["key", "generate", "--no-passphrase", "--out", &veto];
    assert!(Command::new(binary("stork-publish")).args(made).output().unwrap().status.success());
    drop(report(&publish(&fleet, &["charter", "veto", "web", "--add", &public]).output().unwrap()));

    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let keeps = VmFile::usual(&["web"], &host.target("keeps")).vm("on_deny = \"keep\"");
    host.write_vm("keeps", &keeps);
    host.write_vm("other", &VmFile::usual(&["db"], &host.target("other")));
    for v in ["1", "2"] {
        let package = fleet.package("app", v, &[("app", v.as_bytes())]);
        fleet.push(&package, &["web", "db"]);
        for vm in ["vm", "keeps", "other"] {
            host.await_vm(vm, &[("app", v)]);
        }
    }
    let tree = host.release("app", "2").unwrap()["tree"].as_str().unwrap().to_owned();
    let home = to(&fleet.hosts[0]);
    let deny = ["deny", "--group", "web", "--tree", &tree, "--key", &veto, "--to", &home];
    let mut deny = publish(&fleet, &deny);
    let did = report(&deny.args(["--reason", "sends data away"]).output().unwrap());
    host.await_vm("vm", &[("app", "1")]);
    host.await_vm("keeps", &[("app", "2")]);
    host.await_vm("other", &[("app", "2")]);
    assert!(said(host, "release_denied", "vm shows app 2; it goes"));
    assert!(said(host, "release_denied", "keeps shows app 2; it stays"));
    let why = host.tell(&["why", "vm", "app"]).to_string();
    let text = "the security team of group `web` denies it: sends data away";
    assert!(why.contains(text), "{why}");
    let mut people = Command::new(binary("stork"));
    people.arg("--socket").arg(host.dir.join("sock")).arg("status");
    let shown = String::from_utf8(people.output().unwrap().stdout).unwrap();
    assert!(shown.contains("(app 2) for group web: sends data away"), "{shown}");

    let late = fleet.enlist();
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start().await_vm("vm", &[("app", "1")]);
    fleet.hosts[1].restart().await_vm("vm", &[("app", "1")]);

    let log = did["log"].as_str().unwrap();
    let lifted = publish(&fleet, &["lift", log, "--group", "web"]).output().unwrap();
    assert_eq!(report(&lifted)["state"], "made");
    drop(report(&publish(&fleet, &["charter", "send", "--to", &home]).output().unwrap()));
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("app", "2")]);
    }
    let status = fleet.hosts[1].tell(&["status"]);
    assert_eq!(status["narrowed"]["denials"][0]["in_force"], Value::Bool(false), "{status}");
}

/// A host is denied: the others end their connections with it and refuse its hello; with a new
/// token it is admitted again.
#[test]
fn t076_a_denied_host_is_shut_out() {
    let mut fleet = Fleet::new(&["web"], 3);
    let links = |h: &Host| h.tell(&["status"])["links"].as_u64().unwrap();
    wait_until("all to be linked", || fleet.hosts.iter().all(|h| links(h) >= 1));
    let (id, home) = (fleet.hosts[2].id(), to(&fleet.hosts[0]));
    let key = fleet.charter.join("keys/admission");
    let key = key.to_str().unwrap();
    let deny = ["deny", "--host", &id, "--key", key, "--reason", "stolen", "--to", &home];
    drop(report(&publish(&fleet, &deny).output().unwrap()));
    for host in &fleet.hosts[..2] {
        wait_until("the denial to come", || said(host, "host_denied", "stolen"));
    }
    wait_until("the host to be alone", || links(&fleet.hosts[2]) == 0);
    for host in &fleet.hosts[..2] {
        wait_until("it to be refused", || host.counter("hosts_refused", "denied") >= 1);
    }
    // It hears of it from those who do not talk to it any more.
    let told = "this host is taken for denied by";
    wait_until("it to be told", || said(&fleet.hosts[2], "host_denied", told));
    let token = fleet.token("host-3");
    let host = &mut fleet.hosts[2];
    host.stop();
    let out = host.node(&["run"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(error.contains("the host is denied: stolen"), "{error}");
    assert!(error.contains("help: ") && error.contains("stork-node join"), "{error}");
    host.node_ok(&["join", &token]);
    host.start();
    wait_until("the host to be linked again", || links(host) >= 1);
}
