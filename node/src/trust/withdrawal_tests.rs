//! Recalls and halts: who may say them, what they reach, and who ends them.

use stork_wire::charter::{PublisherDoc, ReleaseKey, Survivor};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind};
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::epoch_tests::document;
use super::fork_tests::{at, entry_of, proof, twin};
use super::history_tests::next_publisher;
use super::narrow_tests::{accept, choice, deny, halt, recall, tree, vm, withdrawal, world};
use super::tests::{NOW, key, refused};
use super::{Fact, HALTS_MAX, Refusal, Trust, Verdict};
use crate::catalog::{Fallen, Shown};

/// A recall passes a freeze, and reaches what lies behind the fork too.
#[test]
fn recall_passes_a_freeze() {
    let (f, mut t, mut c, feed) = world(4);
    let ep = proof(&feed[2], &twin(&f, &feed[2]));
    let Fact::Turn(turn) = accept(&mut t, &ep) else { panic!("a turn") };
    t.replay(f.publisher, &feed[..2]);
    let entries: Vec<Entry> = feed.iter().map(entry_of).collect();
    let fallen = Fallen::Frozen(turn.freeze.expect("frozen"));
    c.rebuild(f.publisher, entries.iter().take(2), fallen);
    let root = withdrawal(&f, recall(&[&feed[1], &feed[3]]), 4, |_| {});
    let back = withdrawal(&f, recall(&[&feed[1]]), 5, |_| {});
    for w in [root, back] {
        accept(&mut t, &w);
        assert_eq!(t.judge(&w, NOW), Verdict::Known);
    }
    let Kind::Release(r) = entry_of(&feed[3]).kind else { panic!("a release") };
    let shown = Shown { releases: [(r.package.clone(), r.hash())].into(), ..Shown::default() };
    let (chosen, why) = choice(&t, &c, &vm(""), &shown);
    assert_eq!(chosen.as_deref(), Some("1"));
    assert_eq!(why.to_string(), "its publisher recalled it: broken");
}

/// Who may withdraw what: a release key what it may release, the root everything; neither for an
/// epoch or a document that is not there yet.
#[test]
fn who_may_withdraw() {
    let (f, mut t, ..) = world(1);
    let what = |name: &str| What::Recall {
        package: name.parse().unwrap(),
        releases: List::truncated([stork_wire::ids::ReleaseHash([1; 32])]),
    };
    let out = withdrawal(&f, what("other"), 5, |_| {});
    assert!(matches!(refused(t.judge(&out, NOW)), Refusal::OutOfScope(_)));
    let stranger = withdrawal(&f, what("hello"), 6, |_| {});
    assert_eq!(refused(t.judge(&stranger, NOW)), Refusal::UnauthorisedKey);
    let as_root = withdrawal(&f, halt(true), 5, |w| w.by = Level::Root);
    assert_eq!(refused(t.judge(&as_root, NOW)), Refusal::UnauthorisedKey);
    let ahead = withdrawal(&f, halt(true), 5, |w| w.signed_at += 1_000);
    assert_eq!(refused(t.judge(&ahead, NOW)), Refusal::FutureDated(1_000));
    let expired = withdrawal(&f, halt(true), 5, |w| w.signed_at += 1_000_000);
    assert_eq!(refused(t.judge(&expired, NOW + 1_000_000)), Refusal::UnauthorisedKey);
    let waits: [fn(&mut Withdrawal); 2] = [|w| w.epoch = 2, |w| w.document = 2];
    for change in waits {
        let w = withdrawal(&f, what("hello"), 5, change);
        let missing = Some(f.documents[2].log);
        assert_eq!(t.judge(&w, NOW), Verdict::Pending { missing });
    }
    accept(&mut t, &withdrawal(&f, what("other"), 4, |_| {}));
}

/// What is halted is not installed anew and stays where it is shown. The end of a halt ends no halt
/// of the root, and in one second a halt beats its end.
#[test]
fn halts_and_their_ends() {
    let (f, mut t, c, feed) = world(2);
    let (none, usual) = (Shown::default(), vm(""));
    let Kind::Release(r) = entry_of(&feed[0]).kind else { panic!("a release") };
    let shown = Shown { releases: [(r.package.clone(), r.hash())].into(), ..Shown::default() };
    let chosen = |t: &Trust, s: &Shown| choice(t, &c, &usual, s).0;
    accept(&mut t, &withdrawal(&f, halt(true), 5, |_| {}));
    assert_eq!(chosen(&t, &none), None);
    assert_eq!(chosen(&t, &shown).as_deref(), Some("1"));
    accept(&mut t, &withdrawal(&f, halt(true), 4, |w| w.by = Level::Root));
    accept(&mut t, &withdrawal(&f, halt(false), 5, |w| w.signed_at += 1));
    assert_eq!(chosen(&t, &none), None, "the root's halt stands");
    let thief = withdrawal(&f, halt(false), 5, |w| (w.by, w.signed_at) = (Level::Root, NOW + 9));
    assert_eq!(refused(t.judge(&thief, NOW + 9)), Refusal::UnauthorisedKey);
    let same_second = withdrawal(&f, halt(false), 4, |w| w.by = Level::Root);
    let have = 2 * NOW + 1;
    assert_eq!(refused(t.judge(&same_second, NOW)), Refusal::Replay { seq: 2 * NOW, head: have });
    let on = withdrawal(&f, halt(false), 4, |w| (w.by, w.signed_at) = (Level::Root, NOW + 1));
    accept(&mut t, &on);
    assert_eq!(chosen(&t, &none).as_deref(), Some("2"));
}

