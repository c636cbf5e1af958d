//! The simulated network: frames take 0.25 ms, and pieces leave each host one after the other.
//!
//! A piece occupies the sender's uplink for its length, and arrives when the receiver's
//! downlink has had time for it as well. Time is in microseconds; planners see milliseconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::store::Store;
use super::{GBIT, Kind, check, node};
use crate::transfer::rng::Rng;
use crate::transfer::{Action, Config, Input, Join, PieceSet, Planner};

/// One way inside a site (protocol.md §3e).
pub(super) const LATENCY_US: u64 = 250;
/// A dial: three ways.
const DIAL_US: u64 = 750;
/// How long a dead host goes unnoticed (protocol.md §3e).
const DETECT_US: u64 = 250_000;
/// Bytes of the simulated manifest.
const MANIFEST_LEN: u64 = 64 * 1024;

/// Something on an uplink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Piece(SwarmId, u32),
    Manifest(ManifestId),
}

struct Job {
    to: usize,
    load: Load,
    bytes: u64,
}

pub(super) struct Host {
    pub(super) planner: Planner,
    pub(super) kind: Kind,
    pub(super) alive: bool,
    pub(super) site: u64,
    up: u64,
    down: u64,
    down_free: u64,
    queue: VecDeque<Job>,
    /// Counts uplink turns, so that the end of one that was cut short is ignored.
    turn: u64,
    wake: Option<u64>,
    pub(super) conns: BTreeSet<usize>,
    /// What really arrived or was there at the start.
    pub(super) truth: BTreeMap<SwarmId, PieceSet>,
    pub(super) done_us: BTreeMap<SwarmId, u64>,
    pub(super) manifest_us: Option<u64>,
    pub(super) manifests_sent: u64,
    pub(super) smalls_sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) got_pieces: u64,
    pub(super) wasted_pieces: u64,
    pub(super) blamed: Vec<NodeId>,
}

enum Ev {
    Call(usize, Box<Input>),
    Frame(usize, usize, TransferFrame),
    Wake(usize),
    Turn(usize, u64),
    Arrive { from: usize, to: usize, load: Load },
    Connect(usize, usize),
    Kill(usize),
    Slow(usize, u64),
    Notice(usize, usize),
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) frames: u64,
    pub(super) events: u64,
    pub(super) trace: Option<blake3::Hasher>,
    pub(super) rng: Rng,
    pub(super) store: Store,
    /// How a host joins that got all of a small content at once.
    pub(super) small: Option<Join>,
    agenda: BTreeMap<(u64, u64), Ev>,
    serial: u64,
}

impl World {
    /// `n` hosts with 1 Gbit/s each way, each connected to some `degree` others at random.
    pub(super) fn new(n: usize, degree: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = (0..n).map(|i| Host::new(i, rng.next())).collect();
        let mut world = Self {
            seed,
            now: 0,
            hosts,
            frames: 0,
            events: 0,
            trace: None,
            rng,
            store: Store::default(),
            small: None,
            agenda: BTreeMap::new(),
            serial: 0,
        };
        for a in 0..n {
            for _ in 0..degree.div_ceil(2) {
                let b = world.rng.below(n);
                world.connect(a, b);
            }
        }
        world
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        if a == b || !self.hosts[a].alive || !self.hosts[b].alive || !self.hosts[a].conns.insert(b)
        {
            return;
        }
        self.hosts[b].conns.insert(a);
        let same_site = self.hosts[a].site == self.hosts[b].site;
        self.call(a, Input::PeerUp { node: node(b), same_site });
        self.call(b, Input::PeerUp { node: node(a), same_site });
    }

    fn at(&mut self, us: u64, ev: Ev) {
        self.serial += 1;
        self.agenda.insert((us, self.serial), ev);
    }

    pub(super) fn join(&mut self, host: usize, at_ms: u64, join: Join) {
        self.input(host, at_ms, Input::Join(Box::new(join)));
    }

    pub(super) fn input(&mut self, host: usize, at_ms: u64, input: Input) {
        self.at(at_ms * 1000, Ev::Call(host, Box::new(input)));
    }

    pub(super) fn input_us(&mut self, host: usize, at_us: u64, input: Input) {
        self.at(at_us, Ev::Call(host, Box::new(input)));
    }

    pub(super) fn kill(&mut self, host: usize, at_ms: u64) {
        self.at(at_ms * 1000, Ev::Kill(host));
    }

    pub(super) fn slow(&mut self, host: usize, at_ms: u64, bytes_per_ms: u64) {
        self.at(at_ms * 1000, Ev::Slow(host, bytes_per_ms));
    }

    /// A frame that no planner wrote.
    pub(super) fn inject(&mut self, from: usize, to: usize, at_us: u64, frame: TransferFrame) {
        self.at(at_us, Ev::Frame(from, to, frame));
    }

