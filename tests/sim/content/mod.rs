//! `stork-sim content`: how a content spreads, with the planners that ship.
//!
//! `world` moves frames and pieces over simulated links, `links` says how fast they are, `check`
//! holds what must be true after every event, and `report` compares with the lower bound. `items`
//! are the contents of a run, `agenda` is the order of events.

mod agenda;
mod check;
mod items;
mod links;
mod report;
#[cfg(test)]
mod tests;
mod wires;
mod world;

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::world::World;

/// How fast hosts and sites are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Links {
    /// Every host and every site 1 Gbit/s each way.
    Homog,
    /// Down 1 Gbit/s; up 1 Gbit/s for three of ten, 0.3 for four, 0.1 for three.
    Asym,
    /// Hosts 10 Gbit/s, sites 1 Gbit/s.
    LanWan,
}

/// How content spreads through a fleet, with or without faults.
#[derive(Debug, Clone, Args)]
pub(crate) struct Content {
    /// Hosts that want it; the origin is one more.
    #[arg(long, default_value_t = 100)]
    pub(crate) nodes: u32,
    /// Sites; the origin is in the first.
    #[arg(long, default_value_t = 1)]
    pub(crate) sites: u32,
    /// Size in MiB.
    #[arg(long, default_value_t = 1024)]
    pub(crate) mib: u64,
    /// Pieces of so many KiB; by default as a publisher packs it.
    #[arg(long)]
    pub(crate) piece_kib: Option<u32>,
    /// How fast hosts and sites are.
    #[arg(long, value_enum, default_value_t = Links::Homog)]
    pub(crate) links: Links,
    /// Share of the hosts that die on the way.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) deaths: f64,
    /// Share of the hosts whose uplink falls to a hundredth on the way.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) stalls: f64,
    /// Share of the hosts that come late.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) late: f64,
    /// A content of the background goes beside it from the start; size in MiB.
    #[arg(long, default_value_t = 0)]
    pub(crate) background_mib: u64,
    /// A content that closes a hole comes in the middle; size in MiB.
    #[arg(long, default_value_t = 0)]
    pub(crate) security_mib: u64,
    /// Share of the grants that are lost.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) lost: f64,
    /// Share of the other hosts of which each host has not heard.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) disagree: f64,
    /// Of each site so many hosts are known in other sites; 0: all.
    #[arg(long, default_value_t = 0)]
    pub(crate) contacts: u32,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Runs this seed and the ones after it, one line for each.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Prints one object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs it; gives the figures, and how many hosts that should have the content have it not.
pub(crate) fn run(options: &Content) -> anyhow::Result<(Value, u64)> {
    anyhow::ensure!((1..=200_000).contains(&options.nodes), "--nodes is from 1 to 200000");
    anyhow::ensure!((1..=options.nodes).contains(&options.sites), "--sites is from 1 to --nodes");
    for (name, mib, least) in [
        ("mib", options.mib, 1),
        ("background-mib", options.background_mib, 0),
        ("security-mib", options.security_mib, 0),
    ] {
        anyhow::ensure!((least..=65_536).contains(&mib), "--{name} is from {least} to 65536");
    }
    for (name, share) in [
        ("deaths", options.deaths),
        ("stalls", options.stalls),
        ("late", options.late),
        ("lost", options.lost),
        ("disagree", options.disagree),
    ] {
        anyhow::ensure!((0.0..=0.9).contains(&share), "--{name} is from 0 to 0.9");
    }
    let mut world = World::new(options)?;
    world.run();
    Ok(report::report(&world))
}
