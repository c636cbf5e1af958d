//! What news cost: nodes over real QUIC in one process on loopback, in phases that another gossip
//! program can be put through as well.
//!
//! A message is one signed feed entry whose body has the size that was asked for ([`pen`]). It goes
//! the whole way of a publisher's commit: the publisher's node judges it, writes it to its journal
//! and only then announces it; every other node checks the signature once, passes it on and writes
//! it down. A delivery is the moment at which a node's rules accepted it. The stores lie on a tmpfs
//! where there is one, so that so many nodes do not wait for one disk; the journals are written and
//! synced all the same, and their share of the processor is told apart.

mod against;
mod fleet;
mod pen;
mod phases;
mod record;
mod usage;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use fleet::Fleet;
use phases::{Pace, Stage};
use usage::Usage;

/// How the bench runs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = against::HELP)]
pub(crate) struct Options {
    /// Nodes.
    #[arg(long, default_value_t = 16)]
    nodes: usize,
    /// Bytes of a message: of an entry's signed body, 400 at the least.
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Messages of the paced phase.
    #[arg(long, default_value_t = 1_000)]
    messages: usize,
    /// Messages in a second of the paced phases.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Messages of the saturated phase.
    #[arg(long, default_value_t = 2_000)]
    window_messages: usize,
    /// Messages of the saturated phase that are not everywhere yet.
    #[arg(long, default_value_t = 32)]
    window: u64,
    /// Publishers of the phase with several.
    #[arg(long, default_value_t = 4)]
    publishers: usize,
    /// Seconds before the first phase.
    #[arg(long, default_value_t = 12.0)]
    settle: f64,
    /// Seconds of rest.
    #[arg(long, default_value_t = 20.0)]
    idle: f64,
    /// Percent of the nodes that are killed.
    #[arg(long, default_value_t = 30)]
    kill: usize,
    /// Seconds of probes after that.
    #[arg(long, default_value_t = 20.0)]
    probe: f64,
    /// Phases to run.
    #[arg(long, value_delimiter = ',', default_value = "idle,cold,paced,multi,window,late,crash")]
    phases: Vec<String>,
    /// Where the nodes' folders are made: /dev/shm where that is a tmpfs.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Another program to be run in turn with this one (see below).
    #[arg(long, value_name = "CMD")]
    against: Option<PathBuf>,
    /// Runs of each with `--against`.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Prints JSON, which is the only form there is.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn has(&self, phase: &str) -> bool {
        self.phases.iter().any(|p| p == phase)
    }
}

const TMPFS: &str = "/dev/shm";

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Runs the phases, or this program and another one in turn.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    ensure!(options.nodes >= 4, "four nodes at least");
    if let Some(other) = &options.against {
        return against::run(options, other).await;
    }
    let tmpfs = PathBuf::from(TMPFS);
    let dir = options.dir.clone();
    let dir = dir.unwrap_or_else(|| if is_tmpfs(&tmpfs) { tmpfs } else { std::env::temp_dir() });
    // Publishers' nodes come after the first, and those that die at the end.
    let publishers = options.publishers.clamp(1, options.nodes / 4);
    let killed = (options.nodes * options.kill / 100).min(options.nodes - 1 - publishers);
    let victims: Vec<usize> = (options.nodes - killed..options.nodes).collect();
    let doomed =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut fleet = Fleet::found(options.nodes + 2, publishers, dir.clone())?;
    let before = Usage::now()?;
    phases::start(&mut fleet, options.nodes, (&victims, doomed.handle())).await?;
    fleet.settle(publishers, options.size).await?;
    tokio::time::sleep(std::time::Duration::from_secs_f64(options.settle)).await;
    fleet.linked().await?;
    let started = Usage::now()?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let nodes = options.nodes as f64;
    let stage = Stage { options, verify_us: fleet.verify_us()? };
    let mut out = json!({
        "schema": "stork.bench.news/v1", "system": "stork",
        "n": options.nodes, "m": options.messages, "size": options.size, "rate": options.rate,
        "dir": dir, "tmpfs": is_tmpfs(&dir), "own_network": usage::is_alone(),
        "verify_us": stage.verify_us,
        "start_s": (started.at - before.at).as_secs_f64() - options.settle,
        "start_cpu_ms_per_node": (started.cpu_s - before.cpu_s) * 1e3 / nodes,
    });
    if options.has("idle") {
        out["idle"] = phases::idle(&fleet, &before, options.idle).await?;
    }
    bursts(&mut fleet, &stage, &mut out).await?;
    if options.has("late") {
        out["late"] = phases::late(&mut fleet, &stage).await?;
    }
    if options.has("crash") {
        out["crash"] = phases::crash(&mut fleet, &stage, (&victims, doomed)).await?;
    } else {
        doomed.shutdown_background();
    }
    out["rss_kib_end"] = json!(Usage::now()?.rss_kib);
    Ok(out)
}

/// The phases that send and wait.
async fn bursts(fleet: &mut Fleet, stage: &Stage<'_>, out: &mut Value) -> Result<()> {
    let o = stage.options;
    let all = fleet.authors();
    let plan = [
        ("cold", (1, 50.min(o.messages)), Pace::Rate(o.rate / 2.0)),
        ("paced", (1, o.messages), Pace::Rate(o.rate)),
        ("multi", (all, (o.messages / 2).max(all)), Pace::Rate(o.rate)),
        ("window", (1, o.window_messages), Pace::Window(o.window)),
    ];
    for (name, what, pace) in plan {
        if o.has(name) {
            out[name] = phases::burst(fleet, stage, what, pace).await?.0;
        }
    }
    Ok(())
}
