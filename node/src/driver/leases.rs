//! Leases of contents: what the collector must keep, decided from what VMs, publishers and peers
//! need.
//!
//! `content/ID` keeps what is fetched, shown or served as an origin; `push/TIME/ID` keeps what a
//! publisher has sent but not announced yet. Sets of generations are leased by the views.

use std::collections::BTreeSet;

use serde_json::json;
use stork_wire::ids::ManifestId;
use stork_wire::manifest::{Manifest, Variant};

use super::{Answer, CallError, Driver};
use crate::store::{LeaseSet, Store, StoreError};

/// Seconds after which a push that was never announced is given up.
const PUSH_KEPT_S: u64 = 24 * 3_600;
/// Milliseconds between two collections.
pub(super) const COLLECT_EVERY_MS: u64 = 10 * 60 * 1_000;

/// Protects a content from the collector, across restarts. An origin's packs are kept whatever the
/// seed budget says: others turn to it last.
pub(super) fn keep(
    store: &Store,
    id: ManifestId,
    manifest: &Manifest,
    origin: bool,
) -> Result<(), StoreError> {
    let base = manifest.packing.delta.as_ref().map(|d| d.base);
    let packs = if origin { packs_of(manifest) } else { BTreeSet::new() };
    let what = LeaseSet {
        manifests: [id].into(),
        trees: base.into_iter().chain([manifest.tree.id()]).collect(),
        packs,
        ..LeaseSet::default()
    };
    store.lease(&format!("content/{id}"), &what)
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

impl Driver {
    /// Contents that somebody needs: a VM wants or keeps them, or others may turn here for them.
    fn needed(&self) -> BTreeSet<ManifestId> {
        let live: BTreeSet<ManifestId> =
            self.catalog.all().map(|k| k.release.manifest.id).collect();
        let held = self
            .contents
            .iter()
            .filter(|(id, c)| c.wanted || c.hold.is_some() || (c.origin && live.contains(*id)));
        let mut needed: BTreeSet<ManifestId> = held.map(|(id, _)| *id).collect();
        for name in self.vms.keys() {
            let kept = self.views.generations(name).unwrap_or_default();
            needed.extend(kept.iter().flat_map(|g| &g.label.releases).map(|r| r.manifest));
        }
        needed
    }

    /// Lets go of leases that nobody needs, and removes what no lease and no budget keeps.
    pub(super) fn collect(&mut self, dry_run: bool, answer: Option<Answer>) {
        self.collect_at = self.clock.tick().after_ms(COLLECT_EVERY_MS);
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
            None
        });
    }
}

fn release_unneeded(
    store: &Store,
    needed: &BTreeSet<ManifestId>,
    now: u64,
) -> Result<(), StoreError> {
    for (name, _) in store.leases()? {
        let mut parts = name.split('/');
        let keep = match (parts.next(), parts.next(), parts.next()) {
            (Some("content"), Some(id), None) => id.parse().is_ok_and(|id| needed.contains(&id)),
            (Some("push"), Some(time), Some(id)) => {
                let age = time.parse().map_or(u64::MAX, |t: u64| now.saturating_sub(t));
                age < PUSH_KEPT_S && id.parse().is_ok_and(|id| !needed.contains(&id))
            }
            _ => true,
        };
        if !keep {
            store.release_lease(&name)?;
        }
    }
    Ok(())
}