/// A new epoch ends halts, and a key that it took away recalls nothing of what comes after; what
/// was recalled stays so.
#[test]
fn an_epoch_ends_halts_and_not_recalls() {
    let (f, mut t, c, feed) = world(2);
    accept(&mut t, &withdrawal(&f, halt(true), 5, |_| {}));
    accept(&mut t, &withdrawal(&f, recall(&[&feed[1]]), 5, |_| {}));
    let survivor = Some(Survivor { at: at(1, 2), hash: feed[1].envelope.hash() });
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    (doc.number, doc.prev) = (2, Some(f.documents[2].envelope.hash()));
    (doc.epoch, doc.survivor) = (2, survivor);
    doc.release_keys =
        List::truncated([ReleaseKey { key: key(8).public(), ..doc.release_keys[0].clone() }]);
    let Fact::Turn(turn) = accept(&mut t, &document(&f, &doc, &key(4))) else { panic!("a turn") };
    assert_eq!(turn.cuts.len(), 1, "the halt's log");
    assert_eq!(choice(&t, &c, &vm(""), &Shown::default()).0.as_deref(), Some("1"));
    let old = withdrawal(&f, halt(true), 5, |w| w.signed_at += 1);
    assert_eq!(refused(t.judge(&old, NOW + 1)), Refusal::WrongEpoch { got: 1, want: 2 });
    let stolen = withdrawal(&f, recall(&[&feed[0]]), 5, |w| (w.epoch, w.document) = (2, 2));
    assert_eq!(refused(t.judge(&stolen, NOW)), Refusal::UnauthorisedKey);
    // Under its own epoch it may: it names what is older than the new one.
    accept(&mut t, &withdrawal(&f, recall(&[&feed[0]]), 5, |_| {}));
    assert_eq!(choice(&t, &c, &vm(""), &Shown::default()).0, None);
    let later = t.charter().recalled(f.publisher, 2, &"hello".parse().unwrap(), {
        let Kind::Release(r) = entry_of(&feed[0]).kind else { panic!("a release") };
        r.hash()
    });
    assert_eq!(later, None, "a release of the new epoch with that hash is not touched");
}

/// A stolen key fills its own room only, and junk that waits keeps nothing out.
#[test]
fn a_stolen_key_fills_its_own_room() {
    let (f, mut t, _, feed) = world(1);
    for n in 0..HALTS_MAX as u64 + 1 {
        let package = Some(format!("hello-{n}").parse().unwrap());
        let w = withdrawal(&f, What::Halt { package, halted: true }, 5, |_| {});
        let verdict = t.judge(&w, NOW);
        assert_eq!(matches!(verdict, Verdict::Accepted { .. }), n < HALTS_MAX as u64, "{n}");
    }
    for n in 0..super::DENIALS_PER_KEY_MAX as u64 + 1 {
        let verdict = t.judge(&deny(&f, tree(1_000 + n), 7, NOW), NOW);
        let fits = n < super::DENIALS_PER_KEY_MAX as u64;
        assert_eq!(matches!(verdict, Verdict::Accepted { .. }), fits, "{n}");
    }
    let root = withdrawal(&f, halt(true), 4, |w| w.by = Level::Root);
    accept(&mut t, &root);
    for seq in 3..2_000 {
        let mut entry = entry_of(&feed[0]);
        (entry.seq, entry.prev) = (seq, Some(feed[0].envelope.hash()));
        let waits = t.judge(&f.item(&entry, &f.release_key), NOW);
        assert!(matches!(waits, Verdict::Pending { .. }));
    }
    let w = withdrawal(&f, recall(&[&feed[0]]), 5, |w| w.document = 2);
    assert!(matches!(t.judge(&w, NOW), Verdict::Pending { .. }));
    let next = next_publisher(&f, |d| d.expires += 1);
    accept(&mut t, &next);
    assert!(t.take_unlocked(&next).contains(&w), "it waited beside a full room");
}
