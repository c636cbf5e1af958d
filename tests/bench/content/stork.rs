//! Delivery by stork: a `stork-node` per node, all of one fleet, and a push to the one in `repo`.
//!
//! The fleet is an ordinary one that runs: every host has joined, knows the others and shows a
//! first small package to its VM. The push brings the content to the repository's node inside of
//! its namespace and then has it announced; the clock starts at the `announced` event of that
//! node, which it writes when the entry is committed. A host is done at its `fetched` event: all
//! pieces are in its store and checked. When its VM is shown the file is told apart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use stork_node::control::Client;
use stork_tests::lab::wait_every;

use super::bed::Bed;
use super::crew::Crew;
use super::delivery::Task;
use super::insider::Insider;
use super::tools::output;

const PORT: u16 = 7749;
/// How long a node may take to answer, to join, or to know all others.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile: each answer costs processor time that all share.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The stores lie on a tmpfs; a node leaves a twentieth of a real disk free.
const MIN_FREE_BYTES: &str = "1000000";

/// A running fleet.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    bed: &'a Bed,
    dir: PathBuf,
    programs: PathBuf,
    clients: Vec<Client>,
    repo_id: String,
}

impl<'a> Fleet<'a> {
    /// Founds it and waits until it has delivered a first package.
    pub(crate) async fn found(task: &Task<'a>, dir: &Path, crew: &mut Crew) -> Result<Self> {
        let bed = task.bed;
        let programs = std::env::current_exe()?.parent().context("no folder")?.to_owned();
        let (dir, clients) = (dir.to_owned(), Vec::new());
        let mut fleet = Self { bed, dir, programs, clients, repo_id: String::new() };
        fleet.charter()?;
        for node in 0..=task.honest() {
            fleet.add(node, crew).await?;
        }
        fleet.settle().await?;
        fleet.first_package().await?;
        for (node, kind) in (task.honest() + 1..).zip(&task.insiders) {
            fleet.add_insider((node, *kind), &task.package, crew).await?;
        }
        Ok(fleet)
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        anyhow::ensure!(
            path.is_file(),
            "{} is missing: build stork-node and stork-publish with the same profile first",
            path.display()
        );
        Ok(path)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.dir.join(Bed::who(node))
    }

    fn charter(&self) -> Result<()> {
        let mut command = Command::new(self.program("stork-publish")?);
        command.args(["charter", "init", "--fleet", "bed", "--publisher", "acme"]);
        command.args(["--group", "web", "--no-passphrase", "--dir"]).arg(self.dir.join("charter"));
        output(&mut command).map(drop)
    }

    fn node(&self, node: usize) -> Result<Command> {
        let home = self.home(node);
        let mut command = self.bed.command(node, &self.program("stork-node")?);
        command.arg("--state").arg(home.join("state")).arg("--vms").arg(home.join("vms"));
        command.arg("--socket").arg(home.join("sock"));
        command.args(["--listen", &format!("{}:{PORT}", self.bed.ip(node))]);
        command.args(["--min-free-bytes", MIN_FREE_BYTES]);
        Ok(command)
    }

    async fn add(&mut self, node: usize, crew: &mut Crew) -> Result<()> {
        let (home, name) = (self.home(node), Bed::who(node));
        std::fs::create_dir_all(home.join("vms"))?;
        let site = format!("site-{}", self.bed.shape.site(node));
        let mut enter = self.node(node)?;
        if node > 0 {
            enter.args(["join", &self.token(node).await?]);
            std::fs::write(home.join("vms/vm.toml"), vm_file(&self.view(node)))?;
        } else {
            let charter = self.dir.join("charter");
            enter.args(["init", "--name", &name, "--site", &site]);
            enter.arg("--charter").arg(charter.join("charter.bundle"));
            enter.arg("--admission-key").arg(charter.join("keys/admission"));
        }
        output(&mut enter)?;
        crew.start(node, self.node(node)?.arg("run"), &home)?;
        let client = Client::new(&home.join("sock"), PATIENCE);
        wait_every(LOOK_EVERY, &format!("{name} to answer"), PATIENCE, || async {
            client.get("/v1/status").await.ok()
        })
        .await?;
        if node == 0 {
            self.repo_id = output(self.node(0)?.arg("id"))?.trim().to_owned();
        }
        self.clients.push(client);
        Ok(())
    }

    /// An insider that has dialled every host.
    async fn add_insider(
        &self,
        (node, kind): (usize, Insider),
        package: &Path,
        crew: &mut Crew,
    ) -> Result<()> {
        let home = self.home(node);
        std::fs::create_dir_all(&home)?;
        let mut to = Vec::new();
        for host in 1..self.clients.len() {
            let id = output(self.node(host)?.arg("id"))?;
            to.push(format!("{}@{}:{PORT}", id.trim(), self.bed.ip(host)));
        }
        let ready = home.join("ready");
        let mut command = self.bed.command(node, &std::env::current_exe()?);
        command.args(["helper", "insider", "--kind", kind.name(), "--to", &to.join(",")]);
        command.args(["--own", &self.bed.ip(node)]);
        command.args(["--token", &self.token(node).await?]).arg("--package").arg(package);
        command.arg("--charter").arg(self.dir.join("charter")).arg("--ready").arg(&ready);
        crew.start(node, &mut command, &home)?;
        let what = format!("{} to dial all hosts", Bed::who(node));
        wait_every(LOOK_EVERY, &what, PATIENCE, || async { ready.is_file().then_some(()) }).await
    }

