//! Delegated keys: what they may release, when, and that all hosts end with the same.

use stork_wire::charter::{PublisherDoc, PushCert, ReleaseKey};
use stork_wire::codec::List;
use stork_wire::delegated::Delegated;
use stork_wire::feed::{Entry, Release};
use stork_wire::ids::{NodeId, PublicKey};
use stork_wire::item::Item;
use stork_wire::sign::{Envelope, SecretKey};

use super::beacon_tests::{beacon, fixture};
use super::fork_tests::{Host, at, entry_of, proof};
use super::narrow_tests::suicide;
use super::tests::{Fixture, NOW, key, refused};
use super::{AdmissionError, Refusal, Trust, Verdict};

const HOUR: u64 = 3_600;
/// The delegated key.
const CI: u8 = 20;

/// The certificate of the delegated key: all of `hello*` for an hour.
fn cert(f: &Fixture) -> Delegated {
    Delegated {
        version: 1,
        publisher: f.publisher,
        epoch: 1,
        key: key(CI).public(),
        packages: List::truncated(["hello*".parse().unwrap()]),
        from: NOW,
        until: NOW + HOUR,
    }
}

fn signed(f: &Fixture, cert: &Delegated, by: &SecretKey) -> Envelope {
    Envelope::sign(cert, f.fleet, by).unwrap()
}

fn with(mut entry: Entry, via: Envelope) -> Entry {
    entry.via = Some(Box::new(via));
    entry
}

/// The entry after these releases `hello 1 … n`, with this certificate.
fn entry_after(f: &Fixture, feed: &[Item], r: Release, via: Envelope) -> Entry {
    let live: Vec<_> = feed.iter().map(|i| entry_of(i).release().unwrap().hash()).collect();
    let prev = feed.last().map(|i| i.envelope.hash());
    with(f.entry(feed.len() as u64 + 1, prev, &live, r), via)
}

fn next(f: &Fixture, feed: &[Item]) -> Entry {
    let n = feed.len() as u64 + 1;
    entry_after(f, feed, f.release("hello", &n.to_string(), n), signed(f, &cert(f), &key(5)))
}

fn by_ci(f: &Fixture, entry: &Entry) -> Item {
    f.item(entry, &key(CI))
}

fn code(t: &mut Trust, item: &Item) -> &'static str {
    refused(t.judge(item, NOW)).code()
}

fn host(f: &Fixture, items: &[Item]) -> Host {
    let mut host = Host::new(f);
    items.iter().for_each(|i| host.give(i));
    host
}

/// A delegated key's entry is taken by hosts that never heard of the key, now and years later, as
/// part of the feed.
#[test]
fn a_delegated_key_releases() {
    let f = Fixture::new();
    let mut feed = f.feed(2);
    feed.push(by_ci(&f, &next(&f, &feed)));
    let live: Vec<_> = feed.iter().map(|i| entry_of(i).release().unwrap().hash()).collect();
    let last = f.entry(4, Some(feed[2].hash()), &live, f.release("hello", "4", 4));
    feed.push(f.item(&last, &f.release_key));
    let h = host(&f, &feed);
    assert_eq!(h.newest(&f), Some((at(1, 4), feed[3].hash())));
    assert_eq!(h.restarted(&f).newest(&f), h.newest(&f));
    let mut late = f.trust();
    for item in &feed {
        assert!(matches!(late.judge(item, NOW + 1_000 * HOUR), Verdict::Accepted { .. }));
        assert_eq!(late.judge(item, NOW), Verdict::Known);
    }
}

