//! A fleet inside this process: real nodes on loopback, without the cost of processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use stork_node::config::{BeaconConfig, LimitsConfig, NodeConfig};
use stork_node::control::Client;
use stork_node::driver::{Clock, Tap};
use stork_node::{identity, join, run};
use stork_publisher::keys::{Passphrase, generate, read_secret, write_key};
use stork_publisher::progress::Progress;
use stork_publisher::push::{BaseChoice, PushOptions, PushReport, Target, push};
use stork_publisher::source::ReadOptions;
use stork_wire::charter::JoinToken;
use stork_wire::feed::Urgency;
use stork_wire::ids::NodeId;
use stork_wire::item::Item;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crowd::{crowd, store_items};
pub use crate::forge::found_charter;
use crate::forge::{add_publisher, found_charter_with};

/// Where a node runs, and who else hears what it accepts.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Its tap.
    pub tap: Tap,
    /// Its runtime, where that is not the caller's.
    pub runtime: Option<Handle>,
    /// How fast publishers may announce there.
    pub limits: LimitsConfig,
}

/// How a fleet begins.
#[derive(Debug, Clone, Default)]
pub struct Founding {
    /// The first node makes beacons.
    pub beacons: bool,
    /// Publishers beside the first one.
    pub publishers: Vec<String>,
    /// Feeds of as many more publishers, which only the first node has at the start.
    pub crowd: usize,
    /// The folder in which the lab's own is made; the system's for temporary files otherwise.
    pub within: Option<PathBuf>,
}

/// One node of the lab.
#[derive(Debug)]
pub struct LabNode {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its settings.
    pub config: NodeConfig,
    /// Where it runs.
    pub place: Place,
    ahead_s: Arc<AtomicU64>,
    stop: Option<watch::Sender<bool>>,
    task: Option<JoinHandle<Result<(), run::RunError>>>,
}

/// Some nodes and a publisher's folder, in a temporary folder.
#[derive(Debug)]
pub struct Lab {
    /// The temporary folder.
    pub dir: tempfile::TempDir,
    /// The publisher's folder.
    pub charter: PathBuf,
    /// The folders of the other publishers.
    pub others: Vec<PathBuf>,
    /// The nodes; the first one admits.
    pub nodes: Vec<LabNode>,
    /// Seconds by which the calendars of all nodes are ahead.
    ahead_s: Arc<AtomicU64>,
    /// The first node makes beacons with this key.
    beacon_key: Option<PathBuf>,
    /// Items that the first node has at the start.
    crowd: Vec<Item>,
}

/// A UDP port of loopback that was free a moment ago.
pub fn free_addr() -> Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until `check` gives something, looking every few milliseconds.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    check: impl FnMut() -> F,
) -> Result<T> {
    wait_every(Duration::from_millis(10), what, limit, check).await
}

/// The same, looking only so often, where looking itself would be measured.
pub async fn wait_every<T, F: Future<Output = Option<T>>>(
    every: Duration,
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = check().await {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            return Err(anyhow!("not within {limit:?}: {what}"));
        }
        tokio::time::sleep(every).await;
    }
}