    async fn token(&self, node: usize) -> Result<String> {
        let site = format!("site-{}", self.bed.shape.site(node));
        let body = json!({ "name": Bed::who(node), "site": site, "ttl_s": 600 });
        let repo = self.clients.first().context("no repository")?;
        let token = repo.post("/v1/tokens", &body).await?;
        Ok(token["token"].as_str().context("no token")?.to_owned())
    }

    /// Waits until every node knows all others and has its links.
    async fn settle(&self) -> Result<()> {
        let all = self.clients.len() as u64;
        for (node, client) in self.clients.iter().enumerate() {
            let what = format!("{} to know {all} hosts", Bed::who(node));
            wait_every(LOOK_EVERY, &what, PATIENCE, || async {
                let s = client.get("/v1/status").await.ok()?;
                let linked = s["links"].as_u64()? >= (all - 1).min(3);
                (linked && s["hosts"].as_u64()? >= all).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// What every host wants is known to the others when all have a first package.
    async fn first_package(&self) -> Result<()> {
        let folder = self.dir.join("first");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("first"), b"first")?;
        self.push(&folder, "first").await?;
        for node in 1..self.clients.len() {
            let what = format!("{} to show a first package", Bed::who(node));
            wait_every(LOOK_EVERY, &what, PATIENCE, || async {
                self.event_ms(node, "view_switched", "first 1").await
            })
            .await?;
        }
        Ok(())
    }

    async fn push(&self, folder: &Path, name: &str) -> Result<()> {
        let mut push = self.bed.command(0, &self.program("stork-publish")?);
        push.arg("push").arg(folder).args(["--name", name, "--version", "1", "--arch", "all"]);
        push.arg("--charter").arg(self.dir.join("charter")).arg("--json");
        push.args(["--to", &format!("{}@{}:{PORT}", self.repo_id, self.bed.ip(0))]);
        let mut push = tokio::process::Command::from(push);
        let out = push.kill_on_drop(true).output().await?;
        let error = String::from_utf8_lossy(&out.stderr);
        anyhow::ensure!(out.status.success(), "stork-publish push {name}: {error}");
        Ok(())
    }

    /// When the first event of a kind whose text holds `text` happened, in ms since 1970.
    async fn event_ms(&self, node: usize, kind: &str, text: &str) -> Option<u64> {
        let all = self.clients.get(node)?.get("/v1/events").await.ok()?;
        let mut events = all["events"].as_array()?.iter();
        let has = |e: &&Value| e["text"].as_str().is_some_and(|t| t.contains(text));
        events.find(|e| e["kind"] == kind && has(e))?["at_ms"].as_u64()
    }

    /// Pushes the folder of the content; returns when it was announced.
    pub(crate) async fn begin(&self, folder: &Path) -> Result<u64> {
        self.push(folder, "data").await?;
        let announced = self.event_ms(0, "announced", "data 1").await;
        announced.context("the repository's node has no event of the announcement")
    }

    /// When a host had all pieces.
    pub(crate) async fn done(&self, node: usize) -> Option<u64> {
        self.event_ms(node, "fetched", "data 1").await
    }

    /// When a host's VM was shown the file; waits for it.
    pub(crate) async fn shown(&self, node: usize) -> Result<u64> {
        wait_every(LOOK_EVERY, &format!("{} to show it", Bed::who(node)), PATIENCE, || async {
            self.event_ms(node, "view_switched", "data 1").await
        })
        .await
    }

    fn view(&self, node: usize) -> PathBuf {
        self.home(node).join("view")
    }

    /// The file as a host's VM sees it.
    pub(crate) fn file(&self, node: usize) -> PathBuf {
        self.view(node).join(super::DATA)
    }

    /// What each node says of its content, its neighbours and its counters, for whoever looks for
    /// the cause of a figure: into `report.json` of its folder.
    pub(crate) async fn keep_reports(&self) -> Result<()> {
        for (node, client) in self.clients.iter().enumerate() {
            let mut report = json!({});
            for part in ["status", "releases", "peers", "events"] {
                report[part] = client.get(&format!("/v1/{part}")).await.unwrap_or(Value::Null);
            }
            let path = self.home(node).join("report.json");
            std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
        }
        Ok(())
    }
}

fn vm_file(view: &Path) -> String {
    format!(
        "[vm]\ngroups = [\"web\"]\n[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"acme\"\n\
         [view]\nbackend = \"hardlink\"\nisolation = \"none\"\ntarget = {view:?}\n"
    )
}
