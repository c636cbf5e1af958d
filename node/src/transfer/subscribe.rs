//! The gateway's side of a stripe: whom it is fetched from, and when another host takes it over.
//!
//! The gateway of a stripe subscribes at the site above; pieces of the stripe are then pushed to it
//! in the order in which they come there. Nobody is elected: whoever is next takes the stripe over
//! when its site has seen nothing new of it for some time, and gives it back when others bring
//! more than it does itself (protocol.md §3e). A host that is asked and does not deliver is left
//! for the next one above.

use std::collections::BTreeMap;

use stork_wire::frame::{Bits, TransferFrame};
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::lag::{Lag, Passed};
use super::message::{Action, Why};
use super::pace::Pace;
use super::pieces::PieceSet;
use super::sites::Plan;
use super::standby::{Gone, Turn};
use super::swarm::{Ctx, Swarm};

/// A stripe that is not behind the others has stalled after so many times as long.
const QUIET_TIMES: u64 = 2;
/// How long a dial may take.
const DIAL_MS: u64 = 2_000;
/// Wait before a host is asked again that is not (yet) in the swarm.
const AGAIN_MS: u64 = 250;
/// How often it is asked again before the next one is.
const AGAIN_MAX: u8 = 4;
/// How often time alone is looked at.
const LOOK_MS: u64 = 100;
/// A host that took a stripe over gives it back when the others brought so many pieces more.
const BROUGHT_MORE: u32 = 2;

/// One stripe that this host fetches for its site.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    /// Whom it is fetched from: a place in the plan's list.
    step: usize,
    pub(super) parent: NodeId,
    /// When the parent was asked; `None` until there is a connection.
    pub(super) asked: Option<Tick>,
    /// When it was turned to.
    since: Tick,
    /// For how long the stripe was behind then.
    behind: u64,
    /// When it sent something last.
    pub(super) progress: Tick,
    /// Not to be asked before.
    again: Tick,
    refusals: u8,
    /// Pieces that may come from it.
    pub(super) expected: PieceSet,
    /// New pieces of the stripe since then: from here, and from others of the site.
    pub(super) brought: (u32, u32),
}

/// All that a host knows of the stripes of one swarm.
#[derive(Debug, Default)]
pub(super) struct Stripes {
    pub(super) plan: Plan,
    pub(super) subs: BTreeMap<u32, Subscription>,
    /// When something new of each stripe was seen in this site.
    pub(super) news: Vec<Tick>,
    /// Stripes of which others of this site brought something: somebody fetches them.
    pub(super) by_others: Vec<bool>,
    /// When a piece of each stripe that was only here reached somebody else, or there was none.
    pub(super) spread: Vec<Tick>,
    /// Hosts of this site that may have fetched some and are gone.
    pub(super) gone: Gone,
    /// How often each stripe was fetched another way since it was level with the others.
    tries: Vec<u8>,
    pub(super) pace: Pace,
    passed: Passed,
    look_at: Tick,
}

impl Subscription {
    /// To the first parent, which was not asked yet.
    pub(super) fn at(parent: NodeId, pieces: u32, now: Tick) -> Self {
        Self {
            step: 0,
            parent,
            asked: None,
            since: now,
            behind: 0,
            progress: now,
            again: now,
            refusals: 0,
            expected: PieceSet::empty(pieces),
            brought: (0, 0),
        }
    }

    /// Did nothing come from there for some time?
    fn is_idle(&self, stall: u64, now: Tick) -> bool {
        now.since(self.progress) >= stall
    }
}

impl Stripes {
    pub(super) fn new(plan: Plan, now: Tick) -> Self {
        let news = vec![now; plan.stripes as usize];
        let by_others = vec![false; plan.stripes as usize];
        let tries = vec![0; plan.stripes as usize];
        let spread = news.clone();
        Self {
            plan,
            spread,
            news,
            by_others,
            tries,
            pace: Pace::new(now),
            look_at: now,
            ..Self::default()
        }
    }

