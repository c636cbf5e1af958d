//! The line that tells what a method did: as JSON, or for people.

use serde_json::{Value, json};

use super::bed::{Passed, Shape};
use super::bound::{self, float};
use super::delivery::Figures;

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The line of one run.
pub(super) fn line((shape, tcp): (&Shape, &str), figures: &Figures, as_json: bool) -> String {
    let all = object(shape, tcp, figures);
    if as_json {
        return all.to_string();
    }
    let text = |key: &str| all[key].to_string();
    format!(
        "{:<10} last {} s ({} of the bound), first {} s, origin {} copies, into sites {}, \
         {} of {} hosts, corrupt {}, CPU {} s, anonymous {} KiB",
        figures.method.name(),
        text("last_s"),
        text("last_by_bound"),
        text("first_s"),
        text("origin_copies"),
        text("wan_copies"),
        text("completed"),
        text("expected"),
        text("corrupt"),
        text("cpu_s"),
        text("peak_anon_kib"),
    )
}

fn object(shape: &Shape, tcp: &str, figures: &Figures) -> Value {
    let mut seconds: Vec<f64> = figures.done.values().copied().collect();
    seconds.sort_by(f64::total_cmp);
    let len = float(figures.len);
    let copies = |bytes: u64| rounded(float(bytes) / len);
    let bound = bound::seconds(shape, figures.len);
    // Of hosts that are missing there is no last.
    let last = seconds.last().filter(|_| figures.is_whole());
    let median = (!seconds.is_empty()).then(|| crate::percentile(&seconds, 0.5));
    let site_last: Vec<Option<f64>> = (1..=shape.sites)
        .map(|site| {
            let of_site = figures.done.iter().filter(|(node, _)| shape.site(**node) == site);
            of_site.map(|(_, s)| *s).max_by(f64::total_cmp)
        })
        .collect();
    let sum = |passed: &[Passed]| passed.iter().map(|p| p.bytes).sum::<u64>();
    let drops = |passed: &[Passed]| passed.iter().map(|p| p.drops).sum::<u64>();
    let wire = &figures.wire;
    let hosts_got: Vec<Passed> = wire.got.iter().skip(1).copied().collect();
    let per_host = |bytes: u64| copies(bytes / shape.hosts as u64);
    json!({
        "schema": "stork.bench.content/v1", "method": figures.method.name(),
        "hosts": shape.hosts, "rate": shape.rate_mbit, "mib": figures.len >> 20,
        "sites": shape.sites, "wan": (shape.sites > 1).then_some(shape.wan_mbit),
        "tcp": tcp, "slow": shape.slow, "killed": figures.killed,
        "insiders": figures.insiders.iter().map(|i| i.name()).collect::<Vec<_>>(),
        "completed": figures.done.len(), "expected": figures.expected,
        "corrupt": figures.corrupt,
        "first_s": seconds.first().copied().map(rounded), "median_s": median.map(rounded),
        "last_s": last.copied().map(rounded),
        "site_last_s": (shape.sites > 1).then_some(site_last),
        "last_shown_s": figures.last_shown_s.map(rounded),
        "bound_s": rounded(bound), "last_by_bound": last.map(|l| rounded(l / bound)),
        "origin_copies": wire.sent.first().map(|p| copies(p.bytes)),
        "wan_copies": wire.entered.iter().map(|p| copies(p.bytes)).collect::<Vec<_>>(),
        "wan_back_copies": wire.left.iter().map(|p| copies(p.bytes)).collect::<Vec<_>>(),
        "sent_copies_per_host": per_host(sum(&wire.sent)),
        "received_copies_per_host": per_host(sum(&hosts_got)),
        "wire_bytes_per_host": sum(&hosts_got) / shape.hosts as u64,
        "dropped_packets":
            drops(&wire.sent) + drops(&wire.got) + drops(&wire.entered) + drops(&wire.left),
        "cpu_s": rounded(figures.cpu_s), "machine_busy": rounded(figures.busy),
        "peak_rss_kib": figures.rss_kib, "peak_anon_kib": figures.anon_kib,
    })
}
