//! The figures of a run.

use serde_json::{Value, json};

use super::world::{Host, World};
use crate::meter::share;

fn ratio(us: u64, bound: u64) -> f64 {
    share(us, bound)
}

fn done(host: &Host, content: usize) -> Option<u64> {
    host.done.get(content).copied().flatten()
}

/// The figures, and how many hosts that live lack something.
pub(super) fn report(world: &World) -> (Value, u64) {
    let o = &world.options;
    let lasting = world.hosts.iter().skip(1).filter(|h| h.alive);
    let mut took: Vec<u64> =
        lasting.clone().filter_map(|h| Some(done(h, 0)?.saturating_sub(h.fate.joins))).collect();
    took.sort_unstable();
    let undone: usize = lasting.clone().flat_map(|h| &h.done).filter(|d| d.is_none()).count();
    let undone = undone as u64;
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
        "pieces": world.contents.first().map(super::items::Item::pieces),
        "links": format!("{:?}", o.links).to_lowercase(), "seed": o.seed,
        "bound_ms": world.bound / 1_000,
        "makespan": at(100).map(|us| ratio(us, world.bound)),
        "median": at(50).map(|us| ratio(us, world.bound)), "mean": ratio(mean, world.bound),
        "makespan_of_sites": at(100).map(|us| ratio(us, world.bound.max(bound_of_sites(world)))),
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
        "violated": world.violated, "by_site": by_site(world), "beside": beside(world),
    });
    (value, undone + world.violations)
}

/// What its own hosts need at the least for all copies in a site but the one that comes in, in
/// microseconds. The bound of the whole fleet leaves out that a site may be poorer than others.
fn bound_of_site(world: &World, site: u32) -> u64 {
    let hosts = || world.hosts.iter().filter(|h| h.site == site);
    let up: u64 = hosts().map(|h| h.fate.up).sum();
    let copies = (hosts().count() as u64).saturating_sub(1);
    copies.saturating_mul(world.bytes).saturating_mul(1_000) / up.max(1)
}

/// That of the poorest site, where there are several.
fn bound_of_sites(world: &World) -> u64 {
    let sites = if world.options.sites > 1 { 0..world.options.sites } else { 0..0 };
    sites.map(|s| bound_of_site(world, s)).max().unwrap_or(0)
}

/// Of each site: its last host, its own bound, the copies that came in, and what happened to its
/// hosts.
fn by_site(world: &World) -> Vec<Value> {
    (0u32..)
        .zip(&world.wan_in)
        .map(|(site, wan)| {
            let hosts = || world.hosts.iter().skip(1).filter(move |h| h.site == site);
            let took = |h: &Host| Some(done(h, 0)?.saturating_sub(h.fate.joins));
            let last = hosts().filter(|h| h.alive).filter_map(took).max();
            json!({
                "last": last.map(|us| ratio(us, world.bound)),
                "bound": ratio(bound_of_site(world, site), world.bound),
                "wan": share(*wan, world.bytes),
                "died": hosts().filter(|h| !h.alive).count(),
                "stalled": hosts().filter(|h| h.fate.stalls.is_some()).count(),
                "late": hosts().filter(|h| h.fate.joins > 0).count(),
            })
        })
        .collect()
}

/// What went beside the content that is measured: its class, and when its last host had it, from
/// its beginning or that of the host, divided by what one link of a host takes for it.
fn beside(world: &World) -> Vec<Value> {
    let all = world.contents.iter().enumerate().skip(1);
    all.map(|(n, item)| {
        let lasting = world.hosts.iter().skip(1).filter(|h| h.alive);
        let took = |h: &Host| Some(done(h, n)?.saturating_sub(item.starts.max(h.fate.joins)));
        let last = lasting.filter_map(took).max();
        let alone = item.bytes.saturating_mul(world.bound) / world.bytes.max(1);
        json!({
            "class": format!("{:?}", item.class).to_lowercase(), "mib": item.bytes >> 20,
            "makespan": last.map(|us| ratio(us, alone)),
        })
    })
    .collect()
}
