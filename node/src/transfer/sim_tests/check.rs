//! Invariants of a single planner, asserted after every event (protocol.md §4).

use stork_wire::tick::Tick;

use super::world::Host;
use crate::transfer::swarm::Swarm;
use crate::transfer::{Action, ORIGIN_STORE, Role};

/// The sums that are kept up to date are recomputed once in so many events.
const RECOUNT_EVERY: u64 = 97;

pub(super) fn every_event(host: &Host, actions: &[Action], number: u64, now: Tick) {
    let p = &host.planner;
    for action in actions {
        if let Action::SendPiece { swarm, piece, .. } = action {
            // I12: bytes served are a part of what we have.
            assert!(host.truth[swarm].contains(*piece), "served a piece that is not here");
        }
    }
    let (mut committed, mut piece) = (0, 0);
    for s in p.swarms.values() {
        // I12: a piece is missing, on its way once or twice, or here; here means arrived.
        assert_eq!(Some(&s.have), host.truth.get(&s.id), "have is not what arrived");
        assert_eq!(s.reserved.count() as usize, s.inflight.len());
        for (p, slots) in &s.inflight {
            assert!(s.reserved.contains(*p) && !s.have.contains(*p));
            assert!((1..=2).contains(&slots.len()), "asked for {} times", slots.len());
            for r in slots {
                let known = s.neighbours.contains_key(&r.from) || r.from == ORIGIN_STORE;
                assert!(known, "asked for from a stranger");
            }
        }
        for n in s.neighbours.values() {
            committed += n.committed(now, u64::MAX);
            piece = piece.max(s.len_max);
            assert!(n.sending.len() <= 3);
        }
        // I16: whoever lacks something has a timer, and so goes on trying.
        if s.role == Role::Leech && !s.complete() {
            assert!(p.deadline().is_some(), "hungry and asleep");
        }
        if number.is_multiple_of(RECOUNT_EVERY) {
            recount(s);
        }
    }
    // I13: what is promised or under way is bounded. Each slow receiver may hold two pieces more.
    let window = (2 * piece).max(1024 * 1024) + piece;
    let slow: u64 = p.swarms.values().map(|s| s.neighbours.len() as u64 * 3 * s.len_max).sum();
    assert!(committed <= window + slow);
    if p.swarms.values().all(|s| s.neighbours.values().all(|n| n.committed(now, 250) > 0)) {
        assert!(committed <= window.max(slow));
    }
}

/// The numbers kept with every change equal those counted afresh.
fn recount(s: &Swarm) {
    for n in s.neighbours.values() {
        assert_eq!(n.useful, s.have.count_without(&n.have), "useful");
        assert_eq!(n.wanted, n.have.count_without(&s.have), "wanted");
    }
    for piece in 0..s.pieces() {
        let counts = s.neighbours.values().filter(|n| !n.origin && n.muted.is_none());
        let holders = counts.filter(|n| n.have.contains(piece)).count();
        assert_eq!(usize::from(s.rarity_of(piece)), holders, "rarity");
    }
    let hosts = s.inflight.iter().flat_map(|(p, slots)| slots.iter().map(move |r| (*p, r.from)));
    let bytes = hosts.filter(|(_, from)| *from != ORIGIN_STORE).map(|(p, _)| s.len_of(p));
    assert_eq!(s.inflight_bytes, bytes.sum::<u64>());
}
