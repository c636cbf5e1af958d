//! One insider against one node: an admitted host sends what it likes, and the node's state stays
//! within its bounds ([`super::check`] looks after every input).

use std::sync::Arc;

use stork_wire::codec::{Blob, List, encode};
use stork_wire::frame::{Have, ItemRange, LinkClass, OverlayFrame};
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::item::{Head, ItemKind};
use stork_wire::limits::{HEADS_PER_FRAME_MAX, ITEMS_PER_FRAME_MAX, LOGS_MAX};
use stork_wire::sign::Envelope;
use stork_wire::tick::Tick;

use super::super::{Action, Config, Input, Overlay, Peer, PeersKind, Refusal, Why};
use super::check;
use super::made::{log_id, make_item, make_peer};

/// A node that this test drives by hand, with one linked host.
pub(super) struct Victim {
    pub(super) o: Overlay,
    pub(super) now: Tick,
    pub(super) foe: Arc<Peer>,
}

impl Victim {
    pub(super) fn new() -> Self {
        let (me, foe) = (make_peer(0, 1, 1), make_peer(1, 1, 1));
        let mut o = Overlay::new(Config::default(), me.node, me.site.clone(), 5);
        o.handle(Tick(0), Input::Local(me), &mut Vec::new());
        let mut v = Self { o, now: Tick(0), foe: Arc::clone(&foe) };
        assert_eq!(v.hello(&foe, LinkClass::Near, true), LinkClass::Near);
        v
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.o.handle(self.now, input, &mut actions);
        check::cheap(&self.o, 5);
        check::sets(&self.o, 5);
        actions
    }

    pub(super) fn frame(&mut self, frame: OverlayFrame) -> Vec<Action> {
        self.input(Input::Frame { from: self.foe.node, frame })
    }

    /// The same where so many logs are there that not every frame can be followed by a full check.
    pub(super) fn fast(&mut self, frame: OverlayFrame) -> Vec<Action> {
        let (mut actions, from) = (Vec::new(), self.foe.node);
        self.o.handle(self.now, Input::Frame { from, frame }, &mut actions);
        check::cheap(&self.o, 5);
        actions
    }

    pub(super) fn hello(
        &mut self,
        peer: &Arc<Peer>,
        class: LinkClass,
        starving: bool,
    ) -> LinkClass {
        let actions = self.input(Input::Hello { peer: Arc::clone(peer), class, starving });
        let mut answers = actions.iter().filter_map(|a| match a {
            Action::Answer { class, .. } => Some(*class),
            _ => None,
        });
        let granted = answers.next().expect("a Hello is answered");
        assert_eq!(answers.next(), None, "and once");
        granted
    }

    pub(super) fn commit(&mut self, log: LogId, seqs: core::ops::RangeInclusive<u64>) {
        for seq in seqs {
            let item = Arc::new(make_item(log, seq));
            let hash = item.envelope.hash();
            self.input(Input::Committed { log, seq, hash, item, source: None });
        }
    }
}

pub(super) fn some_log(i: usize) -> LogId {
    LogId::of(&i.to_be_bytes())
}

/// A flood of IHAVE fills the host's own share and no more; promises that are not kept are gone
/// after the last question (attack G8).
#[test]
fn ihave_flood() {
    let mut v = Victim::new();
    for k in 0..50 {
        let ids = (0..ITEMS_PER_FRAME_MAX).map(|i| Have::new(some_log(k * 1_000 + i), 1));
        v.frame(OverlayFrame::IHave(List::truncated(ids)));
    }
    assert_eq!(v.o.sizes().missing, 1_000);
    assert!(v.o.counters().dropped > 0);
    for _ in 0..40 {
        v.now = v.now.after_ms(1_000);
        v.frame(OverlayFrame::Ping {
            nonce: 1,
            fingerprint: [0; 8],
            class: LinkClass::Near,
            carries: 0,
        });
        v.input(Input::Deadline);
    }
    let s = v.o.sizes();
    assert_eq!((s.missing, s.wants, s.trees), (0, 0, 0), "promises that were not kept");
}

