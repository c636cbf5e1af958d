//! Mix and match (A8): parts of a publisher's set at one time are put together with parts of
//! another time.
//!
//! Who can: a host, by serving the manifest of an earlier release for a later one; a stolen key, by
//! an entry that names another set than the one before it. What must hold: each entry commits to
//! the whole set and to its manifest, so that neither fits. Within a VM:
//! `t037_two_heads_of_one_feed`.

use std::sync::Arc;

use stork_tests::hostile::{Content, Lie, server};
use stork_wire::feed::view_root;

use crate::stage::{Stage, VICTIM, with_content};

/// The manifest and pieces of `app` 1 for those of `app` 2; and an entry whose set lacks the last
/// release.
#[test]
fn a8_manifest_of_another_head() {
    let mut stage = Stage::new();
    let mut feed = stage.feed();
    let mut entry = feed.next_with(|r| r.version = "2".parse().unwrap());
    entry.view_root = view_root(feed.live.iter().copied());
    stage.refuses("view_root_mismatch", &feed.item(feed.sign(&entry), entry.seq));

    let [old, new] = ["2", "3"].map(|version| stage.content("app", version));
    for (version, content) in [("2", &old), ("3", &new)] {
        let item = feed.announce(|r| {
            r.version = version.parse().unwrap();
            with_content(r, content);
        });
        let lie = Content { reference: content.reference, ..Content::clone(&old) };
        let (_peer, talk) = stage.insider_with(server(&Arc::new(lie), Lie::No, Lie::No));
        talk.push(&item);
        if version == "2" {
            stage.completes("2");
        } else {
            stage.await_counter(VICTIM, "peers_blamed", "bad_manifest", 1);
        }
    }
    assert_eq!(stage.shows(VICTIM, "vm")["app"], "2");
    let honest = stage.honest(&new);
    stage.completes("3");
    drop(honest);
    stage.good_news("4");
}
