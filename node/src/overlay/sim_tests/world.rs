//! The simulated network, and a driver for each host that commits every well-formed item.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Head, Item};
use stork_wire::limits::ITEMS_PER_FRAME_MAX;
use stork_wire::tick::Tick;

use super::super::rng::{Rng, mix};
use super::super::{Action, Config, Event, Input, Overlay, Peer, PeersKind, Refusal};
use super::check;
use super::made::{Mute, envelope, make_item, make_peer, record_key};
use super::queue::{Ev, Queued};

/// A dial to a dead host fails after this.
const DIAL_FAILS_MS: u64 = 3_000;

/// One simulated host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) peer: Arc<Peer>,
    pub(super) overlay: Overlay,
    pub(super) alive: bool,
    /// Hosts of different sides cannot reach each other.
    pub(super) side: u8,
    /// What is on its disk.
    pub(super) logs: BTreeMap<LogId, Vec<Arc<Item>>>,
    pub(super) saved: Vec<PeerHint>,
    pub(super) probes: u64,
    pub(super) mute: Mute,
    life: u64,
    wake: u64,
}

/// What was measured since the last `reset`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// Items that arrived in frames, pushed or asked for.
    pub(super) payloads: u64,
    pub(super) hop: u8,
    pub(super) last_commit: u64,
    pub(super) forks: u64,
}

/// A fleet and its network.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) drop_percent: u64,
    pub(super) measured: Measured,
    /// Everything that happened, folded into one number.
    pub(super) trace: u64,
    /// The sets are checked after every so many events.
    pub(super) check_every: u64,
    pub(super) events: u64,
    /// Most items that a host was asked for in one frame.
    pub(super) max_asked: u64,
    /// Hosts cannot judge any item before they have one of this log.
    pub(super) first: Option<LogId>,
    config: Config,
    rng: Rng,
    order: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    index: BTreeMap<NodeId, usize>,
    pub(super) records: BTreeMap<(u64, u64), Arc<Peer>>,
    conns: BTreeMap<(usize, usize), u64>,
}

impl World {
    /// `n` hosts in so many sites, of which the first three are everybody's anchors; none runs.
    pub(super) fn new(n: usize, sites: usize, seed: u64) -> Self {
        Self::with(Config::default(), n, sites, seed)
    }

