//! The uploader: one scheduler over all swarms, and the only place where sending is admitted.
//!
//! While less is promised than the window, the neighbour with the least progress in the most
//! urgent class gets a grant. Which receiver is served next decides the makespan far more than
//! which piece it takes (protocol.md §3e, the table of ablations). An origin grants to whoever has
//! the fewest of its pieces to itself.

use std::collections::BTreeMap;

use stork_wire::codec::List;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::bandwidth::Dir;
use super::inject::Injector;
use super::ledger::Way;
use super::message::{Action, Why};
use super::neighbour::{Grant, Neighbour, Sending};
use super::stats::Median;
use super::swarm::{Ctx, Swarm};
use super::window::Uplink;

/// Pieces that may always be promised: one that is being sent and one grant ahead of it.
const WINDOW_PIECES: u64 = 2;
/// Pieces under way to one neighbour in one swarm, for the same reason.
const SENDING_MAX: usize = 2;
/// Small pieces under way to one neighbour may be more, up to so many bytes: on a fast link the
/// round trips of grant, request and acknowledgement would leave it idle otherwise.
const SENDING_BYTES: u64 = 1024 * 1024;
/// One grant in so many goes by age, so that who understates its progress gains little.
const BY_AGE: u64 = 8;
/// One in so many goes by age over all classes: 4 %, so that no class stops altogether.
const BY_AGE_ANY_CLASS: u64 = 24;
/// A sending is slow after this many usual times. It no longer fills the window then: its
/// receiver is the bottleneck, and must not hold up the others (security.md A11).
const SLOW_TIMES: u64 = 8;
/// But not before this time.
const SLOW_MS_MIN: u64 = 250;
/// And this while no piece has been sent yet.
const SLOW_MS_FIRST: u64 = 1_000;
/// A sending that the shell never reported is given up after this time.
pub(super) const SEND_MS_MAX: u64 = 120_000;
/// How many times over a neighbour may get the content from us: what an honest one loses on the
/// way is far less, and one that hides what it got must not draw on us for ever (C4).
const SENT_TIMES_MAX: u32 = 2;
/// Who does not announce within this time what an origin sent it counts as keeping it.
const CONFIRM_MS: u64 = 1_000;
/// Requests without a grant before a neighbour is blamed. Honest ones race with expiry only.
const UNGRANTED_MAX: u32 = 64;

type Swarms = BTreeMap<SwarmId, Swarm>;
/// Class, progress, burden, number of the last grant, salt: the smallest is served first.
type Order = (u8, u64, u64, u64, u64);

/// The scheduler's own state.
#[derive(Debug, Default)]
pub(super) struct Uploader {
    granted: u64,
    /// From the order to send a piece to the end of it.
    sent_ms: Median,
    pub(super) uplink: Uplink,
    /// When somebody may be granted again who passed.
    pub(super) wake: Option<Tick>,
}

/// What one look over all neighbours found.
#[derive(Debug, Default)]
struct Survey {
    committed: u64,
    piece_max: u64,
    best: Option<(Order, SwarmId, NodeId)>,
    wake: Option<Tick>,
}

impl Uploader {
    pub(super) fn slow_ms(&self) -> u64 {
        self.sent_ms.value().map_or(SLOW_MS_FIRST, |m| (m * SLOW_TIMES).max(SLOW_MS_MIN))
    }

    pub(super) fn pace_ms(&self) -> u64 {
        self.sent_ms.value().unwrap_or(0)
    }

    /// Grants until the window is full.
    pub(super) fn pump(&mut self, swarms: &mut Swarms, ctx: &mut Ctx<'_>) {
        loop {
            let found = self.survey(swarms, ctx);
            self.wake = found.wake;
            let window = self.uplink.window(ctx.config.upload_window);
            let window = window.max(WINDOW_PIECES * found.piece_max);
            let Some((_, swarm, node)) = found.best else { return };
            let Some(swarm) = swarms.get_mut(&swarm).filter(|_| found.committed < window) else {
                return;
            };
            self.granted += 1;
            swarm.grant(node, self.granted, ctx);
        }
    }

    fn survey(&self, swarms: &Swarms, ctx: &mut Ctx<'_>) -> Survey {
        let (mut found, now) = (Survey::default(), ctx.now);
        let slow = self.slow_ms();
        for swarm in swarms.values() {
            for (node, n) in &swarm.neighbours {
                found.committed += n.committed(now, slow);
                let Some(from) = swarm.servable(*node, n, now, slow) else { continue };
                if from > now {
                    found.wake = Some(found.wake.map_or(from, |w| w.min(from)));
                    continue;
                }
                let lane = ctx.lane(Dir::Up, *node);
                if !ctx.bandwidth.admits(lane, swarm.urgency, now) {
                    continue;
                }
                found.piece_max = found.piece_max.max(swarm.len_max);
                let order = self.order(swarm, *node, n, now);
                if found.best.as_ref().is_none_or(|(best, ..)| order < *best) {
                    found.best = Some((order, swarm.id, *node));
                }
            }
        }
        found
    }

