//! From a package to what travels: packs, an optional delta against a base, and the manifest.
//!
//! The same package gives the same bytes, byte for byte (design §6).

mod names;
mod prefix;
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
use stork_wire::ids::PackId;
use stork_wire::limits::{MANIFEST_LEN_MAX, PREFIX_LEN_MAX};
use stork_wire::manifest::{
    Delta, DeltaPack, MANIFEST_VERSION, Manifest, ManifestError, Pack, Packing, PackingError, Run,
    Tree, Variant, piece_len_for,
};
use tempfile::TempDir;

use crate::progress::Progress;
use crate::source::{Package, Spool};
use prefix::Index;
use segment::Segment;

/// Segments that are compressed at once: each takes its bytes, its prefix and zstd's tables,
/// together some 500 MiB at worst.
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
    let payload = package.tree.payload();
    let work = Work { contents: &package.contents, dir: &packs, progress };
    progress.phase("packing", payload.iter().map(|(_, size)| size).sum());
    let done = work.run("full", &segment::cut(&payload), None)?;
    let piece_len = piece_len_for(done.iter().map(|d| d.size).sum());
    let mut full = Vec::new();
    for (i, segment) in done.iter().enumerate() {
        full.push(describe(&packs, &format!("full-{i}"), segment.unpacked, piece_len)?);
    }
    let mut packing = Packing { piece_len, packs: List::new(full)?, delta: None };
    let mut delta_tried = None;
    if let Some(base) = base {
        let (delta, bytes) = delta_of(package, base, &work, &packing)?;
        delta_tried = Some(bytes);
        packing.delta = delta;
    }
    let manifest = Manifest {
        version: MANIFEST_VERSION,
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

/// The delta, if it is worth offering, and the bytes that it takes. It leaves out what the base
/// has.
fn delta_of(
    package: &Package,
    base: Base<'_>,
    work: &Work<'_>,
    full: &Packing,
) -> Result<(Option<Delta>, u64), PackError> {
    let payload = package.tree.payload();
    work.progress.phase("comparing with the release before", 0);
    let index = Index::of(base, &package.tree)?;
    let kept: Vec<bool> = payload.iter().map(|(content, _)| index.has(content)).collect();
    let fresh = payload.into_iter().zip(&kept).filter(|(_, kept)| !**kept).map(|(c, _)| c);
    let segments = segment::cut(&fresh.collect::<Vec<_>>());
    work.progress.phase("packing the delta", segments.iter().map(|s| s.len).sum());
    let done = work.run("delta", &segments, Some((&index, base)))?;
    let bytes = done.iter().map(|d| d.size).sum::<u64>();
    let full_bytes = full.packs.iter().map(|p| p.size).sum::<u64>();
    if bytes.saturating_mul(100) > full_bytes.saturating_mul(DELTA_PERCENT_MAX) {
        return Ok((None, bytes));
    }
    let mut packs = Vec::new();
    for (i, segment) in done.into_iter().enumerate() {
        let pack = describe(work.dir, &format!("delta-{i}"), segment.unpacked, full.piece_len)?;
        packs.push(DeltaPack { pack, prefix: List::new(segment.prefix)? });
    }
    let (kept, packs) = (Delta::spans(&kept)?, List::new(packs)?);
    Ok((Some(Delta { base: base.tree.id(), kept, packs }), bytes))
}

/// A segment that was compressed to a file.
#[derive(Debug, Clone, Default)]
struct Done {
    unpacked: u64,
    size: u64,
    prefix: Vec<Run>,
}

/// Compresses segments to files, two at a time.
struct Work<'a> {
    contents: &'a Spool,
    dir: &'a PackFiles,
    progress: &'a Progress,
}

impl Work<'_> {
    /// Writes `<name>-<i>` for each segment, and says in order what came of them.
    fn run(
        &self,
        name: &str,
        segments: &[Segment],
        base: Option<(&Index, Base<'_>)>,
    ) -> io::Result<Vec<Done>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(vec![Done::default(); segments.len()]);
        let worker = || -> io::Result<()> {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(segment) = segments.get(i) else { return Ok(()) };
                let (bytes, prefix) = self.compress(segment, base)?;
                fs::write(self.dir.dir.path().join(format!("{name}-{i}")), &bytes)?;
                let done = Done { unpacked: segment.len, size: bytes.len() as u64, prefix };
                let mut all = results.lock().map_err(|_e| io::Error::other("a worker died"))?;
                if let Some(slot) = all.get_mut(i) {
                    *slot = done;
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
        segment: &Segment,
        base: Option<(&Index, Base<'_>)>,
    ) -> io::Result<(Vec<u8>, Vec<Run>)> {
        let mut bytes = Vec::with_capacity(usize::try_from(segment.len).unwrap_or(0));
        for s in &segment.slices {
            self.contents.read_into(&s.content, s.from, s.len, &mut bytes)?;
        }
        let Some((index, base)) = base else {
            return Ok((zst::compress(&bytes)?, Vec::new()));
        };
        let runs = index.prefix(segment, &bytes);
        if runs.is_empty() {
            return Ok((zst::compress(&bytes)?, runs));
        }
        let prefix = read_runs(base, &runs)?;
        Ok((zst::compress_delta(&bytes, &prefix)?, runs))
    }
}

/// The bytes of a prefix.
///
/// # Errors
/// `NotFound` if the base has no such content, or a shorter one.
fn read_runs(base: Base<'_>, runs: &[Run]) -> io::Result<Vec<u8>> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "a part of the prefix");
    let mut out = Vec::new();
    for run in runs {
        let size = base.contents.len_of(&run.content).ok_or_else(missing)?;
        let len = run.len_in(size).ok_or_else(missing)?;
        if (out.len() as u64).saturating_add(len) > PREFIX_LEN_MAX {
            return Err(io::Error::other("the prefix is longer than 32 MiB"));
        }
        base.contents.read_into(&run.content, run.from, len, &mut out)?;
    }
    Ok(out)
}
