//! The end of the demonstration: one object for programs, some lines for people.

use serde_json::{Value, json};

use super::story::Story;
use crate::cli::out::bytes;

/// The last object where the fleet did not even start.
pub(super) fn nothing(why: &str) -> Value {
    json!({ "schema": "stork.demo/v1", "ok": false, "error": why })
}

/// The last object.
pub(super) fn object(story: &Story, error: Option<&str>) -> Value {
    let f = &story.figures;
    json!({
        "schema": "stork.demo/v1",
        "ok": error.is_none() && story.faults.is_empty(),
        "hosts": story.fleet.hosts.len(),
        "vms": story.vms(),
        "vms_right": f.views_right,
        "publish_to_last_vm_ms": f.publish_to_last_vm_ms,
        "origin_bytes": f.origin_bytes,
        "content_bytes": f.content_bytes,
        "delta_bytes": f.delta_bytes,
        "second_vm_disk_bytes": f.second_vm_disk_bytes,
        "refused": f.forged_refused + f.flipped_refused,
        "refused_announcements": f.forged_refused,
        "refused_blocks": f.flipped_refused,
        "catch_up_ms": f.catch_up_ms,
        "folder": story.root,
        "logs": story.logs(),
        "faults": story.faults,
        "error": error,
    })
}

/// For people.
pub(super) fn text(story: &Story) -> String {
    let f = &story.figures;
    let (hosts, vms) = (story.fleet.hosts.len(), story.vms());
    let n = |v: Option<u64>| v.unwrap_or(0);
    let content = n(f.content_bytes);
    let naive = content.saturating_mul(u64::try_from(vms).unwrap_or(0));
    let hundredths = n(f.origin_bytes).saturating_mul(100).checked_div(content).unwrap_or(0);
    let first = story.package.versions.first().map_or("", |v| v.text.as_str());
    let second = story.package.versions.get(1).map_or("", |v| v.text.as_str());
    let ms = n(f.publish_to_last_vm_ms);
    let (forged, flipped) = (f.forged_refused, f.flipped_refused);
    let lines = [
        format!("  {} of {vms} VMs on {hosts} hosts end right", f.views_right),
        format!("  {first}: in every VM {ms} ms after its announcement"),
        format!(
            "  {first}: the publisher's host sent {} = {}.{:02} × the package; {vms} VMs each for \
             itself: {}",
            bytes(n(f.origin_bytes)),
            hundredths / 100,
            hundredths % 100,
            bytes(naive)
        ),
        format!("  {second}: {} a host instead of {}", bytes(n(f.delta_bytes)), bytes(content)),
        format!("  a second VM of a host: {} of disk", bytes(n(f.second_vm_disk_bytes))),
        format!("  refused: {forged} forged announcements, {flipped} blocks with a flipped bit"),
        format!("  a host that was dead for a version caught up in {} ms", n(f.catch_up_ms)),
    ];
    format!("{}\n\n{}", lines.join("\n"), next_steps(story))
}

fn next_steps(story: &Story) -> String {
    let running: Vec<String> = story
        .fleet
        .hosts
        .iter()
        .filter_map(|h| h.process.as_ref().and_then(super::process::Process::id))
        .map(|id| id.to_string())
        .collect();
    let Some(host) = story.fleet.hosts.get(1).filter(|_| story.fleet.binary.keep) else {
        return "next: `stork demo --keep` leaves it running; `stork-publish charter init --help` \
                founds a fleet of your own"
            .to_owned();
    };
    let (socket, root) = (host.socket.display(), story.root.display());
    let vm = host.vms.first().map_or("web-2", |v| v.name.as_str());
    format!(
        "it goes on running:\n  stork --socket {socket} status\n  \
         stork --socket {socket} vm {vm}\n  stork --socket {socket} why {vm} {}\n\
         stop it: kill {}; rm -r {root}",
        story.package.name,
        running.join(" ")
    )
}
