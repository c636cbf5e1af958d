//! The QUIC endpoint: who may knock, how often, and with which windows (acceptance/security.md §3).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime,
    VarInt,
};
use rustls::pki_types::CertificateDer;
use stork_wire::frame::{ALPN_BULK, ALPN_CONTROL, ALPN_PUSH, Hello, LinkClass};
use stork_wire::ids::{NodeId, PublicKey};
use stork_wire::sign::SecretKey;
use stork_wire::tls;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bulk::Bulk;
use super::control::{self, ConnId, HELLO_TIMEOUT, NetEvent};
use super::door::{Door, Knock, Place, Verdict};
use super::transport::{one_probe, rare_acks, transport, transport_for};
use super::windows::{self, Accountant, Window};

/// Bytes that wait for somebody who was just let in: the answer to a hello, a join or a request.
const SEND_WINDOW: u64 = 1024 * 1024;
/// The receive buffer asked of the kernel; a burst of one window fits.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}")]
    Address {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key is of no use for TLS.
    #[error("the node's key is of no use for TLS")]
    Tls(#[from] rustls::Error),
}

/// What went by at the door.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Connections taken.
    pub accepted: AtomicU64,
    /// Connections dropped because too many had not said who they are, or too many of one key.
    pub dropped: AtomicU64,
    /// Addresses that were asked to prove that they are their sender's.
    pub retried: AtomicU64,
    /// Handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Connections dialled.
    pub dialled: AtomicU64,
}

/// How long a publisher may take until it has said who it is, with the documents before that.
pub const INTRODUCTION: Duration = Duration::from_secs(10);

/// A publisher's connection, for the push service.
#[derive(Debug)]
pub struct PushConnection {
    /// The connection.
    pub connection: Connection,
    /// The ephemeral key that it showed.
    pub key: PublicKey,
    accountant: Arc<Accountant>,
    /// It has not said who it is.
    knock: Option<Knock>,
    _place: Place,
    window: Option<Window>,
}

impl PushConnection {
    /// The publisher has said who it is: it may send more than that.
    pub fn admit(&mut self) {
        self.window = Some(Window::of_push(&self.accountant, &self.connection));
        self.knock = None;
    }
}

/// The endpoint with all that its tasks share.
#[derive(Debug)]
pub struct Net {
    pub(super) endpoint: Endpoint,
    pub(super) key: Arc<SecretKey>,
    pub(super) events: mpsc::Sender<NetEvent>,
    push: mpsc::Sender<PushConnection>,
    bulk: Arc<Bulk>,
    pub(super) next_conn: AtomicU64,
    door: Arc<Door>,
    pub(super) accountant: Arc<Accountant>,
    counters: NetCounters,
}

/// Configures the dialler's side of a control connection. A visit for one question is over before
/// larger packets are worth anything.
fn link_config(
    key: &SecretKey,
    node: NodeId,
    class: LinkClass,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = client_config(key, node, ALPN_CONTROL)?;
    if class == LinkClass::Transient {
        let mut transport = transport_for(ALPN_CONTROL);
        transport.mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
    }
    Ok(config)
}

/// Configures the dialler's side for one protocol and one expected peer.
pub(super) fn client_config(
    key: &SecretKey,
    expected: NodeId,
    alpn: &[u8],
) -> Result<ClientConfig, rustls::Error> {
    quic_client(tls::client_config(key, expected, alpn)?, alpn)
}

/// The same for whoever answers; who it is decides its hello.
pub(super) fn any_client_config(
    key: &SecretKey,
    alpn: &[u8],
) -> Result<ClientConfig, rustls::Error> {
    quic_client(tls::any_client_config(key, alpn)?, alpn)
}

fn quic_client(tls: rustls::ClientConfig, alpn: &[u8]) -> Result<ClientConfig, rustls::Error> {
    let quic = QuicClientConfig::try_from(tls)
        .map_err(|_e| rustls::Error::General("no initial cipher suite".into()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport_for(alpn)));
    Ok(config)
}

pub(super) fn server_config(key: &SecretKey) -> Result<ServerConfig, rustls::Error> {
    let tls = tls::server_config(key, &[ALPN_CONTROL, ALPN_BULK, ALPN_PUSH])?;
    let quic = QuicServerConfig::try_from(tls)
        .map_err(|_e| rustls::Error::General("no initial cipher suite".into()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    // Of which protocol a connection is shows only after this: one stream, for whoever says hello.
    let mut transport = transport(0, 1, windows::UNADMITTED, SEND_WINDOW);
    transport.ack_frequency_config(Some(rare_acks()));
    transport.mtu_discovery_config(Some(one_probe()));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(256)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024);
    Ok(config)
}

fn socket(addr: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(addr)?;
    // A smaller buffer only costs speed; `stork doctor` will tell.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)
        .unwrap_or_default();
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)
        .unwrap_or_default();
    Ok(socket)
}

