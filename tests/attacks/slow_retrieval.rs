//! Slow retrieval (A11): sources that keep a host busy for ever and give it nothing.
//!
//! Who can: any host that has, or says that it has, the content. What must hold: who trickles,
//! stops or resets is left for another within seconds, what came twice is less than the content,
//! and the release is whole.

use stork_tests::hostile::{Pace, slow_server};

use crate::check::await_counter;
use crate::content::held_back;
use crate::sources::{bad_then_good, completes, peers};

/// Three sources have everything and none gives a piece: one sends a byte a second, one half of
/// each piece and then nothing, one resets each stream in its middle. They are left for a fourth,
/// and what came twice is less than the content.
#[test]
fn t083_sources_that_trickle_stall_or_reset_are_left() {
    let (mut fleet, new, content) = held_back(2);
    let peers = peers(&fleet, 4);
    let paces = [Pace::Trickle, Pace::Stall, Pace::Reset];
    let talks = bad_then_good(
        (&mut fleet, &content),
        &peers,
        |i| slow_server(&content, paces[i]),
        |fleet| {
            await_counter(&fleet.hosts[1], "peers_blamed", "false_have", 1);
        },
    );
    completes(&fleet, &new);
    let release = fleet.hosts[1].release("app", "2").unwrap();
    let swarm = &release["swarms"][0];
    let from = swarm["from"].as_array().unwrap();
    assert_eq!(from.len(), 1, "none of the three gave a whole piece: {swarm}");
    let (received, bytes) = (swarm["received"].as_u64().unwrap(), swarm["bytes"].as_u64().unwrap());
    assert!(received <= 2 * bytes, "{swarm}");
    drop(talks);
}
