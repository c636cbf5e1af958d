//! Whom a swarm opens to: neighbours, then random other members, then the origin. What comes after
//! that, where the operator named one, is the origin store (`store.rs`).
//!
//! In a large swarm only the first few hosts by rendezvous hash go to the origin at once; it
//! injects each piece once, and the others get it from each other. A host that nobody feeds
//! climbs the ladder (protocol.md §3e, invariant I16) and never stops trying.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::frame::TransferFrame;
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::bandwidth::Dir;
use super::credit::PUSHED;
use super::message::{Action, Event, Role};
use super::neighbour::Link;
use super::pieces::PieceSet;
use super::rng::rank;
use super::store::ORIGIN_STORE;
use super::swarm::{Ctx, Swarm};
use super::upload::SEND_MS_MAX;

/// Neighbours that we choose; others choose us, so that there are about ten (protocol.md §3e).
const PICKED: usize = 5;
/// Of them so many by chance, so that sites and racks do not fall apart into islands.
const PICKED_AT_RANDOM: usize = 2;
/// The most that hunger makes us choose.
const PICKED_MAX: usize = 16;
/// Up to so many hosts everyone is a neighbour of everyone.
const SMALL_FLEET: usize = 16;
/// Neighbours that chose us, at the most: each costs a map of the pieces.
const INBOUND_MAX: usize = 32;
/// So many hosts open to the origins at once.
pub(super) const FIRST_AT_ORIGIN: usize = 10;
/// Members tried at each step of the ladder (protocol.md §3e).
const LADDER_MEMBERS: usize = 3;
/// Hunger before other members are tried, and before each further round.
const HUNGER_MS: u64 = 1_000;
/// Hunger before the origin is.
const HUNGER_ORIGIN_MS: u64 = 1_500;
/// The same in a site to which gateways bring what there is.
const HUNGER_FAR_MS: u64 = 10_000;
/// Hunger after which there is no hurry any more.
const HUNGER_LONG_MS: u64 = 10_000;
/// Dials under way at once, over all swarms.
const DIALS_MAX: usize = 8;
/// How long a dial or an Open may take.
const ANSWER_MS: u64 = 5_000;
/// Wait before a candidate is tried again that did not answer or closed.
const RETRY_MS: u64 = 5_000;
/// Bounds of the wait that a refusing peer may ask for.
const REFUSED_MS: (u32, u32) = (100, 60_000);
/// Wait that we ask for when we refuse.
const REFUSE_MS: u32 = 1_000;
/// Candidates whose wait is remembered; the list is cleared beyond that, which costs a few Opens.
const RETRIES_MAX: usize = 256;
/// Rounds of `RARE_ROUND_MS` without a holder before a piece counts as rare: one second.
const RARE_ROUNDS: u8 = 4;
const RARE_ROUND_MS: u64 = 250;

/// Dials of all swarms.
#[derive(Debug, Default)]
pub(super) struct Dials(BTreeMap<NodeId, Tick>);

impl Dials {
    /// Makes room for a dial; false if there is none.
    fn dial(&mut self, node: NodeId, now: Tick) -> bool {
        self.0.retain(|_, ends| *ends > now);
        if self.0.len() >= DIALS_MAX {
            return false;
        }
        self.0.insert(node, now.after_ms(ANSWER_MS));
        true
    }

    fn is_dialled(&self, node: NodeId, now: Tick) -> bool {
        self.0.get(&node).is_some_and(|ends| *ends > now)
    }

