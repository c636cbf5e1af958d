//! The programs that every VM of the bench runs: python, perl, git and gcc with its compiler and
//! assembler, each up and waiting for input, from the VM's own root. Python writes no compiled
//! modules, which it could do in some views only.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::group::Group;

/// A program has this long to get ready.
const READY: Duration = Duration::from_secs(60);

const PYTHON: &str = "import sys, json, ssl, sqlite3, asyncio, http.client, unittest, decimal\n\
                      print('ready', flush=True); sys.stdin.read()";
const PERL: &str = "use POSIX; use Data::Dumper; use Encode; use Storable; use IO::Socket; \
                    $| = 1; print \"ready\\n\"; <STDIN>;";

/// The running programs of one VM. They end with it.
pub(crate) struct Mix {
    children: Vec<Child>,
}

impl Mix {
    /// Starts them in a root, as members of the group, and waits until all are ready.
    pub(crate) fn start(root: &Path, group: &Group) -> Result<Self> {
        let mut mix = Self { children: Vec::new() };
        mix.say(root, group, &["/usr/bin/python3", "-c", PYTHON], "")?;
        mix.say(root, group, &["/usr/bin/perl", "-e", PERL], "")?;
        mix.say(root, group, &["/usr/bin/git", "hash-object", "--stdin-paths"], "/probe\n")?;
        let gcc = ["/usr/bin/gcc", "-pipe", "-x", "c", "-", "-c", "-o", "/tmp/out.o"];
        let child = spawn(root, group, &gcc, false)?;
        let pid = child.id();
        mix.children.push(child);
        reads_input(pid)?;
        Ok(mix)
    }

    /// Starts one that says a line when it is ready.
    fn say(&mut self, root: &Path, group: &Group, args: &[&str], input: &str) -> Result<()> {
        let mut child = spawn(root, group, args, true)?;
        let stdin = child.stdin.as_mut().context("no input")?;
        stdin.write_all(input.as_bytes())?;
        let out = child.stdout.take().context("no output")?;
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim().is_empty() {
            bail!("{} did not start", args.first().unwrap_or(&""));
        }
        Ok(())
    }
}

/// Starts a program in a root, as a member of the group from its first moment.
fn spawn(root: &Path, group: &Group, args: &[&str], output: bool) -> Result<Child> {
    let join = "echo $$ > \"$0\" && exec chroot \"$@\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(join).arg(group.processes()).arg(root).args(args);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::piped());
    command.stdout(if output { Stdio::piped() } else { Stdio::null() });
    command.spawn().context("sh cannot be run")
}

/// Waits until the compiler that a process has started waits for its input: then it has loaded all
/// that it needs.
fn reads_input(parent: u32) -> Result<()> {
    let begun = Instant::now();
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let reads = |pid: &str| {
        // `read` of descriptor 0, of the program and not of its parent before it.
        read(format!("/proc/{pid}/syscall")).starts_with("0 0x0 ")
            && read(format!("/proc/{pid}/comm")).trim() == "cc1"
    };
    loop {
        let children = read(format!("/proc/{parent}/task/{parent}/children"));
        if children.split_whitespace().any(reads) {
            return Ok(());
        }
        if begun.elapsed() > READY {
            bail!("the compiler does not get ready");
        }
        std::thread::yield_now();
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        // All of them end with their input, gcc after those that it has started.
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            drop(child.wait());
        }
    }
}
