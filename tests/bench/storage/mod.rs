//! `stork-bench storage`: what a further VM costs on a host, for each backend and for plain copies.
//!
//! A file system of its own (ext4 in a file) holds the store and the VMs, so that its counters say
//! what everything costs, folders and the database included. Real packages of the Debian archive
//! are unpacked into the store as if they had been fetched. Then one backend after the other shows
//! them to 1, 2, … VMs; in each of these real programs run from the VM's own root, and a control
//! group counts what they hold in memory, the files that they read included.

mod disk;
mod group;
mod mix;
mod packages;
mod vms;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use stork_node::store::{SetSpec, Store, StoreOptions};
use stork_node::view::{Backend, form_of};

use disk::Disk;
use vms::Vms;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many VMs, several numbers with commas.
    #[arg(long, default_value = "2,5,10,20", value_delimiter = ',')]
    vms: Vec<usize>,
    /// Which backends, with commas; `copies` are plain copies of all files.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "copies,tree,overlay,composefs,hardlink,image,packages,sysext"
    )]
    backends: Vec<String>,
    /// The packages that the VMs show, with all that these need.
    #[arg(long, value_delimiter = ',', default_value = "python3,perl,git,gcc")]
    packages: Vec<String>,
    /// Where the file with the file system is made; it grows to some gigabytes with `copies`.
    #[arg(long)]
    within: Option<PathBuf>,
    /// Leave the memory of running programs out.
    #[arg(long)]
    no_memory: bool,
    /// Accepted for scripts: the report is one JSON object anyway.
    #[arg(long)]
    json: bool,
    /// This process has a mount namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs it, in a mount namespace of its own, and prints one object.
pub(crate) fn run(options: &Options) -> ExitCode {
    let outcome = if options.inside { measure(options) } else { again().map(|()| Value::Null) };
    match outcome {
        Ok(Value::Null) => ExitCode::SUCCESS,
        Ok(value) => {
            super::print(&value);
            ExitCode::SUCCESS
        }
        Err(e) => {
            drop(writeln!(std::io::stderr(), "error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The same command in a mount namespace of its own: its mounts end with it.
fn again() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("mounts need root: run it with sudo");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--inside");
    let status = command.status().context("unshare cannot be run")?;
    if status.success() { Ok(()) } else { bail!("it ended with {status}") }
}

/// A line for people who wait.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn measure(options: &Options) -> Result<Value> {
    let most = options.vms.iter().copied().max().context("--vms names no number")?;
    let disk = Disk::new(options.within.as_deref())?;
    let stored =
        StoreOptions { min_free_bytes: 1 << 20, min_free_inodes: 10, ..StoreOptions::default() };
    let (store, _) = Store::open(&disk.path().join("store"), stored)?;
    say("unpacking the packages into the store");
    let before = disk.used()?;
    let stocked = packages::stock(&store, &options.packages)?;
    let (bytes, inodes) = disk.since(before)?;
    let mut builds = serde_json::Map::new();
    for backend in options.backends.iter().filter_map(|n| vms::backend_of(n).transpose()) {
        let backend = backend?;
        let form = format!("{:?}", form_of(backend)).to_lowercase();
        if !builds.contains_key(&form) {
            builds.insert(form, vms::builds(&store, &stocked, backend)?);
        }
    }
    let mut bench =
        Bench { store: &store, disk: &disk, stocked: &stocked, copies: BTreeMap::new() };
    let mut of_backends = serde_json::Map::new();
    for name in &options.backends {
        say(&format!("{name}: {most} VMs"));
        of_backends.insert(name.clone(), bench.backend(options, name, most)?);
    }
    Ok(json!({
        "schema": "stork.bench.storage/v1",
        "packages": stocked.members.len(), "files": stocked.files, "bytes": stocked.bytes,
        "store": { "bytes": bytes, "inodes": inodes, "unpacked_ms": stocked.unpacked_ms },
        "builds": builds, "backends": of_backends,
    }))
}

/// What all backends are measured with.
struct Bench<'a> {
    store: &'a Arc<Store>,
    disk: &'a Disk,
    stocked: &'a packages::Stocked,
    /// Memory of so many VMs with plain copies.
    copies: BTreeMap<usize, u64>,
}

impl Bench<'_> {
    /// One backend, with more and more VMs.
    fn backend(&mut self, options: &Options, name: &str, most: usize) -> Result<Value> {
        let mut vms = Vms::new(self.store, self.disk, self.stocked, (name, most))?;
        let mut rows = serde_json::Map::new();
        let mut one = None;
        for count in std::iter::once(1).chain(options.vms.iter().copied()) {
            vms.grow(count)?;
            let used = self.disk.used()?;
            let one = *one.get_or_insert(used);
            let per = |a: u64, b: u64| a.saturating_sub(b).checked_div(count as u64 - 1);
            let mut row = json!({
                "bytes_per_further_vm": per(used.0, one.0),
                "inodes_per_further_vm": per(used.1, one.1),
            });
            // Some views are for a guest's own kernel or its apt: nothing runs from them here.
            if !options.no_memory && vms.can_run() {
                let (bytes, of) = vms.memory()?;
                if name == "copies" {
                    self.copies.insert(count, bytes);
                }
                let to_copies = self.copies.get(&count).map(|c| part(bytes, *c));
                row["memory"] = json!({ "bytes": bytes, "of": of, "to_copies": to_copies });
            }
            rows.insert(count.to_string(), row);
        }
        let switch = vms.switch()?;
        vms.end()?;
        Ok(json!({ "vms": rows, "switch": switch }))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn part(a: u64, b: u64) -> f64 {
    if b == 0 { f64::NAN } else { a as f64 / b as f64 }
}

/// Milliseconds since then.
fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}

/// The set of all packages, or of all but the last, for a backend.
fn spec(stocked: &packages::Stocked, backend: Backend, all: bool) -> SetSpec {
    let mut members = stocked.members.clone();
    if !all {
        members.pop();
    }
    SetSpec { members, form: form_of(backend) }
}
