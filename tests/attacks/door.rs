//! Whoever does not keep to the protocol is shut out, at once or after three seconds, and nobody
//! else notices.

use std::time::{Duration, Instant};

use stork_tests::fleet::{Fleet, Host, VmFile};
use stork_tests::forge;
use stork_tests::hostile::{Content, Deed, Knock, Lie, Peer, Talk, knock, place, runtime};
use stork_tests::wait::wait_until;
use stork_wire::charter::HostCert;
use stork_wire::codec::encode;
use stork_wire::frame::{
    ALPN_BULK, ALPN_CONTROL, Frame, Hello, LinkClass, OverlayFrame, TransferFrame,
};
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::sign::{Envelope, SecretKey};

use crate::check::{await_counter, has_event, untouched};

/// A fleet of two hosts with one release, of which the second one shows it to a VM, and the
/// content.
fn small_fleet() -> (Fleet, Content) {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    let package = fleet.package("app", "1", &[("app", b"version 1")]);
    fleet.push(&package, &["web"]);
    host.await_vm("vm", &[("app", "1")]);
    (fleet, Content::of_folder(&package.file, "app", "1"))
}

/// The host still has its link, and still hears news.
fn goes_on(fleet: &Fleet, version: &str) {
    let host = &fleet.hosts[1];
    assert_eq!(host.tell(&["status"])["links"], 1);
    let package = fleet.package("app", version, &[("app", version.as_bytes())]);
    fleet.push(&package, &["web"]);
    host.await_vm("vm", &[("app", version)]);
}

fn net(host: &Host, what: &str) -> u64 {
    host.tell(&["status"])["net"][what].as_u64().unwrap()
}

/// Knocks in these ways: each handshake fails, and is counted, and nobody else notices.
fn none_gets_in(ways: &[Knock]) {
    let (fleet, _) = small_fleet();
    let host = &fleet.hosts[1];
    let (node, addr) = place(host);
    let before = untouched(host);
    let runtime = runtime();
    for how in ways.iter().copied() {
        let failed = net(host, "handshakes_failed");
        let begun = Instant::now();
        let said = runtime.block_on(knock(how, node, addr));
        assert!(begun.elapsed() < Duration::from_secs(5), "{how:?}: {said}");
        wait_until(&format!("{how:?} to be counted: {said}"), || {
            net(host, "handshakes_failed") > failed
        });
    }
    assert_eq!(untouched(host), before);
    goes_on(&fleet, "2");
}

/// T077: a dialler that finds another host than the one it dialled goes away by itself.
#[test]
fn t077_a_dialler_that_finds_another_host() {
    none_gets_in(&[Knock::OtherHost]);
}

/// T078: TLS without a key, with an X.509 certificate, for another protocol or for none: the
/// handshake fails, and is counted.
#[test]
fn t078_only_raw_keys_and_known_protocols_get_in() {
    none_gets_in(&[Knock::NoKey, Knock::X509, Knock::OtherProtocol, Knock::NoProtocol]);
}

/// What a stranger says first, and how the door answers.
fn first_words(fleet: &Fleet) {
    let host = &fleet.hosts[1];
    let (node, addr) = place(host);
    let key = SecretKey::from_seed(&[21; 32]);
    let good = Peer::forged(
        key,
        forge::host(&fleet.charter, &SecretKey::from_seed(&[21; 32])),
        forge::fleet_of(&fleet.charter),
    );
    let ping =
        OverlayFrame::Ping { nonce: 1, fingerprint: [0; 8], class: LinkClass::Near, carries: 0 };
    let ping = encode(&Frame::Overlay(ping));
    let framed = |bytes: &[u8]| {
        let mut out = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        out.extend(bytes);
        out
    };
    let mut trailing = encode(&Frame::Hello(Box::new(good.hello())));
    trailing.push(0);
    let cases: [(&str, &[u8], Vec<u8>); 6] = [
        ("frame_too_long", ALPN_CONTROL, (16 * 1024u32 + 1).to_le_bytes().to_vec()),
        ("frame_too_long", ALPN_CONTROL, u32::MAX.to_le_bytes().to_vec()),
        ("malformed", ALPN_CONTROL, framed(b"GET / HTTP/1.1")),
        ("malformed", ALPN_CONTROL, framed(&trailing)),
        ("not_hello", ALPN_CONTROL, framed(&ping)),
        ("silent", ALPN_CONTROL, Vec::new()),
    ];
    for (code, alpn, bytes) in cases {
        let count = host.counter("connections_refused", code);
        let begun = Instant::now();
        let said = good.say(node, addr, alpn, &bytes);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(6), "{code} after {took:?}: {said}");
        await_counter(host, "connections_refused", code, count + 1);
        assert!(has_event(host, "connection_refused", ""), "{code}");
    }
    let said = good.say(node, addr, ALPN_BULK, b"");
    assert!(said.contains("say hello there first"), "{said}");
    await_counter(host, "connections_refused", "not_admitted", 1);
}