    /// The same with another configuration. `STORK_SEED` shifts all seeds, to try others.
    pub(super) fn with(config: Config, n: usize, sites: usize, seed: u64) -> Self {
        let shift = std::env::var("STORK_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed + shift.unwrap_or(0);
        let mut world = Self {
            config,
            seed,
            now: 0,
            hosts: Vec::new(),
            drop_percent: 0,
            measured: Measured::default(),
            trace: 0,
            check_every: 1,
            events: 0,
            max_asked: 0,
            first: None,
            rng: Rng::new(seed),
            order: 0,
            queue: BinaryHeap::new(),
            index: BTreeMap::new(),
            records: BTreeMap::new(),
            conns: BTreeMap::new(),
        };
        for i in 0..n {
            let peer = make_peer(i, 1, sites);
            world.index.insert(peer.node, i);
            world.records.insert(record_key(&peer.hint), Arc::clone(&peer));
            let overlay = Overlay::new(config, peer.node, peer.site.clone(), seed);
            world.hosts.push(Host {
                peer,
                overlay,
                alive: false,
                side: 0,
                logs: BTreeMap::new(),
                saved: Vec::new(),
                probes: 0,
                mute: Mute::Nothing,
                life: 0,
                wake: u64::MAX,
            });
        }
        world
    }

    /// A running fleet that has had a minute to link up.
    pub(super) fn running(n: usize, sites: usize, seed: u64) -> Self {
        let mut world = Self::new(n, sites, seed);
        for i in 0..n {
            world.start(i);
        }
        world.run(60_000);
        world
    }

    /// Starts a host, with what is on its disk.
    pub(super) fn start(&mut self, i: usize) {
        let anchors: Vec<_> = self.hosts.iter().take(3).map(|h| Arc::clone(&h.peer)).collect();
        let (seed, records) = (self.seed ^ self.now, &self.records);
        let host = &mut self.hosts[i];
        host.life += 1;
        host.alive = true;
        host.wake = u64::MAX;
        let mut peer = Peer::clone(&host.peer);
        if host.life > 1 {
            peer.incarnation = host.life;
            let mut body = peer.node.0.to_vec();
            body.extend(peer.incarnation.to_be_bytes());
            peer.hint.cert = envelope(body);
        }
        host.peer = Arc::new(peer);
        let known = host.saved.iter().filter_map(|h| records.get(&record_key(h)).cloned());
        let known: Vec<_> = known.collect();
        host.overlay = Overlay::new(self.config, host.peer.node, host.peer.site.clone(), seed);
        let peer = Arc::clone(&host.peer);
        let heads = host.logs.iter().filter(|(_, v)| !v.is_empty());
        let heads =
            heads.map(|(l, v)| Head::of(*l, v.len() as u64, v[v.len() - 1].hash())).collect();
        self.records.insert(record_key(&peer.hint), Arc::clone(&peer));
        self.input(i, Input::Heads(heads));
        self.input(i, Input::Local(peer));
        self.input(i, Input::Bootstrap { known, anchors });
    }

    /// A host is gone; nobody is told.
    pub(super) fn kill(&mut self, i: usize) {
        self.hosts[i].alive = false;
        self.conns.retain(|(a, b), _| *a != i && *b != i);
    }

    /// A host makes the next item of a log.
    pub(super) fn publish(&mut self, i: usize, log: LogId) -> u64 {
        let seq = self.hosts[i].logs.get(&log).map_or(0, Vec::len) as u64 + 1;
        self.commit(i, make_item(log, seq), None);
        seq
    }

    pub(super) fn commit(&mut self, i: usize, item: Item, source: Option<NodeId>) {
        let (log, seq, hash, item) = (item.log, item.seq, item.hash(), Arc::new(item));
        self.hosts[i].logs.entry(log).or_default().push(Arc::clone(&item));
        self.measured.last_commit = self.now;
        self.input(i, Input::Committed { log, seq, hash, item, source });
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.queue.peek().is_some_and(|q| q.0.at <= end) {
            let Some(Reverse(q)) = self.queue.pop() else { break };
            self.now = q.at;
            let host = &self.hosts[q.host];
            if host.alive && host.life == q.life {
                self.event(q.host, q.ev);
            }
        }
        self.now = end;
    }

    fn push(&mut self, after: u64, host: usize, ev: Ev) {
        self.order += 1;
        let (at, order, life) = (self.now + after, self.order, self.hosts[host].life);
        self.queue.push(Reverse(Queued { at, order, host, life, ev }));
    }

    fn latency(&self, a: usize, b: usize) -> u64 {
        10 + mix((a.min(b) * 65_536 + a.max(b)) as u64 ^ self.seed) % 41
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.hosts[a].alive && self.hosts[b].alive && self.hosts[a].side == self.hosts[b].side
    }

    fn event(&mut self, i: usize, ev: Ev) {
        match ev {
            Ev::Deadline => {
                if self.hosts[i].wake == self.now {
                    self.hosts[i].wake = u64::MAX;
                    self.input(i, Input::Deadline);
                }
            }
            Ev::Hello { from, class, starving } => {
                if self.reaches(i, from) {
                    let peer = Arc::clone(&self.hosts[from].peer);
                    self.input(i, Input::Hello { peer, class, starving });
                }
            }
            Ev::Ack { from, class, hints } => {
                let peer = Arc::clone(&self.hosts[from].peer);
                if self.reaches(i, from) {
                    let hints = self.verify(&hints);
                    self.input(i, Input::Linked { peer, class, hints });
                } else {
                    self.input(i, Input::DialFailed { node: peer.node });
                }
            }
            Ev::DialFailed { node } => self.input(i, Input::DialFailed { node }),
            Ev::Down { node } => self.input(i, Input::Down { node }),
            Ev::Frame { from, conn, frame } => {
                let now = self.conns.get(&(i.min(from), i.max(from)));
                if now == Some(&conn) && self.reaches(i, from) {
                    let from = self.hosts[from].peer.node;
                    self.frame(i, from, frame);
                }
            }
            Ev::Judge { from, item } => self.judge(i, from, item),
        }
    }

    /// Hands a frame to a host as its driver does: hosts are verified first.
    pub(super) fn frame(&mut self, i: usize, from: NodeId, frame: OverlayFrame) {
        let tag = frame.name().bytes().fold(7, |acc, b| mix(acc ^ u64::from(b)));
        self.trace = mix(self.trace ^ tag ^ self.now << 20 ^ (i as u64) << 50);
        let input = match frame {
            OverlayFrame::Records(peers) => {
                Input::Peers { from, kind: PeersKind::Records, peers: self.verify(&peers) }
            }
            OverlayFrame::Shuffle { nonce, peers } => {
                let kind = PeersKind::Shuffle { nonce };
                Input::Peers { from, kind, peers: self.verify(&peers) }
            }
            OverlayFrame::ShuffleReply { nonce, peers } => {
                let kind = PeersKind::ShuffleReply { nonce };
                Input::Peers { from, kind, peers: self.verify(&peers) }
            }
            frame => {
                self.measured.payloads += match &frame {
                    OverlayFrame::Push { .. } => 1,
                    OverlayFrame::Items(items) => items.len() as u64,
                    _ => 0,
                };
                Input::Frame { from, frame }
            }
        };
        self.input(i, input);
    }

    fn judge(&mut self, i: usize, from: NodeId, item: Item) {
        if self.judge_fork(i, from, &item) {
            return;
        }
        let (log, seq) = (item.log, item.seq);
        let have = self.hosts[i].logs.get(&log).map_or(0, Vec::len) as u64;
        let why = if item != make_item(log, seq) {
            Refusal::Invalid
        } else if self.first.is_some_and(|f| f != log && !self.hosts[i].logs.contains_key(&f)) {
            Refusal::Unknown
        } else if seq <= have {
            Refusal::Duplicate
        } else if seq > have + 1 {
            Refusal::Pending
        } else {
            return self.commit(i, item, Some(from));
        };
        self.input(i, Input::Refused { from, log, seq, why });
    }

    /// One input, what it makes the driver do, what must hold after it, and the next wake-up.
    pub(super) fn input(&mut self, i: usize, input: Input) {
        let mut actions = Vec::new();
        let now = Tick(self.now);
        self.hosts[i].overlay.handle(now, input, &mut actions);
        for action in actions {
            self.act(i, action);
        }
        self.events += 1;
        check::cheap(&self.hosts[i].overlay, self.seed);
        if self.events.is_multiple_of(self.check_every) {
            check::sets(&self.hosts[i].overlay, self.seed);
        }
        let next = self.hosts[i].overlay.deadline().expect("a machine always has a next time").0;
        let next = next.max(self.now);
        if next < self.hosts[i].wake || self.hosts[i].wake < self.now {
            self.hosts[i].wake = next;
            self.push(next - self.now, i, Ev::Deadline);
        }
    }

    fn act(&mut self, i: usize, action: Action) {
        match action {
            Action::Send { to, frame, .. } => self.send(i, to, frame),
            Action::Dial { peer, class, starving } => {
                let Some(j) = self.index.get(&peer.node).copied() else { return };
                if self.reaches(i, j) {
                    let at = 2 * self.latency(i, j);
                    self.push(at, j, Ev::Hello { from: i, class, starving });
                } else {
                    self.push(DIAL_FAILS_MS, i, Ev::DialFailed { node: peer.node });
                }
            }
            Action::Answer { to, class, hints } => {
                let Some(j) = self.index.get(&to).copied() else { return };
                self.order += 1;
                let (pair, order) = ((i.min(j), i.max(j)), self.order);
                if class == LinkClass::Transient {
                    self.conns.entry(pair).or_insert(order);
                } else {
                    self.conns.insert(pair, order);
                }
                let at = self.latency(i, j);
                let hints = self.poison(i, hints.into_vec());
                self.push(at, j, Ev::Ack { from: i, class, hints });
            }
            Action::Close { node, .. } => {
                let Some(j) = self.index.get(&node).copied() else { return };
                let had = self.conns.remove(&(i.min(j), i.max(j))).is_some();
                if had && self.reaches(i, j) {
                    let node = self.hosts[i].peer.node;
                    self.push(self.latency(i, j), j, Ev::Down { node });
                }
            }
            Action::Deliver { from, item, hop, .. } => {
                let mut known = self.hosts[i].logs.get(&item.log).into_iter().flatten();
                assert!(!known.any(|k| **k == item), "delivered twice, seed {}", self.seed);
                self.measured.hop = self.measured.hop.max(hop);
                self.push(1, i, Ev::Judge { from, item });
            }
            Action::ReadItems { to, ranges } => {
                let asked = ranges.iter().map(|r| r.to - r.from + 1).sum();
                self.max_asked = self.max_asked.max(asked);
                let logs = &self.hosts[i].logs;
                let wanted = ranges.iter().flat_map(|r| (r.from..=r.to).map(|s| (r.log, s)));
                let at = |s: u64| usize::try_from(s - 1).unwrap();
                let items: Vec<Item> = wanted.map(|(l, s)| Item::clone(&logs[&l][at(s)])).collect();
                for chunk in items.chunks(ITEMS_PER_FRAME_MAX) {
                    let list = List::truncated(chunk.iter().cloned());
                    self.send(i, to, OverlayFrame::Items(list));
                }
            }
            Action::Summarise(cell) => self.summarise(i, cell),
            Action::SavePeers(hints) => self.hosts[i].saved = hints,
            Action::Event(Event::MergeProbe { .. }) => self.hosts[i].probes += 1,
            Action::Event(Event::ForkSeen { .. }) => self.measured.forks += 1,
            Action::Event(_) => {}
        }
    }

    fn send(&mut self, i: usize, to: NodeId, frame: OverlayFrame) {
        let Some(j) = self.index.get(&to).copied() else { return };
        let Some(conn) = self.conns.get(&(i.min(j), i.max(j))).copied() else { return };
        if self.hosts[i].mute.keeps(&frame) {
            return;
        }
        if self.drop_percent > 0 && self.rng.percent(self.drop_percent) {
            return;
        }
        let frame = self.poisoned(i, frame);
        self.push(self.latency(i, j), j, Ev::Frame { from: i, conn, frame });
    }
}
