//! The history of one seed of the soak: what kind of fleet it is, and what goes wrong in it.

use std::collections::BTreeMap;

use anyhow::Result;
use stork_node::overlay::Config;

use super::hostile::KINDS;
use super::network::IDLE_TIMEOUT;
use super::news::boot_all;
use super::queue::Ev;
use super::rng::{Rng, mix2};
use super::world::{ANCHORS, Options, SECOND, World};

/// Seconds of quiet before the faults.
const QUIET_S: u64 = 45;
/// Seconds by which a calendar may be ahead or behind.
const SKEW_S: u64 = 300;

/// A publisher equivocates once in so many seconds, where it has a feed to lose.
const FORK_IN: u64 = 150;
/// One takes a release back once in so many seconds.
const RECALL_IN: u64 = 20;

/// What happened, and how often.
type Happened = BTreeMap<&'static str, u64>;

/// A fleet in which things go wrong.
#[derive(Debug)]
pub(crate) struct History {
    world: World,
    about: String,
    happened: Happened,
}

/// Draws from a few values.
struct Dice(Rng);

impl Dice {
    fn of(&mut self, of: &[u64]) -> u64 {
        let at = usize::try_from(self.0.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied().unwrap_or(0)
    }
}

impl History {
    /// The fleet of a seed, all of whose nodes run.
    pub(crate) fn new(seed: u64, (least, most): (u32, u32)) -> Result<Self> {
        let mut dice = Dice(Rng::new(mix2(seed, 0x50a6)));
        let span = u64::from(most.saturating_sub(least));
        let nodes = least + u32::try_from(dice.0.below(span + 1))?;
        let options = Options {
            nodes,
            feeds: u32::try_from(dice.of(&[1, 2, 3, 5, 8, 20]))?,
            sites: u32::try_from(dice.of(&[1, 1, 2, 5, 12]))?,
            seed,
            commit_us: dice.of(&[0, 2_000, 2_000, 30_000]),
            jitter_us: dice.of(&[0, 1_000, 30_000]),
            loss_ppm: dice.of(&[0, 0, 1_000, 20_000]),
            no_sync: false,
            config: Config::default(),
        };
        let hostile = dice.of(&[0, 0, 2, 5, 10]);
        let own = KINDS.len() as u64;
        // Half of the fleets have hostile nodes of all kinds.
        let kind = dice.0.below(2 * own);
        let (slow, shut) = (dice.of(&[0, 0, 5, 20]), dice.of(&[0, 0, 10, 30]));
        let about = format!(
            "nodes {nodes} sites {} feeds {} loss {} ppm hostile {hostile} % of {} slow {slow} % \
             shut {shut} %",
            options.sites,
            options.feeds,
            options.loss_ppm,
            usize::try_from(kind).ok().and_then(|k| KINDS.get(k)).map_or("all", |k| k.0),
        );
        let mut world = World::new(options)?;
        let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
        for i in ANCHORS..nodes {
            let kind = if kind < own { kind } else { world.rng.below(own) };
            let kind = usize::try_from(kind).ok().and_then(|k| KINDS.get(k)).map(|(_, k)| *k);
            let mut percent = |share: u64| world.rng.below(100) < share;
            let is_hostile = percent(hostile) && !homes.contains(&i);
            let (is_slow, is_shut) = (percent(slow), percent(shut));
            let skew = world.rng.below(2 * SKEW_S);
            let disk = (1 + world.rng.below(5)) * SECOND;
            let Some(node) = world.node_mut(i) else { continue };
            node.hostile = kind.filter(|_| is_hostile);
            node.skew_s = i64::try_from(skew)? - i64::try_from(SKEW_S)?;
            node.no_inbound = is_shut;
            if is_slow {
                node.disk_us = disk;
            }
        }
        boot_all(&mut world, (u64::from(nodes) / 100).max(1) * SECOND);
        world.run_until(world.now + QUIET_S * SECOND);
        Ok(Self { world, about, happened: BTreeMap::new() })
    }

    /// The fleet as it is, and what was done to it.
    pub(crate) fn end(self) -> (String, Happened, World) {
        (self.about, self.happened, self.world)
    }

