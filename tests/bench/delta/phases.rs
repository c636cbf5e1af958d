//! The phases of an update, each run as a process of its own.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use stork_node::store::{Store, StoreOptions};
use stork_publisher::pack::{Base, pack};
use stork_publisher::progress::Progress;
use stork_wire::manifest::{Manifest, Pack, Variant};

use super::read;
use super::usage::Watch;

/// Bytes of a pack that are handed to the store at once, as from the network.
const UPLOAD: usize = 1 << 20;

/// One phase; what it prints is read by the process that started it.
#[derive(Debug, Subcommand)]
pub(crate) enum Phase {
    /// Reads and packs a package.
    Pack {
        /// The package.
        package: PathBuf,
        /// Where manifest and packs go.
        out: PathBuf,
        /// The older version that a delta is made against.
        #[arg(long)]
        base: Option<PathBuf>,
    },
    /// Takes packs into a store, unpacks them and shows the tree.
    Install {
        /// Manifest and packs.
        packs: PathBuf,
        /// `full` or `delta`.
        variant: String,
        /// The store, which may be there already.
        store: PathBuf,
        /// Where the tree is to stand.
        tree: PathBuf,
    },
}

/// Runs a phase.
pub(crate) fn run(phase: &Phase) -> Result<Value> {
    match phase {
        Phase::Pack { package, out, base } => pack_to(package, out, base.as_deref()),
        Phase::Install { packs, variant, store, tree } => install(packs, variant, store, tree),
    }
}

fn pack_to(package: &Path, out: &Path, base: Option<&Path>) -> Result<Value> {
    let base = base.map(read).transpose()?;
    let watch = Watch::start();
    let begun = Instant::now();
    let package = read(package)?;
    let read_s = begun.elapsed().as_secs_f64();
    let old = base.as_ref().map(|b| Base { tree: &b.tree, contents: &b.contents });
    let begun = Instant::now();
    let packed = pack(&package, old, &Progress::Silent)?;
    let pack_s = begun.elapsed().as_secs_f64();
    let mut usage = watch.stop()?;
    usage["read_s"] = read_s.into();
    usage["pack_s"] = pack_s.into();
    packed.write_to(out)?;
    let packing = &packed.manifest.packing;
    Ok(json!({
        "payload_bytes": package.unpacked_bytes(), "full_bytes": packing.bytes(Variant::Full),
        "delta_tried_bytes": packed.delta_tried,
        "delta_bytes": packing.delta.as_ref().map(|_| packing.bytes(Variant::Delta)),
        "usage": usage,
    }))
}

fn install(packs: &Path, variant: &str, store: &Path, tree: &Path) -> Result<Value> {
    let variant = match variant {
        "full" => Variant::Full,
        "delta" => Variant::Delta,
        other => bail!("`{other}` is no variant"),
    };
    let manifest = Manifest::from_bytes(&fs::read(packs.join("manifest"))?)?;
    let options = StoreOptions { min_free_bytes: 1 << 20, ..StoreOptions::default() };
    let (store, _) = Store::open(store, options)?;
    let watch = Watch::start();
    for pack in manifest.packing.packs(variant) {
        take(&store, pack, &packs.join("packs").join(pack.id.to_string()))?;
    }
    let mut usage = watch.stop()?;
    let watch = Watch::start();
    let begun = Instant::now();
    let report = store.unpack(&manifest, variant, &|_bytes| {})?;
    let seconds = begun.elapsed().as_secs_f64();
    let unpacking = watch.stop()?;
    usage["peak_anon_kib"] =
        usage["peak_anon_kib"].as_u64().max(unpacking["peak_anon_kib"].as_u64()).into();
    usage["peak_rss_kib"] = unpacking["peak_rss_kib"].clone();
    usage["unpack_s"] = seconds.into();
    usage["unpacked_bytes"] = report.bytes.into();
    store.link_tree(&manifest.tree, tree)?;
    usage["disk_bytes"] = super::trees::disk_bytes(tree)?.into();
    Ok(usage)
}

fn take(store: &Store, pack: &Pack, path: &Path) -> Result<()> {
    if store.has_pack(pack.id) {
        return Ok(());
    }
    let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut chunk = vec![0; UPLOAD];
    let mut at = 0;
    while at < pack.size {
        let n = file.read(&mut chunk)?;
        at = store.upload_append(pack.id, pack.size, at, chunk.get(..n).context("too much")?)?;
    }
    Ok(store.upload_finish(pack.id, pack.size)?)
}
