//! How much of a stripe a gateway may ask for, where what comes to this host is limited.
//!
//! What was subscribed to is pushed without a further word, so that the only way to get less is to
//! subscribe to less: to as many pieces as the limits let through now, and to more when these have
//! come. What came as a push is taken from the limits when it is here. Stripes take turns.

use stork_wire::feed::Urgency;

use super::bandwidth::{Dir, Lane};
use super::pieces::PieceSet;
use super::swarm::{Ctx, Swarm};

/// How everything comes that is pushed to a gateway.
pub(super) const PUSHED: Lane = Lane { dir: Dir::Down, far: true };
/// After this time another stripe is asked for first: the pace at which they are looked at.
const TURN_MS: u64 = 100;

impl Swarm {
    /// Those of the absent pieces of a stripe that may be pushed to us: what was asked for already
    /// and what the limits let through beside it, the last one in part.
    pub(super) fn credit(&self, stripe: u32, absent: &PieceSet, ctx: &mut Ctx<'_>) -> PieceSet {
        let Some(left) = ctx.bandwidth.left(PUSHED, self.urgency, ctx.now) else {
            return absent.clone();
        };
        let Some(s) = &self.stripes else { return absent.clone() };
        let due = |p: &u32| {
            let sub = s.subs.get(&(p % s.plan.stripes.max(1)));
            sub.is_some_and(|sub| s.expects(sub.parent, *p))
        };
        let promised: u64 = (0..self.pieces()).filter(due).map(|p| self.len_of(p)).sum();
        let mut left = left.saturating_sub(promised);
        let mut credit = PieceSet::empty(self.pieces());
        for piece in absent.iter() {
            let asked = piece % s.plan.stripes.max(1) == stripe && due(&piece);
            if asked || left > 0 {
                credit.insert(piece);
                left = if asked { left } else { left.saturating_sub(self.len_of(piece)) };
            }
        }
        credit
    }

    /// Stripes in the order in which they are looked at: another one is the first each time, so
    /// that all get a part of what is limited.
    pub(super) fn in_turn<T>(&self, mut rows: Vec<T>, ctx: &mut Ctx<'_>) -> Vec<T> {
        if ctx.bandwidth.left(PUSHED, self.urgency, ctx.now).is_some() && !rows.is_empty() {
            let turn = usize::try_from(ctx.now.0 / TURN_MS).unwrap_or(0);
            let by = turn % rows.len();
            rows.rotate_left(by);
        }
        rows
    }
}

impl Ctx<'_> {
    /// Whether more of a class may be pushed to us.
    pub(super) fn may_be_pushed(&mut self, class: Urgency) -> bool {
        self.bandwidth.left(PUSHED, class, self.now).is_none_or(|left| left > 0)
    }
}
