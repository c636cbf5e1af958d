//! Simulated hosts' records: those that were ever signed are known, and no others are.

use std::sync::Arc;

use stork_wire::charter::Cell;
use stork_wire::frame::PeerHint;

use super::super::{Input, Peer};
use super::made::{make_peer, record_key};
use super::world::World;

impl World {
    /// A host's record was changed before its start.
    pub(super) fn remember(&mut self, i: usize) {
        let peer = Arc::clone(&self.hosts[i].peer);
        self.records.insert(record_key(&peer.hint), peer);
    }

    /// A host signs its record anew.
    pub(super) fn summarise(&mut self, i: usize, cell: Option<Cell>) {
        let old = &self.hosts[i].peer;
        let made = make_peer(i, old.incarnation + 1, 1);
        let (site, groups) = (old.site.clone(), old.groups.clone());
        let peer = Arc::new(Peer { site, groups, cell, ..Peer::clone(&made) });
        self.hosts[i].peer = Arc::clone(&peer);
        self.records.insert(record_key(&peer.hint), Arc::clone(&peer));
        self.input(i, Input::Local(peer));
    }

    pub(super) fn verify(&self, hints: &[PeerHint]) -> Vec<Arc<Peer>> {
        hints.iter().filter_map(|h| self.records.get(&record_key(h)).cloned()).collect()
    }
}