    /// One second: some messages, and now and then a fault.
    pub(crate) fn second(&mut self) -> Result<()> {
        let world = &mut self.world;
        for i in world.due_back() {
            // A process on a full disk runs until then.
            world.kill(i);
            world.start(i);
        }
        if world.rng.below(2) == 0 {
            let feed = world.any_feed();
            world.publish(feed)?;
        }
        let what = if world.rng.below(FORK_IN) == 0 { fork(world)? } else { strike(world) };
        let recall = if world.rng.below(RECALL_IN) == 0 { recall(world)? } else { None };
        for what in [what, recall].into_iter().flatten() {
            *self.happened.entry(what).or_default() += 1;
        }
        world.run_until(world.now + SECOND);
        world.check_fleet();
        Ok(())
    }
}

/// A publisher signs two entries with one number. One feed goes on.
fn fork(world: &mut World) -> Result<Option<&'static str>> {
    let feed = world.any_feed();
    if world.feeds.forks.len() + 1 >= world.options.feeds as usize {
        return Ok(None);
    }
    Ok(world.equivocate(feed)?.then_some("equivocation"))
}

/// A publisher takes the newest release of its feed back, at any node: frozen or not.
fn recall(world: &mut World) -> Result<Option<&'static str>> {
    let feed = world.any_feed();
    let at = world.rng.node(world.nodes.len());
    Ok(world.withdraw(feed, at)?.map(|_| "recall"))
}

/// Perhaps a fault; its name.
fn strike(world: &mut World) -> Option<&'static str> {
    let n = world.nodes.len();
    let i = world.rng.node(n);
    let back = world.now + (1 + world.rng.below(90)) * SECOND;
    let up = world.is_up(i);
    match world.rng.below(60) {
        0..6 if up => {
            world.kill(i);
            world.back_at(i, back);
            Some("crash")
        }
        6..8 if up => {
            world.kill(i);
            world.lose_disk(i);
            world.back_at(i, back);
            Some("lost_disk")
        }
        8..10 if up => {
            world.kill(i);
            world.start(i);
            Some("restart")
        }
        10..14 => {
            let length = (1 + world.rng.below(40)) * SECOND;
            world.pause(i, length);
            Some("pause")
        }
        14 if world.net.cut.as_ref().is_none_or(|c| c.heals <= world.now) => Some(cut(world)),
        15 if world.rng.below(4) == 0 => {
            for i in world.kill_share(0.3, &[]) {
                world.back_at(i, back);
            }
            Some("mass_crash")
        }
        16 if world.rng.below(4) == 0 => {
            for i in world.kill_share(0.5, &[]) {
                world.start(i);
            }
            Some("mass_restart")
        }
        17..19 if up => {
            if let Some(node) = world.node_mut(i) {
                node.full_until = back;
            }
            world.back_at(i, back);
            Some("full_disk")
        }
        19..23 => reset(world, i),
        _ => None,
    }
}

fn cut(world: &mut World) -> &'static str {
    let share = [0.5, 0.1, 0.01, 0.3];
    let at = usize::try_from(world.rng.below(4)).unwrap_or(0);
    let length = (5 + world.rng.below(100)) * SECOND;
    let one_way = world.rng.below(3) == 0;
    world.cut(share.get(at).copied().unwrap_or(0.5), length, one_way, (None, None));
    if one_way { "one_way_cut" } else { "cut" }
}

/// One end of a connection is gone at once, the other notices later: meanwhile the first may dial
/// again, so that there are two connections of one pair.
fn reset(world: &mut World, i: u32) -> Option<&'static str> {
    let conns = world.node(i).map(|n| n.conns.iter().map(|(j, c)| (*j, c.id)).collect::<Vec<_>>());
    let conns = conns.filter(|c| !c.is_empty())?;
    let at = usize::try_from(world.rng.below(conns.len() as u64)).unwrap_or(0);
    let (j, conn) = conns.get(at).copied()?;
    let later = world.rng.below(IDLE_TIMEOUT);
    world.plan(0, i, Ev::Closed { peer: j, conn });
    world.plan(later, j, Ev::Closed { peer: i, conn });
    Some("reset")
}
