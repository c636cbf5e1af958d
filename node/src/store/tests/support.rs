//! A tiny packer, and a store in a temporary folder.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stork_wire::codec::{Blob, List, encode};
use stork_wire::feed::ManifestRef;
use stork_wire::ids::ContentId;
use stork_wire::limits::PIECE_LEN_MIN;
use stork_wire::manifest::{
    Delta, DeltaPack, MANIFEST_VERSION, Manifest, Pack, Packing, Run, Source, SourceFormat, Tree,
    TreeEntry, TreeNode, Variant,
};

use crate::store::{Recovery, SetForm, SetMember, SetSpec, Store, StoreError, StoreOptions};

/// Pieces of the tests' packs.
pub(crate) const PIECE: u32 = PIECE_LEN_MIN;

pub(crate) fn options() -> StoreOptions {
    StoreOptions { min_free_bytes: 0, min_free_inodes: 0, seed_budget_bytes: 1 << 30 }
}

pub(crate) fn open(dir: &Path) -> Arc<Store> {
    open_when_free(dir, options()).0
}

/// Opens a store that was closed just now. A program that another test is starting has all open
/// files, the lock among them, until it is another program.
pub(crate) fn open_when_free(dir: &Path, options: StoreOptions) -> (Arc<Store>, Recovery) {
    let begun = Instant::now();
    loop {
        match Store::open(dir, options) {
            Err(StoreError::InUse { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn store() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("stork"));
    (dir, store)
}

/// Bytes that do not compress, different for every seed.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

pub(crate) fn entry(path: &str, mode: u16, node: TreeNode) -> TreeEntry {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    TreeEntry { path: path.parse().unwrap(), mode, uid, gid, mtime: 1_700_000_000, node }
}

pub(crate) fn dir(path: &str) -> TreeEntry {
    entry(path, 0o755, TreeNode::Dir)
}

pub(crate) fn file(path: &str, bytes: &[u8]) -> TreeEntry {
    let content = ContentId::of(bytes);
    let node = TreeNode::File { content, size: bytes.len() as u64, xattrs: List::empty() };
    entry(path, 0o644, node)
}

pub(crate) fn link(path: &str, target: &str) -> TreeEntry {
    entry(path, 0o777, TreeNode::Symlink { target: target.parse().unwrap() })
}

pub(crate) fn hard(path: &str, target: &str) -> TreeEntry {
    entry(path, 0o644, TreeNode::Hardlink { target: target.parse().unwrap() })
}

pub(crate) fn tree(mut entries: Vec<TreeEntry>) -> Tree {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Tree { entries: List::new(entries).unwrap() }
}

pub(crate) fn compress(bytes: &[u8], prefix: &[u8]) -> Vec<u8> {
    use zstd::zstd_safe::{CCtx, CParameter, compress_bound};
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(12)).unwrap();
    context.set_parameter(CParameter::ContentSizeFlag(true)).unwrap();
    context.set_parameter(CParameter::ChecksumFlag(false)).unwrap();
    context.set_parameter(CParameter::DictIdFlag(false)).unwrap();
    let log = if prefix.is_empty() { 23 } else { 26 };
    context.set_parameter(CParameter::WindowLog(log)).unwrap();
    if !prefix.is_empty() {
        context.ref_prefix(prefix).unwrap();
    }
    let mut out = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).unwrap();
    out
}

/// A packed tree with the bytes of its packs.
pub(crate) struct Packed {
    pub(crate) manifest: Manifest,
    pub(crate) full: Vec<Vec<u8>>,
    pub(crate) delta: Vec<Vec<u8>>,
}

impl Packed {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        encode(&self.manifest)
    }
    pub(crate) fn reference(&self) -> ManifestRef {
        Manifest::reference(&self.bytes())
    }
    pub(crate) fn pack_bytes(&self, variant: Variant) -> &[Vec<u8>] {
        match variant {
            Variant::Full => &self.full,
            Variant::Delta => &self.delta,
        }
    }
}

