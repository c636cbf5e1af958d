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
use super::contacts::Contact;
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
/// Dials at once. Starting up takes 3 near, 3 far and an anchor in parallel (rule 1), and one to a
/// host that is dead takes three seconds.
pub(super) const DIALS_MAX: usize = 16;
/// Dials at once of a node that has links enough to wait.
const DIALS_CALM: usize = 8;
/// A dial that the driver never answered is given up after this.
const DIAL_WAIT_MS: u64 = 10_000;
/// One dial a second in the long run, eight at once (attack G4).
const DIAL_EVERY_MS: u64 = 1_000;
const DIAL_BURST: u64 = 8;
/// The same where links are urgent: after nineteen of twenty hosts have died, twenty dials find
/// one.
/// No host is dialled again before its own wait has passed.
const URGENT_EVERY_MS: u64 = 200;
const URGENT_BURST: u64 = 16;
/// Who lost so many links in so short a time lives among the dead: the few links that are left or
/// found first may join an island, so that this node does not rest before it has all its links.
const CROWD: usize = 4;
const CROWD_MS: u64 = 60_000;
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
    urgent: Rate,
    /// When the last links were lost.
    losses: [Option<Tick>; CROWD],
}

impl Promotion {
    pub(super) const fn new() -> Self {
        let budget = Rate::new(DIAL_EVERY_MS, DIAL_BURST);
        let urgent = Rate::new(URGENT_EVERY_MS, URGENT_BURST);
        Self {
            next: Tick(0),
            tries: 0,
            merge: Tick(MERGE_EVERY_MS),
            budget,
            urgent,
            losses: [None; CROWD],
        }
    }
}

impl Overlay {
    /// Has this node fewer links than it can safely live with?
    pub(super) fn is_starving(&self) -> bool {
        self.links.values().filter(|l| !l.doubted).count() < LOW_WATER
    }

    /// Must links be found as fast as the rules allow?
    fn is_urgent(&self, now: Tick) -> bool {
        let recent = |t: &Option<Tick>| t.is_some_and(|t| now.since(t) < CROWD_MS);
        let crowd = self.promotion.losses.iter().all(recent);
        self.is_starving() || (crowd && self.links.len() < self.config.near + self.config.far)
    }

    /// The host of a link died.
    pub(super) const fn note_loss(&mut self, now: Tick) {
        self.promotion.losses.rotate_right(1);
        self.promotion.losses[0] = Some(now);
    }

    /// A link came up: the next attempt starts with the shortest wait again.
    pub(super) const fn promotion_worked(&mut self) {
        self.promotion.tries = 0;
    }

    /// Links are doubted: where few others are left, this is not the time to wait.
    pub(super) fn refill_if_starving(&mut self, now: Tick) {
        if self.is_starving() {
            self.refill_soon(now);
        }
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
            self.on_dial_failed(now, node, actions);
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
        let (starving, urgent) = (self.is_starving(), self.is_urgent(now));
        let attempts = if urgent { DIALS_MAX } else { 1 };
        for _ in 0..attempts {
            if !self.promote_one(now, starving, actions) {
                break;
            }
        }
        let wait = if urgent {
            let wait = STARVING_WAIT_MS << self.promotion.tries.min(6);
            self.promotion.tries = self.promotion.tries.saturating_add(1);
            wait.min(STARVING_WAIT_MS_MAX)
        } else {
            PROMOTE_EVERY_MS
        };
        self.promotion.next = now.after_ms(wait);
    }

    /// A dial came to nothing. Among the dead the next one follows at once, to a host that need not
    /// wait: of all that are known, few live.
    pub(super) fn promote_again(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if self.is_urgent(now) {
            self.promote_one(now, false, actions);
        }
    }

    /// Dials one host, if a link is missing. The impatient dial those that should wait as well.
    fn promote_one(&mut self, now: Tick, impatient: bool, actions: &mut Vec<Action>) -> bool {
        let Some((class, peer)) = self.next_dial(now, impatient) else { return false };
        // Without near links a host is no part of its site: what travels there passes it by.
        let alone = class == LinkClass::Near && self.count(class).all < NEAR_LOW_WATER;
        self.dial(now, &peer, class, self.is_starving() || alone, actions)
    }

