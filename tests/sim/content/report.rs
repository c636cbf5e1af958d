//! The figures of a run.

use serde_json::{Value, json};

use super::world::World;
use crate::meter::share;

fn ratio(us: u64, bound: u64) -> f64 {
    share(us, bound)
}

/// The figures, and how many hosts that live lack something.
pub(super) fn report(world: &World) -> (Value, u64) {
    let o = &world.options;
    let lasting = world.hosts.iter().skip(1).filter(|h| h.alive);
    let mut took: Vec<u64> =
        lasting.clone().filter_map(|h| Some(h.done?.saturating_sub(h.fate.joins))).collect();
    took.sort_unstable();
    let undone = lasting.clone().filter(|h| h.done.is_none()).count() as u64;
    let at = |part: usize| took.get((took.len().saturating_sub(1)) * part / 100).copied();
    let (got, wasted): (u64, u64) =
        world.hosts.iter().fold((0, 0), |(g, w), h| (g + h.got, w + h.wasted));
    let egress = world.hosts.first().map_or(0, |h| h.sent_bytes);
    let wan: Vec<f64> =
        world.wan_in.iter().skip(1).map(|bytes| share(*bytes, world.bytes)).collect();
    let most = world.hosts.iter().skip(1).map(|h| h.sent_bytes).max().unwrap_or(0);
    let sum = |f: fn(&stork_node::transfer::Counters) -> u64| {
        world.hosts.iter().map(|h| f(&h.planner.counters())).sum::<u64>()
    };
    let mean = took.iter().sum::<u64>() / (took.len() as u64).max(1);
    let wan_mean = wan.iter().sum::<f64>() / f64::from(o.sites.saturating_sub(1).max(1));
    let value = json!({
        "schema": "stork.sim.content/v1", "nodes": o.nodes, "sites": o.sites, "mib": o.mib,
        "pieces": world.pieces, "links": format!("{:?}", o.links).to_lowercase(), "seed": o.seed,
        "bound_ms": world.bound / 1_000,
        "makespan": at(100).map(|us| ratio(us, world.bound)),
        "median": at(50).map(|us| ratio(us, world.bound)), "mean": ratio(mean, world.bound),
        "first": at(0).map(|us| ratio(us, world.bound)),
        "origin_egress": share(egress, world.bytes),
        "host_egress_most": share(most, world.bytes),
        "wan_copies": { "mean": wan_mean, "most": wan.iter().copied().fold(0.0, f64::max) },
        "duplicates": share(wasted, got), "undone": undone,
        "died": world.hosts.iter().filter(|h| !h.alive).count(),
        "stolen": sum(|c| c.stolen), "passes": sum(|c| c.passes), "grants": sum(|c| c.grants),
        "pushes": sum(|c| c.pushes), "subscriptions": sum(|c| c.subscriptions),
        "takeovers": sum(|c| c.takeovers), "frames": world.frames, "events": world.events,
        "trace": format!("{:016x}", world.trace), "violations": world.violations,
        "violated": world.violated, "by_site": by_site(world),
    });
    (value, undone + world.violations)
}

/// Of each site: its last host, the copies that came in, and what happened to its hosts.
fn by_site(world: &World) -> Vec<Value> {
    (0u32..)
        .zip(&world.wan_in)
        .map(|(site, wan)| {
            let hosts = || world.hosts.iter().skip(1).filter(move |h| h.site == site);
            let took = |h: &super::world::Host| Some(h.done?.saturating_sub(h.fate.joins));
            let last = hosts().filter(|h| h.alive).filter_map(took).max();
            json!({
                "last": last.map(|us| ratio(us, world.bound)),
                "wan": share(*wan, world.bytes),
                "died": hosts().filter(|h| !h.alive).count(),
                "stalled": hosts().filter(|h| h.fate.stalls.is_some()).count(),
                "late": hosts().filter(|h| h.fate.joins > 0).count(),
            })
        })
        .collect()
}
