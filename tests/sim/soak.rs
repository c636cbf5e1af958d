//! `stork-sim soak`: each seed is a fleet with a history of its own, in which everything goes wrong
//! that can; at the end everything must be everywhere again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::history::History;
use super::world::{SECOND, World};

/// Seconds of faults.
const FAULTS_S: u64 = 300;
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
    /// Nodes of each fleet: a number, or the bounds of one that each seed draws, as `50..300`.
    #[arg(long, default_value = "300", value_parser = sizes)]
    pub(crate) nodes: (u32, u32),
    /// Where finished seeds are noted, to go on later.
    #[arg(long)]
    pub(crate) state: Option<PathBuf>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (a, b) = text.split_once("..").ok_or("two numbers with `..` between them")?;
    let read = |s: &str| s.parse::<u64>().map_err(|e| format!("`{s}`: {e}"));
    Ok((read(a)?, read(b)?))
}

fn sizes(text: &str) -> Result<(u32, u32), String> {
    let (a, b) = text.split_once("..").unwrap_or((text, text));
    let read = |s: &str| s.parse::<u32>().map_err(|e| format!("`{s}`: {e}"));
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
            let (next, (least, most)) = (seed + 1, soak.nodes);
            let line = format!("--seeds {seed}..{next} --nodes {least}..{most}");
            say(&format!("    replay: stork-sim soak {line}"));
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
pub(crate) fn one(seed: u64, nodes: (u32, u32)) -> Result<Outcome> {
    one_of(seed, nodes, FAULTS_S)
}

/// The same with another length of the history, in seconds.
pub(crate) fn one_of(seed: u64, nodes: (u32, u32), faults_s: u64) -> Result<Outcome> {
    let mut history = History::new(seed, nodes)?;
    for _ in 0..faults_s {
        history.second()?;
    }
    let (about, happened, mut world) = history.end();
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

/// No more faults, and everybody comes back: the overlay becomes one (I4) and everything comes
/// everywhere (I8). The seconds that each took.
fn recover(world: &mut World) -> (u64, u64) {
    for i in world.everybody_back() {
        world.kill(i);
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
        let unproven = node.forks.len() < world.feeds.forks.len();
        if unproven || lacks.iter().any(|l| *l > 0) || sizes.near + sizes.far == 0 {
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
        let forked = world.feeds.forks.get(&u32::try_from(feed).unwrap_or(u32::MAX));
        // The entry at a fork is void.
        let most = forked.map_or(most, |f| most.min(f.at - 1));
        sum += has().map(|h| most.saturating_sub(h)).sum::<u64>();
    }
    sum + world.unproven()
}
