//! Single rules, shown on one planner by hand.

use std::collections::BTreeSet;

use stork_wire::codec::List;
use stork_wire::frame::{Bits, TransferFrame};
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::{Content, node};
use crate::transfer::{Action, Config, Event, Fault, Input, PieceSet, Planner};

/// A planner with one swarm of eight pieces, connected to hosts 1 to 3 who opened with a map.
struct One {
    p: Planner,
    content: Content,
}

impl One {
    fn new(have: PieceSet, maps: &[&[u32]]) -> Self {
        let content = Content { origins: Vec::new(), ..Content::of(8, 4) };
        let mut one = Self { p: Planner::new(Config::default(), node(9), 1), content };
        for (i, _) in maps.iter().enumerate() {
            one.tell(0, Input::PeerUp { node: node(i + 1), same_site: true });
        }
        let join = one.content.join(9, have);
        one.tell(0, Input::Join(Box::new(join)));
        for (i, map) in maps.iter().enumerate() {
            let have = Bits::from_pieces(map.iter().copied(), 8);
            let open = TransferFrame::Open { swarm: one.content.swarm, pieces: 8, have };
            one.frame(0, i + 1, open);
        }
        one
    }

    fn tell(&mut self, now: u64, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.p.handle(Tick(now), input, &mut actions);
        actions
    }

    fn frame(&mut self, now: u64, from: usize, frame: TransferFrame) -> Vec<Action> {
        self.tell(now, Input::Frame { from: node(from), frame })
    }

    fn grant(&mut self, now: u64, from: usize) -> Option<u32> {
        let swarm = self.content.swarm;
        let actions = self.frame(now, from, TransferFrame::Grant { swarm, ttl_ms: 100 });
        requested(&actions)
    }

    fn arrived(&mut self, now: u64, piece: u32, from: NodeId) -> Vec<Action> {
        let swarm = self.content.swarm;
        self.tell(now, Input::PieceArrived { swarm, piece, from })
    }
}

fn requested(actions: &[Action]) -> Option<u32> {
    actions.iter().find_map(|a| match a {
        Action::Send { frame: TransferFrame::Request { piece, .. }, .. } => Some(*piece),
        _ => None,
    })
}

/// The rarest piece is asked for first, no piece is asked for twice, and nothing left is a Pass.
#[test]
fn rarest_first() {
    let mut one = One::new(PieceSet::empty(8), &[&[0, 1], &[0], &[]]);
    assert_eq!(one.grant(1, 1), Some(1));
    assert_eq!(one.grant(1, 1), Some(0));
    assert_eq!(one.grant(1, 2), None);
}

/// A piece that does not come is taken back, its sender is told and asked last, and the piece
/// goes to the next who grants. The deadline leads there without any other input.
#[test]
fn a_late_piece_is_stolen() {
    let mut one = One::new(PieceSet::empty(8), &[&[0], &[0], &[]]);
    assert_eq!(one.grant(1, 1), Some(0));
    let mut now = 1;
    let stolen = loop {
        now = one.p.deadline().unwrap().0.max(now + 1);
        let actions = one.tell(now, Input::Deadline);
        if actions.iter().any(|a| matches!(a, Action::Event(Event::Stolen { .. }))) {
            break actions;
        }
        assert!(now < 10_000);
    };
    let swarm = one.content.swarm;
    let cancel = TransferFrame::Cancel { swarm, piece: 0 };
    assert!(stolen.contains(&Action::Send { to: node(1), frame: cancel }));
    assert!(stolen.contains(&Action::Unexpect { from: node(1), swarm, piece: 0 }));
    assert_eq!(one.grant(now + 1, 1), None, "the avoided one is not the only holder");
    assert_eq!(one.grant(now + 1, 2), Some(0));
}

/// An avoided neighbour is asked all the same where nobody else has the piece (I16).
#[test]
fn the_only_holder_is_asked_again() {
    let mut one = One::new(PieceSet::empty(8), &[&[0], &[], &[]]);
    assert_eq!(one.grant(1, 1), Some(0));
    let swarm = one.content.swarm;
    let fault = Fault::Stalled;
    one.tell(2, Input::PieceFailed { swarm, piece: 0, from: node(1), fault });
    assert_eq!(one.grant(3, 1), Some(0));
    // Two more failures in a row, and its map is not believed for a minute (C5).
    one.tell(4, Input::PieceFailed { swarm, piece: 0, from: node(1), fault });
    assert_eq!(one.grant(5, 1), Some(0));
    let third = one.tell(6, Input::PieceFailed { swarm, piece: 0, from: node(1), fault });
    assert!(third.iter().any(|a| matches!(a, Action::Blame { .. })));
    assert_eq!(one.grant(7, 1), None);
    one.tell(60_100, Input::Deadline);
    assert_eq!(one.grant(60_101, 1), Some(0));
}

