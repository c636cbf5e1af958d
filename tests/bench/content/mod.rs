//! One content to all hosts over real links: `stork-node` processes in network namespaces with
//! limited rates, and other programs on the same bed in turn.
//!
//! For each method a line tells how long the hosts took, beside what no method can be faster than,
//! and what it cost: bytes that left the origin, crossed between sites and passed on the wire as
//! the kernel counts them, processor time, memory. The content is random bytes, so that its length
//! is what must travel. All folders lie on a tmpfs where there is one: hosts have disks of their
//! own, and these here would share one.

mod bed;
mod bound;
mod chain;
mod crew;
mod delivery;
mod insider;
mod report;
mod rivals;
mod stork;
pub(crate) mod tools;
mod tracker;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use bed::{Bed, HOSTS_MAX, Shape};
use tools::Unable;

/// The exit code where this machine cannot do it at all: no root, no namespaces, no token buckets.
const UNABLE: u8 = 77;
/// The exit code of a run that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;
/// The name of the file that is delivered.
const DATA: &str = "data.bin";
/// A tmpfs of nearly every Linux.
const TMPFS: &str = "/dev/shm";
/// Sites at the most: the third byte of an address.
const SITES_MAX: usize = 100;
/// Gbit/s at the most, and GiB: a virtual card carries no more, and a tmpfs holds no more.
const RATE_MAX: u64 = 10_000;
const MIB_MAX: u64 = 4_096;

/// How a content is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// This program's subject.
    Stork,
    /// BitTorrent by `aria2c`.
    Aria2,
    /// BitTorrent by libtorrent.
    Libtorrent,
    /// Each host passes on over TCP what it gets.
    Chain,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Stork => "stork",
            Self::Aria2 => "aria2",
            Self::Libtorrent => "libtorrent",
            Self::Chain => "chain",
        }
    }
}

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Hosts beside the origin.
    #[arg(long, default_value_t = 8)]
    hosts: usize,
    /// Rate of each card in both directions.
    #[arg(long, value_name = "MBIT", default_value_t = 50)]
    rate: u64,
    /// Size of the content.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// Sites that the hosts are dealt to; the origin is in the first.
    #[arg(long, default_value_t = 1)]
    sites: usize,
    /// Rate of the link of each further site.
    #[arg(long, value_name = "MBIT", default_value_t = 10)]
    wan: u64,
    /// Share of the hosts that is killed at half of the bound; one at the least if not 0.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    kill: f64,
    /// One host has a tenth of the rate, and is not waited for.
    #[arg(long)]
    slow_one: bool,
    /// The last hosts are insiders: they say that they have everything, and serve it like this.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    insiders: Vec<insider::Insider>,
    /// Other methods that are measured beside stork.
    #[arg(long, value_delimiter = ',')]
    against: Vec<Method>,
    /// Rounds of all methods.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// One JSON object per method and round instead of a line for people.
    #[arg(long)]
    json: bool,
    /// The name of the bed; two benches at once need two.
    #[arg(long, default_value = "storkbed")]
    bed: String,
    /// Where the folders are made; default: /dev/shm where that is, else where temporary files go.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the folders there, with logs and what each node says at the end.
    #[arg(long)]
    keep: bool,
}

/// What runs as a process of its own in a node's namespace.
#[derive(Debug, Subcommand)]
pub(crate) enum Helper {
    /// One host of the chain, or its head.
    Chain(chain::Hop),
    /// A tracker.
    Tracker(tracker::Options),
    /// A host that serves badly.
    Insider(insider::Options),
}

/// Runs a helper.
pub(crate) fn run_helper(runtime: &Runtime, helper: &Helper) -> Result<()> {
    match helper {
        Helper::Chain(hop) => chain::run(hop),
        Helper::Tracker(options) => runtime.block_on(tracker::run(options)),
        Helper::Insider(options) => insider::run(options),
    }
}