/// Made-up heads, with numbers at the end of what numbers can be, are wanted from that host only up
/// to its share, and dropped when it does not deliver (attacks G12, G17).
#[test]
fn heads_flood() {
    let mut v = Victim::new();
    for k in 0..60 {
        let head = |i| Head { log: some_log(k * 1_000 + i), seq: u64::MAX, hash: [1; 8] };
        let heads = List::truncated((0..HEADS_PER_FRAME_MAX).map(head));
        let actions = v.frame(OverlayFrame::Heads { heads, last: false, answer: true });
        let asked = actions.iter().filter(|a| {
            matches!(a, Action::Send { frame: OverlayFrame::Fetch(r), .. }
                if r.iter().map(|r| r.to - r.from + 1).sum::<u64>() <= 256)
        });
        assert!(asked.count() <= 1);
    }
    assert_eq!(v.o.sizes().wants, LOGS_MAX / 4 * 3);
    v.now = v.now.after_ms(6_000);
    v.frame(OverlayFrame::IHave(List::empty()));
    v.input(Input::Deadline);
    assert_eq!((v.o.sizes().wants, v.o.links().count()), (0, 1));
}

/// T057: a shuffle reply that nobody asked for changes nothing; nor does one with a wrong number or
/// from the wrong host; the right one is taken once and only as long as what was sent (attack G3).
#[test]
fn t057_shuffle_replies() {
    let mut v = Victim::new();
    let before = v.o.sizes();
    let strangers: Vec<Arc<Peer>> = (10..18).map(|i| make_peer(i, 1, 1)).collect();
    let reply = |nonce| PeersKind::ShuffleReply { nonce };
    let from = v.foe.node;
    for nonce in 0..4 {
        v.input(Input::Peers { from, kind: reply(nonce), peers: strangers.clone() });
    }
    assert_eq!((v.o.sizes(), v.o.counters().unsolicited), (before, 4));
    let mut asked = None;
    while asked.is_none() {
        v.now = v.now.after_ms(4_000);
        v.frame(OverlayFrame::IHave(List::empty()));
        asked = v.input(Input::Deadline).into_iter().find_map(|a| match a {
            Action::Send { frame: OverlayFrame::Shuffle { nonce, peers }, .. } => {
                Some((nonce, peers.len()))
            }
            _ => None,
        });
    }
    let (nonce, sent) = asked.unwrap();
    assert!(sent < strangers.len(), "this node knows too many hosts for this test");
    v.input(Input::Peers { from: strangers[0].node, kind: reply(nonce), peers: strangers.clone() });
    v.input(Input::Peers { from, kind: reply(nonce ^ 1), peers: strangers.clone() });
    assert_eq!(v.o.sizes().passive, before.passive);
    v.input(Input::Peers { from, kind: reply(nonce), peers: strangers.clone() });
    assert_eq!(v.o.sizes().passive, before.passive + sent);
    v.input(Input::Peers { from, kind: reply(nonce), peers: strangers });
    assert_eq!(v.o.sizes().passive, before.passive + sent);
}

/// One informant fills at most a quarter of the passive view, however many hosts it names (G3).
#[test]
fn one_informant_does_not_fill_the_passive_view() {
    let mut v = Victim::new();
    for k in 0..40 {
        v.now = v.now.after_ms(9_000);
        let peers = (0..8).map(|i| make_peer(100 + k * 8 + i, 1, 1)).collect();
        let kind = PeersKind::Shuffle { nonce: k as u64 };
        v.input(Input::Peers { from: v.foe.node, kind, peers });
    }
    assert_eq!(v.o.sizes().passive, 15);
}

/// T069: prunes for unknown logs make no trees, and prunes by everybody do not keep an item that
/// was made here from going out; a prune takes no link away (attack G16).
#[test]
fn t069_prune_everything() {
    let mut v = Victim::new();
    let friend = make_peer(2, 1, 1);
    assert_eq!(v.hello(&friend, LinkClass::Near, true), LinkClass::Near);
    for i in 0..5_000 {
        v.frame(OverlayFrame::Prune { log: some_log(i) });
        v.frame(OverlayFrame::Graft { log: some_log(i), seq: 1 });
    }
    assert_eq!(v.o.sizes().trees, 0);
    v.commit(log_id(0), 1..=1);
    v.frame(OverlayFrame::Prune { log: log_id(0) });
    v.input(Input::Frame { from: friend.node, frame: OverlayFrame::Prune { log: log_id(0) } });
    let (log, item) = (log_id(0), Arc::new(make_item(log_id(0), 2)));
    let hash = item.envelope.hash();
    let actions = v.input(Input::Committed { log, seq: 2, hash, item, source: None });
    let pushes = actions
        .iter()
        .filter(|a| matches!(a, Action::Send { frame: OverlayFrame::Push { .. }, .. }));
    assert_eq!(pushes.count(), 2);
    let tree = v.o.tree(&log_id(0)).expect("it was used");
    assert_eq!((tree.eager.len(), tree.lazy.len()), (0, 2), "pruned links are lazy, not gone");
}