/// C1: three bad pieces, and the sender is out of the swarm; its Open is answered with Close.
#[test]
fn bad_pieces_ban() {
    let mut one = One::new(PieceSet::empty(8), &[&[0, 1, 2, 3], &[], &[]]);
    let swarm = one.content.swarm;
    let mut now = 1;
    for _ in 0..3 {
        let piece = one.grant(now, 1).unwrap();
        let fault = Fault::Bad;
        one.tell(now, Input::PieceFailed { swarm, piece, from: node(1), fault });
        assert_eq!(one.grant(now + 1, 1), None, "not asked for five minutes");
        now += 300_001;
        one.tell(now, Input::Deadline);
    }
    let open = TransferFrame::Open { swarm, pieces: 8, have: Bits::default() };
    let answer = one.frame(now, 1, open);
    let close = Action::Send { to: node(1), frame: TransferFrame::Close(swarm) };
    assert!(answer.contains(&close), "{answer:?}");
}

/// The end of a connection frees what was to come from it.
#[test]
fn a_lost_peer_frees_its_pieces() {
    let mut one = One::new(PieceSet::empty(8), &[&[0], &[0], &[]]);
    assert_eq!(one.grant(1, 1), Some(0));
    one.tell(2, Input::PeerDown { node: node(1) });
    assert!(!one.p.expects(node(1), one.content.swarm, 0));
    assert_eq!(one.grant(3, 2), Some(0));
}

/// The first copy of a piece ends the request for the second, and completes the swarm once.
#[test]
fn the_endgame_cancels_the_other_copy() {
    let mut one = One::new(PieceSet::of(0..7, 8), &[&[7], &[7], &[]]);
    assert_eq!(one.grant(1, 1), Some(7));
    assert_eq!(one.grant(2, 2), None, "the first request is not late yet");
    assert_eq!(one.grant(2_100, 2), Some(7));
    let done = one.arrived(2_101, 7, node(2));
    let (swarm, piece) = (one.content.swarm, 7);
    let cancel = TransferFrame::Cancel { swarm, piece };
    assert!(done.contains(&Action::Send { to: node(1), frame: cancel }));
    assert!(done.contains(&Action::Complete { swarm }));
    assert!(!one.arrived(2_102, 7, node(1)).contains(&Action::Complete { swarm }));
    assert_eq!(one.p.counters().duplicates, 1);
}

/// When all that is missing was asked of one slow host, others are asked for the latest of it, as
/// far as three pieces at once.
#[test]
fn what_a_slow_host_was_asked_for_last_is_asked_for_again() {
    let all: &[u32] = &[3, 4, 5, 6, 7];
    let mut one = One::new(PieceSet::of(0..3, 8), &[all, all, &[]]);
    let asked: Vec<u32> = (1..=5).map(|t| one.grant(t, 1).unwrap()).collect();
    assert_eq!(asked.iter().copied().collect::<BTreeSet<_>>(), all.iter().copied().collect());
    assert_eq!(one.grant(10, 2), None, "nothing is late yet");
    let again: Vec<_> = (0..4).map(|i| one.grant(2_100 + i, 2)).collect();
    assert_eq!(again, [Some(asked[0]), Some(asked[1]), Some(asked[2]), None]);
}

/// The least progressed is granted first; one that claims nothing does not stay first for ever.
#[test]
fn the_least_progressed_is_first() {
    let have: &[u32] = &[0, 1, 2, 3];
    let mut one = One::new(PieceSet::full(8), &[have, have, have]);
    let swarm = one.content.swarm;
    let open = TransferFrame::Open { swarm, pieces: 8, have: Bits::default() };
    one.tell(1, Input::PeerUp { node: node(4), same_site: true });
    one.frame(1, 4, open);
    let mut served = Vec::new();
    for t in 2..400 {
        for from in 1..=4 {
            let piece = 4 + u32::try_from(t % 4).unwrap();
            let actions = one.frame(t, from, TransferFrame::Request { swarm, piece });
            for a in &actions {
                if let Action::SendPiece { to, piece, .. } = *a {
                    served.push(to);
                    let bytes = super::PIECE;
                    one.tell(t, Input::PieceSent { swarm, piece, to, bytes });
                    if to != node(4) {
                        let pieces = List::truncated([piece]);
                        let who = (1..4).find(|h| node(*h) == to).unwrap();
                        one.frame(t, who, TransferFrame::Have { swarm, pieces });
                    }
                }
            }
        }
    }
    let liar = served.iter().filter(|n| **n == node(4)).count();
    for h in 1..=3 {
        let honest = served.iter().filter(|n| **n == node(h)).count();
        assert_eq!(honest, 4, "host {h} got {honest} of the 4 that it lacked");
    }
    assert!(liar <= 2 * 8 + 1, "{liar}");
    println!("one that claims nothing got {liar} pieces of {}", served.len());
}

