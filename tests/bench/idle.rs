//! What a node costs that has nothing to do: memory, processor time, bytes on the wire.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use stork_node::config::NodeConfig;
use stork_node::control::Client;
use stork_node::{join, run};
use stork_tests::lab::{Founding, Lab, free_addr, wait_for};
use stork_wire::charter::JoinToken;

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is collected.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a caught-up node does for so long is none of its idleness: new links, the last comparisons.
const SETTLE: Duration = Duration::from_secs(20);

/// Watches one `stork-node` process beside some nodes of this process.
pub(crate) async fn run(seconds: u64, links: usize, feeds: usize) -> Result<Value> {
    let founding = Founding { crowd: feeds, ..Founding::default() };
    let mut lab = Lab::found(links, &founding).await?;
    lab.settle().await?;
    let first = lab.nodes.first().context("no node")?.client();
    let all = first.get("/v1/status").await?["gauges"]["logs"]["now"].as_u64();
    let all = all.context("no logs")?;
    let home = lab.dir.path().join("watched");
    std::fs::create_dir_all(home.join("vms"))?;
    let config = NodeConfig {
        listen: free_addr()?,
        state: home.join("state"),
        vms: home.join("vms"),
        socket: home.join("sock"),
        ..NodeConfig::default()
    };
    enroll(&lab, &config).await?;
    let node = std::env::current_exe()?.with_file_name("stork-node");
    let child = Command::new(&node)
        .args(["--state".as_ref(), config.state.as_os_str()])
        .args(["--vms".as_ref(), config.vms.as_os_str()])
        .args(["--socket".as_ref(), config.socket.as_os_str()])
        .args(["--listen", &config.listen.to_string(), "run"])
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{}: build it with the same profile first", node.display()))?;
    let running = Running(child);
    let pid = running.0.id();
    let client = Client::new(&config.socket, Duration::from_secs(5));
    let started = Instant::now();
    let linked = links.min(5) as u64;
    wait_for("links and all logs", Duration::from_secs(600), || async {
        let s = client.get("/v1/status").await.ok()?;
        let logs = s["gauges"]["logs"]["now"].as_u64()?;
        (s["links"].as_u64()? >= linked && logs >= all).then_some(())
    })
    .await?;
    let caught_up = started.elapsed();
    let peak = status_kib(pid, "VmHWM:")?;
    tokio::time::sleep(SETTLE).await;
    let now_linked = client.get("/v1/status").await?["links"].as_u64();
    let before = (cpu_ticks(pid)?, wire_bytes(&client).await?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (cpu_ticks(pid)?, wire_bytes(&client).await?);
    let rss = status_kib(pid, "VmRSS:")?;
    let anon = status_kib(pid, "RssAnon:")?;
    let threads = status_kib(pid, "Threads:")?;
    drop(running);
    lab.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let per_second = |n: u64| n as f64 / seconds as f64;
    Ok(json!({
        "schema": "stork.bench.idle/v1", "seconds": seconds, "links": now_linked, "logs": all,
        "caught_up_s": caught_up.as_secs_f64(), "rss_peak_kib": peak,
        "rss_kib": rss, "rss_anon_kib": anon, "threads": threads,
        "cpu_percent": per_second(after.0 - before.0),
        "sent_bytes_per_s": per_second(after.1.0 - before.1.0),
        "received_bytes_per_s": per_second(after.1.1 - before.1.1),
    }))
}

async fn enroll(lab: &Lab, config: &NodeConfig) -> Result<()> {
    let first = lab.nodes.first().context("no node")?;
    let body = json!({ "name": "watched", "site": "default", "ttl_s": 600 });
    let token = first.client().post("/v1/tokens", &body).await?;
    let (token, envelope) = JoinToken::from_text(token["token"].as_str().context("no token")?)?;
    let store = run::open_store(config)?;
    join::join(&store, &config.state, &token, envelope, "watched".parse()?).await?;
    Ok(())
}

/// Processor time in hundredths of a second, user and system.
pub(crate) fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let rest = stat.rsplit_once(')').context("no name")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |i: usize| -> Result<u64> { Ok(fields.get(i).context("too short")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

pub(crate) fn status_kib(pid: u32, key: &str) -> Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find(|l| l.starts_with(key)).ok_or_else(|| anyhow!("no {key}"))?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

/// UDP bytes that the node sent and received, as its QUIC connections count them.
async fn wire_bytes(client: &Client) -> Result<(u64, u64)> {
    let status = client.get("/v1/status").await?;
    let get = |key: &str| status["udp"][key].as_u64().context("the node does not count UDP bytes");
    Ok((get("sent")?, get("received")?))
}