    fn order(&self, swarm: &Swarm, node: NodeId, n: &Neighbour, now: Tick) -> Order {
        let class = swarm.urgency as u8;
        if self.granted % BY_AGE_ANY_CLASS == BY_AGE_ANY_CLASS - 1 {
            return (0, 0, 0, n.last_grant, n.salt);
        }
        if self.granted % BY_AGE == BY_AGE - 1 {
            return (class, 0, 0, n.last_grant, n.salt);
        }
        let (progress, burden) = match &swarm.injector {
            Some(i) => (i.progress(node).unwrap_or_else(|| i.share()), burden(i, node, n, now)),
            None => (n.progress(), 0),
        };
        (class, progress, burden, n.last_grant, n.salt)
    }

    pub(super) fn sent(&mut self, swarm: &mut Swarm, to: NodeId, piece: u32, now: Tick) {
        let Some(n) = swarm.neighbours.get_mut(&to) else { return };
        let Some(s) = n.sending.remove(&piece) else { return };
        n.sent = n.sent.saturating_add(1);
        self.sent_ms.add(now.since(s.since));
        self.uplink.sent(s.bytes, now);
        swarm.sinks.add(to, s.bytes, Way::Asked, now);
        if let Some(injector) = &mut swarm.injector {
            injector.sent(piece, to, now);
        }
    }
}

/// Pieces that a neighbour was sent by an origin, and that no other neighbour is known to have.
fn burden(injector: &Injector, node: NodeId, n: &Neighbour, now: Tick) -> u64 {
    let kept = n.unconfirmed.values().filter(|t| now.since(**t) >= CONFIRM_MS);
    injector.burden(node).saturating_add(kept.count() as u64)
}

impl Neighbour {
    /// Bytes that fill the window.
    pub(super) fn committed(&self, now: Tick, slow_ms: u64) -> u64 {
        let sending = self.sending.values().filter(|s| now.since(s.since) < slow_ms);
        let granted = self.grant.as_ref().map_or(0, |g| g.bytes);
        sending.map(|s| s.bytes).sum::<u64>() + granted
    }
}

impl Swarm {
    /// Pieces that may be under way to one neighbour.
    fn sending_max(&self) -> usize {
        let fit = SENDING_BYTES / self.len_max.max(1);
        usize::try_from(fit).unwrap_or(SENDING_MAX).max(SENDING_MAX)
    }

    /// From when on this neighbour may be granted a slot; `None` if that needs another event.
    fn servable(&self, node: NodeId, n: &Neighbour, now: Tick, slow_ms: u64) -> Option<Tick> {
        let unconfirmed = u32::try_from(n.unconfirmed.len()).unwrap_or(u32::MAX);
        let greedy = n.sent >= SENT_TIMES_MAX * self.pieces();
        let busy = greedy
            || n.grant.is_some()
            || n.sending.len() >= self.sending_max()
            || n.sending.values().any(|s| now.since(s.since) >= slow_ms);
        // An origin hides what it has. One that has lost it needs it like anybody else, which only
        // a grant can tell; whoever is not whole yet has better use for its slots.
        let full_up = n.origin && !self.complete();
        if busy || !n.is_open() || full_up || n.useful <= unconfirmed {
            return None;
        }
        if self.injector.as_ref().is_some_and(|i| !i.has_offer(node, n)) {
            return None;
        }
        Some(n.quiet)
    }

    fn grant(&mut self, node: NodeId, number: u64, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let Some(n) = self.neighbours.get_mut(&node) else { return };
        let offer = self.injector.as_ref().and_then(|i| i.pick(node, n, ctx.rng));
        if let (Some(piece), Some(injector)) = (offer, &mut self.injector) {
            injector.offered(piece);
            let pieces = List::truncated([piece]);
            ctx.actions
                .push(Action::Send { to: node, frame: TransferFrame::Have { swarm, pieces } });
        }
        let ttl = n.ttl_ms();
        n.last_grant = number;
        n.grant =
            Some(Grant { at: ctx.now, ends: ctx.now.after_ms(ttl), bytes: self.len_max, offer });
        ctx.counters.grants += 1;
        ctx.bandwidth.take(ctx.lane(Dir::Up, node), self.urgency, self.len_max, ctx.now);
        ctx.bandwidth.pushed_last = false;
        let ttl_ms = u32::try_from(ttl).unwrap_or(u32::MAX);
        ctx.send(node, TransferFrame::Grant { swarm, ttl_ms });
    }

