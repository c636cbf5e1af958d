//! Who else takes part in a swarm, and what follows from it for this host.

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::rng::mix;
use super::sites::{self, Members, Plan, key};
use super::subscribe::Stripes;
use super::swarm::{CANDIDATES_MAX, Swarm};

impl Swarm {
    /// The members changed.
    pub(super) fn set_roster(&mut self, members: Members, me: NodeId, now: Tick) {
        match (Plan::new(self.id, me, &members, self.pieces()), &mut self.stripes) {
            (Some(plan), Some(stripes)) => stripes.replan(plan, now),
            (Some(plan), none) => *none = Some(Stripes::new(plan, now)),
            // Another host that has it from the publisher is in this site now.
            (None, _) => {}
        }
        let gateways = sites::root_gateways(self.id, &members, self.pieces());
        if let Some(injector) = &mut self.injector {
            injector.set_gateways(gateways.clone());
        }
        self.is_root_gateway = gateways.contains(&me);
        self.has_root_gateways = !gateways.is_empty();
        let Members { mut interested, mut origins, .. } = members;
        for list in [&mut interested, &mut origins] {
            list.retain(|n| *n != me);
            // Each host looks at others, so that all of a large site are somebody's candidates.
            if list.len() > CANDIDATES_MAX {
                let key = |n: &NodeId| mix(key(n.as_bytes()) ^ key(me.as_bytes()));
                list.select_nth_unstable_by_key(CANDIDATES_MAX, key);
                list.truncate(CANDIDATES_MAX);
                list.shrink_to_fit();
            }
            list.sort_unstable();
            list.dedup();
        }
        interested.retain(|n| origins.binary_search(n).is_err());
        if let Some(injector) = &mut self.injector {
            injector.split(&self.have, me, &origins);
        }
        self.interested = interested;
        self.origins = origins;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stork_wire::feed::Urgency;
    use stork_wire::ids::{ManifestId, SwarmId};

    use super::super::{Config, Input, Join, PieceSet, Planner, Role};
    use super::*;

    fn node(i: u64) -> NodeId {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&mix(i).to_be_bytes());
        NodeId(id)
    }

    /// In a site of 5 000 each host looks at 1 024 of them, and each one at others.
    #[test]
    fn many_hosts_look_at_different_ones() {
        let all: Vec<NodeId> = (0..5_000).map(node).collect();
        let swarm = SwarmId([5; 32]);
        let looks_at = |me: NodeId| {
            let mut p = Planner::new(Config::default(), me, 1);
            let members = Members { interested: all.clone(), ..Members::default() };
            let (have, role) = (PieceSet::empty(4), Role::Leech);
            let (manifest, urgency) = (ManifestId([6; 32]), Urgency::Normal);
            let join = Join { swarm, manifest, lens: vec![9; 4], have, urgency, role, members };
            p.handle(Tick(0), Input::Join(Box::new(join)), &mut Vec::new());
            p.swarms[&swarm].interested.iter().copied().collect::<BTreeSet<NodeId>>()
        };
        let lists: Vec<BTreeSet<NodeId>> = (0..20).map(|i| looks_at(node(i))).collect();
        assert!(lists.iter().all(|l| l.len() == CANDIDATES_MAX));
        let seen: BTreeSet<NodeId> = lists.into_iter().flatten().collect();
        assert!(seen.len() > 4_800, "{}", seen.len());
    }
}
