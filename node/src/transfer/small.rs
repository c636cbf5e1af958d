//! Small contents in one round trip: the manifest and the packs in one answer.
//!
//! An announcement says how long the manifest and the packs are. Where both fit into one frame, a
//! host asks the neighbour that it has the announcement from for all of it (`GetSmall`), on the
//! connection that is there. That neighbour may have asked somebody itself a moment ago: it
//! answers as soon as it has both, verified and on disk, so that the content follows the
//! announcement from host to host, one round trip behind. Who has neither gets nothing asked:
//! only hosts that want the content, and origins, are.
//!
//! It is an offer and no more. Whoever gets no answer in time, or is told `Busy`, goes the way of
//! larger contents (`manifests`, `ladder`), and so does who gets an answer that is wrong.

use std::collections::BTreeMap;

use stork_wire::feed::Urgency;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::limits::SMALL_LEN_MAX;
use stork_wire::tick::Tick;

use super::bandwidth::Dir;
use super::manifests::{BUSY_MS, Manifests, WAITERS_MAX, Want};
use super::message::{Action, Fault};
use super::stats::Bucket;
use super::swarm::{Ctx, Swarm};

/// Silence after which others hear of our interest as well.
const OTHERS_AFTER_MS: u64 = 200;
/// Silence after which the manifest is taken from whoever has shown it.
const PATIENCE_MS: u64 = 500;
/// How long checking and writing an answer may take before others are asked all the same.
const TAKING_MS: u64 = 10_000;
/// Answers in a second over all peers, and at once: some 6 MiB, a twentieth of a link of 1 Gbit/s.
const ANSWERS_PER_S: u64 = 128;
/// A peer gets the same content once in this time: it has it by then, or takes it in pieces.
const AGAIN_MS: u64 = 10_000;
/// Answers remembered for that.
const ANSWERED_MAX: usize = 4_096;
/// Contents that peers wait for here.
const AWAITED_MAX: usize = 64;
/// How long they are remembered: they turn to others long before.
const AWAITED_MS: u64 = 5_000;

/// How all of a small content may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Small {
    /// The variant that is wanted.
    pub swarm: SwarmId,
    /// Bytes of the manifest and of the packs of that variant together.
    pub len: u64,
    /// Who told of it.
    pub teller: Option<NodeId>,
}

/// An answer that may come.
#[derive(Debug)]
pub(super) struct Asked {
    swarm: SwarmId,
    len: u64,
    from: NodeId,
    /// It has answered, and that is being checked and written.
    taking: bool,
    /// Nobody else is asked before.
    until: Tick,
}

impl Want {
    /// Asks one neighbour for all of it: who told of it, or else one that may have it.
    pub(super) fn ask_small(
        &mut self,
        manifest: ManifestId,
        small: Option<Small>,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(small) = small.filter(|s| s.len <= SMALL_LEN_MAX as u64) else { return };
        let known = |n: &NodeId| self.interested.contains(n) || self.origins.contains(n);
        let up = |n: &NodeId| ctx.peers.contains_key(n);
        let teller = small.teller.filter(|n| known(n) && up(n));
        let origin = || self.origins.iter().copied().find(up);
        let Some(from) = teller.or_else(origin) else { return };
        let lane = ctx.lane(Dir::Down, from);
        if !ctx.bandwidth.admits(lane, self.urgency, ctx.now) {
            return;
        }
        let (swarm, until) = (small.swarm, ctx.now.after_ms(PATIENCE_MS));
        self.small = Some(Asked { swarm, len: small.len, from, taking: false, until });
        self.ask_at = ctx.now.after_ms(OTHERS_AFTER_MS);
        ctx.send(from, TransferFrame::GetSmall { manifest, swarm });
    }

    /// Is it still time for the answer?
    pub(super) fn small_may_come(&self, now: Tick) -> bool {
        self.small.as_ref().is_some_and(|s| s.until > now)
    }

    /// It will not come from there, if it was to: others may be asked.
    pub(super) fn small_ended(&mut self, from: NodeId, now: Tick) -> bool {
        let ended = self.small.take_if(|s| s.from == from && !s.taking).is_some();
        if ended {
            self.ask_at = now;
        }
        ended
    }

    /// What came from there was wrong.
    pub(super) fn small_failed(&mut self, from: NodeId, now: Tick) {
        if self.small.take_if(|s| s.from == from).is_some() {
            self.ask_at = now;
        }
    }
}

/// What peers want of us, and what they got.
#[derive(Debug, Default)]
pub(super) struct Smalls {
    /// Since when who waits for which content.
    awaited: BTreeMap<SwarmId, (ManifestId, BTreeMap<NodeId, Tick>)>,
    answered: BTreeMap<(SwarmId, NodeId), Tick>,
    bucket: Option<Bucket>,
}

