//! A simulated fleet: its nodes with their real machines, what is on their disks, and the loop that
//! lets events happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use stork_node::overlay::{Action, Config, Input, Overlay, Peer};
use stork_wire::codec::{Blob, List};
use stork_wire::frame::PeerHint;
use stork_wire::ids::NodeId;
use stork_wire::sign::Envelope;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

use super::feeds::{Feeds, UNIX_START};
use super::forks::Branch;
use super::hostile::Hostile;
use super::invariants::Watch;
use super::meter::Meter;
use super::network::{Conn, Network};
use super::queue::{Entry, Ev, Queue};
use super::rng::{Rng, mix2};

/// The first nodes are everybody's anchors.
pub(crate) const ANCHORS: u32 = 3;
/// A start raises the incarnation by this much, as in the driver.
pub(crate) const RESTART_STEP: u64 = 1_000;
/// Microseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000;

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) nodes: u32,
    /// Feeds, each with a group and a publisher of its own.
    pub(crate) feeds: u32,
    pub(crate) sites: u32,
    pub(crate) seed: u64,
    /// Time from an item's acceptance until it is durable, in microseconds: the gathering of a
    /// transaction, the disk. A node may have a slower one.
    pub(crate) commit_us: u64,
    /// Frames of sync are dropped: trees, announcements and grafts alone.
    pub(crate) no_sync: bool,
    /// Added to each frame's way at random, in microseconds.
    pub(crate) jitter_us: u64,
    /// Frames in a million that are lost once and sent again.
    pub(crate) loss_ppm: u64,
    pub(crate) config: Config,
}

/// One node: a process on a host.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) overlay: Overlay,
    pub(crate) peer: Arc<Peer>,
    pub(crate) alive: bool,
    /// Counts starts; events of an earlier life are void.
    pub(crate) life: u32,
    /// Where its own clock is 0.
    pub(crate) born: u64,
    /// Seconds by which its calendar is ahead.
    pub(crate) skew_s: i64,
    pub(crate) paused_until: u64,
    pub(crate) hostile: Option<Hostile>,
    /// The fingerprints of others, which only hostile nodes remember.
    pub(crate) heard: BTreeMap<u32, [u8; 8]>,
    pub(crate) conns: BTreeMap<u32, Conn>,
    pub(crate) dialling: BTreeSet<u32>,
    /// The dialler whose Hello the machine is deciding on, and its connection.
    pub(crate) waiting: Option<(u32, u64)>,
    /// Time until something is durable, in microseconds.
    pub(crate) disk_us: u64,
    /// Its disk takes nothing until then.
    pub(crate) full_until: u64,
    /// Others cannot dial it.
    pub(crate) no_inbound: bool,
    /// Items that it lacks of those that there were when it started.
    pub(crate) behind: u64,
    /// Accepted by the rules and on disk, for each feed.
    pub(crate) logs: Vec<(u64, u64)>,
    pub(crate) pending: BTreeSet<(u32, u64)>,
    pub(crate) forks: BTreeMap<u32, Branch>,
    /// Hosts on disk: number and incarnation.
    pub(crate) saved: Vec<(u32, u64)>,
    pub(crate) wake: u64,
    /// Wake-ups in the current second (I20).
    pub(crate) wakes: (u64, u32),
}

/// The whole simulation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) feeds: Feeds,
    pub(crate) net: Network,
    pub(crate) meter: Meter,
    pub(crate) watch: Watch,
    /// Everything that happened, folded into one number (I19).
    pub(crate) trace: u64,
    pub(crate) events: u64,
    pub(crate) queue: Queue,
    /// Every record that was ever signed: by node, with its incarnation.
    pub(crate) records: Vec<Vec<Arc<Peer>>>,
    pub(crate) scratch: Vec<Vec<Action>>,
    /// Where each host judges for itself: its rules and journal.
    pub(crate) own: Option<Vec<super::own::Own>>,
    /// Nodes that are down for a while.
    pub(crate) down: BTreeSet<(u64, u32)>,
}

/// The number of a node is the end of its id; the beginning is random, and so is the order.
pub(crate) fn node_id(i: u32, seed: u64) -> NodeId {
    let mut id = [0; 32];
    for (k, slot) in (0u64..).zip(id.chunks_mut(8)) {
        slot.copy_from_slice(&mix2(seed ^ 0x1d, u64::from(i) * 8 + k).to_be_bytes());
    }
    for (slot, b) in id.iter_mut().rev().zip(i.to_le_bytes()) {
        *slot = b;
    }
    NodeId(id)
}

