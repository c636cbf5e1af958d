//! One content to several nodes: what the origin sends, and when the last node has it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use stork_tests::lab::{Lab, wait_for};

use super::noise;

/// Measures one content of `mib` MiB to `nodes` nodes beside the origin, which wants nothing
/// itself.
pub(crate) async fn run(nodes: usize, mib: usize) -> Result<Value> {
    let mut lab = Lab::new(nodes + 1).await?;
    for node in lab.nodes.iter().skip(1) {
        node.add_vm(&format!("{}-vm", node.name))?;
    }
    lab.settle().await?;
    let package = lab.dir.path().join("package");
    std::fs::create_dir(&package)?;
    std::fs::write(package.join("blob"), noise(mib << 20, 7))?;
    lab.publish(&package, "blob", "1").await?;
    let origin = lab.nodes.first().context("no node")?;
    let announced = origin.event_ms("announced", "blob 1").await.context("not announced")?;
    let (mut fetched, mut shown) = (Vec::new(), Vec::new());
    for node in lab.nodes.iter().skip(1) {
        let limit = Duration::from_secs(300);
        let at = wait_for("fetched", limit, || node.event_ms("fetched", "blob 1")).await?;
        fetched.push(at.saturating_sub(announced));
        let at = wait_for("shown", limit, || node.event_ms("view_switched", "blob 1")).await?;
        shown.push(at.saturating_sub(announced));
    }
    let releases = origin.client().get("/v1/releases").await?;
    let release = releases["releases"].get(0).context("no release")?;
    let sent: u64 =
        release["swarms"].as_array().into_iter().flatten().filter_map(|s| s["sent"].as_u64()).sum();
    let size = release["full_bytes"].as_u64().context("no size")?;
    lab.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = sent as f64 / size as f64;
    Ok(json!({
        "schema": "stork.bench.spread/v1", "nodes": nodes, "mib": mib,
        "origin_bytes": sent, "content_bytes": size, "origin_ratio": ratio,
        "last_fetched_ms": fetched.iter().max(), "first_fetched_ms": fetched.iter().min(),
        "last_shown_ms": shown.iter().max(),
    }))
}
