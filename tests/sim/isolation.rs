//! How long hostile nodes keep an honest one apart (security.md §2): without a path of honest hosts
//! to the honest majority, or without an item that this majority has.
//!
//! A path is made of links, and of visits while they last. A host of which all neighbours are
//! hostile, as chance alone makes a few, has its visits: it may need two rounds of them (G11).

use super::world::{SECOND, World};

/// Two rounds of visits (`RANDOM_EVERY_MS`), and as long as two looks are apart.
const ISOLATED_MAX: u64 = 62 * SECOND;

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// For each feed, when the honest majority had each item.
    majority_at: Vec<Vec<u64>>,
    /// Since when each node has no path of links to the others, and none of links and visits.
    apart_since: Vec<Option<u64>>,
    alone_since: Vec<Option<u64>>,
    /// The longest that a node lacked an item, had no path of links, and had no path at all, with
    /// the node.
    pub(crate) lacked: (u64, u32),
    pub(crate) apart: (u64, u32),
    pub(crate) alone: (u64, u32),
    /// Nodes that were isolated for too long.
    pub(crate) isolated: Vec<bool>,
}

impl Isolation {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            majority_at: vec![Vec::new(); world.feeds.all.len()],
            apart_since: vec![None; world.nodes.len()],
            alone_since: vec![None; world.nodes.len()],
            lacked: (0, 0),
            apart: (0, 0),
            alone: (0, 0),
            isolated: vec![false; world.nodes.len()],
        }
    }

    /// Looks at the fleet.
    pub(crate) fn look(&mut self, world: &mut World) {
        self.note_majority(world);
        let by_links = world.parts();
        let by_visits = world.parts_with_visits();
        let mut late = Vec::new();
        for (i, node) in world.honest() {
            let at = i as usize;
            let since = |since: &mut Vec<Option<u64>>, parts: &(Vec<Option<u32>>, Option<u32>)| {
                let apart = parts.0.get(at).copied().flatten() != parts.1;
                let Some(since) = since.get_mut(at) else { return 0 };
                let begun = since.take().unwrap_or(world.now).max(node.born);
                *since = apart.then_some(begun);
                if apart { world.now - begun } else { 0 }
            };
            let apart = since(&mut self.apart_since, &by_links);
            let alone = since(&mut self.alone_since, &by_visits);
            let lacks = node.logs.iter().zip(&self.majority_at).filter_map(|((has, _), times)| {
                let next = usize::try_from(*has).ok().and_then(|n| times.get(n))?;
                Some(world.now - (*next).max(node.born))
            });
            let lacks = lacks.max().unwrap_or(0);
            self.lacked = self.lacked.max((lacks, i));
            self.apart = self.apart.max((apart, i));
            self.alone = self.alone.max((alone, i));
            if lacks.max(alone) > ISOLATED_MAX {
                late.push(i);
            }
        }
        // Faults of other kinds have times of their own.
        let calm = world.now > world.watch.disturbed + ISOLATED_MAX || world.watch.disturbed == 0;
        for i in late {
            let Some(isolated) = self.isolated.get_mut(i as usize).filter(|_| calm) else {
                continue;
            };
            if !std::mem::replace(isolated, true) {
                world.violation("I21", i, || "isolated for more than two rounds".to_owned());
            }
        }
    }

    fn note_majority(&mut self, world: &World) {
        let honest = world.honest().count();
        for (feed, times) in self.majority_at.iter_mut().enumerate() {
            let has = world.honest().map(|(_, n)| n.logs.get(feed).map_or(0, |l| l.0));
            let mut has: Vec<u64> = has.collect();
            has.sort_unstable();
            let most = has.get(honest.saturating_sub(1) / 2).copied().unwrap_or(0);
            times.resize(usize::try_from(most).unwrap_or(0).max(times.len()), world.now);
        }
    }
}
