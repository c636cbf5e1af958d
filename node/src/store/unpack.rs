//! From packs to objects: one segment at a time, every content checked, nothing trusted that the
//! frame says about itself.
//!
//! The declared sizes of the manifest bound everything: a frame may give exactly `unpacked` bytes
//! and is stopped at the next one (T086), its window is bounded, and a delta's prefix is at most
//! 32 MiB. Bytes go straight from the decoder into the files, so that memory holds one window and
//! one prefix.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use stork_wire::ids::{ContentId, PackId};
use stork_wire::limits::{WINDOW_LOG_DELTA, WINDOW_LOG_FULL};
use stork_wire::manifest::{Manifest, Pack, Run, Variant};

use super::objects::{BATCH_FILES_MAX, Batch, ObjectRow};
use super::write::{self, NewFile};
use super::{Store, StoreError, lock};
use crate::failpoint;

/// Bytes that are taken from the decoder at once.
const CHUNK: usize = 256 * 1024;

/// Why a manifest was not unpacked. Objects that were whole before the error are kept.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Ours: the manifest has no such packs.
    #[error("the manifest has no packs of this variant")]
    NoPacks,
    /// Ours: a delta was chosen, and a file of its base is not here.
    #[error("the base of the delta is not here: content {} is missing", .0.short())]
    NoBase(ContentId),
    /// The publisher's: a prefix is longer than 32 MiB.
    #[error("the prefix of pack {} is longer than 32 MiB", .0.short())]
    LongPrefix(PackId),
    /// The publisher's: a prefix names a part that its content does not have.
    #[error("the prefix of pack {} is no part of its contents", .0.short())]
    BadPrefix(PackId),
    /// The publisher's: the frame gives more bytes than the manifest says.
    #[error("pack {} holds more than the {declared} bytes that it should", pack.short())]
    Bomb {
        /// The pack.
        pack: PackId,
        /// Bytes that it should give.
        declared: u64,
    },
    /// The publisher's: the frame can't be read, or gives too few bytes.
    #[error("pack {} can't be unpacked: {why}", pack.short())]
    BadPack {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        why: String,
    },
    /// The publisher's: a file has other bytes than its id says.
    #[error("pack {} holds wrong bytes for content {}", pack.short(), content.short())]
    WrongContent {
        /// The pack in which the content ends.
        pack: PackId,
        /// The content.
        content: ContentId,
    },
    /// The publisher's: one content has two sizes, or an empty file a content.
    #[error("the tree gives content {} a size that it can't have", .0.short())]
    WrongSize(ContentId),
}

/// What unpacking did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnpackReport {
    /// Bytes that came out of packs.
    pub bytes: u64,
    /// Objects that were written.
    pub files_written: u64,
    /// Objects that were here already.
    pub files_shared: u64,
    /// Packs that were not needed, because all that they hold was here.
    pub packs_skipped: u64,
    /// What could not be done as the manifest says, in words for the operator.
    pub notes: Vec<String>,
}

/// One content of the payload.
struct Content {
    id: ContentId,
    start: u64,
    size: u64,
    /// No object with these bytes is here.
    needed: bool,
    /// The packs hold it; else it is one that a delta leaves out.
    packed: bool,
    /// Objects that are to be written.
    missing: Vec<ObjectRow>,
}

/// Takes the payload in order and cuts it into files.
struct Sink<'a, 'b> {
    store: &'a Store,
    contents: &'b mut [Content],
    at: u64,
    index: usize,
    open: Option<(NewFile, blake3::Hasher)>,
    batch: Batch<'a>,
}

impl Sink<'_, '_> {
    /// Goes on at a later place; nothing between was needed.
    fn seek(&mut self, to: u64) {
        self.at = to;
        while self.contents.get(self.index).is_some_and(|c| c.start + c.size <= to) {
            self.index += 1;
        }
    }

    fn take(&mut self, mut bytes: &[u8], pack: PackId) -> Result<(), UnpackError> {
        while !bytes.is_empty() {
            let Some(content) = self.contents.get(self.index) else {
                return Err(UnpackError::Bomb { pack, declared: self.at });
            };
            let left = content.start + content.size - self.at;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            if content.needed {
                if self.open.is_none() {
                    self.open = Some((self.store.new_object_file()?, blake3::Hasher::new()));
                }
                if let Some((file, hasher)) = &mut self.open {
                    file.write_sparse(now).map_err(|f| self.store.fault(f))?;
                    hasher.update(now);
                }
            }
            self.at += n as u64;
            bytes = rest;
            if n as u64 == left {
                self.end_content(pack)?;
            }
        }
        Ok(())
    }

