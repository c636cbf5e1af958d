//! The bed: one repository and some hosts as network namespaces on links of a fixed rate.
//!
//! One namespace is the switch and holds a bridge for each site. Every node is a namespace with one
//! card, whose other end is a port of its site's bridge. A token bucket at each end of that cable
//! limits what the node sends and what it gets; behind it stands a queue of [`QUEUE_MS`] that drops
//! what comes when it is full. The sites beyond the first hang on its bridge by a cable each, with
//! buckets at both ends: their link over the wide area. The counters of the buckets count every
//! packet with its headers, so they are the bytes on the wire but for preamble and checksum.
//!
//! The bed must be gone when the bench is: [`Bed`] removes it when dropped, and [`remove`] does so
//! by name, for what an earlier run left behind and for panics that end the process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::tools::{Unable, batch, output};

/// Depth of each queue. What a switch of the price of these rates has, and no more than three times
/// what a window needs inside of a site.
const QUEUE_MS: u32 = 50;
/// Depth of a bucket in parts of what passes in a second: 2 ms, so that timers need not be finer.
const BURST_PARTS: u64 = 500;
/// The least depth of a bucket: ten full packets, as they come from segmentation at once.
const BURST_LEAST: u64 = 16_000;
/// Hosts at the most: their addresses differ in the last byte.
pub(crate) const HOSTS_MAX: usize = 200;
/// Characters of a bed's name: names of cards have 15 at the most.
const NAME_MAX: usize = 8;
/// Where `ip` keeps the namespaces.
const NAMESPACES: &str = "/run/netns";

/// What the bed looks like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Hosts beside the repository.
    pub hosts: usize,
    /// Rate of each node's card, in both directions.
    pub rate_mbit: u64,
    /// Sites; the repository is in the first.
    pub sites: usize,
    /// Rate of each link between a further site and the first.
    pub wan_mbit: u64,
    /// A host whose card has a tenth of the rate.
    pub slow: Option<usize>,
}

impl Shape {
    /// The site of a node, from 1: the hosts are dealt in blocks.
    pub(crate) const fn site(&self, node: usize) -> usize {
        if node == 0 { 1 } else { 1 + (node - 1) * self.sites / self.hosts }
    }

    /// The rate of a node's card, in bits per second.
    pub(crate) fn rate(&self, node: usize) -> u64 {
        let full = self.rate_mbit * 1_000_000;
        if self.slow == Some(node) { full / 10 } else { full }
    }
}

/// What one bucket let pass and dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    pub bytes: u64,
    pub drops: u64,
}

impl Passed {
    pub(crate) const fn since(self, before: Self) -> Self {
        Self { bytes: self.bytes - before.bytes, drops: self.drops - before.drops }
    }
}

/// All buckets at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    /// What each node sent; the repository is the first.
    pub sent: Vec<Passed>,
    /// What each node got.
    pub got: Vec<Passed>,
    /// What came into each site after the first over its link.
    pub entered: Vec<Passed>,
    /// What left it.
    pub left: Vec<Passed>,
}

impl Counters {
    /// What passed since then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let each = |now: &[Passed], then: &[Passed]| {
            now.iter().zip(then).map(|(n, t)| n.since(*t)).collect()
        };
        Self {
            sent: each(&self.sent, &before.sent),
            got: each(&self.got, &before.got),
            entered: each(&self.entered, &before.entered),
            left: each(&self.left, &before.left),
        }
    }
}

/// The bed; gone when dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    pub shape: Shape,
    name: String,
    _only: File,
}

impl Drop for Bed {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of a bed, and with them all of its cards.
pub(crate) fn remove(name: &str) {
    let prefix = format!("{name}-");
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let of_bed = entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix));
        if of_bed {
            drop(Command::new("ip").args(["netns", "del"]).arg(entry.file_name()).output());
        }
    }
}

/// Takes the name, so that two benches never share a bed.
fn take(name: &str) -> Result<File> {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.is_empty() || name.len() > NAME_MAX || !letters {
        bail!("`{name}` is no name of a bed: up to {NAME_MAX} lower-case letters and digits");
    }
    let path = std::env::temp_dir().join(format!("stork-bench-{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another bench uses the bed `{name}`: wait for it, or give --bed another name");
    }
    Ok(file)
}

fn bucket(bits: u64) -> String {
    let burst = (bits / 8 / BURST_PARTS).max(BURST_LEAST);
    format!("tbf rate {bits}bit burst {burst} latency {QUEUE_MS}ms")
}

