//! What each frame of a swarm means for it.

use stork_wire::frame::TransferFrame;
use stork_wire::ids::NodeId;

use super::message::{Action, Why};
use super::neighbour::Neighbour;
use super::room::Room;
use super::swarm::{Ctx, Swarm};

impl Swarm {
    /// A frame about a swarm that we take part in; the room is known for a grant.
    pub(super) fn frame(
        &mut self,
        from: NodeId,
        frame: TransferFrame,
        room: Option<Room>,
        ctx: &mut Ctx<'_>,
    ) {
        use TransferFrame as F;
        let known = self.neighbours.get(&from).is_some_and(Neighbour::is_open);
        match frame {
            F::Open { pieces, have, .. } => {
                if pieces == self.pieces() {
                    let have = have.pieces(pieces).collect();
                    return self.opened(from, have, ctx);
                }
                ctx.counters.nonsense += 1;
                ctx.actions.push(Action::Blame { node: from, why: Why::Nonsense });
                self.closed(from, ctx);
                ctx.send(from, F::Close(self.id));
            }
            F::Refuse { retry_ms, .. } => {
                self.parent_refused(from, ctx);
                self.refused(from, retry_ms, ctx);
            }
            F::Close(_) => {
                self.parent_refused(from, ctx);
                self.closed(from, ctx);
            }
            F::Subscribe { stripe, of, pieces, have, .. } => {
                self.subscribed(from, (stripe, of, pieces), &have, ctx);
            }
            F::Unsubscribe { stripe, .. } => self.unsubscribed(from, stripe, ctx),
            F::Cancel { piece, .. } if self.child_cancelled(from, piece, ctx) => {}
            F::Grant { .. } if !known => ctx.send(from, F::Pass(self.id)),
            _ if !known => ctx.counters.nonsense += 1,
            F::Have { pieces, .. } => {
                for piece in pieces {
                    self.learn(from, piece, ctx.now);
                }
            }
            F::Grant { .. } => {
                if let Some(room) = room {
                    self.granted(from, room, ctx);
                }
            }
            F::Request { piece, .. } => self.requested(from, piece, ctx),
            F::Pass(_) => self.passed(from, ctx),
            F::Cancel { piece, .. } if self.have.contains(piece) => {
                self.cancelled(from, piece, ctx);
            }
            F::Cancel { piece, .. } => self.withdrawn(piece, from, ctx),
            F::Rare { piece, .. } => {
                let has = self.have.contains(piece);
                if let Some(injector) = self.injector.as_mut().filter(|_| has) {
                    injector.rare(piece, from, ctx.now);
                }
            }
            F::Interest(_)
            | F::HasManifest(_)
            | F::GetManifest(_)
            | F::Busy { .. }
            | F::GetSmall { .. }
            | F::Small { .. } => {}
        }
    }
}
