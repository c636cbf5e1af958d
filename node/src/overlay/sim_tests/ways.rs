//! Which way items take: trees turn toward faster links, and sites keep their relays.

use stork_wire::codec::List;
use stork_wire::frame::{Have, ItemRange, LinkClass, OverlayFrame};
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::super::{Action, Input, Refusal};
use super::hostile::Victim;
use super::made::{log_id, make_item, make_peer};
use super::world::World;

/// A node with two neighbours, of which the first pushes and the second announces.
struct Two {
    v: Victim,
    other: NodeId,
}

impl Two {
    fn new() -> Self {
        let mut v = Victim::new();
        let other = make_peer(2, 1, 1);
        assert_eq!(v.hello(&other, LinkClass::Near, true), LinkClass::Near);
        Self { v, other: other.node }
    }

    /// Item `seq` comes from the first neighbour, and `after_ms` later the other one says for how
    /// long it has had it. What the node then sends.
    fn item(&mut self, seq: u64, after_ms: u64, waited_ms: u16) -> Vec<(NodeId, OverlayFrame)> {
        self.v.now = Tick(self.v.now.0 + 1_000);
        self.push(seq);
        self.v.now = Tick(self.v.now.0 + after_ms);
        self.announce(seq, waited_ms)
    }

    fn push(&mut self, seq: u64) -> Vec<(NodeId, OverlayFrame)> {
        let (log, from) = (log_id(0), self.v.foe.node);
        let item = Box::new(make_item(log, seq));
        let frame = OverlayFrame::Push { hop: 1, age_ms: 60, entry: 0, item: item.clone() };
        let mut actions = self.v.input(Input::Frame { from, frame });
        let (hash, item) = (item.hash(), std::sync::Arc::new(*item));
        actions.extend(self.v.input(Input::Committed { log, seq, hash, item, source: Some(from) }));
        sent(actions)
    }

    fn announce(&mut self, seq: u64, waited_ms: u16) -> Vec<(NodeId, OverlayFrame)> {
        let have = Have { log: log_id(0), seq, more: 0, waited_ms };
        let frame = OverlayFrame::IHave(List::truncated([have]));
        sent(self.v.input(Input::Frame { from: self.other, frame }))
    }

    fn parent(&self) -> Option<NodeId> {
        self.v.o.tree(&log_id(0)).and_then(|t| t.parent)
    }
}

fn sent(actions: Vec<Action>) -> Vec<(NodeId, OverlayFrame)> {
    let sent = actions.into_iter().filter_map(|a| match a {
        Action::Send { to, frame, .. } => Some((to, frame)),
        _ => None,
    });
    sent.collect()
}

/// A link that would have been 50 ms faster three times of four becomes the parent, and the former
/// parent is told; twice is not enough.
#[test]
fn a_tree_turns_toward_a_faster_link() {
    let (mut two, log) = (Two::new(), log_id(0));
    let foe = two.v.foe.node;
    assert!(two.item(1, 10, 60).is_empty() && two.item(2, 10, 20).is_empty());
    assert!(two.item(3, 10, 60).is_empty());
    assert_eq!(two.parent(), Some(foe));
    let sent = two.item(4, 10, 60);
    let graft = (two.other, OverlayFrame::Graft { log, seq: 0 });
    assert_eq!(sent, [graft, (foe, OverlayFrame::Prune { log })]);
    let tree = two.v.o.tree(&log).unwrap();
    assert_eq!((tree.parent, tree.eager), (Some(two.other), vec![two.other]));
}

/// Where the announcement comes before the push that it overtook, the tree turns with the push, and
/// stays turned when that item is committed: the former parent was told not to send again.
#[test]
fn a_tree_that_turned_with_a_push_stays_turned() {
    let (mut two, log) = (Two::new(), log_id(0));
    let foe = two.v.foe.node;
    for seq in 1..=4 {
        two.v.now = Tick(two.v.now.0 + 1_000);
        two.announce(seq, 40);
        two.v.now = Tick(two.v.now.0 + 20);
        let sent = two.push(seq);
        let turned = sent.contains(&(foe, OverlayFrame::Prune { log }));
        assert_eq!(turned, seq == 4, "{sent:?}");
    }
    let tree = two.v.o.tree(&log).unwrap();
    assert_eq!((tree.parent, tree.eager), (Some(two.other), vec![two.other]));
}

