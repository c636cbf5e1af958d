//! One swarm: what we have, who has what, and what is on its way.
//!
//! Three numbers are kept up to date with every change, so that no decision walks over all
//! pieces: the rarity of each piece, and for each neighbour how many pieces are `useful` to it
//! and `wanted` from it.

use std::collections::BTreeMap;

use stork_wire::feed::Urgency;
use stork_wire::frame::{Bits, TransferFrame};
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::limits::{PIECE_LEN_MAX, PIECES_MAX};
use stork_wire::tick::Tick;

use super::announce::PACE_MS_FIRST;
use super::bandwidth::{Bandwidth, Dir};
use super::children::Children;
use super::faults::Faults;
use super::inject::Injector;
use super::ladder::{Dials, Seeker};
use super::ledger::Ledger;
use super::message::{Action, Config, Join, Role};
use super::neighbour::{Link, Neighbour};
use super::pieces::PieceSet;
use super::rng::Rng;
use super::stats::{Bucket, Counters, Median};
use super::store::{Allowance, Draw, ORIGIN_STORE};
use super::subscribe::Stripes;

/// Candidates kept of each list: ten times what the ladder can try in its first minute.
pub(super) const CANDIDATES_MAX: usize = 1_024;
/// See `rare_bucket`.
const RARE_BYTES_PER_S: u64 = 8 * 1024 * 1024;

/// What every part of the planner may use while it handles one input.
pub(super) struct Ctx<'a> {
    pub(super) now: Tick,
    pub(super) me: NodeId,
    pub(super) config: &'a Config,
    pub(super) rng: &'a mut Rng,
    /// Everyone with an admitted connection; true if in our site.
    pub(super) peers: &'a BTreeMap<NodeId, bool>,
    pub(super) dials: &'a mut Dials,
    pub(super) counters: &'a mut Counters,
    pub(super) store: &'a mut Allowance,
    pub(super) bandwidth: &'a mut Bandwidth,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Ctx<'_> {
    pub(super) fn send(&mut self, to: NodeId, frame: TransferFrame) {
        self.actions.push(Action::Send { to, frame });
    }
}

/// A piece that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reserved {
    pub(super) from: NodeId,
    pub(super) since: Tick,
    /// Bytes per millisecond that it can come with.
    pub(super) rate: u64,
    /// How long it takes at that rate, and behind a few others.
    pub(super) fair_ms: u64,
}

impl Reserved {
    /// Does it come much more slowly than its sender used to send? Then it takes no room.
    pub(super) const fn is_late(&self, now: Tick) -> bool {
        now.since(self.since) > self.fair_ms
    }
}

/// One swarm.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) id: SwarmId,
    pub(super) manifest: ManifestId,
    pub(super) urgency: Urgency,
    pub(super) role: Role,
    pub(super) lens: Vec<u32>,
    pub(super) len_max: u64,
    pub(super) have: PieceSet,
    /// How many neighbours have a piece; origins and muted ones do not count.
    pub(super) rarity: Vec<u16>,
    pub(super) neighbours: BTreeMap<NodeId, Neighbour>,
    pub(super) interested: Vec<NodeId>,
    pub(super) origins: Vec<NodeId>,
    /// What comes from other sites, where the origin is in none of ours.
    pub(super) stripes: Option<Stripes>,
    pub(super) children: Children,
    /// In the origin's site, where there are others: it goes to gateways first.
    pub(super) has_root_gateways: bool,
    pub(super) is_root_gateway: bool,
    /// Pieces that were asked for, from at most two neighbours each.
    pub(super) inflight: BTreeMap<u32, Vec<Reserved>>,
    /// The keys of `inflight`.
    pub(super) reserved: PieceSet,
    pub(super) inflight_bytes: u64,
    /// From Request to arrival.
    pub(super) piece_ms: Median,
    /// The steal timeout is doubled so often.
    pub(super) steal_shift: u32,
    pub(super) faults: Faults,
    pub(super) unannounced: Vec<u32>,
    pub(super) flush_at: Option<Tick>,
    pub(super) injector: Option<Injector>,
    pub(super) seeker: Seeker,
    pub(super) draw: Draw,
    pub(super) rare: Bucket,
    pub(super) sources: Ledger,
    pub(super) sinks: Ledger,
}

/// Pieces per second that an origin may be asked for again: 2 % of them and at least one
/// (protocol.md §3e), and at least 8 MiB, a sixteenth of a link of 1 Gbit/s. Without that, a small
/// content that was injected into liars would take a second for each lost piece (A13).
fn rare_bucket(pieces: u32, len_max: u64, now: Tick) -> Bucket {
    Bucket::new(u64::from(pieces / 50).max(RARE_BYTES_PER_S / len_max.max(1)).max(1), now)
}

