//! What a simulation measures: bytes, copies, hops and times.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of one message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) at: u64,
    /// Is it the first of its feed?
    pub(crate) first: bool,
    /// Nodes that ran when it was published.
    pub(crate) alive: u64,
    /// Copies that arrived, and those that came from another site.
    pub(crate) copies: u64,
    pub(crate) wan: u64,
    /// Links from the first node, by node; 255: not there.
    hops: Vec<u8>,
    /// When it was accepted, in microseconds after `at`, by node.
    pub(crate) delays: Vec<u32>,
}

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) messages: Vec<Message>,
    /// Frames and bytes by name, since the last reset.
    pub(crate) frames: BTreeMap<&'static str, (u64, u64)>,
    pub(crate) control_bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) merge_probes: u64,
    pub(crate) comparisons: u64,
    pub(crate) forks: u64,
    pub(crate) shed: u64,
    pub(crate) overflows: u64,
    /// Nodes that came back, and those of them that lacked something.
    pub(crate) returned: (u64, u64),
    /// For each of these, how long after its start it had what there was then.
    pub(crate) caught_up: Vec<u64>,
    feeds_seen: BTreeSet<u32>,
}

/// A node has not got the message.
pub(crate) const NEVER: u32 = u32::MAX;

impl Meter {
    /// Counts bytes that carry no item.
    pub(crate) const fn control(&mut self, bytes: u64) {
        self.control_bytes += bytes;
    }

    /// Counts a frame that is sent.
    pub(crate) fn frame(&mut self, name: &'static str, bytes: u64, payload: u64) {
        let slot = self.frames.entry(name).or_default();
        slot.0 += 1;
        slot.1 += bytes;
        self.control_bytes += bytes - payload;
        self.payload_bytes += payload;
    }

    /// Forgets bytes and frames.
    pub(crate) fn reset_bytes(&mut self) {
        self.frames.clear();
        (self.control_bytes, self.payload_bytes) = (0, 0);
    }

    /// A message begins.
    pub(crate) fn published(&mut self, at: u64, feed: u32, alive: usize, nodes: usize) {
        let first = self.feeds_seen.insert(feed);
        let (hops, delays) = (vec![u8::MAX; nodes], vec![NEVER; nodes]);
        let alive = alive as u64;
        self.messages.push(Message { at, first, alive, copies: 0, wan: 0, hops, delays });
    }

    /// A copy has arrived.
    pub(crate) fn payload(&mut self, message: u32, wan: bool) {
        if let Some(m) = self.messages.get_mut(message as usize) {
            m.copies += 1;
            m.wan += u64::from(wan);
        }
    }

    /// A node came back, and lacks so many items.
    pub(crate) const fn returned(&mut self, behind: u64) {
        self.returned.0 += 1;
        self.returned.1 += (behind > 0) as u64;
    }

    /// When a message was published.
    pub(crate) fn published_at(&self, message: u32) -> Option<u64> {
        self.messages.get(message as usize).map(|m| m.at)
    }

    /// A node that runs since `born` has accepted a message. One that did not run when the message
    /// was published has no delay that says anything.
    pub(crate) fn got(&mut self, message: u32, (i, from): (u32, Option<u32>), now: u64, born: u64) {
        let Some(m) = self.messages.get_mut(message as usize) else { return };
        let hop_of = |j: u32| m.hops.get(j as usize).copied().unwrap_or(0);
        let hop = from.map_or(0, |j| hop_of(j).saturating_add(1));
        let delay = u32::try_from(now - m.at).unwrap_or(NEVER - 1);
        let slot = m.delays.get_mut(i as usize).filter(|d| **d == NEVER && born <= m.at);
        if let Some(slot) = slot {
            *slot = delay;
            if let Some(slot) = m.hops.get_mut(i as usize) {
                *slot = hop;
            }
        }
    }
}

impl Message {
    /// Most links that a copy has crossed.
    pub(crate) fn last_hop(&self) -> u8 {
        self.hops.iter().copied().filter(|h| *h != u8::MAX).max().unwrap_or(0)
    }

    /// The last delivery, in microseconds.
    pub(crate) fn last_delay(&self) -> u32 {
        self.delays.iter().copied().filter(|d| *d != NEVER).max().unwrap_or(0)
    }

    /// Copies per node that did not need one.
    pub(crate) fn redundancy(&self) -> f64 {
        share(self.copies, self.alive.saturating_sub(1)) - 1.0
    }
}

/// A quotient, 0 where there is nothing to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
pub(crate) fn share(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}
