//! Insiders that serve a content badly beside one that serves it well: the release comes, those who
//! serve badly are left, and what they cost is bounded.

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Package};
use stork_tests::hostile::{Content, Lie, Manners, Pace, Peer, Talk, server, slow_server};
use stork_tests::wait::wait_until;
use stork_wire::frame::{Frame, TransferFrame};

use crate::check::{await_counter, has_event};
use crate::content::{held_back, let_in};

/// Bad pieces after which a source is asked for none.
const STRIKES: u64 = 3;

/// Pieces that are under way from one source at the most, when it is left.
const UNDER_WAY: u64 = 8;

/// Some joined peers, every third with a far link: a host has room for so many of each class.
fn peers(fleet: &Fleet, count: usize) -> Vec<Peer> {
    let enlist = |i| {
        let peer = Peer::enlist(fleet, &format!("source-{i}"));
        if i % 3 == 2 { peer.far() } else { peer }
    };
    (0..count).map(enlist).collect()
}

/// Lets the victim begin with bad sources alone, and a good one come once they have served.
fn bad_then_good(
    (fleet, content): (&mut Fleet, &Content),
    peers: &[Peer],
    mut manners: impl FnMut(usize) -> Manners,
    served: impl Fn(&Fleet),
) -> Vec<Talk> {
    fleet.hosts[0].kill9();
    let victim = &fleet.hosts[1];
    let (good, bad) = peers.split_last().unwrap();
    let dial = |(i, peer): (usize, &Peer)| peer.dial_with(victim, manners(i));
    let mut talks: Vec<Talk> = bad.iter().enumerate().map(dial).collect();
    let_in(fleet);
    served(fleet);
    let honest = good.dial_with(victim, server(&content.clone().into(), Lie::No, Lie::No));
    honest.send(Frame::Transfer(TransferFrame::HasManifest(content.reference.id)));
    talks.push(honest);
    talks
}

fn completes(fleet: &Fleet, new: &Package) {
    let victim = &fleet.hosts[1];
    victim.await_vm("vm", &[("app", "2")]);
    compare_with_folder(&victim.target("vm"), &new.file);
    victim.verify_store();
}

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
