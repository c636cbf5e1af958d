//! Filling up links, and merge probes.
//!
//! A node below its target dials, and never stops trying (protocol.md §3a rule 3): every overlay
//! that only reacts to lost links has been seen to stay broken (protocol.md §6). A merge probe
//! dials a host that nothing points to any more, so that two halves of a healed partition find
//! each other (rule 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::LinkClass;
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::Overlay;
use super::bounded::Rate;
use super::contacts::{Contact, Contacts};
use super::io::{Action, Event, Peer};
use super::links::{FAR_OWN, NEAR_OWN};

/// Below so many links a node is starving (protocol.md §3a rule 3).
pub(super) const LOW_WATER: usize = 3;
/// Below so many near links it asks for one like a starving node.
const NEAR_LOW_WATER: usize = 2;
/// One attempt in this time where links are missing (rule 3).
const PROMOTE_EVERY_MS: u64 = 5_000;
/// First wait of a starving node, doubled up to the bound below (rule 3: 0.5 s to 30 s).
const STARVING_WAIT_MS: u64 = 500;
const STARVING_WAIT_MS_MAX: u64 = 30_000;
/// A lost link is replaced within this time; drawn at random, so that many losers do not storm.
const REFILL_JITTER_MS: u64 = 500;
/// Dials at once. Starting up takes 3 near, 3 far and an anchor in parallel (rule 1).
pub(super) const DIALS_MAX: usize = 8;
/// A dial that the driver never answered is given up after this.
const DIAL_WAIT_MS: u64 = 10_000;
/// One dial a second in the long run, eight at once (attack G4).
const DIAL_EVERY_MS: u64 = 1_000;
const DIAL_BURST: u64 = 8;
/// Merge probes are considered this often (rule 5).
const MERGE_EVERY_MS: u64 = 60_000;

/// A dial under way.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) class: LinkClass,
    pub(super) starving: bool,
    pub(super) since: Tick,
}

/// When to do what.
#[derive(Debug)]
pub(super) struct Promotion {
    next: Tick,
    tries: u32,
    merge: Tick,
    budget: Rate,
}

impl Promotion {
    pub(super) const fn new() -> Self {
        let budget = Rate::new(DIAL_EVERY_MS, DIAL_BURST);
        Self { next: Tick(0), tries: 0, merge: Tick(MERGE_EVERY_MS), budget }
    }
}

impl Overlay {
    /// Has this node fewer links than it can safely live with?
    pub(super) fn is_starving(&self) -> bool {
        self.links.len() < LOW_WATER
    }

    /// A link came up: the next attempt starts with the shortest wait again.
    pub(super) const fn promotion_worked(&mut self) {
        self.promotion.tries = 0;
    }

    /// Something changed: try soon rather than at the next turn.
    pub(super) fn refill_soon(&mut self, now: Tick) {
        let soon = now.after_ms(self.rng.below(REFILL_JITTER_MS));
        self.promotion.next = self.promotion.next.min(soon);
    }

    pub(super) fn promote_deadline(&self) -> Tick {
        let dials = self.dialling.values().map(|d| d.since.after_ms(DIAL_WAIT_MS));
        dials.fold(self.promotion.next.min(self.promotion.merge), Tick::min)
    }

