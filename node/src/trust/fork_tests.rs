//! Forks: what a proof needs, what it freezes, and that all hosts end with the same.

use stork_wire::charter::PublisherDoc;
use stork_wire::feed::{Entry, Kind, Recall, view_root};
use stork_wire::ids::{ItemHash, LogId, Position};
use stork_wire::item::{Cut, Item, ItemKind};
use stork_wire::proof::Proof;

use super::epoch_tests::document;
use super::tests::{Fixture, NOW, key, refused};
use super::{Cause, Fact, Refusal, Trust, Turn, Verdict};

pub(super) fn at(epoch: u32, seq: u64) -> Position {
    Position { epoch, seq }
}

pub(super) fn entry_of(item: &Item) -> Entry {
    item.envelope.claimed().unwrap()
}

/// Another entry with the number of this one: it expires a second later.
pub(super) fn twin(f: &Fixture, of: &Item) -> Item {
    let mut entry = entry_of(of);
    entry.expires += 1;
    f.item(&entry, &f.release_key)
}

pub(super) fn proof(a: &Item, b: &Item) -> Item {
    Proof::of(&a.envelope, &b.envelope).unwrap().item().unwrap()
}

fn accept(t: &mut Trust, item: &Item) -> Fact {
    match t.judge(item, NOW) {
        Verdict::Accepted { fact, .. } => fact,
        other => panic!("not accepted: {other:?}"),
    }
}

fn turn(fact: Fact) -> Turn {
    match fact {
        Fact::Turn(turn) => *turn,
        other => panic!("no turn: {other:?}"),
    }
}

/// A node's journal, and the rules over it, as driver and store have them.
pub(super) struct Host {
    pub(super) trust: Trust,
    pub(super) journal: Vec<Item>,
    /// What was cut and kept aside.
    pub(super) aside: Vec<Item>,
}

impl Host {
    pub(super) fn new(f: &Fixture) -> Self {
        let mut host = Self::empty(f);
        f.documents.iter().for_each(|d| host.give(d));
        host
    }

    /// A host that knows no document.
    pub(super) fn empty(f: &Fixture) -> Self {
        Self { trust: Trust::new(f.fleet), journal: Vec::new(), aside: Vec::new() }
    }

    pub(super) fn cut(&mut self, c: &Cut) {
        let kept = |i: &Item| i.log != c.log || i.seq <= c.after;
        let other = |i: &Item| i.seq == c.after && c.last.is_some_and(|h| h != i.hash());
        let stays = |i: &Item| kept(i) && !(i.log == c.log && other(i));
        let gone = self.journal.iter().filter(|i| c.keep && !stays(i));
        self.aside.extend(gone.cloned());
        self.journal.retain(stays);
    }

    /// Does what the driver does once a turn is on disk; returns what is to be judged.
    pub(super) fn turn(&mut self, turn: &Turn) -> Vec<Item> {
        if !turn.logs.is_empty() {
            let log = |log| self.journal.iter().filter(move |i: &&Item| i.log == log);
            let kept: Vec<Item> = turn.logs.iter().flat_map(|l| log(*l)).cloned().collect();
            self.trust.replay(turn.publisher, &kept);
        }
        let mut ready = self.trust.take_all_pending();
        if turn.aside {
            let mut aside = self.aside.clone();
            aside.sort_by_key(crate::reload::order);
            // Taken from the end.
            aside.reverse();
            aside.extend(ready);
            ready = aside;
        }
        ready
    }

    /// Judges an item and what waits for it, and commits what is accepted.
    pub(super) fn give(&mut self, item: &Item) {
        let mut queue = vec![item.clone()];
        while let Some(item) = queue.pop() {
            let Verdict::Accepted { fact, .. } = self.trust.judge(&item, NOW) else { continue };
            fact.cuts().iter().for_each(|c| self.cut(c));
            self.journal.push(item.clone());
            queue.extend(match fact {
                Fact::Entry(_) => self.trust.take_ready(item.log, item.seq),
                Fact::Beacon(_) | Fact::Deny(_) | Fact::Withdrawal(_) | Fact::Grant(_) => {
                    Vec::new()
                }
                Fact::Charter(_) => self.trust.take_unlocked(&item),
                Fact::Turn(turn) => self.turn(&turn),
                Fact::Suicide(death) => death.turns.iter().flat_map(|t| self.turn(t)).collect(),
            });
        }
    }