/// The number in a node's id.
pub(crate) fn number(id: &NodeId) -> u32 {
    id.0.iter().skip(28).fold(0, |acc, b| (acc << 8) | u32::from(*b))
}

fn envelope(body: &[u8]) -> Envelope {
    Envelope { body: Blob::new(body.to_vec()).unwrap_or_default(), signatures: List::empty() }
}

pub(crate) fn make_peer(i: u32, incarnation: u64, site: Label, seed: u64) -> Arc<Peer> {
    let mut body = i.to_be_bytes().to_vec();
    body.extend(incarnation.to_be_bytes());
    Arc::new(Peer {
        node: node_id(i, seed),
        site,
        addrs: Vec::new(),
        incarnation,
        groups: Vec::new(),
        cell: None,
        expires: Tick(u64::MAX),
        hint: PeerHint { cert: envelope(&body), record: envelope(&[]) },
    })
}

impl Node {
    /// The machine's time.
    pub(crate) const fn tick(&self, now: u64) -> Tick {
        Tick(now.saturating_sub(self.born) / 1_000)
    }
    pub(crate) const fn is_honest(&self) -> bool {
        self.hostile.is_none()
    }
}

impl World {
    /// A fleet of which no node runs yet.
    pub(crate) fn new(options: Options) -> Result<Self> {
        let (n, seed) = (options.nodes, options.seed);
        let mut rng = Rng::new(mix2(seed, 1));
        let homes: Vec<u32> = (0..options.feeds).map(|_| rng.node(n as usize)).collect();
        let feeds = Feeds::new(&homes, seed)?;
        let mut world = Self {
            now: 0,
            rng,
            nodes: Vec::with_capacity(n as usize),
            feeds,
            net: Network::new(&options),
            meter: Meter::default(),
            watch: Watch::default(),
            trace: seed,
            events: 0,
            queue: Queue::default(),
            records: Vec::new(),
            scratch: Vec::new(),
            own: None,
            down: BTreeSet::new(),
            options,
        };
        for i in 0..n {
            let site = i % world.options.sites.max(1);
            let peer = make_peer(i, 0, format!("site-{site}").parse()?, seed);
            let config = world.options.config;
            world.nodes.push(Node {
                overlay: Overlay::new(config, peer.node, peer.site.clone(), seed),
                peer,
                alive: false,
                life: 0,
                born: 0,
                skew_s: 0,
                paused_until: 0,
                disk_us: world.options.commit_us,
                full_until: 0,
                no_inbound: false,
                behind: 0,
                hostile: None,
                heard: BTreeMap::new(),
                conns: BTreeMap::new(),
                dialling: BTreeSet::new(),
                waiting: None,
                logs: vec![(0, 0); world.options.feeds as usize],
                pending: BTreeSet::new(),
                forks: BTreeMap::new(),
                saved: Vec::new(),
                wake: u64::MAX,
                wakes: (0, 0),
            });
            world.records.push(Vec::new());
        }
        Ok(world)
    }

