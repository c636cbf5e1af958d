//! A test peer that speaks the protocol and lies: an insider with a real certificate, or somebody
//! at the door with none.
//!
//! It shares the wire formats with the nodes, and the joining; the rest is written anew, so that it
//! may do what no node does.

mod bulk;
mod content;
mod door;
mod holding;
mod manners;
pub mod mutant;
mod stuck;
mod talk;

pub use bulk::Pace;
pub use content::{Content, Lie, server, slow_server};
pub use door::{Knock, knock};
pub use holding::{Holder, hold, hold_all};
pub use manners::has;
pub use talk::Talk;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use stork_node::config::NodeConfig;
use stork_node::net::{read_raw, write_raw};
use stork_node::{identity, join, run};
use stork_publisher::charter::open;
use stork_wire::charter::{BODY_VERSION, HostCert, JoinToken, PeerRecord};
use stork_wire::codec::{List, decode, encode};
use stork_wire::frame::{ALPN_CONTROL, Frame, Hello, LinkClass, PROTOCOL_VERSION, PeerHint};
use stork_wire::ids::{FleetId, GroupId, NodeId};
use stork_wire::limits::{FRAME_LEN_MAX, RECORD_LEN_MAX};
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::tls;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::fleet::{Fleet, Host};
use crate::forge::now;
use talk::{act, listen};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a peer does.
#[derive(Debug)]
pub enum Deed {
    /// Sends a frame on the control connection.
    Send(Frame),
    /// Sends any bytes there, without a length before them.
    Raw(Vec<u8>),
    /// Sends these bytes as a stream of a bulk connection.
    Bulk(Vec<u8>),
    /// The same, but not as it should be: beside whatever else it does.
    Badly(Vec<u8>, Pace),
}

/// What a peer does about a frame.
pub type Manners = Box<dyn FnMut(&Frame) -> Vec<Deed> + Send>;

/// Somebody with a key and perhaps a certificate.
#[derive(Debug)]
pub struct Peer {
    runtime: Runtime,
    endpoint: Endpoint,
    key: Arc<SecretKey>,
    hint: PeerHint,
    fleet: FleetId,
    class: LinkClass,
}

impl Drop for Peer {
    /// Goes only when the others were told, so that a test that follows it finds them without it.
    fn drop(&mut self) {
        let (endpoint, limit) = (self.endpoint.clone(), Duration::from_secs(2));
        endpoint.close(0u32.into(), b"good bye");
        self.runtime.block_on(async {
            tokio::time::timeout(limit, endpoint.wait_idle()).await.unwrap_or_default();
        });
    }
}

/// A host as a peer dials it.
#[must_use]
pub fn place(host: &Host) -> (NodeId, SocketAddr) {
    (host.id().parse().unwrap(), host.addr().parse().unwrap())
}

/// The groups of a charter.
#[must_use]
pub fn groups_of(charter: &Path) -> Vec<GroupId> {
    let (_, profile) = open(charter).unwrap();
    let mut groups: Vec<GroupId> = profile.groups.iter().map(|g| g.id).collect();
    groups.sort_unstable();
    groups
}

fn record(key: &SecretKey, fleet: FleetId, groups: Vec<GroupId>, cert: &Envelope) -> Envelope {
    let cert: HostCert = cert.claimed().unwrap();
    let issued = now();
    let record = PeerRecord {
        version: BODY_VERSION,
        node: NodeId(key.public().0),
        incarnation: issued * 1_000,
        addrs: List::empty(),
        site: cert.site,
        groups: List::new(groups).unwrap(),
        cell: None,
        admits: false,
        issued,
        expires: issued + 3_600,
    };
    Envelope::sign(&record, fleet, key).unwrap()
}

impl Peer {
    /// Joins by a real token, like any host, and keeps what it gets.
    #[must_use]
    pub fn enlist(fleet: &Fleet, name: &str) -> Self {
        Self::enlist_by(&fleet.token(name), &fleet.charter, name)
    }

    /// The same by a token that was made already.
    #[must_use]
    pub fn enlist_by(token: &str, charter: &Path, name: &str) -> Self {
        Self::enlist_at(LOOPBACK, token, charter, name)
    }

    /// The same with connections from another address than the loopback's.
    #[must_use]
    pub fn enlist_at(own: IpAddr, token: &str, charter: &Path, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let config = NodeConfig { state, min_free_bytes: 0, ..NodeConfig::default() };
        let store = run::open_store(&config).unwrap();
        let (token, envelope) = JoinToken::from_text(token).unwrap();
        let label = name.parse().unwrap();
        let runtime = runtime();
        let joining = join::join(&store, &config.state, &token, envelope, label);
        let joined = runtime.block_on(joining).unwrap();
        let key = identity::open_or_create(&config.state).unwrap();
        let cert = store.get_state("cert").unwrap().unwrap();
        let cert: Envelope = decode(&cert, RECORD_LEN_MAX).unwrap();
        let record = record(&key, joined.fleet, groups_of(charter), &cert);
        Self::with(own, runtime, key, PeerHint { cert, record }, joined.fleet)
    }

    /// Somebody who shows whatever it likes.
    #[must_use]
    pub fn forged(key: SecretKey, hint: PeerHint, fleet: FleetId) -> Self {
        Self::with(LOOPBACK, runtime(), key, hint, fleet)
    }

