//! What must hold after every event (protocol.md §4, I12 to I16), apart from the scenarios.

use std::collections::BTreeMap;

use stork_node::transfer::{Action, PieceSet};
use stork_wire::tick::Tick;

use super::items::Item;
use super::world::Host;

/// The whole map is compared once in so many events.
const COMPARED_EVERY: u64 = 257;
/// Pieces under way to one host: three granted, and two of each stripe.
const UNDER_WAY_MAX: usize = 3 + 2 * 16;
const UNDER_WAY_BYTES: u64 = 2 * 1024 * 1024;

/// Says what is wrong with a host after an event, if anything is.
pub(super) fn host(
    host: &Host,
    contents: &[Item],
    actions: &[Action],
    events: u64,
    now: Tick,
) -> Option<String> {
    contents
        .iter()
        .zip(&host.truth)
        .find_map(|(item, truth)| one(host, item, truth, actions, events, now))
        .or_else(|| under_way(host, events))
}

/// The same of one content.
fn one(
    host: &Host,
    item: &Item,
    truth: &PieceSet,
    actions: &[Action],
    events: u64,
    now: Tick,
) -> Option<String> {
    let planner = &host.planner;
    for action in actions {
        if let Action::SendPiece { swarm, piece, .. } = action
            && *swarm == item.swarm
            && !truth.contains(*piece)
        {
            return Some(format!("I12: serves piece {piece}, which is not here"));
        }
    }
    let have = planner.pieces(item.swarm)?;
    if have.count() != truth.count() {
        return Some(format!("I12: {} pieces count, {} came", have.count(), truth.count()));
    }
    if !have.is_full() && !host.is_origin && planner.deadline().is_none() {
        return Some("I16: lacks something and waits for nothing".to_owned());
    }
    if !events.is_multiple_of(COMPARED_EVERY) {
        return None;
    }
    if have != truth {
        return Some("I12: other pieces count than came".to_owned());
    }
    let view = planner.view(item.swarm, now)?;
    (view.inflight as u64 > 64 + u64::from(view.total))
        .then(|| "I12: too much asked for".to_owned())
}

/// What is under way to others.
fn under_way(host: &Host, events: u64) -> Option<String> {
    if !events.is_multiple_of(COMPARED_EVERY) {
        return None;
    }
    let mut under_way: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
    for job in &host.queue {
        let (n, bytes) = under_way.entry(job.to).or_default();
        (*n, *bytes) = (*n + 1, *bytes + job.bytes);
    }
    let over = under_way.values().any(|(n, b)| *n > UNDER_WAY_MAX && *b > UNDER_WAY_BYTES);
    over.then(|| "I13: more is under way to one host than was promised".to_owned())
}
