//! Replay (A3): what was true once is shown again.
//!
//! Who can: any host, at any time later. What must hold: numbers are remembered, not times. What
//! lies at or below the head is dropped for ever, changes nothing, and is not passed on again, also
//! after a restart.

use stork_publisher::charter::read_file;
use stork_tests::wait::wait_until;
use stork_wire::item::Item;

use crate::stage::{OTHER, Stage, VICTIM};

/// How often everything is sent again.
const TIMES: usize = 20;

/// All entries and all documents of the charter, again and again, before and after a restart.
#[test]
fn t013_t015_t065_old_news_are_no_news() {
    let mut stage = Stage::new();
    let first = stage.feed();
    stage.good_news("2");
    let second = stage.feed();
    let mut old: Vec<Item> = [&first, &second].map(|f| f.item(f.head.clone(), f.entry.seq)).into();
    old.extend(read_file(&stage.lab.charter).unwrap().items);
    for round in 0..2 {
        let (peer, talk) = stage.insider();
        let known = |stage: &Stage| stage.status(VICTIM)["gossip"]["pushes_in"].as_u64().unwrap();
        let send = |stage: &Stage, times: usize| {
            let all = known(stage) + (times * old.len()) as u64;
            (0..times).flat_map(|_| &old).for_each(|item| talk.push(item));
            wait_until("all to be known", || known(stage) >= all);
        };
        // What sync brought in the last two seconds is passed on once when a tree brings it too:
        // hosts below may wait for it. That is used up by the first time.
        send(&stage, 1);
        let heard = |stage: &Stage| stage.status(OTHER)["gossip"]["pushes_in"].clone();
        let passed_on = stage.status(VICTIM)["gossip"]["pushes_out"].clone();
        if round == 0 {
            wait_until("it to be passed on", || heard(&stage) == passed_on);
        }
        let before = stage.state();
        send(&stage, TIMES);
        assert_eq!(stage.state(), before, "round {round}");
        assert_eq!(stage.shows(VICTIM, "vm")["app"], "2");
        drop((talk, peer));
        stage.restart_victim();
    }
    stage.good_news("3");
}