    fn with(own: IpAddr, runtime: Runtime, key: SecretKey, hint: PeerHint, fleet: FleetId) -> Self {
        let bind = async { Endpoint::client(SocketAddr::from((own, 0))) };
        let endpoint = runtime.block_on(bind).unwrap();
        Self { runtime, endpoint, key: Arc::new(key), hint, fleet, class: LinkClass::Near }
    }

    /// Asks for a far link from now on: a host has room for a few inbound links of each class only.
    #[must_use]
    pub const fn far(mut self) -> Self {
        self.class = LinkClass::Far;
        self
    }

    /// Who it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.key.public().0)
    }

    /// What it says first.
    #[must_use]
    pub fn hello(&self) -> Hello {
        let (peer, fleet, class) = (self.hint.clone(), self.fleet, self.class);
        Hello { protocol: PROTOCOL_VERSION, fleet, peer, class, starving: true }
    }

    /// Is admitted by a host; answers pings, and does nothing else by itself.
    #[must_use]
    pub fn dial(&self, host: &Host) -> Talk {
        self.dial_with(host, Box::new(|_| Vec::new()))
    }

    /// The same with manners.
    #[must_use]
    pub fn dial_with(&self, host: &Host, manners: Manners) -> Talk {
        self.dial_at(place(host), manners)
    }

    /// The same by id and address.
    #[must_use]
    pub fn dial_at(&self, place: (NodeId, SocketAddr), manners: Manners) -> Talk {
        let (connection, send, mut recv) = self.say_hello_at(place, &self.hello());
        let ack = self.runtime.block_on(async {
            let bytes = read_raw(&mut recv, 16 * FRAME_LEN_MAX).await;
            bytes.map_err(|_e| connection.close_reason())
        });
        let ack = ack.unwrap_or_else(|why| panic!("{} is not admitted: {why:?}", self.node()));
        let ack = Frame::from_bytes(&ack, 16 * FRAME_LEN_MAX).unwrap();
        let Frame::HelloAck(ack) = ack else { panic!("no ack: {ack:?}") };
        let (deeds, todo) = mpsc::unbounded_channel();
        let (frames, inbox) = channel();
        let (_, addr) = place;
        let bulk = Dialler { key: Arc::clone(&self.key), endpoint: self.endpoint.clone(), addr };
        let to = NodeId(ack.peer.cert.claimed::<HostCert>().unwrap().node.0);
        self.runtime.spawn(act(send, todo, bulk, to));
        self.runtime.spawn(listen(recv, deeds.clone(), frames, manners));
        let handle = self.runtime.handle().clone();
        Talk { class: ack.class, connection, deeds, inbox, handle }
    }

    /// Opens a control connection and says this, without waiting for an answer.
    #[must_use]
    pub fn say_hello(&self, host: &Host, hello: &Hello) -> (Connection, SendStream, RecvStream) {
        self.say_hello_at(place(host), hello)
    }

    fn say_hello_at(
        &self,
        (node, addr): (NodeId, SocketAddr),
        hello: &Hello,
    ) -> (Connection, SendStream, RecvStream) {
        let dialler = Dialler { key: Arc::clone(&self.key), endpoint: self.endpoint.clone(), addr };
        self.runtime.block_on(async {
            let connection = dialler.dial(node, ALPN_CONTROL).await;
            let (mut send, recv) = connection.open_bi().await.unwrap();
            let hello = Frame::Hello(Box::new(hello.clone()));
            write_raw(&mut send, &encode(&hello)).await.unwrap();
            (connection, send, recv)
        })
    }

    /// Sends bytes as the first stream of a connection for any protocol; how the host ended it.
    #[must_use]
    pub fn say(&self, node: NodeId, addr: SocketAddr, alpn: &[u8], bytes: &[u8]) -> String {
        let dialler = Dialler { key: Arc::clone(&self.key), endpoint: self.endpoint.clone(), addr };
        self.runtime.block_on(async {
            let connection = dialler.dial(node, alpn).await;
            // Kept until the end: a stream that is dropped is over.
            let stream = if bytes.is_empty() { None } else { connection.open_bi().await.ok() };
            let mut stream = stream;
            if let Some((send, _)) = &mut stream {
                drop(send.write_all(bytes).await);
            }
            connection.closed().await.to_string()
        })
    }

    /// How a host answers another hello: the words with which it closes.
    #[must_use]
    pub fn refused(&self, host: &Host, hello: &Hello) -> String {
        let (connection, _send, mut recv) = self.say_hello(host, hello);
        self.runtime.block_on(async move {
            match read_raw(&mut recv, 16 * FRAME_LEN_MAX).await {
                Ok(_) => "welcome".to_owned(),
                Err(_) => connection.closed().await.to_string(),
            }
        })
    }
}

/// A runtime of its own, so that tests may block.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The quinn side of a TLS configuration.
pub(crate) fn quic(config: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

struct Dialler {
    key: Arc<SecretKey>,
    endpoint: Endpoint,
    addr: SocketAddr,
}

impl Dialler {
    async fn dial(&self, node: NodeId, alpn: &[u8]) -> Connection {
        let config = quic(tls::client_config(&self.key, node, alpn).unwrap());
        let connecting = self.endpoint.connect_with(config, self.addr, "stork").unwrap();
        connecting.await.unwrap()
    }
}
