//! Manifests: kept as the exact bytes that were announced, with a row that says what they need.

use serde::{Deserialize, Serialize};
use stork_wire::feed::ManifestRef;
use stork_wire::ids::{ManifestId, PackId, TreeId};
use stork_wire::manifest::{Manifest, Variant};

use super::db::{MANIFESTS, first_id};
use super::fresh::Kind;
use super::write::{self, Fault};
use super::{Store, StoreError, shard};

/// What a collection must know of a manifest without reading it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ManifestRow {
    pub(super) size: u64,
    pub(super) tree: TreeId,
    pub(super) packs: Vec<PackId>,
}

fn decode(id: ManifestId, bytes: &[u8]) -> Result<Manifest, StoreError> {
    Manifest::from_bytes(bytes).map_err(|e| StoreError::BadManifest { id, source: Box::new(e) })
}

impl Store {
    /// Keeps a manifest durably, after its id, its size and its rules were checked.
    pub fn put_manifest(&self, what: &ManifestRef, bytes: &[u8]) -> Result<(), StoreError> {
        let id = what.id;
        if bytes.len() as u64 != what.size || ManifestId::of(bytes) != id {
            return Err(StoreError::WrongManifest(id));
        }
        let manifest = decode(id, bytes)?;
        self.check_latch()?;
        // Between the file and its row a collection must not take it for one that nobody claims.
        let _hold = self.inner_hold();
        self.touch(Kind::Manifest, id.as_bytes());
        if self.manifest_row(id)?.is_some() && self.manifest_path(id).exists() {
            return Ok(());
        }
        let (folder, name) = shard(id.as_bytes());
        let dir = self.dir.join("manifests").join(folder);
        write::write_atomic(&dir, &name, bytes).map_err(|f| self.fault(f))?;
        let packs = [Variant::Full, Variant::Delta]
            .iter()
            .flat_map(|v| manifest.packing.packs(*v))
            .map(|p| p.id)
            .collect();
        let row = ManifestRow { size: what.size, tree: manifest.tree.id(), packs };
        self.put_record(MANIFESTS, id.as_bytes(), &row)
    }

    pub(super) fn manifest_path(&self, id: ManifestId) -> std::path::PathBuf {
        self.sharded("manifests", id.as_bytes())
    }

    pub(super) fn manifest_row(&self, id: ManifestId) -> Result<Option<ManifestRow>, StoreError> {
        self.record(MANIFESTS, id.as_bytes())
    }

    /// The bytes of a manifest, checked against its id.
    pub fn manifest(&self, id: ManifestId) -> Result<Option<Vec<u8>>, StoreError> {
        self.touch(Kind::Manifest, id.as_bytes());
        if self.manifest_row(id)?.is_none() {
            return Ok(None);
        }
        let path = self.manifest_path(id);
        let bytes = std::fs::read(&path).map_err(|e| self.fault(Fault::new("read", &path, e)))?;
        if ManifestId::of(&bytes) == id {
            Ok(Some(bytes))
        } else {
            Err(StoreError::WrongManifest(id))
        }
    }

    /// A manifest, decoded and checked.
    pub fn manifest_decoded(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        self.manifest(id)?.map(|bytes| decode(id, &bytes)).transpose()
    }

    /// The ids of all manifests that are here.
    pub fn manifest_ids(&self) -> Result<Vec<ManifestId>, StoreError> {
        let rows = self.rows(MANIFESTS)?;
        Ok(rows.iter().filter_map(|(k, _)| first_id(k).map(ManifestId)).collect())
    }
}
