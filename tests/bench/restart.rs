//! How long a host is away that is killed while it keeps very many entries: until it answers again,
//! with all of them read and judged anew.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stork_node::config::NodeConfig;
use stork_node::run::open_store;
use stork_tests::crowd::{crowd, store_items};
use stork_tests::fleet::Fleet;

use crate::idle::cpu_ticks;

/// Entries of each feed.
const EACH: usize = 10;
/// Kills and starts that are timed.
const RUNS: usize = 5;

pub(crate) fn run(entries: usize) -> Result<Value> {
    let mut fleet = Fleet::new(&["web"], 1);
    let items = crowd(&fleet.charter, entries.div_ceil(EACH), EACH as u64)?;
    let (host, count) = (&mut fleet.hosts[0], items.len());
    host.stop();
    let config = NodeConfig { state: host.dir.join("state"), ..NodeConfig::default() };
    let store = open_store(&config)?;
    store_items(&store, &items)?;
    drop(store);
    let mut took = Vec::with_capacity(RUNS);
    for _ in 0..=RUNS {
        let begun = Instant::now();
        host.start();
        took.push((begun.elapsed().as_millis(), cpu_ticks(host.pid())? * 10));
        let logs = host.tell(&["status"])["gauges"]["logs"]["now"].as_u64();
        // A document and a feed of each publisher, and one log for each group of them.
        let least = (2 * entries.div_ceil(EACH)) as u64;
        ensure!(logs >= Some(least), "only {logs:?} logs are there");
        host.kill9();
    }
    // The first one sees items for the first time, as after a copy.
    let (first, _) = took.remove(0);
    took.sort_unstable();
    let (p50, cpu) = took.get(RUNS / 2).copied().unwrap_or_default();
    Ok(json!({
        "schema": "stork.bench.restart/v1", "items": count, "entries": entries,
        "first_ms": first, "restart_ms": { "p50": p50, "max": took.last().map(|t| t.0) },
        "cpu_ms": cpu,
    }))
}