impl LabNode {
    /// Its control socket.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.config.socket, Duration::from_secs(30))
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        // What the node before did last may hold its folder, and its port, for a moment.
        let held = |e: &anyhow::Error| format!("{e:#}").contains("another stork-node uses");
        loop {
            match self.start_once().await {
                Err(e) if held(&e) && Instant::now() < until => tokio::task::yield_now().await,
                outcome => return outcome,
            }
        }
    }

    async fn start_once(&mut self) -> Result<()> {
        let free = || async { std::net::UdpSocket::bind(self.addr).ok() };
        drop(wait_for("the port", Duration::from_secs(20), free).await?);
        let (stop, stopped) = watch::channel(false);
        self.stop = Some(stop);
        let clock = Clock::ahead_by(Arc::clone(&self.ahead_s));
        let key = self.config.beacon.as_ref().map(|b| read_secret(&b.key, &Passphrase::None));
        let settings = (self.config.clone(), key.transpose()?);
        let running = run::run_by(settings, (clock, self.place.tap.clone()), stopped);
        let mut task = match &self.place.runtime {
            Some(runtime) => runtime.spawn(running),
            None => tokio::spawn(running),
        };
        let client = self.client();
        let status = wait_for("status", Duration::from_secs(20), || async {
            client.get("/v1/status").await.ok()
        });
        tokio::select! {
            status = status => {
                self.task = Some(task);
                status.map(drop)
            }
            ended = &mut task => {
                ended?.context("the node ended")?;
                Err(anyhow!("the node ended"))
            }
        }
    }

    /// Stops it and waits for its end.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            stop.send(true).ok();
        }
        if let Some(task) = self.task.take() {
            task.await??;
        }
        Ok(())
    }

    /// Writes the file of a VM of the group `web` that wants everything, with a view of hard links.
    pub fn add_vm(&self, name: &str) -> Result<PathBuf> {
        self.add_vm_with(name, "")
    }

    /// The same with a line of `[vm]`.
    pub fn add_vm_with(&self, name: &str, line: &str) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.config.vms)?;
        let target = self.config.vms.with_file_name(format!("view-{name}"));
        let text = format!(
            "[vm]\ngroups = [\"web\"]\n{line}\n\
             [[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\n\
             [view]\nbackend = \"hardlink\"\nisolation = \"none\"\ntarget = \"{}\"\n",
            target.display()
        );
        std::fs::write(self.config.vms.join(format!("{name}.toml")), text)?;
        Ok(target)
    }

    /// Milliseconds since 1970 of the first event of a kind whose text holds `text`.
    pub async fn event_ms(&self, kind: &str, text: &str) -> Option<u64> {
        let all = self.client().get("/v1/events").await.ok()?;
        let found = all["events"]
            .as_array()?
            .iter()
            .find(|e| e["kind"] == kind && e["text"].as_str().is_some_and(|t| t.contains(text)))?;
        found["at_ms"].as_u64()
    }
}

impl Lab {
    /// Founds a fleet of `count` running nodes without VMs.
    pub async fn new(count: usize) -> Result<Self> {
        Self::found(count, &Founding::default()).await
    }

    /// The same, with a publisher that has a beacon key: the first node holds it.
    pub async fn with_beacons(count: usize) -> Result<Self> {
        Self::found(count, &Founding { beacons: true, ..Founding::default() }).await
    }

    /// Founds a fleet of `count` running nodes.
    pub async fn found(count: usize, founding: &Founding) -> Result<Self> {
        let mut lab = Self::begin(founding)?;
        for i in 0..count {
            lab.add_node(i).await?;
        }
        Ok(lab)
    }

