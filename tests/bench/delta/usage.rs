//! The memory that a phase takes at its peak. The kernel keeps a high-water mark of all resident
//! pages, but none of the anonymous ones alone, which are therefore read every two milliseconds.

use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

const EVERY: Duration = Duration::from_millis(2);

/// Watches this process until it is stopped.
pub(super) struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !stop.load(Ordering::Relaxed) {
                peak = peak.max(status_kib("RssAnon:").unwrap_or(0));
                std::thread::sleep(EVERY);
            }
            peak
        });
        Self { done, thread }
    }

    /// The peaks, in KiB: of anonymous pages while it was watched, of all since the process began.
    pub(super) fn stop(self) -> Result<Value> {
        self.done.store(true, Ordering::Relaxed);
        let anon = self.thread.join().map_err(|_e| anyhow!("the watch ended early"))?;
        Ok(json!({ "peak_anon_kib": anon, "peak_rss_kib": status_kib("VmHWM:")? }))
    }
}

fn status_kib(key: &str) -> Result<u64> {
    let status = read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix(key)).context("no such figure")?;
    Ok(line.split_whitespace().next().context("an empty figure")?.parse()?)
}
