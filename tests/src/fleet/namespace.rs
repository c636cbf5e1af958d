//! A mount namespace for a fleet, so that its mounts never reach the machine that runs the tests
//! and are gone with the last process of the fleet; where wanted, with a network of its own.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount namespace whose mounts are shared, as on a real host, and which one process keeps alive.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
    network: bool,
}

impl Namespace {
    /// A new namespace, or why there can be none.
    pub fn new() -> Result<Self, String> {
        Self::build(false)
    }

    /// A new namespace; none, with a printed reason, where there can be none.
    #[must_use]
    pub fn or_skip() -> Option<Self> {
        Self::new().map_err(|why| eprintln!("skipped: {why}")).ok()
    }

    /// A new namespace with a network of its own, in which nothing is set up but the loopback.
    pub fn with_network() -> Result<Self, String> {
        let namespace = Self::build(true)?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &[&str]) -> Result<(), String> {
        let out = self.command("ip").args(args).output().map_err(|e| format!("no ip: {e}"))?;
        let error = String::from_utf8_lossy(&out.stderr);
        if out.status.success() { Ok(()) } else { Err(format!("ip {args:?}: {error}")) }
    }

    fn build(network: bool) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounts need root".to_owned());
        }
        let script = "mount --make-rshared / && echo ready && exec sleep infinity";
        let mut unshare = Command::new("unshare");
        if network {
            unshare.arg("-n");
        }
        let mut keeper = unshare
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare cannot be run: {e}"))?;
        let mut line = String::new();
        if let Some(out) = keeper.stdout.take() {
            BufReader::new(out).read_line(&mut line).unwrap_or_default();
        }
        let namespace = Self { keeper, network };
        if line.trim() == "ready" {
            Ok(namespace)
        } else {
            Err("this machine gives no mount namespace".to_owned())
        }
    }

    /// Moves the calling thread, and no other, into its network.
    pub fn enter_network(&self) -> std::io::Result<()> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.id()))?;
        let kind = rustix::thread::LinkNameSpaceType::Network;
        Ok(rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind))?)
    }

    /// A command that will run inside. Its process id is that of the program itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id()));
        if self.network {
            command.arg(format!("--net=/proc/{}/ns/net", self.keeper.id()));
        }
        command.arg(program);
        command
    }

    /// Where the test, from outside, sees a path of the inside.
    #[must_use]
    pub fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.keeper.kill().unwrap_or_default();
        drop(self.keeper.wait());
    }
}
