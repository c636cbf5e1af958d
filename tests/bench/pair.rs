//! One transfer between two nodes, beside plain QUIC with write and fsync, in turns; where that is
//! wanted beside TCP with TLS as well.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig};
use serde_json::{Value, json};
use stork_tests::lab::{Lab, wait_every};
use stork_wire::ids::NodeId;
use stork_wire::sign::SecretKey;
use stork_wire::tls;

use super::idle::cpu_ticks;
use super::{noise, percentile};

/// What a transfer is measured beside; plain QUIC always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Against {
    /// Nothing else.
    Quinn,
    /// One TCP connection with TLS as well.
    TcpTls,
    /// Plain QUIC whose sender hands each packet to the kernel alone, as well.
    NoGso,
}

impl Against {
    /// How it is named in the report; `None` where nothing more is measured.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Quinn => None,
            Self::TcpTls => Some("tcp_tls"),
            Self::NoGso => Some("plain_quinn_without_gso"),
        }
    }
}

/// What one kind of transfer took, run by run.
#[derive(Default)]
struct Runs {
    mib_s: Vec<f64>,
    cpu_s: Vec<f64>,
}

impl Runs {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn add(&mut self, mib: usize, (seconds, cpu_s): (f64, f64)) {
        self.mib_s.push(mib as f64 / seconds);
        self.cpu_s.push(cpu_s * 1_024.0 / mib as f64);
    }

    /// Rates, and processor seconds of both ends for a GiB.
    fn json(&self) -> Value {
        json!({ "mib_s": three(&self.mib_s), "cpu_s_per_gib": three(&self.cpu_s) })
    }
}

fn three(v: &[f64]) -> Value {
    let mut v = v.to_vec();
    v.sort_by(f64::total_cmp);
    json!({ "min": v.first(), "median": percentile(&v, 0.5), "max": v.last() })
}

/// Measures `runs` transfers of `mib` MiB of each kind, in turns.
pub(crate) async fn run(mib: usize, runs: usize, against: Against) -> Result<Value> {
    let mut lab = Lab::new(2).await?;
    let second = lab.nodes.get(1).context("no second node")?;
    second.add_vm("vm")?;
    lab.settle().await?;
    let package = lab.dir.path().join("package");
    std::fs::create_dir(&package)?;
    let (mut ours, mut plain, mut other) = (Runs::default(), Runs::default(), Runs::default());
    let (mut ratios, mut unpack) = (Vec::new(), Vec::new());
    for i in 0..runs {
        let bytes = Arc::new(noise(mib << 20, u8::try_from(i % 250)?));
        std::fs::write(package.join("blob"), bytes.as_slice())?;
        let version = format!("{}", i + 1);
        lab.publish(&package, "blob", &version).await?;
        let (fetch_s, unpack_s, cpu_s) = stork_run(&lab, &version).await?;
        ours.add(mib, (fetch_s, cpu_s));
        let before = cpu_ticks(std::process::id())?;
        let plain_s = plain_run(&lab, Arc::clone(&bytes), true).await?;
        plain.add(mib, (plain_s, seconds(before, cpu_ticks(std::process::id())?)));
        let before = cpu_ticks(std::process::id())?;
        let other_s = match against {
            Against::Quinn => None,
            Against::TcpTls => {
                let path = lab.dir.path().join("tcp");
                Some(tokio::task::block_in_place(|| super::tcp::run(&bytes, path))?)
            }
            Against::NoGso => Some(plain_run(&lab, Arc::clone(&bytes), false).await?),
        };
        if let Some(other_s) = other_s {
            other.add(mib, (other_s, seconds(before, cpu_ticks(std::process::id())?)));
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        unpack.push(mib as f64 / unpack_s);
        ratios.push(plain_s / fetch_s);
    }
    lab.stop().await?;
    let mut report = json!({
        "schema": "stork.bench.pair/v2", "mib": mib, "runs": runs,
        "stork": ours.json(), "plain_quinn": plain.json(),
        "ratio": three(&ratios), "unpack_mib_s": three(&unpack),
    });
    if let Some(name) = against.name() {
        report[name] = other.json();
    }
    Ok(report)
}

/// Hundredths of a second as seconds.
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 100.0
}

/// Seconds from the beginning of the fetch to all pieces durable, from there to all files durable,
/// and of processor time for the first part.
async fn stork_run(lab: &Lab, version: &str) -> Result<(f64, f64, f64)> {
    let node = lab.nodes.get(1).context("no second node")?;
    let text = format!("blob {version}");
    let limit = Duration::from_secs(300);
    // Seldom, since each look costs time; the event itself says when it was.
    let every = Duration::from_millis(50);
    let at = |kind: &'static str| wait_every(every, kind, limit, || node.event_ms(kind, &text));
    let begun = at("fetch_begun").await?;
    let before = cpu_ticks(std::process::id())?;
    let fetched = at("fetched").await?;
    let cpu = seconds(before, cpu_ticks(std::process::id())?);
    let whole = at("content_whole").await?;
    let apart =
        |from: u64, to: u64| Duration::from_millis(to.saturating_sub(from).max(1)).as_secs_f64();
    Ok((apart(begun, fetched), apart(fetched, whole), cpu))
}

/// Seconds from connecting to the bytes being written and fsynced, over one stream of plain QUIC.
async fn plain_run(lab: &Lab, bytes: Arc<Vec<u8>>, gso: bool) -> Result<f64> {
    let key = SecretKey::from_seed(&[1; 32]);
    let server = QuicServerConfig::try_from(tls::server_config(&key, &[b"plain"])?)?;
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    let mut transport = TransportConfig::default();
    transport.enable_segmentation_offload(gso);
    server.transport_config(Arc::new(transport));
    let listener = Endpoint::server(server, "127.0.0.1:0".parse()?)?;
    let addr = listener.local_addr()?;
    let len = bytes.len();
    let sending = tokio::spawn(async move {
        let connection = listener.accept().await.context("closed")?.await?;
        let mut stream = connection.open_uni().await?;
        stream.write_all(&bytes).await?;
        stream.finish()?;
        connection.closed().await;
        Ok::<_, anyhow::Error>(())
    });
    let node = NodeId(key.public().0);
    let client = QuicClientConfig::try_from(tls::client_config(&key, node, b"plain")?)?;
    let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    let begun = Instant::now();
    let connecting = endpoint.connect_with(ClientConfig::new(Arc::new(client)), addr, "stork")?;
    let connection = connecting.await?;
    let mut stream = connection.accept_uni().await?;
    let path = lab.dir.path().join("plain");
    let (chunks, to_write) = std::sync::mpsc::sync_channel::<quinn::Chunk>(64);
    let writing = tokio::task::spawn_blocking(move || -> Result<usize> {
        let mut file = std::fs::File::create(path)?;
        let mut written = 0;
        for chunk in to_write {
            file.write_all(&chunk.bytes)?;
            written += chunk.bytes.len();
        }
        file.sync_all()?;
        Ok(written)
    });
    while let Some(chunk) = stream.read_chunk(256 * 1024, true).await? {
        let chunks = chunks.clone();
        tokio::task::block_in_place(|| chunks.send(chunk)).map_err(|_e| anyhow!("writer ended"))?;
    }
    drop(chunks);
    let written = writing.await??;
    let seconds = begun.elapsed().as_secs_f64();
    connection.close(0u32.into(), b"done");
    sending.await??;
    if written == len { Ok(seconds) } else { Err(anyhow!("{written} of {len} bytes")) }
}
