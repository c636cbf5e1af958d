//! This bench and another program in turn, each in a process of its own, and how they compare.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::Options;
use super::usage::is_alone;

/// What `--help` says below the options.
pub(super) const HELP: &str = "\
For figures of the wire that are this program's alone, run it in a network namespace of its own:
  unshare -n sh -c 'ip link set lo up; exec stork-bench news --nodes 64'

--against CMD runs CMD after each run of this bench, with the same namespace, and compares. CMD is
any gossip program that takes
  --n --size --m --rate --sat-m --window --publishers --settle --idle --kill-pct --probe --phases
as this bench takes --nodes --size --messages --rate --window-messages --window --publishers
--settle --idle --kill --probe --phases, and prints one JSON object with the same names: for each
of the phases cold, paced, multi and window `cpu_us_per_delivery`, `lat_ms` (`p50`, `p99`),
`wire_bytes_per_payload_byte`, `redundancy`; and idle, late and crash as here. To get one, write a
program that starts N nodes of a gossip library in one process, stamps each payload, and reads the
counters of /proc/self and of the loopback device around each phase.";

/// Figures that are compared: where they stand in both outputs. Less is better.
const COMPARED: &[(&str, &str)] = &[
    ("idle", "rss_kib_per_node"),
    ("idle", "bytes_per_s_per_node"),
    ("paced", "cpu_us_per_delivery"),
    ("multi", "cpu_us_per_delivery"),
    ("window", "cpu_us_per_delivery"),
    ("paced", "lat_ms/p50"),
    ("paced", "lat_ms/p99"),
    ("multi", "lat_ms/p99"),
    ("window", "lat_ms/p99"),
    ("paced", "wire_bytes_per_payload_byte"),
    ("window", "wire_bytes_per_payload_byte"),
];

/// Runs both in turn.
pub(super) async fn run(options: &Options, other: &Path) -> Result<Value> {
    let phases = options.phases.join(",");
    let figures = [
        ("--nodes", "--n", options.nodes.to_string()),
        ("--size", "--size", options.size.to_string()),
        ("--messages", "--m", options.messages.to_string()),
        ("--rate", "--rate", options.rate.to_string()),
        ("--window-messages", "--sat-m", options.window_messages.to_string()),
        ("--window", "--window", options.window.to_string()),
        ("--publishers", "--publishers", options.publishers.to_string()),
        ("--settle", "--settle", options.settle.to_string()),
        ("--idle", "--idle", options.idle.to_string()),
        ("--kill", "--kill-pct", options.kill.to_string()),
        ("--probe", "--probe", options.probe.to_string()),
        ("--phases", "--phases", phases),
    ];
    let ours = figures.iter().flat_map(|(name, _, value)| [*name, value.as_str()]);
    let mut ours: Vec<&str> = ["news"].into_iter().chain(ours).collect();
    let theirs: Vec<&str> =
        figures.iter().flat_map(|(_, name, value)| [*name, value.as_str()]).collect();
    let dir = options.dir.as_ref().map(|d| d.display().to_string());
    ours.extend(dir.iter().flat_map(|d| ["--dir", d.as_str()]));
    let this = std::env::current_exe()?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.max(1) {
        a.push(one(&this, &ours).await?);
        b.push(one(other, &theirs).await?);
    }
    let compared: Map<String, Value> = COMPARED
        .iter()
        .map(|(phase, figure)| (format!("{phase}/{figure}"), compare(&a, &b, phase, figure)))
        .collect();
    let apart = ["window", "paced"].map(|phase| {
        let without = "cpu_us_per_delivery_without_verification";
        let ours = median(&a, phase, without);
        let theirs = median(&b, phase, "cpu_us_per_delivery");
        (format!("{phase}/{without}"), ratio(ours, theirs))
    });
    Ok(json!({
        "schema": "stork.bench.news.against/v1", "rounds": options.rounds,
        "own_network": is_alone(),
        "medians": compared.into_iter().chain(apart).collect::<Map<_, _>>(),
        "ours": a, "theirs": b,
    }))
}

async fn one(program: &Path, args: &[&str]) -> Result<Value> {
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output().await;
    let output = output.with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "{}: {}", program.display(), output.status);
    let line = output.stdout.trim_ascii();
    serde_json::from_slice(line).with_context(|| format!("{}: no JSON", program.display()))
}

/// The median of a figure over runs, where they have it.
fn median(runs: &[Value], phase: &str, figure: &str) -> Option<f64> {
    let path = format!("/{phase}/{figure}");
    let mut all: Vec<f64> =
        runs.iter().filter_map(|r| r.pointer(&path).and_then(Value::as_f64)).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn compare(a: &[Value], b: &[Value], phase: &str, figure: &str) -> Value {
    ratio(median(a, phase, figure), median(b, phase, figure))
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Value {
    let ratio = ours.zip(theirs).map(|(a, b)| a / b);
    json!({ "ours": ours, "theirs": theirs, "ratio": ratio })
}
