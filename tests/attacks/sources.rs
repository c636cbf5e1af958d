//! What the stories about bad sources share: hosts that serve a content badly, and one that comes
//! after them and serves it well.

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Package};
use stork_tests::hostile::{Content, Lie, Manners, Peer, Talk, server};
use stork_wire::frame::{Frame, TransferFrame};

use crate::content::let_in;

/// Some joined peers, every third with a far link: a host has room for so many of each class.
pub(crate) fn peers(fleet: &Fleet, count: usize) -> Vec<Peer> {
    let enlist = |i| {
        let peer = Peer::enlist(fleet, &format!("source-{i}"));
        if i % 3 == 2 { peer.far() } else { peer }
    };
    (0..count).map(enlist).collect()
}

/// Lets the victim begin with bad sources alone, and a good one come once they have served.
pub(crate) fn bad_then_good(
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

/// The release comes, whole, and nothing wrong is kept.
pub(crate) fn completes(fleet: &Fleet, new: &Package) {
    let victim = &fleet.hosts[1];
    victim.await_vm("vm", &[("app", "2")]);
    compare_with_folder(&victim.target("vm"), &new.file);
    victim.verify_store();
}
