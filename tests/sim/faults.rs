//! What goes wrong in a fleet: crashes, restarts, pauses, cuts, lost disks.

use std::collections::BTreeMap;

use super::network::{Cut, IDLE_TIMEOUT};
use super::queue::Ev;
use super::world::{SECOND, World};

impl World {
    /// A process is gone; each neighbour notices some time within the idle time-out.
    pub(crate) fn kill(&mut self, i: u32) {
        let Some(node) = self.node_mut(i).filter(|n| n.alive) else { return };
        node.alive = false;
        let conns = std::mem::take(&mut node.conns);
        for (j, conn) in conns {
            let after = self.rng.below(IDLE_TIMEOUT);
            self.plan(after, j, Ev::Closed { peer: i, conn: conn.id });
        }
        self.watch.disturbed = self.now;
    }

    /// Kills a share of the nodes, other than those that are spared.
    pub(crate) fn kill_share(&mut self, share: f64, spared: &[u32]) -> Vec<u32> {
        let up: Vec<u32> = self.honest().map(|(i, _)| i).filter(|i| !spared.contains(i)).collect();
        let count = portion(self.nodes.len(), share).min(up.len());
        let mut chosen = self.rng.shuffled(up);
        chosen.truncate(count);
        for i in &chosen {
            self.kill(*i);
        }
        chosen
    }

    /// Forgets what a stopped node has on its disk.
    pub(crate) fn lose_disk(&mut self, i: u32) {
        if let Some(node) = self.node_mut(i).filter(|n| !n.alive) {
            node.logs.iter_mut().for_each(|l| *l = (0, 0));
            node.saved.clear();
            node.forks.clear();
        }
    }

    /// A process is stopped, and goes on later with all that came meanwhile.
    pub(crate) fn pause(&mut self, i: u32, length: u64) {
        let now = self.now;
        let Some(node) = self.node_mut(i).filter(|n| n.alive && n.paused_until <= now) else {
            return;
        };
        node.paused_until = now + length;
        let conns: Vec<(u32, u64)> = node.conns.iter().map(|(j, c)| (*j, c.id)).collect();
        for (j, conn) in conns {
            let after = self.rng.below(IDLE_TIMEOUT);
            if after < length {
                self.plan(after, j, Ev::Closed { peer: i, conn });
                let resumed = length + self.rng.below(SECOND);
                self.plan(resumed, i, Ev::Closed { peer: j, conn });
            }
        }
        self.watch.disturbed = now + length;
    }

    /// A node that is down shall be started at that time.
    pub(crate) fn back_at(&mut self, i: u32, at: u64) {
        self.down.insert((at, i));
    }
    /// Nodes whose time to start has come.
    pub(crate) fn due_back(&mut self) -> Vec<u32> {
        let later = self.down.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.down, later);
        due.into_iter().map(|(_, i)| i).collect()
    }
    /// All nodes that are down, whatever their time.
    pub(crate) fn everybody_back(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.down).into_iter().map(|(_, i)| i).collect()
    }
    /// Is no node to come back any more?
    pub(crate) fn all_back(&self) -> bool {
        self.down.is_empty()
    }

    /// Cuts the fleet in two for a while; `minority` is the share of the smaller side. One node may
    /// be wanted in the larger and one in the smaller side.
    pub(crate) fn cut(
        &mut self,
        minority: f64,
        length: u64,
        one_way: bool,
        ends: (Option<u32>, Option<u32>),
    ) {
        let n = self.nodes.len();
        let mut side = vec![false; n];
        let all = (0u32..).take(n).collect();
        for i in self.rng.shuffled(all).into_iter().take(portion(n, minority)) {
            if let Some(s) = side.get_mut(i as usize) {
                *s = true;
            }
        }
        for (end, smaller) in [(ends.0, false), (ends.1, true)] {
            if let Some(s) = end.and_then(|i| side.get_mut(i as usize)) {
                *s = smaller;
            }
        }
        let on = |i: u32| side.get(i as usize).copied().unwrap_or(false);
        let mut crossing: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        for (i, node) in (0u32..).zip(&self.nodes).filter(|(i, n)| n.alive && !on(*i)) {
            for (j, conn) in node.conns.iter().filter(|(j, _)| on(**j)) {
                crossing.insert(conn.id, (i, *j));
            }
        }
        self.net.cut = Some(Cut { side, heals: self.now + length, one_way });
        for (conn, (a, b)) in crossing {
            // The first side hears nothing of the second. The second hears nothing either in a
            // symmetric cut, and otherwise from when the first has given up.
            let first = self.rng.below(IDLE_TIMEOUT);
            let second = if one_way { first } else { 0 } + self.rng.below(IDLE_TIMEOUT);
            if first >= length && second >= length {
                continue;
            }
            let soon = length + SECOND;
            self.plan(first.min(soon), a, Ev::Closed { peer: b, conn });
            self.plan(second.min(soon), b, Ev::Closed { peer: a, conn });
        }
        self.watch.disturbed = self.now + length;
    }
}

/// So many of `n`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a number of nodes"
)]
pub(crate) fn portion(n: usize, share: f64) -> usize {
    (n as f64 * share.clamp(0.0, 1.0)).round() as usize
}