/// Who opened before we joined is answered as soon as we do.
#[test]
fn early_openers_are_remembered() {
    let content = Content::of(8, 4);
    let mut p = Planner::new(Config::default(), node(9), 1);
    let mut actions = Vec::new();
    p.handle(Tick(0), Input::PeerUp { node: node(77), same_site: true }, &mut actions);
    let have = Bits::from_pieces([3], 8);
    let frame = TransferFrame::Open { swarm: content.swarm, pieces: 8, have };
    p.handle(Tick(0), Input::Frame { from: node(77), frame }, &mut actions);
    let close = TransferFrame::Close(content.swarm);
    assert_eq!(actions, [Action::Send { to: node(77), frame: close }]);
    actions.clear();
    let join = content.join(9, PieceSet::empty(8));
    p.handle(Tick(5), Input::Join(Box::new(join)), &mut actions);
    let opens = |a: &Action| match a {
        Action::Send { to, frame: TransferFrame::Open { .. } } => *to == node(77),
        _ => false,
    };
    assert!(actions.iter().any(opens));
}

/// A host with nothing to do asks for no timer.
#[test]
fn idle_means_no_timer() {
    let mut one = One::new(PieceSet::full(8), &[]);
    one.tell(1_000, Input::Deadline);
    assert_eq!(one.p.deadline(), None);
}

/// The stripe of even pieces, wanted by host 1.
fn subscribe(one: &One, of: u32) -> TransferFrame {
    let (swarm, have) = (one.content.swarm, Bits::default());
    TransferFrame::Subscribe { swarm, stripe: 0, of, pieces: 8, have }
}

fn pushed(actions: &[Action]) -> Vec<u32> {
    let pieces = actions.iter().filter_map(|a| match a {
        Action::SendPiece { piece, .. } => Some(*piece),
        _ => None,
    });
    pieces.collect()
}

/// A gateway of another site gets the pieces of its stripe, a few at a time, and those that come
/// later; what it cancels is not sent.
#[test]
fn a_stripe_is_pushed() {
    let mut one = One::new(PieceSet::of([0, 1, 2, 4], 8), &[&[]]);
    let (swarm, to) = (one.content.swarm, node(1));
    let frame = subscribe(&one, 2);
    assert_eq!(pushed(&one.frame(1, 1, frame)), [0, 2]);
    let sent = |piece| Input::PieceSent { swarm, piece, to, bytes: 1 };
    assert_eq!(pushed(&one.tell(2, sent(0))), [4]);
    assert!(pushed(&one.frame(3, 1, TransferFrame::Cancel { swarm, piece: 6 })).is_empty());
    one.tell(4, sent(2));
    one.tell(4, sent(4));
    assert!(pushed(&one.arrived(5, 6, node(9))).is_empty());
    assert!(pushed(&one.arrived(6, 3, node(9))).is_empty(), "not of that stripe");
}

/// Whoever begins anew all the time draws the content twice at the most, and stripes that nobody
/// can want are refused.
#[test]
fn nobody_draws_on_us_for_ever() {
    let mut one = One::new(PieceSet::full(8), &[&[]]);
    let (swarm, to) = (one.content.swarm, node(1));
    let mut drawn = 0;
    for round in 0..50 {
        let frame = subscribe(&one, 2);
        let mut actions = one.frame(round, 1, frame);
        while let Some(piece) = pushed(&actions).first().copied() {
            drawn += pushed(&actions).len();
            actions = one.tell(round, Input::PieceSent { swarm, piece, to, bytes: 1 });
        }
        one.frame(round, 1, TransferFrame::Unsubscribe { swarm, stripe: 0, of: 2 });
    }
    assert!((4..=16).contains(&drawn), "{drawn} pieces of 8");
    for of in [0, 65] {
        let frame = subscribe(&one, of);
        assert!(pushed(&one.frame(60, 1, frame)).is_empty());
    }
    assert_eq!(one.p.counters().nonsense, 2);
}

/// Where more hosts are to be dialled than may be at once, the others are dialled as soon as there
/// is room: none of them waits for the time that a lost dial takes.
#[test]
fn everybody_is_dialled() {
    let content = Content::of(8, 14);
    let mut one = One { p: Planner::new(Config::default(), node(9), 1), content };
    let join = one.content.join(9, PieceSet::empty(8));
    let dialled = |actions: &[Action]| -> Vec<NodeId> {
        let all = actions.iter();
        all.filter_map(|a| if let Action::Connect { node } = a { Some(*node) } else { None })
            .collect()
    };
    let mut under_way = dialled(&one.tell(0, Input::Join(Box::new(join))));
    let mut seen = under_way.clone();
    let mut now = 0;
    while let Some(up) = under_way.pop() {
        assert!(under_way.len() < 8);
        let peer_up = Input::PeerUp { node: up, same_site: true };
        let mut new = dialled(&one.tell(now, peer_up));
        now = one.p.deadline().unwrap().0.max(now);
        new.extend(dialled(&one.tell(now, Input::Deadline)));
        seen.extend(&new);
        under_way.extend(new);
    }
    assert!(now < 3_000, "{now}");
    seen.sort_unstable();
    let mut all: Vec<NodeId> = (1..=14).filter(|i| *i != 9).map(node).collect();
    all.sort_unstable();
    assert_eq!(seen, all);
}