impl Swarm {
    /// `None` if the list of pieces cannot be right.
    pub(super) fn new(join: Join, ctx: &mut Ctx<'_>) -> Option<Self> {
        let len = u32::try_from(join.lens.len()).ok()?;
        let fits = (1..=PIECES_MAX).contains(&join.lens.len())
            && join.have.len() == len
            && join.lens.iter().all(|l| (1..=PIECE_LEN_MAX).contains(l));
        if !fits {
            return None;
        }
        let len_max = u64::from(join.lens.iter().copied().max().unwrap_or(1));
        let budget = rare_bucket(len, len_max, ctx.now);
        let injector =
            (join.role == Role::Origin).then(|| Injector::new(&join.have, budget.clone()));
        let mut swarm = Self {
            id: join.swarm,
            manifest: join.manifest,
            urgency: join.urgency,
            role: join.role,
            len_max,
            rarity: vec![0; join.lens.len()],
            lens: join.lens,
            have: join.have,
            neighbours: BTreeMap::new(),
            interested: Vec::new(),
            origins: Vec::new(),
            stripes: None,
            children: Children::default(),
            has_root_gateways: false,
            is_root_gateway: false,
            inflight: BTreeMap::new(),
            reserved: PieceSet::empty(len),
            inflight_bytes: 0,
            piece_ms: Median::default(),
            steal_shift: 0,
            faults: Faults::default(),
            unannounced: Vec::new(),
            flush_at: None,
            injector,
            seeker: Seeker::new(len, ctx.now),
            draw: Draw::default(),
            rare: budget,
            sources: Ledger::default(),
            sinks: Ledger::default(),
        };
        swarm.set_roster(join.members, ctx.me, ctx.now);
        Some(swarm)
    }

    pub(super) fn pieces(&self) -> u32 {
        self.have.len()
    }

    pub(super) fn complete(&self) -> bool {
        self.have.is_full()
    }

    pub(super) fn len_of(&self, piece: u32) -> u64 {
        self.lens.get(piece as usize).map_or(0, |l| u64::from(*l))
    }

    pub(super) fn rarity_of(&self, piece: u32) -> u16 {
        self.rarity.get(piece as usize).copied().unwrap_or(0)
    }

    /// About how long a piece takes from the request to the arrival.
    pub(super) fn pace_ms(&self) -> u64 {
        self.piece_ms.value().unwrap_or(PACE_MS_FIRST)
    }

    /// What we say when we open: an origin offers each piece to one neighbour at a time, by
    /// Have, and so begins with nothing.
    pub(super) fn open_frame(&self) -> TransferFrame {
        let have = match self.injector {
            Some(_) => Bits::default(),
            None => Bits::from_pieces(self.have.iter(), self.pieces()),
        };
        TransferFrame::Open { swarm: self.id, pieces: self.pieces(), have }
    }

    pub(super) fn add_neighbour(
        &mut self,
        node: NodeId,
        link: Link,
        picked: bool,
        ctx: &mut Ctx<'_>,
    ) {
        let origin = self.origins.binary_search(&node).is_ok();
        let mut new = Neighbour::new(link, picked, origin, self.pieces(), ctx.rng.next());
        new.useful = self.have.count();
        new.moved = ctx.now;
        new.muted = self.faults.shunned_until(node, ctx.now);
        self.neighbours.insert(node, new);
    }

    /// Forgets a neighbour and frees everything that was to come from it or go to it.
    pub(super) fn remove_neighbour(&mut self, node: NodeId, ctx: &mut Ctx<'_>) {
        let Some(old) = self.neighbours.remove(&node) else { return };
        let swarm = self.id;
        let promised = old.grant.as_ref().map_or(0, |g| g.bytes);
        ctx.bandwidth.give_back(ctx.lane(Dir::Up, node), self.urgency, promised, ctx.now);
        self.discount(&old);
        if let Some(injector) = &mut self.injector {
            injector.neighbour_gone(node, &old, &self.have, &self.rarity);
        }
        for piece in old.sending.into_keys() {
            ctx.actions.push(Action::StopPiece { to: node, swarm, piece });
        }
        for piece in self.reserved_from(node) {
            self.unreserve(piece, node, ctx);
            ctx.actions.push(Action::Unexpect { from: node, swarm, piece });
        }
    }

