//! Retired releases: kept as long as a VM of this host shows them, and then forgotten.
//!
//! A publisher retires what newer releases have replaced, by an entry of its feed, or by a new
//! epoch into which it carries over what is live. Neither takes anything from a VM: what it shows
//! stays until something newer comes that it may have.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::feed::Entry;
use stork_wire::ids::{LogId, PublisherId, ReleaseHash};

use super::Driver;
use super::vms::releases_of;

/// Epochs before the open one of which entries that were kept aside are looked for.
const EPOCHS_MAX: u32 = 1_024;

impl Driver {
    /// Publishers whose feeds began anew.
    pub(super) fn began_anew(&self) -> BTreeSet<PublisherId> {
        let all = self.trust.charter().publishers();
        all.filter(|(_, p)| p.compacted().is_some()).map(|(id, _)| *id).collect()
    }

    /// Says what an entry retired.
    pub(super) fn on_retire(&mut self, entry: &Entry, count: usize) {
        let by = self.trust.charter().publisher_name(entry.publisher);
        let text = format!("{count} releases by {by}: they stay where they are shown");
        self.counters.add("narrowed", "retired");
        self.event("retired", text);
    }

    /// Forgets retired releases that no generation of a VM has any more, in memory and on disk.
    pub(super) fn forget_retired(&mut self) {
        if !self.catalog.all().any(|k| k.retired) && self.compacted.is_empty() {
            return;
        }
        let mut shown: BTreeSet<ReleaseHash> = BTreeSet::new();
        for name in self.vms.keys() {
            let Ok(kept) = self.views.generations(name) else { return };
            let all = kept.iter().flat_map(|g| releases_of(&self.catalog, g).into_values());
            shown.extend(all.map(|k| k.hash));
            // What is switched to right now is in no record yet.
            let wished = self.vms.get(name).into_iter().flat_map(|vm| vm.wish.values());
            shown.extend(wished.map(|c| c.known.hash));
        }
        self.catalog.forget_retired(|k| shown.contains(&k.hash));
        for id in core::mem::take(&mut self.compacted) {
            self.sweep_aside(id);
        }
    }

    /// Removes from the disk what was kept aside of a feed that began anew, but for what is shown.
    fn sweep_aside(&mut self, id: PublisherId) {
        let Some(epoch) = self.trust.charter().publisher(id).map(|p| p.doc().epoch) else { return };
        let mut keep: BTreeSet<(LogId, u64)> = BTreeSet::new();
        for k in self.catalog.all().filter(|k| k.publisher == id && k.retired) {
            keep.insert((LogId::feed_epoch(id, k.epoch), k.seq));
        }
        if !keep.is_empty() {
            self.compacted.insert(id);
        }
        let logs: Vec<LogId> = (epoch.saturating_sub(EPOCHS_MAX).max(1)..epoch)
            .map(|e| LogId::feed_epoch(id, e))
            .collect();
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            if let Err(e) = store.drop_aside(&logs, |log, seq| keep.contains(&(log, seq))) {
                tracing::warn!("entries of a feed that began anew stay on disk for now: {e}");
            }
            None
        });
    }
}
