//! What an origin offers: each piece once, to one neighbour.
//!
//! An origin opens with an empty map. Just before a grant it sends Have with one piece that
//! nobody has yet, so that the receiver can pick only that. A piece becomes offerable again when
//! - the grant came back unused, or the sending failed;
//! - its receiver left, or did not announce it in time, and no neighbour has it;
//! - its last holder among the neighbours left;
//! - somebody sends Rare, within a budget (protocol.md §3e, invariant I15).
//!
//! A neighbour that claims pieces which we never sent only puts them at the end of the queue:
//! a false claim cannot keep a piece from being injected, and one sending of each piece is what
//! the bound on egress allows anyway.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::fresh::Fresh;
use super::neighbour::Neighbour;
use super::pieces::PieceSet;
use super::rng::{Rng, mix};
use super::stats::{Bucket, Median};

/// Pieces that one neighbour may ask for again at once.
const ASKED_MAX: usize = 64;
/// How long an injected piece may go unannounced at the least: disk and batching take their time.
const CONFIRM_MS_MIN: u64 = 2_000;
/// A piece that was injected less than this ago is not rare, only young.
const RARE_AGE_MS: u64 = 1_000;

/// A neighbour keeps a piece that did not reach another one after so many usual times, and at least
/// so long.
const KEPT_TIMES: u64 = 8;
const KEPT_MS_MIN: u64 = 800;
/// With so many it gets no more.
const KEPT_MAX: u32 = 3;

/// A piece that left for somebody.
#[derive(Debug)]
struct Pending {
    to: NodeId,
    since: Tick,
    /// Whether the last byte has left, rather than the first.
    sent: bool,
}

/// The state of injection of one swarm.
#[derive(Debug)]
pub(super) struct Injector {
    /// Nobody has them: offered first.
    fresh: Fresh,
    /// One neighbour says it has them, and we never sent them: offered last.
    claimed: PieceSet,
    /// Sent at least once.
    injected: PieceSet,
    /// Being sent, or sent and not announced by anybody yet.
    pending: BTreeMap<u32, Pending>,
    /// When the latest pieces were injected; only for those younger than `RARE_AGE_MS`.
    young: BTreeMap<u32, Tick>,
    /// Kept by a neighbour that does not pass them on: offered before all others.
    again: PieceSet,
    /// Pieces that only one neighbour has, since when, and how long others took to pass theirs on.
    alone: BTreeMap<u32, (NodeId, Tick)>,
    /// How many of them each neighbour has.
    burden: BTreeMap<NodeId, u32>,
    spread_ms: Median,
    /// Neighbours that do not pass on what they get, and how many pieces of it they keep.
    keepers: BTreeMap<NodeId, u32>,
    /// Who asked for what again.
    asked: BTreeMap<NodeId, BTreeSet<u32>>,
    /// Pieces that are ours to inject first, where there are several origins.
    mine: Option<PieceSet>,
    budget: Bucket,
}

impl Injector {
    pub(super) fn new(have: &PieceSet, budget: Bucket) -> Self {
        Self {
            fresh: Fresh::new(have.clone()),
            claimed: PieceSet::empty(have.len()),
            injected: PieceSet::empty(have.len()),
            pending: BTreeMap::new(),
            young: BTreeMap::new(),
            again: PieceSet::empty(have.len()),
            alone: BTreeMap::new(),
            burden: BTreeMap::new(),
            spread_ms: Median::default(),
            keepers: BTreeMap::new(),
            asked: BTreeMap::new(),
            mine: None,
            budget,
        }
    }

