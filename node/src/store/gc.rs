//! Garbage collection: mark what leases name, then sweep the rest.
//!
//! A sweep removes rows before files, so that a crash between leaves files that nothing claims and
//! that the next collection removes. It works in small batches, each under the lock of
//! [`super::fresh`]: what was written, or found to be here, since the mark began stays.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use stork_wire::ids::{ManifestId, PackId, TreeId};

use super::db::{self, CONTENTS, MANIFESTS, OBJECTS, SETS, TREES, first_id};
use super::fresh::Kind;
use super::manifests::ManifestRow;
use super::merge::SetId;
use super::objects::{ObjectKey, ObjectRow, object_keys, read_keys};
use super::packs::StoredFile;
use super::sets::SetRow;
use super::write::{self, Fault};
use super::{Store, StoreError, lock};
use crate::failpoint;

/// Files removed under one hold of the lock, so that writers wait for milliseconds only.
const BATCH: usize = 256;
/// Seconds that damaged files stay in `quarantine/` to be looked at.
const QUARANTINE_S: i64 = 7 * 86_400;

/// What a collection removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Nothing was removed; the figures say what would be.
    pub dry_run: bool,
    /// Objects.
    pub objects: u64,
    /// Packs, whole and partial.
    pub packs: u64,
    /// Manifests.
    pub manifests: u64,
    /// Trees noted as complete.
    pub trees: u64,
    /// Package sets.
    pub sets: u64,
    /// Bytes of objects and packs. Objects that an old mount still shows take their space until
    /// then.
    pub bytes: u64,
    /// Packs kept only to serve others.
    pub seeds: u64,
    /// Their bytes.
    pub seed_bytes: u64,
}

/// What may not be removed.
#[derive(Debug, Default)]
struct Marks {
    objects: BTreeSet<ObjectKey>,
    packs: BTreeSet<PackId>,
    seeds: BTreeSet<PackId>,
    manifests: BTreeSet<ManifestId>,
    trees: BTreeSet<TreeId>,
    sets: BTreeSet<SetId>,
}

