//! The phase before the pieces: getting the manifest, and passing it on.
//!
//! Interest goes to a few candidates. Whoever has the manifest says so at once or as soon as it
//! has, and it is then fetched from one at a time. Nobody sends it to more than two at once, so
//! that it spreads from host to host and the origin sends it a handful of times. If nobody shows it
//! for a while, the first hosts ask the origin store (`store.rs`).

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::feed::Urgency;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId};
use stork_wire::tick::Tick;

use super::message::{Action, Event, Fault, Why};
use super::small::{Asked, Small};
use super::store::{ORIGIN_STORE, Patience};
use super::swarm::{CANDIDATES_MAX, Ctx};

/// How long a manifest may take at first; doubles with each failure. 64 MiB at 1 Gbit/s is 0.6 s.
const FETCH_MS: u64 = 2_000;
const FETCH_MS_MAX: u64 = 60_000;
/// Sends of one manifest at once.
const SENDS_MAX: usize = 2;
/// A send that the shell never reported is forgotten after this time.
const SEND_MS_MAX: u64 = 60_000;
/// Wait that we ask for when we are busy: time for two sends, so that most find another source.
pub(super) const BUSY_MS: u32 = 200;
/// Bounds of the wait that a busy peer may ask for.
const BUSY_MS_RANGE: (u32, u32) = (20, 10_000);
/// Wait after a peer failed to deliver.
const FAILED_MS: u64 = 10_000;
/// Wait after a peer sent something else.
const BAD_MS: u64 = 300_000;
/// Peers remembered that wait for a manifest, as many as one may have near and inbound.
pub(super) const WAITERS_MAX: usize = 64;
/// Peers remembered that have a manifest.
const HOLDERS_MAX: usize = 64;
/// Manifests wanted or served at once (the live releases of a busy fleet).
const MANIFESTS_MAX: usize = 4_096;
/// Manifests that others asked for and that we know nothing of.
const UNKNOWN_MAX: usize = 256;
/// Pace of upkeep while one is wanted.
pub(super) const PACE_MS: u64 = 50;

#[derive(Debug)]
pub(super) struct Want {
    pub(super) urgency: Urgency,
    /// Bytes of the manifest.
    pub(super) size: u64,
    /// When we began to look for it.
    pub(super) since: Tick,
    /// When the origin store may be asked.
    pub(super) store: Patience,
    pub(super) interested: Vec<NodeId>,
    pub(super) origins: Vec<NodeId>,
    /// Told of our interest.
    pub(super) asked: BTreeSet<NodeId>,
    /// Dialled to be told.
    pub(super) dialled: BTreeSet<NodeId>,
    /// Who has it, and when it may be asked.
    pub(super) holders: BTreeMap<NodeId, Tick>,
    pub(super) fetching: Option<(NodeId, Tick)>,
    pub(super) failures: u32,
    pub(super) ask_at: Tick,
    /// Who was asked for all of a small content at once.
    pub(super) small: Option<Asked>,
}

#[derive(Debug, Default)]
struct Entry {
    have: bool,
    want: Option<Want>,
    waiters: BTreeSet<NodeId>,
    sends: BTreeMap<NodeId, Tick>,
}

/// All manifests.
#[derive(Debug, Default)]
pub(super) struct Manifests(BTreeMap<ManifestId, Entry>);

impl Manifests {
    /// The entry of a manifest, made if there is room for one of its kind.
    fn entry(&mut self, manifest: ManifestId, ours: bool) -> Option<&mut Entry> {
        if !self.0.contains_key(&manifest) {
            let is_ours = |e: &&Entry| e.have || e.want.is_some();
            let (max, used) = match ours {
                true => (MANIFESTS_MAX, self.0.values().filter(is_ours).count()),
                false => (UNKNOWN_MAX, self.0.values().filter(|e| !is_ours(e)).count()),
            };
            if used >= max {
                return None;
            }
        }
        Some(self.0.entry(manifest).or_default())
    }

    pub(super) fn want(
        &mut self,
        manifest: ManifestId,
        (urgency, size, small): (Urgency, u64, Option<Small>),
        (interested, origins): (Vec<NodeId>, Vec<NodeId>),
        ctx: &mut Ctx<'_>,
    ) {
        let Some(entry) = self.entry(manifest, true) else {
            return ctx.actions.push(Action::Event(Event::TooManyManifests(manifest)));
        };
        if entry.have || entry.want.is_some() {
            return self.roster(manifest, interested, origins);
        }
        entry.want = Some(Want {
            urgency,
            size,
            since: ctx.now,
            store: Patience::default(),
            interested: Vec::new(),
            origins: Vec::new(),
            asked: BTreeSet::new(),
            dialled: BTreeSet::new(),
            holders: BTreeMap::new(),
            fetching: None,
            failures: 0,
            ask_at: ctx.now,
            small: None,
        });
        self.roster(manifest, interested, origins);
        if let Some(want) = self.want_of(manifest) {
            want.ask_small(manifest, small, ctx);
        }
        self.step(manifest, ctx);
    }

