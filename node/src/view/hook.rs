//! Commands of the operator that run on the host around a switch.
//!
//! A hook inherits nothing: no environment, no descriptors, no terminal. It has a time, after
//! which its whole process group is killed, and its output is kept up to a bound. What it leaves
//! in that group when it ends is killed too; a server that it starts leaves the group by itself
//! (`setsid`, daemon(7)) and has five seconds for it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Bytes of output that are kept; the rest is read and dropped.
pub const OUTPUT_LEN_MAX: usize = 16 * 1024;

/// How often a running hook is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long what a hook started may stay in its process group after it. A server forks, its first
/// process ends, and only then the second one leaves the group: killed at once, it would be dead
/// although the hook said that all is well.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What a hook is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookEnv {
    /// `STORK_VM`
    pub vm: String,
    /// `STORK_TARGET`
    pub target: PathBuf,
    /// `STORK_GENERATION`
    pub generation: u64,
    /// `STORK_SET`
    pub set: String,
    /// `STORK_SET_PATH`, for a check: what the set is on disk, before it is shown.
    pub set_path: Option<PathBuf>,
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookOutcome {
    /// The exit status; `None` where a signal ended it.
    pub code: Option<i32>,
    /// It took too long and was killed.
    pub timed_out: bool,
    /// What it wrote to both outputs, at most [`OUTPUT_LEN_MAX`] bytes.
    pub output: String,
}

impl HookOutcome {
    /// Did it end by itself and say that all is well?
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

/// Why a hook was not run.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The operator's: others could change what we would run.
    #[error("the hook `{}` is refused: {why}", path.display())]
    Refused {
        /// The command.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The system's: it could not be started or watched.
    #[error("the hook `{}` could not be run", path.display())]
    Io {
        /// The command.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn check(command: &Path) -> Result<(), HookError> {
    let refuse = |why| Err(HookError::Refused { path: command.to_owned(), why });
    if !command.is_absolute() {
        return refuse("it must be an absolute path");
    }
    let meta = std::fs::metadata(command)
        .map_err(|source| HookError::Io { path: command.to_owned(), source })?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return refuse("it is not an executable file");
    }
    if meta.uid() != 0 && meta.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user than root and stork-node");
    }
    if meta.mode() & 0o022 != 0 {
        return refuse("others than its owner may change it");
    }
    Ok(())
}

/// Runs a hook to its end or for at most `timeout`.
pub fn run_hook(
    command: &Path,
    env: &HookEnv,
    timeout: Duration,
) -> Result<HookOutcome, HookError> {
    check(command)?;
    let fail = |source| HookError::Io { path: command.to_owned(), source };
    let (mut reader, writer) = io::pipe().map_err(fail)?;
    let flags = rustix::fs::fcntl_getfl(reader.as_fd()).map_err(|e| fail(e.into()))?;
    rustix::fs::fcntl_setfl(reader.as_fd(), flags | OFlags::NONBLOCK)
        .map_err(|e| fail(e.into()))?;
    let second = writer.try_clone().map_err(fail)?;
    let mut child = Command::new(command)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("STORK_VM", &env.vm)
        .env("STORK_TARGET", &env.target)
        .env("STORK_GENERATION", env.generation.to_string())
        .env("STORK_SET", &env.set)
        .envs(env.set_path.iter().map(|path| ("STORK_SET_PATH", path)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second)
        .process_group(0)
        .spawn()
        .map_err(fail)?;
    let mut output = Vec::new();
    let ended = watch(&mut child, timeout, &mut reader, &mut output);
    // Whatever of its group still runs would outlive the switch that it belongs to.
    end_group(&child, matches!(ended, Ok(Some(_))));
    let status = match &ended {
        Ok(Some(status)) => *status,
        _ => child.wait().map_err(fail)?,
    };
    drain(&mut reader, &mut output);
    Ok(HookOutcome {
        code: status.code(),
        timed_out: ended.map_err(fail)?.is_none(),
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}

/// Waits for the end; `None` where the time ran out.
fn watch(
    child: &mut Child,
    timeout: Duration,
    reader: &mut impl Read,
    output: &mut Vec<u8>,
) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        drain(reader, output);
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= timeout {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY.min(timeout));
    }
}

/// Takes what is there, keeps what fits. Bounded, so that a hook that never stops writing can't
/// hold us here.
fn drain(reader: &mut impl Read, output: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    for _ in 0..64 {
        let Ok(n) = reader.read(&mut chunk) else { return };
        if n == 0 {
            return;
        }
        let room = OUTPUT_LEN_MAX.saturating_sub(output.len());
        output.extend(chunk.iter().take(n.min(room)));
    }
}

/// Kills what is left of a hook's process group: at once, or where the hook has ended `by_itself`
/// after [`LEAVE_WITHIN`]. The group's number belongs to nobody else as long as it has a process.
fn end_group(child: &Child, by_itself: bool) {
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let start = Instant::now();
    while by_itself && start.elapsed() < LEAVE_WITHIN {
        if test_kill_process_group(group) == Err(rustix::io::Errno::SRCH) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    if let Err(e) = kill_process_group(group, Signal::KILL) {
        tracing::debug!(%e, "nothing of the hook's process group is left to kill");
    }
}