    pub(super) fn done(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

impl Ctx<'_> {
    /// Asks the shell for a connection. False if too many are being made: to be tried again.
    pub(super) fn connect(&mut self, node: NodeId) -> bool {
        if self.dials.is_dialled(node, self.now) {
            return true;
        }
        let new = self.dials.dial(node, self.now);
        if new {
            self.actions.push(Action::Connect { node });
        }
        new
    }
}

/// The state of the search of one swarm.
#[derive(Debug)]
pub(super) struct Seeker {
    /// Dialled for this swarm, until then.
    dialled: BTreeMap<NodeId, Tick>,
    /// Not to be tried before.
    retry: BTreeMap<NodeId, Tick>,
    /// When a piece arrived last.
    arrived: Tick,
    /// When somebody last was able to help.
    helped: Tick,
    /// When the ladder may be climbed next.
    climb: Tick,
    /// Rounds in which no neighbour had a piece.
    rounds: Vec<u8>,
    next_round: Tick,
}

impl Seeker {
    pub(super) fn new(pieces: u32, now: Tick) -> Self {
        Self {
            dialled: BTreeMap::new(),
            retry: BTreeMap::new(),
            arrived: now,
            helped: now,
            climb: now,
            rounds: vec![0; pieces as usize],
            next_round: now,
        }
    }

    pub(super) fn fed(&mut self, now: Tick) {
        (self.arrived, self.helped) = (now, now);
    }

    /// For how long nobody has been able to help.
    pub(super) fn hungry_ms(&self, now: Tick) -> u64 {
        now.since(self.helped)
    }

    fn later(&mut self, node: NodeId, until: Tick) {
        if self.retry.len() >= RETRIES_MAX {
            self.retry.clear();
        }
        self.retry.insert(node, until);
    }
}

impl Swarm {
    /// Whether this peer may be tried now.
    fn is_candidate(&self, node: NodeId, now: Tick) -> bool {
        !self.neighbours.contains_key(&node)
            && !self.seeker.dialled.contains_key(&node)
            && !self.faults.banned(node)
            && self.seeker.retry.get(&node).is_none_or(|t| *t <= now)
    }

    /// Opens to a peer, or dials it first.
    pub(super) fn seek(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        if !self.is_candidate(node, ctx.now) {
            return;
        }
        let ends = ctx.now.after_ms(ANSWER_MS);
        if ctx.peers.contains_key(&node) {
            self.add_neighbour(node, Link::Opening(ends), true, ctx);
            let frame = self.open_frame();
            ctx.send(node, frame);
        } else if ctx.connect(node) {
            self.seeker.dialled.insert(node, ends);
        }
    }

    /// A connection that may have been dialled for us exists.
    pub(super) fn peer_up(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        if self.seeker.dialled.remove(&node).is_some() {
            self.seek(node, ctx);
        }
    }

    fn picked(&self) -> usize {
        let chosen = self.neighbours.values().filter(|n| n.picked && !n.origin).count();
        chosen + self.seeker.dialled.keys().filter(|n| !self.origins.contains(n)).count()
    }

    /// Chooses neighbours until there are enough.
    fn fill(&mut self, ctx: &mut Ctx<'_>) {
        let small = self.interested.len() <= SMALL_FLEET;
        let enough = if small { self.interested.len() } else { PICKED };
        let picked = self.picked();
        if picked >= enough {
            return;
        }
        let now = ctx.now;
        let free: Vec<NodeId> =
            self.interested.iter().copied().filter(|n| self.is_candidate(*n, now)).collect();
        let is_near = |n: &NodeId| ctx.peers.get(n) == Some(&true);
        let near: Vec<NodeId> = free.iter().copied().filter(is_near).collect();
        let by_chance = if small { enough } else { PICKED_AT_RANDOM };
        let near = ctx.rng.sample(near, (enough - picked).saturating_sub(by_chance));
        let others = free.into_iter().filter(|n| !near.contains(n)).collect();
        let others = ctx.rng.sample(others, enough - picked - near.len());
        for node in near.into_iter().chain(others) {
            self.seek(node, ctx);
        }
    }

    fn seek_origins(&mut self, ctx: &mut Ctx<'_>) {
        for node in self.origins.clone() {
            self.seek(node, ctx);
        }
    }

