//! Insiders against membership: slots, shuffles, made-up hosts and floods of records.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::tick::Tick;

use super::super::{Action, Config, Input, Overlay, Peer, PeersKind, Why};
use super::check;
use super::hostile::Victim;
use super::made::{Mute, log_id, make_item, make_peer};
use super::world::World;

fn dialled(actions: &[Action]) -> impl Iterator<Item = NodeId> {
    actions.iter().filter_map(|a| match a {
        Action::Dial { peer, .. } => Some(peer.node),
        _ => None,
    })
}

/// T056: one insider says hello a thousand times, starving and with every class. It never has more
/// than one link, and no host that was dialled here and no anchor loses its own (attack G2).
#[test]
fn t056_a_thousand_hellos_gain_one_slot() {
    let me = make_peer(0, 1, 1);
    let mut o = Overlay::new(Config::default(), me.node, me.site.clone(), 5);
    let anchors: Vec<Arc<Peer>> = (1..4).map(|i| make_peer(i, 1, 1)).collect();
    let mut actions = Vec::new();
    o.handle(Tick(0), Input::Bootstrap { known: vec![], anchors }, &mut Vec::new());
    o.handle(Tick(600), Input::Deadline, &mut actions);
    let mut own = BTreeSet::new();
    for action in actions {
        if let Action::Dial { peer, class, .. } = action {
            own.insert(peer.node);
            o.handle(Tick(700), Input::Linked { peer, class, hints: vec![] }, &mut Vec::new());
        }
    }
    for i in 10..22 {
        let input = Input::Hello {
            peer: make_peer(i, 1, 1),
            class: if i % 3 == 0 { LinkClass::Far } else { LinkClass::Near },
            starving: false,
        };
        o.handle(Tick(1_000), input, &mut Vec::new());
    }
    let linked = |o: &Overlay| o.links().map(|l| l.peer.node).collect::<BTreeSet<_>>();
    let (before, foe) = (linked(&o), make_peer(50, 1, 1));
    for i in 0..1_000 {
        let class = if i % 2 == 0 { LinkClass::Near } else { LinkClass::Far };
        let input = Input::Hello { peer: Arc::clone(&foe), class, starving: true };
        o.handle(Tick(20_000 + i * 50), input, &mut Vec::new());
        check::cheap(&o, 5);
        check::sets(&o, 5);
        let now = linked(&o);
        assert!(own.is_subset(&now), "an own link was evicted");
        let lost = before.difference(&now).count();
        assert!(lost <= 1, "{lost} links gave way to one host");
    }
}

/// Places for inbound hosts go to the closest of all that ask, in whatever order and however often
/// they do, and those who connect again keep nobody out (attack G2).
#[test]
fn g2_inbound_places_go_to_the_closest() {
    let me = make_peer(0, 1, 1);
    let mut o = Overlay::new(Config::default(), me.node, me.site.clone(), 5);
    o.handle(Tick(0), Input::Day(20_000), &mut Vec::new());
    let mut all: Vec<Arc<Peer>> = (1..100).map(|i| make_peer(i, 1, 1)).collect();
    let mut answers = 0;
    for round in 0..30 {
        for (k, peer) in (0u64..).zip(&all) {
            let peer = Arc::clone(peer);
            let hello = Input::Hello { peer, class: LinkClass::Near, starving: true };
            let mut actions = Vec::new();
            o.handle(Tick(6_000 * round + k), hello, &mut actions);
            answers += actions.iter().filter(|a| matches!(a, Action::Answer { .. })).count();
            check::cheap(&o, 5);
            check::sets(&o, 5);
        }
    }
    assert_eq!(answers, 30 * 99);
    all.sort_by_key(|p| o.affinity.distance(&p.node));
    let linked: BTreeSet<NodeId> = o.links().map(|l| l.peer.node).collect();
    let closest: BTreeSet<NodeId> = all.iter().take(linked.len()).map(|p| p.node).collect();
    assert_eq!((linked.len(), linked), (5, closest));
}

