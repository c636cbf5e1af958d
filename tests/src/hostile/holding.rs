//! Connections that take a host's memory and give nothing: on every stream that they may open they
//! send small pieces with gaps between them, as much as the host takes, and never the first byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use quinn::{Connection, Endpoint};
use stork_node::net::{read_raw, write_raw};
use stork_wire::codec::encode;
use stork_wire::frame::{
    ALPN_BULK, ALPN_CONTROL, ALPN_PUSH, Frame, Hello, LinkClass, PROTOCOL_VERSION,
};
use stork_wire::ids::NodeId;
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::sign::SecretKey;
use stork_wire::tls;

use super::mutant::{Mutant, Rewrite, varint};
use crate::forge;

/// Bytes that a client writes so that there are packets to fill: each gap takes a frame.
const WRITTEN: usize = 256 * 1024;
/// Bytes of a stream that are left with gaps: what a stranger may send.
const END: u64 = 16 * 1024;
/// Until then a host has seen the handshake and allowed streams.
const WAIT: Duration = Duration::from_millis(300);
/// Bytes between two gaps: the library ends a connection with more than 1 024 pieces in a stream.
const DATA: u8 = 63;
/// The length of a STREAM frame (RFC 9000 §19.8): type, stream, offset, length, data.
const FRAME_LEN: usize = 7 + DATA as usize;

/// Fills packets with pieces of these streams by turns, a byte missing before each, until `end`;
/// with pings before that is filled, when the host allows no stream yet.
fn gaps(streams: Vec<u8>, end: u64) -> Rewrite {
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    Arc::new(move |_, payload| {
        if begun.elapsed() < WAIT {
            return payload.fill(1);
        }
        let mut frames = payload.chunks_exact_mut(FRAME_LEN);
        for frame in &mut frames {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let offset = 1 + (u64::from(DATA) + 1) * (n / streams.len() as u64);
            frame.fill(0);
            if offset + u64::from(DATA) < end {
                let stream = streams[usize::try_from(n).unwrap_or(0) % streams.len()];
                let head = [&[0x0e, stream][..], &varint(offset, 4), &[DATA]].concat();
                frame[..head.len()].copy_from_slice(&head);
            }
        }
        frames.into_remainder().fill(0);
    })
}

/// Who holds a connection.
#[derive(Debug, Clone)]
pub enum Holder {
    /// Somebody without a certificate, on a control connection.
    Stranger,
    /// The same who says to be a publisher.
    Publisher,
    /// An admitted host on bulk connections, with what it says at first.
    Insider(Arc<SecretKey>, Box<Hello>),
}

async fn dial(
    endpoint: &Endpoint,
    (node, addr): (NodeId, SocketAddr),
    key: &SecretKey,
    alpn: &[u8],
    packets: Rewrite,
) -> Option<Connection> {
    let mutant = Mutant { hello: None, packets: Some(packets), greedy: true };
    let config = mutant.config(tls::client_config(key, node, alpn).unwrap());
    let connection = endpoint.connect_with(config, addr, "stork").unwrap().await.ok()?;
    Some(connection)
}

/// Writes as long as the host takes it; what the host gets is what the mutant makes of it.
fn fill(connection: &Connection) {
    let connection = connection.clone();
    tokio::spawn(async move {
        tokio::time::sleep(WAIT).await;
        // So that the library knows the streams that the host speaks of.
        let _one = connection.open_uni().await;
        let _two = connection.open_uni().await;
        let Ok((mut send, _recv)) = connection.open_bi().await else { return };
        // The host closes sooner or later, which is an error here and nothing else.
        send.write_all(&vec![0; WRITTEN]).await.unwrap_or_default();
        connection.closed().await;
    });
}

/// Says hello on a true control connection, and gives it back with its streams once admitted.
async fn admitted(
    endpoint: &Endpoint,
    (node, addr): (NodeId, SocketAddr),
    key: &SecretKey,
    hello: &Hello,
) -> (Connection, quinn::SendStream, quinn::RecvStream) {
    let config = super::quic(tls::client_config(key, node, ALPN_CONTROL).unwrap());
    let connection = endpoint.connect_with(config, addr, "stork").unwrap().await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let frame = encode(&Frame::Hello(Box::new(hello.clone())));
    write_raw(&mut send, &frame).await.unwrap();
    read_raw(&mut recv, 16 * FRAME_LEN_MAX).await.unwrap();
    (connection, send, recv)
}

/// Opens a hundred connections, or as many: two thirds of them of admitted hosts, which have four
/// each, and the others of strangers. Gives both kinds.
pub async fn hold_all(
    endpoint: &Endpoint,
    place: (NodeId, SocketAddr),
    charter: &Path,
    count: usize,
) -> (Vec<Connection>, Vec<Connection>) {
    let (mut insiders, hosts) = (Vec::new(), count / 6);
    for seed in (1..=u8::MAX).take(hosts) {
        let key = || SecretKey::from_seed(&[seed; 32]);
        let hint = forge::host(charter, &key());
        let record = (PROTOCOL_VERSION, forge::fleet_of(charter), LinkClass::Near);
        let (protocol, fleet, class) = record;
        let hello = Hello { protocol, fleet, peer: hint, class, starving: true };
        let holder = (Holder::Insider(key().into(), Box::new(hello)), 0);
        insiders.extend(hold(endpoint, place, holder, 4).await);
    }
    let rest = count.saturating_sub(4 * hosts);
    let strangers = hold(endpoint, place, (Holder::Stranger, 0), rest).await;
    insiders.iter().chain(&strangers).for_each(fill);
    (insiders, strangers)
}

/// Opens connections of one holder, and gives those that the host took; they are filled by
/// [`hold_all`]. A stranger has a key of its own for each.
pub async fn hold(
    endpoint: &Endpoint,
    place: (NodeId, SocketAddr),
    (holder, seed): (Holder, u16),
    count: usize,
) -> Vec<Connection> {
    let mut held = Vec::new();
    match holder {
        Holder::Stranger | Holder::Publisher => {
            let publisher = matches!(holder, Holder::Publisher);
            let alpn = if publisher { ALPN_PUSH } else { ALPN_CONTROL };
            let dials =
                (0..count).map(|n| {
                    let mut bytes = [9; 32];
                    let own = seed.wrapping_add(u16::try_from(n).unwrap_or(0));
                    bytes[..2].copy_from_slice(&own.to_le_bytes());
                    // Within what a stranger may send: more is an error that ends the connection.
                    let packets = gaps(vec![0], END);
                    async move {
                        dial(endpoint, place, &SecretKey::from_seed(&bytes), alpn, packets).await
                    }
                });
            held.extend(join_all(dials).await.into_iter().flatten());
        }
        Holder::Insider(key, hello) => {
            let (connection, send, recv) = admitted(endpoint, place, &key, &hello).await;
            let kept = connection.clone();
            tokio::spawn(async move {
                kept.closed().await;
                drop((send, recv));
            });
            held.push(connection);
            for _ in 1..count {
                // The two streams in one direction that a bulk connection may open at first; each
                // takes half of the window that all have.
                let packets = gaps(vec![2, 6], 2 * END);
                held.extend(dial(endpoint, place, &key, ALPN_BULK, packets).await);
            }
        }
    }
    held
}
