//! Bulk connections: pieces and manifests, one stream each, only what was asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use stork_wire::frame::{ALPN_BULK, BULK_HEADER_LEN_MAX, BulkHeader};
use stork_wire::ids::{ManifestId, NodeId, PieceHash, SwarmId};
use stork_wire::limits::MANIFEST_PIECE_LEN;
use stork_wire::sign::SecretKey;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::endpoint::connect;
use super::windows::{Accountant, Window};

/// A stream that brings nothing for so long is given up (attack A11: 5 s windows).
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes a stream must bring in every such window, or it counts as stalled.
const BYTES_PER_WINDOW_MIN: usize = 16 * 1024;

/// What a stream may bring: only what was asked for is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectKey {
    /// A piece.
    Piece(NodeId, SwarmId, u32),
    /// A manifest.
    Manifest(NodeId, ManifestId),
}

/// Size, and for a manifest the hash over its pieces' hashes.
#[derive(Debug, Clone, Copy)]
struct Expected {
    len: u64,
    pieces: Option<PieceHash>,
}

/// A piece on its way out.
#[derive(Debug)]
pub struct BulkPiece {
    /// What it is.
    pub header: BulkHeader,
    /// For a manifest of several pieces, their hashes.
    pub prefix: Vec<u8>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the bulk connections bring.
#[derive(Debug)]
pub enum BulkIn {
    /// All bytes of a piece, not yet verified.
    Piece {
        /// From whom.
        from: NodeId,
        /// Which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All bytes of a manifest, each piece verified.
    Manifest {
        /// From whom.
        from: NodeId,
        /// Which.
        manifest: ManifestId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A stream that was asked for brought too little, too slowly, or something else.
    Failed {
        /// What was expected.
        key: ExpectKey,
        /// Why.
        why: &'static str,
        /// The bytes contradict what was announced: the sender is at fault.
        bad: bool,
    },
}

/// All bulk connections of a node.
#[derive(Debug)]
pub struct Bulk {
    endpoint: Endpoint,
    key: Arc<SecretKey>,
    connections: DashMap<NodeId, Connection>,
    addresses: DashMap<NodeId, Vec<SocketAddr>>,
    expected: DashMap<ExpectKey, Expected>,
    incoming: mpsc::Sender<BulkIn>,
    accountant: Arc<Accountant>,
    /// Bytes sent and received.
    sent: AtomicU64,
    received: AtomicU64,
    unexpected: AtomicU64,
    streams: AtomicU64,
}

impl Bulk {
    pub(super) fn new(
        endpoint: Endpoint,
        key: Arc<SecretKey>,
        incoming: mpsc::Sender<BulkIn>,
        accountant: Arc<Accountant>,
    ) -> Self {
        Self {
            endpoint,
            key,
            connections: DashMap::new(),
            addresses: DashMap::new(),
            expected: DashMap::new(),
            incoming,
            accountant,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            unexpected: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    /// Bytes of content sent and received, and streams that nobody asked for.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        let load = |a: &AtomicU64| a.load(Ordering::Relaxed);
        (load(&self.sent), load(&self.received), load(&self.unexpected))
    }

    /// This host was admitted on a control connection: it may open bulk connections.
    pub fn admit(&self, node: NodeId, addrs: Vec<SocketAddr>) {
        self.addresses.insert(node, addrs);
    }

    /// This host's last control connection ended.
    pub fn expel(&self, node: NodeId) {
        self.addresses.remove(&node);
        if let Some((_, connection)) = self.connections.remove(&node) {
            connection.close(VarInt::from_u32(0), b"the control connection ended");
        }
    }

    /// A stream with this will come; any other is refused unread.
    pub fn expect(&self, key: ExpectKey, len: u64, pieces: Option<PieceHash>) {
        self.expected.insert(key, Expected { len, pieces });
    }

    /// That stream is no longer wanted.
    pub fn forget(&self, key: &ExpectKey) {
        self.expected.remove(key);
    }

    /// Was this host admitted on a control connection?
    pub(super) fn admits(&self, node: NodeId) -> bool {
        self.addresses.contains_key(&node)
    }

    /// Is this an address of a host that was admitted?
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.addresses.iter().any(|host| host.iter().any(|a| a.ip().to_canonical() == ip))
    }

    /// Serves an inbound bulk connection of a host that was admitted.
    pub(super) async fn serve(self: Arc<Self>, node: NodeId, connection: Connection) {
        self.connections.entry(node).or_insert_with(|| connection.clone());
        self.read_streams(node, connection).await;
    }

    async fn read_streams(self: Arc<Self>, node: NodeId, connection: Connection) {
        let mut window = Window::of_bulk(&self.accountant, &connection);
        let brought = Arc::new(AtomicBool::new(false));
        while let Ok(stream) = connection.accept_uni().await {
            if brought.swap(false, Ordering::Relaxed) {
                window.brought_content();
            }
            let (bulk, brought) = (Arc::clone(&self), Arc::clone(&brought));
            tokio::spawn(async move {
                if bulk.read_stream(node, stream).await {
                    brought.store(true, Ordering::Relaxed);
                }
            });
        }
        let id = connection.stable_id();
        self.connections.remove_if(&node, |_, c| c.stable_id() == id);
    }

    /// Reads a stream: did it bring what was asked for?
    async fn read_stream(&self, node: NodeId, mut stream: RecvStream) -> bool {
        let Some(header) = timeout(STALL_TIMEOUT, read_header(&mut stream)).await.ok().flatten()
        else {
            self.unexpected.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let (key, len) = match header {
            BulkHeader::Piece { swarm, piece, len } => {
                (ExpectKey::Piece(node, swarm, piece), u64::from(len))
            }
            BulkHeader::Manifest { manifest, len } => (ExpectKey::Manifest(node, manifest), len),
        };
        let Some((_, expected)) = self.expected.remove(&key) else {
            self.unexpected.fetch_add(1, Ordering::Relaxed);
            drop(stream.stop(VarInt::from_u32(2)));
            return false;
        };
        let outcome = if expected.len == len {
            read_body(&mut stream, len, expected.pieces).await
        } else {
            Err(("another length than announced", true))
        };
        let good = outcome.is_ok();
        let event = match outcome {
            Ok(bytes) => {
                self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                match key {
                    ExpectKey::Piece(from, swarm, piece) => {
                        BulkIn::Piece { from, swarm, piece, bytes }
                    }
                    ExpectKey::Manifest(from, manifest) => {
                        BulkIn::Manifest { from, manifest, bytes }
                    }
                }
            }
            Err((why, bad)) => {
                drop(stream.stop(VarInt::from_u32(3)));
                BulkIn::Failed { key, why, bad }
            }
        };
        drop(self.incoming.send(event).await);
        good
    }

    /// Sends a piece or manifest and waits until the peer has all of it.
    pub async fn send(self: &Arc<Self>, to: NodeId, piece: BulkPiece) -> Result<(), String> {
        let connection = self.connection_to(to).await?;
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let mut stream = Sending(connection.open_uni().await.map_err(|e| text(&e))?);
        let stream = &mut stream.0;
        // In order, not side by side: a piece that is whole can be verified and passed on.
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let order = i32::MAX - i32::try_from(number % (1 << 30)).unwrap_or(0);
        stream.set_priority(order).map_err(|e| text(&e))?;
        stream.write_all(&piece.header.to_bytes()).await.map_err(|e| text(&e))?;
        stream.write_all(&piece.prefix).await.map_err(|e| text(&e))?;
        let len = piece.bytes.len() as u64;
        // Handed over, not copied: QUIC keeps the piece itself until it is acknowledged.
        stream.write_chunk(piece.bytes.into()).await.map_err(|e| text(&e))?;
        stream.finish().map_err(|e| text(&e))?;
        match stream.stopped().await {
            Ok(None) => {
                self.sent.fetch_add(len, Ordering::Relaxed);
                Ok(())
            }
            Ok(Some(_)) => Err("the peer does not want it".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn connection_to(self: &Arc<Self>, node: NodeId) -> Result<Connection, String> {
        if let Some(c) = self.connections.get(&node)
            && c.close_reason().is_none()
        {
            return Ok(c.clone());
        }
        let addrs = self.addresses.get(&node).map(|a| a.clone()).unwrap_or_default();
        let connection = connect(&self.endpoint, &self.key, node, &addrs, ALPN_BULK).await?;
        self.connections.insert(node, connection.clone());
        let bulk = Arc::clone(self);
        tokio::spawn(bulk.read_streams(node, connection.clone()));
        Ok(connection)
    }
}

/// A stream whose sending may be given up at any moment. QUIC ends a stream that is dropped as if
/// all had been said; the receiver would take that for a piece that is too short, and blame us.
struct Sending(SendStream);

impl Drop for Sending {
    fn drop(&mut self) {
        // Of no effect once all was sent and acknowledged, or the peer does not want it.
        drop(self.0.reset(VarInt::from_u32(4)));
    }
}

async fn read_header(stream: &mut RecvStream) -> Option<BulkHeader> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await.ok()?;
    let len = usize::from(u16::from_le_bytes(len));
    if len > BULK_HEADER_LEN_MAX {
        return None;
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    BulkHeader::from_bytes(&body).ok()
}

type Fault = (&'static str, bool);

/// Reads a piece or a manifest of exactly `len` bytes, at a minimum rate.
async fn read_body(
    stream: &mut RecvStream,
    len: u64,
    pieces: Option<PieceHash>,
) -> Result<Vec<u8>, Fault> {
    let len = usize::try_from(len).map_err(|_e| ("too long", true))?;
    let out = match pieces {
        Some(root) => read_manifest(stream, len, root).await?,
        None => read_exactly(stream, len).await?,
    };
    let mut rest = [0; 1];
    match timeout(STALL_TIMEOUT, stream.read(&mut rest)).await {
        Ok(Ok(None)) => Ok(out),
        Ok(Ok(Some(_))) => Err(("more bytes than announced", true)),
        Ok(Err(_)) | Err(_) => Err(("the stream did not end", false)),
    }
}

/// Reads a manifest; of a long one its pieces' hashes first, and then each piece is checked.
async fn read_manifest(
    stream: &mut RecvStream,
    len: usize,
    root: PieceHash,
) -> Result<Vec<u8>, Fault> {
    let piece_len = usize::try_from(MANIFEST_PIECE_LEN).map_err(|_e| ("too long", true))?;
    let mut hashes = Vec::new();
    if len > piece_len {
        hashes = read_exactly(stream, len.div_ceil(piece_len) * 32).await?;
        if PieceHash::of(&hashes) != root {
            return Err(("a list of pieces that is not the announced one", true));
        }
    }
    let mut out = Vec::new();
    let mut hashes = hashes.chunks_exact(32);
    while out.len() < len {
        let bytes = read_exactly(stream, piece_len.min(len - out.len())).await?;
        if let Some(want) = hashes.next()
            && PieceHash::of(&bytes).as_bytes() != want
        {
            return Err(("a piece that does not hash to its announced value", true));
        }
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

/// Reads exactly `len` bytes into fresh memory that is neither cleared nor written twice.
async fn read_exactly(stream: &mut RecvStream, len: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(len);
    let late = sleep(STALL_TIMEOUT);
    tokio::pin!(late);
    let mut window = BYTES_PER_WINDOW_MIN;
    while out.len() < len {
        let read = tokio::select! {
            // The bytes first: what is here counts, however late this task is called.
            biased;
            read = stream.read_chunk(len - out.len(), true) => read,
            () = &mut late => return Err(("too slow", false)),
        };
        match read {
            Ok(Some(chunk)) => out.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(("fewer bytes than announced", true)),
            Err(_) => return Err(("the stream was reset", false)),
        }
        if out.len() >= window {
            window = out.len() + BYTES_PER_WINDOW_MIN;
            late.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::{client_config, server_config};

    /// What a receiver gets of a piece of 100 000 bytes whose sender does `end` after half of it.
    async fn half_a_piece(end: impl FnOnce(Sending) -> Option<Sending>) -> Result<Vec<u8>, Fault> {
        let key = SecretKey::from_seed(&[1; 32]);
        let node = NodeId(key.public().0);
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Endpoint::server(server_config(&key).unwrap(), addr).unwrap();
        let client = Endpoint::client(addr).unwrap();
        let config = client_config(&key, node, ALPN_BULK).unwrap();
        let to = server.local_addr().unwrap();
        let connecting = client.connect_with(config, to, "stork").unwrap();
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let (sender, receiver) = tokio::join!(connecting, accepting);
        let sender = sender.unwrap();
        let _window = Window::of_bulk(&Arc::default(), &receiver);
        let mut stream = Sending(sender.open_uni().await.unwrap());
        stream.0.write_all(&[7; 50_000]).await.unwrap();
        let mut incoming = receiver.accept_uni().await.unwrap();
        let kept = end(stream);
        let got = read_body(&mut incoming, 100_000, None).await;
        drop(kept);
        got
    }

    /// A sender that gives up is not one that lies: the receiver asks elsewhere, and blames nobody.
    #[tokio::test]
    async fn giving_up_is_no_lie() {
        let given_up = half_a_piece(|_| None).await;
        assert_eq!(given_up, Err(("the stream was reset", false)));
        let too_short = half_a_piece(|mut s| s.0.finish().map(|()| s).ok()).await;
        assert!(matches!(too_short, Err((_, true))), "{too_short:?}");
    }
}
