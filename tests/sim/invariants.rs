//! What must hold whatever happens (protocol.md §4), apart from the scenarios.
//!
//! After every event the node that it touched is checked; every simulated second the fleet is.

use std::collections::{BTreeMap, BTreeSet};

use stork_node::overlay::{Peer, Sizes};
use stork_wire::frame::OverlayFrame;
use stork_wire::ids::NodeId;
use stork_wire::item::Item;

use super::world::{SECOND, World, number};

/// Violations that are kept with their text.
const KEPT_MAX: usize = 20;
/// Bounds of the machine's sets beside its configuration (protocol.md §3a).
const NEAR_SLACK: usize = 2;
const FAR_SLACK: usize = 1;
const PASSIVE_MAX: usize = 60;
const GRAVEYARD_MAX: usize = 256;
const MISSING_MAX: usize = 10_000;
const FLIGHTS_MAX: usize = 4_096;
/// A node that lacks links acts again within this time (I3), in milliseconds.
const ACTS_WITHIN_MS: u64 = 31_000;
/// Inputs of one node in one second (I20): a timer that fires without end shows as this.
const INPUTS_MAX: u32 = 20_000;
/// Nodes whose sets are looked at each second, chosen at random.
const SAMPLE: usize = 16;
/// A link that only one side knows (I2): two pings that disagree, or the idle time-out.
pub(crate) const ONE_SIDED_MAX: u64 = 20 * SECOND;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) count: u64,
    pub(crate) kept: Vec<String>,
    /// Links that only one side knows, and since when.
    pub(crate) one_sided: BTreeMap<(u32, u32), u64>,
    /// When the network was last disturbed: what takes time is counted from then.
    pub(crate) disturbed: u64,
}

impl Watch {
    /// A node has started: what was known of its last life is void.
    pub(crate) fn started(&mut self, i: u32) {
        self.one_sided.retain(|(a, b), _| *a != i && *b != i);
    }
}

impl World {
    /// Notes that something does not hold.
    pub(crate) fn violation(&mut self, rule: &str, i: u32, what: impl FnOnce() -> String) {
        self.watch.count += 1;
        if self.watch.kept.len() < KEPT_MAX {
            let at = self.now / 1_000;
            self.watch.kept.push(format!("{rule} at {at} ms, node {i}: {}", what()));
        }
    }

    /// Checks the node that an event has touched: bounds (I1), a next time to act (I3), and no
    /// storm of timers (I20).
    pub(crate) fn check_node(&mut self, i: u32) {
        let now = self.now;
        let config = self.options.config;
        let Some(node) = self.node_mut(i) else { return };
        let s = node.overlay.common_sizes();
        let links = s.near + s.far;
        let soon = node.tick(now).after_ms(ACTS_WITHIN_MS);
        let acts = node.overlay.deadline().is_some_and(|at| at <= soon);
        let second = now / SECOND;
        if node.wakes.0 != second {
            node.wakes = (second, 0);
        }
        node.wakes.1 += 1;
        let storm = node.wakes.1 == INPUTS_MAX;
        if out_of_bounds(&s, config.near + NEAR_SLACK, config.far + FAR_SLACK, config.roster) {
            self.violation("I1", i, || format!("{s:?}"));
        }
        if !acts && links < config.near + config.far {
            self.violation("I3", i, || format!("nothing planned with {links} links"));
        }
        if storm {
            self.violation("I20", i, || "too many inputs in one second".to_owned());
        }
    }

    /// Only genuine items are passed on by honest nodes (I11).
    pub(crate) fn check_sent(&mut self, i: u32, frame: &OverlayFrame) {
        let OverlayFrame::Push { item, .. } = frame else { return };
        let honest = self.node(i).is_some_and(super::world::Node::is_honest);
        if honest && self.own.is_none() && !self.is_genuine(item) {
            self.violation("I11", i, || "passes on an item that nobody published".to_owned());
        }
    }

    fn is_genuine(&self, item: &Item) -> bool {
        self.feeds.genuine(item).is_some() || self.fork_of(item).is_some()
    }

    /// Checks the whole fleet; called every simulated second.
    pub(crate) fn check_fleet(&mut self) {
        self.check_heads();
        self.check_sides();
        for _ in 0..SAMPLE {
            let i = self.rng.node(self.nodes.len());
            self.check_sets(i);
        }
    }

    /// No host is in two sets and none in its own (I1); a tree's parent is one of its eager links
    /// (I6); the roster knows no record that was never signed, and none of the node itself (I5).
    fn check_sets(&mut self, i: u32) {
        let Some(node) = self.node(i).filter(|n| n.alive) else { return };
        let overlay = &node.overlay;
        let linked = overlay.links().map(|l| l.peer.node);
        let all: Vec<NodeId> = linked.chain(overlay.contacts().copied()).collect();
        let distinct: BTreeSet<NodeId> = all.iter().copied().collect();
        let twice = all.len() != distinct.len() || distinct.contains(&node.peer.node);
        let lazy_parent = |f: &super::feeds::Feed| {
            let tree = overlay.tree(&f.log);
            tree.is_some_and(|t| t.parent.is_some_and(|p| !t.eager.contains(&p)))
        };
        let lazy = self.feeds.all.iter().any(lazy_parent);
        let odd = |p: &&std::sync::Arc<Peer>| {
            let newest = self.node(number(&p.node)).map_or(0, |n| n.peer.incarnation);
            p.incarnation > newest || p.node == node.peer.node
        };
        let odd = overlay.hosts().any(|p| odd(&p));
        let small = overlay.deadline().is_some();
        let over = overlay.gauges().find(|(_, size, cap)| size > cap);
        if twice {
            self.violation("I1", i, || "a host is in two sets".to_owned());
        }
        if let Some((name, size, cap)) = over {
            self.violation("I1", i, || format!("{name} is {size}, its bound {cap}"));
        }
        if lazy {
            self.violation("I6", i, || "a parent is lazy".to_owned());
        }
        if odd {
            self.violation("I5", i, || "a record that nobody signed".to_owned());
        }
        if !small {
            self.violation("I3", i, || "no next time to act".to_owned());
        }
    }

