//! A driver that takes no items: none is delivered, fetched or asked for until it does again.

use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{Have, OverlayFrame};
use stork_wire::item::Head;

use super::super::{Action, Input};
use super::hostile::Victim;
use super::made::{log_id, make_item};

/// Deliveries, and questions for items.
fn asked(actions: &[Action]) -> (usize, usize) {
    let delivered = actions.iter().filter(|a| matches!(a, Action::Deliver { .. })).count();
    let asks = |a: &&Action| {
        let frame = if let Action::Send { frame, .. } = a { Some(frame) } else { None };
        matches!(frame, Some(OverlayFrame::Graft { .. } | OverlayFrame::Fetch(_)))
    };
    (delivered, actions.iter().filter(asks).count())
}

/// What was taken back is told to nobody, and comes again when the driver takes items: what was
/// heard of meanwhile is asked for at once.
#[test]
fn nothing_comes_while_closed() {
    let mut v = Victim::new();
    let (log, item) = (log_id(0), make_item(log_id(0), 1));
    let (hash, source) = (item.hash(), Some(v.foe.node));
    let committed = Arc::new(item.clone());
    v.input(Input::Committed { log, seq: 1, hash, item: committed, source });
    assert_eq!(v.o.sizes().logs, 1);
    v.input(Input::Heads(Vec::new()));
    v.input(Input::Closed);
    assert_eq!(v.o.sizes().logs, 0);
    let push = OverlayFrame::Push { hop: 1, age_ms: 0, entry: 0, item: Box::new(item) };
    let mut actions = v.fast(push.clone());
    actions.extend(v.fast(OverlayFrame::IHave(List::truncated([Have::new(log, 1)]))));
    let heads = List::truncated([Head::of(log, 1, hash)]);
    actions.extend(v.fast(OverlayFrame::Heads { heads, last: true, answer: false }));
    for _ in 0..20 {
        v.now = v.now.after_ms(100);
        actions.extend(v.input(Input::Deadline));
    }
    assert_eq!(asked(&actions), (0, 0));
    assert_eq!(asked(&v.input(Input::Open)), (0, 1));
    assert_eq!(asked(&v.fast(push)), (1, 0));
}
