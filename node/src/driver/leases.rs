//! Leases of contents: what the collector must keep, decided from what VMs, publishers and peers
//! need.
//!
//! `content/ID` keeps the files of what is fetched or shown, `kept/ID` the packs of what is served
//! as an origin or keeper, `push/TIME/ID` what a publisher has sent but not announced yet. Sets of
//! generations are leased by the views.

use std::collections::BTreeSet;

use serde_json::json;
use stork_wire::ids::{ManifestId, SwarmId};
use stork_wire::manifest::{Manifest, Variant};

use super::content::SwarmInfo;
use super::workers::Done;
use super::{Answer, CallError, Driver};
use crate::store::{LeaseSet, Store, StoreError};

/// Seconds after which a push that was never announced is given up.
const PUSH_KEPT_S: u64 = 24 * 3_600;
/// Milliseconds between two collections.
pub(super) const COLLECT_EVERY_MS: u64 = 10 * 60 * 1_000;

/// Protects the files of a content, and the base that its delta needs, across restarts.
pub(super) fn keep_files(
    store: &Store,
    id: ManifestId,
    manifest: &Manifest,
) -> Result<(), StoreError> {
    let base = manifest.packing.delta.as_ref().map(|d| d.base);
    let what = LeaseSet {
        manifests: [id].into(),
        trees: base.into_iter().chain([manifest.tree.id()]).collect(),
        ..LeaseSet::default()
    };
    store.lease(&format!("content/{id}"), &what)
}

/// Protects the packs that are here, for others: whatever the seed budget says.
fn keep_packs_of(store: &Store, id: ManifestId, manifest: &Manifest) -> Result<(), StoreError> {
    let packs = packs_of(manifest).into_iter().filter(|p| store.has_pack(*p)).collect();
    let what = LeaseSet { manifests: [id].into(), packs, ..LeaseSet::default() };
    store.lease(&format!("kept/{id}"), &what)
}

/// Protects what a publisher has sent, until it is announced or too old.
pub fn keep_push(
    store: &Store,
    id: ManifestId,
    manifest: &Manifest,
    now: u64,
) -> Result<(), StoreError> {
    let packs = packs_of(manifest);
    let what = LeaseSet { manifests: [id].into(), packs, ..LeaseSet::default() };
    store.lease(&format!("push/{now}/{id}"), &what)
}

fn packs_of(manifest: &Manifest) -> BTreeSet<stork_wire::ids::PackId> {
    let both = [Variant::Full, Variant::Delta];
    both.into_iter().flat_map(|v| manifest.packing.packs(v)).map(|p| p.id).collect()
}

/// Contents whose packs are kept for others, as the leases of an earlier run say.
pub(super) fn kept(store: &Store) -> Result<BTreeSet<ManifestId>, StoreError> {
    let leases = store.leases()?.into_iter();
    Ok(leases.filter_map(|(name, _)| name.strip_prefix("kept/")?.parse().ok()).collect())
}

impl Driver {
    /// Contents whose files a VM wants or keeps, and live contents whose packs are kept for others.
    fn needed(&self) -> Needed {
        let charter = self.trust.charter();
        let stays = |k: &&crate::catalog::KnownRelease| {
            let recalled = charter.recalled(k.publisher, k.epoch, &k.recalled_as(), k.hash);
            !k.retired && recalled.is_none()
        };
        let live: BTreeSet<ManifestId> =
            self.catalog.all().filter(stays).map(|k| k.release.manifest.id).collect();
        let held = self.contents.iter().filter(|(_, c)| c.wanted || c.hold.is_some());
        let mut files: BTreeSet<ManifestId> = held.map(|(id, _)| *id).collect();
        for name in self.vms.keys() {
            let kept = self.views.generations(name).unwrap_or_default();
            files.extend(kept.iter().flat_map(|g| &g.label.releases).map(|r| r.manifest));
        }
        let kept = self.contents.iter().filter(|(id, c)| c.kept && live.contains(*id));
        Needed { files, packs: kept.map(|(id, _)| *id).collect() }
    }

    /// Lets go of leases that nobody needs, and removes what no lease and no budget keeps.
    pub(super) fn collect(&mut self, dry_run: bool, answer: Option<Answer>) {
        self.collect_at = self.clock.tick().after_ms(COLLECT_EVERY_MS);
        if !dry_run {
            self.forget_retired();
        }
        let needed = self.needed();
        let now = self.clock.unix();
        let store = std::sync::Arc::clone(&self.store);
        self.workers.slow(move || {
            let outcome = release_unneeded(&store, &needed, now).and_then(|()| store.gc(dry_run));
            if let Err(e) = &outcome {
                tracing::warn!("collection failed: {e}");
            }
            if let Some(answer) = answer {
                let reply = outcome.map_err(|e| CallError::Refused(e.to_string(), e.help().into()));
                let reply = reply.map(|r| {
                    json!({
                        "schema": "stork.store-gc/v1", "dry_run": dry_run,
                        "objects": r.objects, "packs": r.packs, "sets": r.sets,
                        "manifests": r.manifests, "bytes": r.bytes,
                        "seeds": r.seeds, "seed_bytes": r.seed_bytes,
                    })
                });
                // Whoever asked may have gone meanwhile.
                drop(answer.send(reply));
            }
            Some(Done::Collected)
        });
    }

    /// Packs were removed: nobody is told any more that they are here.
    pub(super) fn forget_lost_packs(&mut self) {
        let lost = |info: &SwarmInfo| {
            info.partials.is_empty() && !info.pieces.iter().all(|p| self.store.has_pack(p.pack))
        };
        let gone: Vec<SwarmId> =
            self.swarms.iter().filter(|(_, info)| lost(info)).map(|(s, _)| *s).collect();
        for swarm in gone {
            self.leave(swarm);
        }
    }

    /// Keeps the packs of a release for others, where a publisher pushed it here or this host is
    /// one of its keepers (design §8): a newcomer must find every live release.
    pub(super) fn keep_packs(&mut self, id: ManifestId) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        content.kept = true;
        let store = std::sync::Arc::clone(&self.store);
        self.workers.disk(move || {
            if let Err(e) = keep_packs_of(&store, id, &manifest) {
                tracing::warn!("packs that others may need are not protected: {e}");
            }
            None
        });
    }
}

/// What must stay.
struct Needed {
    files: BTreeSet<ManifestId>,
    packs: BTreeSet<ManifestId>,
}

fn release_unneeded(store: &Store, needed: &Needed, now: u64) -> Result<(), StoreError> {
    for (name, _) in store.leases()? {
        let mut parts = name.split('/');
        let keep = match (parts.next(), parts.next(), parts.next()) {
            (Some("content"), Some(id), None) => {
                id.parse().is_ok_and(|id| needed.files.contains(&id))
            }
            (Some("kept"), Some(id), None) => id.parse().is_ok_and(|id| needed.packs.contains(&id)),
            (Some("push"), Some(time), Some(id)) => {
                let age = time.parse().map_or(u64::MAX, |t: u64| now.saturating_sub(t));
                age < PUSH_KEPT_S && id.parse().is_ok_and(|id| !needed.packs.contains(&id))
            }
            _ => true,
        };
        if !keep {
            store.release_lease(&name)?;
        }
    }
    Ok(())
}
