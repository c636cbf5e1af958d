//! Joining again: whose certificate has run out may, and keeps all that it has; nobody else does.

use std::process::Output;

use stork_tests::fleet::{Fleet, Host, VmFile, report};
use stork_tests::forge::{age_certificate, fleet_of};
use stork_tests::wait::{wait_for, wait_until};

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn has_event(host: &Host, kind: &str) -> bool {
    let events = host.tell(&["events"]);
    events["events"].as_array().unwrap().iter().any(|e| e["kind"] == kind)
}

fn certificate(host: &Host) -> serde_json::Value {
    host.tell(&["status"])["certificate"].clone()
}

fn await_links(host: &Host, links: u64) {
    wait_until("links", || host.tell(&["status"])["links"] == links);
}

/// The host does not start, and says that its certificate has run out and which command helps.
fn does_not_start(host: &Host, help: &str) {
    let out = host.node(&["run"]);
    assert_eq!(out.status.code(), Some(78), "{}", said(&out));
    assert!(said(&out).contains("the certificate has run out"), "{}", said(&out));
    assert!(said(&out).contains("help: ") && said(&out).contains(help), "{}", said(&out));
}

fn refused(host: &Host, args: &[&str], words: &str) {
    let out = host.node(args);
    assert_eq!(out.status.code(), Some(4), "{}", said(&out));
    assert!(said(&out).contains(words) && said(&out).contains("help: "), "{}", said(&out));
}

/// A host that was off until half a year after its certificate ran out does not start, and says
/// what to do. A token
/// of another fleet or one that was used does not help, and changes nothing. With a new one it
/// joins again under its own key, with its store and its views, and catches up.
#[test]
fn an_expired_host_joins_again_and_keeps_what_it_has() {
    let mut fleet = Fleet::new(&["web"], 1);
    let other = Fleet::new(&["web"], 1);
    let first = fleet.token("host-2");
    let mut host = fleet.stranger("host-2");
    host.node_ok(&["join", &first]);
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    host.start();
    fleet.push(&fleet.package("app", "1", &[("app", b"version 1")]), &["web"]);
    host.await_vm("vm", &[("app", "1")]);
    let id = host.id();
    host.stop();
    age_certificate(&fleet.charter, &host, 230);
    fleet.push(&fleet.package("app", "2", &[("app", b"version 2")]), &["web"]);
    does_not_start(&host, "stork-node join");
    let ours = fleet_of(&fleet.charter);
    let belongs = format!("this host belongs to the fleet {}", ours.short());
    refused(&host, &["join", &other.token("host-2")], &belongs);
    refused(&host, &["join", &first], "used before");
    does_not_start(&host, "stork-node join");

    let joined = host.node_ok(&["join", &fleet.token("host-2")]);
    assert!(joined.contains(&ours.short()) && joined.contains("as `host-2`"), "{joined}");
    assert_eq!(host.id(), id);
    host.start();
    host.await_vm("vm", &[("app", "2")]);
    assert_eq!(host.tell(&["vm", "vm"])["generation"], 2, "the view goes on from the first one");
    assert_eq!(certificate(&host)["state"], "good");
    await_links(&host, 1);
    assert_eq!(fleet.hosts[0].tell(&["status"])["hosts"], 2);
    host.verify_store();
    fleet.hosts.push(host);
}

/// Whoever belongs to a fleet is told so: for a token of the same fleet without harm, and the token
/// stays good for another host; for a token or charter of another fleet as an error. While the
/// daemon runs, its folder is not touched.
#[test]
fn a_member_joins_nothing_else() {
    let mut fleet = Fleet::new(&["web"], 1);
    let other = Fleet::new(&["web"], 1);
    fleet.enlist().start();
    let id = fleet.hosts[1].id();
    let expires = certificate(&fleet.hosts[1])["expires"].clone();
    let running = fleet.hosts[1].node(&["join", &other.token("host-9")]);
    assert_eq!(running.status.code(), Some(75), "{}", said(&running));
    fleet.hosts[1].stop();

    let token = fleet.token("host-3");
    let again = fleet.hosts[1].node_ok(&["join", &token]);
    assert!(again.contains("already so"), "{again}");
    let belongs = "this host belongs to the fleet";
    refused(&fleet.hosts[1], &["join", &other.token("host-9")], belongs);
    let (bundle, key) =
        (other.charter.join("charter.bundle"), other.charter.join("keys/admission"));
    let (bundle, key) = (bundle.to_str().unwrap(), key.to_str().unwrap());
    let init = ["init", "--charter", bundle, "--admission-key", key, "--name", "host-9"];
    refused(&fleet.hosts[1], &init, belongs);
    fleet.hosts[1].start();
    assert_eq!(fleet.hosts[1].id(), id);
    let status = fleet.hosts[1].tell(&["status"]);
    assert_eq!(status["certificate"]["expires"], expires);
    assert_eq!((&status["name"], &status["admits_hosts"]), (&"host-2".into(), &false.into()));
    await_links(&fleet.hosts[1], 1);
    let stranger = fleet.stranger("host-3");
    assert!(stranger.node_ok(&["join", &token]).contains("as `host-3`"));
}

