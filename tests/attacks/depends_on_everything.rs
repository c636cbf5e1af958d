//! Depends on everything (A15): one package brings in so many that hosts fetch and VMs fill up
//! without end.
//!
//! Who can: a publisher, or its stolen key. What must hold: so many lines for a package, so many
//! packages for one, so many bytes; all of it is counted before anything is asked for, and the view
//! stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stork_tests::hostile::Manners;
use stork_tests::wait::wait_until;
use stork_wire::codec::List;
use stork_wire::feed::Release;
use stork_wire::frame::{Frame, TransferFrame};
use stork_wire::ids::ManifestId;
use stork_wire::limits::DEPENDS_MAX;
use stork_wire::text::Line;

use crate::stage::{Stage, VICTIM};

/// Packages of which each needs the next: more than one package may need.
const CHAIN: usize = 1_100;

/// A release of a content that nobody has.
fn unknown(r: &mut Release, name: &str, needs: &str) {
    r.package = name.parse().unwrap();
    r.version = "1".parse().unwrap();
    r.manifest.id = ManifestId(*blake3::hash(name.as_bytes()).as_bytes());
    r.depends = List::truncated([needs.parse().unwrap()].into_iter().filter(|_| !needs.is_empty()));
}

/// Counts who asks for manifests.
fn counting(asked: &Arc<AtomicUsize>) -> Manners {
    let asked = Arc::clone(asked);
    Box::new(move |frame| {
        if let Frame::Transfer(TransferFrame::Interest(_) | TransferFrame::GetManifest(_)) = frame {
            asked.fetch_add(1, Ordering::Relaxed);
        }
        Vec::new()
    })
}

/// A chain of 1 100 packages, one package that needs two terabytes, and more lines than an entry
/// holds: the VM that pulls what is needed gets none of it, says why, and asks nobody for anything.
#[test]
fn t040_a_package_that_needs_everything() {
    let lines = (0..=DEPENDS_MAX).map(|i| format!("p{i}").parse().unwrap());
    assert!(List::<Line, DEPENDS_MAX>::new(lines.collect()).is_err(), "no entry holds them");

    let mut stage = Stage::new();
    let wants = ["p0", "large"].map(|p| format!("[[subscribe]]\npackage = \"{p}\"\n")).concat();
    stage.write_vm(VICTIM, "pulls", "depends = \"pull\"", &wants);
    let asked = Arc::default();
    let (_peer, talk) = stage.insider_with(counting(&asked));
    let mut feed = stage.feed();
    let mut items = Vec::new();
    for i in (0..CHAIN).rev() {
        let next = if i + 1 < CHAIN { format!("p{}", i + 1) } else { String::new() };
        items.push(feed.announce(|r| unknown(r, &format!("p{i}"), &next)));
    }
    items.push(feed.announce(|r| {
        unknown(r, "huge", "");
        r.unpacked_bytes = 60 << 30;
    }));
    items.push(feed.announce(|r| {
        unknown(r, "large", "huge");
        r.unpacked_bytes = 1;
    }));
    stage.spreads(&items);
    for (package, says) in [("p0", "needs more than 1024 packages"), ("large", "would bring in")] {
        let mut why = String::new();
        wait_until(&format!("{package} to be considered"), || {
            why = stage.why(VICTIM, "pulls", package);
            why.contains("needs") || why.contains("would bring in")
        });
        assert!(why.contains(says), "{package}: {why}");
    }
    assert!(stage.shows(VICTIM, "pulls").is_empty());
    assert_eq!(asked.load(Ordering::Relaxed), 0, "something was asked for");
    drop(talk);
    stage.publish("p0", "2");
    stage.await_shows(VICTIM, "pulls", &[("p0", "2")]);
    stage.good_news("2");
}
