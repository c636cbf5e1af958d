//! What this host keeps on disk beyond what its VMs are shown, and for how long.
//!
//! `content/ID` protects what is fetched for a VM until a generation shows it, and then goes: the
//! generation has a lease of its own. `kept/ID` protects the packs of a live release where this
//! host is its origin or one of its keepers (design §8): a newcomer must find every live release.

use std::sync::Arc;

use stork_wire::ids::ManifestId;
use stork_wire::manifest::{Manifest, Variant};

use super::Driver;
use crate::store::LeaseSet;

/// Leases of contents that are being fetched.
pub(super) const CONTENT: &str = "content/";
/// Leases of packs that are kept for others.
const KEPT: &str = "kept/";

impl Driver {
    /// Keeps the packs of a release that are here whole, for as long as it is live.
    pub(super) fn keep_packs(&self, id: ManifestId, manifest: &Manifest) {
        let all = [Variant::Full, Variant::Delta].map(|v| manifest.packing.packs(v));
        let here = all.iter().flatten().filter(|p| self.store.has_pack(p.id)).map(|p| p.id);
        let what = LeaseSet {
            manifests: [id].into(),
            packs: here.collect(),
            ..LeaseSet::default()
        };
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            if let Err(e) = store.lease(&format!("{KEPT}{id}"), &what) {
                tracing::warn!("packs that others may need are not protected: {e}");
            }
            None
        });
    }

    /// A content is shown or no longer wanted: its own lease has done its work.
    pub(super) fn release_content(&self, id: ManifestId) {
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            if let Err(e) = store.release_lease(&format!("{CONTENT}{id}")) {
                tracing::warn!("a lease is not released: {e}");
            }
            None
        });
    }

    /// At the start: leases of releases that are not live any more, or are shown by now, go.
    pub(super) fn release_old_leases(&self) -> Result<(), crate::store::StoreError> {
        let shown: Vec<ManifestId> = self
            .vms
            .values()
            .flat_map(|vm| vm.current.iter().flat_map(|g| &g.label.releases))
            .map(|r| r.manifest)
            .collect();
        for (name, _) in self.store.leases()? {
            let (id, fetched) = match (name.strip_prefix(CONTENT), name.strip_prefix(KEPT)) {
                (Some(id), _) => (id, true),
                (None, Some(id)) => (id, false),
                (None, None) => continue,
            };
            let id: Option<ManifestId> = id.parse().ok();
            let live = id.is_some_and(|id| self.catalog.by_manifest(id).next().is_some());
            if !live || (fetched && id.is_some_and(|id| shown.contains(&id))) {
                self.store.release_lease(&name)?;
            }
        }
        Ok(())
    }

    /// Packs were removed: nobody is told any more that they are here.
    pub(super) fn forget_lost_packs(&mut self) {
        let lost = |info: &&super::content::SwarmInfo| {
            info.partials.is_empty() && !info.pieces.iter().all(|p| self.store.has_pack(p.pack))
        };
        let gone: Vec<_> =
            self.swarms.iter().filter(|(_, info)| lost(info)).map(|(s, _)| *s).collect();
        for swarm in gone {
            self.leave(swarm);
        }
    }
}
