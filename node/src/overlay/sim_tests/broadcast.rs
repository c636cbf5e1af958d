//! Calm fleets: everything reaches everybody, once.

use super::super::Refusal;
use super::world::{Measured, World, log_id};

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
