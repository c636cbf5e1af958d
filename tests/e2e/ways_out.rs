//! Ways out of what goes wrong with keys and machines, one test for each of the headings of
//! docs/OPERATIONS.md that promise one.

use std::path::Path;
use std::process::Command;

use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::forge::age_certificate;
use stork_tests::wait::wait_until;

fn publish(args: &[&str]) -> String {
    let out = Command::new(binary("stork-publish")).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "stork-publish {args:?}: {error}");
    String::from_utf8(out.stdout).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn to(host: &Host) -> String {
    format!("{}@{}", host.id(), host.addr())
}

fn certificate(host: &Host) -> serde_json::Value {
    host.tell(&["status"])["certificate"].clone()
}

fn by_newest_key(host: &Host) -> bool {
    certificate(host)["by_newest_key"] == true
}

fn await_links(host: &Host, links: u64) {
    wait_until("links", || host.tell(&["status"])["links"].as_u64().unwrap() >= links);
}

fn token_of(host: &Host, name: &str) -> String {
    let made = host.tell(&["token", "create", "--name", name]);
    made["token"].as_str().unwrap().to_owned()
}

/// A new admission key takes the place of the old one in the root document, which goes to the first
/// host; returns the file of the new one.
fn rotate_admission(fleet: &Fleet, more: &[&str]) -> String {
    let (key, charter) = (text(&fleet.folder("new").join("admission")), text(&fleet.charter));
    drop(publish(&["key", "generate", "--no-passphrase", "--out", &key]));
    let (new, old) = (format!("{key}.pub"), text(&fleet.charter.join("keys/admission.pub")));
    let mut args = vec!["charter", "rotate", "admission", "--charter", &charter];
    args.extend(["--add", &new, "--remove", &old]);
    args.extend(more);
    drop(publish(&args));
    let first = to(&fleet.hosts[0]);
    drop(publish(&["charter", "send", "--charter", &charter, "--to", &first]));
    key
}