impl Net {
    /// Binds the endpoint. Call [`Net::accept_loop`] to take connections.
    pub fn bind(
        addr: SocketAddr,
        key: Arc<SecretKey>,
        events: mpsc::Sender<NetEvent>,
        push: mpsc::Sender<PushConnection>,
        bulk_in: mpsc::Sender<super::BulkIn>,
    ) -> Result<Arc<Self>, BindError> {
        let at = |source| BindError::Address { addr, source };
        let socket = socket(addr).map_err(at)?;
        let server = server_config(&key)?;
        let config = EndpointConfig::default();
        let endpoint =
            Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(at)?;
        let accountant = Arc::<Accountant>::default();
        let ours = Arc::clone(&accountant);
        let bulk = Arc::new(Bulk::new(endpoint.clone(), Arc::clone(&key), bulk_in, ours));
        Ok(Arc::new(Self {
            endpoint,
            key,
            events,
            push,
            bulk,
            next_conn: AtomicU64::new(1),
            door: Arc::default(),
            accountant,
            counters: NetCounters::default(),
        }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
    /// The bulk connections.
    #[must_use]
    pub const fn bulk(&self) -> &Arc<Bulk> {
        &self.bulk
    }
    /// What went by at the door.
    #[must_use]
    pub const fn counters(&self) -> &NetCounters {
        &self.counters
    }
    /// Closes everything and waits until the peers were told.
    pub async fn shut_down(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        drop(timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await);
    }

    /// What all connections were promised.
    #[must_use]
    pub fn accountant(&self) -> &Accountant {
        &self.accountant
    }

    /// Takes connections until the endpoint is closed.
    pub async fn accept_loop(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let ip = incoming.remote_address().ip();
            let proven = incoming.remote_address_validated();
            match self.door.knock(ip, proven, || self.bulk.knows(ip)) {
                Verdict::Refuse => {
                    self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                    incoming.refuse();
                }
                Verdict::Retry => {
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                    // Retry fails only for an address that has proven itself; that was just asked.
                    drop(incoming.retry());
                }
                Verdict::Come(knock) => {
                    tokio::spawn(Arc::clone(&self).take(incoming, knock));
                }
            }
        }
    }

    async fn take(self: Arc<Self>, incoming: Incoming, knock: Knock) {
        let shaken = timeout(HELLO_TIMEOUT, async { incoming.accept().ok()?.await.ok() }).await;
        let Ok(Some(connection)) = shaken else {
            self.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (Some(key), Some(alpn)) = (shown_key(&connection), protocol(&connection)) else {
            return control::close(&connection, "no key or no protocol");
        };
        let node = NodeId(key.0);
        let Some(place) = self.door.enter(node) else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return control::close(&connection, "this key has too many connections");
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        if alpn == ALPN_CONTROL {
            let id = self.next_conn.fetch_add(1, Ordering::Relaxed);
            let unadmitted = (knock, Arc::clone(&self.accountant));
            control::serve(id, node, connection, unadmitted, self.events.clone()).await;
        } else if alpn == ALPN_BULK {
            drop(knock);
            if !self.bulk.admits(node) {
                let why = "no control connection: say hello there first".to_owned();
                return control::turn_away(node, &connection, &self.events, ("not_admitted", why));
            }
            Arc::clone(&self.bulk).serve(node, connection).await;
        } else {
            let accountant = Arc::clone(&self.accountant);
            let (knock, window) = (Some(knock), None);
            let push = PushConnection { connection, key, accountant, knock, _place: place, window };
            if let Err(full) = self.push.try_send(push) {
                let refused = full.into_inner();
                control::close(&refused.connection, "busy: too many publishers at once");
            }
        }
    }

    /// Dials a host; the outcome comes as [`NetEvent::Answered`] or [`NetEvent::DialFailed`].
    pub fn dial(self: &Arc<Self>, node: NodeId, addrs: Vec<SocketAddr>, hello: Box<Hello>) {
        let net = Arc::clone(self);
        self.counters.dialled.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let config = link_config(&net.key, node, hello.class).map_err(|e| e.to_string());
            let reached = match config {
                Ok(config) => reach(&net.endpoint, &config, &addrs).await,
                Err(why) => Err(why),
            };
            match reached {
                Ok(connection) => {
                    let id: ConnId = net.next_conn.fetch_add(1, Ordering::Relaxed);
                    let shared = (Arc::clone(&net.accountant), net.events.clone());
                    control::introduce(id, node, connection, hello, shared).await;
                }
                Err(why) => {
                    drop(net.events.send(NetEvent::DialFailed { node, why }).await);
                }
            }
        });
    }
}

/// Tries a host's addresses one after the other.
pub(super) async fn connect(
    endpoint: &Endpoint,
    key: &SecretKey,
    node: NodeId,
    addrs: &[SocketAddr],
    alpn: &[u8],
) -> Result<Connection, String> {
    let config = client_config(key, node, alpn).map_err(|e| e.to_string())?;
    reach(endpoint, &config, addrs).await
}

async fn reach(
    endpoint: &Endpoint,
    config: &ClientConfig,
    addrs: &[SocketAddr],
) -> Result<Connection, String> {
    let mut why = "it has no address".to_owned();
    for addr in addrs {
        let connecting = match endpoint.connect_with(config.clone(), *addr, "stork") {
            Ok(c) => c,
            Err(e) => {
                why = format!("{addr}: {e}");
                continue;
            }
        };
        match timeout(HELLO_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(e)) => why = format!("{addr}: {e}"),
            Err(_late) => why = format!("{addr}: no answer within 3 s"),
        }
    }
    Err(why)
}

pub(super) fn shown_key(connection: &Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    tls::peer_key(identity.downcast_ref::<Vec<CertificateDer<'static>>>()?)
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Dials one host from an endpoint of its own, for a process that is no node (yet).
pub async fn dial_once(
    key: &SecretKey,
    node: NodeId,
    addrs: &[SocketAddr],
    alpn: &[u8],
) -> Result<(Endpoint, Connection), String> {
    let any = match addrs.first() {
        Some(SocketAddr::V6(_)) => SocketAddr::from(([0u16; 8], 0)),
        _ => SocketAddr::from(([0u8; 4], 0)),
    };
    let endpoint = Endpoint::client(any).map_err(|e| e.to_string())?;
    let connection = connect(&endpoint, key, node, addrs, alpn).await?;
    Ok((endpoint, connection))
}
