//! A control group for the processes of some VMs: what memory they hold together, files that
//! they have read included. Version 1 or 2, whichever this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A control group of memory, removed when dropped.
pub(crate) struct Group {
    dir: PathBuf,
    v2: bool,
}

impl Group {
    /// Makes one below this process's own.
    pub(crate) fn new() -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
        let find = |key: &str| {
            let line = own.lines().find_map(|l| l.split_once(':')?.1.strip_prefix(key));
            line.map(|l| l.trim_start_matches('/').to_owned())
        };
        let name = format!("stork-bench-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let (dir, is_v2) = match (find("memory:"), find(":")) {
            (Some(path), _) if v1.is_dir() => (v1.join(path).join(name), false),
            (_, Some(path)) if v2.join("cgroup.controllers").exists() => {
                // A group with processes gives no controllers to its children: beside ours then.
                let parent = Path::new(&path).parent().unwrap_or_else(|| Path::new(""));
                (v2.join(parent).join(name), true)
            }
            _ => bail!("there is no control group of memory on this machine"),
        };
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let group = Self { dir, v2: is_v2 };
        let file = group.file();
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(group)
    }

    fn file(&self) -> PathBuf {
        self.dir.join(if self.v2 { "memory.current" } else { "memory.usage_in_bytes" })
    }

    /// Where a process writes its number to be part of it.
    pub(crate) fn processes(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Bytes that it holds, and how they are made up.
    pub(crate) fn usage(&self) -> Result<(u64, Value)> {
        let bytes = fs::read_to_string(self.file())?.trim().parse()?;
        let stat = fs::read_to_string(self.dir.join("memory.stat"))?;
        let of = |key: &str| -> Option<u64> {
            stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok())
        };
        let (anon, file) = if self.v2 { ("anon ", "file ") } else { ("rss ", "cache ") };
        Ok((bytes, json!({ "heap": of(anon), "files": of(file) })))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Files stay charged to a group until they leave the memory; then it can go.
        if !self.v2 {
            drop(fs::write(self.dir.join("memory.force_empty"), "0"));
        }
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
