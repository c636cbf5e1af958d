//! The receiver: what to ask for when somebody grants us a slot, and when to give up on it.

use stork_wire::frame::TransferFrame;
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::bandwidth::Dir;
use super::credit::PUSHED;
use super::faults::Verdict;
use super::message::{Action, Event, Fault, Why};
use super::neighbour::Neighbour;
use super::room::Room;
use super::store::ORIGIN_STORE;
use super::swarm::{Ctx, Reserved, Swarm};

/// Pieces among which the rarest is taken (protocol.md §3e).
const RAREST_OF: usize = 12;
/// Shortest time before a piece is given up (protocol.md §3e).
const STEAL_MS_MIN: u64 = 250;
/// The same while nothing has arrived yet, so that the pace is unknown.
const STEAL_MS_FIRST: u64 = 2_000;
/// And it allows for this rate then: 1 MiB/s.
const FIRST_BYTES_PER_MS: u64 = 1_024;
/// A piece that takes so many times as long as its sender's best is late.
const FAIR_TIMES: u64 = 16;
/// Longest time before a piece is given up, however slow everybody is.
const STEAL_MS_MAX: u64 = 120_000;
/// So many missing pieces may be asked for twice at once (protocol.md §3e: the last three. A slow
/// host may have more of them than that).
const ENDGAME: usize = 3;
/// And not before this: what waits behind others for an uplink of a fast link is not late.
const LATE_MS_MIN: u64 = 50;

impl Swarm {
    /// How long a request may take (T_steal).
    pub(super) fn steal_ms(&self) -> u64 {
        (self.steal_base_ms() << self.steal_shift.min(16)).min(STEAL_MS_MAX)
    }

    /// The same before it was doubled for those who failed.
    pub(super) fn steal_base_ms(&self) -> u64 {
        match self.piece_ms.value() {
            // While queues fill, each piece is later than the one before.
            Some(median) => (4 * median).max(2 * self.piece_ms.most()).max(STEAL_MS_MIN),
            None => STEAL_MS_FIRST + self.len_max / FIRST_BYTES_PER_MS,
        }
    }

    /// A neighbour grants us a slot: pick a piece, or pass.
    pub(super) fn granted(&mut self, from: NodeId, room: Room, ctx: &mut Ctx<'_>) {
        let known = self.neighbours.get(&from).and_then(|n| n.rate(self.len_max));
        let rate = known.unwrap_or(room.peak);
        let picked = if room.fits(self, rate, ctx.config.download_window) {
            self.pick(from, ctx)
        } else {
            None
        };
        let (swarm, lane) = (self.id, ctx.lane(Dir::Down, from));
        match picked {
            Some(_) if !ctx.bandwidth.admits(lane, self.urgency, ctx.now) => {
                // It helps, and we may not let it: that is no hunger.
                self.seeker.fed(ctx.now);
                ctx.send(from, TransferFrame::Pass(swarm));
            }
            Some(piece) => {
                ctx.bandwidth.take(lane, self.urgency, self.len_of(piece), ctx.now);
                let fair_ms = STEAL_MS_MIN.max(FAIR_TIMES * self.len_max / rate.max(1));
                self.reserve(piece, Reserved { from, since: ctx.now, rate, fair_ms });
                ctx.actions.push(Action::Expect { from, swarm, piece });
                ctx.send(from, TransferFrame::Request { swarm, piece });
            }
            None => ctx.send(from, TransferFrame::Pass(swarm)),
        }
    }