impl Smalls {
    /// Somebody asks for all of a content.
    pub(super) fn asked(
        &mut self,
        (manifest, swarm): (ManifestId, SwarmId),
        from: NodeId,
        (all, swarms): (&Manifests, &BTreeMap<SwarmId, Swarm>),
        ctx: &mut Ctx<'_>,
    ) {
        if let Some(s) = ready(manifest, swarm, all, swarms) {
            return self.answer(s, from, ctx);
        }
        let now = ctx.now;
        self.awaited.retain(|_, (_, nodes)| {
            nodes.retain(|_, since| now.since(*since) < AWAITED_MS);
            !nodes.is_empty()
        });
        if self.awaited.len() >= AWAITED_MAX && !self.awaited.contains_key(&swarm) {
            return ctx.send(from, TransferFrame::Busy { manifest, retry_ms: BUSY_MS });
        }
        let (_, nodes) = self.awaited.entry(swarm).or_insert_with(|| (manifest, BTreeMap::new()));
        if nodes.len() < WAITERS_MAX {
            nodes.insert(from, now);
        }
    }

    /// Gives those who wait what has come since.
    pub(super) fn settle(
        &mut self,
        all: &Manifests,
        swarms: &BTreeMap<SwarmId, Swarm>,
        ctx: &mut Ctx<'_>,
    ) {
        if self.awaited.is_empty() {
            return;
        }
        let is_ready =
            |(s, (m, _)): (&SwarmId, &(ManifestId, _))| ready(*m, *s, all, swarms).map(|_| *s);
        let come: Vec<SwarmId> = self.awaited.iter().filter_map(is_ready).collect();
        for id in come {
            let Some((_, nodes)) = self.awaited.remove(&id) else { continue };
            let Some(swarm) = swarms.get(&id) else { continue };
            for (node, since) in nodes {
                if ctx.now.since(since) < AWAITED_MS {
                    self.answer(swarm, node, ctx);
                }
            }
        }
    }

    pub(super) fn peer_down(&mut self, node: NodeId) {
        self.awaited.retain(|_, (_, nodes)| {
            nodes.remove(&node);
            !nodes.is_empty()
        });
    }

    fn answer(&mut self, swarm: &Swarm, to: NodeId, ctx: &mut Ctx<'_>) {
        let (manifest, now) = (swarm.manifest, ctx.now);
        let lane = ctx.lane(Dir::Up, to);
        let len: u64 = swarm.lens.iter().map(|l| u64::from(*l)).sum();
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.retain(|_, at| now.since(*at) < AGAIN_MS);
        }
        let again = self.answered.get(&(swarm.id, to)).is_some_and(|at| now.since(*at) < AGAIN_MS);
        let bucket = self.bucket.get_or_insert_with(|| Bucket::new(ANSWERS_PER_S, now));
        let may = !again
            && len <= SMALL_LEN_MAX as u64
            && self.answered.len() < ANSWERED_MAX
            && ctx.bandwidth.admits(lane, swarm.urgency, now)
            && bucket.take(now);
        if !may {
            return ctx.send(to, TransferFrame::Busy { manifest, retry_ms: BUSY_MS });
        }
        ctx.bandwidth.take(lane, swarm.urgency, len, now);
        self.answered.insert((swarm.id, to), now);
        ctx.actions.push(Action::SendSmall { to, manifest, swarm: swarm.id });
    }
}

/// The swarm, if both it and its manifest are here.
fn ready<'a>(
    manifest: ManifestId,
    swarm: SwarmId,
    all: &Manifests,
    swarms: &'a BTreeMap<SwarmId, Swarm>,
) -> Option<&'a Swarm> {
    let swarm = swarms.get(&swarm).filter(|s| s.manifest == manifest && s.complete());
    swarm.filter(|_| all.has(manifest))
}

/// An answer came: it is kept if it was asked for, of this peer. Who was asked and sends another
/// length than the publisher signed is treated as one who sends wrong bytes.
pub(super) fn came(
    all: &mut Manifests,
    (manifest, swarm): (ManifestId, SwarmId),
    from: NodeId,
    bytes: Vec<u8>,
    ctx: &mut Ctx<'_>,
) {
    let len = bytes.len() as u64;
    let want = all.want_of(manifest);
    let class = want.as_ref().map_or(Urgency::Normal, |w| w.urgency);
    let asked = want.and_then(|w| w.small.as_mut());
    let Some(asked) = asked.filter(|a| a.from == from && !a.taking && a.swarm == swarm) else {
        ctx.counters.nonsense += 1;
        return;
    };
    if asked.len != len {
        return all.failed(manifest, from, Fault::Bad, ctx);
    }
    asked.taking = true;
    asked.until = ctx.now.after_ms(TAKING_MS);
    ctx.bandwidth.take(ctx.lane(Dir::Down, from), class, len, ctx.now);
    ctx.actions.push(Action::TakeSmall { from, manifest, swarm, bytes });
}