impl Store {
    /// Removes what no lease keeps; with `dry_run` only counts it.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, StoreError> {
        let _one = lock(&self.sweeping);
        if !dry_run {
            self.check_latch()?;
            self.room_to_free()?;
        }
        let _hold = self.inner_hold();
        let marks = self.mark()?;
        failpoint::hit("store.gc.marked");
        let mut report = GcReport { dry_run, ..GcReport::default() };
        // Packs first: they have no rows, so that even a full disk lets go of them.
        self.sweep_packs(&marks, &mut report)?;
        self.sweep_sets(&marks, &mut report)?;
        report.bytes += self.sweep_archives(dry_run)?;
        self.sweep_trees(&marks, &mut report)?;
        self.sweep_manifests(&marks, &mut report)?;
        failpoint::hit("store.gc.half_swept");
        self.sweep_objects(&marks, &mut report)?;
        if !dry_run {
            self.sweep_quarantine()?;
            self.load_ballast();
        }
        Ok(report)
    }

    fn mark(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        for (_, lease) in self.leases()? {
            marks.manifests.extend(lease.manifests);
            marks.packs.extend(lease.packs);
            marks.trees.extend(lease.trees);
            marks.sets.extend(lease.sets);
        }
        for set in marks.sets.clone() {
            let Some(row) = self.record::<SetRow>(SETS, set.as_bytes())? else { continue };
            for (_, manifest, tree) in row.members {
                marks.manifests.insert(manifest);
                marks.trees.insert(tree);
            }
            if let Some(tree) = self.set_tree(set)? {
                marks.objects.extend(object_keys(&tree));
            }
        }
        let mut unpacking = Vec::new();
        for (key, value) in self.rows(MANIFESTS)? {
            let Some(id) = first_id(&key).map(ManifestId) else { continue };
            let row: ManifestRow = self.decode_row(&value)?;
            if marks.manifests.contains(&id) {
                marks.seeds.extend(row.packs);
            }
            if marks.trees.contains(&row.tree) && self.row(TREES, row.tree.as_bytes())?.is_none() {
                unpacking.push(id);
            }
        }
        // A tree that is still being unpacked has no row yet; its manifest says what belongs to
        // it.
        for id in unpacking {
            if let Some(manifest) = self.manifest_decoded(id)? {
                marks.objects.extend(object_keys(&manifest.tree));
            }
        }
        for tree in &marks.trees {
            if let Some(row) = self.row(TREES, tree.as_bytes())? {
                marks.objects.extend(read_keys(&row));
            }
        }
        Ok(marks)
    }

    /// Removes, under the lock, those rows of a batch that are still not fresh; returns them.
    fn sweep_rows<T: Copy>(
        &self,
        batch: &[T],
        kind: Kind,
        id: impl Fn(&T) -> [u8; 32],
        remove: impl Fn(&[T]) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let fresh = lock(&self.fresh);
        let old: Vec<T> = batch.iter().filter(|t| !fresh.has(kind, &id(t))).copied().collect();
        if !old.is_empty() {
            remove(&old)?;
        }
        drop(fresh);
        Ok(old.len() as u64)
    }

    fn unmarked(
        &self,
        table: redb::TableDefinition<'static, &'static [u8], &'static [u8]>,
        marked: impl Fn([u8; 32]) -> bool,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        let rows = self.rows(table)?;
        Ok(rows.iter().filter_map(|(k, _)| first_id(k)).filter(|id| !marked(*id)).collect())
    }

    fn sweep_sets(&self, marks: &Marks, report: &mut GcReport) -> Result<(), StoreError> {
        let old = self.unmarked(SETS, |id| marks.sets.contains(&SetId(id)))?;
        if report.dry_run {
            report.sets = old.len() as u64;
            return Ok(());
        }
        for id in old {
            report.sets += self.sweep_rows(
                &[id],
                Kind::Set,
                |id| *id,
                |_| {
                    self.write(|tx| db::remove(tx, SETS, &id))?;
                    self.remove_set_files(SetId(id))
                },
            )?;
        }
        Ok(())
    }

    fn sweep_trees(&self, marks: &Marks, report: &mut GcReport) -> Result<(), StoreError> {
        let old = self.unmarked(TREES, |id| marks.trees.contains(&TreeId(id)))?;
        if report.dry_run {
            report.trees = old.len() as u64;
            return Ok(());
        }
        for batch in old.chunks(BATCH) {
            report.trees += self.sweep_rows(
                batch,
                Kind::Tree,
                |id| *id,
                |ids| self.write(|tx| ids.iter().try_for_each(|id| db::remove(tx, TREES, id))),
            )?;
        }
        Ok(())
    }

    fn sweep_manifests(&self, marks: &Marks, report: &mut GcReport) -> Result<(), StoreError> {
        let old = self.unmarked(MANIFESTS, |id| marks.manifests.contains(&ManifestId(id)))?;
        // A manifest of a tree that is being unpacked says which objects are needed.
        let mut gone = Vec::new();
        for id in old {
            let row: Option<ManifestRow> = self.record(MANIFESTS, &id)?;
            if row.is_none_or(|row| !marks.trees.contains(&row.tree)) {
                gone.push(id);
            }
        }
        if report.dry_run {
            report.manifests = gone.len() as u64;
            return Ok(());
        }
        for batch in gone.chunks(BATCH) {
            report.manifests += self.sweep_rows(
                batch,
                Kind::Manifest,
                |id| *id,
                |ids| {
                    self.write(|tx| ids.iter().try_for_each(|id| db::remove(tx, MANIFESTS, id)))?;
                    ids.iter()
                        .try_for_each(|id| write::remove_file(&self.manifest_path(ManifestId(*id))))
                        .map_err(|f| self.fault(f))
                },
            )?;
        }
        self.sweep_lost_manifests()
    }

    /// Files of manifests whose rows were never written, because of a crash, or are gone.
    fn sweep_lost_manifests(&self) -> Result<(), StoreError> {
        let rows: BTreeSet<_> = self.manifest_ids()?.into_iter().collect();
        let mut lost = self.files_of("manifests")?;
        lost.retain(|f| !rows.contains(&ManifestId(f.id)));
        for file in lost {
            let fresh = lock(&self.fresh);
            if !fresh.has(Kind::Manifest, &file.id) {
                write::remove_file(&file.path).map_err(|f| self.fault(f))?;
            }
        }
        Ok(())
    }

    fn sweep_objects(&self, marks: &Marks, report: &mut GcReport) -> Result<(), StoreError> {
        let files = self.files_of("objects")?;
        let old: Vec<&StoredFile> =
            files.iter().filter(|f| !marks.objects.contains(&ObjectKey(f.id))).collect();
        if report.dry_run {
            report.objects = old.len() as u64;
            report.bytes += old.iter().map(|f| f.bytes).sum::<u64>();
            return Ok(());
        }
        for batch in old.chunks(BATCH) {
            let mut bytes = 0;
            let removed = std::cell::Cell::new(0);
            report.objects += self.sweep_rows(
                batch,
                Kind::Object,
                |f| f.id,
                |files| {
                    let ids: Vec<_> = files.iter().map(|f| f.id).collect();
                    self.remove_object_rows(&ids)?;
                    removed.set(files.iter().map(|f| f.bytes).sum());
                    files
                        .iter()
                        .try_for_each(|f| write::remove_file(&f.path))
                        .map_err(|f| self.fault(f))
                },
            )?;
            bytes += removed.get();
            report.bytes += bytes;
        }
        Ok(())
    }

    /// Removes the rows of objects, and of trees that are no longer complete without them.
    pub(super) fn remove_object_rows(&self, ids: &[[u8; 32]]) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut objects = tx.open_table(OBJECTS)?;
            let mut contents = tx.open_table(CONTENTS)?;
            for id in ids {
                let row = objects.remove(id.as_slice())?.map(|v| v.value().to_vec());
                let Some(row) = row else { continue };
                let row: ObjectRow = self.decode_row(&row)?;
                contents.remove(db::key(row.content.as_bytes(), id).as_slice())?;
            }
            Ok(())
        })
    }

    fn sweep_packs(&self, marks: &Marks, report: &mut GcReport) -> Result<(), StoreError> {
        let mut files = self.files_of("packs")?;
        files.retain(|f| !marks.packs.contains(&PackId(f.id)));
        // The newest use first: seeds within the budget stay.
        files.sort_by_key(|f| (std::cmp::Reverse(f.used), f.id));
        let mut old = Vec::new();
        for file in &files {
            let fits =
                report.seed_bytes.saturating_add(file.bytes) <= self.options.seed_budget_bytes;
            if marks.seeds.contains(&PackId(file.id)) && fits {
                report.seeds += 1;
                report.seed_bytes += file.bytes;
            } else {
                old.push((PackId(file.id), file.path.clone(), file.bytes));
            }
        }
        for (pack, path) in self.partial_packs()? {
            if !marks.packs.contains(&pack) && !marks.seeds.contains(&pack) {
                let bytes = path.symlink_metadata().map_or(0, |m| m.blocks() * 512);
                old.push((pack, path, bytes));
            }
        }
        for (pack, path, bytes) in old {
            if report.dry_run || self.sweep_pack(pack, &path)? {
                report.packs += 1;
                report.bytes += bytes;
            }
        }
        Ok(())
    }

    fn sweep_pack(&self, pack: PackId, path: &std::path::Path) -> Result<bool, StoreError> {
        // The order of locks is the same as where a partial pack is opened.
        let open = self.partial(pack).is_some();
        let fresh = lock(&self.fresh);
        if open || fresh.has(Kind::Pack, pack.as_bytes()) {
            return Ok(false);
        }
        let map = self.incoming(&format!("{pack}.map"));
        let removed = write::remove_file(path).and_then(|()| {
            if path.starts_with(self.dir.join("incoming")) {
                write::remove_file(&map)
            } else {
                Ok(())
            }
        });
        drop(fresh);
        removed.map_err(|f| self.fault(f)).map(|()| true)
    }

    fn sweep_quarantine(&self) -> Result<(), StoreError> {
        let dir = self.dir.join("quarantine");
        let now = i64::try_from(super::space::unix_now()).unwrap_or(i64::MAX);
        for name in super::open::names(&dir).map_err(|f| self.fault(f))? {
            let path = dir.join(name);
            let meta =
                path.symlink_metadata().map_err(|e| self.fault(Fault::new("look at", &path, e)))?;
            if now - meta.ctime() < QUARANTINE_S {
                continue;
            }
            if meta.is_dir() {
                self.remove_folder(&path)?;
            } else {
                write::remove_file(&path).map_err(|f| self.fault(f))?;
            }
        }
        Ok(())
    }
}
