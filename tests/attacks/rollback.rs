//! Rollback (A3, A4): a VM is taken back to a release with a hole in it.
//!
//! Who can: a stolen key, which announces the old release anew, and time, when the newest release
//! runs out before an older one. What must hold: release counters rise, and the newest release
//! decides, also when it has expired: nothing older stands in for it. Permits:
//! `t017_t019_going_back_needs_a_permit`.

use std::time::Duration;

use stork_tests::raw_push::now;
use stork_wire::feed::{Kind, view_root};

use crate::stage::{Stage, VICTIM};

/// `app` 1 announced again under its old counter; and `app` 2, which runs out while `app` 1 has
/// not.
#[test]
fn t014_t017_nothing_older_comes_back() {
    let mut stage = Stage::new();
    let mut feed = stage.feed();
    let again = {
        let mut release = feed.release();
        let mut entry = feed.next(release.clone());
        release.release = feed.release().release;
        release.urgency = stork_wire::feed::Urgency::Security;
        entry.view_root = view_root(feed.live.iter().copied().chain([release.hash()]));
        entry.kind = Kind::Release(Box::new(release));
        entry
    };
    stage.refuses("release_not_rising", &feed.item(feed.sign(&again), again.seq));

    let mut short = feed.next_with(|r| r.version = "2".parse().unwrap());
    short.expires = now() + 60;
    feed.head = feed.sign(&short);
    feed.entry = short;
    feed.live.push(feed.release().hash());
    stage.spreads(&[feed.item(feed.head.clone(), feed.entry.seq)]);
    stage.await_shows(VICTIM, "vm", &[("app", "2")]);
    stage.lab.pass(Duration::from_secs(120));
    stage.write_vm(VICTIM, "late", "", "[[subscribe]]\npackage = \"app\"");
    let why = stage.why(VICTIM, "late", "app");
    assert!(why.contains("expired"), "{why}");
    assert!(stage.shows(VICTIM, "late").is_empty(), "`app` 1 would be in time");
    stage.good_news("3");
    stage.await_shows(VICTIM, "late", &[("app", "3")]);
}