    pub(crate) fn node(&self, i: u32) -> Option<&Node> {
        self.nodes.get(i as usize)
    }
    pub(crate) fn node_mut(&mut self, i: u32) -> Option<&mut Node> {
        self.nodes.get_mut(i as usize)
    }
    pub(crate) fn is_up(&self, i: u32) -> bool {
        self.node(i).is_some_and(|n| n.alive)
    }
    /// Nodes that run and keep to the rules.
    pub(crate) fn honest(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0u32..).zip(&self.nodes).filter(|(_, n)| n.alive && n.is_honest())
    }
    /// A node's calendar.
    pub(crate) fn unix(&self, i: u32) -> u64 {
        let skew = self.node(i).map_or(0, |n| n.skew_s);
        (UNIX_START + self.now / SECOND).saturating_add_signed(skew)
    }

    /// Starts a node's process with what is on its disk.
    pub(crate) fn start(&mut self, i: u32) {
        let (now, seed, config) = (self.now, self.options.seed, self.options.config);
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        node.life += 1;
        (node.alive, node.born, node.wake, node.paused_until) = (true, now, u64::MAX, 0);
        node.full_until = 0;
        (node.conns, node.dialling) = (BTreeMap::new(), BTreeSet::new());
        node.pending.clear();
        let incarnation = u64::from(node.life) * RESTART_STEP;
        node.peer = make_peer(i, incarnation, node.peer.site.clone(), seed);
        let own_seed = mix2(seed, u64::from(i) << 20 | u64::from(node.life));
        node.overlay = Overlay::new(config, node.peer.node, node.peer.site.clone(), own_seed);
        node.behind = 0;
        for (feed, (accepted, stored)) in (0u32..).zip(&mut node.logs) {
            *accepted = *stored;
            node.behind += self.feeds.len(feed).saturating_sub(*stored);
        }
        if node.is_honest() && node.life > 1 {
            self.meter.returned(node.behind);
        }
        let (peer, saved) = (Arc::clone(&node.peer), node.saved.clone());
        let heads = self.heads_on_disk(i);
        if let Some(all) = self.records.get_mut(i as usize) {
            all.push(Arc::clone(&peer));
        }
        let known = saved.iter().filter_map(|(j, inc)| self.record(*j, *inc)).collect();
        let anchors = (0..ANCHORS).filter(|a| *a != i);
        let anchors = anchors.filter_map(|a| self.first_record(a)).collect();
        self.watch.started(i);
        self.input(i, Input::Heads(heads));
        let day = u32::try_from(self.unix(i) / 86_400).unwrap_or(0);
        self.input(i, Input::Day(day));
        self.input(i, Input::Local(peer));
        self.input(i, Input::Bootstrap { known, anchors });
        if self.node(i).is_some_and(|n| n.hostile.is_some()) {
            self.plan(SECOND, i, Ev::Mischief);
        }
    }

    /// Plans an event for a node's present life.
    pub(crate) fn plan(&mut self, after: u64, node: u32, ev: Ev) {
        let life = self.node(node).map_or(0, |n| n.life);
        self.queue.push(self.now + after, Entry { node, life, ev });
    }

    /// Lets events happen until this time.
    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some((at, entry)) = self.queue.pop(end) {
            self.now = self.now.max(at);
            self.events += 1;
            self.happen(entry);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, entry: Entry) {
        let Entry { node: i, life, ev } = entry;
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        if !node.alive || node.life != life {
            self.missed(i, ev);
            return;
        }
        if node.paused_until > self.now {
            let at = node.paused_until;
            if matches!(ev, Ev::Wake) {
                if node.wake != self.now {
                    return;
                }
                node.wake = at;
            }
            self.queue.push(at, Entry { node: i, life, ev });
            return;
        }
        if matches!(ev, Ev::Wake) {
            if node.wake != self.now {
                return;
            }
            node.wake = u64::MAX;
            // The deadline may have moved on since.
            if node.overlay.deadline().is_some_and(|at| at > node.tick(self.now)) {
                self.schedule(i);
                return;
            }
        }
        self.note(i, &ev);
        match ev {
            Ev::Wake => self.input(i, Input::Deadline),
            Ev::Mischief => self.mischief(i),
            Ev::Commit { feed, seq } => self.on_stored(i, feed, seq),
            Ev::Frame { from, conn, frame } => self.on_frame(i, from, conn, frame),
            ev => self.on_connection(i, ev),
        }
    }

    /// Folds an event into the trace.
    fn note(&mut self, i: u32, ev: &Ev) {
        let what = match ev {
            Ev::Wake => 1,
            Ev::Hello { from, .. } => 2 | u64::from(*from) << 8,
            Ev::Answered { from, class, .. } => 3 | u64::from(*from) << 8 | (*class as u64) << 56,
            Ev::DialFailed { peer } => 4 | u64::from(*peer) << 8,
            Ev::Closed { peer, .. } => 5 | u64::from(*peer) << 8,
            Ev::IdleCheck { peer, .. } => 6 | u64::from(*peer) << 8,
            Ev::Frame { from, frame, .. } => {
                let tag = frame.name().bytes().fold(7, |acc, b| (acc << 5) ^ u64::from(b));
                8 | u64::from(*from) << 8 ^ tag << 40
            }
            Ev::Commit { feed, seq } => 9 | u64::from(*feed) << 8 | seq << 32,
            Ev::Mischief => 10,
        };
        self.trace = mix2(self.trace ^ self.now << 20, what ^ u64::from(i) << 36);
    }
}