    /// A neighbour asks for a piece.
    pub(super) fn requested(&mut self, from: NodeId, piece: u32, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let sending_max = self.sending_max();
        let lane = ctx.lane(Dir::Up, from);
        let Some(n) = self.neighbours.get_mut(&from) else { return };
        // Of a grant that ended before it was used, nothing is taken any more.
        let taken = n.grant.as_ref().map_or(0, |g| g.bytes);
        let Some(offer) = n.use_grant(ctx.now) else {
            ctx.counters.ungranted += 1;
            n.ungranted += 1;
            if n.ungranted >= UNGRANTED_MAX {
                n.ungranted = 0;
                ctx.actions.push(Action::Blame { node: from, why: Why::Ungranted });
            }
            return;
        };
        let may = self.have.contains(piece)
            && !n.sending.contains_key(&piece)
            && n.sending.len() < sending_max + 1;
        let permitted = self.injector.as_ref().is_none_or(|i| i.permits(piece, from, offer));
        if let (Some(injector), Some(offer)) = (&mut self.injector, offer)
            && offer != piece
        {
            let rarity = self.rarity.get(offer as usize).copied().unwrap_or(0);
            injector.returned(offer, from, rarity);
        }
        if !may || !permitted {
            ctx.bandwidth.give_back(lane, self.urgency, taken, ctx.now);
            ctx.counters.withdrawn += 1;
            ctx.send(from, TransferFrame::Cancel { swarm, piece });
            return;
        }
        let bytes = self.lens.get(piece as usize).map_or(0, |l| u64::from(*l));
        ctx.bandwidth.correct(lane, self.urgency, (taken, bytes), ctx.now);
        n.sending.insert(piece, Sending { since: ctx.now, bytes, stopped: false });
        n.unconfirmed.insert(piece, ctx.now);
        if let Some(injector) = &mut self.injector {
            injector.injecting(piece, from, ctx.now);
        }
        ctx.actions.push(Action::SendPiece { to: from, swarm, piece });
    }

    /// A neighbour does not use its grant.
    pub(super) fn passed(&mut self, from: NodeId, ctx: &mut Ctx<'_>) {
        ctx.counters.passes += 1;
        let pace = self.pace_ms();
        let Some(n) = self.neighbours.get_mut(&from) else { return };
        let grant = n.pass_grant(ctx.now, pace / 4);
        let taken = grant.as_ref().map_or(0, |g| g.bytes);
        ctx.bandwidth.give_back(ctx.lane(Dir::Up, from), self.urgency, taken, ctx.now);
        self.offer_back(from, grant.and_then(|g| g.offer));
    }

    fn offer_back(&mut self, to: NodeId, offer: Option<u32>) {
        if let (Some(piece), Some(injector)) = (offer, &mut self.injector) {
            let rarity = self.rarity.get(piece as usize).copied().unwrap_or(0);
            injector.returned(piece, to, rarity);
        }
    }

    /// A neighbour does not want a piece any more.
    pub(super) fn cancelled(&mut self, from: NodeId, piece: u32, ctx: &mut Ctx<'_>) {
        let Some(n) = self.neighbours.get_mut(&from) else { return };
        n.unconfirmed.remove(&piece);
        if let Some(s) = n.sending.get_mut(&piece).filter(|s| !s.stopped) {
            s.stopped = true;
            ctx.actions.push(Action::StopPiece { to: from, swarm: self.id, piece });
        }
    }

    /// A sending ended otherwise than well.
    pub(super) fn send_failed(&mut self, to: NodeId, piece: u32) {
        let Some(n) = self.neighbours.get_mut(&to) else { return };
        if n.sending.remove(&piece).is_none() {
            return;
        }
        n.unconfirmed.remove(&piece);
        let rarity = self.rarity_of(piece);
        if let Some(injector) = &mut self.injector {
            injector.failed(piece, to, rarity);
        }
    }

    /// Ends grants that were not used, and sendings that were forgotten.
    pub(super) fn expire(&mut self, uploader: &Uploader, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let (mut offers, mut stuck) = (Vec::new(), Vec::new());
        let confirm_ms = (uploader.pace_ms() * 16).max(2 * self.steal_ms().min(10_000));
        for (node, n) in &mut self.neighbours {
            if let Some(g) = n.expire_grant(ctx.now) {
                ctx.counters.expired += 1;
                let lane = ctx.lane(Dir::Up, *node);
                ctx.bandwidth.give_back(lane, self.urgency, g.bytes, ctx.now);
                offers.push((*node, g.offer));
            }
            let late = |s: &&Sending| ctx.now.since(s.since) >= SEND_MS_MAX;
            if n.sending.values().any(|s| late(&s)) {
                let late = n.sending.iter().filter(|(_, s)| late(s));
                stuck.extend(late.map(|(p, _)| (*node, *p)));
            }
            let sending = &n.sending;
            n.unconfirmed.retain(|p, t| sending.contains_key(p) || ctx.now.since(*t) < confirm_ms);
        }
        for (node, offer) in offers {
            self.offer_back(node, offer);
        }
        for (to, piece) in stuck {
            ctx.actions.push(Action::StopPiece { to, swarm, piece });
            self.send_failed(to, piece);
        }
        let rarity = &self.rarity;
        if let Some(injector) = &mut self.injector {
            injector.upkeep(ctx.now, uploader.pace_ms(), rarity);
        }
    }

    /// Whether time alone can change something in what we serve.
    pub(super) fn serves(&self) -> bool {
        self.injector.as_ref().is_some_and(Injector::waits)
            || self.neighbours.values().any(|n| {
                n.grant.is_some() || !n.sending.is_empty() || (n.is_open() && n.useful > 0)
            })
    }
}
