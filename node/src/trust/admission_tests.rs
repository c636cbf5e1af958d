//! Certificates, records, tokens and documents with times at the end of all time, and records that
//! must be ignored.

use stork_wire::charter::{HostCert, JoinToken, PeerRecord, PushCert};
use stork_wire::codec::List;
use stork_wire::frame::PeerHint;
use stork_wire::ids::{LogId, NodeId, PublicKey};
use stork_wire::item::ItemKind;
use stork_wire::sign::{Body, Envelope};

use super::tests::{Fixture, NOW, item, key};
use super::{AdmissionError, Verdict};

const TIMES: [u64; 7] = [0, 1, NOW - 1, NOW, NOW + 1, u64::MAX - 1, u64::MAX];

fn cert(node: NodeId, issued: u64, expires: u64) -> HostCert {
    let name = "host".parse().unwrap();
    HostCert { version: 1, node, name, site: "east".parse().unwrap(), issued, expires }
}

fn record(node: NodeId, issued: u64, expires: u64) -> PeerRecord {
    PeerRecord {
        version: 1,
        node,
        incarnation: u64::MAX,
        addrs: List::truncated(["10.0.0.1:7749".parse().unwrap()]),
        site: "east".parse().unwrap(),
        groups: List::empty(),
        cell: None,
        issued,
        expires,
    }
}

/// T061: a record that is not signed, not by its host, or that has expired, or of another site than
/// the certificate's: the host is not taken. (Records with older numbers:
/// `overlay::sim_tests::hostile`; with addresses that nobody can dial: `driver::addrs`.)
#[test]
fn t061_records_that_are_ignored() {
    let f = Fixture::new();
    let trust = f.trust();
    let (host, admission) = (key(7), key(2));
    let node = NodeId(host.public().0);
    let cert = Envelope::sign(&cert(node, NOW - 1, NOW + 100), f.fleet, &admission).unwrap();
    let check = |record: Envelope| {
        let hint = PeerHint { cert: cert.clone(), record };
        trust.check_peer(&hint, NOW).map(drop).map_err(|e| e.code())
    };
    let good = record(node, NOW - 1, NOW + 100);
    let sign = |r: &PeerRecord, k: u8| Envelope::sign(r, f.fleet, &key(k)).unwrap();
    assert_eq!(check(sign(&good, 7)), Ok(()));
    assert_eq!(check(Envelope::unsigned(&good).unwrap()), Err("bad_signature"));
    assert_eq!(check(sign(&good, 2)), Err("bad_signature"), "by the admission key");
    assert_eq!(check(sign(&good, 8)), Err("bad_signature"), "by another host");
    assert_eq!(check(sign(&record(node, NOW - 9, NOW), 7)), Err("out_of_time"));
    assert_eq!(check(sign(&record(node, NOW + 301, NOW + 400), 7)), Err("out_of_time"));
    let other = NodeId(key(8).public().0);
    assert_eq!(check(sign(&record(other, NOW - 1, NOW + 100), 7)), Err("other_key"));
    let moved = PeerRecord { site: "west".parse().unwrap(), ..good.clone() };
    assert_eq!(check(sign(&moved, 7)), Err("other_key"));
    let mut changed = sign(&good, 7);
    changed.body = sign(&moved, 7).body;
    assert_eq!(check(changed), Err("bad_signature"));
}

/// T055: every time of every signed body at 0 and at the end of all time, at every hour of this
/// host's clock. Nothing panics; what is not yet good or good no more is refused as that.
#[test]
fn t055_times_at_the_end_of_all_time() {
    let f = Fixture::new();
    let node = NodeId(key(7).public().0);
    let mut good = 0;
    for issued in TIMES {
        for expires in TIMES {
            let cert = Envelope::sign(&cert(node, issued, expires), f.fleet, &key(2));
            let record = Envelope::sign(&record(node, issued, expires), f.fleet, &key(7));
            let Ok((cert, record)) = cert.and_then(|c| record.map(|r| (c, r))) else {
                assert!(expires <= issued, "{issued} to {expires} is a time");
                continue;
            };
            let hint = PeerHint { cert, record };
            for now in TIMES {
                let checked = f.trust().check_peer(&hint, now);
                let fits = issued <= now.saturating_add(300) && expires > now;
                assert_eq!(checked.is_ok(), fits, "{issued} to {expires} at {now}");
                let time = matches!(checked, Err(AdmissionError::Time(_)));
                assert!(fits || time, "{checked:?}");
                good += usize::from(fits);
                token_and_push(&f, (issued, expires), now);
                documents(&f, (issued, expires), now);
            }
        }
    }
    assert!(good > 0);
}

fn token_and_push(f: &Fixture, (issued, expires): (u64, u64), now: u64) {
    let me = NodeId(key(7).public().0);
    let token = JoinToken {
        version: 1,
        fleet: f.fleet,
        id: [1; 16],
        admitter: me,
        addrs: List::truncated(["127.0.0.1:1".parse().unwrap()]),
        name: None,
        site: "east".parse().unwrap(),
        issued,
        expires,
    };
    let token = Envelope::sign(&token, f.fleet, &key(2)).unwrap();
    let fits = issued <= now.saturating_add(300) && expires > now;
    assert_eq!(f.trust().check_token(&token, me, now).is_ok(), fits);
    let tls_key = PublicKey(key(9).public().0);
    let push = PushCert { version: 1, tls_key, publisher: f.publisher, issued, expires };
    assert_eq!(push.check().is_ok(), expires - issued <= 600);
    if let Ok(push) = Envelope::sign(&push, f.fleet, &key(5)) {
        drop(f.trust().check_push(&push, tls_key, now));
    }
}

/// Documents and entries: refused or accepted, and the same again after a second look.
fn documents(f: &Fixture, (issued, expires): (u64, u64), now: u64) {
    let mut trust = f.trust();
    let root: stork_wire::charter::RootDoc = f.documents[0].envelope.claimed().unwrap();
    let next = stork_wire::charter::RootDoc {
        number: 2,
        prev: Some(f.documents[0].envelope.hash()),
        issued,
        expires,
        ..root
    };
    let next = item(ItemKind::Root, LogId::root(f.fleet), 2, &next, f.fleet, &key(1));
    let before = trust.heads();
    let verdict = trust.judge(&next, now);
    assert_eq!(matches!(verdict, Verdict::Accepted { .. }), trust.heads() != before);
    let mut trust = f.trust();
    let mut entry = f.entry(1, None, &[], f.release("hello", "1", 1));
    (entry.signed_at, entry.expires) = (issued, expires);
    let entry = f.item(&entry, &f.release_key);
    let verdict = trust.judge(&entry, now);
    let future = issued > now.saturating_add(300);
    assert!(!future || matches!(verdict, Verdict::Refused(_)), "from the future: {verdict:?}");
}
