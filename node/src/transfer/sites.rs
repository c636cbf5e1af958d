//! Sites: which of them gets a stripe from which, and which host of a site fetches it.
//!
//! Pieces are dealt to stripes by their number. Each stripe has a tree of its own over the sites
//! (protocol.md §3e, "between sites"): the origin's site first, with one child, then a heap with
//! two children each. The other sites stand in a ring that is turned by an equal part for each
//! stripe, so that every site is inside in about half of the trees, and passes on about what it
//! gets. Within a site one host is the gateway of a stripe, by rendezvous; nobody else fetches it
//! from outside, unless the site lacks it for long. Everybody computes the same, without a message.

use std::collections::BTreeSet;

use stork_wire::ids::{NodeId, SwarmId};

use super::rng::{mix, rendezvous};

/// Stripes of a large content (protocol.md §3e), and of a small one.
pub(super) const STRIPES_MAX: u32 = 16;
const STRIPES_MIN: u32 = 4;
/// A stripe has so many pieces at the least, if that leaves enough stripes. All of them share the
/// link of a site: with few pieces in each, a step from site to site takes a large part of the
/// whole, and many flows push each other out of the queue of a slow link.
const PIECES_MIN: u32 = 64;
/// Hosts of one site that are known elsewhere and looked at, by rendezvous.
const HOSTS_MAX: usize = 256;
/// Sites that are looked at.
const SITES_MAX: usize = 1_024;
/// Hosts of a site that may take a stripe over, one after the other.
pub(super) const RANKS: usize = 8;
/// Hosts that watch those before them in a stripe, to take it over.
pub(super) const WATCHING: usize = 2;
/// Hosts of a site above that are asked, before those of the one above it.
const RANKS_ASKED: usize = 3;

/// A site that takes part, as the whole fleet knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteHosts {
    /// A number for its name, the same everywhere.
    pub site: u64,
    /// Its hosts that want the content.
    pub hosts: Vec<NodeId>,
    /// Its hosts that have it from the publisher.
    pub origins: Vec<NodeId>,
}

/// Who takes part in a swarm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Hosts of this site that want it as well.
    pub interested: Vec<NodeId>,
    /// Hosts that have it from the publisher, wherever they are.
    pub origins: Vec<NodeId>,
    /// This site.
    pub site: u64,
    /// All sites that take part, this one too; fewer than two: there is no other.
    pub sites: Vec<SiteHosts>,
}

/// What follows from the sites for one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// How many stripes there are.
    pub(super) stripes: u32,
    /// Of each stripe: who comes before this host in its site; [`RANKS`] of them if it has no part.
    pub(super) ahead: Vec<Vec<NodeId>>,
    /// Of each stripe: how many sites are above this one.
    pub(super) depths: Vec<usize>,
    /// Of each stripe: whom to ask, the best first.
    pub(super) parents: Vec<Vec<NodeId>>,
    /// Of each stripe: its first gateway here.
    pub(super) gateways: Vec<NodeId>,
    /// Hosts before this one in stripes that it would be among the next to take over.
    pub(super) watched: BTreeSet<NodeId>,
}

/// The sites in the order of a swarm: the origin's first, the others as a ring.
struct Ring<'a> {
    root: &'a SiteHosts,
    others: Vec<&'a SiteHosts>,
    stripes: u32,
}

impl<'a> Ring<'a> {
    fn of(swarm: SwarmId, sites: &'a [SiteHosts], stripes: u32) -> Option<Self> {
        let weight = |s: &SiteHosts| mix(s.site ^ key(swarm.as_bytes()));
        let mut all: Vec<&SiteHosts> = sites.iter().take(SITES_MAX).collect();
        all.sort_by_key(|s| (s.origins.is_empty(), weight(s), s.site));
        let (root, others) = all.split_first()?;
        Some(Self { root, others: others.to_vec(), stripes })
    }

    /// How far the ring is turned for a stripe.
    fn turn(&self, stripe: u32) -> usize {
        stripe as usize * self.others.len() / self.stripes.max(1) as usize
    }

    /// The sites above one, the next first.
    fn above(&self, site: u64, stripe: u32) -> Option<Vec<&'a SiteHosts>> {
        let n = self.others.len();
        let at = self.others.iter().position(|s| s.site == site)?;
        let mut place = (at + n - self.turn(stripe) % n) % n;
        let mut above = Vec::new();
        while place > 0 {
            place = (place - 1) / 2;
            above.extend(self.others.get((place + self.turn(stripe)) % n));
        }
        above.push(self.root);
        Some(above)
    }
}

