//! One transfer over one TCP connection with TLS, written and fsynced: what most programs do.
//!
//! The same keys and the same ciphers as our QUIC (`wire::tls`), blocking calls of the standard
//! library, one thread to send, one to receive and one to write.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use stork_wire::ids::NodeId;
use stork_wire::sign::SecretKey;
use stork_wire::tls;

const ALPN: &[u8] = b"plain";
/// Bytes that are handed to the writing thread at once, as in the transfer over plain QUIC.
const CHUNK: usize = 256 * 1024;
/// Chunks that may wait for it.
const CHUNKS_MAX: usize = 64;

/// Seconds from connecting to the bytes being written and fsynced at `path`.
pub(super) fn run(bytes: &Arc<Vec<u8>>, path: PathBuf) -> Result<f64> {
    let key = SecretKey::from_seed(&[1; 32]);
    let server = Arc::new(tls::server_config(&key, &[ALPN])?);
    let client = Arc::new(tls::client_config(&key, NodeId(key.public().0), ALPN)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let (len, sent) = (bytes.len(), Arc::clone(bytes));
    let sending = std::thread::spawn(move || -> Result<()> {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut stream = StreamOwned::new(ServerConnection::new(server)?, socket);
        stream.write_all(&sent)?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(())
    });
    let begun = Instant::now();
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    let connection = ClientConnection::new(client, "stork".try_into()?)?;
    let mut stream = StreamOwned::new(connection, socket);
    let (chunks, to_write) = std::sync::mpsc::sync_channel::<Vec<u8>>(CHUNKS_MAX);
    let writing = std::thread::spawn(move || -> Result<usize> {
        let mut file = std::fs::File::create(path)?;
        let mut written = 0;
        for chunk in to_write {
            file.write_all(&chunk)?;
            written += chunk.len();
        }
        file.sync_all()?;
        Ok(written)
    });
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let limit = u64::try_from(CHUNK)?;
        Read::by_ref(&mut stream).take(limit).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        chunks.send(chunk).map_err(|_e| anyhow!("writer ended"))?;
    }
    drop(chunks);
    let written = writing.join().ok().context("the writer panicked")??;
    let seconds = begun.elapsed().as_secs_f64();
    sending.join().ok().context("the sender panicked")??;
    if written == len { Ok(seconds) } else { Err(anyhow!("{written} of {len} bytes")) }
}
