//! What happens in a run of `stork-sim news` and when: messages, the fault among them, churn, and
//! the wait until all is well again. Times of faults are seen here, whole seconds after a heal.

use anyhow::{Context, Result};
use serde_json::Value;

use super::faults::portion;
use super::isolation::Isolation;
use super::meter::share;
use super::news::{News, missing, part};
use super::world::{ANCHORS, SECOND, World};

/// The longest that is waited for the last delivery and for one overlay; without sync there is no
/// repair of what trees and grafts did not bring.
const DRAIN_S: u64 = 700;
const DRAIN_NO_SYNC_S: u64 = 60;
/// Losses are found and repaired by then: the idle time-out and a few dials.
const REPAIR_ROUND: u64 = 20 * SECOND;
/// The cycle of membership (protocol.md §3a: 60 s), in which every node also shuffles once.
const CYCLE: u64 = 60 * SECOND;
/// A node that crashes in churn is back after this.
const AWAY: u64 = 30 * SECOND;

/// What the scenario saw beside the counts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) boot_part: f64,
    pub(crate) idle_bytes: f64,
    pub(crate) idle_frames: Value,
    pub(crate) skipped: u32,
    /// The fault: when, the first message after it, and how many come right then.
    pub(crate) fault_at: Option<u64>,
    pub(crate) fault_message: Option<usize>,
    pub(crate) burst: usize,
    /// Honest nodes that ran right after deaths.
    pub(crate) survivors: Vec<u32>,
    pub(crate) part_after: Option<f64>,
    pub(crate) part_repaired: Option<f64>,
    pub(crate) part_cycle: Option<f64>,
    /// The heal of a partition, or the deaths, and the items of each feed then.
    pub(crate) healed_at: Option<u64>,
    pub(crate) at_heal: Vec<u64>,
    pub(crate) heal_s: Option<f64>,
    pub(crate) caught_up_s: Option<f64>,
    pub(crate) isolation: Option<Isolation>,
}

impl Seen {
    /// Is there something that must be seen to the second?
    fn is_healing(&self, world: &World) -> bool {
        let healed = self.healed_at.is_some_and(|h| world.now >= h);
        healed && (self.heal_s.is_none() || self.caught_up_s.is_none())
    }
}

/// Publishes the messages and lets the faults happen between them.
pub(crate) fn messages(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    let start = world.now;
    let gap = news.gap_ms * 1_000;
    let half = u64::from(news.messages / 2) * gap;
    let happens = news.kill > 0.0 || news.restart > 0.0 || news.partition.is_some();
    let mut fault_at = happens.then_some(start + news.at.map_or(half, |s| s * SECOND));
    let look = news.look.unwrap_or(if news.nodes > 2_000 { 5 } else { 1 }) * SECOND;
    let (mut next_look, mut next_churn) = (start, start);
    for m in 0..news.messages {
        let at = start + u64::from(m) * gap;
        while world.now < at {
            let stop = at.min(next_look).min(next_churn).max(world.now);
            world.run_until(stop);
            if world.now >= next_look {
                observe(world, seen);
                next_look = world.now + if seen.is_healing(world) { SECOND } else { look };
            }
            if world.now >= next_churn {
                churn(news, world);
                next_churn = world.now + SECOND;
            }
        }
        if fault_at.is_some_and(|f| f <= world.now) {
            fault_at = None;
            fault(news, world, seen)?;
            burst(news, world, seen)?;
        }
        if world.publish(m % news.groups.max(1))?.is_none() {
            seen.skipped += 1;
        }
    }
    Ok(())
}

fn fault(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
    if news.kill > 0.0 {
        world.kill_share(news.kill, &homes);
        seen.part_after = Some(part(world));
        seen.healed_at = Some(world.now);
    }
    if news.restart > 0.0 {
        for i in world.kill_share(news.restart, &homes) {
            world.start(i);
        }
    }
    if let Some(text) = &news.partition {
        let mut parts = text.split(':');
        let wrong = || format!("--partition {text}: write SHARE:SECONDS, such as 0.5:60");
        let minority = parts.next().unwrap_or("0.5").parse().with_context(wrong)?;
        let seconds: u64 = parts.next().unwrap_or("60").parse().with_context(wrong)?;
        // Somebody publishes on either side.
        let ends = (homes.first().copied(), homes.last().copied().filter(|_| homes.len() > 1));
        world.cut(minority, seconds * SECOND, parts.next() == Some("oneway"), ends);
        seen.healed_at = Some(world.now + seconds * SECOND);
    }
    seen.fault_at = Some(world.now);
    seen.fault_message = Some(world.meter.messages.len());
    seen.survivors = world.honest().map(|(i, _)| i).collect();
    world.options.no_sync = news.no_sync;
    Ok(())
}

