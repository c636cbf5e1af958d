//! A fleet of real processes in a folder of its own, gone when it is dropped.

mod binaries;
mod host;
mod namespace;
mod vm_file;

pub use binaries::binary;
pub use host::Host;
pub use namespace::Namespace;
pub use vm_file::VmFile;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

/// Bytes that do not compress, the same for the same seed.
#[must_use]
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A package that is to be pushed.
#[derive(Debug, Clone)]
pub struct Package {
    /// A `.deb`, or a folder.
    pub file: PathBuf,
    /// Name and version, for a folder.
    pub named: Option<(String, String)>,
}

impl Package {
    /// A Debian package.
    #[must_use]
    pub fn deb(file: &Path) -> Self {
        Self { file: file.to_owned(), named: None }
    }
}

/// Hosts of one fleet, and its publisher's folder.
#[derive(Debug)]
pub struct Fleet {
    /// The hosts, in the order in which they joined. The first one admits the others.
    pub hosts: Vec<Host>,
    /// The folder of the publisher `acme`.
    pub charter: PathBuf,
    namespace: Option<Arc<Namespace>>,
    dir: TempDir,
}

impl Fleet {
    /// A fleet with these groups, whose hosts all run; the first one has no VMs by itself.
    #[must_use]
    pub fn new(groups: &[&str], hosts: usize) -> Self {
        Self::build(groups, hosts, None)
    }

    /// The same in a mount namespace of its own.
    #[must_use]
    pub fn inside(namespace: Namespace, groups: &[&str], hosts: usize) -> Self {
        Self::build(groups, hosts, Some(Arc::new(namespace)))
    }

    fn build(groups: &[&str], hosts: usize, namespace: Option<Arc<Namespace>>) -> Self {
        let mut fleet = Self::charter_only(groups, namespace);
        fleet.found();
        for _ in 1..hosts {
            fleet.enlist().start();
        }
        fleet
    }

    /// A fleet without hosts.
    #[must_use]
    pub fn charter_only(groups: &[&str], namespace: Option<Arc<Namespace>>) -> Self {
        let dir = tempfile::Builder::new().prefix("stork-e2e-").tempdir().unwrap();
        let charter = dir.path().join("charter");
        let mut command = Command::new(binary("stork-publish"));
        command.args(["charter", "init", "--fleet", "lab", "--publisher", "acme"]);
        command.args(["--provides", "*", "*/*"]);
        command.arg("--no-passphrase").arg("--dir").arg(&charter);
        for group in groups {
            command.args(["--group", group]);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Self { hosts: Vec::new(), charter, namespace, dir }
    }

    /// Begins the fleet on its first host.
    pub fn found(&mut self) {
        let mut host = Host::new(self.dir.path(), "host-1", self.namespace.clone());
        let bundle = self.charter.join("charter.bundle");
        let key = self.charter.join("keys/admission");
        let (bundle, key) = (bundle.to_str().unwrap(), key.to_str().unwrap());
        host.node_ok(&["init", "--charter", bundle, "--admission-key", key, "--name", "host-1"]);
        host.start();
        self.hosts.push(host);
    }

    /// The mount namespace that the fleet runs in, if it has one of its own.
    #[must_use]
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_deref()
    }

    /// A folder of the fleet, for whatever a test needs.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A host that belongs to no fleet yet and is not part of this struct.
    #[must_use]
    pub fn stranger(&self, name: &str) -> Host {
        Host::new(self.dir.path(), name, self.namespace.clone())
    }

    /// A token for one more host.
    #[must_use]
    pub fn token(&self, name: &str) -> String {
        let token = self.hosts.first().unwrap().tell(&["token", "create", "--name", name]);
        token["token"].as_str().unwrap().to_owned()
    }

    /// One more host, which has joined and does not run yet.
    pub fn enlist(&mut self) -> &mut Host {
        let name = format!("host-{}", self.hosts.len() + 1);
        let host = self.stranger(&name);
        host.node_ok(&["join", &self.token(&name)]);
        self.hosts.push(host);
        self.hosts.last_mut().unwrap()
    }

    /// The same in another site.
    pub fn enlist_at(&mut self, site: &str) -> &mut Host {
        let name = format!("host-{}", self.hosts.len() + 1);
        let host = self.stranger(&name);
        let first = self.hosts.first().unwrap();
        let token = first.tell(&["token", "create", "--name", &name, "--site", site]);
        host.node_ok(&["join", token["token"].as_str().unwrap()]);
        self.hosts.push(host);
        self.hosts.last_mut().unwrap()
    }

    /// A package made of these files, in the folder `name-version`.
    #[must_use]
    pub fn package(&self, name: &str, version: &str, files: &[(&str, &[u8])]) -> Package {
        let file = self.folder("packages").join(format!("{name}-{version}"));
        for (path, bytes) in files {
            let path = file.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Package { file, named: Some((name.to_owned(), version.to_owned())) }
    }

    /// The command by which `acme` pushes a package to one of the hosts.
    #[must_use]
    pub fn push_command(&self, to: usize, package: &Package, groups: &[&str]) -> Command {
        self.push_command_of(&self.charter, to, package, groups)
    }

    /// The same for the publisher of another folder.
    #[must_use]
    pub fn push_command_of(
        &self,
        charter: &Path,
        to: usize,
        package: &Package,
        groups: &[&str],
    ) -> Command {
        let host = self.hosts.get(to).unwrap();
        let mut command = Command::new(binary("stork-publish"));
        command.arg("push").arg(&package.file).arg("--json").arg("--charter").arg(charter);
        command.arg("--to").arg(format!("{}@{}", host.id(), host.addr()));
        if let Some((name, version)) = &package.named {
            command.args(["--name", name, "--version", version, "--arch", "all"]);
        }
        for group in groups {
            command.args(["--group", group]);
        }
        command
    }

    /// Pushes a package to the first host and returns the report.
    pub fn push(&self, package: &Package, groups: &[&str]) -> Value {
        report(&self.push_command(0, package, groups).output().unwrap())
    }
}

impl Fleet {
    /// Names an operator in the settings of a host, which restarts; the operator's private key.
    pub fn appoint(&mut self, host: usize) -> PathBuf {
        let key = self.folder("operator").join(format!("key-{host}"));
        let mut command = Command::new(binary("stork-publish"));
        command.args(["key", "generate", "--no-passphrase", "--out"]).arg(&key);
        assert!(command.output().unwrap().status.success());
        let host = self.hosts.get_mut(host).unwrap();
        host.configure(&format!("operators = [{:?}]\n", key.with_extension("pub")));
        host.restart();
        key
    }
}

/// The report of a push, which must have succeeded.
#[must_use]
pub fn report(out: &Output) -> Value {
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "the push failed with {}: {error}", out.status);
    serde_json::from_slice(&out.stdout).unwrap()
}
