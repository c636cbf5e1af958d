//! From a package to what travels: packs, an optional delta against a base, and the manifest.
//!
//! The same package gives the same bytes, byte for byte (design §6).

mod delta;
mod segment;
#[cfg(test)]
mod tests;
mod unpack;
mod zst;

pub use unpack::{UnpackError, check_pack, unpack};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stork_wire::codec::{List, encode};
use stork_wire::ids::{ContentId, PackId};
use stork_wire::limits::MANIFEST_LEN_MAX;
use stork_wire::manifest::{
    Delta, DeltaPack, Manifest, ManifestError, Pack, Packing, PackingError, Tree, Variant,
    piece_len_for,
};
use tempfile::TempDir;

use crate::progress::Progress;
use crate::source::{Package, Spool};
use segment::Segment;

/// Segments that are compressed at once: each takes its bytes, its prefix and zstd's tables,
/// together some 300 MiB at worst.
const THREADS: usize = 2;
/// A delta is offered when it takes at most so many percent of the full packs.
const DELTA_PERCENT_MAX: u64 = 80;

/// A package that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A temporary file failed.
    #[error("cannot write packs to a temporary directory")]
    Io(#[from] io::Error),
    /// The packing breaks a rule.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// The manifest breaks a rule.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
    /// Too many entries, names or fields for one manifest.
    #[error("the manifest needs {0} bytes, 64 MiB are allowed")]
    ManifestTooLong(usize),
    /// More packs than a release may have.
    #[error("too many packs")]
    TooMany(#[from] stork_wire::codec::TooMany),
}

impl PackError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Io(_) => "make room, or set TMPDIR to a larger disk",
            _ => "split the package, or put its files into an image",
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Io(e) => crate::out::file_exit(e),
            _ => 1,
        }
    }
}

/// A release that a delta is made against.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its tree.
    pub tree: &'a Tree,
    /// The bytes of its files.
    pub contents: &'a Spool,
}

/// Pack files in a temporary directory, each named by its id.
#[derive(Debug)]
pub struct PackFiles {
    dir: TempDir,
}

impl PackFiles {
    /// Where the bytes of a pack are.
    #[must_use]
    pub fn path(&self, id: &PackId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }
}

/// A packed release: all that a node needs, and nothing signed yet.
#[derive(Debug)]
pub struct Packed {
    /// The manifest.
    pub manifest: Manifest,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
    /// The packs of all variants.
    pub packs: PackFiles,
    /// Bytes that a delta would take, offered or not; `None` without a base.
    pub delta_tried: Option<u64>,
}

impl Packed {
    /// The packs to upload, each once, full ones first.
    #[must_use]
    pub fn all_packs(&self) -> Vec<(PackId, u64)> {
        let mut out: Vec<(PackId, u64)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for variant in [Variant::Full, Variant::Delta] {
            for pack in self.manifest.packing.packs(variant) {
                if seen.insert(pack.id) {
                    out.push((pack.id, pack.size));
                }
            }
        }
        out
    }

    /// Copies manifest and packs to a directory: `manifest` and `packs/<id>`.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir.join("packs"))?;
        for (id, _) in self.all_packs() {
            fs::copy(self.packs.path(&id), dir.join("packs").join(id.to_string()))?;
        }
        // The manifest comes last: where it stands, the packs are complete.
        fs::write(dir.join("manifest"), &self.bytes)
    }
}

/// Packs a package; with a base also as a delta, which is offered if it saves at least a fifth.
pub fn pack(
    package: &Package,
    base: Option<Base<'_>>,
    progress: &Progress,
) -> Result<Packed, PackError> {
    let packs = PackFiles { dir: TempDir::with_prefix("stork-pack-")? };
    let segments = segment::cut(&package.tree.payload());
    let total = segments.iter().map(|s| s.len).sum();
    let work = Work { segments: &segments, contents: &package.contents, dir: &packs, progress };
    progress.phase("packing", total);
    let sizes = work.run("full", None)?;
    let piece_len = piece_len_for(sizes.iter().sum());
    let mut full = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        full.push(describe(&packs, &format!("full-{i}"), segment.len, piece_len)?);
    }
    let mut packing = Packing { piece_len, packs: List::new(full)?, delta: None };
    let mut delta_tried = None;
    if let Some(base) = base {
        progress.phase("packing the delta", total);
        let (delta, bytes) = delta_of(package, base, &work, &packing)?;
        delta_tried = Some(bytes);
        packing.delta = delta;
    }
    let manifest = Manifest {
        version: 1,
        tree: package.tree.clone(),
        source: package.source.clone(),
        packing,
    };
    let bytes = encode(&manifest);
    if bytes.len() as u64 > MANIFEST_LEN_MAX {
        return Err(PackError::ManifestTooLong(bytes.len()));
    }
    // What every host will check is checked before anybody is bothered with it.
    Manifest::from_bytes(&bytes)?;
    Ok(Packed { manifest, bytes, packs, delta_tried })
}

