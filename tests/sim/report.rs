//! The figures of `stork-sim news`, from what was counted.

use serde_json::{Value, json};

use super::faults::portion;
use super::meter::{Message, NEVER, share};
use super::news::{News, Seen, missing, part};
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
        "heal_s": seen.heal_s, "caught_up_s": seen.caught_up_s,
        "merge_probes": m.merge_probes, "comparisons": m.comparisons,
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
