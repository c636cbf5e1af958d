//! A hostile host: admitted with a real token, so that certificate and record are good, it then
//! sends forged announcements and serves blocks with a flipped bit.
//!
//! It speaks the protocol by hand: what it does wrong is nothing that a node could be told to do.

mod peer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stork_wire::charter::{BODY_VERSION, JoinToken, PeerRecord};
use stork_wire::codec::{Blob, List, decode, encode};
use stork_wire::feed::{Entry, Kind};
use stork_wire::frame::{
    ALPN_CONTROL, Frame, Hello, LinkClass, OverlayFrame, PROTOCOL_VERSION, PeerHint,
};
use stork_wire::ids::{GroupId, NodeId, SwarmId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::{FRAME_LEN_MAX, RECORD_LEN_MAX};
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::sign::Envelope;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::DemoError;
use crate::net::{dial_once, read_raw, write_raw};
use crate::store::{Store, StoreOptions};
use crate::{identity, join};
use peer::{Peer, Shared, open_frame, pieces_of, write_frames};

/// How long its peers may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Frames that wait for one host.
const FRAMES_MAX: usize = 1_024;

fn failed(what: &str, e: impl std::fmt::Display) -> DemoError {
    DemoError::Insider(format!("{what}: {e}"))
}

/// The way to one host.
#[derive(Debug)]
struct Way {
    frames: mpsc::Sender<Frame>,
}

/// The hostile host.
#[derive(Debug)]
pub(super) struct Insider {
    shared: Arc<Shared>,
    ways: Vec<Way>,
    tasks: JoinSet<()>,
}

/// What is sent to every host.
#[derive(Debug)]
pub(super) struct Forgeries {
    /// A changed announcement under the signature of the real one.
    pub(super) stolen: String,
    /// A changed announcement that it signed itself.
    pub(super) own: String,
    pub(super) sent: u64,
}

impl Insider {
    /// Joins the fleet as any host would.
    pub(super) async fn join(dir: &Path, token: &str, group: GroupId) -> Result<Self, DemoError> {
        let (token, envelope) = JoinToken::from_text(token).map_err(|e| failed("token", e))?;
        let options = StoreOptions {
            min_free_bytes: 16 << 20,
            min_free_inodes: 100,
            ..StoreOptions::default()
        };
        let (store, _) = Store::open(dir, options).map_err(|e| failed("store", e))?;
        let name = token.name.clone();
        let name = name.ok_or_else(|| DemoError::Insider("the token names no host".into()))?;
        let joined = join::join(&store, dir, &token, envelope, name);
        let joined = joined.await.map_err(|e| failed("join", e))?;
        let key = identity::open_or_create(dir).map_err(|e| failed("key", e))?;
        let cert = store.get_state("cert").map_err(|e| failed("store", e))?.unwrap_or_default();
        let cert: Envelope = decode(&cert, RECORD_LEN_MAX).map_err(|e| failed("certificate", e))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = PeerRecord {
            version: BODY_VERSION,
            node: joined.cert.node,
            incarnation: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            addrs: List::empty(),
            site: joined.cert.site,
            // Hosts ask those that want the same.
            groups: List::truncated([group]),
            cell: None,
            admits: false,
            issued: now.as_secs(),
            expires: now.as_secs() + 3_600,
        };
        let record =
            Envelope::sign(&record, joined.fleet, &key).map_err(|e| failed("record", e))?;
        let shared = Shared {
            key,
            hint: PeerHint { cert, record },
            fleet: joined.fleet,
            content: Mutex::default(),
            heard: watch::channel(None).0,
            flipped: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), ways: Vec::new(), tasks: JoinSet::new() })
    }

    /// Connects with a host and becomes one of its overlay links.
    pub(super) async fn connect(
        &mut self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<(), DemoError> {
        let shared = Arc::clone(&self.shared);
        let dialled = dial_once(&shared.key, node, &[addr], ALPN_CONTROL).await;
        let (endpoint, connection) = dialled.map_err(|e| failed("dial", e))?;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            fleet: shared.fleet,
            peer: shared.hint.clone(),
            class: LinkClass::Near,
            starving: true,
        };
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| failed("hello", e))?;
        let hello = Frame::Hello(Box::new(hello)).to_bytes();
        write_raw(&mut send, &hello).await.map_err(|e| failed("hello", e))?;
        let answer = timeout(ANSWER, read_raw(&mut recv, FRAME_LEN_MAX)).await;
        let answer = answer.map_err(|e| failed("hello", e))?.map_err(|e| failed("hello", e))?;
        let class = match Frame::from_bytes(&answer, FRAME_LEN_MAX) {
            Ok(Frame::HelloAck(ack)) => ack.class,
            _ => return Err(DemoError::Insider("it was not welcomed".into())),
        };
        if class == LinkClass::Transient {
            return Err(DemoError::Insider("it was given no overlay link".into()));
        }
        let (frames, out) = mpsc::channel(FRAMES_MAX);
        let peer = Peer {
            shared,
            node,
            addr,
            class,
            frames: frames.clone(),
            bulk: Arc::default(),
            served: Arc::default(),
        };
        self.ways.push(Way { frames });
        self.tasks.spawn(write_frames(send, out));
        self.tasks.spawn(peer.read(recv, (endpoint, connection)));
        Ok(())
    }

    async fn send_all(&self, frame: &Frame) -> u64 {
        let mut sent = 0;
        for way in &self.ways {
            sent += u64::from(way.frames.send(frame.clone()).await.is_ok());
        }
        sent
    }

    /// Waits until an announcement of this version reached it by gossip, as it reaches every host.
    pub(super) async fn heard(&self, version: &str) -> Result<Item, DemoError> {
        let mut heard = self.shared.heard.subscribe();
        let is_it = |item: &Option<Item>| {
            let entry = item.as_ref().and_then(|i| i.envelope.claimed::<Entry>().ok());
            matches!(entry.map(|e| e.kind), Some(Kind::Release(r)) if r.version.as_str() == version)
        };
        let found = timeout(ANSWER, heard.wait_for(is_it)).await;
        let found = found.map_err(|e| failed("hear the announcement", e))?;
        let found = found.map_err(|e| failed("hear the announcement", e))?.clone();
        found.ok_or_else(|| DemoError::Insider("it heard nothing".into()))
    }

    /// Sends forged announcements to every host: each claims to follow the real one.
    pub(super) async fn forge(&self, real: &Item) -> Result<Forgeries, DemoError> {
        let claimed = real.envelope.claimed::<Entry>().map_err(|e| failed("entry", e))?;
        let forged = |ahead: u64, text: &str| -> Result<Entry, DemoError> {
            let mut entry = claimed.clone();
            entry.seq = real.seq + ahead;
            entry.prev = Some(real.envelope.hash());
            if let Kind::Release(r) = &mut entry.kind {
                r.version = text.parse().map_err(|e| failed("version", e))?;
                r.release += ahead;
            }
            Ok(entry)
        };
        let (stolen, own) = ("99.0-stolen-signature", "99.1-own-signature");
        let body = Blob::new(encode(&forged(1, stolen)?)).map_err(|e| failed("body", e))?;
        let first = Envelope { body, signatures: real.envelope.signatures.clone() };
        let second = Envelope::sign(&forged(2, own)?, self.shared.fleet, &self.shared.key);
        let second = second.map_err(|e| failed("sign", e))?;
        let mut sent = 0;
        for (seq, envelope) in [(real.seq + 1, first), (real.seq + 2, second)] {
            let item = Box::new(Item { kind: ItemKind::Entry, log: real.log, seq, envelope });
            let push = OverlayFrame::Push { hop: 1, age_ms: 0, entry: 0, item };
            sent += self.send_all(&Frame::Overlay(push)).await;
        }
        Ok(Forgeries { stolen: stolen.into(), own: own.into(), sent })
    }

    /// Takes part in the swarms of a release that it knows: `packed` is what `pack --out` wrote.
    pub(super) async fn arm(&self, packed: &Path) -> Result<(), DemoError> {
        let bytes = std::fs::read(packed.join("manifest")).map_err(|e| failed("manifest", e))?;
        let manifest = Manifest::from_bytes(&bytes).map_err(|e| failed("manifest", e))?;
        let id = Manifest::reference(&bytes).id;
        for variant in [Variant::Full, Variant::Delta] {
            let swarm = SwarmId::for_variant(id, variant);
            let pieces = pieces_of(&manifest, variant, &packed.join("packs"));
            let open = open_frame(swarm, &pieces);
            let content = &self.shared.content;
            content.lock().unwrap_or_else(PoisonError::into_inner).insert(swarm, pieces);
            // Whoever does not take part yet answers when it does.
            self.send_all(&Frame::Transfer(open)).await;
        }
        Ok(())
    }

    /// Blocks that hosts asked for and got with a flipped bit.
    pub(super) fn flipped(&self) -> u64 {
        self.shared.flipped.load(Ordering::Relaxed)
    }
}
