//! The other side of a stripe: gateways of sites below, to which pieces are pushed.
//!
//! A piece goes to each of them as soon as it is here, a few at a time so that a slow way fills
//! nothing but itself. They are not neighbours: they are not granted anything, and what they have
//! does not count for what is rare here.

use std::collections::BTreeMap;

use stork_wire::frame::{Bits, TransferFrame};
use stork_wire::ids::{NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::bandwidth::{Dir, Lane};
use super::ledger::Way;
use super::message::Action;
use super::pieces::PieceSet;
use super::swarm::{Ctx, Swarm};
use super::window::Ahead;

/// Stripes that are pushed, over all hosts: each costs a map of the pieces. And to one host: it may
/// be alone in its site, and then needs all of them.
const CHILDREN_MAX: usize = 256;
const PER_HOST_MAX: usize = 16;
/// Stripes into which a host may cut the content.
const OF_MAX: u32 = 64;
/// Pieces of a stripe under way to one of them, at the most; small ones up to so many bytes.
const PUSHED_AT_ONCE: u64 = 2;
const PUSHED_BYTES: u64 = 1024 * 1024;
/// How many times over the content goes to one host, however often it begins anew: what an honest
/// one loses on the way is far less.
const PUSHED_TIMES_MAX: u32 = 2;
/// Hosts of which that is remembered. One more forgets all, which costs them a second time at most.
const DRAWN_MAX: usize = 1_024;
/// Wait that we ask for when there is no room.
const REFUSE_MS: u32 = 1_000;

/// One stripe that one host of another site gets from here.
#[derive(Debug, Clone)]
pub(super) struct Child {
    of: u32,
    have: PieceSet,
    pub(super) sending: BTreeMap<u32, Tick>,
}

/// All of them, by host and stripe.
#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) map: BTreeMap<(NodeId, u32), Child>,
    /// Pieces that were pushed to each host, and how many may be under way to it.
    drawn: BTreeMap<NodeId, (u32, Ahead)>,
    /// Something changed: there may be something to push.
    dirty: bool,
    /// Who got something last: where it is limited, those after it come first.
    last: Option<(NodeId, u32)>,
}

impl Children {
    /// Something new is here.
    pub(super) const fn wake(&mut self) {
        self.dirty = true;
    }

    /// Is anything pushed to this host?
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.map.range((node, 0)..=(node, u32::MAX)).next().is_some()
    }

    /// Stripes that are pushed to a host, and pieces under way to it.
    fn load(&self, node: NodeId) -> (u32, u32) {
        let all = self.map.range((node, 0)..=(node, u32::MAX));
        all.fold((0, 0), |(stripes, pieces), (_, c)| {
            (stripes + 1, pieces + u32::try_from(c.sending.len()).unwrap_or(u32::MAX))
        })
    }

    /// Whose push of this piece is under way.
    fn pushing(&mut self, to: NodeId, piece: u32) -> Option<&mut Child> {
        let all = self.map.range_mut((to, 0)..=(to, u32::MAX));
        all.map(|(_, c)| c).find(|c| c.sending.contains_key(&piece))
    }
}

impl Swarm {
    /// A gateway of another site wants a stripe.
    pub(super) fn subscribed(
        &mut self,
        from: NodeId,
        (stripe, of, pieces): (u32, u32, u32),
        have: &Bits,
        ctx: &mut Ctx<'_>,
    ) {
        let swarm = self.id;
        if pieces != self.pieces() || stripe >= of || of > OF_MAX {
            ctx.counters.nonsense += 1;
            return ctx.send(from, TransferFrame::Close(swarm));
        }
        let known = self.children.map.contains_key(&(from, stripe));
        let its = self.children.map.range((from, 0)..=(from, u32::MAX)).count();
        if !known && (self.children.map.len() >= CHILDREN_MAX || its >= PER_HOST_MAX) {
            return ctx.send(from, TransferFrame::Refuse { swarm, retry_ms: REFUSE_MS });
        }
        // What is under way to it goes on, and is not sent again.
        let old = self.children.map.remove(&(from, stripe));
        let sending = old.map(|c| c.sending).unwrap_or_default();
        let have = PieceSet::of(have.pieces(pieces), pieces);
        let child = Child { of, have, sending };
        self.children.map.insert((from, stripe), child);
        self.children.wake();
    }

    /// It does not want it any more.
    pub(super) fn unsubscribed(&mut self, from: NodeId, stripe: u32, ctx: &mut Ctx<'_>) {
        if let Some(child) = self.children.map.remove(&(from, stripe)) {
            self.stop_pushes(from, child, ctx);
        }
    }

    /// A connection ended.
    pub(super) fn child_gone(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        let keys: Vec<u32> =
            self.children.map.range((node, 0)..=(node, u32::MAX)).map(|((_, s), _)| *s).collect();
        for stripe in keys {
            self.unsubscribed(node, stripe, ctx);
        }
    }

