//! Sealed releases: judged alike by hosts that can read them and by those that cannot.

use stork_wire::charter::{GroupDoc, HostCert, HostScope};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Recall, Release, view_root};
use stork_wire::ids::{LogId, NodeId, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::seal::{GroupKey, Sealed};

use super::tests::{Fixture, NOW, item, key};
use super::{Fact, Refusal, Trust, Verdict, cover_number};
use crate::catalog::Catalog;

fn group_key() -> GroupKey {
    GroupKey::from_bytes([7; 32])
}

/// The fixture's group made private by its second document.
fn private(f: &Fixture) -> Item {
    let old = &f.documents[1];
    let doc: GroupDoc = old.envelope.claimed().unwrap();
    let private = Some(group_key().id());
    let doc = GroupDoc { number: 2, prev: Some(old.envelope.hash()), private, ..doc };
    item(ItemKind::Group, LogId::group(f.group), 2, &doc, f.fleet, &key(3))
}

/// Two hosts of one fleet: the second has the group's key.
fn hosts(f: &Fixture) -> [Trust; 2] {
    let mut both = [f.trust(), f.trust()];
    for t in &mut both {
        assert!(matches!(t.judge(&private(f), NOW), Verdict::Accepted { .. }));
    }
    both[1].add_group_key(group_key());
    both
}

struct Pen<'a> {
    f: &'a Fixture,
    seq: u64,
    last: Option<Item>,
    live: Vec<ReleaseHash>,
}

impl Pen<'_> {
    fn sign(&mut self, kind: Kind) -> Item {
        self.seq += 1;
        let prev = self.last.as_ref().map(|i| i.envelope.hash());
        let any = self.f.release("hello", "0", 1);
        let mut entry = Entry { kind, ..self.f.entry(self.seq, prev, &[], any) };
        self.live.extend(entry.release_hash());
        entry.view_root = view_root(self.live.iter().copied());
        let item = self.f.item(&entry, &self.f.release_key);
        self.last = Some(item.clone());
        item
    }
    fn seal(&mut self, r: &Release, key: &GroupKey) -> Item {
        let salt = [u8::try_from(self.seq).unwrap(); 16];
        let sealed = Sealed::seal(r, self.f.publisher, key, salt).unwrap();
        self.sign(Kind::Sealed(Box::new(sealed)))
    }
}

fn pen(f: &Fixture) -> Pen<'_> {
    Pen { f, seq: 0, last: None, live: Vec::new() }
}

fn accept(t: &mut Trust, item: &Item) -> Entry {
    match t.judge(item, NOW) {
        Verdict::Accepted { fact: Fact::Entry(e), .. } => e.get().clone(),
        other => panic!("{other:?}"),
    }
}

/// T112: a host without the key takes, chains and counts what it cannot read; heads are the same.
#[test]
fn t112_hosts_without_the_key_pass_on_what_they_cannot_read() {
    let f = Fixture::new();
    let [mut without, mut with] = hosts(&f);
    let (mut pen, mut shown) = (pen(&f), [Catalog::default(), Catalog::default()]);
    let one = pen.seal(&f.release("hello", "1", 1), &group_key());
    let two = pen.sign(Kind::Release(Box::new(f.release("hello-x", "1", 2))));
    for item in [&one, &two] {
        shown[0].apply(&accept(&mut without, item));
        shown[1].apply(&accept(&mut with, item));
    }
    assert_eq!((shown[0].len(), shown[1].len()), (1, 2));
    assert_eq!(without.heads(), with.heads());
    let known = shown[1].of_package(&"hello".parse().unwrap()).first().unwrap();
    assert_eq!((known.sealed, known.recalled_as().as_str()), (Some(f.group), "sealed"));
    // It comes by the key later.
    assert!(without.read_entry(&one).unwrap().release().is_none());
    without.add_group_key(group_key());
    assert_eq!(without.read_entry(&one).unwrap().release().unwrap().version.as_str(), "1");
    // A recall in the feed names its place, and means it for who reads it and who does not.
    let place = cover_number(known_place(&one));
    let gone = pen.live.remove(0);
    let recall = pen.sign(Kind::Recall(Recall {
        package: Sealed::cover().unwrap(),
        releases: List::truncated([place]),
        reason: "why".parse().unwrap(),
    }));
    let refused = without.judge(&recall, NOW);
    assert!(matches!(refused, Verdict::Refused(Refusal::OutOfScope(_))), "the key is for hello*");
    assert!(with.feed(f.publisher).unwrap().live().any(|h| h == gone));
    let entry: Entry = recall.envelope.claimed().unwrap();
    shown[1].apply(&entry);
    assert_eq!(shown[1].len(), 1);
}