    pub(super) fn newest(&self, f: &Fixture) -> Option<(Position, ItemHash)> {
        self.trust.feed(f.publisher).and_then(|s| s.newest())
    }

    /// The same host after a restart, from its journal alone.
    pub(super) fn restarted(&self, f: &Fixture) -> Self {
        let mut host = Self { journal: self.journal.clone(), ..Self::empty(f) };
        host.aside.clone_from(&self.aside);
        let mut items = self.journal.clone();
        items.sort_by_key(crate::reload::order);
        for item in items {
            if item.kind == ItemKind::Beacon {
                host.trust.restore_beacon(&item);
            } else {
                host.trust.judge(&item, NOW);
            }
        }
        for item in host.trust.take_all_pending() {
            host.trust.judge(&item, NOW);
        }
        host
    }
}

/// T013: entries below the head are dropped, valid and unexpired as they are, also by a host that
/// has just started; the head stays.
#[test]
fn t013_entries_below_the_head_are_dropped() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(5);
    feed.iter().for_each(|i| host.give(i));
    for mut host in [host.restarted(&f), host] {
        let before = (host.newest(&f), host.trust.heads());
        for old in &feed {
            assert_eq!(host.trust.judge(old, NOW), Verdict::Known);
        }
        assert_eq!((host.newest(&f), host.trust.heads()), before);
    }
}

/// T020: a second body for one number is seen, its proof is taken once, the feed stands at the
/// entry before, and both bodies are in the proof; also after a restart.
#[test]
fn t020_a_fork_freezes_the_feed() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(4);
    feed.iter().for_each(|i| host.give(i));
    let evil = twin(&f, &feed[2]);
    assert_eq!(host.trust.judge(&evil, NOW), Verdict::Rival { at: at(1, 3) });
    assert_eq!(host.newest(&f).unwrap().0, at(1, 4), "nothing has changed yet");

    let ep = proof(&feed[2], &evil);
    let turn = turn(accept(&mut Host::restarted(&host, &f).trust, &ep));
    assert_eq!(turn.cuts.len(), 1);
    assert_eq!((turn.cuts[0].after, turn.cuts[0].keep, turn.logs.len()), (2, true, 1));
    host.give(&ep);
    assert_eq!(host.trust.judge(&ep, NOW), Verdict::Known, "once");
    assert_eq!(host.newest(&f), Some((at(1, 2), feed[1].envelope.hash())));
    assert_eq!(host.trust.feed(f.publisher).unwrap().live().count(), 2);
    assert!(host.journal.contains(&ep) && !host.journal.contains(&feed[2]));
    let heads = host.trust.heads();
    for mut host in [host.restarted(&f), host] {
        let freeze = host.trust.frozen(f.publisher).unwrap();
        let Cause::Fork { entries, .. } = freeze.cause else { panic!("{freeze:?}") };
        let mut both = [feed[2].envelope.hash(), evil.envelope.hash()];
        both.sort();
        assert_eq!((freeze.at, entries), (at(1, 3), both));
        for i in [&feed[2], &feed[3], &evil] {
            assert_eq!(refused(host.trust.judge(i, NOW)), Refusal::Frozen(freeze));
        }
        let text = Refusal::Frozen(freeze).to_string();
        assert!(text.starts_with("frozen: two entries with number 3 (proof "), "{text}");
        assert_eq!(host.trust.heads(), heads);
    }
}

/// Whatever host learns of which fork first, all end at the lowest, with the same heads.
#[test]
fn t020_the_lowest_fork_decides() {
    let f = Fixture::new();
    let feed = f.feed(6);
    let (low, high) = (proof(&feed[1], &twin(&f, &feed[1])), proof(&feed[4], &twin(&f, &feed[4])));
    let orders: [Vec<&Item>; 4] = [
        feed.iter().chain([&high, &low]).collect(),
        feed.iter().chain([&low, &high]).collect(),
        [&low, &high].into_iter().chain(&feed).collect(),
        [&high].into_iter().chain(&feed).chain([&low]).collect(),
    ];
    let ends: Vec<_> = orders
        .iter()
        .map(|order| {
            let mut host = Host::new(&f);
            order.iter().for_each(|i| host.give(i));
            assert_eq!(host.restarted(&f).trust.heads(), host.trust.heads());
            (host.newest(&f), host.trust.heads())
        })
        .collect();
    assert_eq!(ends[0].0, Some((at(1, 1), feed[0].envelope.hash())));
    assert!(ends.windows(2).all(|w| w[0] == w[1]), "{ends:?}");
}