/// T067: the same item is grafted by one host three times and no more (attack G9), and no host has
/// more read from disk than its share, whatever ranges it asks for (G12).
#[test]
fn t067_reads_are_bounded() {
    let mut v = Victim::new();
    v.commit(log_id(0), 1..=300);
    let reads = |actions: &[Action]| -> u64 {
        let ranges = actions.iter().filter_map(|a| match a {
            Action::ReadItems { ranges, .. } => Some(ranges),
            _ => None,
        });
        ranges.flatten().map(|r| r.to - r.from + 1).sum()
    };
    let mut grafted = 0;
    for _ in 0..10_000 {
        v.now = v.now.after_ms(5);
        grafted += reads(&v.fast(OverlayFrame::Graft { log: log_id(0), seq: 7 }));
        v.fast(OverlayFrame::IHave(List::empty()));
    }
    assert_eq!(grafted, 3);
    let all = ItemRange { log: log_id(0), from: 0, to: u64::MAX };
    let mut read = 0;
    for _ in 0..200 {
        let frame = OverlayFrame::Fetch(List::truncated(vec![all; ITEMS_PER_FRAME_MAX]));
        let once = reads(&v.frame(frame));
        assert!(once <= 256);
        read += once;
    }
    assert!((256..=8_192).contains(&read), "{read}");
}

/// Items that were not asked for are not delivered; three invalid ones end the link, and the host
/// is not let in again for ten minutes (attacks G6, G7).
#[test]
fn invalid_items_end_the_link() {
    let mut v = Victim::new();
    let log = log_id(0);
    let actions = v.frame(OverlayFrame::Items(List::truncated([make_item(log, 1)])));
    assert!(!actions.iter().any(|a| matches!(a, Action::Deliver { .. })));
    let mut closed = false;
    for seq in 1..=3 {
        let item = Box::new(make_item(log, seq));
        let actions = v.frame(OverlayFrame::Push { hop: 255, age_ms: u32::MAX, entry: 0, item });
        assert_eq!(actions.iter().filter(|a| matches!(a, Action::Deliver { .. })).count(), 1);
        let from = v.foe.node;
        let actions = v.input(Input::Refused { from, log, seq, why: Refusal::Invalid });
        closed = actions.iter().any(|a| matches!(a, Action::Close { why: Why::Misbehaved, .. }));
    }
    assert!(closed);
    let foe = Arc::clone(&v.foe);
    assert_eq!(v.hello(&foe, LinkClass::Near, true), LinkClass::Transient);
    v.now = v.now.after_ms(600_001);
    assert_eq!(v.hello(&foe, LinkClass::Near, true), LinkClass::Near);
}

/// A short push lies where its body says; three of which no place can be read end the link.
#[test]
fn short_pushes_lie_where_their_bodies_say() {
    let mut v = Victim::new();
    let mut push = |body: Vec<u8>| {
        let envelope = Envelope { body: Blob::new(body).unwrap(), signatures: List::empty() };
        let envelope = Box::new(envelope);
        v.frame(OverlayFrame::PushEntry { hop: 1, age_ms: 0, entry: 0, envelope })
    };
    let publisher = PublisherId([7; 32]);
    let actions = push(encode(&(1u8, publisher, 2u32, 300u64, "the rest")));
    let places = actions.iter().filter_map(|a| match a {
        Action::Deliver { item, .. } => Some((item.kind, item.log, item.seq)),
        _ => None,
    });
    let feed = LogId::feed_epoch(publisher, 2);
    assert_eq!(places.collect::<Vec<_>>(), [(ItemKind::Entry, feed, 300)]);
    let closes = |a: &Action| matches!(a, Action::Close { why: Why::Misbehaved, .. });
    for (body, ends) in [(vec![], false), (vec![1; 33], false), (vec![0xff; 60], true)] {
        let actions = push(body);
        assert!(!actions.iter().any(|a| matches!(a, Action::Deliver { .. })));
        assert_eq!(actions.iter().any(closes), ends);
    }
}