fn known_place(item: &Item) -> stork_wire::ids::Position {
    item.envelope.claimed::<Entry>().unwrap().position()
}

/// T112: what is sealed gives its signer no right: out of scope, beyond a quota, for a group that
/// does not name the publisher, with another key. The chain goes on; nobody sees it.
#[test]
fn t112_sealing_widens_nothing() {
    let f = Fixture::new();
    let [mut without, mut with] = hosts(&f);
    let mut pen = pen(&f);
    let mut large = f.release("hello", "3", 3);
    large.unpacked_bytes = 2_000_000;
    let mut provides = f.release("hello", "4", 4);
    provides.provides = List::truncated(["libc".parse().unwrap()]);
    let bad = [f.release("gcc", "1", 1), f.release("hello-", "2", 2), large, provides];
    for (n, r) in bad.iter().enumerate() {
        let item = pen.seal(r, &group_key());
        let read = accept(&mut with, &item);
        accept(&mut without, &item);
        assert_eq!(read.release().is_some(), n == 1, "{n}: `hello-` is within both patterns");
    }
    let other = pen.seal(&f.release("hello", "9", 9), &GroupKey::from_bytes([9; 32]));
    assert!(accept(&mut with, &other).release().is_none());
    accept(&mut without, &other);
    assert_eq!(without.heads(), with.heads());
    let mut elsewhere = f.release("hello", "10", 10);
    elsewhere.groups = List::truncated([stork_wire::ids::GroupId([9; 32])]);
    let item = pen.seal(&elsewhere, &group_key());
    for t in [&mut without, &mut with] {
        assert!(matches!(t.judge(&item, NOW), Verdict::Refused(Refusal::OutOfScope(_))));
    }
}

/// T112: a certificate without a scope grants all groups, as certificates did before; one with
/// groups grants those. Keys go by it, and so does what a host may say that it wants.
#[test]
fn t112_what_certificates_grant() {
    let f = Fixture::new();
    let [t, _] = hosts(&f);
    let node = NodeId(key(9).public().0);
    let cert = |groups: Option<&[stork_wire::ids::GroupId]>| HostCert {
        version: 1,
        node,
        name: "host-9".parse().unwrap(),
        site: "east".parse().unwrap(),
        issued: NOW,
        expires: NOW + 9,
        scope: groups.map(|g| {
            let groups = Some(List::truncated(g.iter().copied()));
            Box::new(HostScope { labels: List::empty(), groups })
        }),
    };
    let keys = |c: &HostCert| t.charter().keys_for(c);
    let (all, some, none) = (cert(None), cert(Some(&[f.group])), cert(Some(&[])));
    assert_eq!(keys(&all), [group_key().id()]);
    assert_eq!(keys(&some), [group_key().id()]);
    assert!(keys(&none).is_empty());
    let wants = |c: &HostCert| t.charter().granted(c, &[f.group]);
    assert_eq!((wants(&some).len(), wants(&none).len()), (1, 0));
    assert_eq!(f.trust().charter().granted(&none, &[f.group]).len(), 1, "it is not private");
    assert_eq!(t.charter().group_of_key(&group_key().id()), Some(f.group));
}