/// Describes a compressed segment and names its file by its id.
fn describe(
    files: &PackFiles,
    name: &str,
    unpacked: u64,
    piece_len: u32,
) -> Result<Pack, PackError> {
    let path = files.dir.path().join(name);
    let pack = Pack::describe(&fs::read(&path)?, unpacked, piece_len)?;
    fs::rename(&path, files.path(&pack.id))?;
    Ok(pack)
}

/// The delta, if it is worth offering, and the bytes that it takes.
fn delta_of(
    package: &Package,
    base: Base<'_>,
    work: &Work<'_>,
    full: &Packing,
) -> Result<(Option<Delta>, u64), PackError> {
    let prefixes = delta::prefixes(&package.tree, work.segments, base.tree);
    let sizes = work.run("delta", Some((&prefixes, base.contents)))?;
    let full_sizes = || full.packs.iter().map(|p| p.size);
    // A segment without a prefix keeps its full pack.
    let kept = |i: usize| prefixes.get(i).is_none_or(Vec::is_empty);
    let bytes = sizes
        .iter()
        .zip(full_sizes())
        .enumerate()
        .map(|(i, (delta, full))| if kept(i) { full } else { *delta })
        .sum::<u64>();
    if bytes.saturating_mul(100) > full_sizes().sum::<u64>().saturating_mul(DELTA_PERCENT_MAX) {
        return Ok((None, bytes));
    }
    let mut packs = Vec::new();
    for (i, (prefix, full_pack)) in prefixes.iter().zip(&full.packs).enumerate() {
        let pack = if kept(i) {
            full_pack.clone()
        } else {
            describe(work.dir, &format!("delta-{i}"), full_pack.unpacked, full.piece_len)?
        };
        packs.push(DeltaPack { pack, prefix: List::new(prefix.clone())? });
    }
    Ok((Some(Delta { base: base.tree.id(), packs: List::new(packs)? }), bytes))
}

/// Prefixes of each segment, and where their bytes are.
type Prefixes<'a> = (&'a [Vec<ContentId>], &'a Spool);

/// Compresses segments to files, two at a time.
struct Work<'a> {
    segments: &'a [Segment],
    contents: &'a Spool,
    dir: &'a PackFiles,
    progress: &'a Progress,
}

impl Work<'_> {
    /// Writes `<name>-<i>` for each segment, and returns their sizes in order.
    fn run(&self, name: &str, prefixes: Option<Prefixes<'_>>) -> io::Result<Vec<u64>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(vec![0; self.segments.len()]);
        let worker = || -> io::Result<()> {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(segment) = self.segments.get(i) else { return Ok(()) };
                let bytes = self.compress(i, segment, prefixes)?;
                fs::write(self.dir.dir.path().join(format!("{name}-{i}")), &bytes)?;
                let mut sizes = results.lock().map_err(|_e| io::Error::other("a worker died"))?;
                if let Some(slot) = sizes.get_mut(i) {
                    *slot = bytes.len() as u64;
                }
                self.progress.advance(segment.len);
            }
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
            all.into_iter()
                .try_for_each(|t| t.join().map_err(|_e| io::Error::other("a worker panicked"))?)
        })?;
        results.into_inner().map_err(|_e| io::Error::other("a worker died"))
    }

    fn compress(
        &self,
        i: usize,
        segment: &Segment,
        prefixes: Option<Prefixes<'_>>,
    ) -> io::Result<Vec<u8>> {
        let mut prefix = Vec::new();
        if let Some((lists, base)) = prefixes {
            let ids = lists.get(i).map(Vec::as_slice).unwrap_or_default();
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            for id in ids {
                base.read_into(id, 0, base.len_of(id).unwrap_or(0), &mut prefix)?;
            }
        }
        let mut bytes = Vec::new();
        for s in &segment.slices {
            self.contents.read_into(&s.content, s.from, s.len, &mut bytes)?;
        }
        zst::compress(&bytes, prefixes.map(|_| &*prefix))
    }
}
