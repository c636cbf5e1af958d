//! What hostile connections cost a host that they only wait at, or fill as far as it lets them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quinn::Endpoint;
use serde_json::{Value, json};
use stork_tests::fleet::Fleet;
use stork_tests::hostile::{hold_all, place};

use super::idle::status_kib;

/// How long they are watched: strangers are shut out after three seconds.
const WATCHED: Duration = Duration::from_secs(8);
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Opens so many connections to one `stork-node` process.
pub(crate) async fn run(connections: usize) -> Result<Value> {
    let fleet = tokio::task::spawn_blocking(|| Fleet::new(&["web"], 1)).await?;
    let host = fleet.hosts.first().context("no host")?;
    let (at, pid) = (place(host), host.pid());
    let before = status_kib(pid, "VmRSS:")?;
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (insiders, strangers) = hold_all(&endpoint, at, &fleet.charter, connections).await;
    let (begun, mut peak, mut promised) = (Instant::now(), before, 0);
    while begun.elapsed() < WATCHED {
        peak = peak.max(status_kib(pid, "VmRSS:")?);
        let now = host.ask(&["status"]).and_then(|s| s["net"]["promised_bytes"].as_u64());
        promised = promised.max(now.unwrap_or(0));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let ended =
        |all: &[quinn::Connection]| all.iter().filter(|c| c.close_reason().is_some()).count();
    let report = json!({
        "schema": "stork.bench.door/v1",
        "insiders": insiders.len(), "strangers": strangers.len(),
        "insiders_ended": ended(&insiders), "strangers_ended": ended(&strangers),
        "rss_before_kib": before, "rss_peak_kib": peak,
        "held_kib": peak.saturating_sub(before), "promised_bytes": promised,
    });
    endpoint.close(0u32.into(), b"");
    tokio::task::spawn_blocking(move || drop(fleet)).await?;
    Ok(report)
}