    pub(super) fn promote_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let late: Vec<NodeId> = self
            .dialling
            .iter()
            .filter(|(_, d)| d.since.after_ms(DIAL_WAIT_MS) <= now)
            .map(|(n, _)| *n)
            .collect();
        for node in late {
            self.on_dial_failed(now, node);
        }
        if now >= self.promotion.next {
            self.promote(now, actions);
        }
        if now >= self.promotion.merge {
            let jitter = self.rng.below(MERGE_EVERY_MS / 5);
            self.promotion.merge = now.after_ms(MERGE_EVERY_MS * 9 / 10 + jitter);
            self.merge_probe(now, actions);
        }
    }

    fn promote(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let starving = self.is_starving();
        let attempts = if starving { DIALS_MAX } else { 1 };
        for _ in 0..attempts {
            let Some((class, peer)) = self.next_dial(now) else { break };
            // Without near links a host is no part of its site: what travels there passes it by.
            let alone = class == LinkClass::Near && self.count(class).all < NEAR_LOW_WATER;
            if !self.dial(now, &peer, class, starving || alone, actions) {
                break;
            }
        }
        let wait = if starving {
            let wait = STARVING_WAIT_MS << self.promotion.tries.min(6);
            self.promotion.tries = self.promotion.tries.saturating_add(1);
            wait.min(STARVING_WAIT_MS_MAX)
        } else {
            PROMOTE_EVERY_MS
        };
        self.promotion.next = now.after_ms(wait);
    }

    /// The class that lacks most links and has a candidate, with that candidate.
    fn next_dial(&mut self, now: Tick) -> Option<(LinkClass, Arc<Peer>)> {
        let lacks = |class, target: usize, own: usize| {
            let (dials, count) = (self.dialling.values(), self.count(class));
            let dials = dials.filter(|d| d.class == class).count();
            // Where inbound hosts fill the target, a few links are still dialled here (attack G2).
            target.max(count.inbound + own).saturating_sub(count.all + dials)
        };
        let near = lacks(LinkClass::Near, self.config.near, NEAR_OWN);
        let far = lacks(LinkClass::Far, self.config.far, FAR_OWN);
        let mut order = [(near, LinkClass::Near), (far, LinkClass::Far)];
        if far > near {
            order.reverse();
        }
        for (missing, class) in order {
            if missing > 0
                && let Some(peer) = self.candidate(now, class)
            {
                return Some((class, peer));
            }
        }
        None
    }

    /// Somebody to dial: from the passive view, the graveyard, the anchors, the roster (rule 3). A
    /// starving node that must wait for all of them tries them nevertheless, or a host that was cut
    /// off for an hour would stay alone for the length of its longest wait.
    fn candidate(&mut self, now: Tick, class: LinkClass) -> Option<Arc<Peer>> {
        let waits = |c: &Contact| c.not_before > now || c.peer.expires <= now;
        let patient = self.candidate_among(now, class, |c| !waits(c));
        if patient.is_none() && self.is_starving() {
            return self.candidate_among(now, class, |_| true);
        }
        patient
    }

    /// The passive view goes first. The other sets follow in random order: where nine of ten hosts
    /// have died, the graveyard always holds one that may be dialled again, and would for half an
    /// hour keep those from their turn that were never tried.
    fn candidate_among(
        &mut self,
        now: Tick,
        class: LinkClass,
        also: impl Fn(&Contact) -> bool,
    ) -> Option<Arc<Peer>> {
        let first = usize::try_from(self.rng.below(3)).unwrap_or(0);
        for turn in 0..4 {
            let found = match (turn, (first + turn) % 3) {
                (0, _) => self.filed(now, class, &also, |c| &c.passive),
                (_, 0) => self.filed(now, class, &also, |c| &c.graveyard),
                (_, 1) => self.filed(now, class, &also, |c| &c.anchors),
                _ if class == LinkClass::Near => self.neighbour(now, &also),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn filed(
        &mut self,
        now: Tick,
        class: LinkClass,
        also: impl Fn(&Contact) -> bool,
        set: impl Fn(&Contacts) -> &BTreeMap<NodeId, Contact>,
    ) -> Option<Arc<Peer>> {
        let site = |c: &&Contact| class == LinkClass::Far || c.peer.site == self.site;
        let fits = set(&self.contacts).values();
        let fits = fits.filter(|c| self.may_dial(now, c) && also(c)).filter(site);
        let fits: Vec<&Arc<Peer>> = fits.map(|c| &c.peer).collect();
        // A far link goes to another site where there is one.
        let away: Vec<&Arc<Peer>> = fits.iter().copied().filter(|p| p.site != self.site).collect();
        let from = if class == LinkClass::Far && !away.is_empty() { away } else { fits };
        self.rng.pick(&from).map(Arc::clone)
    }

    /// A host of the site from the roster: where there are many sites, the passive view holds few
    /// hosts of this one.
    fn neighbour(&mut self, now: Tick, also: impl Fn(&Contact) -> bool) -> Option<Arc<Peer>> {
        let here = self.roster.live(now).filter(|p| p.site == self.site);
        let fits = here.filter(|p| {
            let busy = self.links.contains_key(&p.node) || self.dialling.contains_key(&p.node);
            let known = self.contacts.get(&p.node);
            !busy && known.is_none_or(&also) && !self.banned(now, p.node)
        });
        let fits: Vec<Arc<Peer>> = fits.cloned().collect();
        self.rng.pick(&fits)
    }

    fn may_dial(&self, now: Tick, contact: &Contact) -> bool {
        let node = contact.peer.node;
        let busy = self.links.contains_key(&node) || self.dialling.contains_key(&node);
        !busy && !self.banned(now, node)
    }

    pub(super) fn dial(
        &mut self,
        now: Tick,
        peer: &Arc<Peer>,
        class: LinkClass,
        starving: bool,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.dialling.len() >= DIALS_MAX || !self.promotion.budget.take(now, 1) {
            return false;
        }
        self.dialling.insert(peer.node, Dial { class, starving, since: now });
        actions.push(Action::Dial { peer: Arc::clone(peer), class, starving });
        true
    }

    /// Dials a host that is not connected, into the reserved far slot: passive, graveyard and
    /// anchors with weights 1:2:1.
    fn merge_probe(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if !self.is_starving() && !self.rng.percent(self.config.merge_percent) {
            return;
        }
        let (passive, dead) = (&self.contacts.passive, &self.contacts.graveyard);
        let mut sets = vec![dead, dead, passive, &self.contacts.anchors];
        while !sets.is_empty() {
            let at = usize::try_from(self.rng.below(sets.len() as u64)).unwrap_or(0);
            let set = sets.swap_remove(at);
            let fits = set.values().filter(|c| self.may_dial(now, c));
            let fits: Vec<Arc<Peer>> = fits.map(|c| Arc::clone(&c.peer)).collect();
            if let Some(peer) = self.rng.pick(&fits) {
                if self.dial(now, &peer, LinkClass::Far, true, actions) {
                    actions.push(Action::Event(Event::MergeProbe { node: peer.node }));
                }
                return;
            }
        }
    }
}
