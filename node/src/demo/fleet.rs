//! The fleet of the demonstration: a charter, five nodes with two VMs each, all on loopback.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stork_wire::ids::{GroupId, NodeId, unhex};
use tempfile::TempDir;

use super::answer::{field, list, number, text};
use super::error::DemoError;
use super::package::{Package, Version, machine};
use super::process::{Binary, Process};
use crate::control::Client;

/// Hosts of the demonstration.
pub(super) const HOSTS: usize = 5;
/// How long a node may take to answer, and the fleet to find itself.
const READY_S: u64 = 30;
/// Links with which a node counts as well connected.
const LINKS: u64 = 3;
/// Between two looks at a node.
pub(super) const POLL: Duration = Duration::from_millis(15);
/// Bytes that a socket's path may have (`sockaddr_un`), with a margin for its name.
const SOCKET_FOLDER_MAX: usize = 92;

/// Which versions a VM's file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Whatever is newest.
    Newest,
    /// Pinned to the first version.
    First,
    /// At most the second version.
    UpToSecond,
    /// The first or anything newer.
    FromFirst,
}

/// A VM of the demonstration.
#[derive(Debug, Clone)]
pub(super) struct Vm {
    pub(super) name: String,
    pub(super) wish: Wish,
    /// What its file says of versions.
    pub(super) constraint: String,
    pub(super) view: PathBuf,
}

impl Vm {
    /// The version that it must show once these are published.
    pub(super) fn right<'a>(&self, versions: &'a [Version]) -> Option<&'a Version> {
        match self.wish {
            Wish::Newest | Wish::FromFirst => versions.last(),
            Wish::First => versions.first(),
            Wish::UpToSecond => versions.get(versions.len().clamp(1, 2) - 1),
        }
    }
}

/// One host: its folder, its process, and how to ask it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) vms: Vec<Vm>,
    pub(super) client: Client,
    /// From its first start on.
    pub(super) node: Option<NodeId>,
    pub(super) addr: Option<SocketAddr>,
    pub(super) process: Option<Process>,
}

impl Host {
    fn new(number: usize, package: &Package, root: &Path, sockets: &Path) -> Self {
        let name = format!("host-{number}");
        let dir = root.join(&name);
        let wish = match number {
            1 | 4 => Wish::First,
            2 => Wish::UpToSecond,
            _ => Wish::FromFirst,
        };
        let vm = |kind: &str, wish| {
            let name = format!("{kind}-{number}");
            let constraint = match wish {
                Wish::Newest => String::new(),
                Wish::First => format!("= {}", package.text_of(1)),
                Wish::UpToSecond => format!("<= {}", package.text_of(2)),
                Wish::FromFirst => format!(">= {}", package.text_of(1)),
            };
            Vm { view: dir.join("views").join(&name), name, wish, constraint }
        };
        let socket = sockets.join(format!("{number}.sock"));
        Self {
            vms: vec![vm("web", Wish::Newest), vm("db", wish)],
            log: dir.join("node.log"),
            client: Client::new(&socket, Duration::from_secs(10)),
            name,
            dir,
            socket,
            node: None,
            addr: None,
            process: None,
        }
    }