    /// Several origins begin with different pieces, by rendezvous.
    pub(super) fn split(&mut self, have: &PieceSet, me: NodeId, others: &[NodeId]) {
        if others.is_empty() {
            self.mine = None;
            return;
        }
        let key = |n: &NodeId| n.0.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b));
        let weight = |key: u64, p: u32| mix(key ^ mix(u64::from(p) + 1));
        let (mine, others): (u64, Vec<u64>) = (key(&me), others.iter().map(key).collect());
        let ours = |p: &u32| others.iter().all(|o| weight(mine, *p) >= weight(*o, *p));
        self.mine = Some(PieceSet::of((0..have.len()).filter(ours), have.len()));
    }

    /// The piece to offer to this neighbour.
    pub(super) fn pick(&self, node: NodeId, n: &Neighbour, rng: &mut Rng) -> Option<u32> {
        let start = u32::try_from(rng.below(self.fresh.set.len() as usize)).unwrap_or(0);
        self.find(node, n, start)
    }

    /// How far a neighbour is, where there are other sites: its stripes count then, and who is the
    /// gateway of none comes last. In 2^-20 of the content.
    pub(super) fn progress(&self, node: NodeId) -> Option<u64> {
        self.fresh.progress(node)
    }

    /// Whether there is one.
    pub(super) fn has_offer(&self, node: NodeId, n: &Neighbour) -> bool {
        self.find(node, n, 0).is_some()
    }

    fn find(&self, node: NodeId, n: &Neighbour, start: u32) -> Option<u32> {
        let fits = |p: u32| !n.unconfirmed.contains_key(&p);
        if let Some(asked) = self.asked.get(&node)
            && let Some(p) = asked.iter().find(|p| !n.have.contains(**p) && fits(**p))
        {
            return Some(*p);
        }
        if self.keepers.contains_key(&node) {
            return None;
        }
        let none = PieceSet::default();
        if let Some(p) = self.again.find(start, [&n.have, &none], fits) {
            return Some(p);
        }
        if let Some(p) = self.fresh.find_own(node, start, &n.have, fits) {
            return Some(p);
        }
        let is_mine = |p: u32| self.mine.as_ref().is_some_and(|m| m.contains(p)) && fits(p);
        (self.mine.as_ref().and_then(|_| self.fresh.set.find(start, [&n.have, &none], is_mine)))
            .or_else(|| self.fresh.set.find(start, [&n.have, &none], fits))
            .or_else(|| self.claimed.find(start, [&n.have, &none], fits))
    }

    /// A piece goes out with a grant: nobody else is offered it meanwhile.
    pub(super) fn offered(&mut self, piece: u32) {
        self.fresh.remove(piece);
        self.again.remove(piece);
    }

    /// An offer came back.
    pub(super) fn returned(&mut self, piece: u32, to: NodeId, rarity: u16) {
        if let Some(asked) = self.asked.get_mut(&to) {
            asked.remove(&piece);
        }
        if rarity == 0 && !self.pending.contains_key(&piece) {
            self.fresh.insert(piece);
        }
        // One neighbour had no room for it: the next one may.
        if self.alone.get(&piece).is_some_and(|(n, _)| self.keepers.contains_key(n)) {
            self.again.insert(piece);
        }
    }

    /// Whether a request may be served: for what we offer, and for what somebody must get yet.
    pub(super) fn permits(&self, piece: u32, node: NodeId, offer: Option<u32>) -> bool {
        offer == Some(piece)
            || self.fresh.set.contains(piece)
            || self.again.contains(piece)
            || self.claimed.contains(piece)
            || self.asked.get(&node).is_some_and(|a| a.contains(&piece))
            || self.pending.get(&piece).is_some_and(|s| s.to == node)
    }

    /// A piece is being sent.
    pub(super) fn injecting(&mut self, piece: u32, to: NodeId, now: Tick) {
        self.fresh.remove(piece);
        self.again.remove(piece);
        self.claimed.remove(piece);
        self.injected.insert(piece);
        self.pending.insert(piece, Pending { to, since: now, sent: false });
        self.young.insert(piece, now);
        for asked in self.asked.values_mut() {
            asked.remove(&piece);
        }
    }

    /// It was not sent after all.
    pub(super) fn failed(&mut self, piece: u32, to: NodeId, rarity: u16) {
        if self.pending.get(&piece).is_some_and(|s| s.to == to) {
            self.pending.remove(&piece);
            self.returned(piece, to, rarity);
        }
    }

    /// It has left; the wait for its announcement starts now.
    pub(super) fn sent(&mut self, piece: u32, to: NodeId, now: Tick) {
        if let Some(p) = self.pending.get_mut(&piece).filter(|s| s.to == to) {
            (p.since, p.sent) = (now, true);
        }
    }

    /// A neighbour says it has a piece; `rarity` of them do.
    pub(super) fn held(&mut self, piece: u32, node: NodeId, rarity: u16, now: Tick) {
        self.pending.remove(&piece);
        if rarity == 1 && self.injected.contains(piece) {
            self.not_alone(piece);
            self.alone.insert(piece, (node, now));
            *self.burden.entry(node).or_default() += 1;
        } else if let Some((node, since)) = self.not_alone(piece) {
            self.again.remove(piece);
            // What drips from a keeper does not say what is usual.
            if !self.keepers.contains_key(&node) {
                self.spread_ms.add(now.since(since));
            }
        }
        let fresh = self.fresh.remove(piece);
        if rarity > 1 {
            self.claimed.remove(piece);
        } else if fresh && !self.injected.contains(piece) {
            self.claimed.insert(piece);
        }
    }

    fn not_alone(&mut self, piece: u32) -> Option<(NodeId, Tick)> {
        let (node, since) = self.alone.remove(&piece)?;
        if let Some(burden) = self.burden.get_mut(&node) {
            *burden = burden.saturating_sub(1);
        }
        Some((node, since))
    }

    /// How much has been sent at least once, in 2^-20 of the content: what stands for a neighbour's
    /// progress where there are no stripes, so that contents of one class share an uplink.
    pub(super) fn share(&self) -> u64 {
        (u64::from(self.injected.count()) << 20) / u64::from(self.injected.len().max(1))
    }

    /// How many pieces a neighbour says it got that no other one has yet: who passes on fast has
    /// few, and gets the next one.
    pub(super) fn burden(&self, node: NodeId) -> u64 {
        self.burden.get(&node).copied().unwrap_or(0).into()
    }

    /// We have a new piece ourselves.
    pub(super) fn gained(&mut self, piece: u32, rarity: u16) {
        match rarity {
            0 => drop(self.fresh.insert(piece)),
            1 => drop(self.claimed.insert(piece)),
            _ => {}
        }
    }

    /// A neighbour left; `rarity` no longer counts it.
    pub(super) fn neighbour_gone(
        &mut self,
        node: NodeId,
        old: &Neighbour,
        have: &PieceSet,
        rarity: &[u16],
    ) {
        self.asked.remove(&node);
        self.alone.retain(|_, (n, _)| *n != node);
        self.burden.remove(&node);
        let was_pending = self.pending.extract_if(.., |_, s| s.to == node);
        let mut lost: Vec<u32> = was_pending.map(|(p, _)| p).collect();
        lost.extend(old.grant.as_ref().and_then(|g| g.offer));
        lost.extend(old.have.iter());
        for p in lost {
            if have.contains(p) && rarity.get(p as usize).is_some_and(|r| *r == 0) {
                self.claimed.remove(p);
                self.returned(p, node, 0);
            }
        }
    }

    /// Somebody near nobody that has the piece asks for it.
    pub(super) fn rare(&mut self, piece: u32, node: NodeId, now: Tick) {
        let young = self.young.get(&piece).is_some_and(|t| now.since(*t) < RARE_AGE_MS);
        if young || self.pending.contains_key(&piece) {
            return;
        }
        if self.asked.values().any(|a| a.contains(&piece)) {
            return;
        }
        let first = !self.injected.contains(piece);
        let asked = self.asked.entry(node).or_default();
        let new = asked.len() < ASKED_MAX && !asked.contains(&piece);
        if new && (first || self.budget.take(now)) {
            asked.insert(piece);
        }
    }

    /// Offers again what a neighbour got and did not pass on (its uplink may be broken), within the
    /// budget, and nothing more to that neighbour while it keeps several pieces.
    fn look_for_keepers(&mut self, now: Tick) {
        let Some(usual) = self.spread_ms.value() else { return };
        let limit = (usual * KEPT_TIMES).max(KEPT_MS_MIN);
        self.keepers.clear();
        let kept = self.alone.iter().filter(|(_, (_, since))| now.since(*since) >= limit);
        let kept: Vec<(u32, NodeId)> = kept.map(|(p, (node, _))| (*p, *node)).collect();
        for (_, node) in &kept {
            *self.keepers.entry(*node).or_default() += 1;
        }
        self.keepers.retain(|_, kept| *kept >= KEPT_MAX);
        for (piece, node) in kept {
            if self.keepers.contains_key(&node)
                && !self.again.contains(piece)
                && !self.pending.contains_key(&piece)
                && self.budget.take(now)
            {
                self.again.insert(piece);
            }
        }
    }

    /// The gateways of this site.
    pub(super) fn set_gateways(&mut self, gateways: Vec<NodeId>) {
        self.fresh.set_gateways(gateways);
    }

    /// Offers again what was never announced.
    pub(super) fn upkeep(&mut self, now: Tick, pace_ms: u64, rarity: &[u16]) {
        self.look_for_keepers(now);
        let wait = CONFIRM_MS_MIN.max(pace_ms.saturating_mul(16));
        let is_late = |s: &Pending| now.since(s.since) >= if s.sent { wait } else { 2 * wait };
        let late = self.pending.extract_if(.., |_, s| is_late(s));
        let late: Vec<(u32, NodeId)> = late.map(|(p, s)| (p, s.to)).collect();
        for (p, to) in late {
            self.returned(p, to, rarity.get(p as usize).copied().unwrap_or(0));
        }
        self.young.retain(|_, t| now.since(*t) < RARE_AGE_MS);
    }

    /// Whether anything is still to be confirmed.
    pub(super) fn waits(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a neighbour was sent weighs on it until another one has it, or it leaves.
    #[test]
    fn who_passes_nothing_on_is_burdened() {
        let (a, b, now) = (NodeId([1; 32]), NodeId([2; 32]), Tick(5));
        let mut injector = Injector::new(&PieceSet::full(8), Bucket::new(1, now));
        for piece in 0..3 {
            injector.injecting(piece, a, now);
            injector.held(piece, a, 1, now);
        }
        // Nobody sent it from here: that is no burden.
        injector.held(7, b, 1, now);
        assert_eq!((injector.burden(a), injector.burden(b)), (3, 0));
        injector.held(0, b, 2, now);
        injector.held(0, NodeId([3; 32]), 3, now);
        assert_eq!(injector.burden(a), 2);
        let gone = Neighbour::new(super::super::neighbour::Link::Open, false, false, 8, 1);
        injector.neighbour_gone(a, &gone, &PieceSet::full(8), &[0; 8]);
        assert_eq!(injector.burden(a), 0);
        injector.held(1, b, 1, now);
        assert_eq!((injector.burden(a), injector.burden(b)), (0, 1));
    }
}
