//! Leaving the false branch of an epoch that has ended: whoever brings what, in whatever order, a
//! host ends on the path to the entry that the publisher's document names.

use stork_wire::ids::ItemHash;
use stork_wire::item::Item;

use super::epoch_tests::{first_of, new_epoch};
use super::fork_tests::{Host, at, entry_of};
use super::tests::{Fixture, NOW, refused};
use super::{Fact, Refusal, Verdict};

/// The first `n` releases, and what a stolen key has signed instead from entry `from` to `to`.
struct Story {
    f: Fixture,
    good: Vec<Item>,
    bad: Vec<Item>,
    document: Item,
    next: Item,
}

impl Story {
    fn new(n: u64, from: usize, to: usize) -> Self {
        let f = Fixture::new();
        let good = f.feed(n);
        let mut bad: Vec<Item> = good[..from - 1].to_vec();
        for item in &good[from - 1..to] {
            let mut entry = entry_of(item);
            entry.expires += 1;
            entry.prev = bad.last().map(Item::hash);
            bad.push(f.item(&entry, &f.release_key));
        }
        let last = good.last().unwrap();
        let document = new_epoch(&f, &f.documents[2], Some((last, 1)));
        let next = first_of(&f, 2, last, n, "next");
        Self { f, good, bad, document, next }
    }

    /// A newcomer that knows the documents.
    fn newcomer(&self) -> Host {
        let mut host = Host::new(&self.f);
        host.give(&self.document);
        host
    }

    /// It is asked for what the rules want, of neighbours with these entries, once of each.
    fn answer(&self, host: &mut Host, sides: &[&[Item]]) {
        for side in sides {
            for range in host.trust.asks_back() {
                let wanted = side.iter().filter(|i| (range.from..=range.to).contains(&i.seq));
                wanted.for_each(|i| host.give(i));
            }
        }
        for turn in host.trust.take_mends() {
            assert!(turn.mended && turn.freeze.is_none());
            assert_eq!(host.trust.judge(&self.good[0], NOW), Verdict::Pending { missing: None });
            turn.cuts.iter().for_each(|c| host.cut(c));
            for item in host.turn(&turn) {
                host.give(&item);
            }
        }
    }

    fn end(&self) -> Option<(stork_wire::ids::Position, ItemHash)> {
        Some((at(2, 1), self.next.hash()))
    }

    /// Goes on until nothing changes; returns how often it was asked.
    fn settle(&self, host: &mut Host, sides: &[&[Item]]) -> usize {
        for rounds in 0..40 {
            let before = (host.newest(&self.f), host.trust.asks_back());
            self.answer(host, sides);
            for side in sides {
                side.iter().for_each(|i| host.give(i));
            }
            host.give(&self.next);
            if (host.newest(&self.f), host.trust.asks_back()) == before {
                return rounds;
            }
        }
        panic!("it never settles: {:?}", host.newest(&self.f));
    }
}

/// A7, with a key that was stolen and is out of use: a newcomer whose first neighbour has a false
/// branch of the ended epoch takes it, and leaves it as soon as it has a neighbour with the true
/// one, however long the two are and where they part. It stays so after a restart.
#[test]
fn t026_a_newcomer_leaves_a_false_branch_of_an_ended_epoch() {
    for (n, from, to) in [(3, 1, 1), (3, 2, 2), (9, 9, 9), (9, 1, 9), (200, 2, 199), (200, 70, 80)]
    {
        let s = Story::new(n, from, to);
        let mut host = s.newcomer();
        s.bad.iter().for_each(|i| host.give(i));
        assert!(host.trust.asks_back().is_empty(), "nothing contradicts it yet");
        // The other side asks for nothing and knows nothing of this host.
        s.settle(&mut host, &[&s.bad, &s.good, &s.bad]);
        assert_eq!(host.newest(&s.f), s.end(), "{n} {from} {to}");
        assert!(host.trust.asks_back().is_empty());
        let again = host.restarted(&s.f);
        assert_eq!((again.newest(&s.f), again.trust.heads()), (s.end(), host.trust.heads()));
        let live = again.trust.feed(s.f.publisher).unwrap().live().count();
        assert_eq!(live as u64, n + 1);
    }
}

