//! `stork-sim news`: how fast, how surely and at what cost announcements reach a fleet.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::Config;

use super::faults::portion;
use super::hostile::Hostile;
use super::meter::share;
use super::report::{cpu_seconds, frames, report, resident_bytes};
use super::world::{ANCHORS, Options, SECOND, World};

/// The longest that is waited for the last delivery and for one overlay.
const DRAIN: u64 = 700 * SECOND;
/// Losses are found and repaired by then: the idle time-out and a few dials.
const REPAIR_ROUND: u64 = 20 * SECOND;

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
    /// forge.
    #[arg(long)]
    pub(crate) hostile: Option<String>,
    /// Percent of frames that are lost once.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Milliseconds of jitter.
    #[arg(long, default_value_t = 0)]
    pub(crate) jitter_ms: u64,
    /// Milliseconds from an item's arrival until it is passed on: 0, since the driver passes on
    /// what the rules accept, whatever the disk does.
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
    /// Chance.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the scenario saw beside the counts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) boot_part: f64,
    pub(crate) idle_bytes: f64,
    pub(crate) fault_message: Option<usize>,
    pub(crate) part_after: Option<f64>,
    pub(crate) part_repaired: Option<f64>,
    pub(crate) healed_at: Option<u64>,
    pub(crate) heal_s: Option<f64>,
    pub(crate) caught_up_s: Option<f64>,
    pub(crate) idle_frames: Value,
    pub(crate) skipped: u32,
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
    messages(news, &mut world, &mut seen)?;
    drain(&mut world, &mut seen);
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
    let kind: Hostile = kind.parse().map_err(anyhow::Error::msg)?;
    let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
    let all = (ANCHORS..news.nodes).filter(|i| !homes.contains(i)).collect();
    let count = portion(news.nodes as usize, part.parse()?);
    for i in world.rng.shuffled(all).into_iter().take(count) {
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
    seen.idle_frames = frames(world);
    world.meter.reset_bytes();
}

/// The share of the running honest nodes that is one.
pub(crate) fn part(world: &World) -> f64 {
    let (best, all) = world.largest_part();
    share(best as u64, all as u64)
}

/// Publishes the messages and lets the faults happen between them.
fn messages(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    let start = world.now;
    let gap = news.gap_ms * 1_000;
    let half = u64::from(news.messages / 2) * gap;
    let fault_at = news.at.map_or(half, |s| s * SECOND);
    let fault_at = (news.kill > 0.0 || news.partition.is_some()).then_some(start + fault_at);
    let look = news.look.unwrap_or(if news.nodes > 2_000 { 5 } else { 1 }) * SECOND;
    let (mut next_look, mut next_churn) = (start, start);
    let mut pending_fault = fault_at;
    for m in 0..news.messages {
        let at = start + u64::from(m) * gap;
        while world.now < at {
            let stop = at.min(next_look).min(next_churn).max(world.now);
            world.run_until(stop);
            if world.now >= next_look {
                world.check_fleet();
                next_look = world.now + look;
            }
            if world.now >= next_churn {
                churn(news, world);
                next_churn = world.now + SECOND;
            }
        }
        if pending_fault.is_some_and(|f| f <= world.now) {
            pending_fault = None;
            fault(news, world, seen)?;
            seen.fault_message = Some(m as usize);
        }
        if world.publish(m % news.groups.max(1))?.is_none() {
            seen.skipped += 1;
        }
    }
    Ok(())
}

fn fault(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    if news.kill > 0.0 {
        let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
        world.kill_share(news.kill, &homes);
        seen.part_after = Some(part(world));
    }
    if let Some(text) = &news.partition {
        let mut parts = text.split(':');
        let minority = parts.next().unwrap_or("0.5").parse()?;
        let seconds: u64 = parts.next().unwrap_or("60").parse()?;
        world.cut(minority, seconds * SECOND, parts.next() == Some("oneway"));
        seen.healed_at = Some(world.now + seconds * SECOND);
    }
    Ok(())
}

/// Each second so many nodes crash that the share of a minute is reached; they come back.
fn churn(news: &News, world: &mut World) {
    let dead: Vec<u32> = world.due_back();
    for i in dead {
        world.start(i);
    }
    let per_second = news.churn / 60.0 * f64::from(news.nodes);
    let ppm = portion(1_000_000, per_second.fract()) as u64;
    let count = portion(1_000_000, per_second / 1_000_000.0) as u64;
    let count = if per_second < 1.0 { 0 } else { count } + u64::from(world.rng.ppm(ppm));
    for _ in 0..count {
        let i = world.rng.node(news.nodes as usize);
        if i >= ANCHORS && world.is_up(i) {
            world.kill(i);
            world.back_at(i, world.now + 30 * SECOND);
        }
    }
}

/// Waits until everything is everywhere and the fleet is one, within bounds.
fn drain(world: &mut World, seen: &mut Seen) {
    let from = world.now;
    let least = seen.healed_at.unwrap_or(from).max(from) + 5 * SECOND;
    while world.now < from + DRAIN {
        world.run_until(world.now + SECOND);
        world.check_fleet();
        for i in world.due_back() {
            world.start(i);
        }
        if seen.part_after.is_some()
            && seen.part_repaired.is_none()
            && world.now >= world.watch.disturbed + REPAIR_ROUND
        {
            seen.part_repaired = Some(part(world));
        }
        let (best, all) = world.largest_part();
        let healed = seen.healed_at.filter(|h| world.now > *h);
        if best == all && seen.heal_s.is_none() {
            seen.heal_s = healed.map(|h| share(world.now - h, SECOND));
        }
        if seen.caught_up_s.is_none() && missing(world) == 0 {
            seen.caught_up_s = healed.map(|h| share(world.now - h, SECOND));
        }
        let repaired = seen.part_after.is_none() || seen.part_repaired.is_some();
        let back = world.all_back();
        if world.now >= least && best == all && repaired && back && missing(world) == 0 {
            return;
        }
    }
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