    pub(super) fn roster(&mut self, id: ManifestId, interested: Vec<NodeId>, origins: Vec<NodeId>) {
        if let Some(want) = self.0.get_mut(&id).and_then(|e| e.want.as_mut()) {
            want.interested = interested;
            want.interested.truncate(CANDIDATES_MAX);
            want.interested.retain(|n| !origins.contains(n));
            want.origins = origins;
            want.origins.truncate(CANDIDATES_MAX);
        }
    }

    pub(super) fn drop_manifest(&mut self, manifest: ManifestId, ctx: &mut Ctx<'_>) {
        let want = self.0.remove(&manifest).and_then(|e| e.want);
        if let Some((from, _)) = want.and_then(|w| w.fetching) {
            ctx.actions.push(Action::UnexpectManifest { from, manifest });
        }
    }

    /// It is on disk: everyone who waits hears of it.
    pub(super) fn have(&mut self, manifest: ManifestId, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.entry(manifest, true) else {
            return ctx.actions.push(Action::Event(Event::TooManyManifests(manifest)));
        };
        entry.have = true;
        let fetching = entry.want.take().and_then(|w| w.fetching);
        for to in core::mem::take(&mut entry.waiters) {
            ctx.send(to, TransferFrame::HasManifest(manifest));
        }
        if let Some((from, _)) = fetching {
            ctx.actions.push(Action::UnexpectManifest { from, manifest });
        }
    }

    /// The fetch has ended well; its source is not at fault for what follows.
    pub(super) fn arrived(&mut self, manifest: ManifestId, from: NodeId, ctx: &mut Ctx<'_>) {
        let want = self.0.get_mut(&manifest).and_then(|e| e.want.as_mut());
        if let Some(want) = want {
            want.fetching.take_if(|(f, _)| *f == from);
        }
        self.have(manifest, ctx);
    }

    pub(super) fn failed(
        &mut self,
        manifest: ManifestId,
        from: NodeId,
        fault: Fault,
        ctx: &mut Ctx<'_>,
    ) {
        let want = self.0.get_mut(&manifest).and_then(|e| e.want.as_mut());
        let Some(want) = want else { return };
        want.fetching.take_if(|(f, _)| *f == from);
        if from == ORIGIN_STORE {
            want.store.failed(fault, ctx.now);
            return;
        }
        want.failures = want.failures.saturating_add(1);
        want.small_failed(from, ctx.now);
        match fault {
            Fault::Gone => drop(want.holders.remove(&from)),
            Fault::Stalled => {
                want.holders.insert(from, ctx.now.after_ms(FAILED_MS));
            }
            Fault::Bad => {
                want.holders.insert(from, ctx.now.after_ms(BAD_MS));
                ctx.actions.push(Action::Blame { node: from, why: Why::BadManifest });
            }
        }
        self.step(manifest, ctx);
    }

    pub(super) fn sent(&mut self, manifest: ManifestId, to: NodeId) {
        if let Some(entry) = self.0.get_mut(&manifest) {
            entry.sends.remove(&to);
        }
    }

    /// Somebody wants to know when we have it.
    pub(super) fn interest(&mut self, manifest: ManifestId, from: NodeId, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.entry(manifest, false) else { return };
        if entry.have {
            ctx.send(from, TransferFrame::HasManifest(manifest));
        } else if entry.waiters.len() < WAITERS_MAX {
            entry.waiters.insert(from);
        }
    }

    /// Somebody has it.
    pub(super) fn held(&mut self, manifest: ManifestId, from: NodeId, ctx: &mut Ctx<'_>) {
        let want = self.0.get_mut(&manifest).and_then(|e| e.want.as_mut());
        let Some(want) = want else { return };
        if want.holders.len() < HOLDERS_MAX {
            want.holders.entry(from).or_insert(ctx.now);
        }
        self.step(manifest, ctx);
    }

    /// Somebody asks for the bytes.
    pub(super) fn asked(&mut self, manifest: ManifestId, from: NodeId, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.0.get_mut(&manifest).filter(|e| e.have) else {
            ctx.counters.ungranted += 1;
            return;
        };
        entry.sends.retain(|_, since| ctx.now.since(*since) < SEND_MS_MAX);
        if entry.sends.contains_key(&from) {
            return;
        }
        if entry.sends.len() >= SENDS_MAX {
            return ctx.send(from, TransferFrame::Busy { manifest, retry_ms: BUSY_MS });
        }
        entry.sends.insert(from, ctx.now);
        ctx.actions.push(Action::SendManifest { to: from, manifest });
    }

