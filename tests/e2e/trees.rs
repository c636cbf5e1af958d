//! `stork tree` and `stork release --watch`: who feeds whom, told by the hosts themselves.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use stork_tests::fleet::{Fleet, Host, Package, VmFile, binary, noise};
use stork_tests::wait::wait_until;

const LEN: usize = 4 * 1024 * 1024;

fn want_all(host: &Host) {
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    assert_eq!(host.tell(&["reload"])["vms"], 1);
}

fn big(fleet: &Fleet) -> Package {
    fleet.package("big", "1", &[("big.bin", &noise("trees", LEN))])
}

/// `stork` for people.
pub(crate) fn plain(host: &Host, args: &[&str]) -> Command {
    let mut command = Command::new(binary("stork"));
    command.arg("--socket").arg(host.dir.join("sock")).args(args);
    command
}

fn fails(out: &Output, code: i32, says: &[&str]) {
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{error}");
    for word in says {
        assert!(error.contains(word), "{error} does not say {word}");
    }
}

/// The one content of a release in an answer.
fn content(tree: &Value) -> &Value {
    assert_eq!(tree["releases"].as_array().unwrap().len(), 1, "{tree}");
    &tree["releases"][0]["contents"][0]
}

fn sum(list: &Value) -> u64 {
    list.as_array().unwrap().iter().map(|p| p["bytes"].as_u64().unwrap()).sum()
}

/// Of three hosts two want a content: each names those it got it from, and the bytes add up to the
/// content. The one that took the push says so, and how much it gave.
#[test]
fn a_tree_names_the_feeders() {
    let fleet = Fleet::new(&["web"], 3);
    for host in &fleet.hosts[1..] {
        want_all(host);
    }
    let package = big(&fleet);
    fleet.push(&package, &["web"]);
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("big", "1")]);
    }
    for (me, other) in [("host-2", "host-3"), ("host-3", "host-2")] {
        let host = fleet.hosts.iter().find(|h| h.name == me).unwrap();
        let tree = host.tell(&["tree", "big"]);
        assert_eq!((&tree["schema"], &tree["name"]), (&"stork.tree/v1".into(), &me.into()));
        let c = content(&tree);
        let size = c["bytes"].as_u64().unwrap();
        assert!(size > LEN as u64 / 2, "{c}");
        assert_eq!((c["have_bytes"].as_u64(), sum(&c["fed_by"])), (Some(size), size), "{c}");
        for from in c["fed_by"].as_array().unwrap() {
            assert!(from["host"] == "host-1" || from["host"] == other, "{from}");
            assert_eq!((&from["kind"], &from["site"]), (&"host".into(), &"default".into()));
            assert_eq!(from["origin"], from["host"] == "host-1", "{from}");
        }
        let release = host.release("big", "1").unwrap();
        assert_eq!(c["received"], release["swarms"][0]["received"], "{c}");
        let text = plain(host, &["tree", "big=1"]).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(
            text.contains(" by acme: whole after ") && text.contains("; shown by vm\n"),
            "{text}"
        );
        assert!(text.contains(&format!("{me} at default (this host)")), "{text}");
    }
    let first = &fleet.hosts[0];
    let tree = first.tell(&["tree", "big"]);
    let c = content(&tree);
    assert_eq!((&c["role"], &c["fed_by"][0]["kind"]), (&"origin".into(), &"publisher".into()));
    assert_eq!(
        (sum(&c["fed_by"]), sum(&c["feeds"])),
        (c["bytes"].as_u64().unwrap(), c["sent"].as_u64().unwrap())
    );
    let fed = c["feeds"].as_array().unwrap();
    assert!(fed.iter().all(|p| p["host"] == "host-2" || p["host"] == "host-3") && !fed.is_empty());
    assert_eq!(first.counter("bytes_by_site", "served_own"), sum(&c["feeds"]));
    assert_eq!(first.counter("bytes_by_site", "served_other"), 0);
    assert!(first.counter("grants", "given") > 0);
    let hash = tree["releases"][0]["manifest"].as_str().unwrap();
    assert_eq!(first.tell(&["tree", &hash[..12]])["releases"][0]["manifest"], hash);
    watching_what_is_there(&fleet);
}

