//! What narrows: key suicide, denials, recalls and halts, and who may end which of them.

use stork_wire::charter::{Lift, PublisherDoc, ReleaseKey, RootDoc, Survivor, VetoKey};
use stork_wire::codec::List;
use stork_wire::deny::{Content, Denial, Denied};
use stork_wire::feed::Kind;
use stork_wire::ids::{NodeId, PublicKey, TreeId};
use stork_wire::item::Item;
use stork_wire::sign::{Body, Envelope, SecretKey};
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::fork_tests::{Host, at, entry_of, proof, twin};
use super::history_tests::{next_group, next_publisher};
use super::tests::{Fixture, NOW, key, refused};
use super::{Fact, Refusal, Trust, Verdict};
use crate::catalog::{Catalog, Narrow, Outcome, Scene, Shown, VmFile};

fn signed<T: Body>(f: &Fixture, body: &T, by: &SecretKey) -> Envelope {
    Envelope::sign(body, f.fleet, by).unwrap()
}

/// The end of a key, signed by another one if that is asked for.
pub(super) fn suicide(f: &Fixture, of: u8, by: u8) -> Item {
    let reason = "stolen".parse().unwrap();
    let body = Suicide { version: 1, key: key(of).public(), signed_at: NOW, reason };
    body.item(signed(f, &body, &key(by)))
}

pub(super) fn deny(f: &Fixture, what: Content, by: u8, signed_at: u64) -> Item {
    let what = Denied::Content { group: f.group, signer: key(by).public(), what };
    let body = Denial { version: 1, what, signed_at, reason: "evil".parse().unwrap() };
    body.item(signed(f, &body, &key(by)))
}

/// The tree of `hello N`.
pub(super) fn tree(n: u64) -> Content {
    Content::Tree(TreeId::of(n.to_string().as_bytes()))
}

fn deny_host(f: &Fixture, node: u8, by: u8, signed_at: u64) -> Item {
    let what = Denied::Host(NodeId(key(node).public().0));
    let body = Denial { version: 1, what, signed_at, reason: "stolen".parse().unwrap() };
    body.item(signed(f, &body, &key(by)))
}

pub(super) fn withdrawal(f: &Fixture, what: What, by: u8, change: fn(&mut Withdrawal)) -> Item {
    let mut body = Withdrawal {
        version: 1,
        publisher: f.publisher,
        epoch: 1,
        document: 1,
        by: Level::Release,
        signed_at: NOW,
        what,
        reason: "broken".parse().unwrap(),
    };
    change(&mut body);
    body.item(signed(f, &body, &key(by)))
}

pub(super) fn recall(of: &[&Item]) -> What {
    let hash = |i: &&Item| match entry_of(i).kind {
        Kind::Release(r) => r.hash(),
        _ => panic!("no release"),
    };
    let mut hashes: Vec<_> = of.iter().map(hash).collect();
    hashes.sort_unstable();
    What::Recall { package: "hello".parse().unwrap(), releases: List::new(hashes).unwrap() }
}

pub(super) const fn halt(halted: bool) -> What {
    What::Halt { package: None, halted }
}

pub(super) fn accept(t: &mut Trust, i: &Item) -> Fact {
    match t.judge(i, NOW) {
        Verdict::Accepted { fact, .. } => fact,
        other => panic!("{:?} {}: {other:?}", i.kind, i.seq),
    }
}

pub(super) fn vm(extra: &str) -> VmFile {
    let file = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n{extra}\n[[subscribe]]\npackage = \"*\"\n\
         [[trust]]\nallow = \"acme\"\n[view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &file).unwrap()
}

/// The version that a VM gets, and what became of the newest one.
pub(super) fn choice(
    t: &Trust,
    c: &Catalog,
    vm: &VmFile,
    shown: &Shown,
) -> (Option<String>, Outcome) {
    let hello = "hello".parse().unwrap();
    let all = c.consider(vm, &hello, shown, Scene::new(t, NOW));
    let newest = all.iter().max_by_key(|c| c.known.release.release).unwrap().outcome.clone();
    let chosen = all.iter().find(|c| c.outcome == Outcome::Chosen);
    (chosen.map(|c| c.known.release.version.to_string()), newest)
}