impl Bed {
    /// Builds it, in the place of one of the same name.
    pub(crate) fn build(name: &str, shape: Shape) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(Unable("network namespaces need root: run it as root".into()));
        }
        let only = take(name)?;
        remove(name);
        let bed = Self { shape, name: name.to_owned(), _only: only };
        bed.switch()?;
        for node in 0..=bed.shape.hosts {
            bed.node(node)?;
        }
        Ok(bed)
    }

    fn switch_name(&self) -> String {
        format!("{}-sw", self.name)
    }

    /// The name of a node.
    pub(crate) fn who(node: usize) -> String {
        if node == 0 { "repo".into() } else { format!("h{node}") }
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{}", self.name, Self::who(node))
    }

    /// The address of a node: all are in one network.
    pub(crate) fn ip(&self, node: usize) -> String {
        let site = if node == 0 { 0 } else { self.shape.site(node) };
        format!("10.77.{site}.{}", node.max(1))
    }

    fn switch(&self) -> Result<()> {
        let ns = self.switch_name();
        output(Command::new("ip").args(["netns", "add", &ns])).map_err(|e| {
            Unable(format!("this machine gives no network namespace (needs iproute2): {e:#}"))
        })?;
        let (mut links, mut buckets) = (String::new(), String::new());
        for s in 1..=self.shape.sites {
            links += &format!("link add br{s} type bridge mcast_snooping 0 forward_delay 0\n");
            links += &format!("link set br{s} up\n");
        }
        for s in 2..=self.shape.sites {
            links += &format!("link add w{s}a type veth peer name w{s}b\n");
            links += &format!("link set w{s}a master br1 up\nlink set w{s}b master br{s} up\n");
            let bucket = bucket(self.shape.wan_mbit * 1_000_000);
            buckets += &format!("qdisc add dev w{s}a root {bucket}\n");
            buckets += &format!("qdisc add dev w{s}b root {bucket}\n");
        }
        batch("ip", &ns, &links)
            .map_err(|e| Unable(format!("this kernel gives no bridge or cable: {e:#}")))?;
        batch("tc", &ns, &buckets).map_err(|e| no_bucket(&e))
    }

    fn node(&self, node: usize) -> Result<()> {
        let (ns, sw, who) = (self.namespace(node), self.switch_name(), Self::who(node));
        let site = self.shape.site(node);
        output(Command::new("ip").args(["netns", "add", &ns]))?;
        let cable = format!(
            "link add p-{who} type veth peer name eth0 netns {ns}\n\
             link set p-{who} master br{site} up\n"
        );
        batch("ip", &sw, &cable)?;
        let card = format!(
            "link set lo up\naddr add {}/16 brd + dev eth0\nlink set eth0 up\n",
            self.ip(node)
        );
        batch("ip", &ns, &card)?;
        let bucket = bucket(self.shape.rate(node));
        batch("tc", &sw, &format!("qdisc add dev p-{who} root {bucket}\n"))
            .map_err(|e| no_bucket(&e))?;
        batch("tc", &ns, &format!("qdisc add dev eth0 root {bucket}\n")).map_err(|e| no_bucket(&e))
    }

    /// How TCP controls congestion here, on which figures of rivals depend. A namespace has the
    /// machine's choice, and another one only where the whole machine allows it.
    pub(crate) fn tcp(&self) -> Result<String> {
        let mut read = self.command(0, Path::new("cat"));
        let text = output(read.arg("/proc/sys/net/ipv4/tcp_congestion_control"))?;
        Ok(text.trim().to_owned())
    }

    /// A command that will run in a node's namespace, and is killed if this process goes first. Its
    /// process id is that of the program itself.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let ns: PathBuf = Path::new(NAMESPACES).join(self.namespace(node));
        command.arg(format!("--net={}", ns.display()));
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command
    }

    /// Reads all buckets.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let switch = buckets(&self.switch_name())?;
        let of = |device: &str| -> Result<Passed> {
            let found = switch.iter().find(|(d, _)| d == device);
            found.map(|(_, passed)| *passed).with_context(|| format!("no bucket at {device}"))
        };
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for node in 0..=self.shape.hosts {
            let own = buckets(&self.namespace(node))?;
            sent.push(own.first().context("a node has no bucket")?.1);
            got.push(of(&format!("p-{}", Self::who(node)))?);
        }
        let sites = 2..=self.shape.sites;
        let entered = sites.clone().map(|s| of(&format!("w{s}a"))).collect::<Result<_>>()?;
        let left = sites.map(|s| of(&format!("w{s}b"))).collect::<Result<_>>()?;
        Ok(Counters { sent, got, entered, left })
    }
}

fn no_bucket(e: &anyhow::Error) -> anyhow::Error {
    Unable(format!("this kernel has no token bucket (tc tbf, module sch_tbf): {e:#}")).into()
}

/// The buckets of a namespace, by card.
fn buckets(namespace: &str) -> Result<Vec<(String, Passed)>> {
    let text = output(Command::new("tc").args(["-n", namespace, "-s", "-j", "qdisc", "show"]))?;
    let all: serde_json::Value = serde_json::from_str(&text).context("tc prints no JSON")?;
    let mut found = Vec::new();
    for q in all.as_array().into_iter().flatten().filter(|q| q["kind"] == "tbf") {
        let number = |key: &str| q[key].as_u64().with_context(|| format!("tc tells no {key}"));
        let device = q["dev"].as_str().context("tc tells no card")?.to_owned();
        found.push((device, Passed { bytes: number("bytes")?, drops: number("drops")? }));
    }
    Ok(found)
}
