//! The plainest rival: a chain of hosts over TCP, each of which writes and passes on what it gets.
//!
//! It has no plan, no hashes and no repair, so it shows what the links give; a host that dies cuts
//! off all behind it. Each end is a process of this program, in the namespace of its node.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::tools::mark;

/// Bytes that are read, written and passed on at once.
const CHUNK: usize = 64 * 1024;
/// The next host listens already when a host starts; its queue may be full for a moment.
const CONNECT_FOR: Duration = Duration::from_secs(10);
const CONNECT_EVERY: Duration = Duration::from_millis(50);

/// What one process of the chain does.
#[derive(Debug, clap::Args)]
pub(crate) struct Hop {
    /// Where the host before connects to; without it, this is the head.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The host after this one.
    #[arg(long)]
    next: Option<SocketAddr>,
    /// What the head sends, or where others write.
    #[arg(long)]
    file: PathBuf,
    /// Gets the time when this host listens and is connected.
    #[arg(long)]
    ready: PathBuf,
    /// Gets the time when the file is whole and synced.
    #[arg(long)]
    done: PathBuf,
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(to) {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused && begun.elapsed() < CONNECT_FOR => {
                std::thread::sleep(CONNECT_EVERY);
            }
            Err(e) => return Err(e).with_context(|| format!("cannot connect to {to}")),
        }
    }
}

/// Runs one process of the chain.
pub(crate) fn run(hop: &Hop) -> Result<()> {
    let Some(listen) = hop.listen else {
        let next = connect(hop.next.context("the head needs --next")?)?;
        return send(hop, next);
    };
    let listener = TcpListener::bind(listen)?;
    let next = hop.next.map(connect).transpose()?;
    mark(&hop.ready)?;
    let (from, _) = listener.accept()?;
    pass(hop, from, next)
}

fn send(hop: &Hop, mut next: TcpStream) -> Result<()> {
    let mut file = File::open(&hop.file)?;
    let len = file.metadata()?.len();
    next.write_all(&len.to_be_bytes())?;
    std::io::copy(&mut file, &mut next)?;
    Ok(())
}

fn pass(hop: &Hop, mut from: TcpStream, mut next: Option<TcpStream>) -> Result<()> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    // Whoever comes next may die; this host gets its own copy all the same.
    let forward = |next: &mut Option<TcpStream>, bytes: &[u8]| {
        if next.as_mut().is_some_and(|n| n.write_all(bytes).is_err()) {
            *next = None;
        }
    };
    forward(&mut next, &head);
    let mut left = u64::from_be_bytes(head);
    let mut file = File::create(&hop.file)?;
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let n = from.read(&mut chunk)?;
        ensure!(n > 0, "the host before ended {left} bytes too early");
        let bytes = chunk.get(..n).context("read more than asked")?;
        file.write_all(bytes)?;
        forward(&mut next, bytes);
        left = left.saturating_sub(n as u64);
    }
    file.sync_all()?;
    mark(&hop.done)
}