    /// The members changed. What is being fetched goes on.
    pub(super) fn replan(&mut self, plan: Plan, now: Tick) {
        if plan != self.plan {
            self.news.resize(plan.stripes as usize, now);
            self.spread.resize(plan.stripes as usize, now);
            self.by_others.resize(plan.stripes as usize, false);
            self.tries.resize(plan.stripes as usize, 0);
            self.plan = plan;
        }
    }

    pub(super) const fn of(&self, piece: u32) -> u32 {
        piece % if self.plan.stripes == 0 { 1 } else { self.plan.stripes }
    }

    pub(super) fn expects(&self, from: NodeId, piece: u32) -> bool {
        let sub = self.subs.get(&self.of(piece));
        sub.is_some_and(|s| s.parent == from && s.expected.contains(piece))
    }
}

impl Swarm {
    /// Whether this host may get pieces from another site.
    pub(super) const fn is_fed_from_afar(&self) -> bool {
        self.stripes.is_some()
    }

    /// Whether something is to come from a host of another site, or goes there.
    pub(super) fn is_linked_afar(&self, node: NodeId) -> bool {
        self.children.has(node) || !self.subs_at(node).is_empty()
    }

    /// Opens to the gateways that this host would follow, so that it sees what they have.
    fn watch_gateways(&mut self, ctx: &mut Ctx<'_>) {
        let watched = self.stripes.iter().flat_map(|s| s.plan.watched.iter().copied());
        for node in watched.collect::<Vec<_>>() {
            self.seek(node, ctx);
        }
    }

    /// Everything that time changes in the stripes.
    pub(super) fn tend_stripes(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let Some(s) = self.stripes.as_mut().filter(|s| s.look_at <= now) else { return };
        s.look_at = now.after_ms(LOOK_MS);
        self.watch_gateways(ctx);
        let Some(s) = &self.stripes else { return };
        let (stall, plan) = (s.pace.stall_ms(s.plan.stripes), &s.plan);
        let lag = self.lag(plan.stripes, &plan.gateways);
        let turns = s.turns(&lag, now);
        if let Some(s) = &mut self.stripes {
            s.passed.note(lag.middle, now);
        }
        for turn in self.in_turn(turns, ctx) {
            self.tend_stripe(turn, stall, &lag, ctx);
        }
    }

    fn tend_stripe(&mut self, turn: Turn, stall: u64, lag: &Lag, ctx: &mut Ctx<'_>) {
        let (now, Turn { stripe, rank, waits, depth }) = (ctx.now, turn);
        if self.steps_back(stripe, stall, lag, now) {
            return self.unsubscribe(stripe, ctx);
        }
        let Some(s) = &mut self.stripes else { return };
        let Some(absent) = lag.absent.get(stripe as usize) else { return };
        let quiet = now.since(s.news.get(stripe as usize).copied().unwrap_or(now));
        // Whoever is further from the origin waits longer: a stall above heals there.
        // And whoever has just tried another way: where all are slow, that would make them slower.
        let behind = s.passed.behind_ms(absent.count(), now);
        let Some(tries) = s.tries.get_mut(stripe as usize) else { return };
        *tries = if behind == 0 { 0 } else { *tries };
        let patience = (stall + stall * depth / 2) * (1 + u64::from(*tries));
        // When all are behind, or nearly nothing is left, only quiet can tell.
        let after =
            |turns: u64| behind >= patience * turns || quiet >= patience * turns * QUIET_TIMES;
        let Some(sub) = s.subs.get_mut(&stripe) else {
            if !absent.is_empty() && after(waits) {
                *tries = tries.saturating_add(u8::from(waits > 0));
                let step = usize::try_from(rank).unwrap_or(0);
                self.subscribe(stripe, step, absent, behind, ctx);
            }
            return;
        };
        let lost = absent.count_without(&sub.expected) > 0 && ctx.may_be_pushed(self.urgency);
        let (ours, theirs) = sub.brought;
        if absent.is_empty() || (rank > 0 && theirs > ours + BROUGHT_MORE) {
            return self.unsubscribe(stripe, ctx);
        }
        let tried = now.since(sub.since) >= patience;
        // What drips falls further behind.
        let falls = behind >= sub.behind + patience;
        let late = match sub.asked {
            Some(_) => tried && (falls || sub.is_idle(stall, now)) && after(1),
            None => now.since(sub.since) >= DIAL_MS,
        };
        if late {
            *tries = tries.saturating_add(1);
            let step = sub.step + 1;
            self.unsubscribe(stripe, ctx);
            self.subscribe(stripe, step, absent, behind, ctx);
        } else if (sub.asked.is_none() && sub.again <= now) || (sub.asked.is_some() && lost) {
            // Not asked yet, or hosts that had something left the site.
            self.ask_parent(stripe, absent, ctx);
        } else {
            self.spare(stripe, absent, ctx);
        }
    }

