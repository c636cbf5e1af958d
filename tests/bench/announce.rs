//! How long an announcement takes to reach the last node.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use stork_tests::lab::{Lab, wait_for};
use stork_tests::raw_push::Publisher;
use stork_wire::feed::{Entry, Kind};
use stork_wire::frame::{PushReply, PushRequest};

use super::percentile;

/// Between two announcements. A host writes what comes within 100 ms of another item together, and
/// says that it has it after that: these come alone.
const APART: Duration = Duration::from_millis(250);

fn unix_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() * 1_000.0
}

/// Measures `count` announcements among `nodes` nodes.
pub(crate) async fn run(nodes: usize, count: u64) -> Result<Value> {
    let mut lab = Lab::new(nodes).await?;
    lab.settle().await?;
    let package = lab.dir.path().join("package");
    std::fs::create_dir(&package)?;
    std::fs::write(package.join("file"), b"hello")?;
    lab.publish(&package, "hello", "0").await?;
    let publisher = Publisher::open(&lab.charter)?;
    let first = lab.nodes.first().context("no node")?;
    let session = publisher.connect(first.id, first.addr).await?;
    let PushReply::Head { entry: Some(entry), .. } = session.ask(&PushRequest::Head, &[]).await?.0
    else {
        return Err(anyhow!("nothing was published"));
    };
    let Kind::Release(template) = entry.claimed::<Entry>()?.kind else {
        return Err(anyhow!("the entry is no release"));
    };
    let (mut begun_ms, mut commit_ms) = (Vec::new(), Vec::new());
    for n in 1..=count {
        let mut release = (*template).clone();
        release.version = format!("{n}").parse()?;
        let signed = publisher.next(&session, release).await?;
        let begun = Instant::now();
        begun_ms.push(unix_ms());
        let reply = session.ask(&PushRequest::Commit(signed), &[]).await?.0;
        if !matches!(reply, PushReply::Committed { .. }) {
            return Err(anyhow!("not committed: {reply:?}"));
        }
        commit_ms.push(begun.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(APART).await;
    }
    let latencies = latencies(&lab, count, &begun_ms).await?;
    commit_ms.sort_by(f64::total_cmp);
    lab.stop().await?;
    Ok(json!({
        "schema": "stork.bench.announce/v1", "nodes": nodes, "count": count,
        "delivered": latencies.len(),
        "last_node_ms": {
            "p50": percentile(&latencies, 0.5), "p99": percentile(&latencies, 0.99),
            "max": latencies.last(),
        },
        "commit_ms": { "p50": percentile(&commit_ms, 0.5), "p99": percentile(&commit_ms, 0.99) },
    }))
}

/// For each announcement the time to the node that noted it last, sorted.
async fn latencies(lab: &Lab, count: u64, begun_ms: &[f64]) -> Result<Vec<f64>> {
    let mut last = vec![0.0f64; begun_ms.len()];
    for node in &lab.nodes {
        let client = node.client();
        let events = wait_for("all announcements", Duration::from_secs(30), || async {
            let all = client.get("/v1/events").await.ok()?;
            let events = all["events"].as_array()?.clone();
            let seen = events.iter().filter(|e| e["kind"] == "announced").count() as u64;
            (seen > count).then_some(events)
        })
        .await?;
        for (n, slot) in (1..=count).zip(&mut last) {
            let text = format!("hello {n} by");
            let at = events
                .iter()
                .find(|e| e["text"].as_str().is_some_and(|t| t.starts_with(&text)))
                .and_then(|e| e["at_ms"].as_f64())
                .with_context(|| format!("{} did not hear of {n}", node.name))?;
            *slot = slot.max(at);
        }
    }
    let mut all: Vec<f64> = last.iter().zip(begun_ms).map(|(l, b)| l - b).collect();
    all.sort_by(f64::total_cmp);
    Ok(all)
}
