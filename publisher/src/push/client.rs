//! One connection to a node: a stream for each request, every wait bounded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use stork_wire::codec::{decode, encode};
use stork_wire::frame::{ALPN_PUSH, PushReply, PushRequest, Refusal};
use stork_wire::ids::NodeId;
use stork_wire::limits::PUSH_FRAME_LEN_MAX;
use stork_wire::sign::SecretKey;
use stork_wire::tls::client_config;

use super::error::PushError;
use crate::progress::Progress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that makes no progress for so long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Packing between two requests must not let the connection die.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
const CHUNK_LEN: usize = 64 * 1024;

/// What follows a request's frame.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    File { path: &'a Path, offset: u64, progress: &'a Progress },
}

/// A connection to a node whose key was checked.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) addr: String,
    connection: Connection,
    // Dropped last: the connection needs its socket.
    endpoint: Endpoint,
}

async fn in_time<T>(
    limit: Duration,
    target: &str,
    what: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, PushError> {
    let timeout = |_e| PushError::Timeout { target: target.to_owned(), what };
    tokio::time::timeout(limit, work).await.map_err(timeout)
}

/// The TLS alerts that a wrong raw key leads to are crypto errors of QUIC: 0x100 and up.
fn connect_error(target: &str, e: &ConnectionError) -> PushError {
    let target = target.to_owned();
    match e {
        ConnectionError::TransportError(t) if u64::from(t.code) >> 8 == 1 => {
            PushError::WrongNode { target }
        }
        ConnectionError::TimedOut => PushError::Timeout { target, what: "connecting" },
        e => PushError::Connect { target, why: e.to_string() },
    }
}

impl Client {
    /// Connects to the node, trying each address that its name has.
    pub(super) async fn connect(
        addr: &str,
        node: NodeId,
        tls_key: &SecretKey,
    ) -> Result<Self, PushError> {
        let fail = |why: String| PushError::Connect { target: addr.to_owned(), why };
        let found = tokio::net::lookup_host(addr);
        let found = in_time(CONNECT_TIMEOUT, addr, "looking up its name", found).await?;
        let found: Vec<SocketAddr> = found.map_err(|e| fail(e.to_string()))?.collect();
        let mut last = fail("its name has no address".into());
        for to in found {
            let one = Self::connect_to(addr, to, node, tls_key);
            match in_time(CONNECT_TIMEOUT, addr, "connecting", one).await.and_then(|r| r) {
                Ok(client) => return Ok(client),
                Err(e @ PushError::WrongNode { .. }) => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn connect_to(
        addr: &str,
        to: SocketAddr,
        node: NodeId,
        tls_key: &SecretKey,
    ) -> Result<Self, PushError> {
        let fail = |why: String| PushError::Connect { target: addr.to_owned(), why };
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let endpoint =
            Endpoint::client(SocketAddr::new(any, 0)).map_err(|e| fail(e.to_string()))?;
        let tls = client_config(tls_key, node, ALPN_PUSH).map_err(|e| fail(e.to_string()))?;
        let tls = QuicClientConfig::try_from(tls).map_err(|e| fail(e.to_string()))?;
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        let idle = quinn::IdleTimeout::try_from(REQUEST_TIMEOUT);
        transport.max_idle_timeout(Some(idle.map_err(|e| fail(e.to_string()))?));
        transport.max_concurrent_bidi_streams(0u8.into());
        transport.max_concurrent_uni_streams(0u8.into());
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        // Raw keys have no names: the node id alone says who it must be.
        let connecting =
            endpoint.connect_with(config, to, "stork").map_err(|e| fail(e.to_string()))?;
        let connection = connecting.await.map_err(|e| connect_error(addr, &e))?;
        Ok(Self { addr: addr.to_owned(), connection, endpoint })
    }

    fn lost(&self, e: &dyn std::fmt::Display) -> PushError {
        let (target, why) = (self.addr.clone(), e.to_string());
        match self.connection.close_reason() {
            Some(ConnectionError::TimedOut) => PushError::Timeout { target, what: "a request" },
            _ => PushError::Lost { target, why },
        }
    }

    pub(super) fn nonsense(&self, why: impl Into<String>) -> PushError {
        PushError::Protocol { target: self.addr.clone(), why: why.into() }
    }

    /// Sends one request and reads the head of its answer. A refusal is an error.
    pub(super) async fn ask(
        &self,
        request: &PushRequest,
        body: Body<'_>,
    ) -> Result<(PushReply, RecvStream), PushError> {
        let open = self.connection.open_bi();
        let (mut send, mut recv) = in_time(REQUEST_TIMEOUT, &self.addr, "opening a stream", open)
            .await?
            .map_err(|e| self.lost(&e))?;
        // A node that refuses early stops reading; its answer says why.
        self.send(&mut send, request, body).await?;
        let reply = self.reply(&mut recv).await?;
        if let PushReply::Refused { code, message } = reply {
            let (target, message) = (self.addr.clone(), message.to_string());
            return Err(PushError::Refused { target, code, message });
        }
        Ok((reply, recv))
    }

    /// Writes what fits into the stream; false if the node does not want the rest.
    async fn write(&self, send: &mut SendStream, bytes: &[u8]) -> Result<bool, PushError> {
        let work = send.write_all(bytes);
        match in_time(REQUEST_TIMEOUT, &self.addr, "sending", work).await? {
            Ok(()) => Ok(true),
            Err(quinn::WriteError::Stopped(_)) => Ok(false),
            Err(e) => Err(self.lost(&e)),
        }
    }

    async fn send(
        &self,
        send: &mut SendStream,
        request: &PushRequest,
        body: Body<'_>,
    ) -> Result<(), PushError> {
        let bytes = encode(request);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if bytes.len() > PUSH_FRAME_LEN_MAX {
            return Err(PushError::Usage(format!("a request of {len} bytes is too long")));
        }
        let mut frame = len.to_le_bytes().to_vec();
        frame.extend_from_slice(&bytes);
        if !self.write(send, &frame).await? {
            return Ok(());
        }
        match body {
            Body::None => {}
            Body::Bytes(bytes) => {
                if !self.write(send, bytes).await? {
                    return Ok(());
                }
            }
            Body::File { path, offset, progress } => {
                let mut file = File::open(path).map_err(PushError::Local)?;
                file.seek(SeekFrom::Start(offset)).map_err(PushError::Local)?;
                let mut buffer = vec![0; CHUNK_LEN];
                loop {
                    let n = file.read(&mut buffer).map_err(PushError::Local)?;
                    let chunk = buffer.get(..n).unwrap_or_default();
                    if n == 0 {
                        break;
                    }
                    if !self.write(send, chunk).await? {
                        return Ok(());
                    }
                    progress.advance(n as u64);
                }
            }
        }
        // Finishing fails only if the node stopped the stream, and then it answers.
        drop(send.finish());
        Ok(())
    }

    async fn read_exact(&self, recv: &mut RecvStream, buf: &mut [u8]) -> Result<(), PushError> {
        let work = recv.read_exact(buf);
        let done = in_time(REQUEST_TIMEOUT, &self.addr, "an answer", work).await?;
        done.map_err(|e| self.lost(&e))
    }

    async fn reply(&self, recv: &mut RecvStream) -> Result<PushReply, PushError> {
        let mut len = [0; 4];
        self.read_exact(recv, &mut len).await?;
        let len = u32::from_le_bytes(len) as usize;
        if len > PUSH_FRAME_LEN_MAX {
            return Err(self.nonsense(format!("a frame of {len} bytes")));
        }
        let mut bytes = vec![0; len];
        self.read_exact(recv, &mut bytes).await?;
        decode(&bytes, PUSH_FRAME_LEN_MAX).map_err(|e| self.nonsense(e.to_string()))
    }

    /// Asks for a blob of exactly `size` bytes.
    pub(super) async fn blob(
        &self,
        request: &PushRequest,
        size: u64,
        progress: &Progress,
    ) -> Result<Vec<u8>, PushError> {
        let (reply, mut recv) = self.ask(request, Body::None).await?;
        match reply {
            PushReply::Blob(n) if n == size => {}
            other => return Err(self.nonsense(format!("{other:?} for {size} bytes"))),
        }
        let mut out = Vec::new();
        let size = usize::try_from(size).map_err(|e| self.nonsense(e.to_string()))?;
        while out.len() < size {
            // Memory grows only with bytes that came.
            let start = out.len();
            out.resize(size.min(start + CHUNK_LEN), 0);
            let slot = out.get_mut(start..).unwrap_or_default();
            let n = slot.len();
            self.read_exact(&mut recv, slot).await?;
            progress.advance(n as u64);
        }
        Ok(out)
    }

    /// Sends a request whose answer must be `Taken`.
    pub(super) async fn put(&self, request: &PushRequest, body: Body<'_>) -> Result<(), PushError> {
        match self.ask(request, body).await?.0 {
            PushReply::Taken => Ok(()),
            other => Err(self.nonsense(format!("{other:?}"))),
        }
    }

    /// Says goodbye and waits a moment until that is on its way.
    pub(super) async fn close(&self) {
        self.connection.close(0u8.into(), b"done");
        let gone = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle());
        // A node that does not confirm will see the connection time out.
        drop(gone.await);
    }
}

/// Was it refused for this reason?
pub(super) fn is_refusal(e: &PushError, wanted: Refusal) -> bool {
    matches!(e, PushError::Refused { code, .. } if *code == wanted)
}
