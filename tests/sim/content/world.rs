//! The simulated hosts: who is there, what happens to them, and the agenda.
//!
//! Time is in microseconds; planners see milliseconds. Host 0 is the origin.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use stork_node::transfer::{
    Config, Input, Join, Members, PieceSet, Planner, Role, SiteHosts, Topic,
};
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};

use super::Content;
use super::agenda::Due;
use super::items::{Item, items};
use super::links::{self, Fate};
use super::wires::{node, number};
use crate::rng::{Rng, mix2};

/// One way inside a site, and between two (protocol.md §3e).
pub(super) const IN_SITE_US: u64 = 250;
pub(super) const BETWEEN_US: u64 = 20_000;
/// A dead host is noticed after this (protocol.md §3e).
const NOTICED_US: u64 = 250_000;
/// A host that comes is known to others after this.
const KNOWN_US: u64 = 100_000;
/// Links of the overlay, inside a site, that are there from the start.
const LINKS: usize = 7;
/// A run ends after so many times its bound, and a minute.
const ENDS_AFTER: u64 = 20;
/// Violations that are told.
pub(super) const TOLD_MAX: usize = 5;

/// A piece on an uplink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) to: u32,
    pub(super) content: usize,
    pub(super) piece: u32,
    pub(super) bytes: u64,
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) planner: Planner,
    pub(super) fate: Fate,
    pub(super) is_origin: bool,
    pub(super) alive: bool,
    pub(super) site: u32,
    pub(super) joined: bool,
    conns: BTreeSet<u32>,
    pub(super) queue: VecDeque<Job>,
    pub(super) turn: u64,
    pub(super) down_free: u64,
    pub(super) wake: u64,
    /// Of each content: what really came or was there, and when it was whole.
    pub(super) truth: Vec<PieceSet>,
    pub(super) done: Vec<Option<u64>>,
    pub(super) got: u64,
    pub(super) wasted: u64,
    pub(super) sent_bytes: u64,
}

#[derive(Debug)]
pub(super) enum Ev {
    Call(u32, Box<Input>),
    Frame(u32, u32, Box<TransferFrame>),
    Wake(u32),
    Turn(u32, u64),
    Arrive { from: u32, job: Job },
    Sent { from: u32, job: Job },
    Into { from: u32, job: Job },
    Down { from: u32, job: Job },
    Connect(u32, u32),
    Join(u32),
    Begin(usize),
    Kill(u32),
    Stall(u32),
    Notice(u32, u32),
}

/// A fleet and its contents.
pub(super) struct World {
    pub(super) options: Content,
    pub(super) hosts: Vec<Host>,
    pub(super) bytes: u64,
    pub(super) contents: Vec<Item>,
    pub(super) bound: u64,
    pub(super) frames: u64,
    pub(super) events: u64,
    pub(super) trace: u64,
    pub(super) violations: u64,
    pub(super) violated: Vec<String>,
    /// Bytes that came into each site.
    pub(super) wan_in: Vec<u64>,
    pub(super) wan_up_free: Vec<u64>,
    pub(super) wan_down_free: Vec<u64>,
    lists: Vec<Vec<NodeId>>,
    known: Arc<Vec<SiteHosts>>,
    agenda: BinaryHeap<Reverse<Due>>,
    serial: u64,
    pub(super) now: u64,
    pub(super) open: usize,
    rng: Rng,
}

fn ppm(share: f64) -> u64 {
    crate::faults::portion(1_000_000, share) as u64
}

impl World {
    pub(super) fn new(options: &Content) -> anyhow::Result<Self> {
        let bytes = options.mib << 20;
        let mut rng = Rng::new(options.seed);
        let (fates, bound) = links::fates(options, bytes, &mut rng);
        let contents = items(options, bound)?;
        let sites = options.sites as usize;
        let host =
            |(i, fate): (u32, Fate)| Host {
                planner: Planner::new(Config::default(), node(i), mix2(options.seed, u64::from(i))),
                fate,
                is_origin: i == 0,
                alive: true,
                site: i % options.sites,
                joined: false,
                conns: BTreeSet::new(),
                queue: VecDeque::new(),
                turn: 0,
                down_free: 0,
                wake: u64::MAX,
                truth: contents
                    .iter()
                    .map(|c| {
                        if i == 0 {
                            PieceSet::full(c.pieces())
                        } else {
                            PieceSet::empty(c.pieces())
                        }
                    })
                    .collect(),
                done: vec![(i == 0).then_some(0); contents.len()],
                got: 0,
                wasted: 0,
                sent_bytes: 0,
            };
        let hosts: Vec<Host> = (0u32..).zip(fates).map(host).collect();
        let open = (hosts.len() - 1) * contents.len();
        let mut world = Self {
            options: options.clone(),
            hosts,
            bytes,
            contents,
            bound,
            frames: 0,
            events: 0,
            trace: 0,
            violations: 0,
            violated: Vec::new(),
            wan_in: vec![0; sites],
            wan_up_free: vec![0; sites],
            wan_down_free: vec![0; sites],
            lists: vec![Vec::new(); sites],
            known: Arc::new(Vec::new()),
            agenda: BinaryHeap::new(),
            serial: 0,
            now: 0,
            open,
            rng,
        };
        world.begin();
        Ok(world)
    }

