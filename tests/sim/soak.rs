//! `stork-sim soak`: each seed is a fleet with a history of its own, in which everything goes wrong
//! that can; at the end everything must be everywhere again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use stork_node::overlay::Config;

use super::hostile::KINDS;
use super::news::boot_all;
use super::rng::{Rng, mix2};
use super::world::{ANCHORS, Options, SECOND, World};

/// Seconds of faults, and of quiet before them.
const FAULTS_S: u64 = 300;
const QUIET_S: u64 = 45;
/// The overlay is one within this time after the last fault (I4; goal: 10 minutes).
const ONE_WITHIN: u64 = 600 * SECOND;
/// Everything is everywhere so long after the overlay is one (I8; goal: 30 seconds).
const ALL_WITHIN: u64 = 30 * SECOND;

/// Which seeds to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Soak {
    /// Seeds, from the first to before the second: `1..100`.
    #[arg(long, value_parser = range)]
    pub(crate) seeds: (u64, u64),
    /// Nodes of each fleet.
    #[arg(long, default_value_t = 300)]
    pub(crate) nodes: u32,
    /// Where finished seeds are noted, to go on later.
    #[arg(long)]
    pub(crate) state: Option<PathBuf>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (a, b) = text.split_once("..").ok_or("two numbers with `..` between them")?;
    let read = |s: &str| s.parse::<u64>().map_err(|e| format!("`{s}`: {e}"));
    Ok((read(a)?, read(b)?))
}

/// What one seed came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) line: String,
    pub(crate) trace: u64,
    pub(crate) violations: u64,
    pub(crate) kept: Vec<String>,
}

/// Runs all seeds; the number of those with violations.
pub(crate) fn run(soak: &Soak, say: &mut dyn FnMut(&str)) -> Result<u64> {
    let mut done = BTreeMap::new();
    if let Some(path) = &soak.state
        && let Ok(text) = std::fs::read_to_string(path)
    {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let seed = words.next().and_then(|w| w.parse::<u64>().ok());
            let bad = words.next() == Some("bad");
            done.extend(seed.map(|s| (s, bad)));
        }
    }
    let mut failed = BTreeSet::new();
    let (from, to) = soak.seeds;
    for seed in from..to {
        if let Some(bad) = done.get(&seed) {
            if *bad {
                failed.insert(seed);
            }
            continue;
        }
        let outcome = one(seed, soak.nodes)?;
        say(&outcome.line);
        for text in &outcome.kept {
            say(&format!("    {text}"));
        }
        if outcome.violations > 0 {
            failed.insert(seed);
            let (next, nodes) = (seed + 1, soak.nodes);
            say(&format!("    replay: stork-sim soak --seeds {seed}..{next} --nodes {nodes}"));
        }
        if let Some(path) = &soak.state {
            let word = if outcome.violations > 0 { "bad" } else { "ok" };
            let file = OpenOptions::new().create(true).append(true).open(path);
            let mut file = file.with_context(|| format!("{} is not writable", path.display()))?;
            writeln!(file, "{seed} {word} {:016x}", outcome.trace)?;
        }
    }
    let count = failed.len();
    say(&format!("{} seeds, {count} with violations {failed:?}", to.saturating_sub(from)));
    Ok(count as u64)
}

/// One fleet and its history.
pub(crate) fn one(seed: u64, nodes: u32) -> Result<Outcome> {
    one_of(seed, nodes, FAULTS_S)
}

/// The same with another length of the history, in seconds.
pub(crate) fn one_of(seed: u64, nodes: u32, faults_s: u64) -> Result<Outcome> {
    let mut dice = Rng::new(mix2(seed, 0x50a6));
    let mut pick = |of: &[u64]| {
        let at = usize::try_from(dice.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied().unwrap_or(0)
    };
    let options = Options {
        nodes,
        feeds: u32::try_from(pick(&[1, 2, 3, 5, 8])).unwrap_or(1),
        sites: u32::try_from(pick(&[1, 1, 2, 5, 12])).unwrap_or(1),
        seed,
        commit_us: pick(&[0, 2_000, 2_000, 30_000]),
        jitter_us: pick(&[0, 1_000, 30_000]),
        loss_ppm: pick(&[0, 0, 1_000, 20_000]),
        no_sync: false,
        config: Config::default(),
    };
    let hostile = pick(&[0, 0, 2, 5, 10]);
    let kind = pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99, 99, 99]);
    let about = format!(
        "nodes {nodes} sites {} feeds {} loss {} ppm hostile {hostile} %",
        options.sites, options.feeds, options.loss_ppm
    );
    let mut world = World::new(options)?;
    let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
    for i in ANCHORS..nodes {
        // 99: each of its own kind.
        let own = if kind == 99 { world.rng.below(KINDS.len() as u64) } else { kind };
        let chosen = usize::try_from(own).ok().and_then(|k| KINDS.get(k)).map(|(_, kind)| *kind);
        let is_hostile = world.rng.below(100) < hostile && !homes.contains(&i);
        let skew = i64::try_from(world.rng.below(600)).unwrap_or(300) - 300;
        if let Some(node) = world.node_mut(i) {
            node.hostile = chosen.filter(|_| is_hostile);
            node.skew_s = skew;
        }
    }
    boot_all(&mut world, (u64::from(nodes) / 100).max(1) * SECOND);
    world.run_until(world.now + QUIET_S * SECOND);
    let mut happened = BTreeMap::new();
    for _ in 0..faults_s {
        second(&mut world, &mut happened)?;
    }
    let (one_s, all_s) = recover(&mut world);
    let mut line = format!("seed {seed} ");
    line += if world.watch.count == 0 { "ok " } else { "BAD" };
    let messages = world.meter.messages.len();
    write!(line, " {about} messages {messages} one after {one_s} s, all after {all_s} s,")?;
    for (name, count) in happened {
        write!(line, " {name} {count}")?;
    }
    let (events, trace) = (world.events, world.trace);
    write!(line, " events {events} trace {trace:016x}")?;
    let (violations, kept) = (world.watch.count, std::mem::take(&mut world.watch.kept));
    Ok(Outcome { line, trace, violations, kept })
}