    /// The class that lacks most links and has a candidate, with that candidate.
    fn next_dial(&mut self, now: Tick, impatient: bool) -> Option<(LinkClass, Arc<Peer>)> {
        let starving = self.is_starving();
        let lacks = |class, target: usize, own: usize| {
            let dials = self.dialling.values().filter(|d| d.class == class).count();
            let count = if starving { self.count_sure(class) } else { self.count(class) };
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
                && let Some(peer) = self.candidate(now, class, impatient)
            {
                return Some((class, peer));
            }
        }
        None
    }

    /// Somebody to dial: from the passive view, the graveyard, the anchors, the roster (rule 3). A
    /// starving node that must wait for all of them tries them nevertheless, or a host that was cut
    /// off for an hour would stay alone for the length of its longest wait.
    fn candidate(&mut self, now: Tick, class: LinkClass, impatient: bool) -> Option<Arc<Peer>> {
        let waits = |c: &Contact| c.not_before > now || c.peer.expires <= now;
        let patient = self.candidate_among(now, class, |c| !waits(c));
        if patient.is_none() && impatient {
            return self.candidate_among(now, class, |_| true);
        }
        patient
    }

    /// The passive view and the roster go first, the closest host of both (`affinity`). The other
    /// sets follow in random order: where nine of ten hosts have died, the graveyard always holds
    /// one that may be dialled again, and would for half an hour keep those from their turn that
    /// were never tried.
    fn candidate_among(
        &mut self,
        now: Tick,
        class: LinkClass,
        also: impl Fn(&Contact) -> bool,
    ) -> Option<Arc<Peer>> {
        let mut known = self.filed(now, class, &also, &self.contacts.passive);
        known.extend(self.listed(now, class, &also));
        let dead = self.filed(now, class, &also, &self.contacts.graveyard);
        let anchors = self.filed(now, class, &also, &self.contacts.anchors);
        let rest = if self.rng.percent(50) { [dead, anchors] } else { [anchors, dead] };
        let known = self.affinity.closest(self.preferred(class, known));
        let rest = rest.map(|set| self.preferred(class, set));
        known.or_else(|| rest.iter().find_map(|set| self.rng.pick(set)))
    }

    /// A far link goes to another site where there is one.
    fn preferred(&self, class: LinkClass, from: Vec<Arc<Peer>>) -> Vec<Arc<Peer>> {
        let away = |p: &Arc<Peer>| p.site != self.site;
        if class == LinkClass::Far && from.iter().any(away) {
            return from.into_iter().filter(away).collect();
        }
        from
    }

    fn filed(
        &self,
        now: Tick,
        class: LinkClass,
        also: impl Fn(&Contact) -> bool,
        set: &BTreeMap<NodeId, Contact>,
    ) -> Vec<Arc<Peer>> {
        let site = |c: &&Contact| class == LinkClass::Far || c.peer.site == self.site;
        let fits = set.values().filter(|c| self.may_dial(now, c) && also(c)).filter(site);
        fits.map(|c| Arc::clone(&c.peer)).collect()
    }

    /// Hosts of the roster, which alone knows most of this site. Those that speak for their sites
    /// are left out: everybody knows them.
    fn listed(
        &self,
        now: Tick,
        class: LinkClass,
        also: impl Fn(&Contact) -> bool,
    ) -> Vec<Arc<Peer>> {
        let fits = self.roster.live(now).filter(|p| {
            let site = p.site == self.site || (class == LinkClass::Far && p.cell.is_none());
            let known = self.contacts.get(&p.node);
            site && self.is_free(now, p) && known.is_none_or(&also)
        });
        fits.cloned().collect()
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
        let (most, budget) = if self.is_urgent(now) {
            (DIALS_MAX, &mut self.promotion.urgent)
        } else {
            (DIALS_CALM, &mut self.promotion.budget)
        };
        if self.dialling.len() >= most || !budget.take(now, 1) {
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