/// T001: a certificate by somebody else, an entry by another key than the certificate's, and a
/// junk signature beside either, are worth nothing.
#[test]
fn t001_an_unauthorised_delegated_key() {
    let f = Fixture::new();
    let feed = f.feed(1);
    let mut t = f.trust();
    t.judge(&feed[0], NOW);
    let good = next(&f, &feed);
    let foreign = with(good.clone(), signed(&f, &cert(&f), &key(9)));
    assert_eq!(code(&mut t, &by_ci(&f, &foreign)), "unauthorised_key");
    let own = with(good.clone(), signed(&f, &cert(&f), &key(CI)));
    assert_eq!(code(&mut t, &by_ci(&f, &own)), "unauthorised_key");
    // The release key's own entry needs no certificate, and is not taken with one of another key.
    for by in [9, 5] {
        assert_eq!(code(&mut t, &f.item(&good, &key(by))), "unauthorised_key");
    }
    let plain = Entry { via: None, ..good.clone() };
    assert_eq!(code(&mut t, &by_ci(&f, &plain)), "unauthorised_key");
    let mut forged = signed(&f, &Delegated { until: NOW + 2 * HOUR, ..cert(&f) }, &key(5));
    forged.signatures = signed(&f, &cert(&f), &key(5)).signatures;
    assert_eq!(code(&mut t, &by_ci(&f, &with(good.clone(), forged))), "bad_signature");
    let elsewhere = Envelope::sign(&cert(&f), stork_wire::ids::FleetId([9; 32]), &key(5)).unwrap();
    assert_eq!(code(&mut t, &by_ci(&f, &with(good.clone(), elsewhere))), "bad_signature");
    let mut item = by_ci(&f, &good);
    item.envelope.add(key(5).public(), stork_wire::sign::SignatureBytes([7; 64])).unwrap();
    assert!(matches!(t.judge(&item, NOW), Verdict::Accepted { .. }), "junk does no harm");
}

/// T002: neither beyond the certificate's patterns nor beyond those of its release key; groups
/// decide as for any entry.
#[test]
fn t002_a_delegated_key_out_of_scope() {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let rule = |n: u8, pattern: &str| ReleaseKey {
        key: key(n).public(),
        packages: List::truncated([pattern.parse().unwrap()]),
        not_after: NOW + 1_000_000,
        valid_through: None,
    };
    let mut rules = [rule(5, "hello-*"), rule(8, "*")];
    rules.sort_by_key(|r| r.key);
    doc.release_keys = List::truncated(rules);
    let f = f.with_publisher(&doc);
    let of = |pattern: &str, by: u8, package: &str| {
        let packages = List::truncated([pattern.parse().unwrap()]);
        let via = signed(&f, &Delegated { packages, ..cert(&f) }, &key(by));
        let entry = entry_after(&f, &[], f.release(package, "1", 1), via);
        f.trust().judge(&by_ci(&f, &entry), NOW)
    };
    for (pattern, by, package) in [
        ("hello-ci", 5, "hello-doc"),
        ("*", 5, "hello"),
        ("hello", 5, "hello"),
        ("*", 8, "other"),
        ("hello", 8, "hello-doc"),
    ] {
        let r = refused(of(pattern, by, package));
        assert_eq!(r.code(), "out_of_scope", "{pattern} by {by}: {package}: {r}");
    }
    for (pattern, by, package) in
        [("hello-ci", 5, "hello-ci"), ("*", 5, "hello-x"), ("*", 8, "hello")]
    {
        let verdict = of(pattern, by, package);
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{pattern} by {by}: {verdict:?}");
    }
}

