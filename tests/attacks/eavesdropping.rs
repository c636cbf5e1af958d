//! A22, eavesdropping: hosts that pass on what is not for them, and ask for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stork_tests::fleet::{Fleet, Host, VmFile, binary, noise, report};
use stork_tests::hostile::{Content, Peer, Talk};
use stork_tests::wait::wait_until;
use stork_wire::codec::List;
use stork_wire::frame::{Frame, TransferFrame};
use stork_wire::ids::GroupKeyId;

/// The one word that nobody without the grant may see.
const NAME: &str = "confidential";

fn publish(fleet: &Fleet, args: &[&str]) -> Value {
    let mut command = Command::new(binary("stork-publish"));
    command.args(args).arg("--charter").arg(&fleet.charter).arg("--json");
    report(&command.output().unwrap())
}

/// The newest key of the group, as `charter private` has left it.
fn key_files(fleet: &Fleet) -> Vec<PathBuf> {
    let files = std::fs::read_dir(fleet.charter.join("group-keys")).unwrap();
    files.map(|f| f.unwrap().path()).collect()
}

fn group_key(host: &Host) -> Value {
    host.tell(&["status"])["private_groups"][0].clone()
}

/// Makes the group private, or gives it another key, and brings the key to the first host.
fn make_private(fleet: &Fleet, option: &[&str]) {
    let before = if option.is_empty() { Vec::new() } else { key_files(fleet) };
    publish(fleet, &[&["charter", "private", "sec"][..], option].concat());
    let mut files = key_files(fleet);
    files.retain(|f| !before.contains(f));
    let key = files.first().unwrap().to_str().unwrap();
    let host = &fleet.hosts[0];
    let early = host.stork(&["group-key", "add", key]);
    let error = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(
        !early.status.success() && error.contains("no group's document names this key"),
        "{error}"
    );
    assert!(error.contains("help: ") && error.contains("charter send"), "{error}");
    let to = format!("{}@{}", host.id(), host.addr());
    publish(fleet, &["charter", "send", "--to", &to]);
    wait_until("the document", || host.stork(&["group-key", "add", key]).status.success());
    wait_until("the key", || group_key(host)["have"] == true);
    let again = host.stork(&["group-key", "add", key]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("\"already\":true"));
}

/// A token that grants these groups.
fn token(fleet: &Fleet, options: &[&str]) -> String {
    let made = fleet.hosts[0].tell(&[&["token", "create"][..], options].concat());
    made["token"].as_str().unwrap().to_owned()
}

fn enlist(fleet: &mut Fleet, options: &[&str]) {
    let host = fleet.stranger(&format!("host-{}", fleet.hosts.len() + 1));
    host.node_ok(&["join", &token(fleet, options)]);
    fleet.hosts.push(host);
}

/// Asks for the content and the key; what comes before the answer to the last question is all.
fn asks(talk: &Talk, content: &Content, key: GroupKeyId) -> usize {
    let id = content.reference.id;
    talk.send(Frame::Transfer(TransferFrame::Interest(id)));
    talk.send(Frame::Transfer(TransferFrame::GetManifest(id)));
    talk.send(Frame::Transfer(content.open()));
    talk.send(Frame::KeysAsk(List::truncated([key])));
    talk.wait("the answer about keys", |frame| match frame {
        Frame::Keys(keys) => Some(keys.len()),
        Frame::Transfer(answer) => panic!("an answer: {answer:?}"),
        _ => None,
    })
}

/// Does a byte of the name stand in any file below this folder?
fn names_it(dir: &Path) -> Option<PathBuf> {
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        let kind = file.file_type().unwrap();
        if kind.is_dir() {
            if let Some(found) = names_it(&file.path()) {
                return Some(found);
            }
        } else if kind.is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            if bytes.windows(NAME.len()).any(|w| w == NAME.as_bytes()) {
                return Some(file.path());
            }
        }
    }
    None
}