/// T021: one body with two signatures proves nothing: it is the known entry.
#[test]
fn t021_two_signatures_of_one_body() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(2);
    feed.iter().for_each(|i| host.give(i));
    let again = f.item(&entry_of(&feed[1]), &key(9));
    assert_eq!(Proof::of(&feed[1].envelope, &again.envelope), None);
    assert_eq!(host.trust.judge(&again, NOW), Verdict::Known);
    let mut forged: Proof = proof(&feed[1], &twin(&f, &feed[1])).envelope.claimed().unwrap();
    forged.second = Item::clone(&feed[1]).envelope;
    forged.first = again.envelope;
    let body = stork_wire::codec::Blob::new(stork_wire::codec::encode(&forged)).unwrap();
    let mut bad = proof(&feed[1], &twin(&f, &feed[1]));
    bad.envelope.body = body;
    assert_eq!(refused(host.trust.judge(&bad, NOW)).code(), "malformed");
    assert_eq!(host.newest(&f).unwrap().0, at(1, 2));
}

/// T022: both signatures must be by keys that may sign that number; and a proof lies under its own
/// log, unsigned.
#[test]
fn t022_a_proof_needs_authorised_keys() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(3);
    feed.iter().for_each(|i| host.give(i));
    let mut entry = entry_of(&feed[2]);
    entry.expires += 1;
    let foreign = proof(&feed[2], &f.item(&entry, &key(9)));
    assert_eq!(refused(host.trust.judge(&foreign, NOW)), Refusal::UnauthorisedKey);
    let mut flipped = twin(&f, &feed[2]);
    let mut signature = flipped.envelope.signatures[0].clone();
    signature.signature.0[40] ^= 1;
    flipped.envelope.signatures = stork_wire::codec::List::truncated([signature]);
    let r = refused(host.trust.judge(&proof(&feed[2], &flipped), NOW));
    assert!(r == Refusal::BadSignature && r.blames_sender());
    let mut elsewhere = proof(&feed[2], &twin(&f, &feed[2]));
    elsewhere.log = LogId::proof(f.publisher, at(1, 2));
    assert_eq!(refused(host.trust.judge(&elsewhere, NOW)), Refusal::WrongLog);
    // A key that was retired before that number, by the only document of the epoch.
    let mut f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let mut keys = doc.release_keys.to_vec();
    keys[0].valid_through = Some(at(1, 2));
    doc.release_keys = stork_wire::codec::List::new(keys).unwrap();
    f.documents[2] = document(&f, &doc, &key(4));
    // Its id is another one now: the group must grant it.
    f = f.with_publisher(&doc);
    let mut host = Host::new(&f);
    let feed = f.feed(3);
    let r = host.trust.judge(&proof(&feed[2], &twin(&f, &feed[2])), NOW);
    assert_eq!(refused(r), Refusal::UnauthorisedKey);
    assert!(matches!(
        host.trust.judge(&proof(&feed[1], &twin(&f, &feed[1])), NOW),
        Verdict::Accepted { .. }
    ));
}

/// A recall in the branch that is cut off: the release lives again in the feed's state, which all
/// hosts share.
#[test]
fn a_cut_recall_is_undone_in_the_shared_state() {
    let f = Fixture::new();
    let mut host = Host::new(&f);
    let feed = f.feed(2);
    let mut recall = entry_of(&feed[1]);
    (recall.seq, recall.prev) = (3, Some(feed[1].envelope.hash()));
    recall.view_root = view_root([f.release("hello", "2", 2).hash()]);
    recall.kind = Kind::Recall(Recall {
        package: "hello".parse().unwrap(),
        releases: stork_wire::codec::List::truncated([1]),
        reason: "bad".parse().unwrap(),
    });
    let recall = f.item(&recall, &f.release_key);
    feed.iter().chain([&recall]).for_each(|i| host.give(i));
    assert_eq!(host.trust.feed(f.publisher).unwrap().live().count(), 1);
    host.give(&proof(&recall, &twin(&f, &recall)));
    assert_eq!(host.trust.feed(f.publisher).unwrap().live().count(), 2);
}
