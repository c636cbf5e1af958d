//! The processes of one method: started in the namespaces of their nodes, their processor time and
//! memory watched, and all of them gone with this value.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::bed::Bed;

/// One process.
#[derive(Debug)]
struct Member {
    node: usize,
    child: Child,
    /// Processor time at the start of the delivery and last seen, in hundredths of a second.
    cpu: (u64, u64),
    /// The most resident memory, and the most of it anonymous, in KiB.
    rss_kib: u64,
    anon_kib: u64,
    alive: bool,
}

impl Member {
    /// Reads what it took so far; what has ended keeps its last figures.
    fn sample(&mut self) {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        if let Ok(ticks) = crate::idle::cpu_ticks(self.child.id()) {
            self.cpu.1 = self.cpu.1.max(ticks);
        }
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let kib = |key: &str| -> u64 {
            let line = status.lines().find(|l| l.starts_with(key));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        self.rss_kib = self.rss_kib.max(kib("VmHWM:"));
        self.anon_kib = self.anon_kib.max(kib("RssAnon:"));
    }

    fn kill(&mut self) {
        if std::mem::take(&mut self.alive) {
            self.sample();
            // It may have ended by itself; either way it is collected.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// All processes of a method.
#[derive(Debug, Default)]
pub(crate) struct Crew(Vec<Member>);

impl Crew {
    /// Starts a command of [`Bed::command`] for a node; what it says goes into a file `log` of
    /// its folder.
    pub(crate) fn start(&mut self, node: usize, command: &mut Command, dir: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(dir);
        let child = command.spawn();
        let child = child.with_context(|| format!("{}: nsenter cannot be run", Bed::who(node)))?;
        let alive = true;
        self.0.push(Member { node, child, cpu: (0, 0), rss_kib: 0, anon_kib: 0, alive });
        Ok(())
    }

    /// From now on processor time counts.
    pub(crate) fn begin(&mut self) {
        for member in &mut self.0 {
            member.sample();
            member.cpu.0 = member.cpu.1;
        }
    }

    /// Looks at all that run.
    pub(crate) fn sample(&mut self) {
        self.0.iter_mut().filter(|m| m.alive).for_each(Member::sample);
    }

    /// Kills the processes of a node at once.
    pub(crate) fn kill(&mut self, node: usize) {
        self.0.iter_mut().filter(|m| m.node == node).for_each(Member::kill);
    }

    /// The processes of a node that ended by themselves.
    pub(crate) fn ended(&mut self, node: usize) -> bool {
        let mut of_node = self.0.iter_mut().filter(|m| m.node == node && m.alive);
        of_node.any(|m| m.child.try_wait().is_ok_and(|s| s.is_some()))
    }

    /// Seconds of processor time of all since [`Crew::begin`].
    pub(crate) fn cpu_s(&self) -> f64 {
        let ticks: u64 = self.0.iter().map(|m| m.cpu.1 - m.cpu.0).sum();
        super::bound::float(ticks) / 100.0
    }

    /// The most that a host's process had resident, and anonymous, in KiB.
    pub(crate) fn peak_kib(&self) -> (u64, u64) {
        let hosts = || self.0.iter().filter(|m| m.node > 0);
        let most = |of: fn(&Member) -> u64| hosts().map(of).max().unwrap_or(0);
        (most(|m| m.rss_kib), most(|m| m.anon_kib))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Member::kill);
    }
}
