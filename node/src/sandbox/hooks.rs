//! The child that runs hooks: started before the daemon locks itself up, so that the operator's
//! programs keep the rights of the daemon's user.
//!
//! It takes one order only, "run the hook of this VM", reads the VM's file itself, and says how
//! that ended. So a daemon that was taken over can run what the operator named for a VM, and
//! nothing else. It ends with the daemon: then its standard input is closed.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stork_wire::text::Label;

use super::SandboxError;
use crate::config::{NodeConfig, VmFolder};
use crate::store::SetId;
use crate::view::hook::{HookEnv, HookError, HookOutcome, OUTPUT_LEN_MAX, run_hook};

/// The hidden command of `stork-node` that this child runs.
pub const COMMAND: &str = "hook-runner";

/// Bytes of an order at the most: a name, a number and a hash.
const ORDER_LEN_MAX: u64 = 4 * 1024;
/// Bytes of an answer at the most: the output of a hook, as JSON may write it.
const ANSWER_LEN_MAX: u64 = 8 * OUTPUT_LEN_MAX as u64;

/// "Run the hook of this VM."
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    vm: Label,
    generation: u64,
    set: String,
    /// Run its check instead, and say that the set is there.
    #[serde(default)]
    check: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The hook ran.
    Ended { code: Option<i32>, timed_out: bool, output: String },
    /// It did not, and why.
    Refused(String),
}

/// The daemon's end.
#[derive(Debug)]
enum Runner {
    /// A child of the daemon.
    Child { child: Child, orders: ChildStdin, answers: BufReader<ChildStdout> },
    /// Where systemd starts one, for each order.
    At(PathBuf),
}

static RUNNER: OnceLock<Mutex<Runner>> = OnceLock::new();

/// Starts the child of this process, once.
pub(super) fn start(config: &NodeConfig) -> Result<(), SandboxError> {
    let runner = match &config.sandbox.helpers {
        Some(folder) => Runner::At(folder.join("hooks")),
        None => {
            let failed = |e| SandboxError::new("the folder of VM files has no path", e);
            start_child(&std::path::absolute(&config.vms).map_err(failed)?)?
        }
    };
    RUNNER.get_or_init(|| Mutex::new(runner));
    Ok(())
}

fn start_child(vms: &Path) -> Result<Runner, SandboxError> {
    let failed = |e| SandboxError::new("the process that runs hooks cannot be started", e);
    let exe = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(exe);
    // The demonstration's nodes are `stork __node …`.
    if let Some(role) = std::env::args_os().nth(1).filter(|a| a == "__node") {
        command.arg(role);
    }
    // A group of its own: Ctrl-C reaches the daemon, with which it ends.
    command.arg(COMMAND).arg("--vms").arg(vms).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::Error::from(io::ErrorKind::BrokenPipe)));
    };
    Ok(Runner::Child { child, orders, answers: BufReader::new(answers) })
}

impl Runner {
    fn ask(&mut self, order: &Order) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let ended = |how: String| {
            io::Error::other(format!("the process that runs hooks has ended{how}: restart stork"))
        };
        match self {
            Self::Child { child, orders, answers } => {
                orders.write_all(&line)?;
                read_line(answers, ANSWER_LEN_MAX)?.ok_or_else(|| {
                    let status = child.try_wait().ok().flatten();
                    ended(status.map_or_else(String::new, |s| format!(" ({s})")))
                })
            }
            Self::At(path) => {
                let mut socket = UnixStream::connect(&*path).map_err(|e| {
                    let path = path.display();
                    let text = format!("{path}: {e}: `systemctl status stork-hooks.socket`");
                    io::Error::other(text)
                })?;
                socket.write_all(&line)?;
                let answer = read_line(&mut BufReader::new(socket), ANSWER_LEN_MAX)?;
                answer.ok_or_else(|| ended(String::new()))
            }
        }
    }
}

