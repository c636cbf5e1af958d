//! The packages of a real VM, fetched from the Debian archive and put into a store.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use stork_node::store::{SetMember, Store};
use stork_publisher::pack::pack;
use stork_publisher::progress::Progress;
use stork_publisher::source::{self, ReadOptions};
use stork_tests::debs;
use stork_wire::feed::ManifestRef;
use stork_wire::ids::{ManifestId, PieceHash};
use stork_wire::manifest::{TreeNode, Variant};

use super::ms;

/// What was put into the store.
pub(crate) struct Stocked {
    /// One for each package.
    pub(crate) members: Vec<SetMember>,
    /// Regular files of all packages, and their bytes.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// How long the store took to unpack the packs of all of them, one after the other.
    pub(crate) unpacked_ms: f64,
}

/// Downloads what these packages need, where it is not in the cache yet, and unpacks all of it
/// into the store as a host would that has fetched it.
pub(crate) fn stock(store: &Store, names: &[String]) -> Result<Stocked> {
    let debs = debs::closure(names).map_err(anyhow::Error::msg)?;
    let members = Vec::with_capacity(debs.len());
    let mut out = Stocked { members, files: 0, bytes: 0, unpacked_ms: 0.0 };
    for file in &debs {
        let (member, unpacked_ms) = one(store, file).with_context(|| file.display().to_string())?;
        out.unpacked_ms += unpacked_ms;
        let files = member.tree.entries.iter().filter(|e| matches!(e.node, TreeNode::File { .. }));
        out.files += files.count() as u64;
        out.bytes += member.tree.payload_len();
        out.members.push(member);
    }
    Ok(out)
}

/// One package, and the milliseconds that its unpacking took.
fn one(store: &Store, file: &Path) -> Result<(SetMember, f64)> {
    let package = source::read(file, &ReadOptions::default())?;
    let label = format!("{} {}", package.name, package.version);
    let packed = pack(&package, None, &Progress::Silent)?;
    let manifest = &packed.manifest;
    for p in manifest.packing.packs(Variant::Full) {
        let bytes = std::fs::read(packed.packs.path(&p.id))?;
        store.upload_append(p.id, p.size, 0, &bytes)?;
        store.upload_finish(p.id, p.size)?;
    }
    let id = ManifestId::of(&packed.bytes);
    let size = packed.bytes.len() as u64;
    // The pieces of manifests are for the wire alone.
    let what = ManifestRef { id, size, pieces: PieceHash([0; 32]) };
    store.put_manifest(&what, &packed.bytes)?;
    let begun = Instant::now();
    store.unpack(manifest, Variant::Full, &|_bytes| {})?;
    let took = ms(begun);
    let tree = manifest.tree.clone();
    Ok((SetMember { label, manifest: id, tree, privileged_allowed: true }, took))
}