/// What is whole and shown ends a watch at once: on a host of a VM, and on the one that has no VM
/// and took the push.
fn watching_what_is_there(fleet: &Fleet) {
    for host in &fleet.hosts {
        let out = host.stork(&["release", "big", "--watch"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let out = plain(host, &["tree", "big", "--watch"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.lines().count() == 1, "{text}");
    }
}

/// A watch that begins before the host wants a release follows it until a VM shows it, with an
/// object for each change.
#[test]
fn a_watch_follows_a_fetch() {
    let fleet = Fleet::new(&["web"], 2);
    let package = big(&fleet);
    fleet.push(&package, &["web"]);
    let host = &fleet.hosts[1];
    wait_until("the release to be known", || host.release("big", "1").is_some());
    let mut watch = plain(host, &["release", "big", "--watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next()?.unwrap();
        Some(serde_json::from_str::<Value>(&line).unwrap()["releases"][0].take())
    };
    let first = next().unwrap();
    assert_eq!((&first["state"], &first["wanted"]), (&"known".into(), &false.into()));
    want_all(host);
    let mut last = first;
    while let Some(release) = next() {
        assert_ne!(release, last, "an object without news");
        last = release;
    }
    assert!(watch.wait().unwrap().success());
    assert_eq!(last["state"], "whole");
    assert_eq!(last["vms"], serde_json::json!([{ "name": "vm", "shows": true, "error": null }]));
    assert_eq!(sum(&last["contents"][0]["fed_by"]), last["full_bytes"].as_u64().unwrap());
}

/// Each wrong use has its exit code and says what to do.
#[test]
fn wrong_uses() {
    let fleet = Fleet::new(&["web"], 2);
    fleet.push(&big(&fleet), &["web"]);
    let host = &fleet.hosts[1];
    wait_until("the release to be known", || host.release("big", "1").is_some());
    for args in [
        &["tree", "huge"][..],
        &["tree", "big=2"],
        &["tree", "../status"],
        &["tree", "00000000"],
        &["release", "huge", "--watch"],
        &["release", "big=2"],
    ] {
        fails(&plain(host, args).output().unwrap(), 5, &["no release `", "help: `stork release`"]);
    }
    for args in [&["tree"][..], &["release", "--watch"], &["tree", "big", "--wait"]] {
        fails(&plain(host, args).output().unwrap(), 2, &["Usage: stork"]);
    }
    let unwanted = plain(host, &["release", "big", "--watch"]).output().unwrap();
    fails(&unwanted, 7, &["no VM of this host wants big 1 (all)", "help: `stork why"]);
    let mut watch = plain(host, &["release", "big", "--watch"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "big 1 (all): known\n");
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130), "interrupted");
    let target = host.target("vm");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("mine"), b"not ours").unwrap();
    want_all(host);
    let out = plain(host, &["release", "big", "--watch"]).output().unwrap();
    fails(&out, 1, &["vm does not show big 1 (all)", "stork did not put there", "help: "]);
    let nobody = fleet.stranger("nobody");
    for args in [&["tree", "big"][..], &["tree", "big", "--watch"], &["release", "big", "--watch"]]
    {
        let out = plain(&nobody, args).output().unwrap();
        fails(&out, 75, &["no stork-node answers", "help: start it with `stork-node run`"]);
    }
}

/// Between sites: what came along stripes is told apart, and the counters of both sides of the way
/// between the sites say what the trees say.
#[test]
fn bytes_between_sites() {
    let mut fleet = Fleet::new(&["web"], 2);
    for _ in 0..2 {
        fleet.enlist_at("far").start();
    }
    for host in &fleet.hosts[1..] {
        want_all(host);
    }
    wait_until("all hosts to know each other", || {
        fleet.hosts.iter().all(|h| h.tell(&["status"])["hosts"] == 4)
    });
    let package = big(&fleet);
    fleet.push(&package, &["web"]);
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("big", "1")]);
    }
    let (mut crossed, mut striped) = (0, 0);
    for host in &fleet.hosts[2..] {
        let tree = host.tell(&["tree", "big"]);
        let c = content(&tree);
        let far = c["fed_by"].as_array().unwrap().iter().filter(|p| p["site"] == "default");
        let number = |p: &Value, key: &str| p[key].as_u64().unwrap();
        let of_host: u64 = far.clone().map(|p| number(p, "bytes") + number(p, "twice")).sum();
        assert_eq!(host.counter("bytes_by_site", "fetched_other"), of_host, "{c}");
        striped += far.map(|p| number(p, "along_stripes")).sum::<u64>();
        crossed += of_host;
        assert_eq!(sum(&c["fed_by"]), number(c, "bytes"), "{c}");
    }
    assert!(crossed >= LEN as u64 && striped > 0, "{crossed} bytes crossed, {striped} by stripes");
    let total = |hosts: &[Host], name: &str, reason: &str| {
        hosts.iter().map(|h| h.counter(name, reason)).sum::<u64>()
    };
    assert_eq!(total(&fleet.hosts[2..], "bytes_stripes", "received"), striped);
    assert!(total(&fleet.hosts[2..], "stripes", "subscribed") > 0);
    assert!(total(&fleet.hosts[..2], "stripe_pieces", "sent") > 0);
    wait_until("what was sent to be counted", || {
        // A piece that came by another way as well may have been stopped on its last bytes.
        total(&fleet.hosts[..2], "bytes_by_site", "served_other") >= crossed * 9 / 10
    });
}
