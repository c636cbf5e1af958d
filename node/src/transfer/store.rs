//! The last rung of the ladder: pieces and manifests from the origin store, an object store that
//! the operator named.
//!
//! It is asked only when no host has helped for a while, by the hosts that come first by rendezvous
//! hash, and within a token bucket. So each byte leaves it about once: the first of them takes
//! pieces from the front, the second from the back, and neither takes what a neighbour has. The
//! others get all of it from these two; should they be dead or have no store, the next in the order
//! steps in. To the rest of the planner the store is one more source of pieces, under a name that
//! no host can have.

use std::collections::BTreeMap;

use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::limits::PIECE_LEN_MAX;
use stork_wire::tick::Tick;

use super::bandwidth::Dir;
use super::message::{Action, Fault, Role};
use super::rng::rank;
use super::swarm::{Ctx, Reserved, Swarm};

/// Stands for the store where the source of a piece is named. No host has this id: as a public key
/// it is a point of small order, and such keys are refused wherever a signature is checked.
pub const ORIGIN_STORE: NodeId = NodeId([0; 32]);

/// Hunger before the first hosts ask the store: the ladder has gone to other members for four
/// rounds then, and to the origins for three (`ladder.rs`).
const HUNGER_MS: u64 = 5_000;
/// So many hosts ask it at the same time, one from each end.
const FIRST: usize = 2;
/// Each further one waits so much longer, in which the ones before it should have shown a piece.
const STEP_MS: u64 = 5_000;
/// Nobody waits for more than so many others: a minute.
const RANKS_MAX: usize = 12;
/// Pieces on their way from the store at once, over all swarms: hides its round trip.
const FETCHES_MAX: usize = 4;
/// Wait after the store failed; doubles with each failure in a row.
const RETRY_MS: u64 = 5_000;
const RETRY_MS_MAX: u64 = 300_000;
/// Wait after it sent wrong bytes: somebody has to look at it, and nothing changes by itself.
const WRONG_MS: u64 = 300_000;
/// A manifest that is not here after so long is asked for again. 64 MiB at 10 Mbit/s are 54 s.
pub(super) const MANIFEST_MS: u64 = 60_000;

/// How long a host waits that comes after so many others in the order.
fn patience_ms(rank: usize) -> u64 {
    let after = rank.saturating_sub(FIRST - 1).min(RANKS_MAX) as u64;
    HUNGER_MS + after * STEP_MS
}

/// The hosts before us, as far as it matters.
fn rank_of(topic: &[u8; 32], me: NodeId, interested: &[NodeId]) -> usize {
    rank(topic, me, interested, FIRST + RANKS_MAX)
}

/// What may be taken from the store, over all swarms and manifests.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes a second; 0: there is no store.
    rate: u64,
    /// Bytes that may be taken now, times a thousand.
    milli: u64,
    filled: Tick,
    /// Pieces on their way.
    fetches: usize,
}

impl Allowance {
    /// A full bucket holds the bytes of one second, and one piece at least.
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, milli: Self::full(rate), filled: Tick(0), fetches: 0 }
    }

    const fn full(rate: u64) -> u64 {
        let piece = PIECE_LEN_MAX as u64;
        (if rate > piece { rate } else { piece }).saturating_mul(1_000)
    }

    pub(super) const fn is_off(&self) -> bool {
        self.rate == 0
    }

    /// Takes so many bytes, or says that they are not there yet. What is longer than a full bucket
    /// needs a full one and empties it.
    pub(super) fn take(&mut self, bytes: u64, now: Tick) -> bool {
        if self.is_off() {
            return false;
        }
        let come = now.since(self.filled).saturating_mul(self.rate);
        self.milli = self.milli.saturating_add(come).min(Self::full(self.rate));
        self.filled = now;
        let needed = bytes.saturating_mul(1_000).min(Self::full(self.rate));
        let enough = self.milli >= needed;
        if enough {
            self.milli -= needed;
        }
        enough
    }

    /// A piece is not on its way any more.
    pub(super) const fn ended(&mut self) {
        self.fetches = self.fetches.saturating_sub(1);
    }
}