/// One line of JSON; `None` at the end. What is longer is an error, and nothing is read after it.
fn read_line<T: for<'a> Deserialize<'a>>(
    from: &mut impl BufRead,
    max: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *from, max).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::other("a line that is too long, or cut"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Runs the hook of a VM: by the child where there is one, here where the process is not locked up.
pub fn run(
    vm: &Label,
    command: &Path,
    env: &HookEnv,
    timeout: Duration,
) -> Result<HookOutcome, HookError> {
    let Some(runner) = RUNNER.get() else { return run_hook(command, env, timeout) };
    let (generation, set, check) = (env.generation, env.set.clone(), env.set_path.clone());
    let order = Order { vm: vm.clone(), generation, set, check };
    let answer = runner.lock().unwrap_or_else(PoisonError::into_inner).ask(&order);
    let failed = |source| HookError::Io { path: command.to_owned(), source };
    match answer.map_err(failed)? {
        Answer::Ended { code, timed_out, output } => Ok(HookOutcome { code, timed_out, output }),
        Answer::Refused(why) => Err(failed(io::Error::other(why))),
    }
}

/// The child: takes orders until its standard input ends.
///
/// # Errors
/// What came was no order, or nobody reads the answers: the daemon has gone or is not itself.
pub fn serve(vms: PathBuf, orders: impl io::Read, mut answers: impl Write) -> io::Result<()> {
    let mut folder = VmFolder::new(vms);
    let mut orders = BufReader::new(orders);
    while let Some(order) = read_line::<Order>(&mut orders, ORDER_LEN_MAX)? {
        folder.reread();
        let mut line = serde_json::to_vec(&obey(&folder, &order))?;
        line.push(b'\n');
        answers.write_all(&line)?;
        answers.flush()?;
    }
    Ok(())
}

fn obey(folder: &VmFolder, order: &Order) -> Answer {
    let refuse = |why: &str| Answer::Refused(why.to_owned());
    let vms = folder.vms();
    let Some(vm) = vms.get(&order.vm) else { return refuse("there is no such VM") };
    let rule = match &order.check {
        None => vm.hook.as_ref().map(|h| (&h.command, h.timeout_s)),
        Some(_) => vm.check.as_ref().and_then(|c| Some((c.command.as_ref()?, c.timeout_s))),
    };
    let Some((command, timeout_s)) = rule else { return refuse("the VM's file names no hook") };
    // Not what the daemon says about a set, but that it is the name of one: no text of others
    // reaches the environment of a program.
    let Ok(set) = order.set.parse::<SetId>() else { return refuse("that is no set") };
    let end = Path::new("sets").join(set.to_string());
    if order.check.as_ref().is_some_and(|path| !path.is_absolute() || !path.ends_with(&end)) {
        return refuse("that is not the place of the set");
    }
    let env = HookEnv {
        vm: order.vm.to_string(),
        target: vm.target.clone(),
        generation: order.generation,
        set: set.to_string(),
        set_path: order.check.clone(),
    };
    match run_hook(command, &env, Duration::from_secs(timeout_s)) {
        Ok(HookOutcome { code, timed_out, output }) => Answer::Ended { code, timed_out, output },
        Err(e) => {
            let cause =
                std::error::Error::source(&e).map_or_else(String::new, |c| format!(": {c}"));
            Answer::Refused(format!("{e}{cause}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(hook: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[vm]\ngroups = [\"web\"]\n{hook}\n[view]\nbackend = \"tree\"\ntarget = \"/srv/a\"\n"
        );
        std::fs::write(dir.path().join("web-1.toml"), text).unwrap();
        dir
    }

    fn ask(dir: &Path, orders: &str) -> (io::Result<()>, Vec<String>) {
        let mut answers = Vec::new();
        let ended = serve(dir.to_owned(), orders.as_bytes(), &mut answers);
        let text = String::from_utf8(answers).unwrap();
        (ended, text.lines().map(str::to_owned).collect())
    }

    fn order(vm: &str, set: &str) -> String {
        format!("{{\"vm\":\"{vm}\",\"generation\":3,\"set\":\"{set}\"}}\n")
    }

    /// The child runs what the VM's file names, and nothing that its orders name.
    #[test]
    fn hooks_of_vm_files_only() {
        let set = "0".repeat(64);
        let dir = folder("[hook]\ncommand = \"/usr/bin/env\"");
        let (ended, said) = ask(dir.path(), &(order("web-1", &set) + &order("db-1", &set)));
        ended.unwrap();
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("Ended") && said[0].contains("\"code\":0"), "{}", said[0]);
        assert!(said[0].contains(&format!("STORK_SET={set}")), "{}", said[0]);
        assert!(said[0].contains("STORK_TARGET=/srv/a") && said[0].contains("STORK_GENERATION=3"));
        assert!(said[1].contains("no such VM"), "{}", said[1]);
        let (_, said) = ask(folder("").path(), &order("web-1", &set));
        assert!(said[0].contains("names no hook"), "{}", said[0]);
        let (_, said) = ask(dir.path(), &order("web-1", "x; reboot"));
        assert!(said[0].contains("no set"), "{}", said[0]);
        let check =
            |path: &str| order("web-1", &set).replace('}', &format!(",\"check\":\"{path}\"}}"));
        let both = folder("[hook]\ncommand = \"/bin/false\"\n[check]\ncommand = \"/usr/bin/env\"");
        let place = format!("/var/lib/stork/sets/{set}");
        let (_, said) = ask(both.path(), &(check(&place) + &check("/etc") + &check("sets/x")));
        assert!(said[0].contains(&format!("STORK_SET_PATH={place}")), "{}", said[0]);
        assert!(said[1].contains("not the place") && said[2].contains("not the place"));
        let (_, said) = ask(dir.path(), &check(&place));
        assert!(said[0].contains("names no hook"), "{}", said[0]);
        let gone = folder("[hook]\ncommand = \"/nowhere/at/all\"");
        let (_, said) = ask(gone.path(), &order("web-1", &set));
        assert!(said[0].contains("Refused"), "{}", said[0]);
    }

    /// Whoever sends something else is not the daemon.
    #[test]
    fn orders_that_are_none() {
        let dir = folder("");
        let extra = "{\"vm\":\"a\",\"generation\":1,\"set\":\"x\",\"command\":\"/bin/sh\"}\n";
        let long = "x".repeat(5_000);
        for bad in ["\n", "{}\n", "garbage", extra, &long] {
            let (ended, said) = ask(dir.path(), bad);
            assert!(ended.is_err() && said.is_empty(), "{bad:.40}: {said:?}");
        }
    }
}