/// A first frame that is too long, garbage, not canonical or not a hello, no frame at all, and a
/// bulk connection before any hello: closed within seconds, each with its counter, and others go
/// on.
#[test]
fn t075_t076_whoever_does_not_say_hello_is_shut_out() {
    let (fleet, _) = small_fleet();
    let before = untouched(&fleet.hosts[1]);
    first_words(&fleet);
    assert_eq!(untouched(&fleet.hosts[1]), before);
    goes_on(&fleet, "2");
}

fn expired(fleet: &Fleet, key: &SecretKey) -> stork_wire::frame::PeerHint {
    let good = forge::host(&fleet.charter, key);
    let cert: HostCert = good.cert.claimed().unwrap();
    let (issued, expires) = (cert.issued - 7_200, cert.issued - 3_600);
    let cert = HostCert { issued, expires, ..cert };
    let path = fleet.charter.join("keys/admission");
    let admission =
        stork_publisher::keys::read_secret(&path, &stork_publisher::keys::Passphrase::None);
    let fleet = forge::fleet_of(&fleet.charter);
    let cert = Envelope::sign(&cert, fleet, &admission.unwrap()).unwrap();
    stork_wire::frame::PeerHint { cert, ..good }
}

/// A hello with an expired certificate, with the certificate of another key, of another fleet,
/// signed by the host itself, or of another version of the protocol: refused, each counted, no bulk
/// after it.
#[test]
fn t076_wrong_certificates_are_refused() {
    let (fleet, _) = small_fleet();
    let other = Fleet::charter_only(&["web"], None);
    let host = &fleet.hosts[1];
    let seed = || SecretKey::from_seed(&[31; 32]);
    let ours = forge::fleet_of(&fleet.charter);
    let good = forge::host(&fleet.charter, &seed());
    let foreign = forge::host(&other.charter, &seed());
    let mut own = good.clone();
    let claimed: HostCert = own.cert.claimed().unwrap();
    own.cert = Envelope::sign(&claimed, ours, &seed()).unwrap();
    let thief = SecretKey::from_seed(&[32; 32]);
    let late = expired(&fleet, &seed());
    let hello = |hint| Peer::forged(seed(), hint, ours);
    let before = untouched(host);
    let cases = [
        ("out_of_time", hello(late)),
        ("other_key", Peer::forged(thief, good.clone(), ours)),
        ("bad_signature", hello(foreign.clone())),
        ("bad_signature", hello(own)),
        ("other_fleet", Peer::forged(seed(), foreign, forge::fleet_of(&other.charter))),
    ];
    for (code, peer) in cases {
        let count = host.counter("hosts_refused", code);
        let said = peer.refused(host, &peer.hello());
        assert_ne!(said, "welcome", "{code}");
        assert_eq!(host.counter("hosts_refused", code), count + 1, "{said}");
        let (node, addr) = place(host);
        let said = peer.say(node, addr, ALPN_BULK, b"");
        assert!(said.contains("say hello there first"), "{code}: {said}");
    }
    let peer = hello(good);
    let newer = Hello { protocol: 99, ..peer.hello() };
    assert_ne!(peer.refused(host, &newer), "welcome");
    assert_eq!(untouched(host), before);
    assert_eq!(peer.refused(host, &peer.hello()), "welcome", "the same with all in order");
    goes_on(&fleet, "2");
}

