//! Wrong software (A2): who asks for one package is given another one, whole and well signed.
//!
//! Who can: any host that is asked for content. What must hold: an entry names its manifest by hash
//! and length, and the manifest each piece; what does not fit is thrown away, its sender is blamed,
//! and the next source is asked.

use std::sync::Arc;

use stork_tests::hostile::{Content, Lie, server};

use crate::stage::{Stage, VICTIM, with_content};

/// One host gives the manifest of `b` for that of `app`, another one the pieces of `b`. The release
/// comes from a third one.
#[test]
fn a2_the_bytes_of_another_package() {
    let mut stage = Stage::new();
    let (app, b) = (stage.content("app", "2"), stage.content("b", "1"));
    let swapped = |manifest: bool| {
        let mut content = Content::clone(&app);
        if manifest {
            (content.bytes, content.manifest) = (b.bytes.clone(), b.manifest.clone());
        }
        content.pieces = b.pieces.clone();
        Arc::new(content)
    };
    let item = stage.feed().announce(|r| {
        r.version = "2".parse().unwrap();
        with_content(r, &app);
    });
    let (_first, talk) = stage.insider_with(server(&swapped(true), Lie::No, Lie::No));
    talk.push(&item);
    stage.await_counter(VICTIM, "peers_blamed", "bad_manifest", 1);
    let (_second, other) = stage.honest(&swapped(false));
    stage.await_counter(VICTIM, "peers_blamed", "bad_piece", 1);
    assert!(stage.counter(VICTIM, "pieces", "bad") >= 1);
    assert_eq!(stage.shows(VICTIM, "vm")["app"], "1");
    let honest = stage.honest(&app);
    stage.completes("2");
    drop((talk, other, honest));
    stage.good_news("3");
}
