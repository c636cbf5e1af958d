//! Fast-forward (A7): a thief moves the numbers of a feed so far that nothing true can follow.
//!
//! Who can: a stolen release key. What must hold: numbers cannot jump, since each entry names the
//! one before it; the junk that does follow ends with a new epoch, which names the last good entry,
//! and all hosts go on from there by themselves. By the thousand: `stork-sim` and T026.

use std::fs;
use std::process::Command;

use stork_publisher::keys::{generate, write_key};
use stork_tests::fleet::binary;
use stork_tests::wait::wait_until;

use crate::stage::{OTHER, Stage, VICTIM};

/// Entries of junk.
const JUNK: usize = 200;

/// An entry with the number 10^15, then two hundred entries that follow each other, the first of
/// them a release that every VM takes. A new epoch after `app` 1, with a new key, voids them all.
#[test]
fn t024_t026_junk_numbers_end_with_the_epoch() {
    let mut stage = Stage::new();
    let mut feed = stage.feed();
    let good = (feed.entry.seq, feed.head.hash());
    let mut jump = feed.next_with(|r| r.version = "2".parse().unwrap());
    jump.seq = 1_000_000_000_000_000;
    let item = feed.item(feed.sign(&jump), jump.seq);
    let before = stage.state();
    let (peer, talk) = stage.insider();
    talk.push(&item);
    let mut junk = vec![feed.announce(|r| r.version = "66".parse().unwrap())];
    junk.extend((0..JUNK).map(|_| feed.go_on()));
    assert_eq!(stage.state(), before, "a number that jumps is no head");
    drop((talk, peer));
    stage.spreads(&junk);
    for node in [OTHER, VICTIM] {
        stage.await_shows(node, "vm", &[("app", "66")]);
    }

    let new = stage.lab.dir.path().join("new");
    write_key(&new, &generate().unwrap(), "new", None).unwrap();
    let public = new.with_extension("pub");
    let first = stage.node(OTHER);
    let (seq, hash) = (good.0.to_string(), good.1.to_string());
    let mut epoch = Command::new(binary("stork-publish"));
    epoch.args(["charter", "new-epoch", "--after", &seq, "--hash", &hash, "--charter"]);
    epoch.arg(&stage.lab.charter).arg("--release-key").arg(&public);
    let out = epoch.arg("--to").arg(format!("{}@{}", first.id, first.addr)).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for node in [OTHER, VICTIM] {
        stage.await_shows(node, "vm", &[("app", "1")]);
    }
    let late = feed.go_on();
    stage.refuses("closed_epoch", &late);
    fs::copy(&new, stage.lab.charter.join("keys/release")).unwrap();
    wait_until("the last insider to be gone", || stage.status(VICTIM)["links"] == 1);
    stage.good_news("2");
}