/// A lost admission key: another one takes its place. Nobody is shut out, everybody is certified by
/// the new key as soon as a host has it, and it admits.
#[test]
fn a_lost_admission_key() {
    let mut fleet = Fleet::new(&["web"], 3);
    let key = rotate_admission(&fleet, &[]);
    for host in &fleet.hosts {
        wait_until("the root document to come", || !by_newest_key(host));
        assert_eq!(certificate(host)["state"], "good");
    }
    assert_eq!(fleet.hosts[0].tell(&["status"])["admits_hosts"], false);
    let out = fleet.hosts[0].stork(&["token", "create", "--name", "x"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(error.contains("stork-node admission add"), "{error}");
    // Between the two documents the fleet works, and starts again.
    fleet.hosts[1].restart();
    await_links(&fleet.hosts[1], 2);

    let said = fleet.hosts[0].node_ok(&["admission", "add", &key]);
    assert!(said.contains("SHA256:") && said.contains("restart"), "{said}");
    assert!(fleet.hosts[0].node_ok(&["admission", "add", &key]).contains("already so"));
    fleet.hosts[0].restart();
    assert_eq!(fleet.hosts[0].tell(&["status"])["admits_hosts"], true);
    for host in &fleet.hosts {
        wait_until("the renewal by the new key", || by_newest_key(host));
        assert_eq!(host.counter("hosts_refused", "bad_signature"), 0, "{}", host.name);
    }
    let newcomer = fleet.enlist();
    newcomer.start();
    await_links(newcomer, 1);
}

/// A stolen admission key: what it signed is void at once, also what the thief signed. Hosts join
/// again by tokens of the new one, and keep what they have.
#[test]
fn a_stolen_admission_key() {
    let mut fleet = Fleet::new(&["web"], 2);
    let key = rotate_admission(&fleet, &["--stolen"]);
    for host in &fleet.hosts {
        wait_until("the root document to come", || certificate(host)["state"] == "expired");
    }
    let ids: Vec<String> = fleet.hosts.iter().map(Host::id).collect();
    fleet.hosts.iter_mut().for_each(Host::stop);
    for host in &fleet.hosts {
        let out = host.node(&["run"]);
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{error}");
        assert!(error.contains("the certificate") && error.contains("help: "), "{error}");
    }
    let bundle = text(&fleet.charter.join("charter.bundle"));
    let init = ["init", "--charter", &bundle, "--admission-key", &key, "--name", "host-1"];
    fleet.hosts[0].node_ok(&init);
    fleet.hosts[0].start();
    let token = fleet.token("host-2");
    fleet.hosts[1].node_ok(&["join", &token]);
    fleet.hosts[1].start();
    for (host, id) in fleet.hosts.iter().zip(ids) {
        await_links(host, 1);
        assert_eq!((host.id(), by_newest_key(host)), (id, true));
    }
}

/// A second host that admits: while the first one is down it renews certificates, also of a host
/// that it has to be asked by, and lets newcomers in. Without the key it does neither.
#[test]
fn a_second_admitting_host() {
    let mut fleet = Fleet::new(&["web"], 3);
    let key = text(&fleet.charter.join("keys/admission"));
    assert!(fleet.hosts[1].node_ok(&["admission", "show"]).contains("none"));
    fleet.hosts[1].node_ok(&["admission", "add", &key]);
    fleet.hosts[1].restart();
    assert!(fleet.hosts[1].node_ok(&["admission", "show"]).starts_with("SHA256:"));
    await_links(&fleet.hosts[2], 2);
    fleet.hosts[0].stop();
    fleet.hosts[2].stop();
    age_certificate(&fleet.charter, &fleet.hosts[2], 16);
    fleet.hosts[2].start();
    let renewed = || certificate(&fleet.hosts[2])["state"] == "good";
    wait_until("the renewal by the second host", renewed);
    let newcomer = fleet.stranger("host-4");
    newcomer.node_ok(&["join", &token_of(&fleet.hosts[1], "host-4")]);

    assert!(fleet.hosts[1].node_ok(&["admission", "remove"]).contains("removed"));
    assert!(fleet.hosts[1].node_ok(&["admission", "remove"]).contains("already so"));
    fleet.hosts[1].restart();
    let out = fleet.hosts[1].stork(&["token", "create", "--name", "x"]);
    assert_eq!(out.status.code(), Some(7), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A certificate that ran out while its host was off: the host starts, since a host that admits
/// gives it a new one first. One that was denied meanwhile gets none, and does not start.
#[test]
fn a_certificate_that_ran_out() {
    let mut fleet = Fleet::new(&["web"], 3);
    wait_until("all to be linked", || {
        fleet.hosts.iter().all(|h| h.tell(&["status"])["links"].as_u64() >= Some(2))
    });
    let (key, charter) = (text(&fleet.charter.join("keys/admission")), text(&fleet.charter));
    for host in &mut fleet.hosts[1..] {
        host.stop();
        age_certificate(Path::new(&charter), host, 31);
    }
    let (id, first) = (fleet.hosts[2].id(), to(&fleet.hosts[0]));
    let deny = ["deny", "--charter", &charter, "--host", &id, "--key", &key];
    drop(publish(&[&deny[..], &["--reason", "stolen", "--to", &first]].concat()));
    fleet.hosts[1].start();
    await_links(&fleet.hosts[1], 1);
    assert_eq!(certificate(&fleet.hosts[1])["state"], "good");
    let renewed = fleet.hosts[0].tell(&["events"]).to_string();
    assert!(renewed.contains("host_renewed"), "{renewed}");
    let out = fleet.hosts[2].node(&["run"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(78), "{error}");
    assert!(fleet.hosts[0].counter("hosts_refused", "out_of_time") >= 1);
}

/// A cloned image: the copy does not start. With a key of its own, by a token, it does, with all
/// the content that it brought, and the original goes on.
#[test]
fn a_cloned_image() {
    let mut fleet = Fleet::new(&["web"], 2);
    let file = |h: &Host| h.write_vm("vm", &VmFile::usual(&["web"], &h.target("vm")));
    file(&fleet.hosts[1]);
    fleet.push(&fleet.package("app", "1", &[("app", b"version 1")]), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("app", "1")]);
    fleet.hosts[1].stop();
    let mut clone = fleet.stranger("clone");
    let copied = Command::new("cp")
        .args(["-a", &text(&fleet.hosts[1].dir.join("state")), &text(&clone.dir)])
        .status();
    assert!(copied.unwrap().success());
    let path = clone.dir.join("state/node.key");
    let key = std::fs::read_to_string(&path).unwrap();
    let (head, _) = key.split_once("machine ").unwrap();
    std::fs::write(&path, format!("{head}machine {}\n", "0".repeat(64))).unwrap();
    fleet.hosts[1].start();

    let out = clone.node(&["run"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(78), "{error}");
    assert!(error.contains("another machine") && error.contains("stork-node rekey"), "{error}");
    let bad = clone.node(&["rekey", &Fleet::new(&["web"], 1).token("clone")]);
    assert_eq!(bad.status.code(), Some(4), "{}", String::from_utf8_lossy(&bad.stderr));
    let said = clone.node_ok(&["rekey", &fleet.token("clone")]);
    assert!(said.contains("as `clone`"), "{said}");
    file(&clone);
    clone.start();
    await_links(&clone, 2);
    assert_ne!(clone.id(), fleet.hosts[1].id());
    clone.await_vm("vm", &[("app", "1")]);
    assert_eq!(clone.counter("bytes_fetched", "verified"), 0, "it was there already");
    let out = fleet.stranger("new").node(&["rekey", &fleet.token("new")]);
    assert_eq!(out.status.code(), Some(78), "{}", String::from_utf8_lossy(&out.stderr));
    fleet.hosts.push(clone);
}

/// A lost laptop: the owner, from the offline root, begins an epoch with another release key. What
/// was published stands, the new key goes on, and the laptop's pushes are refused on every host.
#[test]
fn a_lost_laptop() {
    let mut fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    fleet.push(&fleet.package("app", "1", &[("app", b"1")]), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("app", "1")]);
    // The laptop has all that its owner had there: the charter, the profile and the release key.
    let laptop = fleet.folder("laptop");
    let copied = Command::new("cp")
        .args(["-a", &format!("{}/.", text(&fleet.charter)), &text(&laptop)])
        .status();
    assert!(copied.unwrap().success());

    let (charter, key) = (text(&fleet.charter), text(&fleet.folder("new").join("release")));
    drop(publish(&["key", "generate", "--no-passphrase", "--out", &key]));
    let good = fleet.hosts[1].release("app", "1").unwrap();
    let (seq, hash) = (good["seq"].to_string(), good["entry"].as_str().unwrap().to_owned());
    let (old, new) = (text(&fleet.charter.join("keys/release.pub")), format!("{key}.pub"));
    let home = to(&fleet.hosts[0]);
    let revoke = ["charter", "revoke", &old, "--charter", &charter, "--after", &seq];
    let more = ["--hash", &hash, "--release-key", &new, "--to", &home];
    drop(publish(&[&revoke[..], &more[..]].concat()));
    let next = fleet.package("app", "2", &[("app", b"2")]);
    let mut push = fleet.push_command(0, &next, &["web"]);
    drop(report(&push.args(["--key", &key]).output().unwrap()));
    fleet.hosts[1].await_vm("vm", &[("app", "2")]);
    for i in 0..2 {
        let bad = fleet.package("app", "3", &[("app", b"3")]);
        let out = fleet.push_command_of(&laptop, i, &bad, &["web"]).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{error}");
    }
    assert_eq!(fleet.hosts[1].vm_shows("vm")["app"], "2");
    fleet.hosts.iter_mut().for_each(Host::stop);
}

fn has_event(host: &Host, kind: &str) -> bool {
    let events = host.tell(&["events"]);
    events["events"].as_array().unwrap().iter().any(|e| e["kind"] == kind)
}

/// A host restored from a backup: its neighbours tell it that it is older than itself. It takes no
/// entries of publishers and switches no VM while only one of its two neighbours has been heard;
/// with both it has caught up and goes on. A power cut is taken for none of that.
#[test]
fn a_restored_host() {
    let mut fleet = Fleet::new(&["web"], 3);
    let vm = VmFile::usual(&["web"], &fleet.hosts[2].target("vm"));
    fleet.hosts[2].write_vm("vm", &vm);
    let push = |fleet: &Fleet, to: usize, version: &str| {
        let package = fleet.package("app", version, &[("app", version.as_bytes())]);
        fleet.push_command(to, &package, &["web"]).output().unwrap()
    };
    drop(report(&push(&fleet, 0, "1")));
    fleet.hosts[2].await_vm("vm", &[("app", "1")]);
    await_links(&fleet.hosts[2], 2);
    fleet.hosts[2].stop();
    // It joined last, so that its state knows of both others from the start.
    let (state, backup) = (fleet.hosts[2].dir.join("state"), fleet.folder("backup").join("state"));
    let copy = |from: &Path, to: &Path| {
        let done = Command::new("cp").args(["-a", &text(from), &text(to)]).status();
        assert!(done.unwrap().success());
    };
    copy(&state, &backup);
    for version in ["2", "3"] {
        fleet.hosts[2].start();
        await_links(&fleet.hosts[2], 2);
        // To another host, which keeps the content.
        drop(report(&push(&fleet, 0, version)));
        fleet.hosts[2].await_vm("vm", &[("app", version)]);
        assert_eq!(fleet.hosts[2].tell(&["status"])["restored"], serde_json::Value::Null);
        assert!(!has_event(&fleet.hosts[2], "state_restored"));
        fleet.hosts[2].kill9();
    }

    std::fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);
    fleet.hosts[1].stop();
    // The first host takes it for dead by now, and remembers it all the same.
    wait_until("it to be missed", || fleet.hosts[0].tell(&["status"])["hosts"] == 1);
    fleet.hosts[2].start();
    wait_until("it to be told", || has_event(&fleet.hosts[2], "state_restored"));
    wait_until("the first neighbour", || {
        fleet.hosts[2].tell(&["status"])["restored"]["equal"] == 1
    });
    assert_eq!(fleet.hosts[2].tell(&["status"])["restored"]["needed"], 2);
    assert!(fleet.hosts[2].release("app", "3").is_some(), "it has caught up with one");
    assert_eq!(fleet.hosts[2].vm_shows("vm")["app"], "1", "as in the backup");
    let out = push(&fleet, 2, "4");
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(75), "{error}");
    assert!(error.contains("restored from a backup"), "{error}");
    // That lasts over a restart.
    fleet.hosts[2].restart();
    assert!(!fleet.hosts[2].tell(&["status"])["restored"].is_null());

    fleet.hosts[1].start();
    wait_until("it to catch up", || has_event(&fleet.hosts[2], "state_caught_up"));
    fleet.hosts[2].await_vm("vm", &[("app", "3")]);
    drop(report(&push(&fleet, 2, "4")));
    fleet.hosts[2].await_vm("vm", &[("app", "4")]);
    assert_eq!(fleet.hosts[2].tell(&["status"])["restored"], serde_json::Value::Null);
}
