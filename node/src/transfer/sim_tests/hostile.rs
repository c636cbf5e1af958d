//! Frames that nobody honest would send.

use stork_wire::codec::List;
use stork_wire::frame::{Bits, TransferFrame};
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::world::World;
use super::{Content, figures, node};
use crate::transfer::{Action, Config, Input, PieceSet, Planner};

/// A flood of nonsense from a neighbour, in every kind of frame, leaves the honest transfer
/// within 1.5 of the bound and the state within its bounds.
#[test]
fn a_flood_does_not_stop_the_others() {
    let content = Content::of(64, 8);
    let mut world = World::new(10, 10, 31);
    for h in 0..9 {
        world.connect(9, h);
    }
    content.start(&mut world);
    let s = content.swarm;
    for i in 0..400u32 {
        let (t, h) = (1_000 + u64::from(i) * 1_000, i as usize % 9);
        let piece = i.wrapping_mul(2_654_435_761);
        let all = Bits::from_pieces(0..64, 64);
        let lie = TransferFrame::Open { swarm: s, pieces: 64, have: all };
        let huge = Bits::from_pieces(0..65_536, 65_536);
        let unknown = SwarmId([i.to_le_bytes()[0]; 32]);
        let pieces = List::truncated([piece, u32::MAX, i % 64]);
        for frame in [
            lie,
            TransferFrame::Open { swarm: unknown, pieces: 65_536, have: huge },
            TransferFrame::Have { swarm: s, pieces },
            TransferFrame::Grant { swarm: s, ttl_ms: u32::MAX },
            TransferFrame::Grant { swarm: unknown, ttl_ms: 0 },
            TransferFrame::Request { swarm: s, piece: i % 64 },
            TransferFrame::Request { swarm: s, piece },
            TransferFrame::Pass(s),
            TransferFrame::Cancel { swarm: s, piece: i % 70 },
            TransferFrame::Rare { swarm: s, piece: i % 70 },
            TransferFrame::Interest(ManifestId([i.to_le_bytes()[0]; 32])),
            TransferFrame::Busy { manifest: ManifestId([1; 32]), retry_ms: u32::MAX },
        ] {
            world.inject(9, h, t, frame);
        }
    }
    let ms = world.finish(60_000, s, &content.hosts);
    let f = figures("flood", &world, &content, ms);
    assert!(f.makespan <= 1.5 + 400.0 / content.bound_ms(), "{f:?}");
    for h in &world.hosts[..9] {
        assert!(h.planner.knocks.len() <= 64 && h.planner.manifests.len() <= 4_096 + 256);
        assert!(h.planner.swarms.len() == 1);
        for swarm in h.planner.swarms.values() {
            assert!(swarm.neighbours.len() <= 9 && swarm.inflight.len() <= 64);
        }
    }
}

fn one_seed() -> Planner {
    let mut p = Planner::new(Config::default(), node(0), 1);
    let content = Content::of(8, 1);
    let join = content.join(0, PieceSet::full(8));
    p.handle(Tick(0), Input::Join(Box::new(join)), &mut Vec::new());
    p
}

fn tell(p: &mut Planner, now: u64, from: NodeId, frame: TransferFrame) -> Vec<Action> {
    let mut actions = Vec::new();
    p.handle(Tick(now), Input::Frame { from, frame }, &mut actions);
    actions
}

/// Requests without a grant are never served; sixty-four of them are blamed.
#[test]
fn requests_without_grants() {
    let mut p = one_seed();
    let x = node(5);
    p.handle(Tick(0), Input::PeerUp { node: x, same_site: true }, &mut Vec::new());
    let swarm = Content::of(8, 1).swarm;
    let open = TransferFrame::Open { swarm, pieces: 8, have: Bits::default() };
    let first = tell(&mut p, 1, x, open);
    let grants = |a: &Action| matches!(a, Action::Send { frame: TransferFrame::Grant { .. }, .. });
    assert_eq!(first.iter().filter(|a| grants(a)).count(), 1);
    let mut all = Vec::new();
    for i in 0..70 {
        all.extend(tell(&mut p, 2, x, TransferFrame::Request { swarm, piece: i % 8 }));
    }
    let sends = all.iter().filter(|a| matches!(a, Action::SendPiece { .. })).count();
    // What was granted is served, and a grant ahead for as long as the window has room.
    assert_eq!(sends, 2, "{all:?}");
    assert!(all.iter().any(|a| matches!(a, Action::Blame { .. })));
    assert!(p.counters().ungranted >= 64);
}

