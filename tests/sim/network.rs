//! The simulated network: how long frames take, who can reach whom, and what connections do.
//!
//! QUIC is reliable and keeps the order of a stream, so that a lost packet is a delay for all that
//! comes after it. A connection ends when one side closes it, or when the idle time-out of a side
//! passes without a packet; rules for two connections of one pair are the driver's.

use std::sync::Arc;

use stork_node::overlay::{Input, Peer};
use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::NodeId;
use stork_wire::limits::HINTS_MAX;

use super::frame_size::{HELLO_BYTES, ack_bytes};
use super::queue::Ev;
use super::rng::mix2;
use super::world::{Options, RESTART_STEP, SECOND, World, number};

/// A dial without an answer fails after this (`HELLO_TIMEOUT` of the node).
const DIAL_FAILS: u64 = 3 * SECOND;
/// Deaths are noticed by each neighbour after up to this: QUIC's idle time-out.
pub(crate) const IDLE_TIMEOUT: u64 = 15 * SECOND;
/// A connection without a link is closed after this, as by the driver.
const UNUSED: u64 = 60 * SECOND;
/// Connections within this time of each other were dialled crosswise, as in the driver.
const CROSSWISE: u64 = 5 * SECOND;
const IN_SITE_US: u64 = 300;
const BETWEEN_MIN_US: u64 = 10_000;
const BETWEEN_SPAN_US: u64 = 40_001;

/// One end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) dialled_by: u32,
    pub(crate) since: u64,
    pub(crate) class: LinkClass,
    incarnation: u64,
    /// When the last frame of this end arrives at the other: order is kept.
    last: u64,
}

/// A cut between two sides of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) side: Vec<bool>,
    pub(crate) heals: u64,
    /// Only frames from the second side to the first are stopped.
    pub(crate) one_way: bool,
}

/// Latencies and cuts.
#[derive(Debug)]
pub(crate) struct Network {
    seed: u64,
    sites: u32,
    jitter_us: u64,
    loss_ppm: u64,
    pub(crate) cut: Option<Cut>,
    conns: u64,
}

impl Network {
    pub(crate) const fn new(o: &Options) -> Self {
        let (jitter_us, loss_ppm) = (o.jitter_us, o.loss_ppm);
        Self { seed: o.seed, sites: o.sites, jitter_us, loss_ppm, cut: None, conns: 0 }
    }

    /// One way between two nodes, in microseconds: fixed per link, or per pair of sites.
    pub(crate) fn latency(&self, a: u32, b: u32) -> u64 {
        let (a, b) = if self.sites > 1 { (a % self.sites, b % self.sites) } else { (a, b) };
        if self.sites > 1 && a == b {
            return IN_SITE_US;
        }
        let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        BETWEEN_MIN_US + mix2(self.seed ^ 0x1a7, pair) % BETWEEN_SPAN_US
    }

    /// A cut ends before its time. What it held up still comes when it would have come.
    pub(crate) fn end_cut(&mut self, now: u64) {
        if let Some(cut) = &mut self.cut {
            cut.heals = cut.heals.min(now);
        }
    }

    fn same_site(&self, a: u32, b: u32) -> bool {
        self.sites <= 1 || a % self.sites == b % self.sites
    }

    /// When frames from `a` to `b` go through again, if they do not now.
    pub(crate) fn blocked(&self, a: u32, b: u32, now: u64) -> Option<u64> {
        let cut = self.cut.as_ref().filter(|c| c.heals > now)?;
        let side = |i: u32| cut.side.get(i as usize).copied().unwrap_or(false);
        let stops = if cut.one_way { side(a) && !side(b) } else { side(a) != side(b) };
        stops.then_some(cut.heals)
    }
}

impl World {
    /// The time of arrival of something that is sent now.
    fn arrival(&mut self, from: u32, to: u32) -> u64 {
        let way = self.net.latency(from, to);
        let mut at = self.net.blocked(from, to, self.now).unwrap_or(self.now) + way;
        if self.net.jitter_us > 0 {
            at += self.rng.below(self.net.jitter_us);
        }
        if self.net.loss_ppm > 0 {
            // Found by later packets or by a probe: about two ways and a little.
            while self.rng.ppm(self.net.loss_ppm) {
                at += 2 * way + 25_000;
            }
        }
        at
    }

    fn reaches(&self, a: u32, b: u32) -> bool {
        let open = |a, b| self.net.blocked(a, b, self.now).is_none();
        self.is_up(a) && self.is_up(b) && open(a, b) && open(b, a)
    }

