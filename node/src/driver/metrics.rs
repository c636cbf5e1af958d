//! `GET /metrics`: what `stork status` says in numbers, in the text format of Prometheus 0.0.4.
//!
//! Written by hand. Everything here is counted by the driver's one loop already, in maps with fixed
//! names and reasons; a library would count it all a second time, in order to print it in a format
//! of three rules. Names are stable; labels have few values, none of which a peer can choose.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use stork_wire::item::ItemKind;

use super::Driver;
use crate::net::OUTBOX_BYTES_MAX;
use crate::store::Health;
use crate::transfer::Way;
use crate::trust::{AdmissionError, Refusal};

/// Counters that are shown before they have counted anything, by name and reasons: an alarm on one
/// that is missing would never ring.
const KNOWN: &[(&str, &[&str])] = &[
    ("beacons", &["alarm", "made", "withheld"]),
    ("bytes_by_site", &["fetched_other", "fetched_own", "served_other", "served_own"]),
    ("bootstrap", &["failed", "reached"]),
    (
        "connections_refused",
        &["frame_too_long", "left", "malformed", "not_admitted", "not_hello", "silent"],
    ),
    ("content_refused", &["no_grant"]),
    ("contents", &["unpack_failed", "whole"]),
    ("damaged", &["manifest", "object", "pack", "set", "tree"]),
    ("dials", &["admitter", "failed"]),
    ("feeds", &["branch_left", "epoch_begun", "fresh", "frozen", "stale"]),
    ("fetches_refused", &["disk", "no_inodes", "no_space", "over_quota", "read_only"]),
    ("forks", &["seen"]),
    ("frames_ignored", &["unknown_type"]),
    ("frames_shed", &["lazy"]),
    ("group_keys", &["given", "refused", "taken"]),
    ("hosts_refused", AdmissionError::CODES),
    ("items_committed", ItemKind::CODES),
    ("items_ignored", &["later_kind"]),
    ("items_limited", &["given_back", "group", "publisher", "withdrawals"]),
    ("items_pending", ItemKind::CODES),
    ("items_refused", Refusal::CODES),
    ("joins", &["admitted"]),
    ("joins_refused", AdmissionError::CODES),
    ("joins_refused", &["used_token"]),
    ("journal", &["failed", "full", "waits"]),
    ("links", &["down", "up"]),
    ("manifests", &["disk", "too_many"]),
    ("merge_probes", &["sent"]),
    (
        "narrowed",
        &["denied", "grant", "halted", "host", "recalled", "resumed", "retired", "suicide"],
    ),
    ("origin_requests", &["begun", "denied", "down", "missing", "verified", "wrong"]),
    ("peers_at_fault", &["frame", "order", "stuck"]),
    ("peers_limited", &["frames"]),
    ("pieces", &["bad", "disk", "not_sent", "stolen"]),
    ("pushes_refused", AdmissionError::CODES),
    ("pushes_refused", Refusal::CODES),
    (
        "pushes_refused",
        &["busy", "content_missing", "disk", "head_moved", "not_home", "version_taken"],
    ),
    ("pushes_refused", &["not_sealed", "unread"]),
    ("repacks", &["different", "same"]),
    ("scrubs", &["done"]),
    ("sealed", &["unread"]),
    ("small_contents", &["bad", "fetched", "not_kept", "served"]),
    ("swarms", &["bad", "hungry", "too_many"]),
    ("switches", &["done", "failed", "mix_and_match", "rolled_back", "shadowed"]),
    ("syncs", &["begun"]),
    ("vm_files", &["bad"]),
];

/// The page as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begins a family: all its samples follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: core::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        self.0.write_fmt(line).unwrap_or_default();
        self.0.push('\n');
    }

    /// One sample with at most one label, whose value is one of ours: no character to escape.
    fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: u64) {
        match label {
            Some((key, word)) => self.line(format_args!("{name}{{{key}=\"{word}\"}} {value}")),
            None => self.line(format_args!("{name} {value}")),
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.family(name, "gauge", help);
        self.sample(name, None, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, None, value);
    }
}