/// Packs a tree whose contents are given, in segments of `segment` bytes, so that files cross
/// them.
pub(crate) fn pack(
    tree: Tree,
    contents: &[&[u8]],
    segment: usize,
    base: Option<(&Tree, &[&[u8]])>,
) -> Packed {
    let bytes_of = |id: ContentId, all: &[&[u8]]| {
        all.iter().find(|c| ContentId::of(c) == id).unwrap().to_vec()
    };
    let payload: Vec<u8> =
        tree.payload().iter().flat_map(|(id, _)| bytes_of(*id, contents)).collect();
    let describe = |b: &[u8], n: usize| Pack::describe(b, n as u64, PIECE).unwrap();
    let segments: Vec<&[u8]> = payload.chunks(segment).collect();
    let full: Vec<Vec<u8>> = segments.iter().map(|s| compress(s, &[])).collect();
    let packs = full.iter().zip(&segments).map(|(p, s)| describe(p, s.len())).collect();
    let mut delta_bytes = Vec::new();
    let delta = base.map(|(base, old)| {
        let prefix: Vec<Run> = base.payload().iter().map(|(id, _)| Run::whole(*id)).collect();
        let dictionary: Vec<u8> =
            prefix.iter().flat_map(|run| bytes_of(run.content, old)).collect();
        let packs = segments.iter().map(|s| {
            let bytes = compress(s, &dictionary);
            let pack = describe(&bytes, s.len());
            delta_bytes.push(bytes);
            DeltaPack { pack, prefix: List::new(prefix.clone()).unwrap() }
        });
        let packs = packs.collect::<Vec<_>>();
        Delta { base: base.id(), kept: List::empty(), packs: List::new(packs).unwrap() }
    });
    let packing = Packing { piece_len: PIECE, packs: List::new(packs).unwrap(), delta };
    let source = Source {
        format: SourceFormat::Directory,
        file_name: "test".parse().unwrap(),
        size: 0,
        sha256: [0; 32],
        control: Blob::default(),
        control_files: List::empty(),
    };
    Packed {
        manifest: Manifest { version: MANIFEST_VERSION, tree, source, packing },
        full,
        delta: delta_bytes,
    }
}

/// Gives the store the packs of a variant, piece by piece.
pub(crate) fn fetch(store: &Arc<Store>, packed: &Packed, variant: Variant) {
    for (pack, bytes) in
        packed.manifest.packing.packs(variant).iter().zip(packed.pack_bytes(variant))
    {
        let partial = store.open_partial(pack.id, pack.size, PIECE, &pack.pieces).unwrap();
        for (i, piece) in bytes.chunks(PIECE as usize).enumerate() {
            partial.write_piece(u32::try_from(i).unwrap(), piece).unwrap();
        }
        assert!(partial.is_whole());
    }
}

/// The whole way of a release into the store.
pub(crate) fn install(store: &Arc<Store>, packed: &Packed) {
    store.put_manifest(&packed.reference(), &packed.bytes()).unwrap();
    fetch(store, packed, Variant::Full);
    store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap();
}

pub(crate) fn member(label: &str, packed: &Packed) -> SetMember {
    SetMember {
        label: label.to_owned(),
        manifest: packed.reference().id,
        tree: packed.manifest.tree.clone(),
        privileged_allowed: false,
    }
}

pub(crate) fn spec(members: Vec<SetMember>) -> SetSpec {
    SetSpec { members, form: SetForm::Folder }
}

/// A small package: `usr/<name>/data` with its bytes, a link to it, and a file in `usr/share`.
pub(crate) fn small(name: &str, bytes: &[u8]) -> Packed {
    let note = format!("about {name}").into_bytes();
    let tree = tree(vec![
        dir("usr"),
        dir(&format!("usr/{name}")),
        file(&format!("usr/{name}/data"), bytes),
        link(&format!("usr/{name}/link"), "data"),
        dir("usr/share"),
        file(&format!("usr/share/{name}"), &note),
    ]);
    pack(tree, &[bytes, &note], 1 << 20, None)
}

/// Are we root? Tests that need it say why they did nothing.
pub(crate) fn root_or_skip(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}
