//! Small contents: the manifest and the packs in one answer, counted in round trips.

use stork_wire::codec::Blob;
use stork_wire::feed::Urgency;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};

use super::world::{LATENCY_US, World};
use super::{Kind, node, swarm};
use crate::transfer::{Action, Fault, Input, Join, Members, PieceSet, Role, Small};

const MANIFEST: ManifestId = ManifestId([9; 32]);
const PACKS: u32 = 10_000;
const LEN: usize = 12_000;

impl World {
    /// An answer goes out; it takes as long as any frame.
    pub(super) fn send_small(&mut self, h: usize, to: usize) {
        let Some((manifest, id)) = self.small.as_ref().map(|j| (j.manifest, j.swarm)) else {
            return;
        };
        let byte = match self.hosts[h].kind {
            Kind::Silent | Kind::Resets => return,
            Kind::Corrupt => 1,
            Kind::Honest => 7,
        };
        self.hosts[h].smalls_sent += 1;
        let bytes = Blob::new(vec![byte; LEN]).unwrap();
        let frame = TransferFrame::Small { manifest, swarm: id, bytes };
        self.inject(h, to, self.now + LATENCY_US, frame);
    }

    /// One came: what the shell makes of it.
    pub(super) fn take_small(&mut self, h: usize, action: Action) {
        let Action::TakeSmall { from, manifest, bytes, .. } = action else { return };
        let now = self.now;
        if bytes != [7; LEN] {
            let fault = Fault::Bad;
            return self.input_us(h, now, Input::ManifestFailed { manifest, from, fault });
        }
        self.hosts[h].manifest_us.get_or_insert(now);
        self.input_us(h, now, Input::ManifestArrived { manifest, from });
        if let Some(join) = self.small.clone() {
            self.input_us(h, now, Input::Join(Box::new(join)));
        }
    }
}

fn join(role: Role, have: PieceSet, hosts: usize) -> Join {
    Join {
        swarm: swarm(1),
        manifest: MANIFEST,
        lens: vec![PACKS],
        have,
        urgency: Urgency::Normal,
        role,
        members: Members {
            interested: (1..=hosts).map(node).collect(),
            origins: vec![node(0)],
            ..Members::default()
        },
    }
}

fn want(me: usize, hosts: usize, teller: Option<usize>) -> Input {
    Input::WantManifest {
        manifest: MANIFEST,
        interested: (1..=hosts).filter(|o| *o != me).map(node).collect(),
        origins: vec![node(0)],
        urgency: Urgency::Normal,
        size: 2_000,
        small: Some(Small { swarm: swarm(1), len: LEN as u64, teller: teller.map(node) }),
    }
}

/// A world in which each host from 1 on is told by the one with half its number, as announcements
/// go along a tree, one way after it was told. Gives when each of them was told.
fn told(hosts: usize, seed: u64) -> (World, Vec<u64>) {
    let mut world = World::new(hosts + 1, 0, seed);
    world.small = Some(join(Role::Seed, PieceSet::full(1), hosts));
    world.input(0, 0, Input::HaveManifest { manifest: MANIFEST });
    world.join(0, 0, join(Role::Origin, PieceSet::full(1), hosts));
    let mut at = vec![0; hosts + 1];
    for h in 1..=hosts {
        world.connect(h, h / 2);
        at[h] = at[h / 2] + LATENCY_US;
        world.input_us(h, at[h], want(h, hosts, Some(h / 2)));
    }
    (world, at)
}

fn got(world: &World, hosts: usize) -> bool {
    world.hosts[1..=hosts].iter().all(|h| h.manifest_us.is_some())
}

/// Each of 100 hosts, seven steps from the origin, has manifest and packs one round trip after it
/// was told, with one question and one answer; nobody sends more than its neighbours ask for.
#[test]
fn one_round_trip_after_the_announcement() {
    let (mut world, at) = told(100, 61);
    world.run(5_000, |w| got(w, 100)).unwrap();
    for (h, (host, told)) in world.hosts.iter().zip(at).enumerate().skip(1) {
        let trips = (host.manifest_us.unwrap() - told) as f64 / (2 * LATENCY_US) as f64;
        assert!(trips <= 1.0, "host {h} took {trips} round trips");
        assert!(host.smalls_sent <= 2, "host {h}");
    }
    assert_eq!(world.frames, 200, "a question and an answer for each");
    assert_eq!(world.hosts[0].smalls_sent, 1);
    assert!(world.hosts.iter().all(|h| h.manifests_sent == 0 && h.got_pieces == 0));
}

/// Liars, who are blamed, and hosts that say nothing cost those behind them some time, and no more.
#[test]
fn lies_and_silence() {
    for (kind, blamed) in [(Kind::Corrupt, true), (Kind::Silent, false)] {
        let (mut world, _) = told(40, 62);
        for liar in [2, 5] {
            world.hosts[liar].kind = kind;
        }
        let ms = world.run(20_000, |w| got(w, 40)).unwrap();
        println!("all 40 have the manifest after {ms} ms");
        let names: Vec<NodeId> = world.hosts.iter().flat_map(|h| h.blamed.clone()).collect();
        assert_eq!(blamed, !names.is_empty());
        assert!(names.iter().all(|n| [node(2), node(5)].contains(n)), "{names:?}");
    }
}

/// Nobody gets the same twice in a short time, or what is not small, or more than the bucket has;
/// what nobody asked for is dropped.
#[test]
fn bounds() {
    let (mut world, _) = told(2, 63);
    world.run(5_000, |w| got(w, 2)).unwrap();
    let ask = |id: SwarmId| TransferFrame::GetSmall { manifest: MANIFEST, swarm: id };
    let us = world.now + 1_000;
    for i in 0..1_000 {
        world.inject(1, 0, us + i, ask(swarm(1)));
        world.inject(1, 0, us + i, ask(swarm(2)));
    }
    let bytes = Blob::new(vec![7; LEN]).unwrap();
    let answer = TransferFrame::Small { manifest: MANIFEST, swarm: swarm(1), bytes };
    world.inject(0, 1, us, answer);
    world.run(6_000, |_| false);
    assert_eq!(world.hosts[0].smalls_sent, 1);
    assert_eq!(world.hosts[1].planner.counters().nonsense, 1);
    let (mut world, _) = told(2, 64);
    let mut large = join(Role::Origin, PieceSet::full(9), 2);
    large.lens = vec![PACKS; 9];
    large.swarm = swarm(3);
    world.join(0, 0, large);
    world.inject(1, 0, 1_000, ask(swarm(3)));
    world.run(1_000, |_| false);
    assert_eq!(world.hosts[0].smalls_sent, 1);
}
