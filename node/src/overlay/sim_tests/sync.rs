//! What it costs two hosts to find where they differ, and that they always do.

use std::collections::BTreeMap;
use std::mem::size_of;

use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::Head;

use super::pair::{Pair, head, log};

const LOGS: u16 = 10_000;

fn heads(n: u64, seq: u64) -> Vec<Head> {
    (0..n).map(|i| head(i, seq)).collect()
}

/// Another item under the same number.
fn forked(i: u64, seq: u64) -> Head {
    Head::of(log(i), seq, ItemHash([0x5a; 32]))
}

/// The goal of issue 3: with 10 000 logs, no difference costs nothing beside the pings, one at most
/// 100 bytes, ten 1 kB, a thousand 60 kB, in both directions together, whichever side is behind.
/// All bytes of all frames that find differences are counted, not those that fetch items.
#[test]
fn ten_thousand_logs_cost_what_differs() {
    let base = heads(u64::from(LOGS), 5);
    let mut pair = Pair::new(&base);
    pair.run(300_000);
    assert_eq!((pair.cost.bytes, pair.same()), (0, true));
    println!("logs differ  behind      bytes  frames");
    for (d, most) in [(1, 100), (10, 1_000), (1_000, 60_000)] {
        for behind in ["one side", "the other", "both"] {
            let (mut ours, mut theirs) = (base.clone(), base.clone());
            for k in 0..d {
                let i = (k * 37 + 11) % u64::from(LOGS);
                let at = usize::try_from(i).unwrap();
                let first = behind == "one side" || (behind == "both" && k % 2 == 0);
                let side = if first { &mut theirs } else { &mut ours };
                side[at] = head(i, 6 + k % 3);
            }
            pair.set(0, &ours);
            pair.set(1, &theirs);
            pair.reset();
            pair.until_same(60_000);
            pair.run(1_000);
            let cost = &pair.cost;
            println!("{d:11}  {behind:9} {:7} {:?}", cost.bytes, cost.frames);
            assert!(cost.bytes <= most, "{d} differences: {} bytes", cost.bytes);
            assert!(cost.items >= d && cost.forks == 0);
        }
    }
    assert_eq!(pair.hosts[0].counters().sketches_failed, 0);
}

/// Logs whose numbers are times have one item: what is fetched is that, however far the heads are
/// apart, by full heads and by sketches, and then nothing more is asked for.
#[test]
fn of_logs_with_gaps_the_newest_is_fetched() {
    const T: u64 = 1_800_000_000;
    for n in [3, 400] {
        let base: Vec<Head> = (0..n).map(|i| head(i, if i % 2 == 0 { T } else { 5 })).collect();
        let mut pair = Pair::new(&base);
        let mut newer = base.clone();
        newer[0] = head(0, T + 90_000);
        newer[2] = head(2, T + 3);
        newer.push(head(n, T + 1));
        pair.set(1, &newer);
        pair.reset();
        pair.until_same(60_000);
        assert_eq!(pair.cost.items, 3, "{n} logs");
        pair.reset();
        pair.run(60_000);
        assert_eq!((pair.cost.items, pair.same()), (0, true));
    }
}

/// Gaps of many items, logs that only one side has, and forks, all at once: what can be fetched is
/// fetched by whoever lacks it, and both sides see each fork.
#[test]
fn gaps_unknown_logs_and_forks() {
    let base = heads(2_000, 3);
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    (ours[7], theirs[8], theirs[9]) = (head(7, 900), head(8, 40), head(9, 4));
    ours.extend((2_000..2_010).map(|i| head(i, 2)));
    theirs.extend((3_000..3_020).map(|i| head(i, 1)));
    (theirs[100], theirs[101]) = (forked(100, 3), forked(101, 3));
    let mut pair = Pair::new(&base);
    pair.set(0, &ours);
    pair.set(1, &theirs);
    pair.reset();
    pair.run(60_000);
    let has = |host: usize, i: u64| pair.hosts[host].head(&log(i)).map_or(0, |h| h.seq);
    for host in 0..2 {
        let all = [7, 8, 9, 2_000, 2_009, 3_000, 3_019].map(|i| has(host, i));
        assert_eq!(all, [900, 40, 4, 2, 2, 1, 1], "host {host}");
    }
    assert!(!pair.same(), "a fork stays");
    assert_eq!(pair.cost.forks, 4, "two forks, seen by two hosts");
    println!("gaps, unknown logs, forks: {:?}", pair.cost);
}