    /// Takes a neighbour's map out of the rarity.
    fn discount(&mut self, old: &Neighbour) {
        if old.origin || old.muted.is_some() {
            return;
        }
        for piece in old.have.iter() {
            if let Some(r) = self.rarity.get_mut(piece as usize) {
                *r = r.saturating_sub(1);
            }
        }
    }

    /// A neighbour says that it has a piece.
    pub(super) fn learn(&mut self, node: NodeId, piece: u32, now: Tick) {
        let Some(n) = self.neighbours.get_mut(&node) else { return };
        if !n.have.insert(piece) {
            return;
        }
        n.moved = now;
        n.unconfirmed.remove(&piece);
        if self.have.contains(piece) {
            n.useful = n.useful.saturating_sub(1);
        } else {
            n.wanted += 1;
        }
        if n.origin || n.muted.is_some() {
            return;
        }
        let Some(r) = self.rarity.get_mut(piece as usize) else { return };
        *r += 1;
        let holders = *r;
        if let Some(stripes) = &mut self.stripes {
            let ours = self.have.contains(piece);
            stripes.held((piece, node), (holders, ours), &self.neighbours, now);
        }
        if let Some(injector) = &mut self.injector {
            injector.held(piece, node, holders, now);
        }
    }

    /// A neighbour takes back that it has a piece.
    pub(super) fn unlearn(&mut self, node: NodeId, piece: u32) {
        let Some(n) = self.neighbours.get_mut(&node) else { return };
        if !n.have.remove(piece) {
            return;
        }
        if self.have.contains(piece) {
            n.useful += 1;
        } else {
            n.wanted = n.wanted.saturating_sub(1);
        }
        if n.origin || n.muted.is_some() {
            return;
        }
        if let Some(r) = self.rarity.get_mut(piece as usize) {
            *r = r.saturating_sub(1);
        }
    }

    /// Stops believing a neighbour's map (C5); it goes on being recorded meanwhile.
    pub(super) fn mute(&mut self, node: NodeId, until: Tick) {
        let Some(mut n) = self.neighbours.remove(&node) else { return };
        if n.muted.is_none() {
            self.discount(&n);
        }
        n.muted = Some(until);
        self.neighbours.insert(node, n);
    }

    /// Believes those again whose time is over.
    pub(super) fn unmute(&mut self, now: Tick) {
        for n in self.neighbours.values_mut() {
            if n.muted.take_if(|t| *t <= now).is_none() || n.origin {
                continue;
            }
            for piece in n.have.iter() {
                if let Some(r) = self.rarity.get_mut(piece as usize) {
                    *r += 1;
                }
            }
        }
    }

    /// We have a piece now; false if we had it.
    pub(super) fn gain(&mut self, piece: u32, now: Tick) -> bool {
        if !self.have.insert(piece) {
            return false;
        }
        for n in self.neighbours.values_mut() {
            if n.have.contains(piece) {
                n.wanted = n.wanted.saturating_sub(1);
            } else {
                n.useful += 1;
                n.rouse();
            }
        }
        self.children.wake();
        if let Some(stripes) = &mut self.stripes
            && self.rarity.get(piece as usize) == Some(&0)
        {
            stripes.got(piece, now);
        }
        if let Some(injector) = &mut self.injector {
            injector.gained(piece, self.rarity.get(piece as usize).copied().unwrap_or(0));
        } else {
            self.announce(piece, now);
        }
        true
    }

    pub(super) fn reserved_from(&self, node: NodeId) -> Vec<u32> {
        let slots = self.inflight.iter();
        slots.filter(|(_, s)| s.iter().any(|r| r.from == node)).map(|(p, _)| *p).collect()
    }

    pub(super) fn reserve(&mut self, piece: u32, slot: Reserved) {
        // What comes from the store takes nothing from the room that hosts share.
        self.inflight_bytes += if slot.from == ORIGIN_STORE { 0 } else { self.len_of(piece) };
        self.inflight.entry(piece).or_default().push(slot);
        self.reserved.insert(piece);
    }

    /// Frees a reservation; gives since when it was.
    pub(super) fn release(&mut self, piece: u32, from: NodeId) -> Option<Tick> {
        let slots = self.inflight.get_mut(&piece)?;
        let i = slots.iter().position(|r| r.from == from)?;
        let since = slots.swap_remove(i).since;
        if slots.is_empty() {
            self.inflight.remove(&piece);
            self.reserved.remove(piece);
        }
        if from != ORIGIN_STORE {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(self.len_of(piece));
        }
        Some(since)
    }
}