/// Of all hosts that were ever named the closest stay in the passive view, however often others
/// are named later (attack G3).
#[test]
fn g3_the_closest_stay_known() {
    let mut v = Victim::new();
    let all: Vec<Arc<Peer>> = (10..400).map(|i| make_peer(i, 1, 1)).collect();
    let (first, rest) = all.split_at(60);
    for peer in first {
        v.o.learn(v.now, peer, None);
    }
    let mut kept: Vec<NodeId> = first.iter().map(|p| p.node).collect();
    kept.sort_by_key(|n| v.o.affinity.distance(n));
    let insiders: Vec<&Arc<Peer>> =
        rest.iter().filter(|p| v.o.affinity.distance(&p.node) > u64::MAX / 2).collect();
    for _ in 0..20 {
        for peer in &insiders {
            v.o.learn(v.now, peer, None);
        }
    }
    assert_eq!(v.o.sizes().passive, 60);
    let near = |n: &&NodeId| v.o.affinity.distance(n) < u64::MAX / 2;
    let missing = kept.iter().take(29).filter(near).filter(|n| v.o.contacts.get(n).is_none());
    assert_eq!(missing.count(), 0);
}

/// A neighbour that owes an answer is doubted, and all others are asked at once; when none of them
/// answers either, others are looked for although no link has ended yet.
#[test]
fn silence_is_doubted_in_company() {
    let mut v = Victim::new();
    let more: Vec<Arc<Peer>> = (2..5).map(|i| make_peer(i, 1, 1)).collect();
    for peer in &more {
        assert_eq!(v.hello(peer, LinkClass::Near, true), LinkClass::Near);
    }
    let kind = PeersKind::Records;
    let others: Vec<Arc<Peer>> = (20..30).map(|i| make_peer(i, 1, 1)).collect();
    v.input(Input::Peers { from: v.foe.node, kind, peers: others });
    let (mut pinged, mut dials) = (BTreeSet::new(), 0);
    while dials < 4 && v.now < Tick(20_000) {
        v.now = v.o.deadline().unwrap().max(v.now.after_ms(1));
        let actions = v.input(Input::Deadline);
        pinged.extend(actions.iter().filter_map(|a| match a {
            Action::Send { to, frame: OverlayFrame::Ping { .. }, .. } => Some(*to),
            _ => None,
        }));
        // One dial at once is the ordinary refill.
        dials = dialled(&actions).count();
    }
    assert!(dials >= 4, "a starving node dials several hosts at once");
    assert!(v.now < Tick(6_500), "long before the links end: {:?}", v.now);
    assert_eq!((pinged.len(), v.o.links().count()), (4, 4));
}

/// T057: replies that were never asked for end the link of whoever keeps sending them, and it is
/// shut out for ten minutes; one late reply in half a minute is forgiven.
#[test]
fn t057_a_flood_of_replies_ends_the_link() {
    let mut v = Victim::new();
    let from = v.foe.node;
    let strangers: Vec<Arc<Peer>> = (10..18).map(|i| make_peer(i, 1, 1)).collect();
    let late = |v: &mut Victim, nonce| {
        let kind = PeersKind::ShuffleReply { nonce };
        let actions = v.input(Input::Peers { from, kind, peers: strangers.clone() });
        actions.iter().any(|a| matches!(a, Action::Close { why: Why::Misbehaved, .. }))
    };
    for k in 0..100 {
        v.now = Tick(k * 30_000);
        assert!(!late(&mut v, k), "an honest host's late replies");
    }
    let ended = (0..120).position(|k| late(&mut v, k));
    assert!(ended.is_some_and(|k| k < 10), "{ended:?}");
    assert_eq!((v.o.links().count(), v.o.sizes().passive), (0, 0));
    let foe = Arc::clone(&v.foe);
    assert_eq!(v.hello(&foe, LinkClass::Near, true), LinkClass::Transient);
}

