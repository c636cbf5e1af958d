//! A host that has joined like any other, and serves badly: it says that it has everything, and
//! sends wrong bytes, or half of each piece and then nothing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use stork_tests::hostile::{Content, Lie, Pace, Peer, server, slow_server};
use stork_wire::ids::NodeId;

use super::tools::mark;

/// How it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Insider {
    /// A wrong bit in every piece.
    Liar,
    /// Half of every piece.
    Staller,
}

impl Insider {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Liar => "liar",
            Self::Staller => "staller",
        }
    }
}

/// What one such process does.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How it serves.
    #[arg(long)]
    kind: Insider,
    /// Its own address.
    #[arg(long)]
    own: IpAddr,
    /// With which it joins.
    #[arg(long)]
    token: String,
    /// The fleet's charter.
    #[arg(long)]
    charter: PathBuf,
    /// The folder of the content.
    #[arg(long)]
    package: PathBuf,
    /// Whom it serves: node and address.
    #[arg(long, value_delimiter = ',')]
    to: Vec<String>,
    /// Gets the time when it has dialled all of them.
    #[arg(long)]
    ready: PathBuf,
}

fn place(text: &str) -> Result<(NodeId, SocketAddr)> {
    let (node, addr) = text.split_once('@').context("not a node and an address")?;
    let node = node.parse().ok().context("not a node")?;
    Ok((node, addr.parse().context("not an address")?))
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let content = Arc::new(Content::of_folder(&options.package, "data", "1"));
    let name = options.kind.name();
    let peer = Peer::enlist_at(options.own, &options.token, &options.charter, name);
    ensure!(!options.to.is_empty(), "nobody is to be served");
    let mut talks = Vec::new();
    for to in &options.to {
        let manners = match options.kind {
            Insider::Liar => server(&content, Lie::No, Lie::Flipped),
            Insider::Staller => slow_server(&content, Pace::Stall),
        };
        talks.push(peer.dial_at(place(to)?, manners));
    }
    mark(&options.ready)?;
    loop {
        std::thread::park();
    }
}
