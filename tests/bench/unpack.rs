//! How fast verified packs become durable files, alone.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use stork_node::store::{Store, StoreOptions};
use stork_publisher::pack::pack;
use stork_publisher::progress::Progress;
use stork_publisher::source::{self, ReadOptions};
use stork_wire::manifest::{Manifest, Variant};

use super::noise;

/// Measures a tree of `files` files, `mib` MiB in all, half of which compresses.
pub(crate) fn run(mib: usize, files: usize) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree)?;
    let each = (mib << 20) / files.max(1);
    for i in 0..files {
        let mut bytes = noise(each / 2, u8::try_from(i % 251)?);
        bytes.extend_from_slice(&i.to_le_bytes());
        bytes.resize(each, b'x');
        std::fs::write(tree.join(format!("file-{i:06}")), bytes)?;
    }
    let options = ReadOptions {
        name: Some("tree".parse()?),
        version: Some("1".parse()?),
        arch: Some("all".parse()?),
        ..ReadOptions::default()
    };
    let package = source::read(&tree, &options)?;
    let packed = pack(&package, None, &Progress::Silent)?;
    let manifest: &Manifest = &packed.manifest;
    let options = StoreOptions { min_free_bytes: 1 << 20, ..StoreOptions::default() };
    let (store, _) = Store::open(&dir.path().join("store"), options)?;
    for p in &manifest.packing.packs {
        let bytes = std::fs::read(packed.packs.path(&p.id))?;
        store.upload_append(p.id, p.size, 0, &bytes)?;
        store.upload_finish(p.id, p.size)?;
    }
    let begun = Instant::now();
    let report = store.unpack(manifest, Variant::Full, &|_bytes| {})?;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = mib as f64 / seconds;
    Ok(json!({
        "schema": "stork.bench.unpack/v1", "mib": mib, "files": files,
        "files_written": report.files_written, "seconds": seconds, "mib_s": rate,
    }))
}