    /// Dials: a QUIC handshake, then the Hello.
    pub(crate) fn dial(&mut self, i: u32, peer: &Peer, class: LinkClass, starving: bool) {
        let j = number(&peer.node);
        let Some(node) = self.node_mut(i) else { return };
        if i == j || !node.dialling.insert(j) {
            return;
        }
        let (record, life) = (Arc::clone(&node.peer), node.life);
        self.meter.control(HELLO_BYTES);
        self.net.conns += 1;
        if self.reaches(i, j) && !self.node(j).is_some_and(|n| n.no_inbound) {
            let conn = self.net.conns;
            let at = self.arrival(i, j) - self.now + 2 * self.net.latency(i, j);
            self.plan(at, j, Ev::Hello { from: i, life, conn, record, class, starving });
        } else {
            self.plan(DIAL_FAILS, i, Ev::DialFailed { peer: j });
        }
    }

    /// An event for a process that is gone: others may wait for it.
    pub(crate) fn missed(&mut self, i: u32, ev: Ev) {
        match ev {
            Ev::Hello { from, life, .. } if self.lives(from, life) => {
                self.plan(DIAL_FAILS, from, Ev::DialFailed { peer: i });
            }
            Ev::Answered { from, life, conn, .. } if self.lives(from, life) => {
                let after = self.rng.below(IDLE_TIMEOUT);
                self.plan(after, from, Ev::Closed { peer: i, conn });
            }
            _ => {}
        }
    }

    fn lives(&self, i: u32, life: u32) -> bool {
        self.node(i).is_some_and(|n| n.alive && n.life == life)
    }

    /// Events of connections.
    pub(crate) fn on_connection(&mut self, i: u32, ev: Ev) {
        match ev {
            Ev::Hello { from, life, conn, record, class, starving } => {
                if !self.lives(from, life) || !self.reaches(i, from) {
                    return self.missed(i, Ev::Hello { from, life, conn, record, class, starving });
                }
                if !self.prefers_new(i, from, record.incarnation, from) {
                    let after = self.net.latency(i, from);
                    return self.plan(after, from, Ev::DialFailed { peer: i });
                }
                if let Some(node) = self.node_mut(i) {
                    node.waiting = Some((from, conn));
                }
                self.input(i, Input::Hello { peer: record, class, starving });
                if let Some(node) = self.node_mut(i)
                    && node.waiting.take().is_some()
                {
                    let after = self.net.latency(i, from);
                    self.plan(after, from, Ev::DialFailed { peer: i });
                }
            }
            Ev::Answered { from, conn, record, class, hints, .. } => {
                self.on_answered(i, (from, conn), record, class, &hints);
            }
            Ev::DialFailed { peer } => self.on_dial_failed(i, peer),
            Ev::Closed { peer, conn } => {
                let Some(node) = self.node_mut(i) else { return };
                if node.conns.get(&peer).is_some_and(|c| c.id == conn) {
                    node.conns.remove(&peer);
                    self.down(i, peer);
                }
            }
            Ev::IdleCheck { peer, conn } => {
                let unused = |c: &Conn| c.id == conn && c.class == LinkClass::Transient;
                if self.node(i).and_then(|n| n.conns.get(&peer)).is_some_and(unused) {
                    self.close(i, peer);
                }
            }
            _ => {}
        }
    }

    /// The driver's rule for two connections of one pair.
    fn prefers_new(&self, i: u32, j: u32, incarnation: u64, dialled_by: u32) -> bool {
        let (Some(node), Some(other)) = (self.node(i), self.node(j)) else { return false };
        let Some(old) = node.conns.get(&j) else { return true };
        if incarnation >= old.incarnation + RESTART_STEP || self.now - old.since >= CROSSWISE {
            return true;
        }
        let larger = if node.peer.node > other.peer.node { i } else { j };
        old.dialled_by == dialled_by || dialled_by == larger
    }

    /// The machine has decided on a Hello.
    pub(crate) fn answer(
        &mut self,
        i: u32,
        to: NodeId,
        class: LinkClass,
        hints: List<PeerHint, HINTS_MAX>,
    ) {
        let j = number(&to);
        let Some(node) = self.node_mut(i) else { return };
        let Some((_, id)) = node.waiting.take_if(|(from, _)| *from == j) else { return };
        let (record, life) = (Arc::clone(&node.peer), node.life);
        let incarnation = self.node(j).map_or(0, |n| n.peer.incarnation);
        self.meter.control(ack_bytes(hints.len()));
        let at = self.arrival(i, j);
        self.connect(
            i,
            j,
            Conn { id, dialled_by: j, since: self.now, class, incarnation, last: at },
        );
        let hints = hints.into_vec();
        let ev = Ev::Answered { from: i, life, conn: id, record, class, hints };
        self.plan(at - self.now, j, ev);
    }

