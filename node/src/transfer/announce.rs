//! Announcements: when neighbours hear of the pieces that have come.
//!
//! A frame for each piece and neighbour is nothing where pieces are long. What most neighbours have
//! anyway waits for company: 64 MiB in pieces of 64 KiB to 100 hosts takes a third fewer frames
//! then, in the same time.

use stork_wire::codec::List;
use stork_wire::frame::TransferFrame;
use stork_wire::limits::PIECES_PER_PACK_MAX;
use stork_wire::tick::Tick;

use super::swarm::{Ctx, Swarm};

/// Longest wait before new pieces are announced (protocol.md §3e).
const FEW_MS: u64 = 20;
/// And at the most this part of the time that a piece takes: news that waits costs makespan.
const FEW_PART: u64 = 16;
/// The same of a piece that is common: how late others hear that one host more has it changes
/// little.
const COMMON_MS: u64 = 150;
const COMMON_PART: u64 = 4;
/// A piece is common when more than this part of the neighbours, and more than one, have it.
const COMMON_OF: usize = 4;
/// About how long a piece takes while none has come.
pub(super) const PACE_MS_FIRST: u64 = 20;

impl Swarm {
    /// A piece has come that neighbours are to hear of.
    pub(super) fn announce(&mut self, piece: u32, now: Tick) {
        self.unannounced.push(piece);
        let at = now.after_ms(self.announce_within(piece));
        self.flush_at = Some(self.flush_at.map_or(at, |f| f.min(at)));
    }

    fn announce_within(&self, piece: u32) -> u64 {
        if self.complete() {
            return 0;
        }
        let open = self.neighbours.values().filter(|n| n.is_open()).count();
        let holders = usize::from(self.rarity_of(piece));
        let common = holders > 1 && holders * COMMON_OF > open;
        let (part, most) = if common { (COMMON_PART, COMMON_MS) } else { (FEW_PART, FEW_MS) };
        (self.pace_ms() / part).min(most)
    }

    /// Announces new pieces, to those as well that have them: it is how they know our progress.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        if self.flush_at.is_none_or(|t| t > ctx.now) {
            return;
        }
        self.flush_at = None;
        let pieces = core::mem::take(&mut self.unannounced);
        for chunk in pieces.chunks(PIECES_PER_PACK_MAX) {
            for (node, _) in self.neighbours.iter().filter(|(_, n)| n.is_open()) {
                let pieces = List::truncated(chunk.iter().copied());
                ctx.send(*node, TransferFrame::Have { swarm: self.id, pieces });
            }
        }
    }
}