/// T058: 40 % of the hosts name only each other in every exchange, and pass on nothing of what they
/// hear. Every honest host keeps an honest neighbour, and gets every item.
#[test]
fn t058_forty_percent_poison_the_shuffles() {
    let mut world = World::new(40, 1, 58);
    world.check_every = 13;
    for i in (0..40).filter(|i| i % 5 >= 3) {
        world.hosts[i].mute = Mute::Poison;
    }
    (0..40).for_each(|i| world.start(i));
    let honest = |w: &World| -> Vec<usize> {
        (0..40).filter(|i| w.hosts[*i].mute == Mute::Nothing).collect()
    };
    let foes: BTreeSet<NodeId> =
        (0..40).filter(|i| i % 5 >= 3).map(|i| world.hosts[i].peer.node).collect();
    assert_eq!((honest(&world).len(), foes.len()), (24, 16));
    for round in 1..=10 {
        world.run(120_000);
        for i in honest(&world) {
            let links = world.hosts[i].overlay.links();
            let good = links.filter(|l| !foes.contains(&l.peer.node)).count();
            assert!(good > 0, "host {i} is surrounded, round {round}, seed {}", world.seed);
        }
        let seq = world.publish(0, log_id(0));
        let start = world.now;
        let all = |w: &World| {
            let has = |i: &usize| w.hosts[*i].logs.get(&log_id(0)).map_or(0, Vec::len) as u64;
            honest(w).iter().all(|i| has(i) >= seq)
        };
        while !all(&world) {
            world.run(250);
            assert!(world.now - start <= 90_000, "round {round}, seed {}", world.seed);
        }
        println!("round {round}: all honest hosts have it after {} ms", world.now - start);
    }
}

/// T059: no number in a frame lets it travel far. A push stops after 64 links, whatever the sender
/// says; a shuffle is never passed on, and a record once.
#[test]
fn t059_nothing_travels_for_ever() {
    let mut v = Victim::new();
    let friend = make_peer(2, 1, 1);
    v.hello(&friend, LinkClass::Near, true);
    for (seq, hop, goes_on) in [(1, 63, true), (2, 64, false), (3, 255, false)] {
        let item = make_item(log_id(0), seq);
        let frame = OverlayFrame::Push { hop, age_ms: 0, entry: 0, item: Box::new(item.clone()) };
        v.frame(frame);
        let (log, hash, source) = (log_id(0), item.hash(), Some(v.foe.node));
        let item = Arc::new(item);
        let actions = v.input(Input::Committed { log, seq, hash, item, source });
        let pushed = actions.iter().find_map(|a| match a {
            Action::Send { frame: OverlayFrame::Push { hop, .. }, .. } => Some(*hop),
            _ => None,
        });
        assert_eq!(pushed, goes_on.then_some(hop.saturating_add(1)), "hop {hop}");
    }
    let from = v.foe.node;
    let other = vec![make_peer(9, 1, 1)];
    let mut out =
        v.input(Input::Peers { from, kind: PeersKind::Shuffle { nonce: 1 }, peers: other.clone() });
    out.retain(|a| !matches!(a, Action::Send { to, .. } if *to == from));
    assert!(out.is_empty(), "a shuffle goes back, not on: {out:?}");
    let mut floods = 0;
    for _ in 0..100 {
        v.input(Input::Peers { from, kind: PeersKind::Records, peers: other.clone() });
        v.now = v.now.after_ms(100);
        let sent = v.input(Input::Deadline);
        let record = |a: &&Action| {
            matches!(a, Action::Send { to, frame: OverlayFrame::Records(p), .. }
                if *to == friend.node && p.contains(&other[0].hint))
        };
        floods += sent.iter().filter(record).count();
        v.input(Input::Frame { from, frame: OverlayFrame::Unlink });
        v.hello(&Arc::clone(&v.foe), LinkClass::Near, true);
    }
    assert_eq!(floods, 1);
}

/// T060: a thousand shuffles name one host, each time with a newer record. The answers go to who
/// sent them, and the host that was named is dialled at most once a second.
#[test]
fn t060_a_named_host_is_not_flooded_with_dials() {
    let mut v = Victim::new();
    let target = make_peer(77, 1, 1);
    let mut dials = 0;
    for k in 0..1_000u64 {
        v.now = Tick(k * 60);
        let peers = vec![make_peer(77, 2 + k, 1)];
        let kind = PeersKind::Shuffle { nonce: k };
        let mut actions = v.input(Input::Peers { from: v.foe.node, kind, peers });
        actions.extend(v.input(Input::Deadline));
        let to_target = |a: &&Action| matches!(a, Action::Send { to, .. } if *to == target.node);
        assert_eq!(actions.iter().find(to_target).map(|_| ()), None);
        for node in dialled(&actions) {
            dials += usize::from(node == target.node);
            v.input(Input::DialFailed { node });
        }
    }
    println!("{dials} dials in a minute");
    assert!((1..=60).contains(&dials), "{dials} dials in a minute");
}

