//! A state folder that was put back from a backup: noticed, and nothing is decided by it until
//! neighbours were heard.
//!
//! Such a host has forgotten what it accepted since the copy. As the home of a feed it might give
//! a number to a second entry, and its VMs might go back to what was taken away. It cannot see
//! that by itself, since a copy is consistent. But each start raises the number of its own signed
//! record, on disk before anybody hears of it, and other hosts remember records: whoever sees it
//! come back tells it the last one. A record of a start that its own state does not know of says
//! that the state is older than the host. Nobody else can sign one. A crash is none of that: the
//! number is durable before it is said.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::charter::{PeerRecord, UnixSeconds};
use stork_wire::codec::List;
use stork_wire::frame::{Frame, OverlayFrame};
use stork_wire::ids::NodeId;

use super::Driver;
use super::peers::RESTART_STEP;
use crate::net::Priority;
use crate::overlay::Peer;
use crate::store::{Store, StoreError};

/// The row that says since when the state counts as restored.
const ROW: &str = "restored";
/// Hosts that must have the same heads, where there are so many.
const EQUAL_MIN: usize = 2;

/// Seconds for which hosts are waited for that the state knew and that do not answer.
const KNOWN_WAIT_S: u64 = 600;

/// What is known of the own state's age.
#[derive(Debug)]
pub(super) struct Restored {
    /// The number of the last record that was signed before this start, as far as the state knows.
    before: u64,
    /// The first one of this start.
    first: u64,
    since: Option<UnixSeconds>,
    /// Hosts that the state knew at the start.
    pub(super) known: usize,
    equal: BTreeSet<NodeId>,
}

impl Restored {
    pub(super) fn load(store: &Store, before: u64, first: u64) -> Result<Self, StoreError> {
        let row = store.get_state(ROW)?.and_then(|b| <[u8; 8]>::try_from(b).ok());
        let since = row.map(u64::from_le_bytes);
        Ok(Self { before, first, since, known: 0, equal: BTreeSet::new() })
    }

    /// Does a record of this host tell of a start that its state knows nothing of? `newest` is the
    /// number of the newest one that this process signed.
    const fn is_unknown(&self, told: u64, newest: u64) -> bool {
        told >= self.before.saturating_add(RESTART_STEP) && (told < self.first || told > newest)
    }
}

impl Driver {
    /// Is the state older than the host, and not made up for yet?
    pub(super) const fn is_restored(&self) -> bool {
        self.restored.since.is_some()
    }

    /// Somebody passed on a record of this host.
    pub(super) fn on_own_record(&mut self, record: &PeerRecord) {
        let unknown = self.restored.is_unknown(record.incarnation, self.record.incarnation);
        if !unknown || self.is_restored() {
            return;
        }
        let now = self.clock.unix();
        self.restored.since = Some(now);
        if let Err(e) = self.store.put_state(ROW, &now.to_le_bytes()) {
            tracing::warn!("it is not saved that the state was restored: {e}");
        }
        // The next restart knows of the record that told it.
        self.restored.before = record.incarnation;
        self.event(
            "state_restored",
            "other hosts know of a later start than this state does: it was put back from a \
             backup. Publishers are refused, and VMs stay as they are, until it has caught up",
        );
    }

    /// Tells a host that comes with another record than the last one here which that was. How far
    /// apart the two are says nothing: a restored host does not know by how much to go on.
    pub(super) fn tell_past(&mut self, node: NodeId, known: Option<Arc<Peer>>, incarnation: u64) {
        if let Some(known) = known.filter(|p| p.incarnation != incarnation) {
            let hints = List::truncated([known.hint.clone()]);
            let frame = Frame::Overlay(OverlayFrame::Records(hints));
            self.send(node, Priority::Control, &frame);
        }
    }

    /// A host says how far it is: the same as here?
    pub(super) fn note_equal(&mut self, node: NodeId, frame: &OverlayFrame) {
        if !self.is_restored() {
            return;
        }
        let (OverlayFrame::Ping { fingerprint, .. } | OverlayFrame::Pong { fingerprint, .. }) =
            frame
        else {
            return;
        };
        let own = self.overlay.fingerprint().to_be_bytes();
        if !own.starts_with(fingerprint) {
            return;
        }
        self.restored.equal.insert(node);
        if self.restored.equal.len() < self.equal_needed() {
            return;
        }
        if let Err(e) = self.store.remove_state(ROW) {
            tracing::warn!("it is not saved that the state has caught up: {e}");
            return;
        }
        self.restored.since = None;
        self.restored.equal.clear();
        self.event("state_caught_up", "the restored state is as new as that of its neighbours");
        self.replan_soon();
    }

    /// Two hosts, or all that there are. Those that the state knew are waited for a while.
    fn equal_needed(&self) -> usize {
        let now = self.clock.unix();
        let early = self.restored.since.is_some_and(|s| now < s.saturating_add(KNOWN_WAIT_S));
        let known = if early { self.restored.known } else { 0 };
        self.overlay.hosts().count().max(known).clamp(1, EQUAL_MIN)
    }

    /// For `stork status`; null where nothing was restored.
    pub(super) fn restored_json(&self) -> Value {
        self.restored.since.map_or(Value::Null, |since| {
            json!({
                "since": since, "equal": self.restored.equal.len(),
                "needed": self.equal_needed(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of the last run, as many as it may have signed, and of this one are none that would
    /// be unknown; one of a start between the two is, and one that is later than all.
    #[test]
    fn only_a_start_between_is_unknown() {
        let own =
            Restored { before: 5_000, first: 9_000, since: None, known: 0, equal: BTreeSet::new() };
        for told in [0, 4_999, 5_000, 5_999, 9_000, 9_004] {
            assert!(!own.is_unknown(told, 9_004), "{told}");
        }
        for told in [6_000, 8_999, 9_005, u64::MAX] {
            assert!(own.is_unknown(told, 9_004), "{told}");
        }
    }
}