    /// Runs until `done` or the time is over; gives the milliseconds that it took.
    pub(super) fn run(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> Option<f64> {
        while let Some(((us, _), ev)) = self.agenda.pop_first() {
            if us > limit_ms * 1000 {
                self.at(us, ev);
                break;
            }
            self.now = us;
            self.events += 1;
            self.step(ev);
            if self.events.is_multiple_of(16) && done(self) {
                return Some(self.now as f64 / 1000.0);
            }
        }
        done(self).then_some(self.now as f64 / 1000.0)
    }

    /// Runs until all these hosts have the swarm; gives when the last one had.
    pub(super) fn finish(&mut self, limit_ms: u64, swarm: SwarmId, hosts: &[usize]) -> f64 {
        let all = |w: &Self| hosts.iter().all(|h| w.hosts[*h].done_us.contains_key(&swarm));
        if self.run(limit_ms, all).is_none() {
            let have = |h: &usize| {
                self.hosts[*h].planner.view(swarm, Tick(self.now / 1000)).map(|v| (*h, v))
            };
            let open = hosts.iter().filter(|h| !self.hosts[**h].done_us.contains_key(&swarm));
            let open: Vec<_> =
                open.filter_map(have).map(|(h, v)| (h, v.have, v.inflight, v.neighbours)).collect();
            panic!("seed {}: (host, have, inflight, neighbours) unfinished: {open:?}", self.seed);
        }
        hosts.iter().map(|h| self.hosts[*h].done_us[&swarm]).max().unwrap_or(0) as f64 / 1000.0
    }

    fn step(&mut self, ev: Ev) {
        match ev {
            Ev::Call(h, input) => self.call(h, *input),
            Ev::Frame(from, to, frame) => {
                if self.hosts[from].alive && self.hosts[from].conns.contains(&to) {
                    self.frames += 1;
                    self.call(to, Input::Frame { from: node(from), frame });
                }
            }
            Ev::Wake(h) => {
                if self.hosts[h].wake == Some(self.now) {
                    self.hosts[h].wake = None;
                    self.call(h, Input::Deadline);
                }
            }
            Ev::Turn(h, turn) if self.hosts[h].turn == turn => self.turn_over(h),
            Ev::Turn(..) => {}
            Ev::Arrive { from, to, load } => self.arrive(from, to, load),
            Ev::Connect(a, b) => self.connect(a, b),
            Ev::Kill(h) => {
                self.hosts[h].alive = false;
                for c in self.hosts[h].conns.clone() {
                    self.at(self.now + DETECT_US, Ev::Notice(c, h));
                }
            }
            Ev::Slow(h, rate) => self.hosts[h].up = rate,
            Ev::Notice(h, dead) => {
                self.hosts[h].conns.remove(&dead);
                self.call(h, Input::PeerDown { node: node(dead) });
            }
        }
    }

    pub(super) fn call(&mut self, h: usize, input: Input) {
        if !self.hosts[h].alive {
            return;
        }
        let host = &mut self.hosts[h];
        match &input {
            Input::Join(j) => {
                host.truth.insert(j.swarm, j.have.clone());
            }
            Input::PieceArrived { swarm, piece, .. } => {
                if let Some(t) = host.truth.get_mut(swarm) {
                    t.insert(*piece);
                }
            }
            _ => {}
        }
        let mut actions = Vec::new();
        host.planner.handle(Tick(self.now / 1000), input, &mut actions);
        check::every_event(host, &actions, self.events, Tick(self.now / 1000));
        if let Some(trace) = &mut self.trace {
            trace.update(format!("{} {h} {actions:?}", self.now).as_bytes());
        }
        for action in actions {
            self.apply(h, action);
        }
        if let Some(t) = self.hosts[h].planner.deadline() {
            let us = (t.0 * 1000).max(self.now + 1);
            if self.hosts[h].wake.is_none_or(|w| us < w) {
                self.hosts[h].wake = Some(us);
                self.at(us, Ev::Wake(h));
            }
        }
    }

    fn apply(&mut self, h: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Send { to, frame } => self.at(now + LATENCY_US, Ev::Frame(h, who(to), frame)),
            Action::Connect { node } => self.at(now + DIAL_US, Ev::Connect(h, who(node))),
            Action::SendPiece { to, swarm, piece } => {
                let bytes = u64::from(self.hosts[h].planner.swarms[&swarm].lens[piece as usize]);
                self.enqueue(h, Job { to: who(to), load: Load::Piece(swarm, piece), bytes });
            }
            Action::SendManifest { to, manifest } => {
                self.hosts[h].manifests_sent += 1;
                let load = Load::Manifest(manifest);
                self.enqueue(h, Job { to: who(to), load, bytes: MANIFEST_LEN });
            }
            Action::StopPiece { to, swarm, piece } => self.stop(h, who(to), swarm, piece),
            Action::SendSmall { to, .. } => self.send_small(h, who(to)),
            Action::TakeSmall { .. } => self.take_small(h, action),
            Action::Complete { swarm } => {
                assert!(self.hosts[h].done_us.insert(swarm, now).is_none(), "completed twice");
            }
            Action::FetchPiece { .. } | Action::FetchManifest { .. } => self.fetch(h, &action),
            Action::Blame { node, .. } => self.hosts[h].blamed.push(node),
            Action::Expect { .. }
            | Action::Unexpect { .. }
            | Action::ExpectManifest { .. }
            | Action::UnexpectManifest { .. }
            | Action::Event(_) => {}
        }
    }

