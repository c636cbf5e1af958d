//! A BitTorrent tracker for one torrent, as much of one as its clients need to find each other: who
//! announced itself from where, told to whoever announces itself (BEP 3, compact lists of BEP 23).
//! It runs in the repository's namespace, as a process of this program.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::routing::get;

use super::bed::HOSTS_MAX;
use super::tools::mark;

/// Seconds until a client asks again by itself. Those that come first are told of few others, and
/// are found by those that come later.
const INTERVAL_S: u32 = 30;

/// Where the tracker listens.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// Gets the time when it listens.
    #[arg(long)]
    ready: PathBuf,
}

type Peers = Arc<Mutex<BTreeSet<SocketAddrV4>>>;

/// Serves until it is killed.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let app = Router::new().route("/announce", get(announce)).with_state(Peers::default());
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    mark(&options.ready)?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

async fn announce(
    State(peers): State<Peers>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Vec<u8> {
    let query = query.unwrap_or_default();
    let field = |name: &str| {
        let mut fields = query.split('&').filter_map(|f| f.split_once('='));
        fields.find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    let port = field("port").and_then(|p| p.parse().ok());
    let me = match (from.ip(), port) {
        (IpAddr::V4(ip), Some(port)) => SocketAddrV4::new(ip, port),
        _ => return b"d14:failure reason18:no port, or no IPv4e".to_vec(),
    };
    let stopped = field("event") == Some("stopped");
    // A poisoned lock would mean that a set failed to take or give an address.
    let Ok(mut peers) = peers.lock() else { return Vec::new() };
    if stopped {
        peers.remove(&me);
    } else if peers.len() <= HOSTS_MAX {
        peers.insert(me);
    }
    let others = peers.iter().filter(|p| **p != me);
    answer(others)
}

fn answer<'a>(peers: impl Iterator<Item = &'a SocketAddrV4>) -> Vec<u8> {
    let mut compact = Vec::new();
    for peer in peers {
        compact.extend(peer.ip().octets());
        compact.extend(peer.port().to_be_bytes());
    }
    let mut out = format!("d8:intervali{INTERVAL_S}e5:peers{}:", compact.len()).into_bytes();
    out.extend(compact);
    out.push(b'e');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_compact() {
        let peer = "10.77.1.2:6881".parse().unwrap();
        let wanted = b"d8:intervali30e5:peers6:\x0a\x4d\x01\x02\x1a\xe1e";
        assert_eq!(answer([&peer].into_iter()), wanted);
        assert_eq!(answer([].into_iter()), b"d8:intervali30e5:peers0:e");
    }
}