    fn stop_pushes(&self, to: NodeId, child: Child, ctx: &mut Ctx<'_>) {
        for piece in child.sending.into_keys() {
            ctx.actions.push(Action::StopPiece { to, swarm: self.id, piece });
        }
    }

    /// A gateway has got a piece elsewhere. True if it is one.
    pub(super) fn child_cancelled(&mut self, from: NodeId, piece: u32, ctx: &mut Ctx<'_>) -> bool {
        let all = self.children.map.range_mut((from, 0)..=(from, u32::MAX));
        let child = all.into_iter().find(|((_, stripe), c)| piece % c.of.max(1) == *stripe);
        let Some((_, child)) = child else { return false };
        child.have.insert(piece);
        if child.sending.contains_key(&piece) {
            ctx.actions.push(Action::StopPiece { to: from, swarm: self.id, piece });
        }
        true
    }

    /// A push ended, well or not. True if it was one.
    pub(super) fn pushed(&mut self, to: NodeId, piece: u32, whole: bool, now: Tick) -> bool {
        let Some(child) = self.children.pushing(to, piece) else { return false };
        let since = child.sending.remove(&piece);
        // One that failed is not tried again until it is asked for: its receiver did not want it.
        child.have.insert(piece);
        if whole {
            if let (Some((_, ahead)), Some(since)) = (self.children.drawn.get_mut(&to), since) {
                ahead.took(now.since(since));
            }
            let bytes = self.len_of(piece);
            self.sinks.add(to, bytes, Way::Stripe, now);
        }
        self.children.wake();
        true
    }

    /// Gives up pushes that were never reported.
    pub(super) fn expire_pushes(&mut self, limit_ms: u64, ctx: &mut Ctx<'_>) {
        let late = |t: &Tick| ctx.now.since(*t) >= limit_ms;
        let all = self.children.map.iter();
        let stuck = all.flat_map(|((to, _), c)| c.sending.iter().map(move |(p, t)| (*to, *p, t)));
        let stuck: Vec<(NodeId, u32)> =
            stuck.filter(|(.., t)| late(t)).map(|(to, p, _)| (to, p)).collect();
        for (to, piece) in stuck {
            ctx.actions.push(Action::StopPiece { to, swarm: self.id, piece });
            self.pushed(to, piece, false, ctx.now);
        }
    }

    /// Pushes what may be pushed, to one host after the other.
    fn feed_children(&mut self, ctx: &mut Ctx<'_>) {
        self.children.dirty = false;
        if self.children.drawn.len() > DRAWN_MAX {
            self.children.drawn.clear();
        }
        let mut keys: Vec<(NodeId, u32)> = self.children.map.keys().copied().collect();
        let after = keys.partition_point(|k| self.children.last.is_some_and(|last| *k <= last));
        keys.rotate_left(after);
        for key in keys {
            self.feed_child(key, ctx);
        }
    }

    fn feed_child(&mut self, (to, stripe): (NodeId, u32), ctx: &mut Ctx<'_>) {
        let limit = PUSHED_TIMES_MAX.saturating_mul(self.pieces());
        let most = (PUSHED_BYTES / self.len_max.max(1)).max(PUSHED_AT_ONCE);
        let (swarm, most) = (self.id, u32::try_from(most).unwrap_or(2));
        let (stripes, mut under_way) = self.children.load(to);
        let lane = Lane { dir: Dir::Up, far: true };
        let Some(child) = self.children.map.get_mut(&(to, stripe)) else { return };
        let (drawn, ahead) = self.children.drawn.entry(to).or_default();
        // All its stripes go over one way.
        let ahead = ahead.pieces(most.saturating_mul(stripes));
        for piece in (stripe..child.have.len()).step_by(child.of.max(1) as usize) {
            if child.sending.len() >= most as usize || under_way >= ahead || *drawn >= limit {
                return;
            }
            let new = self.have.contains(piece) && !child.have.contains(piece);
            if !new || child.sending.contains_key(&piece) {
                continue;
            }
            if !ctx.bandwidth.admits(lane, self.urgency, ctx.now) {
                self.children.dirty = true;
                return;
            }
            let bytes = self.lens.get(piece as usize).map_or(0, |l| u64::from(*l));
            ctx.bandwidth.take(lane, self.urgency, bytes, ctx.now);
            ctx.bandwidth.pushed_last = true;
            child.sending.insert(piece, ctx.now);
            *drawn += 1;
            under_way += 1;
            self.children.last = Some((to, stripe));
            ctx.counters.pushes += 1;
            ctx.actions.push(Action::SendPiece { to, swarm, piece });
        }
    }
}

/// Pushes what may be pushed of all swarms, the urgent ones first.
pub(super) fn feed(swarms: &mut BTreeMap<SwarmId, Swarm>, ctx: &mut Ctx<'_>) {
    let mut dirty: Vec<&mut Swarm> = swarms.values_mut().filter(|s| s.children.dirty).collect();
    dirty.sort_by_key(|s| s.urgency);
    for swarm in dirty {
        swarm.feed_children(ctx);
    }
}