    /// A connection takes the place of an older one, which is closed.
    fn connect(&mut self, i: u32, j: u32, new: Conn) {
        let (id, class) = (new.id, new.class);
        let Some(node) = self.node_mut(i) else { return };
        if let Some(old) = node.conns.insert(j, new) {
            let after = self.net.latency(i, j) + self.rng.below(1_000);
            self.plan(after, j, Ev::Closed { peer: i, conn: old.id });
        }
        if class == LinkClass::Transient {
            self.plan(UNUSED, i, Ev::IdleCheck { peer: j, conn: id });
        }
    }

    fn on_answered(
        &mut self,
        i: u32,
        (j, id): (u32, u64),
        peer: Arc<Peer>,
        class: LinkClass,
        hints: &[PeerHint],
    ) {
        let incarnation = peer.incarnation;
        let keep = self.prefers_new(i, j, incarnation, i);
        let Some(node) = self.node_mut(i) else { return };
        node.dialling.remove(&j);
        if !keep {
            let connected = node.conns.contains_key(&j);
            let after = self.net.latency(i, j);
            self.plan(after, j, Ev::Closed { peer: i, conn: id });
            if !connected {
                self.input(i, Input::DialFailed { node: peer.node });
            }
            return;
        }
        let last = self.now;
        self.connect(i, j, Conn { id, dialled_by: i, since: last, class, incarnation, last });
        let hints = self.checked(i, hints);
        self.input(i, Input::Linked { peer, class, hints });
    }

    /// A host that is connected all the same is not dead: it only gives no link that way.
    fn on_dial_failed(&mut self, i: u32, j: u32) {
        let Some(peer) = self.node(j).map(|n| n.peer.node) else { return };
        let Some(node) = self.node_mut(i) else { return };
        node.dialling.remove(&j);
        let connected = node.conns.contains_key(&j);
        let known = node.overlay.hosts().find(|p| p.node == peer).map(Arc::clone);
        let input = match known.filter(|_| connected) {
            Some(peer) => Input::Linked { peer, class: LinkClass::Transient, hints: Vec::new() },
            None => Input::DialFailed { node: peer },
        };
        self.input(i, input);
    }

    fn down(&mut self, i: u32, j: u32) {
        let Some(node) = self.node(j).map(|n| n.peer.node) else { return };
        self.input(i, Input::Down { node });
    }

    /// Closes a connection at this end; the other hears of it.
    pub(crate) fn close(&mut self, i: u32, j: u32) {
        let Some(old) = self.node_mut(i).and_then(|n| n.conns.remove(&j)) else { return };
        let after = self.net.blocked(i, j, self.now).map_or(0, |_| IDLE_TIMEOUT);
        let after = after + self.net.latency(i, j);
        self.plan(after, j, Ev::Closed { peer: i, conn: old.id });
        // The driver hears of the end of every connection that counts, its own closing included.
        self.down(i, j);
    }

    /// Notes whether a connection carries a link.
    pub(crate) fn set_class(&mut self, i: u32, j: u32, class: LinkClass) {
        let now = self.now;
        let Some(conn) = self.node_mut(i).and_then(|n| n.conns.get_mut(&j)) else { return };
        conn.class = class;
        let (id, since) = (conn.id, conn.since);
        if class == LinkClass::Transient {
            let after = (since + UNUSED).saturating_sub(now).max(SECOND);
            self.plan(after, i, Ev::IdleCheck { peer: j, conn: id });
        }
    }

    /// Puts a frame on its way, `after` the present.
    pub(crate) fn transmit(&mut self, i: u32, j: u32, frame: OverlayFrame, after: u64) {
        let arrival = self.arrival(i, j) + after;
        let now = self.now;
        let Some(conn) = self.node_mut(i).and_then(|n| n.conns.get_mut(&j)) else { return };
        conn.last = conn.last.max(arrival);
        let (at, conn) = (conn.last, conn.id);
        self.plan(at - now, j, Ev::Frame { from: i, conn, frame });
    }

    /// Does this frame cross sites?
    pub(crate) fn crosses(&self, a: u32, b: u32) -> bool {
        !self.net.same_site(a, b)
    }
}