pub(super) fn world(n: u64) -> (Fixture, Trust, Catalog, Vec<Item>) {
    let f = Fixture::new();
    let (mut t, mut c) = (f.trust(), Catalog::default());
    let feed = f.feed(n);
    for i in &feed {
        let Fact::Entry(entry) = accept(&mut t, i) else { panic!("an entry") };
        c.apply(entry.get());
    }
    (f, t, c, feed)
}

/// A publisher with two release keys, 5 and 6.
fn two_keys() -> Fixture {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let mut keys = doc.release_keys.to_vec();
    keys.push(ReleaseKey { key: key(6).public(), ..keys[0].clone() });
    keys.sort_by_key(|k| k.key);
    doc.release_keys = List::new(keys).unwrap();
    f.with_publisher(&doc)
}

/// T027: what a key signed that has ended itself is refused for ever, also after a restart, and
/// what it signed before counts no more; whichever came first.
#[test]
fn t027_key_suicide() {
    let f = Fixture::new();
    let feed = f.feed(4);
    let end = suicide(&f, 5, 5);
    let (mut before, mut after) = (Host::new(&f), Host::new(&f));
    before.give(&end);
    feed.iter().take(3).for_each(|i| before.give(i));
    feed.iter().take(3).for_each(|i| after.give(i));
    assert_eq!(after.newest(&f).unwrap().0, at(1, 3));
    after.give(&end);
    assert_eq!(before.trust.heads(), after.trust.heads());
    for mut host in [before.restarted(&f), after.restarted(&f), before, after] {
        assert_eq!(host.newest(&f), None);
        for i in &feed {
            let dead = Refusal::RevokedKey(key(5).public().short());
            assert_eq!(refused(host.trust.judge(i, NOW)), dead);
        }
        assert_eq!(host.trust.judge(&end, NOW), Verdict::Known);
        assert!(host.trust.aside(&entry_of(&feed[2])).is_some(), "VMs may show it");
    }
}

/// T027: another key of the publisher goes on where the dead one's entries begin; the root may
/// begin an epoch after any of those, and then they stand again, at hosts that had cut them.
#[test]
fn t027_life_after_a_dead_key() {
    let f = two_keys();
    let feed = f.feed(4);
    let other = {
        let mut entry = entry_of(&feed[1]);
        entry.expires += 5;
        f.item(&entry, &key(6))
    };
    let mut host = Host::new(&f);
    feed.iter().for_each(|i| host.give(i));
    host.give(&suicide(&f, 5, 5));
    assert_eq!(host.newest(&f), None);
    let first = f.item(&entry_of(&feed[0]), &key(6));
    host.give(&first);
    host.give(&other);
    assert_eq!(host.newest(&f).unwrap(), (at(1, 2), other.envelope.hash()));

    let mut host = Host::new(&f);
    feed.iter().for_each(|i| host.give(i));
    host.give(&suicide(&f, 5, 5));
    let survivor = Some(Survivor { at: at(1, 3), hash: feed[2].envelope.hash() });
    let next = next_publisher(&f, |d| (d.epoch, d.survivor) = (2, survivor));
    host.give(&next);
    assert_eq!(host.newest(&f), Some((at(1, 3), feed[2].envelope.hash())));
    let mut newcomer = Host::empty(&f);
    f.documents.iter().chain([&next, &suicide(&f, 5, 5)]).for_each(|i| newcomer.give(i));
    feed.iter().for_each(|i| newcomer.give(i));
    assert_eq!(host.trust.heads(), newcomer.trust.heads());
    assert_eq!(host.restarted(&f).trust.heads(), newcomer.trust.heads());
}

