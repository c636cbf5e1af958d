//! Fleets in trouble: hosts die, come late, lose frames or lose each other.

use super::made::log_id;
use super::world::{Measured, World};

/// A host that joins when 620 items of two feeds are long published gets all of them by sync.
#[test]
fn a_late_joiner_gets_the_whole_history() {
    let mut world = World::new(24, 1, 11);
    (0..23).for_each(|i| world.start(i));
    world.run(30_000);
    for k in 0..600 {
        world.publish(4, log_id(0));
        if k < 20 {
            world.publish(5, log_id(1));
        }
        world.run(5);
    }
    world.run(20_000);
    assert_eq!((world.holding(log_id(0), 600), world.holding(log_id(1), 20)), (23, 23));
    world.start(23);
    world.run(5_000);
    assert_eq!((world.holding(log_id(0), 600), world.holding(log_id(1), 20)), (24, 24));
}

/// A host that was down during three publications has them soon after it is back; also one that was
/// down so shortly that nobody noticed.
#[test]
fn a_returning_host_catches_up() {
    let mut world = World::running(24, 1, 12);
    world.publish(1, log_id(0));
    world.run(2_000);
    for (down_ms, total) in [(60_000, 4), (1_000, 7)] {
        world.kill(9);
        for _ in 0..3 {
            world.publish(1, log_id(0));
            world.run(200);
        }
        world.run(down_ms);
        assert_eq!(world.holding(log_id(0), total), 23);
        world.start(9);
        world.run(5_000);
        assert_eq!(world.holding(log_id(0), total), 24, "after {down_ms} ms");
        world.run(60_000);
        assert_eq!(world.largest_part(), 24);
    }
}

/// 30 % of the hosts die and nobody knows it yet. An item that is published in that moment reaches
/// all survivors, most of them long before the deaths are found; then the overlay is whole again.
#[test]
fn thirty_percent_die_unseen() {
    let mut world = World::running(64, 4, 13);
    for _ in 0..5 {
        world.publish(1, log_id(0));
        world.run(500);
    }
    (0..64).filter(|i| i % 10 >= 7).for_each(|i| world.kill(i));
    let alive = world.alive();
    assert_eq!(alive, 46);
    let (start, seq) = (world.now, world.publish(1, log_id(0)));
    world.run(2_500);
    let early = world.holding(log_id(0), seq);
    world.run(13_500);
    assert_eq!(world.holding(log_id(0), seq), alive, "seed {}", world.seed);
    println!("{early} of {alive} in 2.5 s, last {} ms", world.measured.last_commit - start);
    assert!(early * 10 >= alive * 9, "{early} of {alive} in 2.5 s");
    world.run(60_000);
    assert_eq!(world.largest_part(), alive);
    world.publish(1, log_id(0));
    world.run(3_000);
    world.measured = Measured::default();
    for _ in 0..5 {
        world.publish(1, log_id(0));
        world.run(1_000);
    }
    assert_eq!(world.holding(log_id(0), seq + 6), alive);
    assert!(world.redundancy(5) <= 0.1, "redundancy {}", world.redundancy(5));
}

/// Two halves that could not reach each other for ten minutes, and published meanwhile, find each
/// other by merge probes within two minutes of the heal, and exchange everything.
#[test]
fn a_healed_partition_merges() {
    let mut world = World::running(32, 2, 14);
    world.check_every = 7;
    for i in 0..32 {
        world.hosts[i].side = u8::from(i % 4 >= 2);
    }
    world.run(20_000);
    assert_eq!(world.largest_part(), 16);
    for _ in 0..3 {
        world.publish(0, log_id(0));
        world.publish(3, log_id(1));
        world.run(190_000);
    }
    world.run(30_000);
    assert_eq!((world.holding(log_id(0), 3), world.holding(log_id(1), 3)), (16, 16));
    world.hosts.iter_mut().for_each(|h| h.side = 0);
    world.run(120_000);
    assert_eq!(world.largest_part(), 32, "seed {}", world.seed);
    assert_eq!((world.holding(log_id(0), 3), world.holding(log_id(1), 3)), (32, 32));
    assert!(world.hosts.iter().any(|h| h.probes > 0));
}

/// One frame in twenty is lost, of any kind. No item is.
#[test]
fn lost_frames_lose_no_item() {
    let mut world = World::running(32, 1, 15);
    world.drop_percent = 5;
    for _ in 0..40 {
        world.publish(2, log_id(0));
        world.publish(3, log_id(1));
        world.run(250);
    }
    world.run(30_000);
    assert_eq!((world.holding(log_id(0), 40), world.holding(log_id(1), 40)), (32, 32));
}

/// All anchors are dead when half of the fleet restarts at once: the hosts that each of them had
/// written to disk are enough.
#[test]
fn half_of_the_fleet_restarts_without_anchors() {
    let mut world = World::running(24, 1, 16);
    world.run(70_000);
    (0..3).for_each(|i| world.kill(i));
    (3..24).filter(|i| i % 2 == 0).for_each(|i| {
        assert!(!world.hosts[i].saved.is_empty());
        world.kill(i);
        world.start(i);
    });
    world.run(90_000);
    assert_eq!((world.alive(), world.largest_part()), (21, 21));
}

/// A host that was cut off for an hour, so that every wait has grown long, is back in less than a
/// minute after its cable is: a starving node never stops (protocol.md §3a rule 3).
#[test]
fn a_host_that_was_alone_for_an_hour_returns() {
    let mut world = World::running(8, 1, 17);
    world.hosts[5].side = 1;
    world.run(20_000);
    assert_eq!(world.largest_part(), 7);
    world.run(3_600_000);
    world.publish(0, log_id(0));
    world.hosts[5].side = 0;
    world.run(45_000);
    assert_eq!(world.largest_part(), 8);
    assert_eq!(world.holding(log_id(0), 1), 8);
}

/// What cannot be judged before something else is known, as feeds before their group's document, is
/// asked for again and comes in seconds.
#[test]
fn items_that_cannot_be_judged_yet_come_later() {
    let mut world = World::new(6, 1, 18);
    world.first = Some(log_id(9));
    (0..5).for_each(|i| world.start(i));
    world.run(20_000);
    world.publish(1, log_id(9));
    for _ in 0..5 {
        for log in 0..9 {
            world.publish(1, log_id(log));
        }
    }
    world.run(20_000);
    world.start(5);
    world.run(8_000);
    assert!((0..9).all(|l| world.holding(log_id(l), 5) == 6));
}
