//! How full everything is, and what went by: for `stork status` and for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use stork_wire::ids::NodeId;
use stork_wire::limits::LOGS_MAX;
use tokio::sync::mpsc;

use super::workers::Done;
use super::{Driver, Inbox};
use crate::trust::PENDING_MAX;

/// Which way bytes of content went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// To this host.
    In,
    /// From it.
    Out,
}

/// A queue, what waits in it, and its bound.
pub(super) type Queue = (&'static str, usize, usize);

impl Inbox {
    /// How full the queues in front of the driver are, when somebody asks.
    pub(super) fn queues(&self, outcomes: &mpsc::Receiver<Done>) -> [Queue; 5] {
        fn of<T>(name: &'static str, queue: &mpsc::Receiver<T>) -> Queue {
            (name, queue.len(), queue.max_capacity())
        }
        [
            of("queue_net", &self.net),
            of("queue_bulk", &self.bulk),
            of("queue_control", &self.control),
            of("queue_push", &self.push),
            of("queue_outcomes", outcomes),
        ]
    }
}

impl Driver {
    /// What went by at the door, and what the planner would not do.
    pub(super) fn net_json(&self) -> serde_json::Value {
        let net = self.net.counters();
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let planner = self.planner.counters();
        serde_json::json!({
            "accepted": count(&net.accepted), "dialled": count(&net.dialled),
            "dropped": count(&net.dropped), "retried": count(&net.retried),
            "promised_bytes": self.net.accountant().promised(),
            "handshakes_failed": count(&net.handshakes_failed),
            "requests_ungranted": planner.ungranted, "frames_nonsense": planner.nonsense,
        })
    }

    /// What the driver and the planner have counted, by name and reason.
    pub(super) fn all_counters(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let c = self.planner.counters();
        let planner = [
            ("bytes_stripes", "received", c.pushes_in_bytes),
            ("bytes_stripes", "sent", c.pushed_bytes),
            ("bytes_twice", "pieces", c.duplicate_bytes),
            ("grants", "expired", c.expired),
            ("grants", "given", c.grants),
            ("grants", "passed", c.passes),
            ("pieces", "duplicate", c.duplicates),
            ("pieces", "withdrawn", c.withdrawn),
            ("stripe_pieces", "received", c.pushes_in),
            ("stripe_pieces", "sent", c.pushed),
            ("stripes", "subscribed", c.subscriptions),
            ("stripes", "taken_over", c.takeovers),
        ];
        self.counters.all().chain(planner)
    }

    /// Counts bytes of content by where the other host is.
    pub(super) fn count_by_site(&mut self, other: NodeId, went: Went, bytes: u32) {
        // One whose connection has ended meanwhile is in the roster still.
        let known = || self.known_host(other).is_none_or(|p| p.site == self.site);
        let own = self.planner.is_near(other).unwrap_or_else(known);
        let reason = match (went, own) {
            (Went::In, true) => "fetched_own",
            (Went::In, false) => "fetched_other",
            (Went::Out, true) => "served_own",
            (Went::Out, false) => "served_other",
        };
        self.counters.add_many("bytes_by_site", reason, u64::from(bytes));
    }

    /// How full every bounded set of the overlay, the limits and the driver is, and each queue in
    /// front of it, with its bound (attack G13).
    pub(super) fn gauges(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let own = [
            ("checked_hosts", self.checked.len(), super::peers::CHECKED_MAX),
            ("pending_items", self.trust.pending_len(), PENDING_MAX + LOGS_MAX),
            ("events", self.counters.events_after(0).count(), super::counters::EVENTS_MAX),
        ];
        let queues = self.queues.iter().copied();
        self.overlay.gauges().chain(self.pace.gauges()).chain(own).chain(queues)
    }

    /// The same for `stork status`.
    pub(super) fn gauges_json(&self) -> serde_json::Value {
        let one = |size, cap| serde_json::json!({ "now": size, "max": cap });
        self.gauges().map(|(name, size, cap)| (name.to_owned(), one(size, cap))).collect()
    }
}