/// T028: nobody else ends a key, and a key that no document names is nobody's.
#[test]
fn t028_suicide_by_another_key() {
    let f = Fixture::new();
    let mut t = f.trust();
    assert_eq!(refused(t.judge(&suicide(&f, 5, 4), NOW)), Refusal::UnauthorisedKey);
    let mut forged = suicide(&f, 5, 4);
    let signature = forged.envelope.signatures[0].signature;
    forged.envelope = suicide(&f, 5, 5).envelope;
    forged.envelope.add(key(5).public(), signature).unwrap();
    assert_eq!(refused(t.judge(&forged, NOW)), Refusal::BadSignature);
    let stranger = suicide(&f, 77, 77);
    assert_eq!(t.judge(&stranger, NOW), Verdict::Pending { missing: None });
    assert!(!t.charter().is_dead(&key(5).public()));
    f.feed(2).iter().for_each(|i| drop(accept(&mut t, i)));
}

/// A proof of two entries of which a dead key signed one proves nothing, whichever came first.
#[test]
fn a_dead_key_proves_no_fork() {
    let f = two_keys();
    let feed = f.feed(3);
    let own = f.item(&entry_of(&feed[0]), &key(6));
    let ep = proof(&own, &twin(&f, &own));
    let end = suicide(&f, 5, 5);
    let ends = [[&ep, &end], [&end, &ep]].map(|order| {
        let mut host = Host::new(&f);
        order.into_iter().for_each(|i| host.give(i));
        host.give(&own);
        (host.trust.heads(), host.newest(&f), host.trust.frozen(f.publisher).is_some())
    });
    assert_eq!(ends[0], ends[1]);
    assert_eq!((ends[0].1.unwrap().0, ends[0].2), (at(1, 1), false));
}

/// T029: what a security team denies is not installed, whether it was known before or comes later;
/// what is shown goes, or stays where the VM's file says so. T015: an older denial is dropped.
#[test]
fn t029_t015_a_denial() {
    let (f, mut t, c, feed) = world(3);
    let (none, usual) = (Shown::default(), vm(""));
    assert_eq!(choice(&t, &c, &usual, &none), (Some("3".into()), Outcome::Chosen));
    let evil = deny(&f, tree(3), 7, NOW);
    assert!(matches!(accept(&mut t, &evil), Fact::Deny(_)));
    assert_eq!(t.judge(&evil, NOW), Verdict::Known);
    let older = deny(&f, tree(3), 7, NOW - 5);
    assert_eq!(refused(t.judge(&older, NOW)), Refusal::Replay { seq: NOW - 5, head: NOW }, "T015");
    let (chosen, why) = choice(&t, &c, &usual, &none);
    assert_eq!(chosen.as_deref(), Some("2"));
    let text = "the security team of group `web` denies it: evil";
    assert_eq!(why.to_string(), text);

    let Kind::Release(r) = entry_of(&feed[2]).kind else { panic!("a release") };
    let shown = Shown { releases: [(r.package.clone(), r.hash())].into(), ..Shown::default() };
    assert_eq!(choice(&t, &c, &usual, &shown).0.as_deref(), Some("2"), "it is taken away");
    let keep = vm("on_deny = \"keep\"");
    assert_eq!(choice(&t, &c, &keep, &shown).0.as_deref(), Some("3"));
    assert_eq!(choice(&t, &c, &keep, &none).0.as_deref(), Some("2"), "not installed anew");

    let range = Content::Releases {
        publisher: f.publisher,
        package: "hell*".parse().unwrap(),
        from: 1,
        to: 2,
    };
    accept(&mut t, &deny(&f, range, 7, NOW));
    assert_eq!(choice(&t, &c, &usual, &none).0, None);
    let elsewhere = vm("").groups;
    assert_eq!(elsewhere.len(), 1);
    let mut other = usual;
    other.groups = vec!["db".parse().unwrap()];
    let narrow = c.all().find_map(|k| Narrow::of(&other, k, t.charter()));
    assert_eq!(narrow, None, "another group's VMs decide for themselves");
}

