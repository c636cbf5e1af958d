//! Endless data (A10): more bytes than were signed, until the disk or the memory is full.
//!
//! Who can: any host. What must hold: every length is signed or bounded beforehand, one byte more
//! ends the stream, and nothing of it stays on the disk.

use std::path::PathBuf;

use stork_tests::compare::disk_usage;
use stork_tests::hostile::{Deed, Lie, server};

use crate::stage::{Stage, VICTIM, with_content};

/// What may lie on the disk beyond the content itself.
const SLACK: u64 = 64 << 10;

/// A manifest and pieces with one byte too many or with another length, and a frame that says it
/// has four gigabytes.
#[test]
fn t085_one_byte_more_than_was_signed() {
    let mut stage = Stage::new();
    let (_flood, talk) = stage.insider();
    talk.act(Deed::Raw(vec![0xff; 64]));
    assert!(!talk.await_end().is_empty(), "a frame without end ends the link");

    let content = stage.content("app", "2");
    let item = stage.feed().announce(|r| {
        r.version = "2".parse().unwrap();
        with_content(r, &content);
    });
    let state = stage.node(VICTIM).config.state.clone();
    // The journal grows by itself, in steps of its own.
    let used = || {
        let all = std::fs::read_dir(&state).unwrap().map(|e| e.unwrap().path());
        let all: Vec<PathBuf> = all.filter(|p| p.is_dir()).collect();
        disk_usage(&all.iter().map(PathBuf::as_path).collect::<Vec<_>>())
    };
    let before = used();
    let (_first, talk) = stage.insider_with(server(&content, Lie::Longer, Lie::Longer));
    talk.push(&item);
    stage.await_counter(VICTIM, "streams_failed", "more bytes than announced", 1);
    let (_second, other) = stage.insider_with(server(&content, Lie::No, Lie::Longer));
    other.push(&item);
    let id = content.reference.id;
    other.send(stork_wire::frame::Frame::Transfer(stork_wire::frame::TransferFrame::HasManifest(
        id,
    )));
    stage.await_counter(VICTIM, "streams_failed", "more bytes than announced", 2);
    stage.await_counter(VICTIM, "peers_blamed", "bad_piece", 1);
    let grown = used().saturating_sub(before);
    let cap = content.reference.size + content.manifest.tree.payload_len() + SLACK;
    assert!(grown <= cap, "{grown} bytes more on the disk, {cap} are allowed");
    assert_eq!(stage.shows(VICTIM, "vm")["app"], "1");
    let honest = stage.honest(&content);
    stage.completes("2");
    drop((talk, other, honest));
    stage.good_news("3");
}