    fn pick(&self, from: NodeId, ctx: &mut Ctx<'_>) -> Option<u32> {
        let n = self.neighbours.get(&from).filter(|n| n.is_open() && n.muted.is_none())?;
        if self.faults.shunned(from, ctx.now) || n.wanted == 0 {
            return None;
        }
        let avoided = self.faults.avoided(from, ctx.now);
        let fits = |p: u32| !avoided || self.only_holder(p, from, ctx.now);
        let mut best: Option<(u16, u32)> = None;
        let mut start = u32::try_from(ctx.rng.below(self.pieces() as usize)).unwrap_or(0);
        for _ in 0..RAREST_OF {
            let Some(p) = n.have.find(start, [&self.have, &self.reserved], fits) else { break };
            if best.is_none_or(|(r, _)| self.rarity_of(p) < r) {
                best = Some((self.rarity_of(p), p));
            }
            // Few are looked at one after the other, so that none is missed; many at random.
            start = match n.wanted as usize > RAREST_OF {
                true => u32::try_from(ctx.rng.below(self.pieces() as usize)).unwrap_or(0),
                false => (p + 1) % self.pieces(),
            };
        }
        best.map(|(_, p)| p).or_else(|| self.pick_twice(from, n, ctx.now))
    }

    /// Endgame: when all that is missing was asked for, what is late may be asked for again, the
    /// latest first; and at any time what an origin offers, which does so when others do not pass
    /// it on.
    fn pick_twice(&self, from: NodeId, n: &Neighbour, now: Tick) -> Option<u32> {
        let missing = (self.pieces() - self.have.count()) as usize;
        let last = missing <= ENDGAME.max(self.reserved.count() as usize);
        if !(last || n.origin) || self.faults.avoided(from, now) {
            return None;
        }
        let usual = 2 * self.piece_ms.value().unwrap_or(STEAL_MS_FIRST / 2);
        // While all wait for one slow host, what is usual says nothing.
        let late = if n.origin { usual.min(STEAL_MS_MIN) } else { usual.max(LATE_MS_MIN) };
        let twice = self.inflight.values().filter(|slots| slots.len() > 1).count();
        if !n.origin && twice >= ENDGAME {
            return None;
        }
        let once = self.inflight.iter().filter_map(|(p, slots)| match slots.as_slice() {
            [r] if n.have.contains(*p) && r.from != from => Some((now.since(r.since), *p)),
            _ => None,
        });
        once.filter(|(ms, _)| *ms > late).max().map(|(_, p)| p)
    }

    /// Whether nobody else whom we would ask has this piece.
    fn only_holder(&self, piece: u32, node: NodeId, now: Tick) -> bool {
        !self.neighbours.iter().any(|(other, n)| {
            *other != node
                && n.is_open()
                && n.muted.is_none()
                && n.have.contains(piece)
                && !self.faults.avoided(*other, now)
                && !self.faults.shunned(*other, now)
        })
    }

    /// A piece is verified and on disk.
    pub(super) fn arrived(&mut self, piece: u32, from: NodeId, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        if piece >= self.pieces() {
            return;
        }
        let released = self.release(piece, from);
        if from == ORIGIN_STORE {
            self.drawn(released.is_some(), ctx);
        } else if released.is_none() && ctx.peers.contains_key(&from) {
            ctx.bandwidth.take(PUSHED, self.urgency, self.len_of(piece), ctx.now);
        } else if let Some(since) = released {
            self.piece_ms.add(ctx.now.since(since));
            if let Some(n) = self.neighbours.get_mut(&from) {
                n.delivered(ctx.now.since(since));
            }
        }
        self.faults.delivered(from);
        self.steal_shift = 0;
        self.account(piece, from, released.is_some(), ctx);
        if !self.gain(piece, ctx.now) {
            return;
        }
        if from != ORIGIN_STORE {
            self.seeker.fed(ctx.now);
            self.stop_drawing(from);
        }
        for other in self.inflight.get(&piece).cloned().unwrap_or_default() {
            self.give_up(piece, other.from, ctx);
        }
        self.settle_stripe(piece, from, ctx);
        if self.complete() {
            self.unsubscribe_all(ctx);
            ctx.actions.push(Action::Complete { swarm });
        }
    }

