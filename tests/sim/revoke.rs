//! `stork-sim revoke`: are revocations as fast as announcements? Acceptance row T117.
//!
//! For each seed a fleet of its own, with links, losses and deaths that the seed chooses. A thief
//! announces a release along its feed's warm tree, among a load of other announcements; in the same
//! moment its publisher takes the release before it back, at another node, in a log that nobody has
//! heard of. What is counted: when each node accepted the one and the other. All nodes must have
//! everything in the end, and the rules must hold the releases back (S6).

use std::io::Write;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::Config;

use super::meter::NEVER;
use super::news::{boot_all, missing};
use super::report::percentile;
use super::rng::{Rng, mix2};
use super::world::{Options, SECOND, World};

/// The longest that is waited until all have everything.
const DRAIN_S: u64 = 700;

/// What to simulate.
#[derive(Debug, Clone, Args)]
pub(crate) struct Revoke {
    /// Nodes of each fleet.
    #[arg(long, default_value_t = 300)]
    pub(crate) nodes: u32,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many seeds, one fleet each.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Races in each fleet.
    #[arg(long, default_value_t = 4)]
    pub(crate) races: u32,
    /// Other announcements in the moment of each race.
    #[arg(long, default_value_t = 20)]
    pub(crate) beside: u32,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the races of all fleets gave, in microseconds.
#[derive(Debug, Default)]
struct Times {
    announced: Vec<u32>,
    revoked: Vec<u32>,
    /// By how much a revocation came later than the announcement at one node, where it did.
    later: Vec<u32>,
    pairs: u64,
    violations: u64,
    lacking: u64,
}

/// Runs all seeds. The second value is the number of violations and of missing deliveries.
pub(crate) fn run(of: &Revoke) -> Result<(Value, u64)> {
    ensure!(of.nodes >= 20, "--nodes {}: at least 20", of.nodes);
    let mut times = Times::default();
    for seed in of.seed..of.seed.saturating_add(of.seeds.max(1)) {
        fleet(of, seed, &mut times)?;
        if of.seeds > 1 && (seed + 1 - of.seed).is_multiple_of(50) {
            let done = seed + 1 - of.seed;
            // Progress is for people who wait; whoever closed the pipe does not.
            drop(writeln!(std::io::stderr(), "{done} of {} seeds", of.seeds));
        }
    }
    for all in [&mut times.announced, &mut times.revoked, &mut times.later] {
        all.sort_unstable();
    }
    let of_all = |all: &[u32]| {
        json!({
            "p50": percentile(all, 0.5), "p99": percentile(all, 0.99),
            "p999": percentile(all, 0.999), "max": percentile(all, 1.0), "count": all.len(),
        })
    };
    let bad = times.violations + times.lacking;
    let value = json!({
        "schema": "stork.sim.revoke/v1", "nodes": of.nodes, "seed": of.seed, "seeds": of.seeds,
        "races": of.races, "beside": of.beside,
        "announcement_ms": of_all(&times.announced), "revocation_ms": of_all(&times.revoked),
        "later_ms": of_all(&times.later), "pairs": times.pairs,
        "p99_holds": percentile(&times.revoked, 0.99) <= percentile(&times.announced, 0.99),
        "violations": times.violations, "lacking": times.lacking,
    });
    Ok((value, bad))
}

/// One fleet and its races.
fn fleet(of: &Revoke, seed: u64, times: &mut Times) -> Result<()> {
    let mut dice = Rng::new(mix2(seed, 0x7e70));
    let mut pick = |of: &[u64]| {
        let at = usize::try_from(dice.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied().unwrap_or(0)
    };
    let options = Options {
        nodes: of.nodes,
        feeds: 5,
        sites: u32::try_from(pick(&[1, 1, 3, 10]))?,
        seed,
        commit_us: pick(&[2_000, 30_000, 100_000]),
        jitter_us: pick(&[0, 1_000, 30_000]),
        loss_ppm: pick(&[0, 1_000, 20_000]),
        no_sync: false,
        config: Config::default(),
    };
    let deaths = [0.0, 0.0, 0.1, 0.3].get(usize::try_from(pick(&[0, 1, 2, 3]))?).copied();
    let mut world = World::new(options)?;
    boot_all(&mut world, 2 * SECOND);
    world.run_until(world.now + 20 * SECOND);
    for n in 0..2 * world.options.feeds {
        world.publish(n % world.options.feeds)?;
        world.run_until(world.now + SECOND / 2);
    }
    for n in 0..of.races {
        // Deaths that nobody has noticed, in the moment of the last race.
        if n + 1 == of.races {
            let homes: Vec<u32> = world.feeds.all.iter().map(|f| f.home).collect();
            world.kill_share(deaths.unwrap_or(0.0), &homes);
        }
        race(of, &mut world, times)?;
    }
    for _ in 0..DRAIN_S {
        if missing(&world) == 0 {
            break;
        }
        world.run_until(world.now + SECOND);
    }
    times.lacking += missing(&world);
    times.violations += world.watch.count;
    Ok(())
}

fn race(of: &Revoke, world: &mut World, times: &mut Times) -> Result<()> {
    let feed = world.any_feed();
    let live: Vec<u32> = world.honest().map(|(i, _)| i).collect();
    let at = world.rng.node(live.len());
    let at = live.get(at as usize).copied().unwrap_or(0);
    for n in 0..of.beside {
        world.publish(n % world.options.feeds)?;
    }
    let revoked = world.meter.messages.len();
    let withdrawn = world.withdraw(feed, at)?;
    ensure!(withdrawn.is_some(), "nothing was taken back");
    let announced = world.meter.messages.len();
    ensure!(world.publish(feed)?.is_some(), "nothing was announced");
    world.run_until(world.now + 5 * SECOND);
    ensure!(world.feeds.holds_back(feed), "a release that was taken back is live");
    let of =
        |n: usize| world.meter.messages.get(n).map(|m| m.delays.as_slice()).unwrap_or_default();
    for (revoked, announced) in of(revoked).iter().zip(of(announced)) {
        let got = |t: u32| t != NEVER;
        times.revoked.extend(Some(*revoked).filter(|t| got(*t)));
        times.announced.extend(Some(*announced).filter(|t| got(*t)));
        if got(*revoked) && got(*announced) {
            times.pairs += 1;
            times.later.extend(revoked.checked_sub(*announced).filter(|t| *t > 0));
        }
    }
    Ok(())
}
