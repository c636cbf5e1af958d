//! A node for tests: the push protocol over a real QUIC socket, its state in memory, with switches
//! for what hostile or unlucky nodes do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use stork_wire::charter::PushCert;
use stork_wire::codec::{List, decode, encode};
use stork_wire::feed::{Entry, Kind, Release, view_root};
use stork_wire::frame::{ALPN_PUSH, PackState, PushReply, PushRequest, RELEASES_AT_ONCE, Refusal};
use stork_wire::ids::{ManifestId, NodeId, PackId, Position, PublicKey, ReleaseHash};
use stork_wire::item::Item;
use stork_wire::limits::PUSH_FRAME_LEN_MAX;
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::text::PackageName;
use stork_wire::tls::{peer_key, server_config};
use stork_wire::withdrawal::{What, Withdrawal};

/// All that the node knows, and how it misbehaves.
#[derive(Default)]
pub(super) struct State {
    pub(super) feed: Vec<Envelope>,
    pub(super) packs: BTreeMap<PackId, Vec<u8>>,
    pub(super) partial: BTreeMap<PackId, Vec<u8>>,
    pub(super) manifests: BTreeMap<ManifestId, Vec<u8>>,
    pub(super) documents: usize,
    /// What narrows and was taken.
    pub(super) narrowing: Vec<Item>,
    /// Bytes of packs that came in.
    pub(super) received: usize,
    /// Refuses so many commits because the head moved, and moves it.
    pub(super) heads_to_move: Vec<Envelope>,
    /// Forgets this many live releases when asked for them.
    pub(super) hide_live: usize,
    /// Shows releases in the wrong order.
    pub(super) shuffles: bool,
    /// Keeps a pack to this many bytes and drops the connection.
    pub(super) cut_at: Option<usize>,
    /// Refuses every request after the Hello.
    pub(super) refuse: Option<Refusal>,
}

pub(super) struct Fake {
    pub(super) addr: String,
    pub(super) node: NodeId,
    state: Arc<Mutex<State>>,
    endpoint: Endpoint,
}

impl State {
    /// The live releases with their entries, in the order of the feed.
    fn live(&self) -> Vec<(&Envelope, Release)> {
        let mut live: Vec<(&Envelope, Release)> = Vec::new();
        for envelope in &self.feed {
            match envelope.claimed::<Entry>().unwrap().kind {
                Kind::Release(r) => live.push((envelope, *r)),
                Kind::Sealed(s) => live.extend(s.opened().map(|r| (envelope, r.clone()))),
                Kind::Retire(retire) => live.retain(|(e, _)| {
                    let at = e.claimed::<Entry>().unwrap().position();
                    !retire.releases.contains(&at)
                }),
                Kind::Recall(recall) => live.retain(|(_, r)| {
                    r.package != recall.package || !recall.releases.contains(&r.release)
                }),
            }
        }
        live
    }

    pub(super) fn releases(&self) -> Vec<Release> {
        self.live().into_iter().map(|(_, r)| r).collect()
    }

    /// The releases that a withdrawal has recalled.
    pub(super) fn recalled(&self) -> Vec<ReleaseHash> {
        let bodies = self.narrowing.iter().filter_map(|i| i.envelope.claimed::<Withdrawal>().ok());
        let releases = bodies.filter_map(|w| match w.what {
            What::Recall { releases, .. } => Some(releases.to_vec()),
            What::Halt { .. } => None,
        });
        releases.flatten().collect()
    }

    /// The releases of a package that are left, the newest first, as many as one answer holds.
    fn shown(&self, package: &PackageName, before: Option<Position>) -> PushReply {
        let at = |e: &Envelope| e.claimed::<Entry>().unwrap().position();
        let gone = self.recalled();
        let live = self.live().into_iter().rev();
        let live = live.filter(|(_, r)| r.package == *package && !gone.contains(&r.hash()));
        let older = live.filter(|(e, _)| before.is_none_or(|b| at(e) < b));
        let mut shown: Vec<_> = older.map(|(e, _)| e.clone()).take(RELEASES_AT_ONCE).collect();
        if self.shuffles {
            shown.reverse();
        }
        PushReply::Releases(List::new(shown).unwrap())
    }

    /// The live releases, recalled ones among them, as many as one answer holds.
    fn shown_live(&self, before: Option<Position>) -> PushReply {
        let at = |e: &Envelope| e.claimed::<Entry>().unwrap().position();
        let live = self.live().into_iter().rev().map(|(e, _)| e.clone());
        let older = live.filter(|e| before.is_none_or(|b| at(e) < b));
        PushReply::Releases(List::new(older.take(RELEASES_AT_ONCE).collect()).unwrap())
    }

    fn head(&self) -> PushReply {
        let mut live: Vec<_> = self.releases().iter().map(Release::hash).collect();
        live.truncate(live.len().saturating_sub(self.hide_live));
        PushReply::Head {
            entry: self.feed.last().cloned().map(Box::new),
            live: List::new(live).unwrap(),
        }
    }

    fn commit(&mut self, envelope: Envelope) -> PushReply {
        if let Some(other) = self.heads_to_move.pop() {
            self.feed.push(other);
        }
        let entry: Entry = envelope.claimed().unwrap();
        if entry.prev != self.feed.last().map(Envelope::hash) {
            return refused(Refusal::HeadMoved);
        }
        // What is announced is on disk, and the head commits to all that is live.
        if let Kind::Release(release) = &entry.kind {
            assert!(self.manifests.contains_key(&release.manifest.id));
        }
        self.feed.push(envelope);
        assert_eq!(view_root(self.releases().iter().map(Release::hash)), entry.view_root);
        PushReply::Committed { seq: entry.seq, peers: 3 }
    }
}