/// A delegated key is good for its hours, its epoch and its feed. What it signs later claims an
/// earlier time: not before the entry before it.
#[test]
fn the_hours_of_a_delegated_key() {
    let f = Fixture::new();
    let feed = f.feed(1);
    let mut t = f.trust();
    t.judge(&feed[0], NOW);
    let good = next(&f, &feed);
    let late = NOW + 10 * HOUR;
    for signed_at in [NOW - 1, NOW + HOUR + 1] {
        let entry = Entry { signed_at, expires: signed_at + 10, ..good.clone() };
        let r = refused(t.judge(&by_ci(&f, &entry), late));
        assert_eq!(r.code(), "delegated_key", "{r}");
        assert!(!r.blames_sender());
    }
    for cert in [
        Delegated { epoch: 2, ..cert(&f) },
        Delegated { publisher: stork_wire::ids::PublisherId([1; 32]), ..cert(&f) },
    ] {
        let entry = with(good.clone(), signed(&f, &cert, &key(5)));
        assert_eq!(code(&mut t, &by_ci(&f, &entry)), "delegated_key");
    }
    // News come, and then the thief of a key that ran out.
    let hash = entry_of(&feed[0]).release().unwrap().hash();
    let mut news = f.entry(2, Some(feed[0].hash()), &[hash], f.release("hello", "2", 2));
    (news.signed_at, news.expires) = (NOW + 2 * HOUR, NOW + 20 * HOUR);
    let news = f.item(&news, &f.release_key);
    assert!(matches!(t.judge(&news, late), Verdict::Accepted { .. }));
    let feed = [feed[0].clone(), news];
    let mut behind = next(&f, &feed);
    (behind.signed_at, behind.expires) = (NOW + HOUR, NOW + 20 * HOUR);
    let r = refused(t.judge(&by_ci(&f, &behind), late));
    assert!(matches!(&r, Refusal::Delegated(why) if why.contains("3600 s older")), "{r}");
}

/// A key that ran out cannot add to a feed in which nothing happened since, where the publisher's
/// beacons are newer: they would know of it. What they know of is history, in any order.
#[test]
fn beacons_know_of_every_entry() {
    let f = fixture();
    let feed = f.feed(2);
    let ci = by_ci(&f, &next(&f, &feed));
    let late = NOW + 10 * HOUR;
    let mut t = f.trust();
    feed.iter().for_each(|i| drop(t.judge(i, NOW)));
    // One from before its end, and from within the skew of clocks, says nothing.
    for time in [NOW + 10, NOW + HOUR + 300] {
        assert!(matches!(
            t.judge(&beacon(&f, Some(&feed[1]), time), late),
            Verdict::Accepted { .. }
        ));
    }
    assert!(matches!(t.judge(&ci, late), Verdict::Accepted { .. }));

    let mut t = f.trust();
    feed.iter().for_each(|i| drop(t.judge(i, NOW)));
    let after = beacon(&f, Some(&feed[1]), NOW + HOUR + 301);
    assert!(matches!(t.judge(&after, late), Verdict::Accepted { .. }));
    assert_eq!(refused(t.judge(&ci, late)).code(), "delegated_key");
    // The one that made it was not up to date: a later one knows, and waits for the entry.
    let knows = beacon(&f, Some(&ci), NOW + 3 * HOUR);
    assert!(matches!(t.judge(&knows, late), Verdict::Behind { .. }));
    assert!(matches!(t.judge(&ci, late), Verdict::Accepted { .. }));
    assert_eq!(t.judge(&ci, late), Verdict::Known);
}

/// T027: when the release key ends itself, its certificates are worth nothing, before and after;
/// another key goes on from where it stood.
#[test]
fn t027_a_dead_key_vouches_for_nobody() {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let mut rules = doc.release_keys.to_vec();
    rules.push(ReleaseKey { key: key(8).public(), ..rules[0].clone() });
    rules.sort_by_key(|r| r.key);
    doc.release_keys = List::truncated(rules);
    let f = f.with_publisher(&doc);
    let mut feed = f.feed(1);
    feed[0] = f.item(&entry_of(&feed[0]), &key(8));
    feed.push(by_ci(&f, &next(&f, &feed)));
    let end = suicide(&f, 5, 5);
    let orders = [[0usize, 1, 2], [0, 2, 1], [2, 0, 1]];
    let all = [feed[0].clone(), feed[1].clone(), end];
    for order in orders {
        let h = host(&f, &order.map(|i| all[i].clone()));
        for mut h in [h.restarted(&f), h] {
            assert_eq!(h.newest(&f), Some((at(1, 1), feed[0].hash())), "{order:?}");
            assert_eq!(code(&mut h.trust, &feed[1]), "revoked_key", "{order:?}");
            let again = with(next(&f, &feed[..1]), signed(&f, &cert(&f), &key(8)));
            h.give(&by_ci(&f, &again));
            assert_eq!(h.newest(&f).unwrap().0, at(1, 2));
        }
    }
}

