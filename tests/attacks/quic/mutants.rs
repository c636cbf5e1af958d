//! Clients that break QUIC itself, by a library that encrypts and numbers their packets well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use quinn::{ConnectionError, Endpoint};
use stork_tests::fleet::Fleet;
use stork_tests::hostile::mutant::{Mutant, Rewrite, filled, varint};
use stork_tests::hostile::{place, runtime};
use stork_tests::wait::wait_until;
use stork_wire::frame::ALPN_CONTROL;
use stork_wire::sign::SecretKey;
use stork_wire::tls;
use tokio::time::timeout;

use super::local;

/// Changes of random bytes, for each of several kinds.
const RANDOM: u64 = 24;

/// A generator of numbers that are the same in each run.
fn noise(mut seed: u64) -> u64 {
    seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Frames of RFC 9000 §19 that no client may send, or not like that.
fn deeds() -> Vec<(&'static str, Rewrite)> {
    let far = || varint(1 << 60, 8);
    let id = |n: u64| join(&[&[8], &noise(n).to_be_bytes(), &[n.to_le_bytes()[0]; 16]]);
    vec![
        (
            "acknowledges what was never sent",
            filled(|_| join(&[&[0x02], &varint(1 << 30, 8), &[0, 0, 0]])),
        ),
        ("acknowledges with a range below zero", filled(|_| join(&[&[0x02, 3, 0, 1, 2, 9, 9]]))),
        (
            "a storm of connection ids that retire each other",
            filled(move |n| join(&[&[0x18], &varint(n + 1, 4), &varint(n + 1, 4), &id(n)])),
        ),
        (
            "more connection ids than it may",
            filled(move |n| join(&[&[0x18], &varint(n + 1, 4), &[0], &id(n)])),
        ),
        ("retires a connection id that there is not", filled(|_| join(&[&[0x19], &varint(99, 2)]))),
        ("a storm of path challenges", filled(|n| join(&[&[0x1a], &noise(n).to_be_bytes()]))),
        ("answers to challenges that nobody made", filled(|_| vec![0x1b, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("crypto data far ahead", filled(move |_| join(&[&[0x06], &varint(1 << 40, 8), &[1, 7]]))),
        (
            "a stream beyond those that it may open",
            filled(|n| join(&[&[0x0a], &varint(4 * (n + 9), 4), &[1, 7]])),
        ),
        ("data beyond the window", filled(|_| join(&[&[0x0e, 0], &varint(1 << 20, 4), &[1, 7]]))),
        (
            "data at the end of all numbers",
            filled(move |_| join(&[&[0x0e, 0], &varint((1 << 62) - 1, 8), &[1, 7]])),
        ),
        (
            "a stream that ends at two places",
            filled(|n| join(&[&[0x0f, 0], &varint(n + 1, 2), &[1, 7]])),
        ),
        (
            "a reset at another place than its end",
            filled(|n| join(&[&[0x04, 0, 0], &varint(n + 1, 4)])),
        ),
        ("a stream of the host's own", filled(|_| vec![0x0a, 0x01, 1, 7])),
        ("streams without end", filled(move |_| join(&[&[0x12], &varint((1 << 62) - 1, 8)]))),
        ("credit without end", filled(move |_| join(&[&[0x10], &far()]))),
        ("says that the handshake is done", filled(|_| vec![0x1e])),
        ("a token of a server", filled(|_| vec![0x07, 2, 1, 1])),
        ("a frame of no type", filled(|_| varint(0x3fff, 2))),
        ("a length beyond its packet", filled(|_| join(&[&[0x0a, 0], &varint(9_999, 2)]))),
        ("a storm of pings", filled(|_| vec![0x01])),
    ]
}

/// Random bytes in place of some or of all that a packet has.
fn random() -> Vec<Rewrite> {
    let some = |seed: u64| -> Rewrite {
        Arc::new(move |packet, payload| {
            for n in 0..4 {
                let r = noise(seed ^ (packet << 8) ^ n);
                let at = usize::try_from(r >> 16).unwrap_or(0) % payload.len().max(1);
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= 1 << (r % 8);
                }
            }
        })
    };
    let all = |seed: u64| -> Rewrite {
        Arc::new(move |packet, payload| {
            for (n, byte) in (0u64..).zip(payload) {
                *byte = noise(seed ^ (packet << 20) ^ n).to_le_bytes()[0];
            }
        })
    };
    (0..RANDOM).flat_map(|seed| [some(seed), all(seed)]).collect()
}

/// The parameters of a client in its first flight: extension 57 of TLS (RFC 9001 §8.2).
fn parameters(flight: &mut [u8]) -> Option<&mut [u8]> {
    let at = flight.windows(2).rposition(|w| w == [0, 57])?;
    let len = usize::from(u16::from_be_bytes(flight.get(at + 2..at + 4)?.try_into().ok()?));
    flight.get_mut(at + 4..at + 4 + len)
}

/// Changes of transport parameters: other numbers, lengths that lie, the same one twice.
fn hellos() -> Vec<Rewrite> {
    (0..RANDOM)
        .map(|seed| -> Rewrite {
            Arc::new(move |flight, bytes| {
                if flight > 0 {
                    return;
                }
                let Some(params) = parameters(bytes) else { panic!("no parameters") };
                let len = params.len();
                for n in 0..=seed % 4 {
                    let r = noise(seed ^ (n << 32));
                    params[usize::try_from(r >> 8).unwrap_or(0) % len] = r.to_le_bytes()[0];
                }
            })
        })
        .collect()
}

/// T081: packets that break QUIC in every way that is listed, and in some hundred random ones, end
/// the connection that brings them and nothing else. The host goes on, with its link.
#[test]
fn t081_clients_that_break_quic() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[0];
    let (node, addr) = place(host);
    let links = || host.tell(&["status"])["links"].as_u64().unwrap();
    wait_until("the link", || links() == 1);
    let runtime = runtime();
    let _entered = runtime.enter();
    let endpoint = Endpoint::client(local()).unwrap();
    let keys = std::sync::atomic::AtomicU8::new(0);
    // One key has room for four connections.
    let dial = async |mutant: Mutant| -> ConnectionError {
        let key = SecretKey::from_seed(&[keys.fetch_add(1, Ordering::Relaxed); 32]);
        let tls = tls::client_config(&key, node, ALPN_CONTROL).unwrap();
        let connection = endpoint.connect_with(mutant.config(tls), addr, "stork").unwrap().await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(e) => return e,
        };
        let end = async {
            if let Ok((mut send, _recv)) = connection.open_bi().await {
                send.write_all(&[7; 12_000]).await.unwrap_or_default();
                return connection.closed().await;
            }
            connection.closed().await
        };
        timeout(Duration::from_secs(40), end).await.expect("the host ends the connection")
    };
    let mutant = |packets| Mutant { hello: None, packets: Some(packets), greedy: true };
    let (names, packets): (Vec<_>, Vec<_>) = deeds().into_iter().unzip();
    let ends = runtime.block_on(join_all(packets.into_iter().map(|p| dial(mutant(p)))));
    for (what, end) in names.iter().zip(ends) {
        println!("{what}: {end}");
    }
    runtime.block_on(join_all(random().into_iter().map(|p| dial(mutant(p)))));
    let changed = |h| Mutant { hello: Some(h), packets: None, greedy: false };
    let ends = runtime.block_on(join_all(hellos().into_iter().map(|h| dial(changed(h)))));
    let refused = |end: &&ConnectionError| matches!(end, ConnectionError::ConnectionClosed(_));
    let refused = ends.iter().filter(refused).count();
    println!("{refused} of {RANDOM} changed parameters were refused as such");
    assert!(refused > 0);
    assert_eq!(links(), 1, "the other host is as it was");
    assert!(fleet.hosts[0].log().lines().all(|l| !l.contains("panic")), "{}", host.log());
}