    /// A peer opens to us, or answers our Open.
    pub(super) fn opened(&mut self, from: NodeId, have: Vec<u32>, ctx: &mut Ctx<'_>) {
        self.seeker.dialled.remove(&from);
        let first = !self.neighbours.contains_key(&from);
        if first {
            if self.faults.banned(from) {
                return ctx.send(from, TransferFrame::Close(self.id));
            }
            if self.neighbours.values().filter(|n| !n.picked).count() >= INBOUND_MAX {
                let retry_ms = REFUSE_MS;
                return ctx.send(from, TransferFrame::Refuse { swarm: self.id, retry_ms });
            }
            self.add_neighbour(from, Link::Open, false, ctx);
            let frame = self.open_frame();
            ctx.send(from, frame);
        }
        let Some(n) = self.neighbours.get_mut(&from) else { return };
        n.link = Link::Open;
        for piece in have {
            self.learn(from, piece, ctx.now);
        }
    }

    /// Those who opened to us before we joined get our Open now.
    pub(super) fn answer_knocks(&mut self, nodes: BTreeSet<NodeId>, ctx: &mut Ctx<'_>) {
        for node in nodes.into_iter().filter(|n| ctx.peers.contains_key(n)) {
            let ends = ctx.now.after_ms(ANSWER_MS);
            self.add_neighbour(node, Link::Opening(ends), false, ctx);
            let frame = self.open_frame();
            ctx.send(node, frame);
        }
    }

    /// A peer has no room for us.
    pub(super) fn refused(&mut self, from: NodeId, retry_ms: u32, ctx: &mut Ctx<'_>) {
        let (least, most) = REFUSED_MS;
        self.remove_neighbour(from, ctx);
        let until = ctx.now.after_ms(u64::from(retry_ms.clamp(least, most)));
        self.seeker.later(from, until);
    }

    /// A peer takes part no longer. It opens to us by itself when it does again.
    pub(super) fn closed(&mut self, from: NodeId, ctx: &mut Ctx<'_>) {
        self.remove_neighbour(from, ctx);
        self.seeker.later(from, ctx.now.after_ms(RETRY_MS));
    }

    /// Everything that time changes in what we get.
    pub(super) fn upkeep(&mut self, ctx: &mut Ctx<'_>) {
        self.unmute(ctx.now);
        self.drop_silent(ctx);
        self.expire_pushes(SEND_MS_MAX, ctx);
        if self.complete() || self.role != Role::Leech {
            return;
        }
        self.steal(ctx);
        let lane = ctx.lane(Dir::Down, ctx.me);
        if ctx.bandwidth.is_closed(lane, self.urgency, ctx.now) {
            self.fill(ctx);
            return self.seeker.fed(ctx.now);
        }
        let first = rank(self.id.as_bytes(), ctx.me, &self.interested, FIRST_AT_ORIGIN);
        let first = first < FIRST_AT_ORIGIN && !self.has_root_gateways;
        if (first || self.is_root_gateway) && !self.is_fed_from_afar() {
            self.seek_origins(ctx);
        }
        if !ctx.bandwidth.is_closed(PUSHED, self.urgency, ctx.now) {
            self.tend_stripes(ctx);
        }
        self.fill(ctx);
        self.climb(ctx);
        self.ask_for_rare(ctx);
    }

    fn drop_silent(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        self.seeker.dialled.retain(|_, ends| *ends > now);
        let silent = |l: Link| matches!(l, Link::Opening(ends) if ends <= now);
        let late = self.neighbours.iter().filter(|(_, n)| silent(n.link));
        let late: Vec<NodeId> = late.map(|(node, _)| *node).collect();
        for node in late {
            ctx.send(node, TransferFrame::Close(self.id));
            self.closed(node, ctx);
        }
    }

    /// Whether anybody whom we would ask says that it has something for us.
    fn has_helper(&self, now: Tick) -> bool {
        self.neighbours.iter().any(|(node, n)| {
            n.is_open()
                && n.wanted > 0
                && n.muted.is_none()
                && !self.faults.avoided(*node, now)
                && !self.faults.shunned(*node, now)
        })
    }

