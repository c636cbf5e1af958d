//! Who would take a stripe over, and when: the hosts of a site that come before this one.
//!
//! The first of them fetches. The next ones watch it as neighbours: its end is an ended
//! connection, which they notice at once, and a broken uplink shows as pieces that only it has.
//! What they cannot see (it waits for the site above, as everybody does) gets twice the time.

use std::collections::BTreeMap;

use stork_wire::frame::TransferFrame;
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::lag::Lag;
use super::message::Action;
use super::neighbour::Neighbour;
use super::pieces::PieceSet;
use super::sites::{RANKS, WATCHING};
use super::subscribe::Stripes;
use super::swarm::{Ctx, Swarm};

/// A connection that ended may be back within this time: everybody is dialled again at once.
const GONE_MS: u64 = 250;
/// Hosts of which it is remembered that they are gone. All are forgotten beyond that, and are then
/// waited for as if they were there.
const GONE_MAX: usize = 64;

/// Hosts whose connection ended, and when.
#[derive(Debug, Default)]
pub(super) struct Gone(BTreeMap<NodeId, Tick>);

impl Gone {
    pub(super) fn note(&mut self, node: NodeId, now: Tick) {
        if self.0.len() >= GONE_MAX {
            self.0.clear();
        }
        self.0.insert(node, now);
    }

    pub(super) fn is_back(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    fn has(&self, node: NodeId, now: Tick) -> bool {
        self.0.get(&node).is_some_and(|t| now.since(*t) >= GONE_MS)
    }
}

/// How one stripe stands for this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) stripe: u32,
    /// Hosts before this one that are there.
    pub(super) rank: u64,
    /// So many times the usual patience pass before this host takes the stripe.
    pub(super) waits: u64,
    /// Sites above.
    pub(super) depth: u64,
}

impl Stripes {
    /// The stripes that this host fetches or would take over.
    pub(super) fn turns(&self, lag: &Lag, now: Tick) -> Vec<Turn> {
        let rows = (0u32..).zip(self.plan.ahead.iter().zip(&self.plan.depths));
        let rows = rows.filter(|(_, (ahead, _))| ahead.len() < RANKS);
        rows.map(|(stripe, (ahead, depth))| {
            let there = ahead.iter().filter(|n| !self.gone.has(**n, now)).count() as u64;
            let waits = if there > 0 {
                there + u64::from(!lag.is_kept(stripe))
            } else if ahead.is_empty() {
                // Whoever becomes the first while another fetches waits like the second.
                u64::from(self.by_others.get(stripe as usize).copied().unwrap_or_default())
            } else {
                0
            };
            Turn { stripe, rank: there.max(waits.min(1)), waits, depth: *depth as u64 }
        })
        .collect()
    }

    /// A host of this site says that it has a piece, as so many do now; or we have it as well.
    pub(super) fn held(
        &mut self,
        (piece, node): (u32, NodeId),
        (holders, ours): (u16, bool),
        neighbours: &BTreeMap<NodeId, Neighbour>,
        now: Tick,
    ) {
        if ours {
            let stripe = self.of(piece) as usize;
            if let (1, Some(at)) = (holders, self.spread.get_mut(stripe)) {
                *at = now;
            }
            return;
        }
        if holders == 1 {
            self.pace.seen(now);
        }
        let first = self.plan.gateways.get(self.of(piece) as usize);
        // What only the gateway has is not here yet: its uplink may be broken.
        let kept = |n: &Neighbour| n.muted.is_none() && n.have.contains(piece);
        let here = match holders {
            _ if first == Some(&node) => false,
            1 => true,
            2 => first.and_then(|n| neighbours.get(n)).is_some_and(kept),
            _ => false,
        };
        if here {
            self.brought(piece, false, now);
        }
    }

    /// A piece came here that no neighbour has.
    pub(super) fn got(&mut self, piece: u32, now: Tick) {
        self.pace.seen(now);
        self.brought(piece, true, now);
    }

    /// This site has a piece more.
    fn brought(&mut self, piece: u32, by_us: bool, now: Tick) {
        let stripe = self.of(piece);
        if let Some(at) = self.news.get_mut(stripe as usize) {
            *at = now;
        }
        if let Some(others) = self.by_others.get_mut(stripe as usize).filter(|_| !by_us) {
            *others = true;
        }
        if let Some(sub) = self.subs.get_mut(&stripe) {
            let (ours, theirs) = &mut sub.brought;
            *if by_us { ours } else { theirs } += 1;
        }
    }
}

impl Swarm {
    /// Whether this host is to leave a stripe to others of its site, since it does not pass on what
    /// it gets: its uplink is broken or closed. It may fetch it again when all that it has is here.
    pub(super) fn steps_back(&mut self, stripe: u32, stall: u64, lag: &Lag, now: Tick) -> bool {
        let others = self.neighbours.values().filter(|n| n.is_open() && !n.origin).count();
        let Some(s) = &mut self.stripes else { return false };
        let Some(spread) = s.spread.get_mut(stripe as usize) else { return false };
        if !lag.keeps(stripe) {
            *spread = now;
        }
        now.since(*spread) >= stall && others >= WATCHING
    }