/// One second of a history: some messages, and now and then a fault.
fn second(world: &mut World, happened: &mut BTreeMap<&'static str, u64>) -> Result<()> {
    let mut note = |what| *happened.entry(what).or_default() += 1;
    for i in world.due_back() {
        world.start(i);
    }
    let n = world.nodes.len();
    if world.rng.below(2) == 0 {
        let feed = world.rng.node(world.feeds.all.len());
        world.publish(feed)?;
    }
    let i = world.rng.node(n);
    let back = world.now + (1 + world.rng.below(90)) * SECOND;
    match world.rng.below(60) {
        0..6 if world.is_up(i) => {
            world.kill(i);
            world.back_at(i, back);
            note("crash");
        }
        6..8 if world.is_up(i) => {
            world.kill(i);
            world.lose_disk(i);
            world.back_at(i, back);
            note("lost_disk");
        }
        8..10 if world.is_up(i) => {
            world.kill(i);
            world.start(i);
            note("restart");
        }
        10..14 => {
            let length = (1 + world.rng.below(40)) * SECOND;
            world.pause(i, length);
            note("pause");
        }
        14 if world.net.cut.as_ref().is_none_or(|c| c.heals <= world.now) => {
            let share = [0.5, 0.1, 0.01, 0.3];
            let at = usize::try_from(world.rng.below(4)).unwrap_or(0);
            let length = (5 + world.rng.below(100)) * SECOND;
            let one_way = world.rng.below(3) == 0;
            world.cut(share.get(at).copied().unwrap_or(0.5), length, one_way, (None, None));
            note(if one_way { "one_way_cut" } else { "cut" });
        }
        15 if world.rng.below(4) == 0 => {
            for i in world.kill_share(0.3, &[]) {
                world.back_at(i, back);
            }
            note("mass_crash");
        }
        16 if world.rng.below(4) == 0 => {
            for i in world.kill_share(0.5, &[]) {
                world.start(i);
            }
            note("mass_restart");
        }
        _ => {}
    }
    world.run_until(world.now + SECOND);
    world.check_fleet();
    Ok(())
}

/// No more faults, and everybody comes back: the overlay becomes one (I4) and everything comes
/// everywhere (I8). The seconds that each took.
fn recover(world: &mut World) -> (u64, u64) {
    for i in world.everybody_back() {
        world.start(i);
    }
    world.net.end_cut(world.now);
    // A process that is stopped goes on when its time has come.
    let quiet = world.nodes.iter().map(|n| n.paused_until).max().unwrap_or(0).max(world.now);
    world.run_until(quiet);
    let mut one_at = None;
    loop {
        let (best, all) = world.largest_part();
        if best == all {
            one_at.get_or_insert(world.now);
        }
        let lacking = lacking(world);
        if one_at.is_some() && lacking == 0 {
            break;
        }
        if one_at.is_none() && world.now > quiet + ONE_WITHIN {
            let who = who(world);
            world.violation("I4", 0, || format!("{best} of {all} are one:{who}"));
            break;
        }
        if one_at.is_some_and(|at| world.now > at + ALL_WITHIN) {
            let who = who(world);
            world.violation("I8", 0, || format!("{lacking} items are missing:{who}"));
            break;
        }
        world.run_until(world.now + SECOND);
        world.check_fleet();
    }
    let seconds = |at: u64| (at - quiet) / SECOND;
    (one_at.map_or(u64::MAX, seconds), seconds(world.now))
}

/// The first nodes that lack items or links, in words.
fn who(world: &World) -> String {
    let most = |feed: usize| {
        let has = world.honest().map(|(_, n)| n.logs.get(feed).map_or(0, |l| l.1));
        has.max().unwrap_or(0)
    };
    let most: Vec<u64> = (0..world.feeds.all.len()).map(most).collect();
    let mut out = String::new();
    for (i, node) in world.honest() {
        let lacks: Vec<u64> = node.logs.iter().zip(&most).map(|((_, s), m)| m - s).collect();
        let sizes = node.overlay.sizes();
        if lacks.iter().any(|l| *l > 0) || sizes.near + sizes.far == 0 {
            let (life, born) = (node.life, node.born / SECOND);
            out += &format!("\n      {i} lacks {lacks:?}, life {life} since {born} s, {sizes:?}");
        }
        if out.len() > 1_000 {
            break;
        }
    }
    out
}

/// Items that some honest running node has and another lacks.
fn lacking(world: &World) -> u64 {
    let mut sum = 0;
    for feed in 0..world.feeds.all.len() {
        let has = || world.honest().map(|(_, n)| n.logs.get(feed).map_or(0, |l| l.1));
        let most = has().max().unwrap_or(0);
        sum += has().map(|h| most - h).sum::<u64>();
    }
    sum
}
