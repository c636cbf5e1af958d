//! What an update costs: two versions of a package, packed as a publisher does and unpacked as
//! hosts do, beside what `zstd --patch-from` makes of the same bytes.
//!
//! Each phase runs in a process of its own, so that its memory is its own. At the end the tree that
//! came by delta is compared with that of a fresh install, byte for byte.

mod image;
mod phases;
mod trees;
mod usage;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use stork_publisher::source::{self, Package, ReadOptions};

pub(crate) use image::{Options as ImageOptions, run as run_image};
pub(crate) use phases::{Phase, run as run_phase};

/// The level at which publishers compress.
const LEVEL: &str = "-12";
/// Bytes that are copied at once.
const CHUNK: u64 = 4 << 20;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The older version: a package as `stork-publish push` takes it.
    old: PathBuf,
    /// The newer version.
    new: PathBuf,
    /// Leave `zstd --patch-from` out, which holds both versions in memory.
    #[arg(long)]
    alone: bool,
}

/// Runs all phases and compares.
pub(crate) fn run(options: &Options) -> Result<Value> {
    let dir = tempfile::Builder::new().prefix("stork-bench-").tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let (old, new) = (options.old.as_path(), options.new.as_path());
    let packed_old = phase(&["pack", &text(old)?, &text(&at("old"))?])?;
    let packed = phase(&["pack", &text(new)?, &text(&at("new"))?, "--base", &text(old)?])?;
    let install = |packs: &str, variant: &str, store: &str, tree: &str| {
        let (packs, store, tree) = (text(&at(packs))?, text(&at(store))?, text(&at(tree))?);
        phase(&["install", &packs, variant, &store, &tree])
    };
    let full = install("new", "full", "fresh", "tree-fresh")?;
    install("old", "full", "updated", "tree-old")?;
    let taken = packed["delta_bytes"].is_u64();
    let mut delta = Value::Null;
    if taken {
        delta = install("new", "delta", "updated", "tree-updated")?;
        let differ = trees::differences(&at("tree-fresh"), &at("tree-updated"))?;
        if !differ.is_empty() {
            bail!("the update differs from a fresh install:\n{}", differ.join("\n"));
        }
    }
    let patch = if options.alone { None } else { Some(patch_from(dir.path(), old, new)?) };
    let bytes = packed["delta_bytes"].as_u64().or_else(|| packed["full_bytes"].as_u64());
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = bytes.zip(patch).map(|(ours, zstd)| ours as f64 / zstd as f64);
    Ok(json!({
        "schema": "stork.bench.delta/v1", "old": old, "new": new,
        "old_full_bytes": packed_old["full_bytes"],
        "payload_bytes": packed["payload_bytes"], "full_bytes": packed["full_bytes"],
        "delta_tried_bytes": packed["delta_tried_bytes"], "delta_taken": taken,
        "update_bytes": bytes, "patch_from_bytes": patch, "ratio": ratio,
        "pack_full": packed_old["usage"], "pack_with_delta": packed["usage"],
        "unpack_full": full, "unpack_delta": delta, "same_as_fresh": taken,
    }))
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path is not UTF-8")?.to_owned())
}

/// Runs a phase in a process of its own.
fn phase(args: &[&str]) -> Result<Value> {
    let program = std::env::current_exe()?;
    let out = Command::new(program).arg("phase").args(args).output()?;
    if !out.status.success() {
        bail!("phase {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// Reads a package; what does not say its name gets one.
fn read(path: &Path) -> Result<Package> {
    let is_deb = path.extension().is_some_and(|e| e == "deb");
    let mut options = ReadOptions { unpacked_max: 64 << 30, ..ReadOptions::default() };
    if !is_deb {
        options.name = Some("package".parse()?);
        options.version = Some("1".parse()?);
        options.arch = Some("all".parse()?);
    }
    Ok(source::read(path, &options)?)
}

/// Writes the payload of a package into one file.
fn payload(package: &Path, to: &Path) -> Result<()> {
    let package = read(package)?;
    let mut file = File::create(to)?;
    let mut chunk = Vec::new();
    for (content, size) in package.tree.payload() {
        let mut from = 0;
        while from < size {
            chunk.clear();
            let len = CHUNK.min(size - from);
            package.contents.read_into(&content, from, len, &mut chunk)?;
            file.write_all(&chunk)?;
            from += len;
        }
    }
    Ok(())
}

/// Bytes that zstd's own command makes of the whole payload against the old one. It takes the
/// window that both need by itself, and looks for matches over long distances.
fn patch_from(dir: &Path, old: &Path, new: &Path) -> Result<u64> {
    let (from, to, out) = (dir.join("payload-old"), dir.join("payload-new"), dir.join("patch"));
    payload(old, &from)?;
    payload(new, &to)?;
    let mut command = Command::new("zstd");
    command.args(["-q", "-f", LEVEL, "--long=31"]).arg(format!("--patch-from={}", from.display()));
    let done = command.arg(&to).arg("-o").arg(&out).output().context("zstd cannot be run")?;
    if !done.status.success() {
        bail!("zstd: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(out.metadata()?.len())
}