fn refused(code: Refusal) -> PushReply {
    PushReply::Refused { code, message: "no".parse().unwrap() }
}

impl Fake {
    pub(super) fn start(seed: u8) -> Self {
        let key = SecretKey::from_seed(&[seed; 32]);
        let tls = server_config(&key, &[ALPN_PUSH]).unwrap();
        let tls = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = endpoint.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let fake = Self { addr, node: NodeId(key.public().0), state, endpoint };
        let (endpoint, state, node) = (fake.endpoint.clone(), Arc::clone(&fake.state), fake.node);
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                tokio::spawn(serve(connection, Arc::clone(&state), node));
            }
        });
        fake
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn stop(&self) {
        self.endpoint.close(0u8.into(), b"stopped");
    }
}

async fn serve(connection: Connection, state: Arc<Mutex<State>>, node: NodeId) {
    let certs = connection.peer_identity().unwrap();
    let certs = certs.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    let peer = peer_key(&certs).unwrap();
    while let Ok((send, recv)) = connection.accept_bi().await {
        let ok = one(send, recv, &state, (node, peer)).await;
        if ok.is_none() {
            connection.close(9u8.into(), b"cut");
            return;
        }
    }
}

/// Answers one request; `None` cuts the connection.
async fn one(
    mut send: SendStream,
    mut recv: RecvStream,
    state: &Mutex<State>,
    (node, peer): (NodeId, PublicKey),
) -> Option<()> {
    let mut len = [0; 4];
    recv.read_exact(&mut len).await.ok()?;
    let mut frame = vec![0; u32::from_le_bytes(len) as usize];
    recv.read_exact(&mut frame).await.ok()?;
    let request: PushRequest = decode(&frame, PUSH_FRAME_LEN_MAX).unwrap();
    let body = recv.read_to_end(64 << 20).await.ok()?;
    let (reply, raw) = answer(request, body, &mut state.lock().unwrap(), (node, peer))?;
    let reply = encode(&reply);
    send.write_all(&u32::try_from(reply.len()).unwrap().to_le_bytes()).await.ok()?;
    send.write_all(&reply).await.ok()?;
    send.write_all(&raw).await.ok()?;
    send.finish().ok()
}

fn answer(
    request: PushRequest,
    body: Vec<u8>,
    state: &mut State,
    (node, peer): (NodeId, PublicKey),
) -> Option<(PushReply, Vec<u8>)> {
    use PushRequest::{Hello, HelloDelegated};
    let hello = matches!(request, Hello { .. } | HelloDelegated { .. });
    if let (Some(code), false) = (state.refuse, hello) {
        return Some((refused(code), Vec::new()));
    }
    let blob = |bytes: Option<&Vec<u8>>| match bytes {
        Some(b) => (PushReply::Blob(b.len() as u64), b.clone()),
        None => (refused(Refusal::NotFound), Vec::new()),
    };
    let reply = match request {
        Hello { cert, .. } | HelloDelegated { cert, .. } => {
            let cert: PushCert = cert.claimed().unwrap();
            assert_eq!(cert.tls_key, peer);
            PushReply::Welcome { node, name: "fake".parse().unwrap() }
        }
        PushRequest::Documents(items) => {
            let all = items.into_vec().into_iter();
            let (first, other): (Vec<_>, Vec<_>) = all.partition(|i| i.kind.is_first());
            state.narrowing.extend(first);
            state.documents += other.len();
            PushReply::Taken
        }
        PushRequest::Head => state.head(),
        PushRequest::Latest { package, .. } => {
            let live = state.live();
            let newest = live.iter().rev().find(|(_, r)| r.package == package);
            PushReply::Latest(newest.map(|(e, _)| Box::new((*e).clone())))
        }
        PushRequest::Releases { package, before } => state.shown(&package, before),
        PushRequest::Live { before } => state.shown_live(before),
        PushRequest::Forked { .. } => PushReply::Releases(List::empty()),
        PushRequest::Packs(packs) => {
            let held = |(id, _): &(PackId, u64)| match state.packs.get(id) {
                Some(_) => PackState::Whole,
                None => PackState::Partial(state.partial.get(id).map_or(0, |p| p.len() as u64)),
            };
            PushReply::Packs(List::new(packs.iter().map(held).collect()).unwrap())
        }
        PushRequest::PutPack { pack, size, offset } => {
            let mut whole = state.partial.remove(&pack).unwrap_or_default();
            whole.truncate(usize::try_from(offset).unwrap());
            assert_eq!(whole.len() as u64, offset);
            state.received += body.len();
            whole.extend_from_slice(&body);
            if let Some(at) = state.cut_at.take() {
                whole.truncate(at);
                state.partial.insert(pack, whole);
                return None;
            }
            if whole.len() as u64 != size || PackId::of(&whole) != pack {
                return Some((refused(Refusal::Corrupt), Vec::new()));
            }
            state.packs.insert(pack, whole);
            PushReply::Taken
        }
        PushRequest::PutManifest(reference) => {
            assert_eq!(ManifestId::of(&body), reference.id);
            state.manifests.insert(reference.id, body);
            PushReply::Taken
        }
        PushRequest::Commit(envelope) => state.commit(envelope),
        PushRequest::GetManifest(id) => return Some(blob(state.manifests.get(&id))),
        PushRequest::GetPack(id) => return Some(blob(state.packs.get(&id))),
    };
    Some((reply, Vec::new()))
}
