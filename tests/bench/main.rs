//! `stork-bench`: the figures of `docs/PROMISES.md`, measured on this machine.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

mod announce;
mod content;
mod delta;
mod door;
mod idle;
mod many_vms;
mod news;
mod pair;
mod restart;
mod spread;
mod storage;
mod tcp;
mod unpack;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: stork_node::Allocator = stork_node::Allocator;

/// Measures stork on this machine; each command prints one JSON object.
#[derive(Debug, Parser)]
#[command(name = "stork-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a publisher's commit to the announcement on the last node.
    Announce {
        /// Nodes.
        #[arg(long, default_value_t = 16)]
        nodes: usize,
        /// Announcements.
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// What news cost in processor time, latency, bytes and memory, among nodes in one process.
    News(Box<news::Options>),
    /// One content to several nodes: bytes that the origin sends, and the time of the last node.
    Spread {
        /// Nodes beside the origin.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Size of the content.
        #[arg(long, default_value_t = 64)]
        mib: usize,
    },
    /// One content to all hosts in network namespaces on links of a fixed rate, beside other
    /// programs; needs root.
    Content(Box<content::Options>),
    /// What the one above runs as processes of their own.
    #[command(hide = true, subcommand)]
    Helper(content::Helper),
    /// One content from one node to another, beside plain QUIC with write and fsync.
    Pair {
        /// Size of the content.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Runs of each kind.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// What it is measured beside.
        #[arg(long, value_enum, default_value = "quinn")]
        against: pair::Against,
    },
    /// From verified packs to durable files.
    Unpack {
        /// Size of the content.
        #[arg(long, default_value_t = 256)]
        mib: usize,
        /// Files that it consists of.
        #[arg(long, default_value_t = 1_000)]
        files: usize,
    },
    /// An update from one version of a package to the next, beside `zstd --patch-from`.
    Delta(delta::Options),
    /// An update of a sparse disk image.
    Image(delta::ImageOptions),
    /// A part of the two above.
    #[command(hide = true, subcommand)]
    Phase(delta::Phase),
    /// What a further VM costs on disk and in memory, what a switch takes and what a package set,
    /// for each backend, beside plain copies; needs root.
    Storage(storage::Options),
    /// One host with very many VMs that want the same: time until all show it, until all are
    /// switched, until all are known again after a restart; memory, and processor time at rest.
    ManyVms {
        /// VMs.
        #[arg(long, default_value_t = 1_000)]
        vms: usize,
    },
    /// A host that is killed while it keeps very many entries: until it answers again.
    Restart {
        /// Entries of feeds, ten in each.
        #[arg(long, default_value_t = 100_000)]
        entries: usize,
        /// Accepted for scripts: the report is one JSON object anyway.
        #[arg(long)]
        json: bool,
    },
    /// Memory that hostile connections make a host hold: admitted hosts and strangers that send
    /// pieces with gaps.
    Door {
        /// Connections.
        #[arg(long, default_value_t = 100)]
        connections: usize,
        /// Accepted for scripts: the report is one JSON object anyway.
        #[arg(long)]
        json: bool,
    },
    /// What a node costs that has nothing to do, beside others.
    Idle {
        /// Seconds to watch.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Nodes beside it, each of which it is linked to.
        #[arg(long, default_value_t = 2)]
        links: usize,
        /// Feeds of other publishers, which it gets first.
        #[arg(long, default_value_t = 0)]
        feeds: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|rt| match cli.command {
        Command::Content(options) => Ok(content::run(&rt, &options)),
        Command::Storage(options) => Ok(storage::run(&options)),
        Command::Helper(helper) => content::run_helper(&rt, &helper).map(|()| ExitCode::SUCCESS),
        one => measure(&rt, one).map(|value| {
            print(&value);
            ExitCode::SUCCESS
        }),
    });
    outcome.unwrap_or_else(|e| {
        drop(writeln!(std::io::stderr(), "error: {e:#}"));
        ExitCode::FAILURE
    })
}

/// Runs a command that prints one object.
fn measure(rt: &Runtime, command: Command) -> Result<Value> {
    match command {
        Command::Announce { nodes, count } => rt.block_on(announce::run(nodes, count)),
        Command::News(options) => rt.block_on(news::run(&options)),
        Command::Spread { nodes, mib } => rt.block_on(spread::run(nodes, mib)),
        Command::Pair { mib, runs, against } => rt.block_on(pair::run(mib, runs, against)),
        Command::Unpack { mib, files } => unpack::run(mib, files),
        Command::Delta(options) => delta::run(&options),
        Command::Image(options) => delta::run_image(&options),
        Command::Phase(phase) => delta::run_phase(&phase),
        Command::Door { connections, .. } => rt.block_on(door::run(connections)),
        Command::ManyVms { vms } => many_vms::run(vms),
        Command::Restart { entries, .. } => restart::run(entries),
        Command::Idle { seconds, links, feeds } => rt.block_on(idle::run(seconds, links, feeds)),
        Command::Content(_) | Command::Helper(_) | Command::Storage(_) => {
            bail!("prints lines of its own")
        }
    }
}

fn print(value: &Value) {
    drop(writeln!(std::io::stdout(), "{value}"));
}

/// The value below which a share of the samples lies.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a few hundred samples"
    )]
    let at = ((last as f64) * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Bytes that do not compress and are the same in every run.
fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key("stork bench noise")
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}