/// A peer without an admitted connection is not heard, and one whose number of pieces
/// contradicts the manifest is turned away.
#[test]
fn strangers_and_contradictions() {
    let mut p = one_seed();
    let swarm = Content::of(8, 1).swarm;
    let open = |pieces| TransferFrame::Open { swarm, pieces, have: Bits::default() };
    assert_eq!(tell(&mut p, 1, node(5), open(8)), []);
    p.handle(Tick(1), Input::PeerUp { node: node(5), same_site: true }, &mut Vec::new());
    let actions = tell(&mut p, 2, node(5), open(9));
    assert!(actions.iter().any(|a| matches!(a, Action::Blame { .. })));
    assert!(!p.uses(node(5)));
}

/// The thirty-third that opens is refused with a time to come back.
#[test]
fn neighbours_are_bounded() {
    let mut p = one_seed();
    let swarm = Content::of(8, 1).swarm;
    let mut refused = 0;
    for i in 1..=200 {
        p.handle(Tick(0), Input::PeerUp { node: node(i), same_site: true }, &mut Vec::new());
        let open = TransferFrame::Open { swarm, pieces: 8, have: Bits::default() };
        let actions = tell(&mut p, 1, node(i), open);
        refused += actions
            .iter()
            .filter(|a| matches!(a, Action::Send { frame: TransferFrame::Refuse { .. }, .. }))
            .count();
    }
    assert_eq!((refused, p.swarms[&swarm].neighbours.len()), (168, 32));
}

/// C4, C5: a claim of having everything neither stops the injection nor starves the others.
#[test]
fn a_false_claim_does_not_hold_back_the_origin() {
    let content = Content::of(64, 6);
    let mut world = World::new(8, 10, 32);
    content.start(&mut world);
    for h in 0..7 {
        world.connect(7, h);
        let have = Bits::from_pieces(0..64, 64);
        let open = TransferFrame::Open { swarm: content.swarm, pieces: 64, have };
        world.inject(7, h, 500, open);
    }
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let f = figures("false claim", &world, &content, ms);
    assert!(f.makespan <= 1.5 && f.egress <= 1.03, "{f:?}");
}

/// T055: every number and every time of every frame at the end of what numbers can be, at any time
/// of this host, from a neighbour in a swarm that is wanted and in one that is served.
#[test]
fn t055_numbers_at_the_end_of_all_numbers() {
    let content = Content::of(8, 1);
    for have in [PieceSet::full(8), PieceSet::empty(8)] {
        let mut p = Planner::new(Config::default(), node(0), 1);
        let (swarm, foe, manifest) = (content.swarm, node(1), ManifestId([1; 32]));
        let up = Input::PeerUp { node: foe, same_site: true };
        p.handle(Tick(0), up, &mut Vec::new());
        let join = Box::new(content.join(0, have));
        p.handle(Tick(0), Input::Join(join), &mut Vec::new());
        let (interested, origins) = (vec![foe], vec![foe]);
        let urgency = stork_wire::feed::Urgency::Normal;
        let want = Input::WantManifest {
            manifest,
            interested,
            origins,
            urgency,
            size: 1_000,
            small: None,
        };
        p.handle(Tick(0), want, &mut Vec::new());
        for now in [0, 1, 50, 1_000, 100_000, u64::MAX - 1, u64::MAX] {
            for n in [0, 1, 7, 8, u32::MAX - 1, u32::MAX] {
                let all = Bits::from_pieces(0..65_536, 65_536);
                for frame in [
                    TransferFrame::HasManifest(manifest),
                    TransferFrame::Busy { manifest, retry_ms: n },
                    TransferFrame::Refuse { swarm, retry_ms: n },
                    TransferFrame::Open { swarm, pieces: n, have: all.clone() },
                    TransferFrame::Open { swarm, pieces: 8, have: all },
                    TransferFrame::Grant { swarm, ttl_ms: n },
                    TransferFrame::Have { swarm, pieces: List::truncated([n, 0]) },
                    TransferFrame::Request { swarm, piece: n },
                    TransferFrame::Cancel { swarm, piece: n },
                    TransferFrame::Rare { swarm, piece: n },
                ] {
                    let actions = tell(&mut p, now, foe, frame);
                    let beyond = |a: &Action| {
                        matches!(a, Action::Expect { piece, .. } | Action::SendPiece { piece, .. }
                            if *piece >= 8)
                    };
                    assert!(!actions.iter().any(beyond));
                }
                p.handle(Tick(now), Input::Deadline, &mut Vec::new());
            }
        }
    }
}
