//! The manifest of a content: looked for on disk, taken from whoever sent it, and let go again.

use std::sync::Arc;

use stork_wire::ids::{ManifestId, NodeId};
use stork_wire::manifest::Manifest;

use super::Driver;
use super::content::{Stage, fits};
use super::origin::What;
use super::workers::{Done, ManifestFault};
use crate::catalog::Privilege;
use crate::transfer::{Fault, Input, ORIGIN_STORE};

impl Driver {
    pub(super) fn load_manifest_if_missing(&mut self, id: ManifestId) {
        if self.contents.get(&id).is_some_and(|c| c.manifest.is_none()) {
            self.load_manifest(id);
        } else {
            self.replan_soon();
        }
    }

    /// Looks for the manifest on disk; what comes of it is [`Driver::on_manifest`].
    pub(super) fn load_manifest(&self, id: ManifestId) {
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            let result = match store.manifest_decoded(id) {
                Ok(Some(m)) => Ok(Arc::new(m)),
                Ok(None) => Err(ManifestFault::Bad(String::new())),
                Err(e) => Err(e.into()),
            };
            Some(Done::Manifest { id, from: None, result })
        });
    }

    /// A manifest was read from disk (`from` is none) or came from a peer, or neither.
    pub(super) fn on_manifest(
        &mut self,
        id: ManifestId,
        from: Option<NodeId>,
        result: Result<Arc<Manifest>, ManifestFault>,
    ) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        match result {
            Ok(manifest) => {
                if let Err(why) = fits(&manifest, &content.release) {
                    // Hash and size are what the publisher signed, so this is the publisher's
                    // fault.
                    return self
                        .fail(id, &format!("the manifest contradicts its announcement: {why}"));
                }
                let asks = manifest.tree.entries.iter().find_map(|e| {
                    e.privilege().map(|what| Privilege { path: e.path.to_string(), what })
                });
                if let Some(asks) = asks {
                    self.privileges.insert(id, asks);
                }
                content.manifest = Some(manifest);
                let size = content.release.manifest.size;
                if matches!(content.stage, Stage::Manifest) {
                    content.stage = Stage::Idle;
                }
                if let Some(from) = from {
                    if from == ORIGIN_STORE {
                        self.origin_gave(size);
                    }
                    self.planner_input(Input::ManifestArrived { manifest: id, from });
                }
                self.planner_input(Input::HaveManifest { manifest: id });
                if self.contents.get(&id).is_some_and(|c| c.origin || c.kept) {
                    self.keep_packs(id);
                }
                self.seed(id);
                self.judge_quotas();
                self.advance(id);
                self.forget_manifest(id);
                self.replan_soon();
            }
            Err(ManifestFault::Disk(why)) if from.is_some() => {
                // Ours, and not the sender's: nobody is blamed, and nobody asked for a while.
                self.counters.add("manifests", "disk");
                self.planner_input(Input::DropManifest { manifest: id });
                self.fail(id, &why);
            }
            Err(ManifestFault::Bad(why) | ManifestFault::Disk(why)) => {
                if let Some(from) = from {
                    let fault = Fault::Bad;
                    if from == ORIGIN_STORE {
                        self.origin_lied(What::Manifest(id));
                    }
                    tracing::warn!(peer = %from.short(), "manifest refused: {why}");
                    return self.planner_input(Input::ManifestFailed { manifest: id, from, fault });
                }
                if content.wanted && matches!(content.stage, Stage::Manifest | Stage::Whole) {
                    self.want_manifest(id);
                }
            }
        }
    }

    /// A manifest may be large: it is kept in memory only while it is worked with.
    pub(super) fn forget_manifest(&mut self, id: ManifestId) {
        if let Some(content) = self.contents.get_mut(&id)
            && matches!(content.stage, Stage::Idle | Stage::Whole)
        {
            content.manifest = None;
        }
    }
}
