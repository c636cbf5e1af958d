//! Hosts that die, stall, come late, and an origin that leaves.

use super::Kind;
use super::world::World;
use super::{Content, GBIT, figures, node};
use crate::transfer::PieceSet;

/// 5 % of the hosts die, 2 % drop to a hundredth of their uplink, 5 % come late: all others
/// finish within 1.3 of the bound, late ones counted from when they came.
#[test]
fn churn() {
    let content = Content::of(256, 40);
    let mut world = World::new(41, 7, 21);
    let part = |p: u64| content.bytes() / GBIT * p / 10;
    world.join(0, 0, content.join(0, PieceSet::full(256)));
    let late = [39, 40];
    for h in &content.hosts {
        let at = if late.contains(h) { part(3) } else { 0 };
        world.join(*h, at, content.join(*h, PieceSet::empty(256)));
    }
    for (h, p) in [(3, 2), (17, 6)] {
        world.kill(h, part(p));
    }
    world.slow(9, part(3), GBIT / 100);
    let alive: Vec<usize> =
        content.hosts.iter().copied().filter(|h| ![3, 17].contains(h)).collect();
    world.finish(60_000, content.swarm, &alive);
    let took = |h: &usize| {
        let from = if late.contains(h) { part(3) as f64 } else { 0.0 };
        world.hosts[*h].done_us[&content.swarm] as f64 / 1000.0 - from
    };
    let ms = alive.iter().map(took).fold(0.0, f64::max);
    let f = figures("churn 5/2/5, N=40", &world, &content, ms);
    assert!(f.makespan <= 1.3 && f.egress <= 1.05 && f.duplicates <= 0.005, "{f:?}");
}

/// The origin leaves as soon as it has sent every piece once: the others have all they need.
#[test]
fn the_origin_leaves() {
    let content = Content::of(64, 12);
    let mut world = World::new(13, 7, 22);
    content.start(&mut world);
    let injected = world.run(60_000, |w| w.hosts[0].sent_bytes >= content.bytes());
    let left = injected.unwrap();
    world.kill(0, world.now / 1000 + 1);
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let f = figures("origin leaves", &world, &content, ms);
    assert!(f.makespan <= 1.4, "{f:?}");
    assert!(ms > left, "everybody was done before");
}

/// The first receiver dies with pieces that nobody else got: the origin sends those again.
#[test]
fn a_lost_piece_is_injected_again() {
    let content = Content::of(64, 6);
    let mut world = World::new(7, 7, 23);
    content.start(&mut world);
    for (h, at) in [(1, 60), (2, 90), (3, 120)] {
        world.kill(h, at);
    }
    let ms = world.finish(60_000, content.swarm, &[4, 5, 6]);
    let f = figures("half of the hosts die", &world, &content, ms);
    assert!(f.egress > 1.0 && f.egress <= 1.5 && f.makespan <= 3.0, "{f:?}");
}

/// A13 and C1: nine of ten neighbours send bad bytes; each is blamed, and all honest hosts finish.
#[test]
fn nine_liars() {
    let content = Content::of(32, 11);
    let mut world = World::new(12, 7, 24);
    for h in 3..=11 {
        world.hosts[h].kind = Kind::Corrupt;
    }
    content.start(&mut world);
    let ms = world.finish(60_000, content.swarm, &[1, 2]);
    figures("nine of eleven corrupt", &world, &content, ms);
    // The budget for rare pieces is what takes the time; other seeds took 5 to 10 s.
    assert!(ms <= 15_000.0, "{ms}");
    for h in [1, 2] {
        assert!(!world.hosts[h].blamed.contains(&node(0)), "the origin was blamed");
        assert!(world.hosts[h].blamed.iter().all(|n| *n >= node(3)), "an honest host was blamed");
    }
}

/// One host sends bad bytes and one sends nothing: everybody finishes, and only they are blamed.
#[test]
fn a_liar_and_a_stalled_host() {
    let content = Content::of(128, 12);
    let mut world = World::new(13, 7, 25);
    world.hosts[4].kind = Kind::Corrupt;
    world.hosts[5].kind = Kind::Silent;
    content.start(&mut world);
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    figures("one liar, one silent", &world, &content, ms);
    // I16: what only they were given is missed for ten seconds at the most.
    assert!(ms <= 10_000.0, "{ms}");
    for h in &world.hosts {
        assert!(h.blamed.iter().all(|n| *n == node(4) || *n == node(5)), "{:?}", h.blamed);
    }
    assert!(world.hosts.iter().any(|h| h.blamed.contains(&node(4))));
}

/// A11: the only other holder trickles; a second one appears, and the rest comes from there.
#[test]
fn a_trickling_source_is_left() {
    let mut content = Content::of(32, 3);
    content.origins = Vec::new();
    let mut world = World::new(4, 7, 26);
    world.slow(2, 0, GBIT / 1000);
    world.join(2, 0, content.join(2, PieceSet::full(32)));
    world.join(1, 0, content.join(1, PieceSet::empty(32)));
    world.join(3, 3_000, content.join(3, PieceSet::full(32)));
    let ms = world.finish(60_000, content.swarm, &[1]);
    println!("left the trickling source after {:.0} ms", ms - 3_000.0);
    assert!(ms - 3_000.0 <= 5_000.0 + 2.0 * content.bound_ms(), "{ms}");
}

/// The first holder trickles, stops in the middle, or resets what it sends; a second one has
/// everything as well. It is left within ten seconds, and less than twice the content travels.
#[test]
fn t083_parents_that_trickle_stall_or_reset() {
    let half_ms = Content::of(32, 3).bytes() / GBIT / 2;
    for (kind, slow) in [
        (Kind::Honest, Some((0, 1))),
        (Kind::Honest, Some((half_ms, 1))),
        (Kind::Resets, None),
        (Kind::Silent, None),
    ] {
        let mut content = Content::of(32, 3);
        content.origins = Vec::new();
        let mut world = World::new(4, 7, 28);
        world.hosts[2].kind = kind;
        if let Some((at, rate)) = slow {
            world.slow(2, at, rate);
        }
        world.join(2, 0, content.join(2, PieceSet::full(32)));
        world.join(1, 0, content.join(1, PieceSet::empty(32)));
        // The second holder comes when the first had its chance.
        world.join(3, half_ms, content.join(3, PieceSet::full(32)));
        let ms = world.finish(60_000, content.swarm, &[1]);
        println!("the first holder was left, and all was here after {ms:.0} ms");
        assert!(ms <= 10_000.0 + 2.0 * content.bound_ms(), "{ms}");
        let got = &world.hosts[1];
        assert!(got.got_pieces + got.wasted_pieces <= 64, "{}", got.got_pieces);
    }
}

/// A host that no other can reach but the origin gets everything there, within the budget.
#[test]
fn alone_with_the_origin() {
    let content = Content::of(32, 4);
    let mut world = World::new(5, 0, 27);
    content.start(&mut world);
    world.finish(60_000, content.swarm, &content.hosts);
    for h in 1..=3 {
        world.kill(h, 5_000);
    }
    let lone = Content { hosts: vec![4], ..Content::of(32, 4) };
    world.input(4, 6_000, crate::transfer::Input::Leave { swarm: content.swarm });
    world.hosts[4].done_us.clear();
    world.join(4, 6_001, lone.join(4, PieceSet::empty(32)));
    let done = world.finish(120_000, content.swarm, &[4]);
    println!("alone with the origin: {:.0} ms", done - 6_001.0);
    assert!(done - 6_001.0 < 2_000.0, "the pieces were lost with the hosts, and are offered again");
}
