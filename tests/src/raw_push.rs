//! The push protocol by hand: single requests, right or wrong, as a test or benchmark wants them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use quinn::{Connection, Endpoint};
use stork_node::net::{dial_once, read_raw, write_raw};
use stork_publisher::charter::{Charter, Profile, open};
use stork_publisher::keys::{Passphrase, read_secret};
use stork_wire::charter::PushCert;
use stork_wire::codec::{decode, encode};
use stork_wire::feed::{Entry, Kind, Release, view_root};
use stork_wire::frame::{ALPN_PUSH, PushReply, PushRequest};
use stork_wire::ids::{FleetId, NodeId, PublicKey, PublisherId};
use stork_wire::limits::PUSH_FRAME_LEN_MAX;
use stork_wire::sign::{Envelope, SecretKey};

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A publisher with its release key, from a folder made by `stork-publish charter init`.
pub struct Publisher {
    /// Its documents.
    pub charter: Charter,
    /// Its ids.
    pub profile: Profile,
    /// Its release key.
    pub key: SecretKey,
    /// Its id.
    pub id: PublisherId,
    /// The fleet.
    pub fleet: FleetId,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Opens a publisher's folder.
    pub fn open(dir: &Path) -> Result<Self> {
        let (charter, profile) = open(dir)?;
        let key = read_secret(&dir.join("keys/release"), &Passphrase::None)?;
        let (id, fleet) = (profile.publisher, profile.fleet);
        Ok(Self { charter, profile, key, id, fleet })
    }

    /// Connects to a node and says hello.
    pub async fn connect(&self, node: NodeId, addr: SocketAddr) -> Result<Session> {
        let session = Session::open(node, addr).await?;
        let hello = self.hello(session.tls_key, (now(), now() + 600))?;
        match session.ask(&hello, &[]).await?.0 {
            PushReply::Welcome { .. } => Ok(session),
            other => Err(anyhow!("not welcome: {other:?}")),
        }
    }

    /// The hello for a TLS key, with a certificate that is good between these times.
    pub fn hello(&self, tls_key: PublicKey, (issued, expires): (u64, u64)) -> Result<PushRequest> {
        let cert = PushCert { version: 1, tls_key, publisher: self.id, issued, expires };
        let cert = Envelope::sign(&cert, self.fleet, &self.key)?;
        Ok(PushRequest::Hello { fleet: self.fleet, cert })
    }

    /// The next entry of the feed for a release, signed.
    pub async fn next(&self, session: &Session, mut release: Release) -> Result<Envelope> {
        let PushReply::Head { entry, live } = session.ask(&PushRequest::Head, &[]).await?.0 else {
            return Err(anyhow!("no head"));
        };
        let head: Option<Entry> = entry.as_ref().map(|e| e.claimed()).transpose()?;
        let seq = head.as_ref().map_or(0, |e| e.seq) + 1;
        let epoch = head.map_or(1, |e| e.epoch);
        release.release = seq;
        let entry = Entry {
            version: 1,
            publisher: self.id,
            epoch,
            seq,
            prev: entry.map(|e| e.hash()),
            document: 1,
            signed_at: now(),
            expires: now() + 86_400,
            view_root: view_root(live.iter().copied().chain([release.hash()])),
            kind: Kind::Release(Box::new(release)),
            via: None,
        };
        Ok(Envelope::sign(&entry, self.fleet, &self.key)?)
    }
}

/// A connection to a node's push service.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    connection: Connection,
    /// The TLS key of this connection.
    pub tls_key: PublicKey,
}

impl Session {
    /// Connects to a node with a new key, and says nothing yet.
    pub async fn open(node: NodeId, addr: SocketAddr) -> Result<Self> {
        let mut seed = [0; 32];
        seed.copy_from_slice(
            blake3::hash(format!("{:?}{addr}", SystemTime::now()).as_bytes()).as_bytes(),
        );
        let tls = SecretKey::from_seed(&seed);
        let (endpoint, connection) =
            dial_once(&tls, node, &[addr], ALPN_PUSH).await.map_err(|e| anyhow!(e))?;
        Ok(Self { endpoint, connection, tls_key: tls.public() })
    }

    /// Ends it, and waits until the node was told: it takes few publishers at once, and one that
    /// just goes away counts for twenty seconds.
    pub async fn close(self) {
        self.connection.close(0u32.into(), b"");
        self.endpoint.wait_idle().await;
    }

    /// One request with raw bytes after it; the reply with the raw bytes after that.
    pub async fn ask(&self, request: &PushRequest, bytes: &[u8]) -> Result<(PushReply, Vec<u8>)> {
        self.ask_raw(&encode(request), bytes).await
    }

    /// The same with any bytes as request.
    pub async fn ask_raw(&self, request: &[u8], bytes: &[u8]) -> Result<(PushReply, Vec<u8>)> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        write_raw(&mut send, request).await?;
        // A node that refuses early stops reading; its reply says why.
        if send.write_all(bytes).await.is_ok() {
            send.finish().ok();
        }
        let reply = read_raw(&mut recv, PUSH_FRAME_LEN_MAX).await.context("no reply")?;
        let reply: PushReply = decode(&reply, PUSH_FRAME_LEN_MAX)?;
        let rest = match reply {
            PushReply::Blob(len) => recv.read_to_end(usize::try_from(len)?).await?,
            _ => Vec::new(),
        };
        Ok((reply, rest))
    }
}