/// T116: every anchor is dead. The hosts that are linked go on as before, also when some of them
/// die. One that comes back is found by those that knew it; a new one that knows nobody but the
/// anchors stays alone, keeps trying, and is in as soon as one anchor is back.
#[test]
fn t116_all_anchors_are_down() {
    let mut world = World::new(24, 1, 116);
    (0..23).for_each(|i| world.start(i));
    world.run(60_000);
    (0..3).for_each(|i| world.kill(i));
    world.run(30_000);
    assert_eq!((world.alive(), world.largest_part()), (20, 20));
    (20..23).for_each(|i| world.kill(i));
    world.run(60_000);
    let seq = world.publish(5, log_id(0));
    world.run(5_000);
    assert_eq!((world.holding(log_id(0), seq), world.largest_part()), (17, 17));
    world.start(23);
    world.hosts[22].saved.clear();
    world.start(22);
    world.run(120_000);
    assert_eq!(world.largest_part(), 18);
    let alone = &world.hosts[23].overlay;
    assert_eq!(alone.links().count(), 0);
    assert!(alone.deadline().is_some_and(|t| t.0 <= world.now + 31_000));
    world.start(1);
    world.run(60_000);
    assert_eq!((world.largest_part(), world.holding(log_id(0), seq)), (20, 20));
}

/// T061: an old record never replaces a newer one and is not flooded again; only subscribers of
/// a group and are not known to be dead are named for it; a full roster prefers the own site.
#[test]
fn t061_records_and_interest() {
    let mut v = Victim::new();
    let friend = make_peer(2, 1, 1);
    v.hello(&friend, LinkClass::Near, true);
    v.now = Tick(1_000);
    v.input(Input::Deadline);
    let group = GroupId([7; 32]);
    let record = |i, incarnation, groups: &[GroupId]| {
        Arc::new(Peer { groups: groups.to_vec(), ..Peer::clone(&make_peer(i, incarnation, 1)) })
    };
    let take = |v: &mut Victim, peer: Arc<Peer>| -> usize {
        let (from, kind) = (v.foe.node, PeersKind::Records);
        v.input(Input::Peers { from, kind, peers: vec![peer] });
        v.now = v.now.after_ms(100);
        let actions = v.input(Input::Deadline);
        let is = |a: &&Action| matches!(a, Action::Send { frame: OverlayFrame::Records(_), .. });
        actions.iter().filter(is).count()
    };
    assert_eq!(take(&mut v, record(20, 5, &[group])), 1, "goes on to the friend only");
    assert_eq!(take(&mut v, record(20, 5, &[group])), 0);
    assert_eq!(take(&mut v, record(20, 4, &[])), 0);
    assert_eq!(v.o.interested(&[group]).iter().map(|p| p.incarnation).collect::<Vec<_>>(), [5]);
    assert_eq!(v.o.interested(&[GroupId([8; 32])]).len(), 0);
    assert_eq!(take(&mut v, record(20, 6, &[])), 1);
    assert_eq!(v.o.interested(&[group]).len(), 0);

    take(&mut v, record(21, 1, &[group]));
    let dial = |actions: &[Action]| {
        actions.iter().any(|a| matches!(a, Action::Dial { peer, .. } if peer.groups == [group]))
    };
    let mut dialled = false;
    for _ in 0..20 {
        v.now = v.now.after_ms(3_000);
        v.frame(OverlayFrame::IHave(List::empty()));
        dialled |= dial(&v.input(Input::Deadline));
    }
    assert!(dialled, "a node with two links dials whom it hears of");
    assert_eq!(v.o.interested(&[group]).len(), 0, "a dial without an answer: it is dead");
    take(&mut v, record(21, 2, &[group]));
    assert_eq!(v.o.interested(&[group]).len(), 1, "it says that it lives");

    for i in 0..2_000 {
        let far = Peer { site: "far".parse().unwrap(), ..Peer::clone(&make_peer(100 + i, 1, 1)) };
        take(&mut v, Arc::new(far));
    }
    assert_eq!(v.o.sizes().roster, 512);
    for i in 0..40 {
        take(&mut v, make_peer(3_000 + i, 1, 1));
    }
    let near = v.o.hosts().filter(|p| p.site.as_str() == "site-0").count();
    assert!(near >= 40, "{near} of the own site");
}
