//! `stork-sim sync`: the bytes that two real machines need to find in which feeds they differ.
//!
//! Two nodes with a link; the second lacks the newest item of some feeds. Frames of sync are
//! counted in both directions until both have the same heads; items themselves are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::{Action, Config, Input, Overlay, Peer};
use stork_wire::codec::{Blob, List};
use stork_wire::frame::{LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::LogId;
use stork_wire::item::{Head, Item, ItemKind};
use stork_wire::limits::ITEMS_PER_FRAME_MAX;
use stork_wire::sign::Envelope;
use stork_wire::tick::Tick;

use super::driver::compares;
use super::frame_size::{frame_bytes, payload_bytes};
use super::world::{node_id, number};

/// One way, in milliseconds.
const WAY_MS: u64 = 10;
/// The two must agree within this time.
const LONGEST_MS: u64 = 600_000;

/// What to compare.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sync {
    /// Feeds that both have.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) feeds: u64,
    /// Feeds of which one side lacks the newest item.
    #[arg(long, default_value_t = 10)]
    pub(crate) differences: u64,
    /// Chance.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

fn envelope(body: Vec<u8>) -> Envelope {
    Envelope { body: Blob::new(body).unwrap_or_default(), signatures: List::empty() }
}

fn item(log: LogId, seq: u64) -> Item {
    let mut body = log.0.to_vec();
    body.extend(seq.to_be_bytes());
    Item { kind: ItemKind::Entry, log, seq, envelope: envelope(body) }
}

fn peer(i: u32, seed: u64) -> Result<Arc<Peer>> {
    let hint = PeerHint { cert: envelope(vec![1]), record: envelope(Vec::new()) };
    let (node, site) = (node_id(i, seed), "site".parse()?);
    let (addrs, groups) = (Vec::new(), Vec::new());
    Ok(Arc::new(Peer {
        node,
        site,
        addrs,
        incarnation: 1,
        groups,
        cell: None,
        expires: Tick(u64::MAX),
        hint,
    }))
}

/// The two machines and what travels between them.
struct Two {
    now: u64,
    order: u64,
    sides: [Overlay; 2],
    ways: BTreeMap<(u64, u64), (usize, OverlayFrame)>,
    frames: BTreeMap<&'static str, (u64, u64)>,
    /// Bytes of sync, and the most that one input made a side say at once.
    bytes: u64,
    burst: u64,
    last: u64,
}

impl Two {
    fn input(&mut self, side: usize, input: Input) {
        let mut actions = Vec::new();
        let Some(overlay) = self.sides.get_mut(side) else { return };
        overlay.handle(Tick(self.now), input, &mut actions);
        let mut burst = 0;
        for action in actions {
            match action {
                Action::Send { frame, .. } => burst += self.send(side, frame),
                Action::ReadItems { ranges, .. } => {
                    let all = ranges.iter().flat_map(|r| (r.from..=r.to).map(|s| item(r.log, s)));
                    let all: Vec<Item> = all.collect();
                    for chunk in all.chunks(ITEMS_PER_FRAME_MAX) {
                        let items = List::truncated(chunk.iter().cloned());
                        self.send(side, OverlayFrame::Items(items));
                    }
                }
                Action::Deliver { from, item, .. } => {
                    let (log, seq, hash) = (item.log, item.seq, item.envelope.hash());
                    let (item, source) = (Arc::new(item), Some(from));
                    self.input(side, Input::Committed { log, seq, hash, item, source });
                }
                _ => {}
            }
        }
        self.burst = self.burst.max(burst);
    }

    fn send(&mut self, side: usize, frame: OverlayFrame) -> u64 {
        let bytes = frame_bytes(&frame);
        let slot = self.frames.entry(frame.name()).or_default();
        *slot = (slot.0 + 1, slot.1 + bytes);
        let sync = compares(&frame) || matches!(frame, OverlayFrame::Items(_));
        if sync {
            self.bytes += bytes - payload_bytes(&frame);
            self.last = self.now;
        }
        self.order += 1;
        self.ways.insert((self.now + WAY_MS, self.order), (1 - side, frame));
        bytes
    }

    /// The next frame or deadline.
    fn step(&mut self, ids: [stork_wire::ids::NodeId; 2]) {
        let due = |s: &Overlay| s.deadline().map_or(u64::MAX, |t| t.0);
        let deadline = self.sides.iter().map(due).min().unwrap_or(u64::MAX).max(self.now);
        let frame = self.ways.first_key_value().map(|((at, _), _)| *at);
        if frame.is_some_and(|at| at <= deadline) {
            let Some(((at, _), (to, frame))) = self.ways.pop_first() else { return };
            self.now = at;
            let Some(from) = ids.get(1 - to).copied() else { return };
            self.input(to, Input::Frame { from, frame });
            return;
        }
        self.now = deadline;
        for side in 0..2 {
            if self.sides.get(side).map_or(u64::MAX, due) <= self.now {
                self.input(side, Input::Deadline);
            }
        }
    }

    fn agree(&self) -> bool {
        let mut prints = self.sides.iter().map(Overlay::fingerprint);
        prints.next() == prints.next()
    }
}

/// Measures.
pub(crate) fn run(sync: &Sync) -> Result<Value> {
    let (a, b) = (peer(0, sync.seed)?, peer(1, sync.seed)?);
    let side = |p: &Peer| Overlay::new(Config::default(), p.node, p.site.clone(), sync.seed);
    let mut two = Two {
        now: 0,
        order: 0,
        sides: [side(&a), side(&b)],
        ways: BTreeMap::new(),
        frames: BTreeMap::new(),
        bytes: 0,
        burst: 0,
        last: 0,
    };
    let head = |n: u64, behind: bool| {
        let log = LogId::of(&n.to_le_bytes());
        let seq = 2 + n % 300 - u64::from(behind);
        Head::of(log, seq, item(log, seq).envelope.hash())
    };
    let heads = |lacks: u64| (0..sync.feeds).map(|n| head(n, n < lacks)).collect();
    two.input(0, Input::Heads(heads(0)));
    two.input(1, Input::Heads(heads(sync.differences.min(sync.feeds))));
    two.input(0, Input::Local(Arc::clone(&a)));
    two.input(1, Input::Local(Arc::clone(&b)));
    let class = LinkClass::Near;
    two.input(1, Input::Bootstrap { known: vec![Arc::clone(&a)], anchors: Vec::new() });
    // The second side dials; what the driver does for a dial is done by hand.
    while !two.sides.iter().any(|s| s.sizes().dialling > 0) {
        two.step([a.node, b.node]);
        if two.now > LONGEST_MS {
            bail!("node {} was never dialled", number(&a.node));
        }
    }
    two.input(0, Input::Hello { peer: Arc::clone(&b), class, starving: true });
    two.input(1, Input::Linked { peer: a.clone(), class, hints: Vec::new() });
    let linked = two.now;
    while (!two.agree() || !two.ways.is_empty()) && two.now < linked + LONGEST_MS {
        two.step([a.node, b.node]);
    }
    Ok(json!({
        "schema": "stork.sim.sync/v1", "feeds": sync.feeds, "differences": sync.differences,
        "bytes": two.bytes, "agree": two.agree(), "milliseconds": two.last.saturating_sub(linked),
        "frames": two.frames.iter().map(|(n, (c, b))| json!([n, c, b])).collect::<Vec<_>>(),
        "burst": two.burst, "overflow": two.burst > 256 * 1024,
    }))
}
