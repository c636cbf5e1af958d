//! `stork-sim news`: how fast, how surely and at what cost announcements reach a fleet.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::Config;

use super::faults::portion;
use super::hostile;
use super::isolation::Isolation;
use super::meter::share;
use super::report::{cpu_seconds, frames, report, resident_bytes};
use super::timeline::{self, Seen};
use super::world::{ANCHORS, Options, SECOND, World};

/// How links are laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Links {
    /// All hosts in one site, 10–50 ms apart.
    Flat,
    /// 0.3 ms within a site, 10–50 ms between two.
    Sites,
}

/// What to simulate.
#[derive(Debug, Clone, Args)]
pub(crate) struct News {
    /// Nodes.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) nodes: u32,
    /// Groups, each with a publisher and so with a feed of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) groups: u32,
    /// Messages, in turn over the feeds.
    #[arg(long, default_value_t = 20)]
    pub(crate) messages: u32,
    /// Milliseconds between two messages.
    #[arg(long, default_value_t = 500)]
    pub(crate) gap_ms: u64,
    /// Sites; more than one means `--links sites`.
    #[arg(long, default_value_t = 1)]
    pub(crate) sites: u32,
    /// How links are laid; `sites` without `--sites` makes ten.
    #[arg(long, value_enum)]
    pub(crate) links: Option<Links>,
    /// Share of the nodes that die at `--at`, unnoticed, with the message of that moment.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) kill: f64,
    /// Share of the nodes that crash at `--at` and start again at once with what is on disk.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) restart: f64,
    /// Messages that are published right after the fault, beside the others.
    #[arg(long, default_value_t = 1)]
    pub(crate) burst: u32,
    /// Milliseconds over which these are spread.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) burst_ms: u64,
    /// From the fault on no frames of sync: trees, announcements and grafts alone.
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// Seconds after the first message at which the fault happens; default: half of the messages.
    #[arg(long)]
    pub(crate) at: Option<u64>,
    /// Share of the minority and seconds of a cut, such as 0.5:60; `0.1:60:oneway` cuts one way.
    #[arg(long)]
    pub(crate) partition: Option<String>,
    /// Share of the nodes that crash each minute and are back half a minute later.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) churn: f64,
    /// Share and kind of hostile nodes, such as 0.1:silent; kinds: silent, prune, poison, ihave,
    /// forge, shuffle, replay, flood, censor, heads, echo, relay, eclipse, mixed.
    #[arg(long)]
    pub(crate) hostile: Option<String>,
    /// Percent of frames that are lost once.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Milliseconds of jitter.
    #[arg(long, default_value_t = 0)]
    pub(crate) jitter_ms: u64,
    /// Milliseconds from an item's acceptance until it is on disk.
    #[arg(long, default_value_t = 0)]
    pub(crate) commit_ms: u64,
    /// Records of hosts that each node keeps (512). A full roster is searched for every record of a
    /// new host, which is most of what booting 10 000 nodes costs: 128 boots three times as fast.
    #[arg(long, default_value_t = 512)]
    pub(crate) roster: usize,
    /// Seconds in which the nodes are started; default: one for each 500.
    #[arg(long)]
    pub(crate) boot: Option<u64>,
    /// Seconds of quiet after the last start.
    #[arg(long, default_value_t = 60)]
    pub(crate) settle: u64,
    /// Seconds between two looks at the whole fleet; default: one, and five above 2 000 nodes.
    #[arg(long)]
    pub(crate) look: Option<u64>,
    /// The longest that is waited, after the last message, until all have everything, in seconds;
    /// default: 700, and 60 without sync.
    #[arg(long)]
    pub(crate) drain: Option<u64>,
    /// Chance.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

impl News {
    fn options(&self) -> Options {
        let sites = match self.links {
            Some(Links::Flat) => 1,
            Some(Links::Sites) if self.sites < 2 => 10,
            _ => self.sites.max(1),
        };
        Options {
            nodes: self.nodes,
            feeds: self.groups.max(1),
            sites,
            seed: self.seed,
            commit_us: self.commit_ms * 1_000,
            jitter_us: self.jitter_ms * 1_000,
            loss_ppm: portion(1_000_000, self.loss / 100.0) as u64,
            no_sync: false,
            config: Config { roster: self.roster, ..Config::default() },
        }
    }
}

/// Runs the scenario.
pub(crate) fn run(news: &News) -> Result<(Value, u64)> {
    let begun = Instant::now();
    let resident = resident_bytes();
    let mut world = World::new(news.options())?;
    let mut seen = Seen::default();
    make_hostile(news, &mut world)?;
    boot(news, &mut world, &mut seen);
    timeline::messages(news, &mut world, &mut seen)?;
    timeline::drain(news, &mut world, &mut seen);
    let grown = resident_bytes().saturating_sub(resident);
    let mut value = report(news, &world, &seen);
    if let Some(map) = value.as_object_mut() {
        map.insert("memory_per_node".into(), json!(grown / u64::from(news.nodes.max(1))));
        map.insert("cpu_s".into(), json!(cpu_seconds()));
        map.insert("wall_s".into(), json!(begun.elapsed().as_secs_f64()));
    }
    Ok((value, world.watch.count))
}

fn make_hostile(news: &News, world: &mut World) -> Result<()> {
    let Some(text) = &news.hostile else { return Ok(()) };
    let (part, kind) = text.split_once(':').unwrap_or(("0.1", text));
    let kinds = hostile::kinds(kind).map_err(anyhow::Error::msg)?;
    let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
    let all = (ANCHORS..news.nodes).filter(|i| !homes.contains(i)).collect();
    let count = portion(
        news.nodes as usize,
        part.parse().with_context(|| format!("--hostile {text}: write SHARE:KIND"))?,
    );
    let chosen = world.rng.shuffled(all).into_iter().take(count);
    for (i, kind) in chosen.zip(kinds.into_iter().cycle()) {
        if let Some(node) = world.node_mut(i) {
            node.hostile = Some(kind);
        }
    }
    Ok(())
}

/// Starts the nodes one after the other, lets them link up, and looks at what quiet costs.
pub(crate) fn boot_all(world: &mut World, length: u64) {
    let n = world.nodes.len() as u64;
    for i in (0u32..).take(world.nodes.len()) {
        let at = length * u64::from(i) / n.max(1);
        world.run_until(at);
        world.start(i);
    }
}

fn boot(news: &News, world: &mut World, seen: &mut Seen) {
    let length = news.boot.unwrap_or_else(|| u64::from(news.nodes / 500).max(2)) * SECOND;
    boot_all(world, length);
    let quiet = news.settle * SECOND / 2;
    world.run_until(world.now + news.settle * SECOND - quiet);
    world.meter.reset_bytes();
    let from = world.now;
    world.run_until(from + quiet);
    seen.idle_bytes =
        share(world.meter.control_bytes * 3_600 * SECOND, quiet) / f64::from(news.nodes.max(1));
    seen.boot_part = part(world);
    if news.hostile.is_some() {
        seen.isolation = Some(Isolation::new(world));
    }
    seen.idle_frames = frames(world);
    world.meter.reset_bytes();
}

/// The share of the running honest nodes that is one.
pub(crate) fn part(world: &World) -> f64 {
    let (best, all) = world.largest_part();
    share(best as u64, all as u64)
}

/// Pairs of a running honest node and a message that it lacks.
pub(crate) fn missing(world: &World) -> u64 {
    let mut missing = 0;
    for (feed, f) in world.feeds.all.iter().enumerate() {
        let want = f.items.len() as u64;
        let lacks = |n: &super::world::Node| want - n.logs.get(feed).map_or(0, |l| l.1.min(want));
        missing += world.honest().map(|(_, n)| lacks(n)).sum::<u64>();
    }
    missing
}
