//! One host, as the hostile one sees it: a good neighbour in the overlay, a bad one in swarms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use stork_wire::codec::List;
use stork_wire::frame::{
    ALPN_BULK, Bits, BulkHeader, Frame, LinkClass, OverlayFrame, PeerHint, TransferFrame,
};
use stork_wire::ids::{FleetId, NodeId, SwarmId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::sign::SecretKey;
use tokio::sync::{mpsc, watch};

use crate::net::{dial_once, read_raw, write_raw};

/// Between two offers to a host that did not take the first.
const OFFER_EVERY: Duration = Duration::from_millis(10);
/// Offers to one host, so that it ends: 5 s.
const OFFERS_MAX: u32 = 500;

/// A piece of a swarm as it should be.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pack: PathBuf,
    offset: u64,
    len: u32,
}

/// The swarms that it takes part in, with their pieces.
pub(super) type Content = BTreeMap<SwarmId, Vec<Piece>>;

/// What its tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) key: SecretKey,
    pub(super) hint: PeerHint,
    pub(super) fleet: FleetId,
    pub(super) content: Mutex<Content>,
    /// The newest announcement that it was sent.
    pub(super) heard: watch::Sender<Option<Item>>,
    /// Blocks that were asked for and sent with a flipped bit.
    pub(super) flipped: AtomicU64,
}

pub(super) fn pieces_of(manifest: &Manifest, variant: Variant, packs: &Path) -> Vec<Piece> {
    let piece_len = manifest.packing.piece_len;
    let mut out = Vec::new();
    for pack in manifest.packing.packs(variant) {
        for (i, _) in (0u64..).zip(pack.pieces.iter()) {
            let offset = i * u64::from(piece_len);
            let left = u32::try_from(pack.size.saturating_sub(offset)).unwrap_or(u32::MAX);
            let path = packs.join(pack.id.to_string());
            out.push(Piece { pack: path, offset, len: left.min(piece_len) });
        }
    }
    out
}

/// Says that it has everything.
pub(super) fn open_frame(swarm: SwarmId, pieces: &[Piece]) -> TransferFrame {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    TransferFrame::Open { swarm, pieces: count, have: Bits::from_pieces(0..count, count) }
}

pub(super) async fn write_frames(mut send: SendStream, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if write_raw(&mut send, &frame.to_bytes()).await.is_err() {
            return;
        }
    }
}

/// One host, as the hostile one sees it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) shared: Arc<Shared>,
    pub(super) node: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) class: LinkClass,
    pub(super) frames: mpsc::Sender<Frame>,
    pub(super) bulk: Arc<tokio::sync::Mutex<Option<(Endpoint, Connection)>>>,
    /// Blocks that this host asked for.
    pub(super) served: Arc<AtomicU64>,
}

impl Peer {
    /// Reads until the connection ends, which it also keeps open.
    pub(super) async fn read(self, mut recv: RecvStream, _open: (Endpoint, Connection)) {
        while let Ok(bytes) = read_raw(&mut recv, FRAME_LEN_MAX).await {
            let answer = match Frame::from_bytes(&bytes, FRAME_LEN_MAX) {
                Ok(Frame::Overlay(frame)) => self.overlay(frame).map(Frame::Overlay),
                Ok(Frame::Transfer(frame)) => self.transfer(frame).map(Frame::Transfer),
                _ => None,
            };
            if let Some(answer) = answer
                && self.frames.send(answer).await.is_err()
            {
                return;
            }
        }
    }

    /// A good neighbour as far as the overlay can see: it answers, and never disagrees.
    fn overlay(&self, frame: OverlayFrame) -> Option<OverlayFrame> {
        let class = self.class;
        match frame {
            OverlayFrame::Ping { nonce, fingerprint, .. } => {
                Some(OverlayFrame::Pong { nonce, fingerprint, class })
            }
            OverlayFrame::Shuffle { nonce, .. } => {
                Some(OverlayFrame::ShuffleReply { nonce, peers: List::empty() })
            }
            OverlayFrame::Heads { heads, last, answer: true } => {
                Some(OverlayFrame::Heads { heads, last, answer: false })
            }
            OverlayFrame::Push { item, .. } if item.kind == ItemKind::Entry => {
                self.shared.heard.send_replace(Some(*item));
                None
            }
            _ => None,
        }
    }

    fn transfer(&self, frame: TransferFrame) -> Option<TransferFrame> {
        match frame {
            TransferFrame::Open { swarm, .. } => {
                let content = self.shared.content.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(pieces) = content.get(&swarm) else {
                    return Some(TransferFrame::Close(swarm));
                };
                let open = open_frame(swarm, pieces);
                drop(content);
                tokio::spawn(self.clone().offer(swarm));
                Some(open)
            }
            TransferFrame::Request { swarm, piece } => {
                let peer = self.clone();
                tokio::spawn(async move {
                    // A host that is killed meanwhile gets nothing, and that is no failure here.
                    drop(peer.serve(swarm, piece).await);
                });
                None
            }
            TransferFrame::Grant { swarm, .. } => Some(TransferFrame::Pass(swarm)),
            _ => None,
        }
    }

    /// Offers a block at once, and again until one is taken.
    async fn offer(self, swarm: SwarmId) {
        let before = self.served.load(Ordering::Relaxed);
        for _ in 0..OFFERS_MAX {
            let grant = TransferFrame::Grant { swarm, ttl_ms: 2_000 };
            let sent = self.frames.send(Frame::Transfer(grant)).await;
            if sent.is_err() || self.served.load(Ordering::Relaxed) > before {
                return;
            }
            tokio::time::sleep(OFFER_EVERY).await;
        }
    }

    /// Sends the block that was asked for, with one bit flipped.
    async fn serve(&self, swarm: SwarmId, piece: u32) -> Result<(), String> {
        let wanted = {
            let content = self.shared.content.lock().unwrap_or_else(PoisonError::into_inner);
            content.get(&swarm).and_then(|p| p.get(piece as usize)).cloned()
        };
        let wanted = wanted.ok_or("there is no such piece")?;
        let mut bytes = read_at(&wanted).map_err(|e| e.to_string())?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let connection = self.bulk().await?;
        let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
        let header = BulkHeader::Piece { swarm, piece, len: wanted.len };
        stream.write_all(&header.to_bytes()).await.map_err(|e| e.to_string())?;
        stream.write_all(&bytes).await.map_err(|e| e.to_string())?;
        stream.finish().map_err(|e| e.to_string())?;
        self.shared.flipped.fetch_add(1, Ordering::Relaxed);
        // The stream lives until the host has read it.
        drop(stream.stopped().await);
        Ok(())
    }

    async fn bulk(&self) -> Result<Connection, String> {
        let mut open = self.bulk.lock().await;
        if let Some((_, connection)) = &*open {
            return Ok(connection.clone());
        }
        let (endpoint, connection) =
            dial_once(&self.shared.key, self.node, &[self.addr], ALPN_BULK).await?;
        *open = Some((endpoint, connection.clone()));
        Ok(connection)
    }
}

fn read_at(piece: &Piece) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(piece.len).unwrap_or(0)];
    std::fs::File::open(&piece.pack)?.read_exact_at(&mut bytes, piece.offset)?;
    Ok(bytes)
}
