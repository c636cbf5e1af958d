//! Processes of the demonstration: this same binary again, as publisher and as node.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::Value;

use super::error::DemoError;

/// Names the process with which a node of the demonstration ends.
const PARENT: &str = "STORK_DEMO_PARENT";
/// Lines of a failed command's error that are shown.
const SAID_LINES: usize = 6;

/// A node that the demonstration started ends with it, even if that is killed. Other nodes are not
/// concerned. `Some` if the demonstration is gone already.
pub(crate) fn end_with_parent() -> Option<ExitCode> {
    let parent: i32 = std::env::var(PARENT).ok()?.parse().ok()?;
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    let alive = getppid().is_some_and(|p| p.as_raw_nonzero().get() == parent);
    (tied.is_err() || !alive).then_some(ExitCode::FAILURE)
}

/// How this binary is started again.
#[derive(Debug, Clone)]
pub(super) struct Binary {
    exe: PathBuf,
    /// For temporary files of the children, so that nothing is left behind.
    temp: PathBuf,
    /// Do nodes go on when the demonstration ends?
    pub(super) keep: bool,
}

impl Binary {
    pub(super) fn this(temp: &Path, keep: bool) -> Result<Self, DemoError> {
        let exe = std::env::current_exe()
            .map_err(|source| DemoError::Io { what: "find this binary".into(), source })?;
        std::fs::create_dir_all(temp)
            .map_err(|source| DemoError::Io { what: format!("make {}", temp.display()), source })?;
        Ok(Self { exe, temp: temp.to_owned(), keep })
    }

    /// `role` is `__node` or `__publish`. The operator's own settings have no say here.
    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg(role).stdin(Stdio::null()).env("TMPDIR", &self.temp).env("NO_COLOR", "1");
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|n| n.to_string_lossy().starts_with("STORK_")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end, and gives what it printed.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        role: &str,
        args: &[S],
    ) -> Result<String, DemoError> {
        let mut command = self.command(role);
        command.args(args);
        let shown = args.iter().map(|a| a.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        let what = format!("run `{role} {shown}`");
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await;
        let output = output.map_err(|source| DemoError::Io { what, source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(SAID_LINES)..).unwrap_or_default();
        let program = role.replace("__node", "stork-node").replace("__publish", "stork-publish");
        let first = args.first().map_or_else(String::new, |a| a.as_ref().to_string_lossy().into());
        let command = format!("{program} {first}");
        let code = output.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
        Err(DemoError::Child { command, code, said: last.join("; ") })
    }

    /// The same, where it prints JSON.
    pub(super) async fn run_json<S: AsRef<OsStr>>(
        &self,
        role: &str,
        args: &[S],
    ) -> Result<Value, DemoError> {
        let text = self.run(role, args).await?;
        serde_json::from_str(&text)
            .map_err(|e| DemoError::Wrong(format!("{role} printed no JSON: {e}")))
    }

    /// Starts a node whose log goes to a file.
    pub(super) fn node(&self, args: &[&OsStr], log: &Path) -> Result<Process, DemoError> {
        use std::os::unix::process::CommandExt;
        let failed =
            |source| DemoError::Io { what: format!("start a node ({})", log.display()), source };
        let log = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = self.command("__node");
        // A group of its own: Ctrl-C reaches the demonstration, which then ends its nodes.
        command.args(args).stdout(Stdio::null()).stderr(log).process_group(0);
        if !self.keep {
            command.env(PARENT, std::process::id().to_string());
        }
        Ok(Process(Some(command.spawn().map_err(failed)?)))
    }
}

/// A node's process; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process(Option<Child>);

impl Process {
    pub(super) fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Has it ended by itself?
    pub(super) fn ended(&mut self) -> bool {
        self.0.as_mut().is_some_and(|c| !matches!(c.try_wait(), Ok(None)))
    }

    /// SIGKILL, as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already, which is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Lets it go on without us.
    pub(super) fn release(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
