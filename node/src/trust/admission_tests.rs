//! Certificates, records, tokens and documents with times at the end of all time, and records that
//! must be ignored.

use stork_wire::charter::{HostCert, JoinToken, PastKey, PeerRecord, PushCert, Role, RootDoc};
use stork_wire::codec::List;
use stork_wire::deny::{Denial, Denied};
use stork_wire::frame::PeerHint;
use stork_wire::ids::{LogId, NodeId, PublicKey};
use stork_wire::item::ItemKind;
use stork_wire::sign::{Body, Envelope};

use super::tests::{Fixture, NOW, item, key};
use super::{AdmissionError, Verdict};

const TIMES: [u64; 7] = [0, 1, NOW - 1, NOW, NOW + 1, u64::MAX - 1, u64::MAX];

fn cert(node: NodeId, issued: u64, expires: u64) -> HostCert {
    let name = "host".parse().unwrap();
    let site = "east".parse().unwrap();
    HostCert { version: 1, node, name, site, issued, expires, scope: None }
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
        admits: false,
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
        scope: None,
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
    let root: RootDoc = f.documents[0].envelope.claimed().unwrap();
    let next =
        RootDoc { number: 2, prev: Some(f.documents[0].envelope.hash()), issued, expires, ..root };
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

/// A root document with other admission keys, and earlier ones that are believed until then.
fn rotated(f: &Fixture, trust: &mut super::Trust, before: &[(u8, u64)]) {
    let old: RootDoc = f.documents[0].envelope.claimed().unwrap();
    let past = |(k, until): &(u8, u64)| PastKey { key: key(*k).public(), until: *until };
    let next = RootDoc {
        number: 2,
        prev: Some(f.documents[0].envelope.hash()),
        issued: NOW,
        admission: Role::single(key(8).public()),
        admission_before: List::truncated(before.iter().map(past)),
        ..old
    };
    let next = item(ItemKind::Root, LogId::root(f.fleet), 2, &next, f.fleet, &key(1));
    assert!(matches!(trust.judge(&next, NOW), Verdict::Accepted { .. }));
}

/// F7 of old: another admission key ends nobody. What the earlier one signed is good until the time
/// that the root document names, and asks to be renewed; tokens are signed anew. A key that the
/// document does not name is void at once, and one that never was in the role gains nothing.
#[test]
fn earlier_admission_keys_are_believed_for_a_while() {
    let f = Fixture::new();
    let node = NodeId(key(7).public().0);
    let by = |k: u8| Envelope::sign(&cert(node, NOW - 1, NOW + 9_000), f.fleet, &key(k)).unwrap();
    let mut trust = f.trust();
    assert!(trust.is_by_newest(&by(2)) && trust.admits_by(&key(2).public()));
    let mut all = [(2, NOW + 500), (6, NOW + 500)];
    all.sort_by_key(|(k, _)| key(*k).public());
    rotated(&f, &mut trust, &all);
    assert!(!trust.is_by_newest(&by(2)) && !trust.admits_by(&key(2).public()));
    assert!(trust.is_by_newest(&by(8)) && trust.admits_by(&key(8).public()));
    assert_eq!(trust.check_cert(&by(2), NOW + 499).unwrap().expires, NOW + 500);
    assert_eq!(trust.cert_until(&by(2), NOW), NOW + 500);
    assert_eq!(trust.check_cert(&by(2), NOW + 500).unwrap_err().code(), "bad_signature");
    assert_eq!(trust.cert_until(&by(2), NOW + 500), 0);
    assert_eq!(trust.check_late(&by(2), NOW + 500).unwrap_err().code(), "bad_signature");
    assert_eq!(trust.check_cert(&by(8), NOW + 8_999).unwrap().expires, NOW + 9_000);
    assert_eq!(trust.check_cert(&by(6), NOW).unwrap_err().code(), "bad_signature", "never in it");

    let mut trust = f.trust();
    rotated(&f, &mut trust, &[]);
    assert_eq!(trust.check_cert(&by(2), NOW).unwrap_err().code(), "bad_signature", "stolen");
}

/// A certificate that ran out brings a new one for half a year, unless its host was denied.
#[test]
fn t076_a_certificate_that_ran_out_asks_for_a_new_one() {
    let f = Fixture::new();
    let node = NodeId(key(7).public().0);
    let old = Envelope::sign(&cert(node, NOW - 90, NOW - 10), f.fleet, &key(2)).unwrap();
    let mut trust = f.trust();
    assert_eq!(trust.check_cert(&old, NOW).unwrap_err().code(), "out_of_time");
    let last = NOW - 10 + super::admission::LATE_MAX_S;
    assert!(trust.check_late(&old, NOW).is_ok() && trust.check_late(&old, last - 1).is_ok());
    assert_eq!(trust.check_late(&old, last).unwrap_err().code(), "out_of_time");
    let ahead = Envelope::sign(&cert(node, NOW + 900, NOW + 990), f.fleet, &key(2)).unwrap();
    assert_eq!(trust.check_late(&ahead, NOW).unwrap_err().code(), "out_of_time");
    let stranger = Envelope::sign(&cert(node, NOW - 90, NOW - 10), f.fleet, &key(3)).unwrap();
    assert_eq!(trust.check_late(&stranger, NOW).unwrap_err().code(), "bad_signature");
    let what = Denied::Host(node);
    let deny = Denial { version: 1, what, signed_at: NOW - 50, reason: "x".parse().unwrap() };
    let deny = item(ItemKind::Deny, deny.what.log(), NOW - 50, &deny, f.fleet, &key(2));
    assert!(matches!(trust.judge(&deny, NOW), Verdict::Accepted { .. }));
    assert_eq!(trust.check_late(&old, NOW).unwrap_err().code(), "denied");
}