    /// The machine's heads are what the rules accepted, and so is the fingerprint; the disk may be
    /// behind, and is what a start begins with (I9).
    fn check_heads(&mut self) {
        let mut wrong = Vec::new();
        for (i, node) in self.honest() {
            let heads = (0u32..).zip(&node.logs);
            let heads = heads.filter_map(|(feed, (accepted, _))| self.held(i, feed, *accepted));
            let proven = |feed: &u32| node.forks.get(feed).is_some_and(|b| b.proven);
            let proofs = self.feeds.forks.iter().filter(|(feed, _)| proven(feed));
            let all = heads.chain(proofs.map(|(_, fork)| &fork.proof));
            let sum = all.fold(0u128, |acc, p| acc.wrapping_add(p.print));
            if sum != node.overlay.fingerprint() {
                wrong.push(i);
            }
        }
        for i in wrong {
            self.violation("I9", i, || "the fingerprint is not that of the items".to_owned());
        }
    }

    /// Links that only one side knows end soon (I2).
    fn check_sides(&mut self) {
        let graph = self.links();
        let mut open = BTreeMap::new();
        let paused = |i: u32| self.node(i).is_none_or(|n| n.paused_until > self.now);
        for (i, links) in (0u32..).zip(&graph) {
            for j in links {
                let known = graph.get(*j as usize).is_some_and(|l| l.contains(&i));
                let cut = self.net.blocked(i, *j, self.now);
                let cut = cut.or_else(|| self.net.blocked(*j, i, self.now));
                let machine = self.is_up(*j) && !self.is_puppet(*j);
                if !known && !paused(i) && !paused(*j) && cut.is_none() && machine {
                    let since = self.watch.one_sided.get(&(i, *j)).copied().unwrap_or(self.now);
                    open.insert((i, *j), since);
                }
            }
        }
        let late = open.iter().filter(|(_, since)| self.now - **since > ONE_SIDED_MAX);
        let late: Vec<(u32, u32)> = late.map(|(pair, _)| *pair).collect();
        for (i, j) in late {
            open.insert((i, j), self.now);
            self.violation("I2", i, || format!("node {j} does not know the link"));
        }
        self.watch.one_sided = open;
    }

    /// The links of each running node, as numbers; empty for the others.
    pub(crate) fn links(&self) -> Vec<Vec<u32>> {
        let of = |n: &super::world::Node| -> Vec<u32> {
            if !n.alive {
                return Vec::new();
            }
            n.overlay.links().map(|l| number(&l.peer.node)).collect()
        };
        self.nodes.iter().map(of).collect()
    }

    /// The part of each running honest node, where parts are joined by links that both ends know,
    /// and the largest.
    pub(crate) fn parts(&self) -> (Vec<Option<u32>>, Option<u32>) {
        self.parts_of(&self.links())
    }

    /// The same where visits join as well.
    pub(crate) fn parts_with_visits(&self) -> (Vec<Option<u32>>, Option<u32>) {
        let mut graph = self.links();
        for (links, node) in graph.iter_mut().zip(&self.nodes).filter(|(_, n)| n.alive) {
            links.extend(node.overlay.guests().map(number));
        }
        self.parts_of(&graph)
    }

    fn parts_of(&self, graph: &[Vec<u32>]) -> (Vec<Option<u32>>, Option<u32>) {
        let honest = |i: u32| self.node(i).is_some_and(|n| n.alive && n.is_honest());
        let mut parts = vec![None; graph.len()];
        let mut best = (0, None);
        for (start, _) in self.honest() {
            let mut stack = vec![start];
            let mut size = 0;
            while let Some(i) = stack.pop() {
                let free = |p: &&mut Option<u32>| p.is_none() && honest(i);
                let Some(part) = parts.get_mut(i as usize).filter(free) else { continue };
                *part = Some(start);
                size += 1;
                let Some(links) = graph.get(i as usize) else { continue };
                let both = |j: &&u32| graph.get(**j as usize).is_some_and(|l| l.contains(&i));
                stack.extend(links.iter().filter(both).copied());
            }
            if size > best.0 {
                best = (size, Some(start));
            }
        }
        (parts, best.1)
    }

    /// Links of honest nodes, and how many of them lead to hostile ones.
    pub(crate) fn links_to_hostile(&self) -> (usize, usize) {
        let hostile = |j: &u32| self.node(*j).is_some_and(|n| !n.is_honest());
        let graph = self.links();
        let links = self.honest().filter_map(|(i, _)| graph.get(i as usize)).flatten();
        let links: Vec<u32> = links.copied().collect();
        (links.len(), links.iter().filter(|j| hostile(j)).count())
    }

    /// Nodes in the largest part, and all running honest nodes.
    pub(crate) fn largest_part(&self) -> (usize, usize) {
        let (parts, best) = self.parts();
        let joined = parts.iter().flatten();
        (joined.clone().filter(|p| Some(**p) == best).count(), joined.count())
    }
}

const fn out_of_bounds(s: &Sizes, near: usize, far: usize, roster: usize) -> bool {
    s.near > near
        || s.far > far
        || s.passive > PASSIVE_MAX
        || s.graveyard > GRAVEYARD_MAX
        || s.roster > roster
        || s.missing > MISSING_MAX
        || s.flights > FLIGHTS_MAX
        || s.dialling > 16
        || s.pieces > 4
        || s.sessions > 3
}