    fn climb(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let patience = HUNGER_MS.max(2 * self.steal_base_ms());
        let waits = now.since(self.seeker.arrived) < patience && self.has_helper(now);
        let comes = self.inflight.values().flatten().any(|r| r.from != ORIGIN_STORE);
        if waits || comes {
            self.seeker.helped = now;
            return;
        }
        let hungry = now.since(self.seeker.helped);
        let alone = self.neighbours.is_empty() && self.seeker.dialled.is_empty();
        let far = self.is_fed_from_afar();
        let patience = if far { HUNGER_FAR_MS.max(8 * patience) } else { HUNGER_ORIGIN_MS };
        if (alone && !far) || hungry >= patience {
            self.seek_origins(ctx);
        }
        if hungry < HUNGER_MS || now < self.seeker.climb {
            return;
        }
        self.seeker.climb = now.after_ms(HUNGER_MS);
        ctx.actions.push(Action::Event(Event::Hungry { swarm: self.id }));
        self.make_room(ctx);
        let free = self.interested.iter().copied().filter(|n| self.is_candidate(*n, now));
        let free: Vec<NodeId> = free.collect();
        let room = PICKED_MAX.saturating_sub(self.picked()).min(LADDER_MEMBERS);
        for node in ctx.rng.sample(free, room) {
            self.seek(node, ctx);
        }
    }

    /// Lets go of those that we chose and that have nothing for us.
    fn make_room(&mut self, ctx: &mut Ctx<'_>) {
        let over = (self.picked() + LADDER_MEMBERS).saturating_sub(PICKED_MAX);
        let idle = self.neighbours.iter().filter(|(_, n)| n.picked && !n.origin && n.wanted == 0);
        let idle: Vec<NodeId> = idle.map(|(node, _)| *node).collect();
        for node in ctx.rng.sample(idle, over) {
            ctx.send(node, TransferFrame::Close(self.id));
            self.closed(node, ctx);
        }
    }

    /// Tells an origin which pieces nobody near us has.
    fn ask_for_rare(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.now < self.seeker.next_round {
            return;
        }
        self.seeker.next_round = ctx.now.after_ms(RARE_ROUND_MS);
        let mut rare = Vec::new();
        // Nothing came for long: whoever claims to have it does not grant or deliver it.
        let hungry = ctx.now.since(self.seeker.arrived) >= HUNGER_MS.max(2 * self.steal_base_ms());
        let avoided = self.neighbours.iter().filter(|(node, n)| {
            !n.origin && n.muted.is_none() && self.faults.avoided(**node, ctx.now)
        });
        let avoided: Vec<&PieceSet> = avoided.map(|(_, n)| &n.have).collect();
        let pieces = (0u32..).zip(&mut self.seeker.rounds).zip(&self.rarity);
        for ((piece, rounds), holders) in pieces {
            let useless = avoided.iter().filter(|have| have.contains(piece)).count();
            let held = usize::from(*holders) > useless && !hungry;
            if held || self.have.contains(piece) || self.reserved.contains(piece) {
                *rounds = 0;
                continue;
            }
            *rounds = rounds.saturating_add(1);
            if *rounds > RARE_ROUNDS {
                rare.push(piece);
            }
        }
        let open = self.neighbours.iter().filter(|(_, n)| n.origin && n.is_open());
        let open: Vec<NodeId> = open.map(|(node, _)| *node).collect();
        if open.is_empty() {
            return;
        }
        let count = rare.len();
        for piece in ctx.rng.sample(rare, count) {
            if !self.rare.take(ctx.now) {
                return;
            }
            if let Some(rounds) = self.seeker.rounds.get_mut(piece as usize) {
                *rounds = 0;
            }
            for origin in ctx.rng.sample(open.clone(), 1) {
                ctx.send(origin, TransferFrame::Rare { swarm: self.id, piece });
            }
        }
    }

    /// Whether nobody has helped for so long that a slower pace will do.
    pub(super) fn starved(&self, now: Tick) -> bool {
        now.since(self.seeker.helped) >= HUNGER_LONG_MS
    }
}
