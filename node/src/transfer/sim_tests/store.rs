//! The origin store: asked when every host that had the content is gone, and about once for each
//! byte; left alone otherwise.

use std::collections::BTreeMap;

use stork_wire::feed::Urgency;
use stork_wire::ids::{ManifestId, SwarmId};
use stork_wire::tick::Tick;

use super::manifest::{MANIFEST, start};
use super::world::World;
use super::{Content, PIECE};
use crate::transfer::rng::rank;
use crate::transfer::{Action, Config, Fault, Input, ORIGIN_STORE, PieceSet, Planner};

/// How long a request to the store takes, beside its bytes: another region of a cloud.
const ROUND_MS: u64 = 80;
/// What each host may take.
const RATE: u64 = 64 * 1024 * 1024;

/// The store of a world: who asked it for what, and how it answers.
#[derive(Default)]
pub(super) struct Store {
    /// What it says instead of the bytes.
    pub(super) fault: Option<Fault>,
    /// Pieces sent, by swarm and piece.
    pub(super) sent: BTreeMap<(SwarmId, u32), u32>,
    /// Requests, by host.
    pub(super) asked: BTreeMap<usize, u32>,
    manifests: BTreeMap<ManifestId, u32>,
}

impl World {
    pub(super) fn fetch(&mut self, h: usize, action: &Action) {
        *self.store.asked.entry(h).or_default() += 1;
        let from = ORIGIN_STORE;
        let at = self.now / 1_000 + ROUND_MS;
        let input = match (action, self.store.fault) {
            (Action::FetchPiece { swarm, piece }, fault) => {
                let (swarm, piece) = (*swarm, *piece);
                match fault {
                    Some(fault) => Input::PieceFailed { swarm, piece, from, fault },
                    None => {
                        *self.store.sent.entry((swarm, piece)).or_default() += 1;
                        Input::PieceArrived { swarm, piece, from }
                    }
                }
            }
            (Action::FetchManifest { manifest }, fault) => {
                let manifest = *manifest;
                match fault {
                    Some(fault) => Input::ManifestFailed { manifest, from, fault },
                    None => {
                        *self.store.manifests.entry(manifest).or_default() += 1;
                        self.hosts[h].manifest_us.get_or_insert(self.now);
                        Input::ManifestArrived { manifest, from }
                    }
                }
            }
            _ => return,
        };
        self.input(h, at, input);
    }

    /// Hosts whose operators named a store.
    fn with_store(n: usize, hosts: &[usize], seed: u64) -> Self {
        Self::with_rate(n, hosts, seed, RATE)
    }

    fn with_rate(n: usize, hosts: &[usize], seed: u64, rate: u64) -> Self {
        let mut world = Self::new(n, 7, seed);
        for h in hosts {
            let config = Config { store_bytes_per_s: rate, ..Config::default() };
            world.hosts[*h].planner = Planner::new(config, super::node(*h), seed + *h as u64);
            let peers = world.hosts[*h].conns.clone();
            for peer in peers {
                let node = super::node(peer);
                world.input(*h, 0, Input::PeerUp { node, same_site: true });
            }
        }
        world
    }
}

fn egress(world: &World, content: &Content) -> f64 {
    let pieces: u32 = world.store.sent.values().sum();
    (u64::from(pieces) * u64::from(PIECE)) as f64 / content.bytes() as f64
}

/// A content that no host has, and hosts that want it.
fn orphan(pieces: u32, n: usize) -> Content {
    let mut content = Content::of(pieces, n);
    content.origins = Vec::new();
    content
}

/// Nobody has it: a few hosts fetch it once from the store, all others from them.
#[test]
fn everyone_gone() {
    let content = orphan(128, 16);
    let mut world = World::with_store(17, &content.hosts, 51);
    content.start(&mut world);
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let (egress, asked) = (egress(&world, &content), world.store.asked.len());
    println!("from the store: {ms:.0} ms, egress {egress:.3} F, asked by {asked} hosts");
    assert!(egress <= 1.1, "{egress}");
    assert!(asked <= 3, "{asked} hosts asked the store");
    // Five seconds of hunger, then 64 MiB at 64 MiB/s from each of two hosts.
    assert!(ms < 9_000.0, "{ms}");
}

/// One host alone gets all of it by itself, as fast as four requests at once and its rate allow.
#[test]
fn one_host() {
    // 128 MiB after five seconds: by four pieces of 512 KiB in 80 ms, or by 8 MiB a second.
    for (rate, least, most) in [(RATE, 10_000.0, 11_000.0), (8 << 20, 19_500.0, 21_500.0)] {
        let content = orphan(256, 1);
        let mut world = World::with_rate(2, &content.hosts, 52, rate);
        content.start(&mut world);
        let ms = world.finish(60_000, content.swarm, &content.hosts);
        assert!((egress(&world, &content) - 1.0).abs() < 0.001);
        assert!((least..most).contains(&ms), "{rate}: {ms}");
    }
}

/// The first ones by hash have no store, or are dead: the next in the order step in.
#[test]
fn others_step_in() {
    let content = orphan(64, 12);
    let all: Vec<_> = content.hosts.iter().map(|h| super::node(*h)).collect();
    let mut first = content.hosts.clone();
    first.sort_by_key(|h| rank(content.swarm.as_bytes(), super::node(*h), &all, 99));
    let mut world = World::with_store(13, &first[3..], 53);
    content.start(&mut world);
    world.kill(first[0], 10);
    let alive: Vec<usize> = first[1..].to_vec();
    let ms = world.finish(60_000, content.swarm, &alive);
    let egress = egress(&world, &content);
    println!("the fourth in the order steps in: {ms:.0} ms, egress {egress:.3} F");
    assert!(ms < 25_000.0 && egress <= 1.3, "{ms} {egress}");
}

