//! What sites know of each other in a fleet that is larger than a roster.

use std::sync::Arc;

use stork_wire::ids::GroupId;

use super::super::{Config, Peer};
use super::world::World;

fn group(i: u8) -> GroupId {
    GroupId([i; 32])
}

/// 120 hosts in four sites keep 40 records each. Every host knows of every other site which groups
/// it wants and whom to ask; when those who say so die, others take their place, and a group that
/// is wanted no more is forgotten.
#[test]
fn sites_know_what_others_want() {
    let config = Config { roster: 40, ..Config::default() };
    let mut world = World::with(config, 120, 4, 31);
    world.check_every = 97;
    for (i, host) in world.hosts.iter_mut().enumerate() {
        let site = u8::try_from(i % 4).unwrap();
        let groups = if i >= 100 { vec![group(9), group(site)] } else { vec![group(9)] };
        host.peer = Arc::new(Peer { groups, ..Peer::clone(&host.peer) });
    }
    (0..120).for_each(|i| world.remember(i));
    (0..120).for_each(|i| world.start(i));
    world.run(300_000);
    assert_eq!(world.largest_part(), 120);
    check(&world, "after the start");
    let sites = world.hosts[0].overlay.sites();
    assert!(sites.iter().all(|s| s.hosts == 30), "{sites:?}");
    let contacts: Vec<_> = sites[0].contacts.clone();
    for (i, host) in world.hosts.iter().enumerate() {
        assert!(!contacts.contains(&host.peer.node) || i % 4 == 1, "a contact is of its site");
    }
    let dead = (3..120).filter(|i| contacts.contains(&world.hosts[*i].peer.node));
    for i in dead.collect::<Vec<_>>() {
        world.kill(i);
    }
    world.run(900_000);
    check(&world, "after its contacts died");
}

fn check(world: &World, when: &str) {
    for (i, host) in world.hosts.iter().enumerate().filter(|(_, h)| h.alive) {
        let sites = host.overlay.sites();
        let names: Vec<&str> = sites.iter().map(|s| s.name.as_str()).collect();
        let others = ["site-0", "site-1", "site-2", "site-3"];
        let others: Vec<&str> =
            others.into_iter().filter(|n| *n != host.peer.site.as_str()).collect();
        assert_eq!(names, others, "host {i} {when}, seed {}", world.seed);
        for site in &sites {
            let own = site.name.as_str().trim_start_matches("site-").parse().unwrap();
            let wants: Vec<u8> = (0..10).filter(|g| site.may_want(&group(*g))).collect();
            assert_eq!(wants, [own, 9], "host {i} of {} {when}", site.name);
            assert!(!site.contacts.is_empty() && site.contacts.len() <= 8, "{site:?}");
        }
    }
}

/// In a fleet that fits into the roster nobody needs to speak for others.
#[test]
fn small_fleets_need_no_contacts() {
    let world = World::running(30, 3, 32);
    assert!(world.hosts.iter().all(|h| h.overlay.sites().is_empty() && h.peer.cell.is_none()));
}