    /// A fleet without nodes yet.
    pub fn begin(founding: &Founding) -> Result<Self> {
        let dir = match &founding.within {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let charter = dir.path().join("charter");
        let beacon_key = founding.beacons.then(|| dir.path().join("beacon"));
        if let Some(file) = &beacon_key {
            write_key(file, &generate()?, "beacon", None)?;
        }
        found_charter_with(&charter, beacon_key.iter().cloned().collect())?;
        let others = founding.publishers.iter().map(|name| add_publisher(&charter, name)).collect();
        let crowd = crowd(&charter, founding.crowd, 1)?;
        let ahead_s = Arc::default();
        Ok(Self { dir, charter, others, nodes: Vec::new(), ahead_s, beacon_key, crowd })
    }

    /// Lets time pass for all nodes: on the calendar, while connections live on.
    pub fn pass(&self, time: Duration) {
        self.ahead_s.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// Sets all calendars back, but not before what the system's say.
    pub fn set_back(&self, time: Duration) {
        self.ahead_s.fetch_sub(time.as_secs(), Ordering::Relaxed);
    }

    /// Adds a node: the first founds the fleet, the others join by token.
    pub async fn add_node(&mut self, i: usize) -> Result<()> {
        self.add_node_at(i, Place::default()).await
    }

    /// The same at a place.
    pub async fn add_node_at(&mut self, i: usize, place: Place) -> Result<()> {
        let name = format!("host-{}", i + 1);
        let home = self.dir.path().join(&name);
        std::fs::create_dir_all(home.join("vms"))?;
        let addr = free_addr()?;
        let beacon = self.beacon_key.clone().filter(|_| i == 0);
        let config = NodeConfig {
            listen: addr,
            state: home.join("state"),
            vms: home.join("vms"),
            socket: home.join("sock"),
            min_free_bytes: 1 << 20,
            limits: place.limits,
            beacon: beacon.map(|key| BeaconConfig { key, interval_s: 3_600, valid_s: 86_400 }),
            ..NodeConfig::default()
        };
        let id = self.enroll(&config, &name).await?;
        let ahead_s = Arc::clone(&self.ahead_s);
        let mut node = LabNode { name, id, addr, config, ahead_s, place, stop: None, task: None };
        node.start().await?;
        self.nodes.push(node);
        Ok(())
    }

    async fn enroll(&self, config: &NodeConfig, name: &str) -> Result<NodeId> {
        let store = run::open_store(config)?;
        let label = name.parse()?;
        let joined = if let Some(first) = self.nodes.first() {
            let body = json!({ "name": name, "site": "default", "ttl_s": 600 });
            let token = first.client().post("/v1/tokens", &body).await?;
            let text = token["token"].as_str().context("no token")?;
            let (token, envelope) = JoinToken::from_text(text)?;
            join::join(&store, &config.state, &token, envelope, label).await?
        } else {
            let bundle = std::fs::read(self.charter.join("charter.bundle"))?;
            let items = stork_publisher::bundle::read_bundle(&bundle)?;
            let key = read_secret(&self.charter.join("keys/admission"), &Passphrase::None)?;
            let joined =
                join::found(&store, &config.state, &items, &key, label, "default".parse()?)?;
            store_items(&store, &self.crowd)?;
            joined
        };
        drop(identity::open_or_create(&config.state)?);
        Ok(joined.cert.node)
    }

    /// Waits until every node knows all charter documents and is linked.
    pub async fn settle(&self) -> Result<()> {
        for node in &self.nodes {
            let client = node.client();
            wait_for("links", Duration::from_secs(60), || async {
                let s: Value = client.get("/v1/status").await.ok()?;
                let linked = s["links"].as_u64()? >= (self.nodes.len() as u64 - 1).min(3);
                (linked && s["documents"].as_u64()? >= 3).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// Stops every node.
    pub async fn stop(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }

    /// Publishes a directory through the first node.
    pub async fn publish(&self, dir: &Path, name: &str, version: &str) -> Result<PushReport> {
        self.publish_by((&self.charter, 0), dir, name, version).await
    }

    /// Publishes a directory as the publisher of that folder, through that node.
    pub async fn publish_by(
        &self,
        (charter, node): (&Path, usize),
        dir: &Path,
        name: &str,
        version: &str,
    ) -> Result<PushReport> {
        let home = self.nodes.get(node).context("no such node")?;
        let options = PushOptions {
            package: dir.to_owned(),
            read: ReadOptions {
                name: Some(name.parse()?),
                version: Some(version.parse()?),
                arch: Some("all".parse()?),
                ..ReadOptions::default()
            },
            charter: charter.to_owned(),
            key: None,
            passphrase: Passphrase::None,
            to: vec![Target { addr: home.addr.to_string(), node: Some(home.id) }],
            copies: None,
            origin: None,
            origin_credentials: None,
            groups: Vec::new(),
            bundle: None,
            urgency: Urgency::Normal,
            expires_days: 30,
            base: BaseChoice::Auto,
            allow_lower: false,
            dry_run: false,
        };
        Ok(push(&options, &Progress::Silent).await?)
    }
}
