//! The simulated hosts: who is there, what happens to them, and the agenda.
//!
//! Time is in microseconds; planners see milliseconds. Host 0 is the origin.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use stork_node::transfer::{
    Config, Input, Join, Members, PieceSet, Planner, Role, SiteHosts, Topic,
};
use stork_wire::feed::Urgency;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::manifest::piece_len_for;

use super::Content;
use super::links::{self, Fate};
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
    pub(super) piece: u32,
    pub(super) bytes: u64,
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) planner: Planner,
    pub(super) fate: Fate,
    pub(super) swarm: SwarmId,
    pub(super) is_origin: bool,
    pub(super) alive: bool,
    pub(super) site: u32,
    pub(super) joined: bool,
    conns: BTreeSet<u32>,
    pub(super) queue: VecDeque<Job>,
    pub(super) turn: u64,
    pub(super) down_free: u64,
    pub(super) wake: u64,
    /// What really came or was there.
    pub(super) truth: PieceSet,
    pub(super) done: Option<u64>,
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
    Arrive { from: u32, to: u32, piece: u32 },
    Sent { from: u32, job: Job },
    Into { from: u32, job: Job },
    Down { from: u32, job: Job },
    Connect(u32, u32),
    Join(u32),
    Kill(u32),
    Stall(u32),
    Notice(u32, u32),
}

/// An event with its time and number.
struct Due(u64, u64, Ev);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A fleet and one content.
pub(super) struct World {
    pub(super) options: Content,
    pub(super) hosts: Vec<Host>,
    pub(super) bytes: u64,
    pub(super) pieces: u32,
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
    pub(super) lens: Vec<u32>,
    lists: Vec<Vec<NodeId>>,
    known: Arc<Vec<SiteHosts>>,
    agenda: BinaryHeap<Reverse<Due>>,
    serial: u64,
    pub(super) now: u64,
    pub(super) open: usize,
    rng: Rng,
}

pub(super) fn node(i: u32) -> NodeId {
    let mut id = [0; 32];
    for (n, chunk) in (0u64..).zip(id.chunks_mut(8)) {
        let word = mix2(0x00c0_ffee, u64::from(i) << 3 | n);
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    id[24..28].copy_from_slice(&i.to_be_bytes());
    NodeId(id)
}

pub(super) fn number(id: NodeId) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&id.0[24..28]);
    u32::from_be_bytes(bytes)
}

impl World {
    pub(super) fn new(options: &Content) -> anyhow::Result<Self> {
        let bytes = options.mib << 20;
        let piece = options.piece_kib.map_or_else(|| piece_len_for(bytes), |k| k << 10);
        anyhow::ensure!(piece > 0, "--piece-kib is at least 1");
        let pieces = u32::try_from(bytes.div_ceil(u64::from(piece)))?;
        let mut lens = vec![piece; pieces as usize];
        if let (Some(last), true) = (lens.last_mut(), !bytes.is_multiple_of(u64::from(piece))) {
            *last = u32::try_from(bytes % u64::from(piece))?;
        }
        let mut rng = Rng::new(options.seed);
        let (fates, bound) = links::fates(options, bytes, &mut rng);
        let swarm = SwarmId([7; 32]);
        let sites = options.sites as usize;
        let host = |(i, fate): (u32, Fate)| Host {
            planner: Planner::new(Config::default(), node(i), mix2(options.seed, u64::from(i))),
            fate,
            swarm,
            is_origin: i == 0,
            alive: true,
            site: i % options.sites,
            joined: false,
            conns: BTreeSet::new(),
            queue: VecDeque::new(),
            turn: 0,
            down_free: 0,
            wake: u64::MAX,
            truth: if i == 0 { PieceSet::full(pieces) } else { PieceSet::empty(pieces) },
            done: (i == 0).then_some(0),
            got: 0,
            wasted: 0,
            sent_bytes: 0,
        };
        let hosts: Vec<Host> = (0u32..).zip(fates).map(host).collect();
        let open = hosts.len() - 1;
        let mut world = Self {
            options: options.clone(),
            hosts,
            bytes,
            pieces,
            bound,
            frames: 0,
            events: 0,
            trace: 0,
            violations: 0,
            violated: Vec::new(),
            wan_in: vec![0; sites],
            wan_up_free: vec![0; sites],
            wan_down_free: vec![0; sites],
            lens,
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
                if self.hosts.get(from as usize).is_some_and(linked) {
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
            Ev::Arrive { from, to, piece } => self.arrive(from, to, piece),
            Ev::Connect(a, b) => self.connect(a, b),
            Ev::Join(i) => self.join(i),
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
        Members {
            interested: here,
            origins: vec![node(0)],
            site: u64::from(site) + 1,
            sites: if self.options.sites > 1 { self.known.to_vec() } else { Vec::new() },
        }
    }

    fn join(&mut self, i: u32) {
        let Some(host) = self.hosts.get_mut(i as usize) else { return };
        host.joined = true;
        let (late, site, have) = (host.fate.joins > 0, host.site, host.truth.clone());
        let role = if host.is_origin { Role::Origin } else { Role::Leech };
        let join = Join {
            swarm: host.swarm,
            manifest: ManifestId([9; 32]),
            lens: self.lens.clone(),
            have,
            urgency: Urgency::Normal,
            role,
            members: self.members(i),
        };
        let (sites, n) = (self.options.sites, self.count());
        let here = n.saturating_sub(site).div_ceil(sites);
        for _ in 0..LINKS.div_ceil(2) {
            let other = u32::try_from(self.rng.below(u64::from(here.max(1)))).unwrap_or(0);
            self.connect(i, site + other * sites);
        }
        self.call(i, Input::Join(Box::new(join)));
        if late {
            if let Some(list) = self.lists.get_mut(site as usize) {
                list.push(node(i));
            }
            self.publish_lists();
            // The others hear of it; it has heard of all.
            for other in (0..n).filter(|o| o % sites == site && *o != i) {
                let members = self.members(other);
                let topic = Topic::Swarm(SwarmId([7; 32]));
                let input = Box::new(Input::Roster { topic, members });
                self.at(self.now + KNOWN_US, Ev::Call(other, input));
            }
        }
    }

    fn kill(&mut self, i: u32) {
        let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.alive) else { return };
        host.alive = false;
        if host.done.is_none() {
            self.open -= 1;
        }
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
