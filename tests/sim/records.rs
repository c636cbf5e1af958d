//! Simulated records of hosts: those that were ever signed are known, and no others are.

use std::sync::Arc;

use stork_node::overlay::{Input, Peer};
use stork_wire::charter::Cell;
use stork_wire::frame::PeerHint;

use super::world::{World, make_peer};

impl World {
    /// A node signs its record anew.
    pub(crate) fn sign_record(&mut self, i: u32, cell: Option<Cell>) {
        let seed = self.options.seed;
        let Some(node) = self.node_mut(i) else { return };
        let (incarnation, site) = (node.peer.incarnation + 1, node.peer.site.clone());
        let made = make_peer(i, incarnation, site, seed);
        let peer = Arc::new(Peer { cell, ..Peer::clone(&made) });
        node.peer = Arc::clone(&peer);
        if let Some(all) = self.records.get_mut(i as usize) {
            all.push(Arc::clone(&peer));
        }
        self.input(i, Input::Local(peer));
    }

    pub(crate) fn record(&self, i: u32, incarnation: u64) -> Option<Arc<Peer>> {
        let all = self.records.get(i as usize)?;
        all.iter().rev().find(|p| p.incarnation == incarnation).map(Arc::clone)
    }

    /// What the operator wrote down of an anchor: it may be long out of date.
    pub(crate) fn first_record(&self, i: u32) -> Option<Arc<Peer>> {
        self.records.get(i as usize)?.first().map(Arc::clone)
    }

    /// Records of a frame, checked as the driver does: only what was really signed is handed on.
    pub(crate) fn checked(&self, i: u32, hints: &[PeerHint]) -> Vec<Arc<Peer>> {
        let read = |h: &PeerHint| {
            let number = |from: usize, len: usize| {
                let bytes = h.cert.body.iter().skip(from).take(len);
                bytes.fold(0u64, |acc, b| (acc << 8) | u64::from(*b))
            };
            let j = u32::try_from(number(0, 4)).ok()?;
            if j == i { None } else { self.record(j, number(4, 8)) }
        };
        hints.iter().filter_map(read).collect()
    }

    /// What a node writes of the hosts that it knows.
    pub(crate) fn to_disk(hints: &[PeerHint]) -> Vec<(u32, u64)> {
        let cut = |h: &PeerHint, from: usize, len: usize| {
            let bytes = h.cert.body.iter().skip(from).take(len);
            bytes.fold(0u64, |acc, b| (acc << 8) | u64::from(*b))
        };
        let pair = |h: &PeerHint| (u32::try_from(cut(h, 0, 4)).unwrap_or(u32::MAX), cut(h, 4, 8));
        hints.iter().map(pair).collect()
    }
}