    /// Who has it is busy.
    pub(super) fn busy(&mut self, id: ManifestId, from: NodeId, ms: u32, ctx: &mut Ctx<'_>) {
        let want = self.0.get_mut(&id).and_then(|e| e.want.as_mut());
        let Some(want) = want else { return };
        if want.small_ended(from, ctx.now) {
            return self.step(id, ctx);
        }
        if want.fetching.take_if(|(f, _)| *f == from).is_none() {
            return;
        }
        ctx.actions.push(Action::UnexpectManifest { from, manifest: id });
        let (least, most) = BUSY_MS_RANGE;
        // Scattered, so that those who were turned away together do not come back together.
        let ms = u64::from(ms.clamp(least, most));
        let ms = ms + ctx.rng.next() % ms;
        want.holders.insert(from, ctx.now.after_ms(ms));
        self.step(id, ctx);
    }

    pub(super) fn peer_up(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        for (manifest, entry) in &mut self.0 {
            let Some(want) = &mut entry.want else { continue };
            if want.dialled.remove(&node) && want.asked.insert(node) {
                ctx.send(node, TransferFrame::Interest(*manifest));
            }
        }
    }

    pub(super) fn peer_down(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        let mut lost = Vec::new();
        for (manifest, entry) in &mut self.0 {
            entry.waiters.remove(&node);
            entry.sends.remove(&node);
            let Some(want) = &mut entry.want else { continue };
            want.asked.remove(&node);
            want.holders.remove(&node);
            want.small_ended(node, ctx.now);
            if want.fetching.take_if(|(f, _)| *f == node).is_some() {
                lost.push(*manifest);
            }
        }
        self.0.retain(|_, e| e.have || e.want.is_some() || !e.waiters.is_empty());
        for manifest in lost {
            ctx.actions.push(Action::UnexpectManifest { from: node, manifest });
            self.step(manifest, ctx);
        }
    }

    /// What is known of a manifest that is looked for.
    pub(super) fn want_of(&mut self, manifest: ManifestId) -> Option<&mut Want> {
        self.0.get_mut(&manifest)?.want.as_mut()
    }

    /// Is it here?
    pub(super) fn has(&self, manifest: ManifestId) -> bool {
        self.0.get(&manifest).is_some_and(|e| e.have)
    }

    pub(super) fn wanted(&self) -> bool {
        self.0.values().any(|e| e.want.is_some())
    }

    /// How many manifests there is state for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes each wanted manifest a step on, the urgent ones first.
    pub(super) fn upkeep(&mut self, ctx: &mut Ctx<'_>) {
        let wanted = self.0.iter().filter_map(|(m, e)| Some((e.want.as_ref()?.urgency, *m)));
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_unstable();
        for (_, manifest) in wanted {
            self.step(manifest, ctx);
        }
    }

    fn step(&mut self, manifest: ManifestId, ctx: &mut Ctx<'_>) {
        let want = self.0.get_mut(&manifest).and_then(|e| e.want.as_mut());
        let Some(want) = want else { return };
        if let Some((from, _)) = want.fetching.take_if(|(_, ends)| *ends <= ctx.now) {
            if from == ORIGIN_STORE {
                want.store.failed(Fault::Stalled, ctx.now);
            } else {
                want.failures = want.failures.saturating_add(1);
                want.holders.insert(from, ctx.now.after_ms(FAILED_MS));
            }
            ctx.actions.push(Action::UnexpectManifest { from, manifest });
        }
        if want.fetching.is_some() {
            return;
        }
        if want.small_may_come(ctx.now) {
            return want.ask(manifest, ctx);
        }
        // An origin is asked last, so that hosts that just got it take the load off it.
        let ready = want.holders.iter().filter(|(_, at)| **at <= ctx.now).map(|(n, _)| *n);
        let (origins, others): (Vec<_>, Vec<_>) = ready.partition(|n| want.origins.contains(n));
        let pool = if others.is_empty() { origins } else { others };
        let Some(from) = ctx.rng.sample(pool, 1).pop() else {
            want.ask(manifest, ctx);
            return want.draw(manifest, ctx);
        };
        let wait = (FETCH_MS << want.failures.min(8)).min(FETCH_MS_MAX);
        want.fetching = Some((from, ctx.now.after_ms(wait)));
        ctx.actions.push(Action::ExpectManifest { from, manifest });
        ctx.send(from, TransferFrame::GetManifest(manifest));
    }
}
