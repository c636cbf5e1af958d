//! Insiders that serve other bytes than they should.

use std::sync::Arc;

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Host, Package, VmFile, noise};
use stork_tests::hostile::{Content, Lie, Manners, Peer, server};
use stork_tests::wait::wait_until;
use stork_wire::frame::{Frame, LinkClass, TransferFrame};

use crate::check::{await_counter, has_event, untouched};

const LIES: [Lie; 4] = [Lie::Flipped, Lie::Longer, Lie::Shorter, Lie::OtherLen];

fn counted(host: &Host, name: &str, expected: &[(&str, u64)]) {
    for (reason, at_least) in expected {
        await_counter(host, name, reason, *at_least);
    }
}

/// The same manners, but for the question who has the manifest.
fn unasked(mut manners: Manners) -> Manners {
    Box::new(move |frame| match frame {
        Frame::Transfer(TransferFrame::Interest(_)) => Vec::new(),
        frame => manners(frame),
    })
}

/// A fleet whose hosts but the first show `app` 1, know of `app` 2, of 4 MiB, and do not fetch it
/// yet: their VMs hold the package. With it the package and its content.
pub(crate) fn held_back(hosts: usize) -> (Fleet, Package, Arc<Content>) {
    let fleet = Fleet::new(&["web"], hosts);
    let old = fleet.package("app", "1", &[("app.bin", b"version 1")]);
    fleet.push(&old, &["web"]);
    for host in &fleet.hosts[1..] {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
        host.await_vm("vm", &[("app", "1")]);
    }
    for host in &fleet.hosts[1..] {
        let file = VmFile::usual(&["web"], &host.target("vm")).hold("app", "test");
        host.write_vm("vm", &file);
        drop(host.tell(&["reload"]));
    }
    let new = fleet.package("app", "2", &[("app.bin", &noise("app", 4 << 20))]);
    fleet.push(&new, &["web"]);
    for host in &fleet.hosts[1..] {
        wait_until("the news", || host.release("app", "2").is_some());
    }
    let content = Arc::new(Content::of_folder(&new.file, "app", "2"));
    let manifest = fleet.hosts[1].release("app", "2").unwrap()["manifest"].clone();
    assert_eq!(manifest, content.reference.id.to_string(), "packed as the publisher packs");
    (fleet, new, content)
}

/// The VMs of [`held_back`] want it from now on.
pub(crate) fn let_in(fleet: &Fleet) {
    for host in &fleet.hosts[1..] {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
        drop(host.tell(&["reload"]));
    }
}

/// The only honest source is down, and four insiders with real certificates serve a manifest and
/// then its pieces: with a flipped bit, a byte too many, a byte too few, and another length in the
/// header. Each lie has its counter, each liar is blamed and asked no more; nothing of it is kept,
/// shown or passed on to a third host. When the honest source is back, both hosts get the release
/// from it.
#[test]
fn t085_t087_tampered_bytes_are_refused_and_blamed() {
    let (mut fleet, new, content) = held_back(3);
    let before = fleet.hosts[1].counter("contents", "whole");
    let peers: Vec<Peer> = (0..=LIES.len())
        .map(|i| Peer::enlist(&fleet, &format!("liar-{i}")))
        .zip([false, true].into_iter().cycle())
        .map(|(peer, far)| if far { peer.far() } else { peer })
        .collect();
    let (honest, liars) = peers.split_last().unwrap();
    fleet.hosts[0].kill9();

    let victim = &fleet.hosts[1];
    let lying = |lie: &Lie| server(&content, *lie, *lie);
    let talks: Vec<_> =
        liars.iter().zip(&LIES).map(|(p, lie)| p.dial_with(victim, lying(lie))).collect();
    let helper = honest.dial_with(victim, unasked(server(&content, Lie::No, Lie::Flipped)));
    assert!(talks.iter().chain([&helper]).all(|t| t.class != LinkClass::Transient));
    let_in(&fleet);
    let by_length = [
        ("more bytes than announced", 1),
        ("fewer bytes than announced", 1),
        ("another length than announced", 1),
    ];
    counted(victim, "streams_failed", &by_length);
    counted(victim, "peers_blamed", &[("bad_manifest", 4)]);
    assert_eq!(victim.counter("contents", "whole"), before);

    // With the true manifest from a fifth peer the host goes on to the pieces.
    let id = content.reference.id;
    helper.send(Frame::Transfer(TransferFrame::HasManifest(id)));
    counted(victim, "peers_blamed", &[("bad_piece", 5)]);
    counted(victim, "pieces", &[("bad", 2)]);
    counted(victim, "streams_failed", &by_length.map(|(why, n)| (why, n + 1)));
    for liar in &peers {
        assert!(has_event(victim, "peer_blamed", &liar.node().short()), "{}", liar.node());
    }
    assert_eq!(victim.release("app", "2").unwrap()["fetched_bytes"], 0);
    for host in &fleet.hosts[1..] {
        assert_eq!(host.vm_shows("vm")["app"], "1", "nothing has changed");
        host.verify_store();
    }

    fleet.hosts[0].start();
    for host in &fleet.hosts[1..] {
        host.await_vm("vm", &[("app", "2")]);
        compare_with_folder(&host.target("vm"), &new.file);
        host.verify_store();
        assert_eq!(untouched(host)["releases"].as_array().unwrap().len(), 2);
    }
    let other = &fleet.hosts[2];
    assert_eq!(other.counter("pieces", "bad"), 0, "what is bad is not passed on");
    assert_eq!(other.counter("peers_blamed", "bad_piece"), 0);
    drop((talks, helper));
}