/// T020: two entries of a delegated key with one number are a proof, and freeze the feed on every
/// host alike; a proof needs both certificates to be good.
#[test]
fn t020_a_delegated_key_that_forks() {
    let f = Fixture::new();
    let feed = f.feed(1);
    let one = next(&f, &feed);
    let two = Entry { expires: one.expires + 1, ..one.clone() };
    let (a, b) = (by_ci(&f, &one), by_ci(&f, &two));
    let mut h = host(&f, &[feed[0].clone(), a.clone()]);
    assert_eq!(h.trust.judge(&b, NOW), Verdict::Rival { at: at(1, 2) });
    let ep = proof(&a, &b);
    h.give(&ep);
    for h in [h.restarted(&f), h, host(&f, &[ep, feed[0].clone(), a.clone()])] {
        assert_eq!(h.newest(&f).unwrap().0, at(1, 1));
        assert!(h.trust.frozen(f.publisher).is_some());
    }
    let foreign = by_ci(&f, &with(two.clone(), signed(&f, &cert(&f), &key(9))));
    let late = by_ci(&f, &Entry { signed_at: NOW + 2 * HOUR, expires: NOW + 3 * HOUR, ..two });
    for bad in [foreign, late] {
        let r = refused(f.trust().judge(&proof(&a, &bad), NOW));
        assert!(["unauthorised_key", "delegated_key"].contains(&r.code()), "{r}");
    }
}

/// The door: a delegated key pushes with its certificate, from its beginning to its end and what
/// clocks may differ; and what it signed in time is not taken there later.
#[test]
fn a_delegated_key_at_the_door() {
    let f = Fixture::new();
    let mut t = f.trust();
    let tls_key = PublicKey(NodeId(key(9).public().0).0);
    let push = |now: u64, by: u8| {
        let (publisher, issued, expires) = (f.publisher, now - 10, now + 500);
        let cert = PushCert { version: 1, tls_key, publisher, issued, expires };
        Envelope::sign(&cert, f.fleet, &key(by)).unwrap()
    };
    let via = signed(&f, &cert(&f), &key(5));
    let door = |t: &Trust, via: &Envelope, by: u8, now: u64| {
        t.check_delegated_push(&push(now, by), via, tls_key, now).map(|c| c.publisher)
    };
    for now in [NOW - 300, NOW, NOW + HOUR, NOW + HOUR + 299] {
        assert_eq!(door(&t, &via, CI, now), Ok(f.publisher), "{now}");
    }
    for now in [NOW - 301, NOW + HOUR + 300] {
        assert!(matches!(door(&t, &via, CI, now), Err(AdmissionError::Time(_))), "{now}");
    }
    let foreign = signed(&f, &cert(&f), &key(9));
    let other_epoch = signed(&f, &Delegated { epoch: 2, ..cert(&f) }, &key(5));
    for (via, by) in [(&foreign, CI), (&via, 5), (&via, 9), (&other_epoch, CI)] {
        let r = door(&t, via, by, NOW);
        assert!(matches!(r, Err(AdmissionError::Signature { .. })), "{r:?}");
    }
    let other_tls = t.check_delegated_push(&push(NOW, CI), &via, key(8).public(), NOW);
    assert!(matches!(other_tls, Err(AdmissionError::OtherKey(_))));
    let entry = next(&f, &[]);
    assert!(t.check_door(&entry, NOW + HOUR + 300).is_ok());
    let r = t.check_door(&entry, NOW + HOUR + 301).unwrap_err();
    assert_eq!((r.code(), r.to_string().contains("ran out 301 s ago")), ("delegated_key", true));
    t.judge(&suicide(&f, 5, 5), NOW);
    assert!(matches!(door(&t, &via, CI, NOW), Err(AdmissionError::DeadKey(_))));
}