/// A private group: a host without the grant passes announcements on as ciphertext, and gets
/// neither key nor content, whatever it asks; one with the grant that comes later is given the key
/// by another host, reads what was there before, and follows a new key and a recall.
#[test]
fn t112_a_host_without_the_grant_has_ciphertext_only() {
    let mut fleet = Fleet::new(&["web", "sec"], 1);
    make_private(&fleet, &[]);
    enlist(&mut fleet, &["--no-group", "--label", "edge"]);
    let other = fleet.hosts.last_mut().unwrap();
    other.write_vm("vm", &VmFile::usual(&["sec"], &other.target("vm")));
    other.start();
    let package = fleet.package(NAME, "1", &[("plan", &noise("plan", 300_000))]);
    let mixed = fleet.push_command(0, &package, &["sec", "web"]).output().unwrap();
    let error = String::from_utf8_lossy(&mixed.stderr).into_owned();
    assert!(error.contains("`sec` is private") && error.contains("help: "), "{error}");
    fleet.push(&package, &["sec"]);
    let other = &fleet.hosts[1];
    wait_until("it to be passed on", || other.counter("sealed", "unread") == 1);
    assert_eq!(group_key(other)["granted"], false);
    assert!(other.release(NAME, "1").is_none());
    assert_eq!(names_it(&other.dir.join("state")), None);
    assert!(names_it(&fleet.hosts[0].dir.join("state")).is_some(), "the test finds the name");

    enlist(&mut fleet, &["--group", "sec"]);
    let late = fleet.hosts.last_mut().unwrap();
    late.write_vm("vm", &VmFile::usual(&["sec"], &late.target("vm")));
    late.start().await_vm("vm", &[(NAME, "1")]);

    let spy = Peer::enlist_by(&token(&fleet, &["--no-group"]), &fleet.charter, "spy");
    let content = Content::of_folder(&package.file, NAME, "1");
    let key: GroupKeyId = group_key(&fleet.hosts[0])["key"].as_str().unwrap().parse().unwrap();
    for host in [0, 2].map(|n| &fleet.hosts[n]) {
        assert_eq!(asks(&spy.dial(host), &content, key), 0);
        assert!(host.counter("content_refused", "no_grant") >= 3);
        assert!(host.counter("group_keys", "refused") >= 1);
    }

    make_private(&fleet, &["--new-key"]);
    let package = fleet.package(NAME, "2", &[("plan", b"another")]);
    fleet.push(&package, &["sec"]);
    fleet.hosts[2].await_vm("vm", &[(NAME, "2")]);
    fleet.hosts[2].restart().await_vm("vm", &[(NAME, "2")]);
    let home = format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr());
    publish(&fleet, &["recall", NAME, "2", "--reason", "wrong plan", "--to", &home]);
    fleet.hosts[2].await_vm("vm", &[(NAME, "1")]);
    let other = &fleet.hosts[1];
    wait_until("the recall", || other.counter("items_committed", "withdrawal") == 1);
    assert_eq!(names_it(&other.dir.join("state")), None);
    assert_eq!(group_key(other)["have"], false);
}

/// A host gains a private group without another join, reads what was there before, and loses it
/// again: it gets no content of what comes then, no new key, and nobody has to visit it. What is
/// said while it is off it learns when it is back.
#[test]
fn t112_a_host_gains_and_loses_a_group_without_another_join() {
    let mut fleet = Fleet::new(&["web", "sec"], 1);
    make_private(&fleet, &[]);
    enlist(&mut fleet, &["--no-group", "--label", "edge", "--name", "host-2"]);
    let other = fleet.hosts.last_mut().unwrap();
    other.write_vm("vm", &VmFile::usual(&["sec"], &other.target("vm")));
    let name = other.name.clone();
    other.start();
    let push = |fleet: &Fleet, v: &str| {
        let content = noise(v, 200_000);
        fleet.push(
            &fleet.package(NAME, v, &[("version", v.as_bytes()), ("plan", &content)]),
            &["sec"],
        )
    };
    push(&fleet, "1");
    let (home, other) = (&fleet.hosts[0], &fleet.hosts[1]);
    wait_until("it to be passed on", || other.counter("sealed", "unread") == 1);
    let grant = |options: &[&str]| home.tell(&[&["host", "grant", &name][..], options].concat());

    let said = grant(&["--group", "sec"]);
    assert_eq!((&said["groups"][0], &said["labels"][0]), (&json!("sec"), &json!("edge")));
    other.await_vm("vm", &[(NAME, "1")]);
    for host in &fleet.hosts {
        let all = host.tell(&["host", "list"]);
        let of = all["hosts"].as_array().unwrap().iter().find(|h| h["name"] == json!(name));
        let of = of.unwrap();
        assert_eq!((&of["groups"], &of["granted"]), (&json!(["sec"]), &json!(true)), "{all}");
        assert_eq!(host.tell(&["trust"])["host_grants"][0]["groups"], json!(["sec"]));
    }
    let wrong = other.stork(&["host", "grant", &name, "--all-groups"]);
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(error.contains("does not admit others") && error.contains("help: "), "{error}");

    // It has the key still, and is given nothing that it reads about.
    assert_eq!(grant(&["--no-group", "sec"])["groups"], json!([]));
    wait_until("the word", || group_key(other)["granted"] == false);
    push(&fleet, "2");
    wait_until("it to ask", || home.counter("content_refused", "no_grant") >= 1);
    make_private(&fleet, &["--new-key"]);
    push(&fleet, "3");
    wait_until("a new key not to come", || other.counter("sealed", "unread") == 2);
    assert_eq!(other.vm_shows("vm").get(NAME).map(String::as_str), Some("1"));

    fleet.hosts[1].stop();
    let said = fleet.hosts[0].tell(&["host", "grant", &name, "--only", "--group", "sec"]);
    assert_eq!((&said["connected"], &said["labels"]), (&json!(false), &json!([])));
    fleet.hosts[1].start().await_vm("vm", &[(NAME, "3")]);
}
