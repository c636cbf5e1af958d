//! `stork-sim news`: how fast, how surely and at what cost announcements reach a fleet.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::Config;

use super::faults::portion;
use super::hostile::Hostile;
use super::meter::{Message, NEVER, share};
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
    /// Milliseconds from an item's arrival until it is durable (the driver gathers for 2).
    #[arg(long, default_value_t = 2)]
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
struct Seen {
    boot_part: f64,
    idle_bytes: f64,
    fault_message: Option<usize>,
    part_after: Option<f64>,
    part_repaired: Option<f64>,
    healed_at: Option<u64>,
    heal_s: Option<f64>,
    caught_up_s: Option<f64>,
    idle_frames: Value,
    skipped: u32,
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

fn frames(world: &World) -> Value {
    json!(world.meter.frames.iter().map(|(n, (c, b))| json!([n, c, b])).collect::<Vec<_>>())
}

fn part(world: &World) -> f64 {
    let (best, all) = world.largest_part();
    share(best as u64, all as u64)
}

/// Publishes the messages and lets the faults happen between them.
fn messages(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    let start = world.now;
    let gap = news.gap_ms * 1_000;
    let fault_at = news.at.map_or(u64::from(news.messages / 2) * gap, |s| s * SECOND);
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

fn report(news: &News, world: &World, seen: &Seen) -> Value {
    let m = &world.meter;
    let (running, all) = (world.honest().count() as u64, m.messages.len() as u64);
    let pairs = running * all;
    let mut delays: Vec<u32> = m.messages.iter().flat_map(|m| m.delays.iter().copied()).collect();
    delays.retain(|d| *d != NEVER);
    delays.sort_unstable();
    let fault = seen.fault_message;
    let calm = |first: bool| {
        let of = m.messages.iter().enumerate();
        let of = of.filter(|(n, m)| m.first == first && fault.is_none_or(|f| *n < f));
        mean(of.map(|(_, m)| m.redundancy()))
    };
    let at = |n: usize| fault.and_then(|f| m.messages.get(f + n)).map(Message::redundancy);
    let sites = u64::from(world.options.sites);
    let before = || m.messages.iter().enumerate().filter(|(n, _)| fault.is_none_or(|f| *n < f));
    let wan = |first: bool| {
        let of = before().filter(|(_, m)| m.first == first);
        mean(of.map(|(_, m)| share(m.wan, sites.saturating_sub(1))))
    };
    let hop = before().map(|(_, m)| m.last_hop()).max();
    let steady = before().filter(|(_, m)| !m.first);
    let steady_ms = steady.map(|(_, m)| m.last_delay() / 1_000).max();
    let seconds = world.now.saturating_sub(m.messages.first().map_or(0, |m| m.at));
    let hours = share(seconds, 3_600 * SECOND);
    json!({
        "schema": "stork.sim.news/v1", "nodes": news.nodes, "sites": sites,
        "groups": news.groups, "messages": all, "skipped": seen.skipped, "seed": news.seed,
        "delivered": if pairs == 0 { 0.0 } else { 1.0 - share(missing(world), pairs) },
        "redundancy": {
            "first": calm(true), "rest": calm(false), "at_fault": at(0), "next": at(1),
            "last": m.messages.last().map(Message::redundancy),
        },
        "last_hop": hop,
        "delivery_ms": {
            "p50": percentile(&delays, 0.5), "p99": percentile(&delays, 0.99),
            "max": percentile(&delays, 1.0), "max_steady": steady_ms,
            "at_fault": fault.and_then(|f| m.messages.get(f)).map(|m| m.last_delay() / 1_000),
            "next": fault.and_then(|f| m.messages.get(f + 1)).map(|m| m.last_delay() / 1_000),
            "late": m.messages.iter().filter(|m| m.last_delay() > 500_000).count(),
        },
        "wan_copies": { "first": wan(true), "rest": wan(false) },
        "control_bytes_per_node_hour": {
            "idle": seen.idle_bytes,
            "news": per_node(m.control_bytes, hours, news.nodes),
        },
        "frames": { "idle": seen.idle_frames, "news": frames(world) },
        "largest_part": {
            "boot": seen.boot_part, "after": seen.part_after, "repaired": seen.part_repaired,
            "end": part(world),
        },
        "heal_s": seen.heal_s, "caught_up_s": seen.caught_up_s, "merge_probes": m.merge_probes, "comparisons": m.comparisons,
        "shed": m.shed, "overflows": m.overflows, "simulated_s": world.now / SECOND,
        "events": world.events, "trace": format!("{:016x}", world.trace),
        "violations": world.watch.count, "violated": world.watch.kept,
    })
}

#[expect(clippy::cast_precision_loss, reason = "bytes below 2^52")]
fn per_node(bytes: u64, hours: f64, nodes: u32) -> f64 {
    if hours > 0.0 { bytes as f64 / hours / f64::from(nodes.max(1)) } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a count of messages")]
fn mean(all: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = all.fold((0u64, 0.0), |(n, sum), x| (n + 1, sum + x));
    (n > 0).then(|| sum / n as f64)
}

/// Milliseconds below which a share of the deliveries lies.
fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = portion(sorted.len().saturating_sub(1), part);
    f64::from(sorted.get(at).copied().unwrap_or(0)) / 1_000.0
}

/// Seconds of processor time: of use where others compute beside.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    share(ticks, 100)
}

/// Bytes of memory that this process holds now.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|p| p.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}