    /// What others of this site brought need not cross again.
    pub(super) fn spare(&mut self, stripe: u32, absent: &PieceSet, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let Some(sub) = self.stripes.as_mut().and_then(|s| s.subs.get_mut(&stripe)) else { return };
        let here: Vec<u32> = sub.expected.iter().filter(|p| !absent.contains(*p)).collect();
        let from = sub.parent;
        for piece in here {
            sub.expected.remove(piece);
            ctx.actions.push(Action::Unexpect { from, swarm, piece });
            ctx.send(from, TransferFrame::Cancel { swarm, piece });
        }
    }

    /// A connection ended. It is noted of those that come before this host in a stripe.
    pub(super) fn standby_gone(&mut self, node: NodeId, now: Tick) {
        let Some(s) = self.stripes.as_mut().filter(|s| s.plan.watched.contains(&node)) else {
            return;
        };
        s.gone.note(node, now);
    }
}

#[cfg(test)]
mod tests {
    use stork_wire::feed::Urgency;
    use stork_wire::frame::Bits;
    use stork_wire::ids::{ManifestId, SwarmId};

    use super::super::neighbour::Link;
    use super::super::sites::Plan;
    use super::super::subscribe::Subscription;
    use super::super::{Config, Input, Join, Members, Planner, Role, SiteHosts};
    use super::*;

    /// What only the gateway of a stripe says it has is not here: whoever took the stripe over
    /// keeps it. Once somebody else has it, or brings it, it counts for the others.
    #[test]
    fn what_a_gateway_keeps_is_not_here() {
        let (gateway, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let plan = Plan { stripes: 4, gateways: vec![gateway; 4], ..Plan::default() };
        let mut s = Stripes::new(plan, Tick(0));
        s.subs.insert(1, Subscription::at(NodeId([3; 32]), 64, Tick(0)));
        let mut all: BTreeMap<NodeId, Neighbour> = BTreeMap::new();
        for node in [gateway, other] {
            all.insert(node, Neighbour::new(Link::Open, true, false, 64, 0));
        }
        let mut has = |node, piece, holders, now| {
            all.get_mut(&node).unwrap().have.insert(piece);
            s.held((piece, node), (holders, false), &all, Tick(now));
            (s.subs[&1].brought.1, s.by_others[1])
        };
        let kept = [(1, 10), (5, 20), (9, 30)].map(|(piece, now)| has(gateway, piece, 1, now));
        assert_eq!(kept, [(0, false); 3]);
        assert_eq!((has(other, 5, 2, 40), has(other, 13, 1, 50)), ((1, true), (2, true)));
        assert_eq!(has(gateway, 13, 2, 60), (2, true));
        s.got(17, Tick(70));
        assert_eq!((s.subs[&1].brought, s.news[1]), ((1, 2), Tick(70)));
    }

    /// A gateway that has three pieces which nobody takes for long leaves the stripe to others,
    /// until they have brought these; one of whose pieces was taken lately goes on.
    #[test]
    fn a_gateway_steps_back() {
        let mut p = Planner::new(Config::default(), NodeId([9; 32]), 1);
        let hosts: Vec<NodeId> = [1, 2, 9].map(|i| NodeId([i; 32])).to_vec();
        let far = SiteHosts { site: 1, hosts: Vec::new(), origins: vec![NodeId([8; 32])] };
        let near = SiteHosts { site: 2, hosts: hosts.clone(), origins: Vec::new() };
        let members =
            Members { interested: hosts, site: 2, sites: vec![far, near], ..Members::default() };
        let (swarm, manifest) = (SwarmId([5; 32]), ManifestId([6; 32]));
        let (lens, have) = (vec![1_024; 64], PieceSet::of([1, 5, 9], 64));
        let (urgency, role) = (Urgency::Normal, Role::Leech);
        let join = Join { swarm, manifest, lens, have, urgency, role, members };
        p.handle(Tick(0), Input::Join(Box::new(join)), &mut Vec::new());
        for i in [1, 2] {
            let (node, mut out) = (NodeId([i; 32]), Vec::new());
            p.handle(Tick(0), Input::PeerUp { node, same_site: true }, &mut out);
            let frame = TransferFrame::Open { swarm, pieces: 64, have: Bits::default() };
            p.handle(Tick(0), Input::Frame { from: node, frame }, &mut out);
        }
        let s = p.swarms.get_mut(&swarm).unwrap();
        let gateways = s.stripes.as_ref().unwrap().plan.gateways.clone();
        let back = |s: &mut Swarm, now| {
            let lag = s.lag(4, &gateways);
            [0, 1].map(|stripe| s.steps_back(stripe, 400, &lag, Tick(now)))
        };
        assert_eq!(back(s, 399), [false, false]);
        assert_eq!(back(s, 400), [false, true]);
        s.learn(NodeId([1; 32]), 5, Tick(401));
        assert_eq!(back(s, 402), [false, false]);
        s.gain(13, Tick(403));
        assert_eq!((back(s, 801), back(s, 802)), ([false, false], [false, true]));
    }
}
