//! Who gets in: a token is good once, for its time, for its fleet; a certificate for its fleet.

use std::net::SocketAddr;

use stork_node::net::{dial_once, read_raw, write_raw};
use stork_tests::fleet::{Fleet, Host};
use stork_tests::forge;
use stork_wire::codec::encode;
use stork_wire::frame::{ALPN_CONTROL, Frame, Hello, LinkClass, PROTOCOL_VERSION, PeerHint};
use stork_wire::ids::NodeId;
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::sign::SecretKey;

/// The exit code of what is refused by trust.
const REFUSED: i32 = 4;

fn refused(fleet: &Fleet, host: &Host, token: &str, reason: &str) {
    let before = fleet.hosts[0].counter("joins_refused", reason);
    let out = host.node(&["join", token]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(REFUSED), "{error}");
    assert!(error.contains("help: "), "{error}");
    assert_eq!(fleet.hosts[0].counter("joins_refused", reason), before + 1, "{reason}: {error}");
    // It belongs to no fleet, so it cannot run, and says so.
    let run = host.node(&["run"]);
    let error = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(78), "{error}");
    assert!(error.contains("has not joined a fleet"), "{error}");
}

/// A token lets one host in. The second host that shows it is refused, also after a restart of the
/// admitting node; both times a counter says why.
#[test]
fn a_token_is_good_once() {
    let mut fleet = Fleet::new(&["web"], 1);
    let token = fleet.token("host-2");
    let (first, second) = (fleet.stranger("first"), fleet.stranger("second"));
    let said = first.node_ok(&["join", &token]);
    assert!(said.contains("as `host-2`"), "{said}");
    assert_eq!(fleet.hosts[0].counter("joins", "admitted"), 1);
    refused(&fleet, &second, &token, "used_token");
    fleet.hosts[0].restart();
    refused(&fleet, &second, &token, "used_token");
    // A new token helps, and who belongs to the fleet already is told so without harm.
    let said = second.node_ok(&["join", &fleet.token("host-3")]);
    assert!(said.contains("as `host-3`"), "{said}");
    let again = second.node_ok(&["join", &fleet.token("host-4")]);
    assert!(again.contains("already so"), "{again}");
}

/// T116: the node that a token names is down. Joining ends within half a minute with what to look
/// at, an exit code that says "try again", and nothing changed: with the node back, it works.
#[test]
fn t116_joining_while_the_admitting_node_is_down() {
    let mut fleet = Fleet::new(&["web"], 1);
    let (token, stranger) = (fleet.token("late"), fleet.stranger("late"));
    fleet.hosts[0].stop();
    let began = std::time::Instant::now();
    let out = stranger.node(&["join", &token]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(75), "{error}");
    assert!(
        error.contains("cannot be reached") && error.contains("help: check address"),
        "{error}"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
    fleet.hosts[0].start();
    let said = stranger.node_ok(&["join", &token]);
    assert!(said.contains("as `late`"), "{said}");
}

/// Tokens that have run out, that another fleet signed, or that were changed let nobody in.
#[test]
fn wrong_tokens_let_nobody_in() {
    let fleet = Fleet::new(&["web"], 1);
    let other = Fleet::charter_only(&["web"], None);
    let (id, addr) = (fleet.hosts[0].id(), fleet.hosts[0].addr());
    let ours = forge::fleet_of(&fleet.charter);
    let stranger = fleet.stranger("stranger");
    let past = forge::now() - 60;
    let expired = forge::token(&fleet.charter, ours, &id, &addr, past);
    refused(&fleet, &stranger, &expired, "out_of_time");
    let later = forge::now() + 600;
    let theirs = forge::token(&other.charter, forge::fleet_of(&other.charter), &id, &addr, later);
    refused(&fleet, &stranger, &theirs, "bad_signature");
    let pretends = forge::token(&other.charter, ours, &id, &addr, later);
    refused(&fleet, &stranger, &pretends, "bad_signature");

    // Two digits were lost when the token was copied: that is a usage error, said on this host.
    let token = fleet.token("host-2");
    let cut = token.get(..token.len() - 2).unwrap();
    let out = stranger.node(&["join", cut]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(error.contains("check sum"), "{error}");
}

/// Says hello to a host with this certificate, and returns how the host ended the connection.
fn hello(host: &Host, key: &SecretKey, peer: PeerHint, fleet: stork_wire::ids::FleetId) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id: NodeId = host.id().parse().unwrap();
    let addr: SocketAddr = host.addr().parse().unwrap();
    runtime.block_on(async move {
        let (_endpoint, connection) = dial_once(key, id, &[addr], ALPN_CONTROL).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let class = LinkClass::Far;
        let protocol = PROTOCOL_VERSION;
        let hello = Frame::Hello(Box::new(Hello { protocol, fleet, peer, class, starving: true }));
        write_raw(&mut send, &encode(&hello)).await.unwrap();
        match read_raw(&mut recv, 16 * FRAME_LEN_MAX).await {
            Ok(bytes) => match Frame::from_bytes(&bytes, 16 * FRAME_LEN_MAX) {
                Ok(Frame::HelloAck(_)) => "welcome".to_owned(),
                other => format!("{other:?}"),
            },
            Err(_) => connection.closed().await.to_string(),
        }
    })
}

/// A host with a certificate of another fleet is refused, whether it names its own fleet or ours;
/// the same host with a certificate of this fleet would be welcome.
#[test]
fn a_certificate_of_another_fleet_is_refused() {
    let fleet = Fleet::new(&["web"], 1);
    let other = Fleet::charter_only(&["web"], None);
    let host = &fleet.hosts[0];
    let (ours, theirs) = (forge::fleet_of(&fleet.charter), forge::fleet_of(&other.charter));
    let key = SecretKey::from_seed(&[7; 32]);
    let foreign = forge::host(&other.charter, &key);
    let said = hello(host, &key, foreign.clone(), theirs);
    assert!(said.contains("belongs to the fleet"), "{said}");
    assert_eq!(host.counter("hosts_refused", "other_fleet"), 1);
    let said = hello(host, &key, foreign, ours);
    assert!(said.contains("the certificate"), "{said}");
    assert_eq!(host.counter("hosts_refused", "bad_signature"), 1);
    assert_eq!(host.tell(&["peers"])["peers"], serde_json::json!([]));

    assert_eq!(hello(host, &key, forge::host(&fleet.charter, &key), ours), "welcome");
    // A good certificate is of no use to whoever does not have its key.
    let thief = SecretKey::from_seed(&[8; 32]);
    let said = hello(host, &thief, forge::host(&fleet.charter, &key), ours);
    assert!(said.contains("another key"), "{said}");
    assert_eq!(host.counter("hosts_refused", "other_key"), 1);
}