    /// Who is there at the start, and what will happen to whom.
    fn begin(&mut self) {
        for i in 1..self.count() {
            let Some(host) = self.hosts.get(i as usize) else { continue };
            if let (0, Some(list)) = (host.fate.joins, self.lists.get_mut(host.site as usize)) {
                list.push(node(i));
            }
        }
        self.publish_lists();
        for (n, starts) in self.contents.iter().map(|c| c.starts).enumerate().collect::<Vec<_>>() {
            if starts > 0 {
                self.at(starts, Ev::Begin(n));
            }
        }
        for i in 0..self.count() {
            let Some(fate) = self.hosts.get(i as usize).map(|h| h.fate) else { continue };
            self.at(fate.joins, Ev::Join(i));
            if let Some(at) = fate.dies {
                self.at(at, Ev::Kill(i));
            }
            if let Some(at) = fate.stalls {
                self.at(at, Ev::Stall(i));
            }
        }
    }

    /// What is known of all sites everywhere.
    fn publish_lists(&mut self) {
        let most = if self.options.contacts == 0 { u32::MAX } else { self.options.contacts };
        let site = |(s, hosts): (u64, &Vec<NodeId>)| SiteHosts {
            site: s + 1,
            hosts: hosts.iter().copied().take(most as usize).collect(),
            origins: if s == 0 { vec![node(0)] } else { Vec::new() },
        };
        self.known = Arc::new((0u64..).zip(&self.lists).map(site).collect());
    }