    /// Pieces of a stripe that this site is known to lack.
    fn absent(&self, stripe: u32) -> PieceSet {
        let Some(s) = &self.stripes else { return PieceSet::empty(self.pieces()) };
        let lag = self.lag(s.plan.stripes, &s.plan.gateways);
        let set = lag.absent.into_iter().nth(stripe as usize);
        set.unwrap_or_else(|| PieceSet::empty(self.pieces()))
    }

    fn subscribe(
        &mut self,
        stripe: u32,
        step: usize,
        absent: &PieceSet,
        behind: u64,
        ctx: &mut Ctx<'_>,
    ) {
        let pieces = self.pieces();
        let Some(s) = &mut self.stripes else { return };
        let Some(parents) = s.plan.parents.get(stripe as usize) else { return };
        let step = step % parents.len().max(1);
        let Some(parent) = parents.get(step).copied() else { return };
        let sub = Subscription { step, behind, ..Subscription::at(parent, pieces, ctx.now) };
        s.subs.insert(stripe, sub);
        self.ask_parent(stripe, absent, ctx);
    }

    /// Asks for what the site lacks of a stripe, or dials first.
    fn ask_parent(&mut self, stripe: u32, absent: &PieceSet, ctx: &mut Ctx<'_>) {
        let (swarm, pieces, credit) = (self.id, self.pieces(), self.credit(stripe, absent, ctx));
        let Some(s) = &mut self.stripes else { return };
        let of = s.plan.stripes;
        let first = s.plan.ahead.get(stripe as usize).is_none_or(Vec::is_empty);
        let Some(sub) = s.subs.get_mut(&stripe) else { return };
        if !ctx.peers.contains_key(&sub.parent) {
            ctx.connect(sub.parent);
            return;
        }
        let from = sub.parent;
        (sub.asked, sub.progress) = (Some(ctx.now), ctx.now);
        sub.expected = credit;
        let all = (stripe..pieces).step_by(of.max(1) as usize);
        let have = Bits::from_pieces(all.filter(|p| !sub.expected.contains(*p)), pieces);
        for piece in sub.expected.iter() {
            ctx.actions.push(Action::Expect { from, swarm, piece });
        }
        ctx.counters.subscriptions += 1;
        ctx.counters.takeovers += u64::from(!first);
        ctx.send(from, TransferFrame::Subscribe { swarm, stripe, of, pieces, have });
    }

    fn unsubscribe(&mut self, stripe: u32, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let Some(s) = &mut self.stripes else { return };
        let of = s.plan.stripes;
        let Some(sub) = s.subs.remove(&stripe) else { return };
        for piece in sub.expected.iter() {
            ctx.actions.push(Action::Unexpect { from: sub.parent, swarm, piece });
        }
        if sub.asked.is_some() && ctx.peers.contains_key(&sub.parent) {
            ctx.send(sub.parent, TransferFrame::Unsubscribe { swarm, stripe, of });
        }
    }

