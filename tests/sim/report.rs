//! The figures of `stork-sim news`, from what was counted.

use serde_json::{Value, json};

use super::faults::portion;
use super::isolation::Isolation;
use super::meter::{Message, NEVER, share};
use super::news::{News, missing, part};
use super::timeline::Seen;
use super::world::{SECOND, World};

/// Frames and bytes by name.
pub(crate) fn frames(world: &World) -> Value {
    json!(world.meter.frames.iter().map(|(n, (c, b))| json!([n, c, b])).collect::<Vec<_>>())
}

/// All figures of a run.
pub(crate) fn report(news: &News, world: &World, seen: &Seen) -> Value {
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
    let after = |n: usize| fault.and_then(|f| m.messages.get(f + n));
    let next = after(seen.burst.max(1));
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
            "first": calm(true), "rest": calm(false), "at_fault": after(0).map(Message::redundancy),
            "next": next.map(Message::redundancy),
            "last": m.messages.last().map(Message::redundancy),
        },
        "last_hop": hop,
        "delivery_ms": {
            "p50": percentile(&delays, 0.5), "p99": percentile(&delays, 0.99),
            "max": percentile(&delays, 1.0), "max_steady": steady_ms,
            "at_fault": after(0).map(|m| m.last_delay() / 1_000),
            "next": next.map(|m| m.last_delay() / 1_000),
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
            "cycle": seen.part_cycle,
            "end": part(world),
        },
        "fault": faults(world, seen), "returned": returned(world),
        "isolation": seen.isolation.as_ref().map(|i| isolation(world, i)),
        "merged_s": seen.heal_s, "caught_up_s": seen.caught_up_s,
        "merge_probes": m.merge_probes, "comparisons": m.comparisons,
        "shed": m.shed, "overflows": m.overflows, "simulated_s": world.now / SECOND,
        "events": world.events, "trace": format!("{:016x}", world.trace),
        "violations": world.watch.count, "violated": world.watch.kept,
    })
}

/// What became of the messages that were published right at a fault, at those who survived it.
fn faults(world: &World, seen: &Seen) -> Option<Value> {
    let (at, first) = (seen.fault_at?, seen.fault_message?);
    let messages = world.meter.messages.iter().skip(first).take(seen.burst);
    let lasting = |i: &&u32| world.node(**i).is_some_and(|n| n.alive && n.born <= at);
    let lasting: Vec<usize> = seen.survivors.iter().filter(lasting).map(|i| *i as usize).collect();
    let delays = messages.clone().flat_map(|m| {
        let of = |i: &usize| m.delays.get(*i).copied().unwrap_or(NEVER);
        lasting.iter().map(of).collect::<Vec<u32>>()
    });
    let mut delays: Vec<u32> = delays.collect();
    delays.sort_unstable();
    let pairs = delays.len() as u64;
    let within = |us: u32| share(delays.partition_point(|d| *d <= us) as u64, pairs);
    let all = delays.last().filter(|d| **d != NEVER).map(|d| d / 1_000);
    Some(json!({
        "survivors": lasting.len(), "messages": seen.burst, "sync": !world.options.no_sync,
        "delivered": within(NEVER - 1),
        "missed": delays.iter().filter(|d| **d == NEVER).count(),
        "within_2500_ms": within(2_500_000), "within_16_s": within(16_000_000),
        "p50_ms": reached(&delays, 0.5), "p99_ms": reached(&delays, 0.99), "all_ms": all,
        "redundancy": mean(messages.map(Message::redundancy)),
    }))
}

/// How long nodes that came back needed until they had what there was when they started.
fn returned(world: &World) -> Value {
    let mut times: Vec<u32> =
        world.meter.caught_up.iter().map(|t| u32::try_from(*t).unwrap_or(NEVER)).collect();
    times.sort_unstable();
    let (all, behind) = world.meter.returned;
    json!({
        "starts": all, "behind": behind, "caught_up": times.len(),
        "p50_ms": percentile(&times, 0.5), "p99_ms": percentile(&times, 0.99),
        "max_ms": percentile(&times, 1.0),
    })
}

fn isolation(world: &World, seen: &Isolation) -> Value {
    let (links, hostile) = world.links_to_hostile();
    let of = |(us, i): (u64, u32)| json!({ "ms": us / 1_000, "node": i });
    json!({
        "lacked_most": of(seen.lacked), "apart_most": of(seen.apart),
        "alone_most": of(seen.alone), "links": links, "links_to_hostile": hostile,
        "isolated": seen.isolated.iter().filter(|i| **i).count(),
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
pub(crate) fn percentile(sorted: &[u32], part: f64) -> f64 {
    let at = portion(sorted.len().saturating_sub(1), part);
    f64::from(sorted.get(at).copied().unwrap_or(0)) / 1_000.0
}

/// The same where some never got it; `None` where so few did.
fn reached(sorted: &[u32], part: f64) -> Option<f64> {
    Some(percentile(sorted, part)).filter(|ms| *ms < f64::from(NEVER) / 1_000.0)
}

/// Seconds of processor time: of use where others compute beside.
pub(crate) fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    share(ticks, 100)
}

/// Bytes of memory that this process holds now.
pub(crate) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|p| p.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}
