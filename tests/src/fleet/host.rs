//! One host: a `stork-node` process with its folder, and what `stork` says about it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use super::binaries::binary;
use super::namespace::Namespace;
use super::vm_file::VmFile;
use crate::wait::{wait_for, wait_until};

/// Lines of a host's log that are shown when a test fails.
const LOG_LINES: usize = 60;

/// A port that nobody has. From below the range from which the kernel gives out ports by itself,
/// so that it stays free while its host is down.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 2_000).unwrap() * 5 + 20_000;
    wait_for("a free UDP port", || {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        UdpSocket::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}

/// A host of a fleet.
#[derive(Debug)]
pub struct Host {
    /// Its name in the fleet.
    pub name: String,
    /// All that it writes lies below.
    pub dir: PathBuf,
    port: u16,
    listen: String,
    env: Vec<(String, String)>,
    namespace: Option<Arc<Namespace>>,
    /// The program that starts ours, with its arguments: how a service manager would.
    starter: Vec<String>,
    child: Option<Child>,
}

impl Host {
    /// A host that belongs to no fleet yet.
    #[must_use]
    pub fn new(fleet: &Path, name: &str, namespace: Option<Arc<Namespace>>) -> Self {
        let dir = fleet.join(name);
        fs::create_dir_all(dir.join("vms")).unwrap();
        fs::create_dir_all(dir.join("views")).unwrap();
        let (name, env) = (name.to_owned(), Vec::new());
        let listen = "127.0.0.1".to_owned();
        let (starter, child) = (Vec::new(), None);
        Self { name, dir, port: free_port(), listen, env, namespace, starter, child }
    }

    /// A variable that the process gets at its next start.
    pub fn with_env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Forgets the variables.
    pub fn without_env(&mut self) -> &mut Self {
        self.env.clear();
        self
    }

    /// Listens on another address than the loopback's from its next start on.
    pub fn listen_on(&mut self, ip: &str) -> &mut Self {
        ip.clone_into(&mut self.listen);
        self
    }

    /// Starts the program by another one from now on, such as `setpriv`, which becomes it.
    pub fn start_by(&mut self, starter: &[&str]) -> &mut Self {
        self.starter = starter.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// The id of its process, which must run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Its UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Settings that it reads from its next start on.
    pub fn configure(&self, text: &str) {
        fs::write(self.config_path(), text).unwrap();
    }

    fn command(&self) -> Command {
        let node = binary("stork-node").into_os_string();
        let mut words = self.starter.iter().map(Into::into).chain([node]);
        let program = words.next().unwrap();
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        };
        command.args(words);
        if self.config_path().exists() {
            command.arg("--config").arg(self.config_path());
        }
        command.arg("--state").arg(self.dir.join("state"));
        command.arg("--vms").arg(self.dir.join("vms"));
        command.arg("--socket").arg(self.dir.join("sock"));
        command.arg("--listen").arg(format!("{}:{}", self.listen, self.port));
        command.arg("--views").arg(self.dir.join("views"));
        command.args(["--min-free-bytes", "1000000"]);
        command
    }

    /// Runs `stork-node` with arguments to its end.
    #[must_use]
    pub fn node(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs `stork-node` with arguments, which must succeed.
    pub fn node_ok(&self, args: &[&str]) -> String {
        let out = self.node(args);
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{}: stork-node {args:?}: {error}", self.name);
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        self.node_ok(&["id"])
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command();
        command.arg("run").envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self) -> &mut Self {
        self.spawn();
        wait_until(&format!("{} to answer", self.name), || {
            let ended = self.ended();
            assert!(ended.is_none(), "{} ended at its start: {ended:?}\n{}", self.name, self.log());
            self.ask(&["status"]).is_some()
        });
        self
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    /// Waits until the process has been killed, not by us, and says by which signal.
    pub fn await_death(&mut self, why: &str) -> Option<i32> {
        let name = self.name.clone();
        wait_for(&format!("{name} to die at {why}"), || self.ended()).signal()
    }

    /// Asks the process to end, and waits for it.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = wait_for("a host to end", || child.try_wait().unwrap());
        assert!(status.success(), "{} did not end well: {status}\n{}", self.name, self.log());
    }

    /// Kills the process at once, like a power cut.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends and starts the process.
    pub fn restart(&mut self) -> &mut Self {
        self.stop();
        self.start()
    }

    /// Runs `stork --json` with arguments.
    #[must_use]
    pub fn stork(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("stork"));
        command.arg("--socket").arg(self.dir.join("sock")).arg("--json").args(args);
        command.output().unwrap()
    }

    /// What `stork --json` says; none where it does not succeed.
    #[must_use]
    pub fn ask(&self, args: &[&str]) -> Option<Value> {
        let out = self.stork(args);
        if out.status.success() { serde_json::from_slice(&out.stdout).ok() } else { None }
    }

    /// What `stork --json` says, which must succeed.
    #[must_use]
    pub fn tell(&self, args: &[&str]) -> Value {
        let out = self.stork(args);
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{}: stork {args:?}: {error}", self.name);
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Lets a VM go back to a release, as an operator does.
    pub fn permit(&self, vm: &str, release: &str, key: &Path) {
        let key = key.to_str().unwrap();
        let out = self.stork(&["permit", "create", vm, release, "--key", key]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Writes a VM's file in one step.
    pub fn write_vm(&self, vm: &str, file: &VmFile) {
        self.write_vm_text(vm, &file.text());
    }

    /// Writes any text as a VM's file in one step.
    pub fn write_vm_text(&self, vm: &str, text: &str) {
        let folder = self.dir.join("vms");
        let new = folder.join(format!(".{vm}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, folder.join(format!("{vm}.toml"))).unwrap();
    }

    /// Where a VM of this host is shown its packages.
    #[must_use]
    pub fn target(&self, vm: &str) -> PathBuf {
        self.dir.join("views").join(vm)
    }

    /// Where the test sees what the VM sees.
    #[must_use]
    pub fn seen(&self, vm: &str) -> PathBuf {
        let target = self.target(vm);
        match &self.namespace {
            Some(namespace) => namespace.see(&target),
            None => target,
        }
    }

    /// What a VM shows: versions by package.
    #[must_use]
    pub fn vm_shows(&self, vm: &str) -> BTreeMap<String, String> {
        let Some(vm) = self.ask(&["vm", vm]) else { return BTreeMap::new() };
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let shows = vm["shows"].as_array().unwrap().iter();
        shows.map(|s| (text(&s["package"]), text(&s["version"]))).collect()
    }

    /// Waits until a VM shows exactly these packages.
    pub fn await_vm(&self, vm: &str, packages: &[(&str, &str)]) {
        let wanted: BTreeMap<_, _> =
            packages.iter().map(|(p, v)| ((*p).to_owned(), (*v).to_owned())).collect();
        let mut last = BTreeMap::new();
        let begun = std::time::Instant::now();
        let shown = || {
            last = self.vm_shows(vm);
            let late =
                begun.elapsed() + std::time::Duration::from_secs(1) >= crate::wait::patience();
            assert!(!late, "{}: {vm} shows {last:?}, not {wanted:?}", self.name);
            last == wanted
        };
        wait_until("a VM to show its packages", shown);
    }

    /// One counter, over all reasons or for one.
    #[must_use]
    pub fn counter(&self, name: &str, reason: &str) -> u64 {
        let status = self.ask(&["status"]).unwrap_or_default();
        let all = status["counters"].as_array().cloned().unwrap_or_default();
        let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
        all.iter().filter(fits).filter_map(|c| c["count"].as_u64()).sum()
    }

    /// One release as this host knows it.
    #[must_use]
    pub fn release(&self, package: &str, version: &str) -> Option<Value> {
        let all = self.ask(&["release", package])?;
        let mut all = all["releases"].as_array()?.clone().into_iter();
        all.find(|r| r["version"] == version)
    }

    /// Waits until the content of a release is whole here, and returns the release.
    pub fn await_whole(&self, package: &str, version: &str) -> Value {
        wait_for(&format!("{} to have {package} {version}", self.name), || {
            self.release(package, version).filter(|r| r["state"] == "whole")
        })
    }

    /// Every object, pack and manifest hashes to its name.
    pub fn verify_store(&self) {
        let report = self.tell(&["store", "verify"]);
        assert_eq!(report["damaged"], serde_json::json!([]), "{}: {report}", self.name);
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of {} ({})\n{}", self.name, self.dir.display(), self.log());
        }
        self.kill9();
    }
}
