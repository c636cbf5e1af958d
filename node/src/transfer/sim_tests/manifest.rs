//! The phase before the pieces.

use stork_wire::feed::Urgency;
use stork_wire::ids::ManifestId;

use super::Kind;
use super::node;
use super::world::World;
use crate::transfer::Input;

pub(super) const MANIFEST: ManifestId = ManifestId([9; 32]);

pub(super) fn start(world: &mut World, n: usize) {
    world.input(0, 0, Input::HaveManifest { manifest: MANIFEST });
    for h in 1..=n {
        let others = (1..=n).filter(|o| *o != h).map(node).collect();
        let want = Input::WantManifest {
            manifest: MANIFEST,
            interested: others,
            origins: vec![node(0)],
            urgency: Urgency::Normal,
            size: 64 * 1024,
            small: None,
        };
        world.input(h, 0, want);
    }
}

/// 32 hosts get the manifest mostly from each other: the origin sends it a handful of times.
#[test]
fn thirty_two_hosts() {
    let mut world = World::new(33, 7, 41);
    start(&mut world, 32);
    let done = world.run(10_000, |w| w.hosts[1..].iter().all(|h| h.manifest_us.is_some()));
    let sent = world.hosts[0].manifests_sent;
    println!("manifest to 32 hosts: {:.1} ms, sent by the origin {sent} times", done.unwrap());
    assert!(done.unwrap() < 1_500.0);
    assert!(sent <= 6, "the origin sent it {sent} times");
    let most = world.hosts.iter().map(|h| h.manifests_sent).max();
    assert!(most.unwrap() <= 16, "{most:?}");
}

/// A corrupt and a silent holder delay nobody for long, and the corrupt one is blamed.
#[test]
fn bad_holders() {
    let mut world = World::new(9, 7, 42);
    world.hosts[7].kind = Kind::Corrupt;
    world.hosts[8].kind = Kind::Silent;
    for h in [7, 8] {
        world.input(h, 0, Input::HaveManifest { manifest: MANIFEST });
    }
    start(&mut world, 8);
    let done = world.run(30_000, |w| w.hosts[1..7].iter().all(|h| h.manifest_us.is_some()));
    println!("manifest with two bad holders: {:.1} ms", done.unwrap());
    assert!(done.unwrap() < 10_000.0);
    for h in &world.hosts {
        assert!(h.blamed.iter().all(|n| *n == node(7)), "{:?}", h.blamed);
    }
}

/// When the origin is gone after a single copy left it, that copy reaches everyone.
#[test]
fn the_origin_is_gone() {
    let mut world = World::new(17, 7, 43);
    start(&mut world, 16);
    world.run(10_000, |w| w.hosts[1..].iter().any(|h| h.manifest_us.is_some())).unwrap();
    world.kill(0, world.now / 1000 + 1);
    let done = world.run(30_000, |w| w.hosts[1..].iter().all(|h| h.manifest_us.is_some()));
    println!("manifest without origin: {:.1} ms", done.unwrap());
    assert!(done.unwrap() < 10_000.0);
}