fn ends(host: &Host, talk: &Talk, deed: Deed, counter: (&str, &str)) {
    let count = host.counter(counter.0, counter.1);
    talk.act(deed);
    let said = talk.await_end();
    await_counter(host, counter.0, counter.1, count + 1);
    assert!(!said.is_empty());
}

/// An insider that has said hello: streams that nobody asked for, requests without a grant, a frame
/// of 64 KiB and a byte, garbage, and a second hello. The first two are counted and ignored, the
/// others end its connection; what nobody asked for is not kept, and others go on.
#[test]
fn t080_an_insider_that_breaks_the_protocol() {
    let (fleet, content) = small_fleet();
    let host = &fleet.hosts[1];
    let insider = Peer::enlist(&fleet, "insider");
    let before = untouched(host);
    let talk = insider.dial(host);
    let status = || host.tell(&["status"])["bytes"]["unexpected_streams"].as_u64().unwrap();
    talk.act(Deed::Bulk(content.piece_stream(0, Lie::No)));
    talk.act(Deed::Bulk(content.manifest_stream(Lie::No)));
    talk.act(Deed::Bulk(b"no header at all, and longer than any header may be".repeat(100)));
    wait_until("three streams that nobody asked for", || status() == 3);

    // It opens the swarm as one who lacks everything, and asks without waiting for its turn.
    let swarm = content.swarm();
    let have = stork_wire::frame::Bits::default();
    let pieces = u32::try_from(content.pieces.len()).unwrap();
    let say = |f| talk.send(Frame::Transfer(f));
    say(TransferFrame::Request { swarm, piece: 0 });
    wait_until("a request of a stranger to the swarm", || net(host, "frames_nonsense") > 0);
    say(TransferFrame::Open { swarm, pieces: pieces + 1, have: have.clone() });
    await_counter(host, "peers_blamed", "nonsense", 1);
    say(TransferFrame::Open { swarm, pieces, have });
    talk.wait("the swarm to open", |f| {
        matches!(f, Frame::Transfer(TransferFrame::Open { .. })).then_some(())
    });
    for _ in 0..80 {
        say(TransferFrame::Request { swarm, piece: 0 });
    }
    await_counter(host, "peers_blamed", "ungranted", 1);
    assert!(host.counter("bytes_served", "pieces") < 1_000, "one grant serves one piece");

    let too_long = u32::try_from(FRAME_LEN_MAX + 1).unwrap().to_le_bytes().to_vec();
    ends(host, &insider.dial(host), Deed::Raw(too_long), ("peers_at_fault", "frame"));
    let garbage = [4u32.to_le_bytes(), [0xff; 4]].concat();
    ends(host, &insider.dial(host), Deed::Raw(garbage), ("peers_at_fault", "frame"));
    let hello = Frame::Hello(Box::new(insider.hello()));
    ends(host, &insider.dial(host), Deed::Send(hello), ("peers_at_fault", "order"));
    host.verify_store();
    assert_eq!(untouched(host), before);
    goes_on(&fleet, "2");
}

/// T119: a host of a later version sends types of frames that this one does not know, between those
/// that it does. They are counted and ignored, and nobody is blamed or shut out.
#[test]
fn t119_frames_of_a_later_version_are_ignored() {
    let (fleet, _) = small_fleet();
    let host = &fleet.hosts[1];
    let newer = Peer::enlist(&fleet, "newer");
    let talk = newer.dial(host);
    let blamed = host.counter("peers_at_fault", "frame");
    for body in [&[200, 1, 1, 2, 3][..], &[4, 99, 7, 7], &[5, 99], &[100]] {
        let len = u32::try_from(body.len()).unwrap().to_le_bytes();
        talk.act(Deed::Raw([&len[..], body].concat()));
    }
    await_counter(host, "frames_ignored", "unknown_type", 4);
    let ping =
        OverlayFrame::Ping { nonce: 77, fingerprint: [0; 8], carries: 0, class: LinkClass::Near };
    talk.send(Frame::Overlay(ping));
    talk.wait("the answer to what it knows", |f| {
        matches!(f, Frame::Overlay(OverlayFrame::Pong { nonce: 77, .. })).then_some(())
    });
    assert_eq!((talk.end(), host.counter("peers_at_fault", "frame")), (None, blamed));
}