/// The first host, off for far too long, begins again with the command of the first time: the same
/// key, its fleet finds it again, and it admits others as before, with each token once.
#[test]
fn the_first_host_begins_again() {
    let mut fleet = Fleet::new(&["web"], 1);
    let used = fleet.token("host-2");
    let mut second = fleet.stranger("host-2");
    second.node_ok(&["join", &used]);
    second.start();
    await_links(&second, 1);
    let id = fleet.hosts[0].id();
    fleet.hosts[0].stop();
    age_certificate(&fleet.charter, &fleet.hosts[0], 230);
    does_not_start(&fleet.hosts[0], "stork-node init");
    let (bundle, key) =
        (fleet.charter.join("charter.bundle"), fleet.charter.join("keys/admission"));
    let (bundle, key) = (bundle.to_str().unwrap(), key.to_str().unwrap());
    let init = ["init", "--charter", bundle, "--admission-key", key, "--name", "host-1"];
    fleet.hosts[0].node_ok(&init);
    fleet.hosts[0].start();
    assert_eq!(fleet.hosts[0].id(), id);
    await_links(&second, 1);
    refused(&fleet.stranger("host-3"), &["join", &used], "used before");
    fleet.hosts.push(second);
    fleet.enlist();
}

/// A host starts with a certificate past its half, and has a new one as soon as it meets the host
/// that admits: on disk, and only once. Another one starts in its last quarter while the admitting
/// host is away: it says so, hears of releases nevertheless, and is renewed on that host's return.
#[test]
fn an_old_certificate_is_renewed_by_itself() {
    let mut fleet = Fleet::new(&["web"], 3);
    fleet.hosts[1].stop();
    age_certificate(&fleet.charter, &fleet.hosts[1], 16);
    fleet.hosts[1].start();
    wait_until("the renewal", || has_event(&fleet.hosts[1], "certificate_renewed"));
    let renewed = certificate(&fleet.hosts[1]);
    assert_eq!(renewed["state"], "good", "{renewed}");
    assert!(renewed["days_left"].as_u64().unwrap() >= 29, "{renewed}");
    fleet.hosts[1].restart();
    await_links(&fleet.hosts[1], 2);
    assert_eq!(certificate(&fleet.hosts[1])["expires"], renewed["expires"]);
    assert!(!has_event(&fleet.hosts[1], "certificate_renewed"));

    fleet.hosts[0].stop();
    let late = &mut fleet.hosts[2];
    late.stop();
    age_certificate(&fleet.charter, late, 25);
    late.write_vm("vm", &VmFile::usual(&["web"], &late.target("vm")));
    late.start();
    let text = |host: &Host| {
        let out = std::process::Command::new(stork_tests::fleet::binary("stork"))
            .arg("--socket")
            .arg(host.dir.join("sock"))
            .arg("status")
            .output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    wait_until("the warning", || has_event(late, "certificate_late"));
    assert!(text(late).contains("CERTIFICATE runs out in 4 days"), "{}", text(late));
    await_links(&fleet.hosts[2], 1);
    let package = fleet.package("app", "1", &[("app", b"version 1")]);
    drop(report(&fleet.push_command(1, &package, &["web"]).output().unwrap()));
    fleet.hosts[2].await_vm("vm", &[("app", "1")]);
    fleet.hosts[0].start();
    let state = || (certificate(&fleet.hosts[2])["state"] == "good").then_some(());
    wait_for("the renewal", state);
    assert!(!text(&fleet.hosts[2]).contains("CERTIFICATE"), "{}", text(&fleet.hosts[2]));
}