/// How many stripes a content of so many pieces is cut into.
fn stripes_of(pieces: u32) -> u32 {
    (pieces / PIECES_MIN).clamp(STRIPES_MIN, STRIPES_MAX).min(pieces)
}

pub(super) fn key(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
}

/// The gateways of a site's stripes: of each all hosts in the order in which they take it, up to
/// [`RANKS`]. No host is the first of two stripes while another is the first of none.
fn gateways(swarm: SwarmId, hosts: &[NodeId], stripes: u32) -> Vec<Vec<NodeId>> {
    let mut hosts = hosts.to_vec();
    if hosts.len() > HOSTS_MAX {
        hosts.sort_by_cached_key(|n| rendezvous(swarm.as_bytes(), *n));
        hosts.truncate(HOSTS_MAX);
    }
    let salt = key(swarm.as_bytes());
    let weight = |n: &NodeId, stripe: u32| mix(mix(key(n.as_bytes()) ^ salt) ^ u64::from(stripe));
    let mut free = hosts.clone();
    let mut first = Vec::new();
    for stripe in 0..stripes {
        if free.is_empty() {
            free.clone_from(&hosts);
        }
        let best = free.iter().enumerate().max_by_key(|(_, n)| (weight(n, stripe), **n));
        let Some((at, _)) = best else { return vec![Vec::new(); stripes as usize] };
        first.push(free.swap_remove(at));
    }
    let ranks = |(stripe, head): (u32, &NodeId)| {
        let mut rest: Vec<NodeId> = hosts.iter().copied().filter(|n| n != head).collect();
        rest.sort_by_cached_key(|n| (first.contains(n), !weight(n, stripe), *n));
        rest.truncate(RANKS - 1);
        rest.insert(0, *head);
        rest
    };
    (0..stripes).zip(&first).map(ranks).collect()
}

/// The gateways of the origin's site, if this is it and there are others: of each stripe the first.
pub(super) fn root_gateways(swarm: SwarmId, members: &Members, pieces: u32) -> Vec<NodeId> {
    let stripes = stripes_of(pieces);
    let ring = Ring::of(swarm, &members.sites, stripes);
    let Some(ring) = ring.filter(|r| r.root.site == members.site && !r.others.is_empty()) else {
        return Vec::new();
    };
    let all = gateways(swarm, &ring.root.hosts, stripes);
    all.iter().filter_map(|g| g.first().copied()).collect()
}