/// A neighbour that knows only the false branch cannot make a host leave the true one, nor come
/// back to the false one once it was left: after one walk each of its entries is refused.
#[test]
fn t026_nobody_leaves_the_true_branch() {
    let s = Story::new(100, 10, 90);
    let mut host = s.newcomer();
    s.good[..50].iter().for_each(|i| host.give(i));
    s.bad.iter().for_each(|i| host.give(i));
    let wants = host.trust.asks_back();
    assert_eq!(wants.iter().map(|r| (r.from, r.to)).collect::<Vec<_>>(), [(37, 100)]);
    // What the liar answers changes nothing.
    s.answer(&mut host, &[&s.bad, &s.bad]);
    assert_eq!(host.trust.asks_back(), wants);
    // The last ones are known by now, and stay so.
    s.good[80..].iter().for_each(|i| host.give(i));
    assert_eq!(host.trust.asks_back()[0].to, 80);
    for bad in &s.bad[80..] {
        assert_eq!(refused(host.trust.judge(bad, NOW)), Refusal::Closed(at(1, bad.seq)));
    }
    s.answer(&mut host, &[&s.good]);
    assert!(host.trust.asks_back().is_empty() && host.trust.take_mends().is_empty());
    s.bad.iter().for_each(|i| host.give(i));
    assert!(host.trust.asks_back().is_empty(), "it is known by now which one stands");
    s.settle(&mut host, &[&s.bad, &s.good]);
    assert_eq!(host.newest(&s.f), s.end());
}

/// Until the end of the epoch is here, what is known of it is not believed: a key that is out of
/// use may have made it up, and the neighbour may keep the rest back.
#[test]
fn t026_nothing_of_an_ended_epoch_is_installed_before_its_end_is_here() {
    let s = Story::new(5, 3, 4);
    let mut host = s.newcomer();
    let unsettled = |host: &Host| host.trust.charter().unsettled(s.f.publisher, 1);
    s.bad.iter().for_each(|i| host.give(i));
    assert_eq!(unsettled(&host), Some(at(1, 5)));
    assert_eq!(unsettled(&host.restarted(&s.f)), Some(at(1, 5)));
    s.settle(&mut host, &[&s.good]);
    assert_eq!((unsettled(&host), host.newest(&s.f)), (None, s.end()));
    // A host that saw the epoch open is in doubt only from its end on.
    let mut early = Host::new(&s.f);
    s.good[..4].iter().for_each(|i| early.give(i));
    assert_eq!(unsettled(&early), None);
    early.give(&s.document);
    assert_eq!(unsettled(&early), Some(at(1, 5)));
    early.give(&s.good[4]);
    assert_eq!(unsettled(&early), None);
}

/// A fork that nobody had found when the owner began a new epoch after an entry behind it: hosts of
/// the other branch follow, without another epoch.
#[test]
fn t024_a_fork_below_the_entry_that_the_owner_keeps() {
    let s = Story::new(8, 3, 6);
    let mut other = Host::new(&s.f);
    s.bad.iter().for_each(|i| other.give(i));
    assert_eq!(other.newest(&s.f).unwrap().0, at(1, 6));
    other.give(&s.document);
    assert_eq!(other.newest(&s.f).unwrap().0, at(1, 6), "nothing is known to be false yet");
    s.settle(&mut other, &[&s.good]);
    assert_eq!(other.newest(&s.f), s.end());
    assert_eq!(other.restarted(&s.f).newest(&s.f), s.end());
}

/// Another epoch, that begins further back, ends the walk; what it found is of no use any more.
#[test]
fn a_new_epoch_ends_the_walk() {
    let s = Story::new(8, 3, 6);
    let mut host = s.newcomer();
    s.bad.iter().for_each(|i| host.give(i));
    assert_eq!(refused(host.trust.judge(&s.good[6], NOW)), Refusal::BrokenChain(7));
    assert_eq!(host.trust.asks_back().len(), 1);
    let back = new_epoch(&s.f, &s.document, Some((&s.good[1], 1)));
    let Verdict::Accepted { fact: Fact::Turn(turn), .. } = host.trust.judge(&back, NOW) else {
        panic!("no turn");
    };
    assert!(!turn.mended && host.trust.asks_back().is_empty());
}