/// Measures all methods in turn and prints a line for each as soon as it is there.
pub(crate) fn run(runtime: &Runtime, options: &Options) -> ExitCode {
    // A release build ends at a panic without dropping anything: the bed must go before.
    let (bed, usual) = (options.bed.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        bed::remove(&bed);
    }));
    // On this thread, which lives until the end: children are killed when the thread that started
    // them ends.
    let outcome = runtime.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = measure(options) => outcome.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
            _ = end.recv() => Ok(None),
        }
    });
    match outcome {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(e) => {
            drop(writeln!(std::io::stderr(), "error: {e:#}"));
            let unable = e.chain().any(|c| c.is::<Unable>());
            if unable { ExitCode::from(UNABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn check(options: &Options) -> Result<Shape> {
    let o = options;
    ensure!((1..=HOSTS_MAX).contains(&o.hosts), "--hosts: 1 to {HOSTS_MAX}");
    ensure!(
        (1..=SITES_MAX.min(o.hosts)).contains(&o.sites),
        "--sites: 1 to {SITES_MAX}, one host each"
    );
    ensure!((1..=RATE_MAX).contains(&o.rate), "--rate: 1 to {RATE_MAX} Mbit/s");
    ensure!((1..=RATE_MAX).contains(&o.wan), "--wan: 1 to {RATE_MAX} Mbit/s");
    ensure!((1..=MIB_MAX).contains(&o.mib), "--mib: 1 to {MIB_MAX}");
    ensure!((0.0..=0.9).contains(&o.kill), "--kill: a share from 0 to 0.9");
    if o.slow_one && o.hosts < 2 {
        bail!("--slow-one needs a second host");
    }
    ensure!(o.insiders.len() < o.hosts, "--insiders: somebody must be served");
    ensure!(o.insiders.is_empty() || o.against.is_empty(), "--insiders are of stork's fleet alone");
    let slow = o.slow_one.then_some(o.hosts.div_ceil(2));
    Ok(Shape { hosts: o.hosts, rate_mbit: o.rate, sites: o.sites, wan_mbit: o.wan, slow })
}

/// The hosts that are killed: spread evenly over all that are not slow.
fn victims(options: &Options, shape: &Shape) -> Vec<usize> {
    let honest = shape.hosts - options.insiders.len();
    let hosts: Vec<usize> = (1..=honest).filter(|h| shape.slow != Some(*h)).collect();
    if options.kill <= 0.0 {
        return Vec::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of at most 200 hosts"
    )]
    let count = ((hosts.len() as f64 * options.kill).floor() as usize).max(1).min(hosts.len() - 1);
    let step = hosts.len() / count.max(1);
    hosts.into_iter().skip(step / 2).step_by(step.max(1)).take(count).collect()
}

/// True if stork brought every expected copy and no method a wrong one.
async fn measure(options: &Options) -> Result<bool> {
    let shape = check(options)?;
    let victims = victims(options, &shape);
    let bed = Bed::build(&options.bed, shape)?;
    let tcp = bed.tcp()?;
    let tmpfs = Path::new(TMPFS);
    let usual = if tmpfs.is_dir() { tmpfs.to_owned() } else { std::env::temp_dir() };
    let parent = options.dir.clone().unwrap_or(usual);
    let mut dir = tempfile::Builder::new()
        .prefix("stork-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    dir.disable_cleanup(options.keep);
    let package = dir.path().join("package");
    std::fs::create_dir(&package)?;
    let content = super::noise(usize::try_from(options.mib << 20)?, 11);
    std::fs::write(package.join(DATA), &content)?;
    let (insiders, keep) = (options.insiders.clone(), options.keep);
    let task = delivery::Task { bed: &bed, package, content, victims, insiders, keep };
    let mut good = true;
    for round in 0..options.rounds.max(1) {
        let others = options.against.iter().copied().filter(|m| *m != Method::Stork);
        for method in std::iter::once(Method::Stork).chain(others) {
            if let Some(why) = rivals::missing(method) {
                drop(writeln!(std::io::stderr(), "{} is skipped: {why}", method.name()));
                continue;
            }
            let folder = dir.path().join(format!("{}-{round}", method.name()));
            std::fs::create_dir(&folder)?;
            let figures = delivery::run(&task, method, &folder).await?;
            good &= figures.corrupt == 0;
            good &= method != Method::Stork || figures.is_whole();
            let line = report::line((&bed.shape, &tcp), &figures, options.json);
            drop(writeln!(std::io::stdout(), "{line}"));
            if !options.keep {
                std::fs::remove_dir_all(&folder)?;
            }
        }
    }
    if options.keep {
        drop(writeln!(std::io::stderr(), "kept: {}", dir.path().display()));
    }
    Ok(good)
}