/// What came before its turn is kept by the driver. What is missing before it is fetched after a
/// moment only, since it is most likely on its way; then the early item goes on along its tree, and
/// not back to who sent it, although the driver may have forgotten who that was.
#[test]
fn an_early_item_goes_on_along_its_tree() {
    let (mut two, log) = (Two::new(), log_id(0));
    let foe = two.v.foe.node;
    for seq in 1..=2 {
        two.item(seq, 10, 0);
    }
    let early = |two: &mut Two, seq: u64| {
        let item = Box::new(make_item(log, seq));
        let frame = OverlayFrame::Push { hop: 1, age_ms: 60, entry: 0, item };
        two.v.input(Input::Frame { from: foe, frame });
        let refused = Input::Refused { from: foe, log, seq, why: Refusal::Early };
        sent(two.v.input(refused))
    };
    for source in [true, false] {
        let head = two.v.o.head(&log).unwrap().seq;
        assert!(early(&mut two, head + 2).is_empty(), "nothing is asked for at once");
        assert_eq!(two.v.o.early_source(log, head + 2), Some(foe));
        two.v.now = Tick(two.v.now.0 + 101);
        let mut asked = sent(two.v.input(Input::Deadline));
        asked.retain(|(_, frame)| matches!(frame, OverlayFrame::Fetch(_)));
        let range = ItemRange { log, from: head + 1, to: head + 1 };
        let fetch = OverlayFrame::Fetch(List::truncated([range]));
        assert_eq!(asked, [(foe, fetch)], "and only what is missing before it");
        two.push(head + 1);
        let item = std::sync::Arc::new(make_item(log, head + 2));
        let (seq, hash, source) = (head + 2, item.hash(), source.then_some(foe));
        let pushed = sent(two.v.input(Input::Committed { log, seq, hash, item, source }));
        assert!(pushed.iter().all(|(to, _)| *to != foe), "{pushed:?}");
        assert_eq!(two.parent(), Some(foe));
        assert_eq!(two.v.o.early_source(log, head + 2), None);
    }
}

/// The other end of such a graft adds the link and sends nothing that was not missing.
#[test]
fn a_graft_without_an_item_only_adds_the_link() {
    let (mut v, log) = (Victim::new(), log_id(0));
    v.commit(log, 1..=3);
    v.frame(OverlayFrame::Prune { log });
    assert!(v.o.tree(&log).unwrap().eager.is_empty());
    assert!(v.frame(OverlayFrame::Graft { log, seq: 5 }).is_empty());
    assert!(v.o.tree(&log).unwrap().eager.is_empty(), "nobody may ask for what is unknown");
    for seq in [0, 4] {
        v.frame(OverlayFrame::Prune { log });
        assert!(v.frame(OverlayFrame::Graft { log, seq }).is_empty());
        assert_eq!(v.o.tree(&log).unwrap().eager, [v.foe.node]);
    }
}

/// A tree that loses its parent while an item is on its way asks another neighbour for that item at
/// once, and goes on from there.
#[test]
fn a_lost_parents_item_is_asked_for_at_once() {
    let (mut two, log) = (Two::new(), log_id(0));
    let foe = two.v.foe.node;
    for seq in 1..=3 {
        two.item(seq, 10, 0);
    }
    two.v.input(Input::Frame { from: two.other, frame: OverlayFrame::Prune { log } });
    let gone = two.v.input(Input::Frame { from: foe, frame: OverlayFrame::Unlink });
    let graft = (two.other, OverlayFrame::Graft { log, seq: 4 });
    assert!(sent(gone).contains(&graft));
    let item = make_item(log, 4);
    let (hash, source) = (item.hash(), Some(two.other));
    let frame = OverlayFrame::Items(List::truncated([item.clone()]));
    let actions = two.v.input(Input::Frame { from: two.other, frame });
    assert!(matches!(actions[..], [Action::Deliver { .. }]), "{actions:?}");
    let item = std::sync::Arc::new(item);
    two.v.input(Input::Committed { log, seq: 4, hash, item, source });
    assert_eq!(two.parent(), Some(two.other));
    let again = OverlayFrame::Items(List::truncated([make_item(log, 5)]));
    assert!(two.v.input(Input::Frame { from: two.other, frame: again }).is_empty());
}

/// A wait that nobody can have had does not count: late news are no lead. And one announcement that
/// is repeated counts once.
#[test]
fn a_made_up_wait_is_no_lead() {
    let mut two = Two::new();
    let foe = two.v.foe.node;
    for seq in 1..=10 {
        assert!(two.item(seq, 400, u16::MAX).is_empty());
    }
    assert_eq!(two.parent(), Some(foe));
    let have = Have { log: log_id(0), seq: 10, more: 0, waited_ms: u16::MAX };
    two.item(11, 10, 100);
    for _ in 0..10 {
        let frame = OverlayFrame::IHave(List::truncated([Have { seq: 11, ..have }]));
        let input = Input::Frame { from: two.other, frame };
        assert!(two.v.input(input).is_empty());
    }
    assert_eq!(two.parent(), Some(foe));
}

/// When all relays of a site die that carry some log, hosts that are not linked to them take their
/// places in minutes, without being told by anybody.
#[test]
fn dead_relays_are_replaced() {
    let mut world = World::running(48, 2, 21);
    world.check_every = 11;
    let carriers = |world: &World, bucket: u32| {
        let ours = (0..48).step_by(2).filter(|i| world.hosts[*i].alive);
        ours.filter(|i| world.hosts[*i].overlay.carries >> bucket & 1 == 1).count()
    };
    assert!((0..64).all(|b| carriers(&world, b) == 2), "two relays for each bucket");
    let dead: Vec<usize> = (0..48)
        .step_by(2)
        .filter(|i| *i > 4 && world.hosts[*i].overlay.carries & 0b111 != 0)
        .collect();
    assert!(dead.len() >= 3, "{dead:?}");
    dead.iter().for_each(|i| world.kill(*i));
    world.run(1_500_000);
    let lacking: Vec<u32> = (0..64).filter(|b| carriers(&world, *b) < 2).collect();
    assert!(lacking.is_empty(), "buckets {lacking:?} lack relays, seed {}", world.seed);
}
