//! What the attacks are checked with: what must not change, counters, and commands that must fail.

use std::process::Output;

use serde_json::Value;
use stork_tests::fleet::Host;
use stork_tests::wait::wait_until;

/// What an attack must not change on a host: releases, documents, and what its VMs show.
pub(crate) fn untouched(host: &Host) -> Value {
    let releases = host.tell(&["release"]);
    let known: Vec<_> = releases["releases"].as_array().unwrap().iter().collect();
    let known: Vec<_> =
        known.iter().map(|r| (r["package"].clone(), r["version"].clone(), &r["seq"])).collect();
    let vms = host.tell(&["vm"]);
    let shown: Vec<_> = vms["vms"].as_array().unwrap().iter().collect();
    let shown: Vec<_> = shown.iter().map(|v| (&v["name"], &v["shows"], &v["generation"])).collect();
    let status = host.tell(&["status"]);
    serde_json::json!({ "releases": known, "vms": shown, "documents": status["documents"] })
}

/// Waits until a counter has risen to at least this.
pub(crate) fn await_counter(host: &Host, name: &str, reason: &str, at_least: u64) {
    wait_until(&format!("{} to count {name} {reason}", host.name), || {
        host.counter(name, reason) >= at_least
    });
}

/// Was there an event of this kind whose text holds this?
pub(crate) fn has_event(host: &Host, kind: &str, text: &str) -> bool {
    let all = host.tell(&["events"]);
    let all = all["events"].as_array().unwrap();
    all.iter().any(|e| e["kind"] == kind && e["text"].as_str().unwrap().contains(text))
}

/// A command failed with this exit code, says this, and ends with a line of help.
pub(crate) fn fails(out: &Output, code: i32, says: &str) {
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{error}");
    assert!(error.contains(says), "no `{says}` in: {error}");
    let last = error.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("help: ") && last.len() > 10, "no help: {error}");
}

/// The process of a host, by the folder that is its alone.
pub(crate) fn pid_of(host: &Host) -> i32 {
    let state = host.dir.join("state");
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|b| *b == 0).collect();
        words.contains(&b"run".as_slice()) && words.contains(&state.as_os_str().as_encoded_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut all = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    all.find(is_it).unwrap()
}