    /// The number of a content.
    pub(super) fn content(&self, swarm: SwarmId) -> usize {
        self.contents.iter().position(|c| c.swarm == swarm).unwrap_or(0)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn at(&mut self, us: u64, ev: Ev) {
        self.serial += 1;
        self.agenda.push(Reverse(Due(us, self.serial, ev)));
    }

    /// Runs until every host that lives has everything, or for very long.
    pub(super) fn run(&mut self) {
        let ends = self.bound * ENDS_AFTER + 60_000_000;
        while self.open > 0
            && let Some(Reverse(Due(us, _, ev))) = self.agenda.pop()
        {
            if us > ends {
                return;
            }
            self.now = us;
            self.events += 1;
            self.step(ev);
        }
    }

    fn step(&mut self, ev: Ev) {
        match ev {
            Ev::Call(i, input) => self.call(i, *input),
            Ev::Frame(from, to, frame) => {
                let linked = |h: &Host| h.alive && h.conns.contains(&to);
                let lost = matches!(*frame, TransferFrame::Grant { .. })
                    && self.rng.below(1_000_000) < ppm(self.options.lost);
                if self.hosts.get(from as usize).is_some_and(linked) && !lost {
                    self.frames += 1;
                    self.call(to, Input::Frame { from: node(from), frame: *frame });
                }
            }
            Ev::Wake(i) => {
                let now = self.now;
                let due = self.hosts.get_mut(i as usize).filter(|h| h.wake == now);
                if let Some(host) = due {
                    host.wake = u64::MAX;
                    self.call(i, Input::Deadline);
                }
            }
            Ev::Turn(i, turn) => self.turn_over(i, turn),
            Ev::Into { from, job } => self.enter_site(from, job),
            Ev::Down { from, job } => self.down(from, job),
            Ev::Sent { from, job } => self.sent(from, job),
            Ev::Arrive { from, job } => self.arrive(from, job),
            Ev::Connect(a, b) => self.connect(a, b),
            Ev::Join(i) => self.join(i),
            Ev::Begin(n) => (0..self.count()).for_each(|i| self.take_part(i, n)),
            Ev::Kill(i) => self.kill(i),
            Ev::Stall(i) => {
                if let Some(host) = self.hosts.get_mut(i as usize) {
                    host.fate.up = (host.fate.up / 100).max(1);
                }
            }
            Ev::Notice(i, dead) => {
                if let Some(host) = self.hosts.get_mut(i as usize) {
                    host.conns.remove(&dead);
                }
                self.call(i, Input::PeerDown { node: node(dead) });
            }
        }
    }

    fn members(&self, i: u32) -> Members {
        let site = self.hosts.get(i as usize).map_or(0, |h| h.site);
        let here = self.lists.get(site as usize).cloned().unwrap_or_default();
        let mut members = Members {
            interested: here,
            origins: vec![node(0)],
            site: u64::from(site) + 1,
            sites: if self.options.sites > 1 { self.known.to_vec() } else { Vec::new() },
        };
        // Each host has not heard of other ones.
        let unknown = |n: &NodeId| {
            mix2(u64::from(i) << 32 ^ u64::from(number(*n)), self.options.seed) % 1_000_000
                < ppm(self.options.disagree)
        };
        members.interested.retain(|n| number(*n) == i || !unknown(n));
        for site in &mut members.sites {
            site.hosts.retain(|n| number(*n) == i || !unknown(n));
        }
        members
    }

    /// A host begins with a content, if both are there.
    fn take_part(&mut self, i: u32, content: usize) {
        let (Some(host), Some(item)) = (
            self.hosts.get(i as usize).filter(|h| h.alive && h.joined),
            self.contents.get(content),
        ) else {
            return;
        };
        let join = Join {
            swarm: item.swarm,
            manifest: ManifestId([9; 32]),
            lens: item.lens.clone(),
            have: host.truth.get(content).cloned().unwrap_or_default(),
            urgency: item.class,
            role: if host.is_origin { Role::Origin } else { Role::Leech },
            members: self.members(i),
        };
        self.call(i, Input::Join(Box::new(join)));
    }

    fn join(&mut self, i: u32) {
        let Some(host) = self.hosts.get_mut(i as usize) else { return };
        host.joined = true;
        let (late, site) = (host.fate.joins > 0, host.site);
        let (sites, n) = (self.options.sites, self.count());
        let here = n.saturating_sub(site).div_ceil(sites);
        for _ in 0..LINKS.div_ceil(2) {
            let other = u32::try_from(self.rng.below(u64::from(here.max(1)))).unwrap_or(0);
            self.connect(i, site + other * sites);
        }
        if late {
            if let Some(list) = self.lists.get_mut(site as usize) {
                list.push(node(i));
            }
            self.publish_lists();
        }
        let begun = |c: &Item| c.starts == 0 || c.starts < self.now;
        let begun: Vec<SwarmId> =
            self.contents.iter().filter(|c| begun(c)).map(|c| c.swarm).collect();
        for swarm in &begun {
            self.take_part(i, self.content(*swarm));
        }
        if late {
            // The others hear of it; it has heard of all.
            for other in (0..n).filter(|o| o % sites == site && *o != i) {
                for swarm in &begun {
                    let (topic, members) = (Topic::Swarm(*swarm), self.members(other));
                    let input = Box::new(Input::Roster { topic, members });
                    self.at(self.now + KNOWN_US, Ev::Call(other, input));
                }
            }
        }
    }

    fn kill(&mut self, i: u32) {
        let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.alive) else { return };
        host.alive = false;
        self.open -= host.done.iter().filter(|d| d.is_none()).count();
        let Some(host) = self.hosts.get(i as usize) else { return };
        for other in host.conns.clone() {
            self.at(self.now + NOTICED_US, Ev::Notice(other, i));
        }
    }

    pub(super) fn crosses(&self, a: u32, b: u32) -> bool {
        a % self.options.sites != b % self.options.sites
    }

    pub(super) fn latency(&self, a: u32, b: u32) -> u64 {
        if self.crosses(a, b) { BETWEEN_US } else { IN_SITE_US }
    }

    fn connect(&mut self, a: u32, b: u32) {
        let up = |w: &Self, i: u32| w.hosts.get(i as usize).is_some_and(|h| h.alive && h.joined);
        if a == b || !up(self, a) || !up(self, b) {
            return;
        }
        let same_site = !self.crosses(a, b);
        for (x, y) in [(a, b), (b, a)] {
            let new = self.hosts.get_mut(x as usize).is_some_and(|h| h.conns.insert(y));
            if new {
                self.call(x, Input::PeerUp { node: node(y), same_site });
            }
        }
    }
}
