//! Limits of rate among planners: how long it takes, what it slows and what not.

use stork_wire::feed::Urgency;

use super::world::World;
use super::{Content, node, swarm};
use crate::transfer::{Input, Limit, Limits, PieceSet, SiteHosts, Way};

const MIB: u64 = 1024 * 1024;
const SITES: [u64; 2] = [11, 22];

/// All of one way at 1 MiB/s.
fn mib_a_second(way: Way) -> Limits {
    let mut limits = Limits::default();
    let limit = Limit { per_s: Some(MIB), closed: false };
    match way {
        Way::Up => limits.up = limit,
        Way::Down => limits.down = limit,
        Way::WanUp => limits.wan_up = limit,
        Way::WanDown => limits.wan_down = limit,
    }
    limits
}

/// How long 10 MiB take from one host to another with these limits on one of them.
fn pair_ms(host: usize, limits: Limits) -> f64 {
    let content = Content::of(20, 1);
    let mut world = World::new(2, 1, 41);
    world.input(host, 0, Input::Limits(limits));
    content.start(&mut world);
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let of = |w: Way| world.hosts[host].planner.limit(w).1;
    println!("{ms} ms, waits {:?}", Way::ALL.map(of));
    assert_eq!(world.hosts[1].got_pieces, 20, "each piece once");
    ms
}

/// 10 MiB at 1 MiB/s take ten seconds, at either end. The first piece goes at once, and the last
/// one is sent as soon as the one before it is paid.
#[test]
fn two_hosts() {
    for (host, way) in [(0, Way::Up), (1, Way::Down)] {
        let ms = pair_ms(host, mib_a_second(way));
        assert!((9_400.0..11_500.0).contains(&ms), "{way:?}: {ms} ms");
    }
    assert!(pair_ms(0, mib_a_second(Way::WanUp)) < 500.0, "both are in one site");
    assert!(pair_ms(0, Limits::default()) < 500.0);
}

/// An origin that may send 1 MiB/s still sends everything once: the others have it from each
/// other, no later than the origin needs for it.
#[test]
fn a_slow_origin() {
    let content = Content::of(20, 12);
    let mut world = World::new(13, 7, 42);
    world.input(0, 0, Input::Limits(mib_a_second(Way::Up)));
    content.start(&mut world);
    let ms = world.finish(60_000, content.swarm, &content.hosts);
    let sent = world.hosts[0].sent_bytes as f64 / content.bytes() as f64;
    println!("{ms} ms, origin {sent} F");
    assert!(ms < 11_500.0 && sent < 1.1, "{ms} ms, {sent}");
}

/// Host 0 has it and host 1 wants it in one site, hosts from 2 on want it in another.
struct Sites {
    world: World,
    content: Content,
}

impl Sites {
    fn new(far: usize, seed: u64) -> Self {
        let content = Content::of(20, 1 + far);
        let mut world = World::new(2 + far, 0, seed);
        for h in 2..2 + far {
            world.hosts[h].site = 1;
        }
        let all = 2 + far;
        (0..all).for_each(|a| (0..a).for_each(|b| world.connect(a, b)));
        Self { world, content }
    }

    fn start(&mut self) {
        let near = SiteHosts { site: SITES[0], hosts: vec![node(1)], origins: vec![node(0)] };
        let far: Vec<usize> = (2..self.world.hosts.len()).collect();
        let hosts = far.iter().copied().map(node).collect();
        let sites = vec![near, SiteHosts { site: SITES[1], hosts, origins: Vec::new() }];
        for h in 0..self.world.hosts.len() {
            let have = if h == 0 { PieceSet::full(20) } else { PieceSet::empty(20) };
            let mut join = self.content.join(h, have);
            let same = |o: &usize| (*o < 2) == (h < 2) && *o != h;
            let others = self.content.hosts.iter().copied().filter(same).map(node);
            join.members.interested = others.collect();
            join.members.site = SITES[usize::from(h >= 2)];
            join.members.sites.clone_from(&sites);
            self.world.join(h, 0, join);
        }
    }

    fn finish(&mut self, hosts: &[usize]) -> f64 {
        self.world.finish(120_000, self.content.swarm, hosts)
    }
}

/// A limit between sites slows what crosses, whichever end has it, and nothing else; and what is
/// limited crosses once.
#[test]
fn only_what_crosses_is_slow() {
    for (limited, way) in [([0, 1], Way::WanUp), ([2, 3], Way::WanDown), ([2, 3], Way::Down)] {
        let mut sites = Sites::new(1, 43);
        for h in limited.into_iter().filter(|h| *h < 3) {
            sites.world.input(h, 0, Input::Limits(mib_a_second(way)));
        }
        sites.start();
        let near = sites.finish(&[1]);
        let far = sites.finish(&[2]);
        let got = sites.world.hosts[2].got_pieces;
        println!("{way:?}: near {near} ms, far {far} ms, {got} pieces");
        assert!(near < 500.0, "{way:?}: the own site is slow: {near} ms");
        // Two hosts that may push 1 MiB/s each are twice as fast, as far as both are asked.
        let least = if way == Way::WanUp { 4_500.0 } else { 9_000.0 };
        assert!((least..12_500.0).contains(&far), "{way:?}: {far} ms");
        assert!(got <= 22, "{way:?}: {got} pieces came for 20");
    }
}

/// Three gateways that may get 1 MiB/s each from other sites share the stripes: it takes a third
/// of the time.
#[test]
fn gateways_share() {
    let mut sites = Sites::new(3, 44);
    for h in 2..5 {
        sites.world.input(h, 0, Input::Limits(mib_a_second(Way::WanDown)));
    }
    sites.start();
    let ms = sites.finish(&[2, 3, 4]);
    let sent: u64 = (0..2).map(|h| sites.world.hosts[h].sent_bytes).sum();
    let crossed = sent - sites.content.bytes();
    println!("{ms} ms, {} pieces crossed", crossed / u64::from(super::PIECE));
    assert!((2_500.0..8_000.0).contains(&ms), "{ms} ms");
}

/// Where it is closed, normal content stands still at either end and nobody gets hungry, security
/// content goes on, and everything goes on when it is open again.
#[test]
fn closed_for_some() {
    for closed_at in [0, 1] {
        let normal = Content::of(20, 1);
        let urgent = Content { urgency: Urgency::Security, swarm: swarm(2), ..Content::of(20, 1) };
        let mut world = World::new(2, 1, 45);
        let limit = Limit { per_s: None, closed: true };
        let limits = Limits { up: limit, down: limit, ..Limits::default() };
        world.input(closed_at, 0, Input::Limits(limits));
        normal.start(&mut world);
        urgent.start(&mut world);
        let ms = world.finish(60_000, urgent.swarm, &[1]);
        assert!(ms < 500.0, "urgent content waits: {ms} ms");
        world.run(120_000, |_| false);
        assert!(!world.hosts[1].done_us.contains_key(&normal.swarm));
        assert_eq!(world.hosts[1].got_pieces, 20);
        world.input(closed_at, 130_000, Input::Limits(Limits::default()));
        let ms = world.finish(200_000, normal.swarm, &[1]);
        println!("closed at host {closed_at}: {} ms after it was opened", ms - 130_000.0);
        assert!(ms < 133_000.0, "{ms} ms");
    }
}
