//! A feed that forks: both branches spread, each host that sees both makes the proof, and in the
//! end all have it and stand at the last common item.

use std::sync::Arc;

use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Head, Item, ItemKind};

use super::super::{Input, Refusal};
use super::made::{envelope, log_id, make_item};
use super::world::World;

/// The number with which the branches begin.
const FORK: u64 = 3;

/// The log that forks in these tests.
pub(super) fn forked() -> LogId {
    log_id(200)
}

fn proof_log() -> LogId {
    log_id(201)
}

/// The proof as one host makes it: others make another one of the same log.
fn proof(host: u8) -> Item {
    Item { kind: ItemKind::Proof, log: proof_log(), seq: 1, envelope: envelope(vec![host; 40]) }
}

/// An item of one of the branches 1 and 2; below the fork they are one.
fn branch(seq: u64, branch: u8) -> Item {
    let mut item = make_item(forked(), seq);
    if seq >= FORK {
        let mut body = item.envelope.body.to_vec();
        body.push(branch);
        item.envelope = envelope(body);
    }
    item
}

impl World {
    /// The rules for the log that forks, as the trust rules have them. False for every other log.
    pub(super) fn judge_fork(&mut self, i: usize, from: NodeId, item: &Item) -> bool {
        let (log, seq) = (item.log, item.seq);
        let frozen = self.hosts[i].logs.contains_key(&proof_log());
        if log == proof_log() {
            if frozen {
                self.input(i, Input::Refused { from, log, seq, why: Refusal::Duplicate });
            } else {
                self.freeze(i, item.clone(), Some(from));
            }
            return true;
        }
        if log != forked() {
            return false;
        }
        let ours = self.hosts[i].logs.get(&log).cloned().unwrap_or_default();
        let have = ours.len() as u64;
        let at = |seq: u64| usize::try_from(seq).ok().and_then(|n| ours.get(n.checked_sub(1)?));
        let which = if *item == branch(seq, 1) { 1 } else { 2 };
        let follows = seq == 1 || at(seq - 1).is_some_and(|p| **p == branch(seq - 1, which));
        let why = match at(seq) {
            _ if frozen && seq >= FORK => Refusal::Unknown,
            Some(known) if **known == *item => Refusal::Duplicate,
            Some(_) => {
                self.input(i, Input::Refused { from, log, seq, why: Refusal::Duplicate });
                self.freeze(i, proof(u8::try_from(i).unwrap()), None);
                return true;
            }
            None if seq > have + 1 => Refusal::Pending,
            None if follows => {
                self.commit(i, item.clone(), Some(from));
                return true;
            }
            None => Refusal::Forked,
        };
        self.input(i, Input::Refused { from, log, seq, why });
        true
    }

    /// Commits a proof, and drops what it makes void.
    fn freeze(&mut self, i: usize, proof: Item, source: Option<NodeId>) {
        self.commit(i, proof, source);
        let Some(items) = self.hosts[i].logs.get_mut(&forked()) else { return };
        items.truncate(usize::try_from(FORK - 1).unwrap());
        let head = items.last().map(|last: &Arc<Item>| Head::of(forked(), last.seq, last.hash()));
        self.input(i, Input::Cut { log: forked(), head });
    }

    /// Milliseconds until all hosts hold the first item of a log.
    fn time_to_all(&mut self, log: LogId) -> u64 {
        let start = self.now;
        while self.holding(log, 1) < self.hosts.len() {
            assert!(self.now - start < 60_000, "not everywhere, seed {}", self.seed);
            self.run(10);
        }
        self.now - start
    }

    fn prints(&self) -> Vec<u128> {
        let mut all: Vec<_> = self.hosts.iter().map(|h| h.overlay.fingerprint()).collect();
        all.dedup();
        all
    }
}

/// T023: a proof that one host brings is everywhere as soon as an announcement of a new log is; it
/// goes before all other news, and hosts that hold another proof of the fork agree on the head.
#[test]
fn t023_a_proof_reaches_all() {
    let mut world = World::running(100, 4, 23);
    world.publish(11, log_id(0));
    let announced = world.time_to_all(log_id(0));
    world.freeze(57, proof(57), None);
    world.freeze(3, proof(3), None);
    let proved = world.time_to_all(proof_log());
    println!("announcement {announced} ms, proof {proved} ms");
    assert!(proved <= announced.max(500), "{proved} ms, an announcement {announced} ms");
    world.run(2_000);
    assert_eq!(world.prints().len(), 1, "seed {}", world.seed);
}

/// T023: two branches are told to two hosts at one time, and grow. No host was given a proof: who
/// sees both branches makes one, and all end frozen at the last common item with equal heads.
#[test]
fn t023_a_split_view_is_found() {
    for (long, seed) in [(FORK, 1), (FORK + 4, 2)] {
        let mut world = World::running(60, 3, seed);
        for seq in 1..FORK {
            world.commit(0, branch(seq, 1), None);
            world.run(1_000);
        }
        assert_eq!(world.holding(forked(), FORK - 1), 60);
        for seq in FORK..=long {
            world.commit(5, branch(seq, 1), None);
        }
        world.commit(44, branch(FORK, 2), None);
        let proved = world.time_to_all(proof_log());
        println!("proof everywhere after {proved} ms");
        assert!(proved <= 10_000, "{proved} ms");
        world.run(60_000);
        let held = |h: &super::world::Host| h.logs.get(&forked()).map_or(0, Vec::len) as u64;
        assert!(world.hosts.iter().all(|h| held(h) == FORK - 1), "seed {}", world.seed);
        assert_eq!(world.prints().len(), 1, "seed {}", world.seed);
    }
}

/// Two hosts that never hear a push hold different branches of equal or different length: the
/// comparison of heads alone finds it, since each asks for the other's item by its number.
#[test]
fn t023_sync_alone_finds_a_split_view() {
    for lengths in [(FORK, FORK), (FORK, FORK + 3), (FORK + 2, FORK + 3)] {
        let mut world = World::new(2, 1, 9);
        for (i, (which, to)) in [(1, lengths.0), (2, lengths.1)].into_iter().enumerate() {
            let all = (1..=to).map(|seq| Arc::new(branch(seq, which)));
            world.hosts[i].logs.insert(forked(), all.collect());
        }
        world.start(0);
        world.start(1);
        world.run(120_000);
        assert_eq!(world.holding(proof_log(), 1), 2, "{lengths:?}");
        assert_eq!(world.prints().len(), 1, "{lengths:?}");
    }
}
