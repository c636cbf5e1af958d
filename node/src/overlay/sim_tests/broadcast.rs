//! Calm fleets: everything reaches everybody, once.

use super::super::Config;
use super::made::log_id;
use super::world::{Host, Measured, World};

/// Publishes `count` items of each log, 200 ms apart, each log at a host of its own.
fn publish(world: &mut World, logs: u8, count: u64) {
    for _ in 0..count {
        for log in 0..logs {
            world.publish(usize::from(log) * 7 + 3, log_id(log));
        }
        world.run(200);
    }
}

/// 64 hosts of one site link up to one overlay; 50 items of a feed reach all of them, and after the
/// first ones no host gets an item twice to speak of.
#[test]
fn one_feed_64_hosts() {
    let mut world = World::running(64, 1, 1);
    assert_eq!(world.largest_part(), 64, "seed {}", world.seed);
    assert_eq!(world.one_sided(), 0);
    let near: Vec<usize> = world.hosts.iter().map(|h| h.overlay.sizes().near).collect();
    assert!(near.iter().all(|n| *n >= 3) && near.iter().sum::<usize>() >= 64 * 5, "{near:?}");
    let own = |h: &&Host| h.overlay.links().filter(|l| l.outbound).count() < 2;
    assert!(world.hosts.iter().filter(own).count() <= 3, "own dials keep their room (G2)");
    publish(&mut world, 1, 5);
    world.run(5_000);
    assert_eq!(world.holding(log_id(0), 5), 64);
    world.measured = Measured::default();
    publish(&mut world, 1, 45);
    world.run(5_000);
    assert_eq!(world.holding(log_id(0), 50), 64);
    let (redundancy, hop) = (world.redundancy(45), world.measured.hop);
    println!("redundancy {redundancy:.3}, last hop {hop}");
    assert!(redundancy <= 0.1, "redundancy {redundancy}");
    assert!(hop <= 12, "hop {hop}");
}

/// The same with 500 hosts in ten sites, where two more feeds run beside. The roster is kept small
/// only to save the test's time.
#[test]
fn three_feeds_500_hosts() {
    let mut world = World::with(Config { roster: 60, ..Config::default() }, 500, 10, 2);
    world.check_every = 97;
    for i in 0..500 {
        world.start(i);
    }
    world.run(12_000);
    assert_eq!(world.largest_part(), 500, "seed {}", world.seed);
    publish(&mut world, 3, 4);
    world.run(3_000);
    let held: Vec<usize> = (0..3).map(|l| world.holding(log_id(l), 4)).collect();
    assert_eq!(held, [500; 3]);
    world.measured = Measured::default();
    publish(&mut world, 1, 46);
    world.run(1_000);
    let (redundancy, hop) = (world.redundancy(46), world.measured.hop);
    println!("redundancy {redundancy:.3}, last hop {hop}");
    assert_eq!(world.holding(log_id(0), 50), 500);
    assert!(redundancy <= 0.1, "redundancy {redundancy}");
    // One way into each site costs hops within it, which are short (protocol.md §4: 30).
    assert!(hop <= 24, "hop {hop}");
}

/// Where all sites are small, every feed has its own tree and still costs no duplicates.
#[test]
fn five_feeds_40_hosts() {
    let mut world = World::running(40, 8, 3);
    publish(&mut world, 5, 4);
    world.run(5_000);
    world.measured = Measured::default();
    publish(&mut world, 5, 10);
    world.run(5_000);
    let held: Vec<usize> = (0..5).map(|l| world.holding(log_id(l), 14)).collect();
    assert_eq!(held, [40; 5]);
    let redundancy = world.redundancy(50);
    assert!(redundancy <= 0.1, "redundancy {redundancy}");
}

/// The same seed gives the same run to the last frame, another seed another one (I19).
#[test]
fn a_run_is_its_seed() {
    let run = |seed| {
        let mut world = World::running(12, 2, seed);
        publish(&mut world, 1, 5);
        world.drop_percent = 3;
        publish(&mut world, 1, 5);
        world.run(5_000);
        (world.trace, world.events)
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}

/// Every host soon knows every host's record, also the new one of a host that restarted.
#[test]
fn every_host_knows_every_record() {
    let mut world = World::running(30, 3, 4);
    let newest = |world: &World, of: usize| {
        let node = world.hosts[of].peer.node;
        let knows = |h: &&Host| {
            let mut known = h.overlay.hosts().filter(|p| p.node == node);
            known.any(|p| p.incarnation == world.hosts[of].peer.incarnation)
        };
        world.hosts.iter().filter(knows).count()
    };
    assert!((0..30).all(|i| newest(&world, i) == 29));
    world.kill(7);
    world.start(7);
    assert_eq!(newest(&world, 7), 0);
    world.run(10_000);
    assert_eq!((newest(&world, 7), newest(&world, 8)), (29, 29));
}