    fn enqueue(&mut self, h: usize, job: Job) {
        if self.hosts[h].kind == Kind::Silent {
            return;
        }
        self.hosts[h].queue.push_back(job);
        if self.hosts[h].queue.len() == 1 {
            self.next_turn(h);
        }
    }

    fn next_turn(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        host.turn += 1;
        if let Some(job) = host.queue.front() {
            let (turn, us) = (host.turn, job.bytes * 1000 / host.up);
            self.at(self.now + us, Ev::Turn(h, turn));
        }
    }

    fn turn_over(&mut self, h: usize) {
        let Some(job) = self.hosts[h].queue.pop_front() else { return };
        if !self.hosts[h].alive {
            return;
        }
        self.hosts[h].sent_bytes += job.bytes;
        let to = &mut self.hosts[job.to];
        let at = (self.now + LATENCY_US).max(to.down_free + job.bytes * 1000 / to.down);
        to.down_free = at;
        self.at(at, Ev::Arrive { from: h, to: job.to, load: job.load });
        self.next_turn(h);
        let (to, bytes) = (node(job.to), u32::try_from(job.bytes).unwrap());
        self.call(
            h,
            match job.load {
                Load::Piece(swarm, piece) => Input::PieceSent { swarm, piece, to, bytes },
                Load::Manifest(manifest) => Input::ManifestSent { manifest, to },
            },
        );
    }

    fn stop(&mut self, h: usize, to: usize, swarm: SwarmId, piece: u32) {
        let load = Load::Piece(swarm, piece);
        let Some(i) = self.hosts[h].queue.iter().position(|j| j.to == to && j.load == load) else {
            return;
        };
        self.hosts[h].queue.remove(i);
        if i == 0 {
            self.next_turn(h);
        }
        let failed = Input::PieceSendFailed { swarm, piece, to: node(to) };
        self.at(self.now, Ev::Call(h, Box::new(failed)));
    }

    fn arrive(&mut self, sender: usize, to: usize, load: Load) {
        let (now, fault) = (self.now, self.hosts[sender].kind.fault());
        let (host, from) = (&mut self.hosts[to], node(sender));
        match (load, fault) {
            (Load::Manifest(manifest), Some(fault)) => {
                self.call(to, Input::ManifestFailed { manifest, from, fault });
            }
            (Load::Manifest(manifest), None) => {
                host.manifest_us.get_or_insert(now);
                self.call(to, Input::ManifestArrived { manifest, from });
            }
            (Load::Piece(swarm, piece), fault) => {
                host.got_pieces += 1;
                let had = host.truth.get(&swarm).is_some_and(|t| t.contains(piece));
                if had || !host.planner.expects(from, swarm, piece) {
                    // The shell refuses the stream; what it cost is counted.
                    host.wasted_pieces += 1;
                } else if let Some(fault) = fault {
                    self.call(to, Input::PieceFailed { swarm, piece, from, fault });
                } else {
                    self.call(to, Input::PieceArrived { swarm, piece, from });
                }
            }
        }
    }
}

impl Host {
    fn new(i: usize, seed: u64) -> Self {
        Self {
            planner: Planner::new(Config::default(), node(i), seed),
            kind: Kind::Honest,
            alive: true,
            site: 0,
            up: GBIT,
            down: GBIT,
            down_free: 0,
            queue: VecDeque::new(),
            turn: 0,
            wake: None,
            conns: BTreeSet::new(),
            truth: BTreeMap::new(),
            done_us: BTreeMap::new(),
            manifest_us: None,
            manifests_sent: 0,
            smalls_sent: 0,
            sent_bytes: 0,
            got_pieces: 0,
            wasted_pieces: 0,
            blamed: Vec::new(),
        }
    }
}

fn who(id: NodeId) -> usize {
    let mut n = [0; 8];
    n.copy_from_slice(&id.0[..8]);
    usize::try_from(u64::from_be_bytes(n)).unwrap() - 1
}