impl Plan {
    /// `None` where nothing comes from other sites: there is none, or the origin is in this one.
    pub(super) fn new(swarm: SwarmId, me: NodeId, members: &Members, pieces: u32) -> Option<Self> {
        if members.sites.len() < 2 {
            return None;
        }
        let stripes = stripes_of(pieces);
        let ring = Ring::of(swarm, &members.sites, stripes)?;
        let own = members.sites.iter().find(|s| s.site == members.site);
        let mut hosts = own.map(|s| s.hosts.clone()).unwrap_or_default();
        if hosts.is_empty() {
            hosts.push(me);
        }
        let mine = gateways(swarm, &hosts, stripes);
        let mut plan = Self { stripes, ..Self::default() };
        let mut known: Vec<(u64, Vec<Vec<NodeId>>)> = Vec::new();
        for (stripe, ours) in (0..stripes).zip(&mine) {
            let above = ring.above(members.site, stripe)?;
            let rank = ours.iter().position(|n| *n == me).unwrap_or(RANKS);
            if rank <= WATCHING {
                plan.watched.extend(ours.iter().take(rank));
            }
            let mut parents = Vec::new();
            for site in above.iter().filter(|_| rank < RANKS) {
                if known.iter().all(|(s, _)| *s != site.site) {
                    known.push((site.site, gateways(swarm, &site.hosts, stripes)));
                }
                let all = known.iter().find(|(s, _)| *s == site.site);
                let all = all.and_then(|(_, g)| g.get(stripe as usize));
                parents.extend(all.into_iter().flatten().take(RANKS_ASKED));
            }
            parents.extend(ring.root.origins.iter().take(RANKS_ASKED));
            // All above may be gone, and sites beside have it.
            let beside = ring.others.iter().filter(|s| s.site != members.site && rank < RANKS);
            parents.extend(beside.take(RANKS_ASKED).flat_map(|s| s.hosts.first()));
            parents.retain(|n| *n != me);
            plan.gateways.extend(ours.first());
            plan.ahead.push(ours.iter().copied().take(rank).collect());
            plan.depths.push(above.len());
            plan.parents.push(parents);
        }
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: u64) -> NodeId {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&mix(i + 1).to_be_bytes());
        NodeId(id)
    }

    fn fleet(sites: u64, hosts: u64) -> Vec<SiteHosts> {
        let of = |s: u64| SiteHosts {
            site: mix(s + 77),
            hosts: (0..hosts).map(|h| node(s * 1_000 + h)).collect(),
            origins: if s == 0 { vec![node(999_999)] } else { Vec::new() },
        };
        (0..sites).map(of).collect()
    }

    const SWARM: SwarmId = SwarmId([5; 32]);

    fn plan(sites: &[SiteHosts], at: usize, me: NodeId) -> Option<Plan> {
        let site = sites.get(at).map_or(0, |s| s.site);
        let members = Members { site, sites: sites.to_vec(), ..Members::default() };
        Plan::new(SWARM, me, &members, 1_024)
    }

    /// The origin's site fetches nothing from others, and neither does a fleet of one site.
    #[test]
    fn the_root_has_no_plan() {
        let sites = fleet(3, 4);
        assert_eq!(plan(&sites, 0, node(0)), None);
        assert_eq!(plan(&sites[..1], 0, node(0)), None);
        assert!(plan(&sites, 1, node(1_000)).is_some());
    }

    /// Every site is above others in about half of the trees, so that all pass on about as much;
    /// the root passes each stripe on once.
    #[test]
    fn all_sites_pass_on_as_much() {
        for n in [2, 3, 10, 50] {
            let sites = fleet(n, 2);
            let ring = Ring::of(SWARM, &sites, 16).unwrap();
            let mut children = std::collections::BTreeMap::<u64, u32>::new();
            for stripe in 0..16 {
                for s in &ring.others {
                    let above = ring.above(s.site, stripe).unwrap();
                    assert!(above.len() <= 7 && above.last().unwrap().site == ring.root.site);
                    *children.entry(above[0].site).or_default() += 1;
                }
            }
            assert_eq!(children.remove(&ring.root.site), Some(16));
            assert!(children.values().all(|c| *c <= 19), "{n} sites: {children:?}");
        }
    }

    /// Each stripe has one first host in a site, whoever computes it; no host has two while there
    /// are enough; and whom the hosts below ask is that very host.
    #[test]
    fn one_gateway_for_each_stripe() {
        let sites = fleet(4, 20);
        let all: Vec<Plan> = (0..20).map(|h| plan(&sites, 2, node(2_000 + h)).unwrap()).collect();
        for stripe in 0..16 {
            assert_eq!(all.iter().filter(|p| p.ahead[stripe].is_empty()).count(), 1);
        }
        assert!(all.iter().all(|p| p.ahead.iter().filter(|a| a.is_empty()).count() <= 1));
        let ring = Ring::of(SWARM, &sites, 16).unwrap();
        let stripe =
            (0..16).find(|s| ring.above(sites[3].site, *s).unwrap()[0].site == sites[2].site);
        let stripe = stripe.unwrap() as usize;
        let below = (0..20).map(|h| plan(&sites, 3, node(3_000 + h)).unwrap());
        let below = below.into_iter().find(|p| p.ahead[stripe].is_empty()).unwrap();
        let asked = below.parents[stripe][0];
        let gateway = (0u64..).zip(&all).find(|(_, p)| p.ahead[stripe].is_empty()).unwrap().0;
        assert_eq!(asked, node(2_000 + gateway));
    }

    /// Large contents have sixteen stripes, small ones four, and no stripe is without a piece.
    #[test]
    fn stripes_by_size() {
        let all = [1, 3, 4, 256, 512, 1_024, 65_536].map(stripes_of);
        assert_eq!(all, [1, 3, 4, 4, 8, 16, 16]);
    }

    /// A host that joins takes over few stripes.
    #[test]
    fn a_newcomer_changes_little() {
        let hosts: Vec<NodeId> = (0..100).map(node).collect();
        let before = gateways(SWARM, &hosts[..99], 16);
        let after = gateways(SWARM, &hosts, 16);
        let changed = before.iter().zip(&after).filter(|(a, b)| a[0] != b[0]).count();
        assert!(changed <= 2, "{changed}");
    }
}