    /// Writes its settings and the files of its VMs.
    fn write_files(&self, package: &Package) -> Result<(), DemoError> {
        let failed =
            |source| DemoError::Io { what: format!("write {}", self.dir.display()), source };
        for sub in ["vms", "views"] {
            fs::create_dir_all(self.dir.join(sub)).map_err(failed)?;
        }
        let quoted = |p: &Path| toml::Value::String(p.display().to_string()).to_string();
        let (state, vms) = (self.dir.join("state"), self.dir.join("vms"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nmin_free_bytes = 16777216\n\
             state = {}\nvms = {}\nsocket = {}\n",
            quoted(&state),
            quoted(&vms),
            quoted(&self.socket)
        );
        fs::write(self.dir.join("node.toml"), text).map_err(failed)?;
        let arch = if package.arch == "all" { machine() } else { &package.arch };
        for vm in &self.vms {
            let text = format!(
                "[vm]\narch = \"{arch}\"\ngroups = [\"demo\"]\n\n\
                 [[subscribe]]\npackage = \"{}\"\nversion = \"{}\"\n\n\
                 [[trust]]\nallow = \"demo\"\n\n\
                 [view]\nbackend = \"hardlink\"\nisolation = \"none\"\ntarget = {}\n",
                package.name,
                vm.constraint,
                quoted(&vm.view)
            );
            fs::write(vms.join(format!("{}.toml", vm.name)), text).map_err(failed)?;
        }
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Starts its node, on the port of its last start if there was one.
    pub(super) fn start(&mut self, binary: &Binary) -> Result<(), DemoError> {
        let config = self.config();
        let listen = self.addr.map(|a| a.to_string());
        let mut args: Vec<&OsStr> = vec!["--config".as_ref(), config.as_ref()];
        if let Some(listen) = &listen {
            args.extend([OsStr::new("--listen"), listen.as_ref()]);
        }
        args.push("run".as_ref());
        self.process = Some(binary.node(&args, &self.log)?);
        Ok(())
    }

    /// Is its process alive as far as we know?
    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Kills its node as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks its node.
    pub(super) async fn ask(&self, path: &str) -> Result<Value, DemoError> {
        let host = self.name.clone();
        self.client.get(path).await.map_err(|source| DemoError::Control { host, source })
    }

    /// Waits until its node answers, and learns its id and address.
    pub(super) async fn ready(&mut self) -> Result<(), DemoError> {
        let began = Instant::now();
        loop {
            if self.process.as_mut().is_none_or(Process::ended) {
                return Err(DemoError::Ended(self.name.clone()));
            }
            if let Ok(status) = self.client.get("/v1/status").await {
                let node = unhex(text(&status, "node"));
                self.node = node.and_then(|b| <[u8; 32]>::try_from(b).ok()).map(NodeId);
                self.addr = text(&status, "listen").parse().ok();
                if self.node.is_some() && self.addr.is_some() {
                    return Ok(());
                }
            }
            if began.elapsed().as_secs() >= READY_S {
                return Err(DemoError::Late(format!("that {} answers", self.name), READY_S));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One token for one host.
    pub(super) async fn token(&self, name: &str) -> Result<String, DemoError> {
        let body = json!({ "name": name, "site": "default", "ttl_s": 600 });
        let host = self.name.clone();
        let answer = self.client.post("/v1/tokens", &body).await;
        let answer = answer.map_err(|source| DemoError::Control { host, source })?;
        let token = field(&answer, "token").as_str().map(str::to_owned);
        token.ok_or_else(|| DemoError::Wrong("there is no token in the answer".into()))
    }
}

/// The temporary folder, and one for sockets where its own path is too long for them.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) root: TempDir,
    short: Option<TempDir>,
}

impl Ground {
    pub(super) fn new() -> Result<Self, DemoError> {
        let make = |dir: &Path| {
            let made = tempfile::Builder::new().prefix("stork-demo-").tempdir_in(dir);
            let what = format!("make a temporary folder in {}", dir.display());
            made.map_err(|source| DemoError::Io { what, source })
        };
        let root = make(&std::env::temp_dir())?;
        let long = root.path().as_os_str().len() > SOCKET_FOLDER_MAX;
        let short = if long { Some(make(Path::new("/tmp"))?) } else { None };
        Ok(Self { root, short })
    }

    pub(super) fn sockets(&self) -> &Path {
        self.short.as_ref().map_or_else(|| self.root.path(), TempDir::path)
    }

    /// Leaves everything where it is.
    pub(super) fn keep(self) -> PathBuf {
        drop(self.short.map(TempDir::keep));
        self.root.keep()
    }
}

/// All hosts, and the publisher's folder.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) hosts: Vec<Host>,
    pub(super) binary: Binary,
    pub(super) charter: PathBuf,
    /// What every VM belongs to.
    pub(super) group: GroupId,
}

impl Fleet {
    /// Founds the fleet and starts every node.
    pub(super) async fn start(
        ground: &Ground,
        binary: Binary,
        package: &Package,
    ) -> Result<Self, DemoError> {
        let root = ground.root.path();
        let charter = root.join("charter");
        let dir = charter.as_os_str();
        let args =
            "charter init --fleet demo --group demo --publisher demo --no-passphrase --json --dir";
        let args: Vec<&OsStr> = args.split(' ').map(OsStr::new).chain([dir]).collect();
        let made = binary.run_json("__publish", &args).await?;
        let group = list(&made, "groups").first().and_then(|g| unhex(text(g, "id")));
        let group = group.and_then(|b| <[u8; 32]>::try_from(b).ok()).map(GroupId);
        let group = group.ok_or_else(|| DemoError::Wrong("the charter names no group".into()))?;
        let host = |n| Host::new(n, package, root, ground.sockets());
        let mut fleet = Self { hosts: (1..=HOSTS).map(host).collect(), binary, charter, group };
        for host in &fleet.hosts {
            host.write_files(package)?;
        }
        fleet.found().await?;
        fleet.join().await?;
        fleet.met().await?;
        Ok(fleet)
    }

    /// The host that others join at, and that the publisher pushes to.
    pub(super) fn first(&self) -> Result<&Host, DemoError> {
        self.hosts.first().ok_or_else(|| DemoError::Wrong("there is no host".into()))
    }

    async fn found(&mut self) -> Result<(), DemoError> {
        let (bundle, key) =
            (self.charter.join("charter.bundle"), self.charter.join("keys").join("admission"));
        let Some(first) = self.hosts.first_mut() else { return Ok(()) };
        let config = first.config();
        let args: [&OsStr; 9] = [
            "--config".as_ref(),
            config.as_ref(),
            "init".as_ref(),
            "--charter".as_ref(),
            bundle.as_ref(),
            "--admission-key".as_ref(),
            key.as_ref(),
            "--name".as_ref(),
            first.name.as_ref(),
        ];
        self.binary.run("__node", &args).await?;
        first.start(&self.binary)?;
        first.ready().await
    }

    async fn join(&mut self) -> Result<(), DemoError> {
        let mut tokens = Vec::new();
        for host in self.hosts.iter().skip(1) {
            tokens.push(self.first()?.token(&host.name).await?);
        }
        for (host, token) in self.hosts.iter_mut().skip(1).zip(tokens) {
            let config = host.config();
            let args: [&OsStr; 4] =
                ["--config".as_ref(), config.as_ref(), "join".as_ref(), token.as_ref()];
            self.binary.run("__node", &args).await?;
            host.start(&self.binary)?;
        }
        for host in &mut self.hosts {
            host.ready().await?;
        }
        Ok(())
    }

    /// Waits until every node knows and is linked with every other.
    async fn met(&self) -> Result<(), DemoError> {
        let began = Instant::now();
        'again: loop {
            for host in &self.hosts {
                let status = host.ask("/v1/status").await?;
                let all = u64::try_from(HOSTS).unwrap_or(u64::MAX);
                let met = number(&status, "hosts") >= all && number(&status, "links") >= LINKS;
                if met {
                    continue;
                }
                if began.elapsed().as_secs() >= READY_S {
                    return Err(DemoError::Late("that the hosts find each other".into(), READY_S));
                }
                tokio::time::sleep(POLL).await;
                continue 'again;
            }
            return Ok(());
        }
    }
}
