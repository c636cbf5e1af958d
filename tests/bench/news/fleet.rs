//! The nodes of the bench: the same code as in a daemon, on loopback in this process, each with a
//! tap; and the publishers, each at a node of its own.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use stork_node::config::LimitsConfig;
use stork_node::driver::{PushCall, Tap};
use stork_tests::lab::{Founding, Lab, Place, wait_for};
use stork_tests::raw_push::Publisher;
use stork_wire::feed::Entry;
use stork_wire::ids::PublisherId;
use stork_wire::sign::ReadyKey;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::pen::Pen;
use super::record::{Message, Record};

type Reply = oneshot::Receiver<Result<(u64, u32), stork_node::driver::CommitError>>;

/// One publisher, and the node that takes its entries.
struct Author {
    pen: Pen,
    home: usize,
    id: PublisherId,
}

/// All nodes, publishers and what they do.
pub(super) struct Fleet {
    lab: Lab,
    pub(super) record: Arc<Record>,
    /// Nodes that run, without those that were killed.
    pub(super) live: Vec<usize>,
    authors: Vec<Author>,
    /// Entries of which the outcome was not read yet.
    open: Vec<Reply>,
}

/// Counts that nodes keep, summed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gossip {
    pub(super) pushes: u64,
    pub(super) duplicates: u64,
    /// Items that were judged before their turn: each costs a verification more.
    pub(super) early: u64,
}

impl Gossip {
    /// What came since an earlier count. Nodes that died since are in the earlier one alone.
    pub(super) const fn since(&self, before: &Self) -> Self {
        Self {
            pushes: self.pushes.saturating_sub(before.pushes),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            early: self.early.saturating_sub(before.early),
        }
    }
}

impl Fleet {
    /// Founds a fleet without nodes; its publishers' homes are the nodes after the first.
    pub(super) fn found(nodes: usize, authors: usize, within: PathBuf) -> Result<Self> {
        let publishers = (1..authors).map(|i| format!("publisher-{i}")).collect();
        let lab =
            Lab::begin(&Founding { publishers, within: Some(within), ..Founding::default() })?;
        let record = Arc::new(Record::new(nodes, authors));
        Ok(Self { lab, record, live: Vec::new(), authors: Vec::new(), open: Vec::new() })
    }

    /// Starts the next node, on the caller's runtime or another one.
    pub(super) async fn start(&mut self, runtime: Option<Handle>) -> Result<()> {
        let node = self.lab.nodes.len();
        let record = Arc::clone(&self.record);
        let tap = Tap::new(move |item| record.heard(node, item));
        self.lab.add_node_at(node, Place { tap, runtime, limits: LimitsConfig::UNLIMITED }).await?;
        self.live.push(node);
        Ok(())
    }

    /// Waits for links, and publishes the first release of each publisher, with real content.
    pub(super) async fn settle(&mut self, authors: usize, size: usize) -> Result<()> {
        self.lab.settle().await?;
        let package = self.lab.dir.path().join("package");
        std::fs::create_dir(&package)?;
        std::fs::write(package.join("file"), b"hello")?;
        let first = [self.lab.charter.clone()];
        let folders: Vec<PathBuf> = first.into_iter().chain(self.lab.others.clone()).collect();
        for (i, folder) in folders.iter().take(authors).enumerate() {
            let home = (i + 1).min(self.lab.nodes.len() - 1);
            self.lab.publish_by((folder, home), &package, "hello", "0").await?;
            let node = self.lab.nodes.get(home).context("no home")?;
            let publisher = Publisher::open(folder)?;
            let id = publisher.id;
            let pen = Pen::new(publisher, (node.id, node.addr), size).await?;
            self.authors.push(Author { pen, home, id });
        }
        self.record.follow(self.authors.iter().map(|a| a.pen.log()));
        Ok(())
    }

    pub(super) fn authors(&self) -> usize {
        self.authors.len()
    }

    /// The node of each publisher.
    pub(super) fn homes(&self) -> Vec<usize> {
        self.authors.iter().map(|a| a.home).collect()
    }

    /// Microseconds that one check of an entry's signature takes, in a loop and so with warm
    /// caches: what a check of the whole takes, less what reading the body takes.
    pub(super) fn verify_us(&self) -> Result<f64> {
        const TIMES: u32 = 2_000;
        let author = self.authors.first().context("no publisher")?;
        let (_, entry) = author.pen.make()?;
        let (fleet, key) = (author.pen.publisher().fleet, author.pen.publisher().key.public());
        let keys = [ReadyKey::new(key)];
        let begun = Instant::now();
        for _ in 0..TIMES {
            black_box(&entry).verify_read::<Entry>(entry.read()?, fleet, &keys, 1)?;
        }
        let whole = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..TIMES {
            black_box(black_box(&entry).read::<Entry>()?);
        }
        Ok(whole.saturating_sub(begun.elapsed()).as_secs_f64() * 1e6 / f64::from(TIMES))
    }

    /// Signs the next entry of a publisher and hands it to the node. The answer, which comes when
    /// the entry is on disk, is read by [`Self::answers`].
    pub(super) async fn publish(&mut self, feed: usize, at: Instant) -> Result<Message> {
        let author = self.authors.get_mut(feed).context("no such publisher")?;
        let (seq, entry) = author.pen.next()?;
        let message = Message { feed, seq };
        self.record.sends(message, at);
        let (answer, reply) = oneshot::channel();
        let node = self.lab.nodes.get(author.home).context("no home")?;
        let calls = node.place.tap.calls().context("the home does not run")?;
        let publisher = author.id;
        calls.send(PushCall::Commit { publisher, entry, answer }).await?;
        self.open.push(reply);
        Ok(message)
    }

    /// Reads the outcomes of everything that was published.
    pub(super) async fn answers(&mut self) -> Result<()> {
        for reply in self.open.drain(..) {
            reply.await.context("no answer")?.map_err(|e| anyhow!("not committed: {e}"))?;
        }
        Ok(())
    }

    /// These nodes are gone.
    pub(super) fn forget(&mut self, nodes: &[usize]) {
        self.live.retain(|n| !nodes.contains(n));
    }

    async fn status(&self, node: usize) -> Result<Value> {
        let node = self.lab.nodes.get(node).context("no such node")?;
        node.client().get("/v1/status").await.map_err(|e| anyhow!("{e}"))
    }

    /// Links of each live node.
    pub(super) async fn degrees(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for node in &self.live {
            all.push(self.status(*node).await?["links"].as_u64().unwrap_or(0));
        }
        Ok(all)
    }

    /// Waits until no live node is without a link.
    pub(super) async fn linked(&self) -> Result<()> {
        wait_for("links everywhere", Duration::from_secs(30), || async {
            self.degrees().await.ok().filter(|d| d.iter().all(|n| *n > 0))
        })
        .await?;
        Ok(())
    }

    /// What the live nodes have counted.
    pub(super) async fn gossip(&self) -> Result<Gossip> {
        let mut sum = Gossip::default();
        for node in &self.live {
            let status = self.status(*node).await?;
            let of = |name: &str| status["gossip"][name].as_u64().unwrap_or(0);
            sum.pushes += of("pushes_in");
            sum.duplicates += of("duplicates");
            let counters = status["counters"].as_array().map_or(&[][..], Vec::as_slice);
            let early = counters.iter().filter(|c| c["name"] == "items_pending");
            sum.early += early.filter_map(|c| c["count"].as_u64()).sum::<u64>();
        }
        Ok(sum)
    }
}