    /// Tells the sender and the shell that a piece is not wanted from there any more.
    fn give_up(&mut self, piece: u32, from: NodeId, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        if self.unreserve(piece, from, ctx) {
            ctx.actions.push(Action::Unexpect { from, swarm, piece });
            if from == ORIGIN_STORE {
                return ctx.store.ended();
            }
            ctx.send(from, TransferFrame::Cancel { swarm, piece });
        }
    }

    /// An expected piece did not come.
    pub(super) fn failed(&mut self, piece: u32, from: NodeId, fault: Fault, ctx: &mut Ctx<'_>) {
        if self.release(piece, from).is_none() {
            self.push_failed(piece, from, fault == Fault::Bad, ctx);
            return;
        }
        if fault != Fault::Bad {
            let lane = ctx.lane(Dir::Down, from);
            ctx.bandwidth.give_back(lane, self.urgency, self.len_of(piece), ctx.now);
        }
        match fault {
            Fault::Bad => {
                ctx.counters.bad += 1;
                self.faults.bad(from, ctx.now);
                ctx.actions.push(Action::Blame { node: from, why: Why::BadPiece });
                if self.faults.banned(from) {
                    self.remove_neighbour(from, ctx);
                    ctx.send(from, TransferFrame::Close(self.id));
                } else if let Some(until) = self.faults.shunned_until(from, ctx.now) {
                    // What it has does not count, so that we ask for it elsewhere (A13).
                    self.mute(from, until);
                }
            }
            Fault::Stalled => {
                ctx.send(from, TransferFrame::Cancel { swarm: self.id, piece });
                self.stalled(from, ctx);
            }
            Fault::Gone => {}
        }
    }

    fn stalled(&mut self, from: NodeId, ctx: &mut Ctx<'_>) {
        if let Verdict::Forget(until) = self.faults.stalled(from, ctx.now) {
            ctx.actions.push(Action::Blame { node: from, why: Why::FalseHave });
            self.mute(from, until);
        }
    }

    /// Takes back what is overdue.
    pub(super) fn steal(&mut self, ctx: &mut Ctx<'_>) {
        let (swarm, limit) = (self.id, self.steal_ms());
        let all = self.inflight.iter().flat_map(|(p, slots)| slots.iter().map(move |r| (*p, *r)));
        // How long the store may take, the shell knows.
        let late = all.filter(|(_, r)| r.from != ORIGIN_STORE);
        let late: Vec<_> = late.filter(|(_, r)| ctx.now.since(r.since) >= limit).collect();
        if !late.is_empty() {
            // If everybody is slower than we thought, the next try gets more time.
            self.steal_shift = self.steal_shift.saturating_add(1);
        }
        let mut blamed: Vec<NodeId> = Vec::new();
        for (piece, r) in late {
            ctx.counters.stolen += 1;
            self.give_up(piece, r.from, ctx);
            ctx.actions.push(Action::Event(Event::Stolen { swarm, piece, from: r.from }));
            if !blamed.contains(&r.from) {
                blamed.push(r.from);
                self.stalled(r.from, ctx);
            }
        }
    }

    /// Cancel from somebody who has the piece that we lack: it takes its offer back.
    pub(super) fn withdrawn(&mut self, piece: u32, from: NodeId, ctx: &mut Ctx<'_>) {
        self.unlearn(from, piece);
        if self.unreserve(piece, from, ctx) {
            ctx.actions.push(Action::Unexpect { from, swarm: self.id, piece });
        }
    }

    /// Frees a reservation of which nothing came; false if there was none.
    pub(super) fn unreserve(&mut self, piece: u32, from: NodeId, ctx: &mut Ctx<'_>) -> bool {
        let reserved = self.release(piece, from).is_some();
        if reserved {
            let lane = ctx.lane(Dir::Down, from);
            ctx.bandwidth.give_back(lane, self.urgency, self.len_of(piece), ctx.now);
        }
        reserved
    }
}