    /// Ends all of them: the swarm is left, or complete.
    pub(super) fn unsubscribe_all(&mut self, ctx: &mut Ctx<'_>) {
        let stripes: Vec<u32> = self.stripes.iter().flat_map(|s| s.subs.keys().copied()).collect();
        for stripe in stripes {
            self.unsubscribe(stripe, ctx);
        }
    }

    fn subs_at(&self, node: NodeId) -> Vec<u32> {
        let subs = self.stripes.iter().flat_map(|s| &s.subs);
        subs.filter(|(_, s)| s.parent == node).map(|(n, _)| *n).collect()
    }

    /// There is a connection to somebody.
    pub(super) fn parent_up(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        if let Some(s) = &mut self.stripes {
            s.gone.is_back(node);
        }
        for stripe in self.subs_at(node) {
            let asked = self.stripes.as_ref().and_then(|s| s.subs.get(&stripe)?.asked);
            if asked.is_none() {
                let absent = self.absent(stripe);
                self.ask_parent(stripe, &absent, ctx);
            }
        }
    }

    /// A connection ended, or somebody sent what is wrong: the next one is asked at once.
    pub(super) fn parent_lost(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        for stripe in self.subs_at(node) {
            let step =
                self.stripes.as_ref().and_then(|s| s.subs.get(&stripe)).map_or(0, |s| s.step);
            self.unsubscribe(stripe, ctx);
            let absent = self.absent(stripe);
            let behind =
                self.stripes.as_ref().map_or(0, |s| s.passed.behind_ms(absent.count(), ctx.now));
            self.subscribe(stripe, step + 1, &absent, behind, ctx);
        }
    }

    /// Somebody is not in the swarm, or has no room: it is asked again soon, and then the next one.
    pub(super) fn parent_refused(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let mut lost = false;
        let Some(s) = &mut self.stripes else { return };
        for sub in s.subs.values_mut().filter(|s| s.parent == node && s.asked.is_some()) {
            for piece in sub.expected.iter() {
                ctx.actions.push(Action::Unexpect { from: node, swarm, piece });
            }
            sub.expected = PieceSet::empty(sub.expected.len());
            (sub.asked, sub.again) = (None, ctx.now.after_ms(AGAIN_MS));
            sub.refusals += 1;
            lost |= sub.refusals > AGAIN_MAX;
        }
        if lost {
            self.parent_lost(node, ctx);
        }
    }

    /// A piece is here, from wherever: it need not come from another site any more.
    pub(super) fn settle_stripe(&mut self, piece: u32, from: NodeId, ctx: &mut Ctx<'_>) {
        let swarm = self.id;
        let Some(s) = &mut self.stripes else { return };
        let stripe = s.of(piece);
        let Some(sub) = s.subs.get_mut(&stripe) else { return };
        let parent = sub.parent;
        if parent == from {
            (sub.progress, sub.refusals) = (ctx.now, 0);
        }
        if sub.expected.remove(piece) && parent != from {
            ctx.actions.push(Action::Unexpect { from: parent, swarm, piece });
            ctx.send(parent, TransferFrame::Cancel { swarm, piece });
        }
    }

    /// What was pushed from another site is not what it should be, or did not come whole. True if
    /// it was to come from there.
    pub(super) fn push_failed(
        &mut self,
        piece: u32,
        from: NodeId,
        bad: bool,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let Some(s) = &mut self.stripes else { return false };
        if !s.expects(from, piece) {
            return false;
        }
        if bad {
            ctx.counters.bad += 1;
            self.faults.bad(from, ctx.now);
            ctx.actions.push(Action::Blame { node: from, why: Why::BadPiece });
        }
        self.parent_lost(from, ctx);
        true
    }
}