    fn end_content(&mut self, pack: PackId) -> Result<(), UnpackError> {
        let Some(content) = self.contents.get_mut(self.index) else { return Ok(()) };
        self.index += 1;
        let Some((file, hasher)) = self.open.take() else { return Ok(()) };
        if *hasher.finalize().as_bytes() != content.id.0 {
            return Err(UnpackError::WrongContent { pack, content: content.id });
        }
        let mut rows = std::mem::take(&mut content.missing).into_iter();
        if let Some(row) = rows.next() {
            self.batch.add(file, row)?;
        }
        for row in rows {
            self.batch.add_copy(row)?;
        }
        if self.batch.len() >= BATCH_FILES_MAX {
            self.batch.commit()?;
        }
        Ok(())
    }
}

/// The parts of the base that a pack needs; none for a full pack.
fn prefix_of(manifest: &Manifest, variant: Variant, index: usize) -> &[Run] {
    let delta = manifest.packing.delta.as_ref().filter(|_| variant == Variant::Delta);
    delta.and_then(|d| d.packs.get(index)).map_or(&[], |p| &p.prefix)
}

impl Store {
    /// Writes every file of a manifest's tree into the store and notes the tree as complete. The
    /// packs of the variant must be here; those are skipped of which all contents are here
    /// already. `progress` is told the bytes of the payload that are behind.
    pub fn unpack(
        &self,
        manifest: &Manifest,
        variant: Variant,
        progress: &dyn Fn(u64),
    ) -> Result<UnpackReport, UnpackError> {
        let _one = lock(&self.unpacking);
        let _hold = self.inner_hold();
        self.check_latch()?;
        let mut report = UnpackReport::default();
        let (contents, empty) = self.plan(manifest, variant, &mut report)?;
        let (mut contents, mut kept): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|c| c.packed);
        let packs = manifest.packing.packs(variant);
        if packs.is_empty() && contents.iter().any(|c| c.needed) {
            return Err(UnpackError::NoPacks);
        }
        let needed = contents.iter().filter(|c| c.needed).map(|c| c.size).sum();
        self.check_free(needed, 0)?;
        let mut batch = Batch::new(self);
        for row in empty {
            batch.add(self.new_object_file()?, row)?;
        }
        for content in contents.iter_mut().filter(|c| !c.needed).chain(&mut kept) {
            for row in std::mem::take(&mut content.missing) {
                batch.add_copy(row)?;
                if batch.len() >= BATCH_FILES_MAX {
                    batch.commit()?;
                }
            }
        }
        let mut sink =
            Sink { store: self, contents: &mut contents, at: 0, index: 0, open: None, batch };
        for (i, pack) in packs.iter().enumerate() {
            let end = sink.at + pack.unpacked;
            let wanted = sink
                .contents
                .iter()
                .skip(sink.index)
                .take_while(|c| c.start < end)
                .any(|c| c.needed);
            if wanted {
                self.unpack_pack(pack, prefix_of(manifest, variant, i), variant, &mut sink)?;
                report.bytes += pack.unpacked;
                sink.batch.commit()?;
            } else {
                sink.seek(end);
                report.packs_skipped += 1;
            }
            progress(sink.at);
        }
        sink.batch.commit()?;
        report.notes = std::mem::take(&mut sink.batch.notes);
        self.put_tree(&manifest.tree)?;
        failpoint::hit("store.unpack.done");
        Ok(report)
    }

    /// What is to be written: the contents of the payload in order, and the empty files.
    fn plan(
        &self,
        manifest: &Manifest,
        variant: Variant,
        report: &mut UnpackReport,
    ) -> Result<(Vec<Content>, Vec<ObjectRow>), UnpackError> {
        let mut places: BTreeMap<ContentId, usize> = BTreeMap::new();
        let mut contents: Vec<Content> = Vec::new();
        let payload = manifest.tree.payload();
        let delta = manifest.packing.delta.as_ref().filter(|_| variant == Variant::Delta);
        let kept = delta.map(|d| d.kept_flags(payload.len())).transpose();
        let kept = kept.map_err(|_wrong| UnpackError::NoPacks)?;
        let mut end = 0;
        for (i, (id, size)) in payload.into_iter().enumerate() {
            let needed = !self.has_content(id)?;
            let packed = kept.as_ref().and_then(|k| k.get(i)) != Some(&true);
            if needed && !packed {
                return Err(UnpackError::NoBase(id));
            }
            places.insert(id, contents.len());
            contents.push(Content { id, start: end, size, needed, packed, missing: Vec::new() });
            end += if packed { size } else { 0 };
        }
        let mut rows: BTreeMap<_, ObjectRow> = BTreeMap::new();
        for row in manifest.tree.entries.iter().filter_map(ObjectRow::of) {
            let size = places.get(&row.content).and_then(|i| contents.get(*i)).map(|c| c.size);
            let empty = row.content == ContentId::of(b"");
            // An empty content is in no payload, and no other content may be empty.
            if size.unwrap_or(0) != row.size || empty != (row.size == 0) {
                return Err(UnpackError::WrongSize(row.content));
            }
            rows.insert(row.key(), row);
        }
        let mut without_bytes = Vec::new();
        for (object, row) in rows {
            if self.has_object(object)? {
                report.files_shared += 1;
                continue;
            }
            report.files_written += 1;
            match places.get(&row.content).and_then(|i| contents.get_mut(*i)) {
                Some(content) => content.missing.push(row),
                None => without_bytes.push(row),
            }
        }
        Ok((contents, without_bytes))
    }

    fn unpack_pack(
        &self,
        pack: &Pack,
        runs: &[Run],
        variant: Variant,
        sink: &mut Sink<'_, '_>,
    ) -> Result<(), UnpackError> {
        let prefix = self.read_prefix(pack.id, runs)?;
        let result = self.stream_pack(pack, &prefix, variant, sink);
        drop(prefix);
        let blames_pack = matches!(
            result,
            Err(UnpackError::Bomb { .. }
                | UnpackError::BadPack { .. }
                | UnpackError::WrongContent { .. })
        );
        if blames_pack {
            self.check_prefix(runs)?;
        }
        // Is it the disk and not the publisher? Then the pack goes, to be fetched again.
        if blames_pack && !self.pack_is_right(pack)? {
            let path = self.pack_path(pack.id);
            write::remove_file(&path).map_err(|f| self.fault(f))?;
            return Err(StoreError::Corrupt(pack.id).into());
        }
        result
    }

    fn pack_is_right(&self, pack: &Pack) -> Result<bool, StoreError> {
        let file = self.open_pack(pack.id)?;
        let len = file.len().map_err(|f| self.fault(f))?;
        if len != pack.size {
            return Ok(false);
        }
        let mut hasher = blake3::Hasher::new();
        Ok(hasher.update_reader(file.file()).is_ok() && *hasher.finalize().as_bytes() == pack.id.0)
    }

    fn stream_pack(
        &self,
        pack: &Pack,
        prefix: &[u8],
        variant: Variant,
        sink: &mut Sink<'_, '_>,
    ) -> Result<(), UnpackError> {
        let bad = |why: String| UnpackError::BadPack { pack: pack.id, why };
        let file = self.open_pack(pack.id)?;
        let reader = BufReader::with_capacity(CHUNK, file.file());
        let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(reader, prefix)
            .map_err(|e| bad(e.to_string()))?
            .single_frame();
        let window = match variant {
            Variant::Full => WINDOW_LOG_FULL,
            Variant::Delta => WINDOW_LOG_DELTA,
        };
        decoder.window_log_max(window).map_err(|e| bad(e.to_string()))?;
        let mut chunk = vec![0; CHUNK];
        let mut given = 0u64;
        loop {
            let n = decoder.read(&mut chunk).map_err(|e| bad(e.to_string()))?;
            if n == 0 {
                break;
            }
            given += n as u64;
            if given > pack.unpacked {
                return Err(UnpackError::Bomb { pack: pack.id, declared: pack.unpacked });
            }
            sink.take(chunk.get(..n).unwrap_or_default(), pack.id)?;
        }
        if given != pack.unpacked {
            return Err(bad(format!("it gives {given} bytes instead of {}", pack.unpacked)));
        }
        let mut rest = decoder.finish();
        match rest.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(bad("bytes follow its frame".to_owned())),
            Err(e) => Err(bad(e.to_string())),
        }
    }
}