/// T030: only the group's threshold lifts a denial, and one that is signed later denies again. A
/// veto key that has run out denies nothing, and its removal or its end lifts nothing.
#[test]
fn t030_who_lifts_a_denial() {
    let (f, mut t, c, _) = world(3);
    let (none, usual) = (Shown::default(), vm(""));
    let chosen = |t: &Trust| choice(t, &c, &usual, &none).0;
    let late = deny(&f, tree(1), 7, NOW + 2_000_000);
    assert!(matches!(refused(t.judge(&late, NOW + 2_000_000)), Refusal::NotVeto(_)));
    assert!(matches!(t.judge(&deny(&f, tree(3), 5, NOW), NOW), Verdict::Pending { .. }));
    let evil = deny(&f, tree(3), 7, NOW);
    accept(&mut t, &evil);
    assert_eq!(chosen(&t).as_deref(), Some("2"));

    let log = evil.log;
    let gone = next_group(&f, |d| d.veto = List::empty());
    accept(&mut t, &gone);
    assert_eq!(chosen(&t).as_deref(), Some("2"), "the key is gone, the denial stays");

    let mut t = f.trust();
    f.feed(3).iter().for_each(|i| drop(accept(&mut t, i)));
    accept(&mut t, &evil);
    let lift = Lift::Denial { log, through: NOW };
    let lifted = next_group(&f, |d| d.lifts = List::truncated([lift]));
    accept(&mut t, &lifted);
    assert_eq!(chosen(&t).as_deref(), Some("3"));
    accept(&mut t, &deny(&f, tree(3), 7, NOW + 1));
    assert_eq!(chosen(&t).as_deref(), Some("2"), "it denies again");

    let mut t = f.trust();
    f.feed(3).iter().for_each(|i| drop(accept(&mut t, i)));
    let stolen = next_group(&f, |d| {
        d.lifts = List::truncated([Lift::AllBy(key(7).public())]);
        let veto = VetoKey { key: key(8).public(), not_after: NOW + 1_000 };
        d.veto = List::truncated([veto]);
    });
    accept(&mut t, &evil);
    accept(&mut t, &deny(&f, tree(2), 7, NOW));
    accept(&mut t, &stolen);
    assert_eq!(chosen(&t).as_deref(), Some("3"), "all that the stolen key said is lifted");
    accept(&mut t, &deny(&f, tree(3), 8, NOW));
    assert_eq!(chosen(&t).as_deref(), Some("2"), "another key's word is not");
}

/// T076: a host is denied by those who admit hosts; a certificate that is issued later admits it
/// again.
#[test]
fn t076_a_denied_host() {
    let f = Fixture::new();
    let mut t = f.trust();
    let node = NodeId(key(9).public().0);
    assert_eq!(refused(t.judge(&deny_host(&f, 9, 7, NOW), NOW)), Refusal::UnauthorisedKey);
    accept(&mut t, &deny_host(&f, 9, 2, NOW));
    assert!(t.charter().denied_host(node, NOW).is_some());
    assert_eq!(t.charter().denied_host(node, NOW + 1), None);
    let from = [0, 5].map(|s| t.charter().admitted_from(node, NOW + s));
    assert_eq!(from, [NOW + 1, NOW + 5], "a new certificate is not of the denial's second");
    assert_eq!(t.charter().denied_host(NodeId([1; 32]), NOW), None);
    // Another admission key: whoever comes later must still know.
    let mut root: RootDoc = f.documents[0].envelope.claimed().unwrap();
    (root.number, root.prev) = (2, Some(f.documents[0].envelope.hash()));
    root.admission = stork_wire::charter::Role::single(key(22).public());
    let log = stork_wire::ids::LogId::root(f.fleet);
    let kind = stork_wire::item::ItemKind::Root;
    let mut late = f.trust();
    accept(&mut late, &super::tests::item(kind, log, 2, &root, f.fleet, &key(1)));
    accept(&mut late, &deny_host(&f, 9, 2, NOW));
    accept(&mut late, &deny_host(&f, 9, 22, NOW + 9));
    assert!(late.charter().denied_host(node, NOW + 9).is_some());
}

/// Keys of documents that are no release keys are not ended: their documents change them.
#[test]
fn only_release_keys_end_themselves() {
    let f = Fixture::new();
    let mut t = f.trust();
    for other in [1, 2, 3, 4, 7] {
        let verdict = t.judge(&suicide(&f, other, other), NOW);
        assert_eq!(verdict, Verdict::Pending { missing: None });
        assert!(!t.charter().is_dead(&PublicKey(key(other).public().0)));
    }
}