/// A refused item is asked for again only after a while, and then after a longer one, however often
/// its sender announces it: sync does not loop.
#[test]
fn refused_items_do_not_loop() {
    let mut v = Victim::new();
    let (log, from) = (log_id(0), v.foe.node);
    let mut delivered = 0;
    for s in 0..600 {
        v.now = Tick(s * 1_000);
        let heads = List::truncated([Head { log, seq: 1, hash: [1; 8] }]);
        let mut actions = v.frame(OverlayFrame::Heads { heads, last: true, answer: false });
        actions.extend(v.input(Input::Deadline));
        let asked = |a: &Action| matches!(a, Action::Send { frame: OverlayFrame::Fetch(_), .. });
        if actions.iter().any(asked) {
            v.frame(OverlayFrame::Items(List::truncated([make_item(log, 1)])));
            v.input(Input::Refused { from, log, seq: 1, why: Refusal::Unknown });
            delivered += 1;
        }
    }
    assert!((6..=12).contains(&delivered), "{delivered} times in ten minutes");
}

/// Inbound hosts, all of them starving as they say, never take the room that is kept for own dials,
/// and never displace a link that was dialled here or an anchor (attack G2).
#[test]
fn inbound_hosts_cannot_surround_a_node() {
    let me = make_peer(0, 1, 1);
    let mut o = Overlay::new(Config::default(), me.node, me.site.clone(), 5);
    let anchors: Vec<Arc<Peer>> = (1..4).map(|i| make_peer(i, 1, 1)).collect();
    let mut actions = Vec::new();
    o.handle(Tick(0), Input::Bootstrap { known: vec![], anchors }, &mut Vec::new());
    o.handle(Tick(600), Input::Deadline, &mut actions);
    let mut own = Vec::new();
    for action in actions {
        if let Action::Dial { peer, class, .. } = action {
            own.push(peer.node);
            o.handle(Tick(700), Input::Linked { peer, class, hints: vec![] }, &mut Vec::new());
        }
    }
    assert_eq!(own.len(), 3);
    for i in 0..2_000u64 {
        let peer = make_peer(100 + usize::try_from(i % 500).unwrap(), 1, 1);
        let class = if i % 2 == 0 { LinkClass::Near } else { LinkClass::Far };
        let input = Input::Hello { peer, class, starving: true };
        o.handle(Tick(1_000 + i * 50), input, &mut Vec::new());
        check::cheap(&o, 5);
        check::sets(&o, 5);
        let linked: Vec<_> = o.links().map(|l| l.peer.node).collect();
        assert!(own.iter().all(|n| linked.contains(n)));
    }
}

/// A link that only one side knows is found by its pongs and given up (protocol.md §3a rule 2); a
/// host that is no neighbour learns so from the answer to its ping.
#[test]
fn one_sided_links_end() {
    let mut v = Victim::new();
    let stranger = make_peer(9, 1, 1).node;
    let frame =
        OverlayFrame::Ping { nonce: 3, fingerprint: [0; 8], class: LinkClass::Near, carries: 0 };
    let actions = v.input(Input::Frame { from: stranger, frame });
    assert!(matches!(
        actions.as_slice(),
        [Action::Send {
            frame: OverlayFrame::Pong { nonce: 3, class: LinkClass::Transient, .. },
            ..
        }]
    ));
    let mut unlinked = false;
    for _ in 0..2 {
        v.now = v.now.after_ms(5_000);
        v.frame(OverlayFrame::Ping {
            nonce: 1,
            fingerprint: [0; 8],
            class: LinkClass::Near,
            carries: 0,
        });
        v.now = v.now.after_ms(5_000);
        let nonce = v.input(Input::Deadline).into_iter().find_map(|a| match a {
            Action::Send { frame: OverlayFrame::Ping { nonce, .. }, .. } => Some(nonce),
            _ => None,
        });
        let nonce = nonce.expect("a ping is due");
        let class = LinkClass::Transient;
        let actions = v.frame(OverlayFrame::Pong { nonce, fingerprint: [0; 8], class });
        unlinked =
            actions.iter().any(|a| matches!(a, Action::Send { frame: OverlayFrame::Unlink, .. }));
    }
    assert!(unlinked);
    assert_eq!(v.o.links().count(), 0);
}
