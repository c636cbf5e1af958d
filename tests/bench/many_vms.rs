//! A host with very many VMs: how long its daemon takes to show them all something, to switch all
//! of them, and to start again; its memory, and what it uses while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stork_tests::fleet::{Fleet, Host, VmFile, noise};

/// Packages that every VM wants.
const PACKAGES: [&str; 3] = ["one", "two", "three"];
/// Files of each package.
const FILES: usize = 50;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// When the bench gives up.
const PATIENCE: Duration = Duration::from_mins(20);

fn push(fleet: &Fleet, version: &str) {
    for name in PACKAGES {
        let files: Vec<(String, Vec<u8>)> = (0..FILES)
            .map(|i| (format!("{name}/{i}"), noise(&format!("{name} {version} {i}"), 20_000)))
            .collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (p.as_str(), &**b)).collect();
        fleet.push(&fleet.package(name, version, &files), &["web"]);
    }
}

/// Waits until every VM shows a version of all packages; milliseconds since `from`.
fn await_all(host: &Host, vms: usize, version: &str, from: Instant) -> Result<u128> {
    let want = PACKAGES.len();
    while from.elapsed() < PATIENCE {
        let all = host.ask(&["vm"]).unwrap_or_default();
        let shows = |vm: &&Value| {
            let shown = vm["shows"].as_array().map(Vec::as_slice).unwrap_or_default();
            shown.iter().filter(|s| s["version"] == version).count() == want
        };
        let done = all["vms"].as_array().map_or(0, |all| all.iter().filter(shows).count());
        if done == vms {
            return Ok(from.elapsed().as_millis());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("not all VMs show version {version}")
}

/// A figure of `/proc/PID/status`, in KiB.
fn status_kib(host: &Host, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).context("no such line")?;
    Ok(line.split_whitespace().next().context("no figure")?.parse()?)
}

/// Processor time so far, in ms; the system counts in hundredths of a second.
fn cpu_ms(host: &Host) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", host.pid()))?;
    let after = text.rsplit_once(')').context("no such line")?.1;
    let figures = after.split_whitespace().skip(11).take(2);
    Ok(figures.map(|t| t.parse::<u64>().unwrap_or(0)).sum::<u64>() * 10)
}

pub(crate) fn run(vms: usize) -> Result<Value> {
    let mut fleet = Fleet::new(&["web"], 2);
    push(&fleet, "1");
    let host = &fleet.hosts[1];
    let begun = Instant::now();
    for i in 0..vms {
        let name = format!("vm-{i}");
        let file = VmFile::usual(&["web"], &host.target(&name)).view("keep_generations = 2");
        host.write_vm(&name, &file);
    }
    let first_ms = await_all(host, vms, "1", begun)?;
    let begun = Instant::now();
    push(&fleet, "2");
    let switch_ms = await_all(host, vms, "2", begun)?;
    let before = cpu_ms(host)?;
    std::thread::sleep(IDLE);
    let idle_ms = cpu_ms(host)? - before;
    let (rss, peak) = (status_kib(host, "VmRSS:")?, status_kib(host, "VmHWM:")?);
    let begun = Instant::now();
    fleet.hosts[1].restart();
    let start_ms = begun.elapsed().as_millis();
    let reconciled_ms = await_all(&fleet.hosts[1], vms, "2", begun)?;
    Ok(json!({
        "schema": "stork.bench.many-vms/v1", "vms": vms, "packages": PACKAGES.len(),
        "files_a_vm": PACKAGES.len() * FILES, "first_ms": first_ms, "switch_all_ms": switch_ms,
        "restart_ms": start_ms, "all_known_again_ms": reconciled_ms,
        "rss_kib": rss, "peak_rss_kib": peak,
        "idle_cpu_ms_per_s": idle_ms / IDLE.as_secs(),
    }))
}
