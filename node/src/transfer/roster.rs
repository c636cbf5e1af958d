//! Who else takes part in a swarm, and what follows from it for this host.

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::sites::{self, Members, Plan};
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
            list.sort_unstable();
            list.dedup();
            list.truncate(CANDIDATES_MAX);
        }
        interested.retain(|n| origins.binary_search(n).is_err());
        if let Some(injector) = &mut self.injector {
            injector.split(&self.have, me, &origins);
        }
        self.interested = interested;
        self.origins = origins;
    }
}