/// While a publisher's host serves, the store is not asked at all.
#[test]
fn not_without_need() {
    let content = Content::of(256, 16);
    let mut world = World::with_store(17, &content.hosts, 54);
    content.start(&mut world);
    world.finish(60_000, content.swarm, &content.hosts);
    assert!(world.store.asked.is_empty(), "{:?}", world.store.asked);
}

/// The origin dies in the middle: what no host has comes from the store, and no more.
#[test]
fn origin_dies() {
    let content = Content::of(256, 8);
    let mut world = World::with_store(9, &content.hosts, 55);
    content.start(&mut world);
    world.kill(0, 600);
    let ms = world.finish(90_000, content.swarm, &content.hosts);
    let egress = egress(&world, &content);
    println!("the origin dies halfway: {ms:.0} ms, egress {egress:.3} F");
    assert!(egress < 0.8, "{egress}");
}

/// A publisher's host comes back: from then on the store is left alone.
#[test]
fn origin_comes_back() {
    let content = Content::of(256, 6);
    let mut world = World::with_rate(7, &content.hosts, 58, 4 << 20);
    for h in &content.hosts {
        world.join(*h, 0, content.join(*h, PieceSet::empty(256)));
    }
    world.join(0, 9_000, content.join(0, PieceSet::full(256)));
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let egress = egress(&world, &content);
    // By the store alone: two hosts with 4 MiB/s each need 16 s for 128 MiB, after 5 s of hunger.
    println!("the origin is back after 9 s: {ms:.0} ms, egress {egress:.3} F");
    assert!(ms < 16_000.0 && (0.1..0.5).contains(&egress), "{ms} {egress}");
}

/// Of two contents that nobody has, the urgent one comes first.
#[test]
fn urgent_first() {
    let mut usual = orphan(64, 1);
    let mut urgent = orphan(64, 1);
    (usual.swarm, urgent.swarm) = (super::swarm(1), super::swarm(2));
    urgent.urgency = Urgency::Security;
    let mut world = World::with_rate(2, &[1], 59, 8 << 20);
    usual.start(&mut world);
    urgent.start(&mut world);
    world.finish(60_000, urgent.swarm, &[1]);
    let of_usual = world.store.sent.keys().filter(|(s, _)| *s == usual.swarm).count();
    assert!(of_usual <= 8, "{of_usual} pieces went before the urgent ones");
    world.finish(60_000, usual.swarm, &[1]);
}

/// A store that lies or does not answer is asked ever more rarely, and every host goes on trying.
#[test]
fn a_bad_store_is_asked_rarely() {
    for fault in [Fault::Bad, Fault::Stalled, Fault::Gone] {
        let content = orphan(64, 4);
        let mut world = World::with_store(5, &content.hosts, 56);
        world.store.fault = Some(fault);
        content.start(&mut world);
        world.run(600_000, |_| false);
        let most = world.store.asked.values().max().copied().unwrap_or(0);
        println!("{fault:?}: asked {most} times in ten minutes");
        assert!((4..=40).contains(&most), "{fault:?}: {most}");
        for h in &content.hosts {
            assert!(world.hosts[*h].blamed.is_empty());
            let view = world.hosts[*h].planner.view(content.swarm, Tick(600_000)).unwrap();
            assert_eq!((view.have, view.inflight), (0, 0));
        }
        // It recovers: so does everyone.
        world.store.fault = None;
        world.finish(1_500_000, content.swarm, &content.hosts);
    }
}

/// A host that stops wanting takes its requests back.
#[test]
fn leaving() {
    let content = orphan(64, 1);
    let config = Config { store_bytes_per_s: RATE, ..Config::default() };
    let mut planner = Planner::new(config, super::node(1), 1);
    let mut actions = Vec::new();
    let join = content.join(1, PieceSet::empty(64));
    planner.handle(Tick(0), Input::Join(Box::new(join)), &mut actions);
    planner.handle(Tick(6_000), Input::Deadline, &mut actions);
    let asked = |a: &&Action| matches!(a, Action::FetchPiece { .. });
    assert_eq!(actions.iter().filter(asked).count(), 4);
    actions.clear();
    planner.handle(Tick(6_001), Input::Leave { swarm: content.swarm }, &mut actions);
    let back = |a: &&Action| matches!(a, Action::Unexpect { from: ORIGIN_STORE, .. });
    assert_eq!(actions.iter().filter(back).count(), 4);
}

/// The manifest comes from the store as well, once or twice for all.
#[test]
fn manifest() {
    let hosts: Vec<usize> = (1..=16).collect();
    let mut world = World::with_store(17, &hosts, 57);
    start(&mut world, 16);
    world.kill(0, 0);
    let done = world.run(60_000, |w| w.hosts[1..].iter().all(|h| h.manifest_us.is_some()));
    let sent = world.store.manifests.get(&MANIFEST).copied().unwrap_or(0);
    println!("manifest from the store: {:.1} ms, {sent} times", done.unwrap());
    assert!(done.unwrap() < 8_000.0 && (1..=3).contains(&sent), "{sent}");
}