/// A fork that agrees in the bits that a sketch has is found by full heads, and then costs only
/// what the waits allow.
#[test]
fn a_fork_that_a_sketch_cannot_see() {
    let base = heads(500, 3);
    let mut theirs = base.clone();
    theirs[60].hash[7] ^= 1;
    let mut pair = Pair::new(&base);
    pair.set(1, &theirs);
    pair.reset();
    pair.run(60_000);
    assert_eq!(pair.cost.forks, 2);
    pair.reset();
    pair.run(3_600_000);
    println!("an hour beside a fork that stays: {:?}", pair.cost);
    assert!(pair.cost.bytes < 2_000_000, "{:?}", pair.cost);
}

/// Where nearly everything differs, full heads follow, and never more than a frame each way in 100
/// ms; a newcomer gets them without a sketch.
#[test]
fn full_heads_where_a_sketch_does_not_pay() {
    for (ours, theirs) in [
        (heads(u64::from(LOGS), 1), heads(u64::from(LOGS), 2)),
        (vec![], heads(u64::from(LOGS), 1)),
    ] {
        let mut pair = Pair::new(&[]);
        let full = 43 * usize::from(LOGS);
        pair.set(0, &ours);
        pair.set(1, &theirs);
        pair.reset();
        let ms = pair.until_same(120_000);
        println!("{} against {} logs: {ms} ms, {:?}", ours.len(), theirs.len(), pair.cost);
        assert!(pair.cost.bytes <= 3 * full, "{:?}", pair.cost);
        assert!(pair.cost.burst <= 160_000, "{:?}", pair.cost);
        assert_eq!(pair.cost.items, u64::from(LOGS));
    }
}

/// News arrive at both sides while a sketch is under way: it begins anew, or ends in full heads,
/// and both have everything soon.
#[test]
fn heads_change_while_a_sketch_is_under_way() {
    let base = heads(3_000, 1);
    let mut theirs = base.clone();
    (0..300).for_each(|i| theirs[i * 7] = head(i as u64 * 7, 2));
    let mut pair = Pair::new(&base);
    pair.set(1, &theirs);
    pair.reset();
    for step in 0..2_000u64 {
        if step % 4 == 0 {
            let side = usize::try_from(step / 4 % 2).unwrap();
            let mut now: BTreeMap<LogId, Head> = (0..3_000)
                .filter_map(|i| pair.hosts[side].head(&log(i)).map(|h| (h.log, h)))
                .collect();
            let i = 1 + 7 * (step / 4);
            now.insert(log(i), head(i, 2 + step / 2_000));
            pair.set(side, &now.into_values().collect::<Vec<_>>());
        }
        pair.run(10);
    }
    pair.until_same(60_000);
    println!(
        "under change: {:?}, {:?}",
        pair.cost,
        pair.hosts.each_ref().map(|h| h.counters().sketches)
    );
}

/// T119: a host that does not know sketches is compared with by full heads from the second time on.
#[test]
fn t119_a_host_of_an_older_version_gets_full_heads() {
    let base = heads(200, 1);
    let mut theirs = base.clone();
    theirs[5] = head(5, 2);
    let mut pair = Pair::new(&base);
    pair.set(1, &theirs);
    pair.lost = vec!["sketch_ask", "sketch"];
    pair.until_same(60_000);
    assert_eq!(pair.hosts[0].links().count(), 1, "and nobody is blamed");
}

/// The state of sync for 10 000 logs stays below 8 MiB (protocol.md §4). Counted from the sizes of
/// what is kept, with B-trees two thirds full; allocators add some.
#[test]
fn memory_of_ten_thousand_logs() {
    let mut pair = Pair::new(&heads(u64::from(LOGS), 1));
    pair.set(1, &heads(u64::from(LOGS), 2));
    pair.until_same(120_000);
    let sizes = pair.hosts[0].sizes();
    let tree = |entry: usize| usize::from(LOGS) * entry * 3 / 2;
    let heads = tree(size_of::<LogId>() + size_of::<Head>());
    let cells = sizes.cells * 24;
    // A tree's mask, its log twice, and its place in the order of use.
    let trees = tree(32 + 40 + 8 + 32);
    // At the worst moment every log is wanted from four hosts.
    let wants = tree(32 + 72 + 4 * 40);
    let sum = heads + cells + trees + wants;
    println!("heads {heads} B, sketch {cells} B, trees {trees} B, wants {wants} B: {sum} B");
    assert!(cells <= 200_000 && sum <= 8 * 1024 * 1024, "{sum} B");
}