/// When the store may be asked again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    failures: u32,
    until: Tick,
}

impl Patience {
    pub(super) fn waits(&self, now: Tick) -> bool {
        self.until > now
    }

    /// Several requests that fail together count once.
    pub(super) fn failed(&mut self, fault: Fault, now: Tick) {
        if self.waits(now) {
            return;
        }
        let wait = (RETRY_MS << self.failures.min(8)).min(RETRY_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = now.after_ms(if fault == Fault::Bad { WRONG_MS } else { wait });
    }

    fn worked(&mut self) {
        self.failures = 0;
    }
}

/// What one swarm has to do with the store.
#[derive(Debug, Default)]
pub(super) struct Draw {
    /// We ask it, until somebody who has the content from the publisher delivers.
    on: bool,
    patience: Patience,
}

/// How asking for the pieces of one swarm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draught {
    /// It wants no more for now, or there is no place for more.
    Done,
    /// The allowance is used up.
    Dry,
}

/// Asks the store for what is missing and its turn, the urgent swarms first.
pub(super) fn draw(swarms: &mut BTreeMap<SwarmId, Swarm>, ctx: &mut Ctx<'_>) {
    if ctx.store.is_off() || ctx.store.fetches >= FETCHES_MAX {
        return;
    }
    let waits = swarms.values_mut().filter(|s| s.may_draw(ctx.now));
    let mut waits: Vec<&mut Swarm> = waits.collect();
    waits.sort_by_key(|s| s.urgency);
    for swarm in waits {
        // What the first one waits for is not taken by another with smaller pieces.
        if swarm.draw(ctx) == Draught::Dry {
            return;
        }
    }
}

impl Swarm {
    /// Whether the store might be asked, before anything is reckoned.
    fn may_draw(&self, now: Tick) -> bool {
        let hungry = self.draw.on || self.seeker.hungry_ms(now) >= HUNGER_MS;
        let gets = self.role == Role::Leech && !self.complete();
        gets && hungry && !self.draw.patience.waits(now)
    }

    fn draw(&mut self, ctx: &mut Ctx<'_>) -> Draught {
        let rank = rank_of(self.id.as_bytes(), ctx.me, &self.interested);
        let hungry = self.seeker.hungry_ms(ctx.now) >= patience_ms(rank);
        self.draw.on |= hungry;
        while self.draw.on && ctx.store.fetches < FETCHES_MAX {
            let Some(piece) = self.next_from_store(rank, hungry) else { break };
            let (lane, bytes) = (ctx.lane(Dir::Down, ORIGIN_STORE), self.len_of(piece));
            if !ctx.bandwidth.admits(lane, self.urgency, ctx.now) || !ctx.store.take(bytes, ctx.now)
            {
                return Draught::Dry;
            }
            ctx.bandwidth.take(lane, self.urgency, bytes, ctx.now);
            ctx.store.fetches += 1;
            self.reserve(
                piece,
                Reserved { from: ORIGIN_STORE, since: ctx.now, rate: 0, fair_ms: 0 },
            );
            ctx.actions.push(Action::FetchPiece { swarm: self.id, piece });
        }
        Draught::Done
    }

    /// A piece that no neighbour has; if they have let us starve, any.
    fn next_from_store(&self, rank: usize, any: bool) -> Option<u32> {
        let (all, turn) = (self.pieces(), u32::try_from(rank / 2).unwrap_or(0));
        // Those who step in begin elsewhere, in case that the ones before them are still at work.
        let skip = turn * (all / 8);
        let at = |i: u32| {
            let i = (i + skip) % all;
            if rank.is_multiple_of(2) { i } else { all - 1 - i }
        };
        let missing = |p: &u32| !self.have.contains(*p) && !self.reserved.contains(*p);
        let mut missing = (0..all).map(at).filter(missing);
        let rare = missing.clone().find(|p| self.rarity_of(*p) == 0);
        rare.or_else(|| missing.next().filter(|_| any))
    }

