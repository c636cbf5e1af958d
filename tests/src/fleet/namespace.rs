//! A mount namespace for a fleet, so that its mounts never reach the machine that runs the tests
//! and are gone with the last process of the fleet.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount namespace whose mounts are shared, as on a real host, and which one process keeps alive.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
}

impl Namespace {
    /// A new namespace, or why there can be none.
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounts need root".to_owned());
        }
        let script = "mount --make-rshared / && echo ready && exec sleep infinity";
        let mut keeper = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare cannot be run: {e}"))?;
        let mut line = String::new();
        if let Some(out) = keeper.stdout.take() {
            BufReader::new(out).read_line(&mut line).unwrap_or_default();
        }
        let namespace = Self { keeper };
        if line.trim() == "ready" {
            Ok(namespace)
        } else {
            Err("this machine gives no mount namespace".to_owned())
        }
    }

    /// A command that will run inside. Its process id is that of the program itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id())).arg(program);
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
