//! A QUIC client that does not keep to QUIC: its packets are encrypted and numbered as they must
//! be, but what is in them is written anew just before, and its first flight of TLS as well.
//!
//! It is quinn with another cryptography around its own: that sees every packet in the clear.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{self, CryptoError, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// Writes something else into what is sent; the number says which it is.
pub type Rewrite = Arc<dyn Fn(u64, &mut [u8]) + Send + Sync>;

/// What a client does to what it sends.
#[derive(Clone)]
pub struct Mutant {
    /// To its first flight of TLS, which ends with its transport parameters.
    pub hello: Option<Rewrite>,
    /// To what is in each packet after the handshake.
    pub packets: Option<Rewrite>,
    /// It sends as much as it likes, whatever the host allows.
    pub greedy: bool,
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutant").field("greedy", &self.greedy).finish_non_exhaustive()
    }
}

impl Mutant {
    /// A configuration of quinn that does this.
    #[must_use]
    pub fn config(self, tls: rustls::ClientConfig) -> quinn::ClientConfig {
        let inner = Arc::new(QuicClientConfig::try_from(tls).unwrap());
        quinn::ClientConfig::new(Arc::new(Config { inner, mutant: self }))
    }
}

struct Config {
    inner: Arc<QuicClientConfig>,
    mutant: Mutant,
}

impl crypto::ClientConfig for Config {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = Arc::clone(&self.inner).start_session(version, server_name, params)?;
        let (mutant, keys, flights) = (self.mutant.clone(), 0, 0);
        Ok(Box::new(Changed { inner, mutant, keys, flights }))
    }
}

/// A session whose packets are changed.
struct Changed {
    inner: Box<dyn Session>,
    mutant: Mutant,
    /// Keys that were made: the second ones are those after the handshake.
    keys: usize,
    flights: u64,
}

impl Changed {
    fn wrap(&self, key: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
        match &self.mutant.packets {
            Some(rewrite) => Box::new(Key { inner: key, rewrite: Arc::clone(rewrite) }),
            None => key,
        }
    }
}

impl Session for Changed {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn PacketKey>)> {
        None
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let said = self.inner.transport_parameters()?;
        Ok(said.map(|p| if self.mutant.greedy { without_limits(&p) } else { p }))
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let before = buf.len();
        let mut keys = self.inner.write_handshake(buf);
        if let Some(rewrite) = &self.mutant.hello
            && self.keys == 0
        {
            rewrite(self.flights, &mut buf[before..]);
            self.flights += 1;
        }
        if let Some(made) = keys.take() {
            self.keys += 1;
            let Keys { header, packet } = made;
            let local = if self.keys == 2 { self.wrap(packet.local) } else { packet.local };
            keys = Some(Keys { header, packet: KeyPair { local, remote: packet.remote } });
        }
        keys
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let KeyPair { local, remote } = self.inner.next_1rtt_keys()?;
        Some(KeyPair { local: self.wrap(local), remote })
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

struct Key {
    inner: Box<dyn PacketKey>,
    rewrite: Rewrite,
}

impl PacketKey for Key {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.inner.tag_len();
        (self.rewrite)(packet, &mut buf[header_len..end]);
        self.inner.encrypt(packet, buf, header_len);
    }
    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)
    }
    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }
    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }
    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

/// A number as QUIC writes it (RFC 9000 §16), in so many bytes: 1, 2, 4 or 8.
#[must_use]
pub fn varint(n: u64, len: usize) -> Vec<u8> {
    let tag = match len {
        1 => 0,
        2 => 0x40,
        4 => 0x80,
        _ => 0xc0,
    };
    let mut bytes = n.to_be_bytes()[8 - len..].to_vec();
    bytes[0] |= tag;
    bytes
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let len = 1 << (from.first()? >> 6);
    let (bytes, rest) = from.split_at_checked(len)?;
    *from = rest;
    let mut n = u64::from(bytes[0] & 0x3f);
    bytes[1..].iter().for_each(|b| n = n << 8 | u64::from(*b));
    Some(n)
}

/// The same parameters of a host (RFC 9000 §18.2) without its limits on data and streams.
fn without_limits(said: &TransportParameters) -> TransportParameters {
    let mut old = Vec::new();
    said.write(&mut old);
    let (mut rest, mut new) = (&old[..], Vec::new());
    while let Some(id) = take_varint(&mut rest) {
        let len = usize::try_from(take_varint(&mut rest).unwrap()).unwrap();
        let (value, after) = rest.split_at(len);
        rest = after;
        if !(4..=9).contains(&id) {
            new.extend(varint(id, 8));
            new.extend(varint(len as u64, 8));
            new.extend(value);
        }
    }
    for id in 4..=9 {
        new.extend([varint(id, 1), varint(8, 1), varint(1 << 40, 8)].concat());
    }
    TransportParameters::read(Side::Client, &mut &new[..]).unwrap()
}

/// Fills packets with frames that `frame` makes, as many as have room, and padding after them.
/// The frames are numbered over all packets of all connections that use it.
#[must_use]
pub fn filled(frame: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Rewrite {
    let count = AtomicUsize::new(0);
    Arc::new(move |_, payload| {
        let mut at = 0;
        loop {
            let bytes = frame(count.load(Ordering::Relaxed) as u64);
            let Some(room) = payload.get_mut(at..at + bytes.len()).filter(|_| !bytes.is_empty())
            else {
                break;
            };
            room.copy_from_slice(&bytes);
            at += bytes.len();
            count.fetch_add(1, Ordering::Relaxed);
        }
        payload[at..].fill(0);
    })
}
