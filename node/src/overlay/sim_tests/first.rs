//! What narrows goes before everything else that a host lacks.

use stork_wire::ids::{LogId, PublicKey};

use super::made::log_id;
use super::world::World;

const LOGS: u8 = 20;
const EACH: u64 = 50;

/// A host was away while 20 feeds made 1 000 entries, and at last a withdrawal was made. It is here
/// before a tenth of the entries is, though all neighbours are asked for those too; and it is
/// everywhere else no later than an entry that was made with it.
#[test]
fn a_withdrawal_overtakes_a_thousand_entries() {
    let narrow = LogId::suicide(PublicKey([9; 32]));
    for seed in [41, 42, 43] {
        let mut world = World::running(12, 1, seed);
        world.kill(9);
        for _ in 0..EACH {
            for log in 0..LOGS {
                world.publish(3, log_id(log));
            }
            world.run(20);
        }
        world.run(2_000);
        world.publish(3, log_id(100));
        world.publish(5, narrow);
        let start = world.now;
        let (mut entry, mut first) = (None, None);
        while entry.is_none() || first.is_none() {
            world.run(5);
            let everywhere = |w: &World, log| (w.holding(log, 1) >= 11).then_some(w.now - start);
            entry = entry.or_else(|| everywhere(&world, log_id(100)));
            first = first.or_else(|| everywhere(&world, narrow));
            assert!(world.now - start < 30_000, "not everywhere, seed {}", world.seed);
        }
        println!("an entry {entry:?} ms, a withdrawal {first:?} ms");
        assert!(first <= entry.map(|ms| ms + 250), "{first:?} ms, an entry {entry:?} ms");

        world.start(9);
        let start = world.now;
        while !world.hosts[9].logs.contains_key(&narrow) {
            world.run(5);
            assert!(world.now - start < 60_000, "it never came, seed {}", world.seed);
        }
        let logs = world.hosts[9].logs.iter().filter(|(log, _)| **log != narrow);
        let before: usize = logs.map(|(_, items)| items.len()).sum();
        println!("{before} entries came before it, {} ms", world.now - start);
        assert!(before < 100, "{before} entries came before it, seed {}", world.seed);
        world.run(60_000);
        let logs = world.hosts[9].logs.values();
        assert_eq!(logs.map(Vec::len).sum::<usize>(), 1_002, "seed {}", world.seed);
    }
}