/// The name of a counter of the driver: with its unit, where it counts bytes.
fn counter_name(name: &str) -> String {
    name.strip_prefix("bytes_")
        .map_or_else(|| format!("stork_{name}_total"), |what| format!("stork_{what}_bytes_total"))
}

impl Driver {
    /// The whole page.
    pub(super) fn metrics(&self) -> String {
        let mut page = Page::default();
        page.family("stork_build_info", "gauge", "The version of this node.");
        page.sample("stork_build_info", Some(("version", env!("CARGO_PKG_VERSION"))), 1);
        self.state_metrics(&mut page);
        self.feed_metrics(&mut page);
        self.set_metrics(&mut page);
        self.outbox_metrics(&mut page);
        self.bandwidth_metrics(&mut page);
        self.traffic_metrics(&mut page);
        self.counter_metrics(&mut page);
        page.0
    }

    fn state_metrics(&self, page: &mut Page) {
        let uptime = self.clock.unix().saturating_sub(self.started_unix);
        page.family("stork_uptime_seconds", "gauge", "Time since the start.");
        page.sample("stork_uptime_seconds", None, uptime);
        let current = self.vms.values().filter(|v| self.is_current(v)).count();
        let good = matches!(self.store.health(), Health::Good);
        let expires = self.own_cert().map_or(0, |c| c.expires);
        page.family(
            "stork_certificate_expires_timestamp_seconds",
            "gauge",
            "When this host's certificate runs out.",
        );
        page.sample("stork_certificate_expires_timestamp_seconds", None, expires);
        let due = self.documents_due().len();
        page.gauge("stork_documents_due", "Charter documents that run out within a month.", due);
        page.gauge("stork_store_writable", "1: the store takes writes.", usize::from(good));
        let scrub = self.scrub.place();
        for (name, help, value) in [
            ("stork_scrub_bytes", "Bytes looked at in this round of the scrub.", scrub.bytes),
            ("stork_scrub_all_bytes", "Bytes that a round looks at.", scrub.total),
            ("stork_scrub_finished_timestamp_seconds", "End of the last round.", scrub.finished),
        ] {
            page.family(name, "gauge", help);
            page.sample(name, None, value);
        }
        let known = self.overlay.hosts().count() + 1;
        page.gauge("stork_peers", "Hosts with a control connection.", self.connections.len());
        page.gauge("stork_links", "Links of the overlay.", self.overlay.links().count());
        page.gauge("stork_known_hosts", "Hosts that are known by their records.", known);
        page.gauge("stork_vms", "VMs of this host.", self.vms.len());
        page.gauge("stork_vms_current", "VMs that show all that they should.", current);
        page.gauge("stork_vm_files_bad", "VM files that are not good.", self.folder.bad().len());
        page.gauge("stork_releases", "Releases that are known.", self.catalog.len());
        let documents = self.trust.charter().document_count();
        page.gauge("stork_documents", "Charter documents in force.", documents);
    }

    fn feed_metrics(&self, page: &mut Page) {
        page.family("stork_feeds", "gauge", "Feeds by freshness.");
        for (state, count) in self.feeds_by_state() {
            page.sample("stork_feeds", Some(("state", state)), count);
        }
        let frozen = self.frozen_json().len();
        page.gauge("stork_feeds_frozen", "Feeds that a proof has frozen.", frozen);
    }

    /// Every bounded set, with its bound.
    fn set_metrics(&self, page: &mut Page) {
        page.family("stork_set_size", "gauge", "How full a bounded set is.");
        for (name, size, _) in self.gauges() {
            page.sample("stork_set_size", Some(("set", name)), size as u64);
        }
        page.family("stork_set_size_max", "gauge", "The bound of a set.");
        for (name, _, max) in self.gauges() {
            page.sample("stork_set_size_max", Some(("set", name)), max as u64);
        }
    }

