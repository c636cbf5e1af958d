//! Which message reached which node when: filled by the nodes' taps, read by the phases.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};

use crate::percentile;

/// Entries of one feed that are followed; a run makes fewer.
const ENTRIES_MAX: usize = 16_384;

/// One message: a publisher's entry, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) feed: usize,
    pub(super) seq: u64,
}

/// All sendings and deliveries of one run.
#[derive(Debug)]
pub(super) struct Record {
    start: Instant,
    feeds: OnceLock<BTreeMap<LogId, usize>>,
    /// Nanoseconds since the start at which each entry was sent, 0: not (in this run).
    sent: Vec<AtomicU64>,
    /// For each node and entry the microseconds since the start at which it was accepted.
    arrived: Vec<Vec<AtomicU32>>,
    /// Items that the rules accepted, on whichever node.
    accepted: AtomicU64,
    /// Deliveries of messages since the phase began, and the last one's time.
    delivered: AtomicU64,
    last_us: AtomicU64,
}

impl Record {
    pub(super) fn new(nodes: usize, feeds: usize) -> Self {
        let slots = 0..ENTRIES_MAX * feeds;
        let node = |_| slots.clone().map(|_| AtomicU32::new(0)).collect();
        Self {
            start: Instant::now(),
            feeds: OnceLock::new(),
            sent: slots.clone().map(|_| AtomicU64::new(0)).collect(),
            arrived: (0..nodes).map(node).collect(),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
        }
    }

    /// From now on these logs are the feeds.
    pub(super) fn follow(&self, feeds: impl Iterator<Item = LogId>) {
        let map = feeds.enumerate().map(|(i, log)| (log, i)).collect();
        self.feeds.set(map).unwrap_or_default();
    }

    fn slot(m: Message) -> usize {
        let seq = usize::try_from(m.seq).unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX - 1);
        m.feed * ENTRIES_MAX + seq
    }

    fn us(at: Duration) -> u64 {
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
    }

    /// A node's rules accepted an item.
    pub(super) fn heard(&self, node: usize, item: &Item) {
        self.accepted.fetch_add(1, Relaxed);
        let feed = self.feeds.get().and_then(|f| f.get(&item.log)).copied();
        let Some(feed) = feed.filter(|_| item.kind == ItemKind::Entry) else { return };
        let slot = Self::slot(Message { feed, seq: item.seq });
        let sent = self.sent.get(slot).map_or(0, |s| s.load(Relaxed));
        let Some(arrived) = self.arrived.get(node).and_then(|n| n.get(slot)) else { return };
        let now = Self::us(self.start.elapsed());
        arrived.store(u32::try_from(now).unwrap_or(u32::MAX), Relaxed);
        if sent != 0 {
            self.last_us.fetch_max(now, Relaxed);
            self.delivered.fetch_add(1, Relaxed);
        }
    }

    /// A message leaves now; what its own host accepts is no delivery.
    pub(super) fn sends(&self, m: Message, at: Instant) {
        let ns = u64::try_from(at.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        if let Some(slot) = self.sent.get(Self::slot(m)) {
            slot.store(ns, Relaxed);
        }
    }

    pub(super) fn begin_phase(&self) {
        self.delivered.store(0, Relaxed);
    }
    /// Deliveries since the phase began, with those at the publishers' own hosts.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }
    /// Items that passed the rules since the start, on all nodes.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }
    pub(super) fn last_delivery(&self) -> Instant {
        self.start + Duration::from_micros(self.last_us.load(Relaxed))
    }

    /// Waits for so many deliveries, or until nothing came for a while.
    pub(super) async fn wait(&self, expected: u64, quiet: Duration) {
        let (mut seen, mut since) = (self.delivered(), Instant::now());
        while seen < expected && since.elapsed() < quiet {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = self.delivered();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    /// Milliseconds from a message's sending to a node, if it came there.
    pub(super) fn latency_ms(&self, m: Message, node: usize) -> Option<f64> {
        let slot = Self::slot(m);
        let arrived = self.arrived.get(node)?.get(slot)?.load(Relaxed);
        let sent = self.sent.get(slot)?.load(Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let late = f64::from(arrived) / 1e3 - sent as f64 / 1e6;
        (arrived != 0).then(|| late.max(0.0))
    }

    /// The latencies of messages at nodes: at their own hosts they are no deliveries.
    pub(super) fn latencies(
        &self,
        messages: &[Message],
        nodes: &[usize],
        homes: &[usize],
    ) -> Vec<f64> {
        let of = |m: &Message, n: usize| {
            let home = homes.get(m.feed) == Some(&n);
            if home { None } else { self.latency_ms(*m, n) }
        };
        let all = messages.iter().flat_map(|m| nodes.iter().filter_map(move |n| of(m, *n)));
        let mut all: Vec<f64> = all.collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// How many of the messages reached all of the nodes.
    pub(super) fn everywhere(&self, messages: &[Message], nodes: &[usize]) -> usize {
        let whole = |m: &&Message| nodes.iter().all(|n| self.latency_ms(**m, *n).is_some());
        messages.iter().filter(whole).count()
    }
}

/// The percentiles of sorted milliseconds.
pub(super) fn percentiles(sorted: &[f64]) -> Value {
    let at = |share| percentile(sorted, share);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": sorted.last() })
}
