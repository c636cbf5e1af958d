//! `stork vm`: its commands, and what they print.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks a field is null; it never panics"
)]

use clap::Subcommand;
use serde_json::{Value, json};

use super::bandwidth::moment;
use super::out::table;
use super::show::{list, text};
use crate::control::{Client, ClientError, path_segment};

/// What is done with one VM.
#[derive(Debug, Subcommand)]
pub(super) enum VmOrder {
    /// What is ready and waits for its time; with --now it is shown at once.
    #[command(after_help = "Example:\n  stork vm switch web-1 --now")]
    Switch {
        /// The VM.
        name: String,
        /// Do not wait for the window or time that the VM's file names.
        #[arg(long)]
        now: bool,
    },
    /// Processes that still use what the VM was shown before: files, folders, mounts.
    Holders {
        /// The VM.
        name: String,
    },
}

pub(super) async fn answer(
    client: &Client,
    command: &VmOrder,
) -> Result<(Value, String), ClientError> {
    Ok(match command {
        VmOrder::Switch { name, now } => {
            let path = format!("/v1/vms/{}/switch", path_segment(name));
            let value = client.post(&path, &json!({ "now": now })).await?;
            let said = switched(&value);
            (value, said)
        }
        VmOrder::Holders { name } => {
            let path = format!("/v1/vms/{}/holders", path_segment(name));
            let value = client.get(&path).await?;
            let said = holders(&value);
            (value, said)
        }
    })
}

fn when(unix_s: u64) -> String {
    format!("{} ({})", stork_publisher::out::day(unix_s), moment(unix_s))
}

fn until(waits: &Value) -> String {
    match waits["until"].as_u64() {
        Some(at) => format!("until {}", when(at)),
        None => "for a window that never comes".to_owned(),
    }
}

fn switched(v: &Value) -> String {
    let (vm, waits) = (text(&v["vm"]), &v["waits"]);
    if waits.is_null() {
        return format!("{vm}: nothing waits to be shown");
    }
    if v["ordered"] == Value::Bool(true) {
        return format!("{vm}: is being switched; `stork vm {vm}` shows how it went");
    }
    format!("{vm}: {}\n  help: `stork vm switch {vm} --now` does not wait", line(waits))
}

/// What waits, in a line.
pub(super) fn line(waits: &Value) -> String {
    let ready = match (waits["staged"] == Value::Bool(true), waits["error"].as_str()) {
        (true, _) => "ready".to_owned(),
        (false, Some(why)) => format!("not ready: {why}"),
        (false, None) => "being made ready".to_owned(),
    };
    format!("waits {}, {ready}", until(waits))
}

fn holders(v: &Value) -> String {
    let mut rows = vec![vec!["PID".into(), "PROGRAM".into(), "HOLDS".into(), "WHAT".into()]];
    for h in list(&v["holders"]["processes"]) {
        rows.push(vec![text(&h["pid"]), text(&h["program"]), text(&h["holds"]), text(&h["path"])]);
    }
    let more = v["holders"]["more"].as_u64().unwrap_or(0);
    if rows.len() == 1 {
        return format!("{}: nobody uses what it was shown before", text(&v["vm"]));
    }
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    table(&rows) + &more
}

/// What `stork vm NAME` says of the last switch, of what waits, and of the VM's own changes.
pub(super) fn lines(v: &Value) -> String {
    let mut out = String::new();
    if !v["waits"].is_null() {
        out += &format!("  later       {}\n", line(&v["waits"]));
    }
    let windows: Vec<String> = list(&v["windows"]).iter().map(text).collect();
    if !windows.is_empty() {
        out += &format!("  windows     {} (UTC)\n", windows.join("; "));
    }
    let receipt = &v["receipt"];
    if let Some(at) = receipt["at"].as_u64() {
        let (at, by) = (when(at), text(&receipt["by"]));
        out += &format!("  switched    {at}, by {by}, {} ms\n", text(&receipt["switch_ms"]));
    }
    if !receipt["check"].is_null() {
        out += &format!("  check       {}\n", text(&receipt["check"]));
    }
    let private = &v["private"];
    for s in list(&private["shadowed"]).iter().take(10) {
        out += &format!("  shadowed    /{} ({})\n", text(&s["path"]), text(&s["hides"]));
    }
    if !private["aside"].is_null() {
        let count = text(&private["shadowed_count"]);
        out += &format!("  set aside   {count} in {}\n", text(&private["aside"]));
    }
    for (key, word) in [("conffiles", "own conffile"), ("late", "left behind")] {
        for path in list(&private[key]).iter().take(10) {
            out += &format!("  {word:<11} /{}\n", text(path));
        }
    }
    out
}
