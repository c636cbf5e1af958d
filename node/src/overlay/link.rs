//! One active link: everything that is known of it, and the bounds of what is remembered.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::frame::LinkClass;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::tick::Tick;

use super::Key;
use super::bounded::{Rate, Recent};
use super::io::Peer;
use super::sketch::CELLS_MAX;
use super::sync::HeadsOut;

/// Logs per link for which the last prune is remembered; forgetting costs one prune too many.
pub(super) const PRUNED_MAX: usize = 1_024;
/// Items per link whose sends are counted (attack G9).
pub(super) const SERVED_MAX: usize = 1_024;
/// Items per link that were refused and are not asked for again for a while.
pub(super) const REFUSED_MAX: usize = 1_024;
/// Items per second that one host may have read from this node's disk, and at once.
const READ_BURST: u64 = 8_192;

/// Replies to shuffles that were not asked for: those of an honest host come late at times, one for
/// each shuffle at the most; more of them end the link (attack G3).
const STRANGE_EVERY_MS: u64 = 30_000;
const STRANGE_BURST: u64 = 8;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialled {
    Here,
    There,
}

/// A refused item is left alone until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shunned {
    pub(super) until: Tick,
    pub(super) times: u32,
}

/// Two fingerprints that were compared: ours and theirs.
pub(super) type Pair = ([u8; 8], [u8; 8]);

/// Everything that is known of one active link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Arc<Peer>,
    pub(super) class: LinkClass,
    pub(super) dialled: Dialled,
    pub(super) slot: u8,
    pub(super) since: Tick,
    // Liveness.
    pub(super) heard: Tick,
    pub(super) sent: Tick,
    pub(super) pinged: Tick,
    /// When the other end pinged, and whether that was the last ping of the two.
    pub(super) asked: Tick,
    pub(super) our_turn: bool,
    pub(super) ping: Option<(u32, Tick)>,
    /// It owes an answer for longer than a round trip takes (`live`).
    pub(super) doubted: bool,
    pub(super) rtt_ms: u64,
    pub(super) rtt_known: bool,
    pub(super) disagreed: u8,
    // Sync.
    pub(super) compared: bool,
    pub(super) differs: Option<(Tick, [u8; 8])>,
    /// The fingerprints that differ now, and since when.
    pub(super) still: Option<(Tick, Pair)>,
    pub(super) sync_after: Tick,
    pub(super) synced: Option<(Tick, Pair)>,
    pub(super) sync_fails: u32,
    pub(super) heads_sent: Option<Tick>,
    pub(super) heads_out: Option<HeadsOut>,
    pub(super) heads_rate: Rate,
    pub(super) sketch_rate: Rate,
    pub(super) short_rate: Rate,
    pub(super) sketch_failed: bool,
    pub(super) sketch_asked: Option<Tick>,
    pub(super) read_rate: Rate,
    pub(super) barren: u32,
    pub(super) fetch_after: Tick,
    pub(super) refused: Recent<Key, Shunned>,
    pub(super) invalid: u32,
    // Tree.
    pub(super) carries: u64,
    pub(super) ihave: Vec<(Key, Tick)>,
    pub(super) records: BTreeSet<NodeId>,
    pub(super) pruned: Recent<LogId, u64>,
    pub(super) served: Recent<Key, u8>,
    pub(super) missing: usize,
    pub(super) broken: u32,
    pub(super) deaf_until: Tick,
    pub(super) no_lead_until: Tick,
    pub(super) flights: usize,
    pub(super) shuffle_rate: Rate,
    pub(super) strange_rate: Rate,
}

impl Link {
    pub(super) fn new(
        peer: Arc<Peer>,
        class: LinkClass,
        dialled: Dialled,
        slot: u8,
        now: Tick,
    ) -> Self {
        Self {
            peer,
            class,
            dialled,
            slot,
            since: now,
            heard: now,
            sent: now,
            pinged: now,
            asked: now,
            our_turn: false,
            ping: None,
            doubted: false,
            rtt_ms: 50,
            rtt_known: false,
            disagreed: 0,
            compared: false,
            differs: None,
            still: None,
            sync_after: now,
            synced: None,
            sync_fails: 0,
            heads_sent: None,
            heads_out: None,
            // A whole set of heads is 33 frames: two sets at once, one every two seconds.
            heads_rate: Rate::new(60, 66),
            // Two whole sketches at once, then 12 kB a second; and as many short ids.
            sketch_rate: Rate::new(2, 2 * CELLS_MAX as u64),
            short_rate: Rate::new(2, 2 * CELLS_MAX as u64),
            sketch_failed: false,
            sketch_asked: None,
            read_rate: Rate::new(1, READ_BURST),
            barren: 0,
            fetch_after: now,
            refused: Recent::new(REFUSED_MAX),
            invalid: 0,
            carries: 0,
            ihave: Vec::new(),
            records: BTreeSet::new(),
            pruned: Recent::new(PRUNED_MAX),
            served: Recent::new(SERVED_MAX),
            missing: 0,
            broken: 0,
            deaf_until: now,
            no_lead_until: now,
            flights: 0,
            shuffle_rate: Rate::new(10_000, 3),
            strange_rate: Rate::new(STRANGE_EVERY_MS, STRANGE_BURST),
        }
    }

    /// The bit of this link in a tree's mask.
    pub(super) const fn bit(&self) -> u16 {
        1 << (self.slot & 15)
    }

    /// Is this item left alone because it was refused before?
    pub(super) fn shuns(&self, key: &Key, now: Tick) -> bool {
        self.refused.get(key).is_some_and(|s| s.until > now)
    }
}
