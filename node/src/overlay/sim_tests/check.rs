//! What must hold after every event (protocol.md §4: I1, I3, I6, I9), and questions about a fleet.

use std::collections::BTreeSet;

use stork_wire::codec::List;
use stork_wire::frame::{OverlayFrame, PeerHint};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::limits::HINTS_MAX;
use stork_wire::tick::Tick;

use super::super::Overlay;
use super::made::Mute;
use super::world::World;

/// Bounds (I1, attack G13) and a next time to act (I3).
pub(super) fn cheap(o: &Overlay, seed: u64) {
    for (name, size, cap) in o.gauges() {
        assert!(size <= cap, "{name}: {size} of {cap}, seed {seed}");
    }
    let s = o.sizes();
    let target = o.config.near + o.config.far;
    assert!(o.guests.keys().all(|n| !o.links.contains_key(n)), "guest and link, seed {seed}");
    let soon = o.deadline().is_some_and(|at| at <= o.now.after_ms(31_000));
    assert!(soon || s.near + s.far >= target, "nothing planned below the target, seed {seed}");
}

/// Sets are disjoint and without this node (I1), trees refer to links only (I6), and the running
/// fingerprint is what a count gives (I9).
pub(super) fn sets(o: &Overlay, seed: u64) {
    let sets = [
        o.links.keys().copied().collect::<BTreeSet<NodeId>>(),
        o.contacts.passive.keys().copied().collect(),
        o.contacts.graveyard.keys().copied().collect(),
    ];
    let sum: usize = sets.iter().map(BTreeSet::len).sum();
    let union: BTreeSet<NodeId> = sets.into_iter().flatten().collect();
    assert_eq!(sum, union.len(), "a host is in two sets, seed {seed}");
    assert!(!union.contains(&o.me) && !o.contacts.is_anchor(&o.me), "self is known, seed {seed}");
    let links = o.links.values().fold(0u16, |mask, l| {
        assert_eq!(mask & l.bit(), 0, "two links share a slot, seed {seed}");
        mask | l.bit()
    });
    for (eager, parent) in o.trees.masks() {
        assert_eq!(eager & !links, 0, "an eager link is none, seed {seed}");
        assert!(parent.is_none_or(|p| eager & (1 << p) != 0), "lazy parent, seed {seed}");
    }
    let sum = o.heads.iter().fold(0u128, |acc, h| acc.wrapping_add(h.fingerprint()));
    assert_eq!(sum, o.fingerprint(), "fingerprint, seed {seed}");
    assert!(o.now >= Tick(0));
}

impl World {
    /// The hosts that a host names: a poisoner only those of its kind.
    pub(super) fn poison(&self, i: usize, hints: Vec<PeerHint>) -> Vec<PeerHint> {
        if self.hosts[i].mute != Mute::Poison {
            return hints;
        }
        let kind = self.hosts.iter().filter(|h| h.mute == Mute::Poison);
        let mut kind: Vec<PeerHint> = kind.map(|h| h.peer.hint.clone()).collect();
        let turn = (i + usize::try_from(self.now / 1_000).unwrap()) % kind.len();
        kind.rotate_left(turn);
        kind.truncate(hints.len().max(1));
        kind
    }

    /// The same for a frame that names hosts.
    pub(super) fn poisoned(&self, i: usize, frame: OverlayFrame) -> OverlayFrame {
        let lie = |peers: List<_, HINTS_MAX>| List::truncated(self.poison(i, peers.into_vec()));
        match frame {
            OverlayFrame::Records(peers) => OverlayFrame::Records(lie(peers)),
            OverlayFrame::Shuffle { nonce, peers } => {
                OverlayFrame::Shuffle { nonce, peers: lie(peers) }
            }
            OverlayFrame::ShuffleReply { nonce, peers } => {
                OverlayFrame::ShuffleReply { nonce, peers: lie(peers) }
            }
            other => other,
        }
    }

    /// Hosts of the largest part that is connected by links which both ends know.
    pub(super) fn largest_part(&self) -> usize {
        let links = |i: usize| -> BTreeSet<NodeId> {
            self.hosts[i].overlay.links().map(|l| l.peer.node).collect()
        };
        let sets: Vec<BTreeSet<NodeId>> = (0..self.hosts.len()).map(links).collect();
        let id = |i: usize| self.hosts[i].peer.node;
        let mut seen = vec![false; self.hosts.len()];
        let mut best = 0;
        for start in 0..self.hosts.len() {
            let mut stack = vec![start];
            let mut size = 0;
            while let Some(i) = stack.pop() {
                if seen[i] || !self.hosts[i].alive {
                    continue;
                }
                seen[i] = true;
                size += 1;
                let both = |j: &usize| sets[i].contains(&id(*j)) && sets[*j].contains(&id(i));
                stack.extend((0..self.hosts.len()).filter(both));
            }
            best = best.max(size);
        }
        best
    }

    /// Links of running hosts which the other end does not know (I2).
    pub(super) fn one_sided(&self) -> usize {
        let links = self.hosts.iter().filter(|h| h.alive);
        let links = links.flat_map(|h| h.overlay.links().map(|l| (h.peer.node, l.peer.node)));
        let all: BTreeSet<(NodeId, NodeId)> = links.collect();
        all.iter().filter(|(a, b)| !all.contains(&(*b, *a))).count()
    }

    /// Running hosts.
    pub(super) fn alive(&self) -> usize {
        self.hosts.iter().filter(|h| h.alive).count()
    }

    /// Running hosts whose log has at least so many items.
    pub(super) fn holding(&self, log: LogId, count: u64) -> usize {
        let len = |h: &super::world::Host| h.logs.get(&log).map_or(0, Vec::len) as u64;
        self.hosts.iter().filter(|h| h.alive && len(h) >= count).count()
    }

    /// Payloads per host that did not need one, since `measured` was reset (the papers' RMR).
    pub(super) fn redundancy(&self, items: u64) -> f64 {
        let needed = items * (self.alive() as u64 - 1);
        self.measured.payloads as f64 / needed as f64 - 1.0
    }
}
