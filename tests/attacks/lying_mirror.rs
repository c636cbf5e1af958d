//! A malicious mirror (A13): most of those who have a release serve wrong bytes, so that it never
//! comes.
//!
//! Who can: any host. What must hold: each piece is checked before it is kept or passed on, only
//! who sent it is blamed and left, what was fetched in vain is bounded, and one honest source is
//! enough.

use stork_tests::hostile::{Lie, Peer, server};
use stork_tests::wait::wait_until;

use crate::check::has_event;
use crate::content::held_back;
use crate::sources::{bad_then_good, completes, peers};

/// Bad pieces after which a source is asked for none.
const STRIKES: u64 = 3;

/// Pieces that are under way from one source at the most, when it is left.
const UNDER_WAY: u64 = 8;

/// Nine of ten sources send bad bytes, and the tenth comes last: each of the nine is blamed, at
/// most a window of pieces for each was fetched in vain, and the release is whole.
#[test]
fn t084_one_good_source_of_ten() {
    let (mut fleet, new, content) = held_back(2);
    let peers = peers(&fleet, 10);
    let talks = bad_then_good(
        (&mut fleet, &content),
        &peers,
        |_| server(&content, Lie::No, Lie::Flipped),
        |fleet| {
            let blamed = |p: &Peer| has_event(&fleet.hosts[1], "peer_blamed", &p.node().short());
            wait_until("all nine to be blamed", || peers[..9].iter().all(blamed));
        },
    );
    completes(&fleet, &new);
    let victim = &fleet.hosts[1];
    let blamed = victim.counter("peers_blamed", "bad_piece");
    assert!(blamed <= 9 * STRIKES, "{blamed}");
    let bad = victim.counter("pieces", "bad");
    assert!(bad <= 9 * (STRIKES + UNDER_WAY), "{bad} pieces were fetched in vain");
    let (good, liars) = peers.split_last().unwrap();
    for liar in liars {
        assert!(has_event(victim, "peer_blamed", &liar.node().short()), "{}", liar.node());
    }
    assert!(!has_event(victim, "peer_blamed", &good.node().short()));
    drop(talks);
}
