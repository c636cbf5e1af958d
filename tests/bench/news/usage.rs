//! What this process and its network namespace have used up to a moment: phases subtract two of
//! these. The counters of the wire are those of the loopback device, so that only a namespace
//! without anybody else gives figures of this program alone.

use std::fs::read_to_string;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::getpid;

/// A reading of all counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) at: Instant,
    /// Processor seconds of this process, user and system.
    pub(super) cpu_s: f64,
    /// Processor seconds of the threads that write journals.
    pub(super) journal_s: f64,
    pub(super) rss_kib: u64,
    /// Bytes that the loopback device sent, with all headers.
    pub(super) wire_bytes: u64,
    pub(super) datagrams: u64,
    /// Datagrams that found no room in a socket.
    pub(super) overruns: u64,
}

impl Usage {
    pub(super) fn now() -> Result<Self> {
        let (cpu_s, journal_s) = threads_cpu_s()?;
        let (datagrams, overruns) = udp()?;
        Ok(Self {
            at: Instant::now(),
            cpu_s,
            journal_s,
            rss_kib: rss_kib()?,
            wire_bytes: loopback_bytes()?,
            datagrams,
            overruns,
        })
    }
}

/// Does nobody else send here? True in a network namespace that has loopback alone.
pub(super) fn is_alone() -> bool {
    let devices = read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = devices.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim());
    names.eq(["lo"])
}

/// Processor seconds of the process, and of those of its threads that are named `journal`. The
/// process's own count holds those that have ended as well.
fn threads_cpu_s() -> Result<(f64, f64)> {
    let all = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let mut journal_ns = 0u64;
    for task in std::fs::read_dir(format!("/proc/{}/task", getpid().as_raw_nonzero()))? {
        let task = task?.path();
        // A thread may end while it is looked at.
        let name = read_to_string(task.join("comm")).unwrap_or_default();
        if name.trim() == "journal" {
            let times = read_to_string(task.join("schedstat")).unwrap_or_default();
            journal_ns += times.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let seconds = |s: i64, ns: u64| s as f64 + ns as f64 / 1e9;
    Ok((seconds(all.tv_sec, u64::try_from(all.tv_nsec)?), seconds(0, journal_ns)))
}

fn rss_kib() -> Result<u64> {
    let status = read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("VmRSS is empty")?.parse()?)
}

fn loopback_bytes() -> Result<u64> {
    let devices = read_to_string("/proc/self/net/dev")?;
    let line = devices.lines().find_map(|l| l.trim().strip_prefix("lo:")).context("no loopback")?;
    Ok(line.split_whitespace().nth(8).context("no count of sent bytes")?.parse()?)
}

/// Datagrams sent, and those that were lost for want of room.
fn udp() -> Result<(u64, u64)> {
    let counts = read_to_string("/proc/self/net/snmp")?;
    let mut rows = counts.lines().filter_map(|l| l.strip_prefix("Udp: "));
    let (names, values) = (rows.next().context("no names")?, rows.next().context("no counts")?);
    let of = |wanted: &str| {
        let mut all = names.split(' ').zip(values.split(' '));
        let found = all.find_map(|(name, value)| (name == wanted).then_some(value));
        found.and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    Ok((of("OutDatagrams"), of("RcvbufErrors")))
}