    /// A piece came from the store; `asked` if we still waited for it.
    pub(super) fn drawn(&mut self, asked: bool, ctx: &mut Ctx<'_>) {
        self.draw.patience.worked();
        if asked {
            ctx.store.ended();
        }
    }

    /// Whether pieces come from the store, so that time alone changes something.
    pub(super) const fn draws(&self) -> bool {
        self.draw.on
    }

    /// A publisher's host delivers again: the store is left alone.
    pub(super) fn stop_drawing(&mut self, from: NodeId) {
        if self.origins.binary_search(&from).is_ok() {
            self.draw.on = false;
        }
    }

    /// The store did not give a piece, or gave something else.
    pub(super) fn draw_failed(&mut self, piece: u32, fault: Fault, ctx: &mut Ctx<'_>) {
        if self.unreserve(piece, ORIGIN_STORE, ctx) {
            ctx.store.ended();
            self.draw.patience.failed(fault, ctx.now);
        }
    }

    /// Gives back what is on its way from the store, when the swarm ends.
    pub(super) fn stop_fetches(&mut self, ctx: &mut Ctx<'_>) {
        for piece in self.reserved_from(ORIGIN_STORE) {
            self.unreserve(piece, ORIGIN_STORE, ctx);
            ctx.store.ended();
            let (from, swarm) = (ORIGIN_STORE, self.id);
            ctx.actions.push(Action::Unexpect { from, swarm, piece });
        }
    }
}

/// Whether the store may be asked for a manifest that nobody has shown since then.
pub(super) fn manifest_is_due(
    manifest: ManifestId,
    (since, interested): (Tick, &[NodeId]),
    patience: Patience,
    ctx: &Ctx<'_>,
) -> bool {
    let hungry = ctx.now.since(since);
    !ctx.store.is_off()
        && !patience.waits(ctx.now)
        && hungry >= HUNGER_MS
        && hungry >= patience_ms(rank_of(manifest.as_bytes(), ctx.me, interested))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket lets through its rate, and what is longer than it only when it is full.
    #[test]
    fn allowance() {
        let piece = u64::from(PIECE_LEN_MAX);
        let mut a = Allowance::new(piece / 4);
        assert!(a.take(piece, Tick(0)) && !a.take(1_000, Tick(0)));
        assert!(!a.take(piece, Tick(3_999)) && a.take(piece, Tick(4_000)));
        assert!(!a.take(64 * piece, Tick(7_999)) && a.take(64 * piece, Tick(8_000)));
        assert!(!Allowance::new(0).take(1, Tick(9_000)));
    }

    /// Waits double up to five minutes; what fails together counts once; wrong bytes cost most.
    #[test]
    fn patience() {
        let mut p = Patience::default();
        p.failed(Fault::Stalled, Tick(0));
        p.failed(Fault::Stalled, Tick(0));
        assert!(p.waits(Tick(4_999)) && !p.waits(Tick(5_000)));
        p.failed(Fault::Stalled, Tick(5_000));
        assert!(p.waits(Tick(14_999)) && !p.waits(Tick(15_000)));
        p.worked();
        p.failed(Fault::Bad, Tick(20_000));
        assert!(p.waits(Tick(319_999)) && !p.waits(Tick(320_000)));
    }

    /// Two go at once, the others one after the other, nobody later than after a minute and some.
    #[test]
    fn order() {
        let waits: Vec<u64> = [0, 1, 2, 3, 99].map(patience_ms).into();
        assert_eq!(waits, [5_000, 5_000, 10_000, 15_000, 65_000]);
    }
}