/// What is published right after the fault. One message is that of the regular sequence.
fn burst(news: &News, world: &mut World, seen: &mut Seen) -> Result<()> {
    seen.burst = 1;
    if news.burst < 2 {
        return Ok(());
    }
    let from = world.now;
    for m in 0..news.burst {
        world.run_until(from + news.burst_ms * 1_000 * u64::from(m) / u64::from(news.burst));
        if world.publish(m % news.groups.max(1))?.is_none() {
            seen.skipped += 1;
        }
    }
    seen.burst = world.meter.messages.len() - seen.fault_message.unwrap_or(0);
    Ok(())
}

/// Each second so many nodes crash that the share of a minute is reached; they come back.
fn churn(news: &News, world: &mut World) {
    for i in world.due_back() {
        world.start(i);
    }
    let per_minute = portion(1_000_000, news.churn) as u64 * u64::from(news.nodes);
    // Millionths of a node in a second.
    let per_second = per_minute / 60;
    let count = per_second / 1_000_000 + u64::from(world.rng.ppm(per_second % 1_000_000));
    for _ in 0..count {
        let i = world.rng.node(news.nodes as usize);
        if i >= ANCHORS && world.is_up(i) {
            world.kill(i);
            world.back_at(i, world.now + AWAY);
        }
    }
}

/// Looks at the whole fleet: invariants, and what has come right since the fault.
fn observe(world: &mut World, seen: &mut Seen) {
    world.check_fleet();
    if let Some(mut isolation) = seen.isolation.take() {
        isolation.look(world);
        seen.isolation = Some(isolation);
    }
    let repaired = seen.fault_at.is_some_and(|at| world.now >= at + REPAIR_ROUND);
    if seen.part_after.is_some() && seen.part_repaired.is_none() && repaired {
        seen.part_repaired = Some(part(world));
    }
    let cycle = seen.fault_at.is_some_and(|at| world.now >= at + CYCLE);
    if seen.part_after.is_some() && seen.part_cycle.is_none() && cycle {
        seen.part_cycle = Some(part(world));
    }
    if !seen.is_healing(world) {
        return;
    }
    if seen.at_heal.is_empty() {
        seen.at_heal = world.feeds.all.iter().map(|f| f.items.len() as u64).collect();
    }
    let since = seen.healed_at.map(|h| share(world.now - h, SECOND));
    let (best, all) = world.largest_part();
    if best == all && seen.heal_s.is_none() {
        seen.heal_s = since;
    }
    let has = |n: &super::world::Node| n.logs.iter().zip(&seen.at_heal).all(|(l, w)| l.1 >= *w);
    if seen.caught_up_s.is_none() && world.honest().all(|(_, n)| has(n)) {
        seen.caught_up_s = since;
    }
}

/// Waits until everything is everywhere and the fleet is one, within bounds.
pub(crate) fn drain(news: &News, world: &mut World, seen: &mut Seen) {
    let from = world.now;
    let least = seen.healed_at.unwrap_or(from).max(from) + 5 * SECOND;
    let longest = if news.no_sync { DRAIN_NO_SYNC_S } else { DRAIN_S };
    let longest = least + news.drain.unwrap_or(longest) * SECOND;
    while world.now < longest {
        world.run_until(world.now + SECOND);
        observe(world, seen);
        for i in world.due_back() {
            world.start(i);
        }
        let (best, all) = world.largest_part();
        let repaired = seen.part_after.is_none() || seen.part_cycle.is_some();
        let healed = seen.healed_at.is_none() || !seen.is_healing(world);
        let back = world.all_back();
        let well = best == all && repaired && healed && back;
        if world.now >= least && well && missing(world) == 0 {
            return;
        }
    }
}
