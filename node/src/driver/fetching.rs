//! Fetching: packs opened, pieces from other hosts, files unpacked, and what is whole served on.

use std::sync::Arc;

use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::manifest::{Manifest, Variant};

use super::content::{Stage, SwarmInfo};
use super::workers::{Done, Opened};
use super::{Driver, leases};
use crate::store::StoreError;
use crate::transfer::{Input, Join, Members, PieceSet, Role, Topic};

/// Milliseconds after which a content that failed is tried again.
const RETRY_MS: u64 = 10_000;
/// Hosts that keep the full packs of a release which they fetched as a delta (design §8: R = 3).
const KEEPERS: usize = 3;

impl Driver {
    /// Serves the variants whose packs are whole on this host.
    pub(super) fn seed(&mut self, id: ManifestId) {
        let Some(content) = self.contents.get(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        for variant in [Variant::Full, Variant::Delta] {
            let swarm = SwarmId::for_variant(id, variant);
            let packs = manifest.packing.packs(variant);
            let whole = !packs.is_empty() && packs.iter().all(|p| self.store.has_pack(p.id));
            if whole && !self.swarms.contains_key(&swarm) {
                let info = SwarmInfo::new(id, &manifest, variant);
                self.join(swarm, info, true);
            }
        }
    }

    pub(super) fn join(&mut self, swarm: SwarmId, info: SwarmInfo, whole: bool) {
        let Some(content) = self.contents.get(&info.manifest) else { return };
        let lens: Vec<u32> = info.pieces.iter().map(|p| p.len).collect();
        let total = u32::try_from(lens.len()).unwrap_or(u32::MAX);
        let have = if whole {
            PieceSet::full(total)
        } else {
            let flags = info.partials.iter().flat_map(|p| p.have());
            PieceSet::of((0u32..).zip(flags).filter(|(_, h)| *h).map(|(i, _)| i), total)
        };
        let role = match (whole, content.origin) {
            (true, true) => Role::Origin,
            (true, false) => Role::Seed,
            (false, _) => Role::Leech,
        };
        let members = self.members(&content.release);
        let (urgency, manifest) = (content.release.urgency, info.manifest);
        self.swarms.insert(swarm, info);
        let join = Join { swarm, manifest, lens, have, urgency, role, members };
        self.planner_input(Input::Join(Box::new(join)));
    }

    /// Opens the partial packs of the better variant.
    pub(super) fn open(&mut self, id: ManifestId) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        let base = manifest.packing.delta.as_ref().map(|d| d.base);
        let has_base = base.is_some_and(|b| self.store.tree_complete(b).unwrap_or(false));
        let full_here = manifest.packing.packs.iter().all(|p| self.store.has_pack(p.id));
        let delta = has_base && !content.delta_failed && !full_here;
        let variant = if delta { Variant::Delta } else { Variant::Full };
        content.stage = Stage::Opening(variant);
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            let result = open_packs(&store, &manifest, variant)
                .and_then(|opened| leases::keep_files(&store, id, &manifest).map(|()| opened));
            Some(Done::Opened { id, variant, result })
        });
    }

    pub(super) fn on_opened(
        &mut self,
        id: ManifestId,
        variant: Variant,
        result: Result<Opened, StoreError>,
    ) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        if content.stage != Stage::Opening(variant) {
            return;
        }
        let opened = match result {
            Ok(opened) => opened,
            Err(e) => {
                self.counters.add("fetches_refused", disk_code(&e));
                return self.fail(id, &e.to_string());
            }
        };
        let Some(manifest) = content.manifest.clone() else { return };
        content.reservation = opened.reservation;
        let whole = opened.packs.iter().all(|p| p.is_whole());
        let swarm = SwarmId::for_variant(id, variant);
        if whole {
            content.stage = Stage::Idle;
            self.seed(id);
            return self.unpack(id, variant);
        }
        content.stage = Stage::Fetching(variant);
        content.fetched_as = Some(variant);
        let mut info = SwarmInfo::new(id, &manifest, variant);
        let bytes: u64 = info.pieces.iter().map(|p| u64::from(p.len)).sum();
        let text = format!("{}: {bytes} bytes, {variant:?}", content.title);
        self.event("fetch_begun", text.to_lowercase());
        info.partials = opened.packs;
        self.join(swarm, info, false);
    }

    /// The planner says that every piece is here.
    pub(super) fn on_swarm_complete(&mut self, swarm: SwarmId) {
        let Some(info) = self.swarms.get_mut(&swarm) else { return };
        let (id, variant) = (info.manifest, info.variant);
        info.partials.clear();
        let fetching = self.contents.get(&id).filter(|c| c.stage == Stage::Fetching(variant));
        if let Some(text) = fetching.map(|c| format!("{}: {} bytes", c.title, c.fetched_bytes)) {
            self.event("fetched", text);
            self.unpack(id, variant);
        }
    }

    pub(super) fn unpack(&mut self, id: ManifestId, variant: Variant) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        content.stage = Stage::Unpacking(variant);
        let store = Arc::clone(&self.store);
        self.workers.slow(move || {
            let result = store
                .unpack(&manifest, variant, &|_bytes| {})
                .map_err(|e| e.to_string())
                .and_then(|report| {
                    store.put_tree(&manifest.tree).map_err(|e| e.to_string())?;
                    Ok((report.files_written, report.files_shared))
                });
            Some(Done::Unpacked { id, variant, result })
        });
    }

    pub(super) fn on_unpacked(
        &mut self,
        id: ManifestId,
        variant: Variant,
        result: Result<(u64, u64), String>,
    ) {
        let now = self.clock.tick();
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.reservation = None;
        match result {
            Ok((written, shared)) => {
                content.stage = Stage::Whole;
                content.took_ms = content.began.map(|t| now.since(t));
                let text = format!("{}: {written} files written, {shared} shared", content.title);
                self.counters.add("contents", "whole");
                self.event("content_whole", text);
                match variant {
                    Variant::Delta => self.repack(id),
                    Variant::Full if self.is_keeper(id) => self.keep_packs(id),
                    Variant::Full => {}
                }
                self.forget_manifest(id);
                self.replan_soon();
            }
            Err(why) => {
                if variant == Variant::Delta {
                    content.delta_failed = true;
                    self.leave(SwarmId::for_variant(id, variant));
                }
                self.counters.add("contents", "unpack_failed");
                self.fail(id, &format!("unpacking failed: {why}"));
            }
        }
    }

    /// Is this one of the few hosts that keep the full packs, so that a newcomer finds them when
    /// the origin is gone?
    fn is_keeper(&self, id: ManifestId) -> bool {
        let Some(content) = self.contents.get(&id) else { return false };
        let (mut hosts, _) = self.candidates(&content.release);
        hosts.push(self.me);
        let weight = |n: &NodeId| {
            let mut input = id.as_bytes().to_vec();
            input.extend_from_slice(n.as_bytes());
            blake3::derive_key("stork 2026 keeper v1", &input)
        };
        hosts.sort_by_key(weight);
        hosts.iter().take(KEEPERS).any(|n| *n == self.me)
    }

    /// A keeper that fetched a delta makes the full packs from its files.
    fn repack(&self, id: ManifestId) {
        let manifest = self.contents.get(&id).and_then(|c| c.manifest.clone());
        let Some(manifest) = manifest.filter(|_| self.is_keeper(id)) else { return };
        let store = Arc::clone(&self.store);
        self.workers.slow(move || {
            let mut packs = 0..manifest.packing.packs.len();
            let whole = packs.all(|i| store.repack(&manifest, i).unwrap_or(false));
            Some(Done::Repacked { id, whole })
        });
    }

    pub(super) fn on_repacked(&mut self, id: ManifestId, whole: bool) {
        self.counters.add("repacks", if whole { "same" } else { "different" });
        if whole {
            // With its packs whole it is kept and served from now on.
            if let Some(content) = self.contents.get_mut(&id) {
                content.kept = true;
            }
            self.load_manifest(id);
        }
    }

    pub(super) fn fail(&mut self, id: ManifestId, why: &str) {
        let again = self.clock.tick().after_ms(RETRY_MS);
        let Some(content) = self.contents.get_mut(&id) else { return };
        let before = core::mem::replace(&mut content.stage, Stage::Failed(why.to_owned(), again));
        content.reservation = None;
        let text = format!("{}: {why}", content.title);
        if !matches!(before, Stage::Failed(ref old, _) if old == why) {
            self.event("content_failed", text);
        }
    }

    /// Tries failed contents again, and keeps the planner's candidates fresh.
    pub(super) fn retry_contents(&mut self) {
        let now = self.clock.tick();
        let mut again = Vec::new();
        let mut topics = Vec::new();
        for (id, c) in &self.contents {
            match &c.stage {
                Stage::Failed(_, at) if *at <= now && c.wanted => again.push(*id),
                Stage::Manifest => topics.push((Topic::Manifest(*id), c.release.clone())),
                Stage::Fetching(v) => {
                    let swarm = SwarmId::for_variant(*id, *v);
                    topics.push((Topic::Swarm(swarm), c.release.clone()));
                }
                _ => {}
            }
        }
        for (topic, release) in topics {
            let members = match topic {
                // A manifest is small: it comes from wherever it is.
                Topic::Manifest(_) => {
                    let (interested, origins) = self.candidates(&release);
                    Members { interested, origins, ..Members::default() }
                }
                Topic::Swarm(_) => self.members(&release),
            };
            self.planner_input(Input::Roster { topic, members });
        }
        for id in again {
            self.advance(id);
        }
    }
}

fn open_packs(
    store: &Arc<crate::store::Store>,
    manifest: &Manifest,
    variant: Variant,
) -> Result<Opened, StoreError> {
    let packs = manifest.packing.packs(variant);
    let mut room = store.lacks(&manifest.tree)?;
    for pack in packs.iter().filter(|p| !store.has_pack(p.id)) {
        room.bytes = room.bytes.saturating_add(pack.size);
        room.files += 1;
    }
    let reservation = Some(store.reserve(room)?);
    let piece_len = manifest.packing.piece_len;
    let open =
        |p: &&stork_wire::manifest::Pack| store.open_partial(p.id, p.size, piece_len, &p.pieces);
    let packs = packs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    Ok(Opened { packs, reservation })
}

/// The stable word for a refused fetch.
const fn disk_code(e: &StoreError) -> &'static str {
    match e {
        StoreError::NoSpace { .. } => "no_space",
        StoreError::NoInodes { .. } => "no_inodes",
        StoreError::Latched { .. } => "read_only",
        _ => "disk",
    }
}
