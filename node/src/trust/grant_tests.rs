//! What hosts may take part in: the newest word counts, whatever certificate is shown beside it.

use stork_wire::charter::{HostCert, HostScope, PastKey, Role, RootDoc};
use stork_wire::codec::List;
use stork_wire::grant::HostGrant;
use stork_wire::ids::{GroupId, LogId, NodeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::Envelope;

use super::grant::GRANTS_PER_KEY_MAX;
use super::tests::{Fixture, NOW, item, key, refused, root_doc};
use super::{Refusal, Trust, Verdict};

const A: GroupId = GroupId([1; 32]);
const B: GroupId = GroupId([2; 32]);

fn scope(groups: &[GroupId]) -> HostScope {
    HostScope { labels: List::empty(), groups: Some(List::truncated(groups.iter().copied())) }
}

fn node() -> NodeId {
    NodeId(key(9).public().0)
}

fn word(f: &Fixture, groups: &[GroupId], by: u8, at: u64) -> Item {
    let (node, signer) = (node(), key(by).public());
    let grant = HostGrant { version: 1, node, signer, scope: scope(groups), signed_at: at };
    grant.item(Envelope::sign(&grant, f.fleet, &key(by)).unwrap())
}

fn cert(f: &Fixture, groups: Option<&[GroupId]>, by: u8, issued: u64) -> Envelope {
    let (name, site) = ("host".parse().unwrap(), "east".parse().unwrap());
    let (expires, scope) = (issued + 10_000, groups.map(|g| Box::new(scope(g))));
    let cert = HostCert { version: 1, node: node(), name, site, issued, expires, scope };
    Envelope::sign(&cert, f.fleet, &key(by)).unwrap()
}

/// Which of both groups a host with this certificate may take part in.
fn may(t: &Trust, cert: &Envelope) -> (bool, bool) {
    let cert = t.check_cert(cert, NOW).unwrap();
    (cert.grants(&A), cert.grants(&B))
}

fn accept(t: &mut Trust, item: &Item) {
    let verdict = t.judge(item, NOW);
    assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
}

/// T112: a host gains a group and loses one without another join. Once its rights were narrowed, no
/// certificate helps it: an older one, one without a scope, nor one that was issued later by a host
/// which had not heard of it. An older word does not come back, also after a restart.
#[test]
fn t112_the_newest_word_counts_beside_any_certificate() {
    let f = Fixture::new();
    let mut t = f.trust();
    let certs = [
        cert(&f, None, 2, NOW - 500),
        cert(&f, Some(&[A, B]), 2, NOW - 400),
        cert(&f, Some(&[A, B]), 2, NOW),
    ];
    assert!(certs.iter().all(|c| may(&t, c) == (true, true)));
    let (narrow, wide) = (word(&f, &[A], 2, NOW - 10), word(&f, &[A, B], 2, NOW - 20));
    accept(&mut t, &wide);
    accept(&mut t, &narrow);
    assert!(certs.iter().all(|c| may(&t, c) == (true, false)));
    assert_eq!(refused(t.judge(&wide, NOW)), Refusal::Replay { seq: NOW - 20, head: NOW - 10 });
    assert_eq!(t.judge(&narrow, NOW), Verdict::Known);
    let log = narrow.log;
    assert!(t.heads().iter().any(|h| h.log == log && h.seq == NOW - 10));
    let mut again = f.trust();
    accept(&mut again, &narrow);
    assert!(certs.iter().all(|c| may(&again, c) == (true, false)));
    accept(&mut again, &word(&f, &[B], 2, NOW - 5));
    assert!(certs.iter().all(|c| may(&again, c) == (false, true)));
    assert_eq!(again.charter().granted_from(node(), NOW - 5), NOW - 4);
}

/// Only keys that admit hosts speak, for themselves, and not of the future; what one of them may
/// say is bounded.
#[test]
fn t112_who_may_say_what_a_host_may_take_part_in() {
    let f = Fixture::new();
    let mut t = f.trust();
    for by in [1, 3, 4, 5, 9] {
        assert_eq!(refused(t.judge(&word(&f, &[A], by, NOW), NOW)), Refusal::UnauthorisedKey);
    }
    let mut forged = word(&f, &[A], 2, NOW);
    forged.envelope.signatures = word(&f, &[B], 2, NOW).envelope.signatures;
    assert_eq!(refused(t.judge(&forged, NOW)), Refusal::BadSignature);
    let moved = Item { log: LogId([7; 32]), ..word(&f, &[A], 2, NOW) };
    assert_eq!(refused(t.judge(&moved, NOW)), Refusal::WrongLog);
    let ahead = word(&f, &[A], 2, NOW + 10_000);
    assert_eq!(refused(t.judge(&ahead, NOW)), Refusal::FutureDated(10_000));
    let mut early = Trust::new(f.fleet);
    assert!(matches!(early.judge(&word(&f, &[A], 2, NOW), NOW), Verdict::Pending { .. }));
    // Room for so many hosts, and a newer word on one of them.
    let one = word(&f, &[A], 2, NOW - 1);
    accept(&mut t, &one);
    let held: HostGrant = one.envelope.claimed().unwrap();
    for n in 1..GRANTS_PER_KEY_MAX {
        let grant =
            HostGrant { node: NodeId([u8::try_from(n % 250).unwrap(); 32]), ..held.clone() };
        let mut grants = super::grant::Grants::default();
        core::mem::swap(&mut grants, &mut t.charter.grants);
        let log =
            LogId::feed_epoch(stork_wire::ids::PublisherId([1; 32]), u32::try_from(n).unwrap());
        grants.hold(log, &grant);
        t.charter.grants = grants;
    }
    let (signer, scope) = (key(2).public(), scope(&[A]));
    let node = NodeId(key(8).public().0);
    let more = HostGrant { version: 1, node, signer, scope, signed_at: NOW };
    let more = more.item(Envelope::sign(&more, f.fleet, &key(2)).unwrap());
    assert_eq!(refused(t.judge(&more, NOW)), Refusal::TooMany);
    accept(&mut t, &word(&f, &[B], 2, NOW));
}

/// The admission key is replaced: what it said still narrows, whoever has it now, and widens
/// nothing; the new key's word counts alone where it is the later one.
#[test]
fn t112_an_admission_key_that_was_replaced_only_narrows() {
    let f = Fixture::new();
    let mut t = f.trust();
    accept(&mut t, &word(&f, &[A], 2, NOW - 50));
    let mut root = RootDoc { number: 2, issued: NOW - 40, ..root_doc() };
    root.prev = Some(f.documents[0].hash());
    root.admission = Role::single(key(8).public());
    let until = NOW + 1_000;
    root.admission_before = List::truncated([PastKey { key: key(2).public(), until }]);
    accept(&mut t, &item(ItemKind::Root, LogId::root(f.fleet), 2, &root, f.fleet, &key(1)));
    let (old, new) = (cert(&f, None, 2, NOW - 400), cert(&f, Some(&[A, B]), 8, NOW - 30));
    assert_eq!((may(&t, &old), may(&t, &new)), ((true, false), (true, false)));
    // Who has stolen it can take away, and give nothing.
    accept(&mut t, &word(&f, &[B], 2, NOW - 20));
    assert_eq!((may(&t, &old), may(&t, &new)), ((false, true), (false, true)));
    accept(&mut t, &word(&f, &[A], 8, NOW - 10));
    assert_eq!((may(&t, &old), may(&t, &new)), ((true, false), (true, false)));
    accept(&mut t, &word(&f, &[A, B], 2, NOW - 5));
    assert_eq!((may(&t, &old), may(&t, &new)), ((true, false), (true, false)));
    let (by_new, by_old) = (scope(&[A, B]), word(&f, &[], 2, NOW - 1));
    accept(&mut t, &by_old);
    assert_eq!(may(&t, &new), (false, false));
    assert_eq!(t.charter().scope_of(node(), Some(Box::new(by_new))), Some(Box::new(scope(&[]))));
}