    fn outbox_metrics(&self, page: &mut Page) {
        let waiting = || self.connections.values().map(|l| l.connected.outbox.level().0);
        let (sum, most) = (waiting().sum(), waiting().max().unwrap_or(0));
        page.gauge("stork_outboxes_bytes", "Bytes that wait for all peers.", sum);
        page.gauge("stork_outbox_largest_bytes", "Bytes that wait for one peer at most.", most);
        page.gauge("stork_outbox_max_bytes", "Bytes that may wait for one peer.", OUTBOX_BYTES_MAX);
    }

    /// A way without a limit has no sample in the first family; a closed one has 0.
    fn bandwidth_metrics(&self, page: &mut Page) {
        let name = "stork_bandwidth_limit_bytes_per_second";
        page.family(name, "gauge", "What content may take; 0: closed but for urgent content.");
        for way in Way::ALL {
            let limit = self.planner.limit(way).0;
            if let Some(rate) = if limit.closed { Some(0) } else { limit.per_s } {
                page.sample(name, Some(("way", way.name())), rate);
            }
        }
        let name = "stork_bandwidth_waits_total";
        page.family(name, "counter", "Times that content waited for a limit.");
        for way in Way::ALL {
            page.sample(name, Some(("way", way.name())), self.planner.limit(way).1);
        }
    }

    fn traffic_metrics(&self, page: &mut Page) {
        let net = self.net.counters();
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let (served, fetched, unexpected) = self.net.bulk().totals();
        let (planner, gossip) = (self.planner.counters(), self.overlay.counters());
        let all: [(&str, &str, u64); 21] = [
            ("connections_accepted", "Connections that were taken.", count(&net.accepted)),
            ("connections_dialled", "Connections that were dialled.", count(&net.dialled)),
            ("connections_dropped", "Connections that were too many.", count(&net.dropped)),
            ("handshakes_failed", "TLS handshakes that failed.", count(&net.handshakes_failed)),
            ("content_served_bytes", "Bytes of content sent to hosts.", served),
            ("content_fetched_bytes", "Bytes of content from hosts.", fetched),
            ("bulk_streams_unexpected", "Streams that nobody asked for.", unexpected),
            ("piece_requests_ungranted", "Requests without a grant.", planner.ungranted),
            ("transfer_frames_nonsense", "Frames without sense.", planner.nonsense),
            ("gossip_pushes_in", "Items that came as pushes.", gossip.pushes_in),
            ("gossip_pushes_out", "Items that went out as pushes.", gossip.pushes_out),
            ("gossip_duplicates", "Pushes of what was here already.", gossip.duplicates),
            ("gossip_delivered", "Items that were judged.", gossip.delivered),
            ("gossip_grafts", "Grafts sent.", gossip.grafts),
            ("gossip_prunes", "Prunes sent.", gossip.prunes),
            ("gossip_leads", "Trees that turned toward a faster link.", gossip.leads),
            ("gossip_syncs", "Comparisons of heads begun.", gossip.syncs),
            ("gossip_sketches_failed", "Sketches of no use.", gossip.sketches_failed),
            ("gossip_visits", "Hosts without a link that were asked.", gossip.visits),
            ("gossip_dropped", "Things not taken at a bound.", gossip.dropped),
            ("gossip_unsolicited", "Answers that nobody asked for.", gossip.unsolicited),
        ];
        for (name, help, value) in all {
            page.counter(&format!("stork_{name}_total"), help, value);
        }
    }

    /// All counters of the driver, by reason.
    fn counter_metrics(&self, page: &mut Page) {
        let mut all = std::collections::BTreeMap::new();
        for (name, reasons) in KNOWN {
            all.extend(reasons.iter().map(|reason| ((*name, *reason), 0)));
        }
        all.extend(self.all_counters().map(|(name, reason, count)| ((name, reason), count)));
        // Those of connections that are open are not counted yet.
        let open = self.connections.values().map(|l| l.connected.outbox.level().1);
        *all.entry(("frames_shed", "lazy")).or_default() += open.sum::<u64>();
        let mut before = "";
        for ((name, reason), count) in all {
            let metric = counter_name(name);
            if name != before {
                page.family(&metric, "counter", "See the table of counters in OPERATIONS.md.");
                before = name;
            }
            page.sample(&metric, Some(("reason", reason)), count);
        }
    }
}
