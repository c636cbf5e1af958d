//! Content: each release that this host wants or serves, from its manifest to its files.
//!
//! wanted → manifest → packs opened → pieces (planner) → unpacked → whole. Every step is durable and
//! may be cut off; the next start goes on from what is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::ids::{ManifestId, NodeId, PackId, SwarmId};
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::tick::Tick;

use super::Driver;
use super::leases::CONTENT;
use super::workers::{Done, Opened};
use crate::catalog::KnownRelease;
use crate::store::{Hold, LeaseSet, PartialPack, Reservation, StoreError};
use crate::transfer::{Input, Join, PieceSet, Role, Topic};

/// Milliseconds after which a content that failed is tried again.
const RETRY_MS: u64 = 10_000;
/// Hosts that keep the full packs of a release which they fetched as a delta (design §8: R = 3).
const KEEPERS: usize = 3;

/// How far a content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Known, and nothing is done about it.
    Idle,
    /// Its manifest is looked for.
    Manifest,
    /// Its partial packs are being opened.
    Opening(Variant),
    /// Its pieces come.
    Fetching(Variant),
    /// Its files are being written.
    Unpacking(Variant),
    /// Every file is in the store.
    Whole,
    /// It could not be had; tried again at that time.
    Failed(String, Tick),
}

/// One release's content on this host.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) title: String,
    pub(super) release: Release,
    pub(super) manifest: Option<Arc<Manifest>>,
    pub(super) stage: Stage,
    pub(super) wanted: bool,
    /// A publisher pushed it here: this host is where others turn last.
    pub(super) origin: bool,
    pub(super) fetched_bytes: u64,
    pub(super) fetched_as: Option<Variant>,
    pub(super) began: Option<Tick>,
    pub(super) took_ms: Option<u64>,
    delta_failed: bool,
    reservation: Option<Reservation>,
    hold: Option<Hold>,
}

/// Where a piece of a swarm lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct PieceAt {
    pub(super) pack: PackId,
    pub(super) pack_number: usize,
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// What the shell must know of a swarm.
#[derive(Debug)]
pub(super) struct SwarmInfo {
    pub(super) manifest: ManifestId,
    pub(super) variant: Variant,
    pub(super) pieces: Vec<PieceAt>,
    /// Open partial packs; empty for what is whole.
    pub(super) partials: Vec<Arc<PartialPack>>,
}

impl SwarmInfo {
    fn new(id: ManifestId, manifest: &Manifest, variant: Variant) -> Self {
        let piece_len = manifest.packing.piece_len;
        let mut pieces = Vec::new();
        for (pack_number, pack) in manifest.packing.packs(variant).into_iter().enumerate() {
            for (index, _) in (0u32..).zip(pack.pieces.iter()) {
                let offset = u64::from(index) * u64::from(piece_len);
                let left = pack.size.saturating_sub(offset);
                let len = u32::try_from(left).unwrap_or(u32::MAX).min(piece_len);
                pieces.push(PieceAt { pack: pack.id, pack_number, index, offset, len });
            }
        }
        Self { manifest: id, variant, pieces, partials: Vec::new() }
    }
}

impl Driver {
    /// A release was announced: if it was pushed to this host, it is served from now on.
    pub(super) fn on_entry(&mut self, entry: &Entry) {
        if let Kind::Release(r) = &entry.kind {
            let text = format!("{} {} by {}", r.package, r.version, entry.publisher.short());
            self.event("announced", text);
            if r.origins.contains(&self.me) {
                self.serve(r);
            }
        }
    }

    /// At the start: everything that is on disk is served, or gone on with.
    pub(super) fn resume_contents(&mut self) {
        let all: Vec<Release> = self.catalog.all().map(|k| k.release.clone()).collect();
        for release in all {
            if self.store.manifest(release.manifest.id).ok().flatten().is_some() {
                self.serve(&release);
            }
        }
    }

    fn serve(&mut self, release: &Release) {
        let id = release.manifest.id;
        let origin = release.origins.contains(&self.me);
        let content = self.content(release);
        content.origin = origin;
        if content.manifest.is_none() {
            self.load_manifest(id);
        }
    }

    fn content(&mut self, release: &Release) -> &mut Content {
        self.contents.entry(release.manifest.id).or_insert_with(|| Content {
            title: format!("{} {}", release.package, release.version),
            release: release.clone(),
            manifest: None,
            stage: Stage::Idle,
            wanted: false,
            origin: false,
            fetched_bytes: 0,
            fetched_as: None,
            began: None,
            took_ms: None,
            delta_failed: false,
            reservation: None,
            hold: None,
        })
    }

    /// Is every file of the release here?
    pub(super) fn is_whole(&self, release: &Release) -> bool {
        self.contents.get(&release.manifest.id).is_some_and(|c| c.stage == Stage::Whole)
    }

    /// These releases are wanted by some VM; others are no longer fetched.
    pub(super) fn want(&mut self, wanted: &[KnownRelease]) {
        let ids: BTreeSet<ManifestId> = wanted.iter().map(|k| k.release.manifest.id).collect();
        let (mut dropped, mut released) = (Vec::new(), Vec::new());
        for (id, c) in &mut self.contents {
            if c.wanted && !ids.contains(id) {
                c.wanted = false;
                c.hold = None;
                released.push(*id);
                if !matches!(c.stage, Stage::Whole | Stage::Unpacking(_)) {
                    dropped.push((*id, c.stage.clone()));
                    c.stage = Stage::Idle;
                    c.reservation = None;
                }
            }
        }
        for (id, stage) in dropped {
            match stage {
                Stage::Fetching(v) => self.leave(SwarmId::for_variant(id, v)),
                _ => self.planner_input(Input::DropManifest { manifest: id }),
            }
        }
        for id in released {
            self.release_content(id);
        }
        for k in wanted {
            let content = self.content(&k.release);
            if !content.wanted {
                content.wanted = true;
                if content.stage == Stage::Whole {
                    // A collection may have taken it while nobody wanted it: it is looked for anew.
                    content.stage = Stage::Idle;
                }
                self.advance(k.release.manifest.id);
            }
        }
    }

    pub(super) fn leave(&mut self, swarm: SwarmId) {
        self.planner_input(Input::Leave { swarm });
        self.swarms.remove(&swarm);
    }

    /// Takes the next step towards a whole content.
    fn advance(&mut self, id: ManifestId) {
        let now = self.clock.tick();
        let Some(content) = self.contents.get_mut(&id) else { return };
        if !content.wanted || !matches!(content.stage, Stage::Idle | Stage::Failed(..)) {
            return;
        }
        match self.store.tree_complete(content.release.tree) {
            Ok(true) => {
                content.stage = Stage::Whole;
                return self.load_manifest_if_missing(id);
            }
            Ok(false) => {}
            Err(e) => return self.fail(id, &e.to_string()),
        }
        content.began.get_or_insert(now);
        if content.hold.is_none() {
            content.hold = Some(self.store.hold());
        }
        if content.manifest.is_some() {
            return self.open(id);
        }
        content.stage = Stage::Manifest;
        self.load_manifest(id);
    }

    fn load_manifest_if_missing(&mut self, id: ManifestId) {
        if self.contents.get(&id).is_some_and(|c| c.manifest.is_none()) {
            self.load_manifest(id);
        } else {
            self.replan_soon();
        }
    }

    /// Looks for the manifest on disk; what comes of it is [`Driver::on_manifest`].
    fn load_manifest(&self, id: ManifestId) {
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            let result = match store.manifest_decoded(id) {
                Ok(Some(m)) => Ok(Arc::new(m)),
                Ok(None) => Err(String::new()),
                Err(e) => Err(e.to_string()),
            };
            Some(Done::Manifest { id, from: None, result })
        });
    }

    /// Who else wants a release, and who has it from the publisher.
    fn candidates(&self, release: &Release) -> (Vec<NodeId>, Vec<NodeId>) {
        let interested = self.overlay.interested(&release.groups);
        let interested = interested.into_iter().map(|p| p.node).filter(|n| *n != self.me).collect();
        let origins = release.origins.iter().copied().filter(|n| *n != self.me).collect();
        (interested, origins)
    }

    /// A manifest was read from disk (`from` is none) or came from a peer, or neither.
    pub(super) fn on_manifest(
        &mut self,
        id: ManifestId,
        from: Option<NodeId>,
        result: Result<Arc<Manifest>, String>,
    ) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        match result {
            Ok(manifest) => {
                if let Err(why) = fits(&manifest, &content.release) {
                    // Hash and size are what the publisher signed, so this is the publisher's fault.
                    return self.fail(id, &format!("the manifest contradicts its announcement: {why}"));
                }
                let kept = content.origin.then(|| Arc::clone(&manifest));
                content.manifest = Some(manifest);
                if matches!(content.stage, Stage::Manifest) {
                    content.stage = Stage::Idle;
                }
                if let Some(manifest) = kept {
                    self.keep_packs(id, &manifest);
                }
                if let Some(from) = from {
                    self.planner_input(Input::ManifestArrived { manifest: id, from });
                }
                self.planner_input(Input::HaveManifest { manifest: id });
                self.seed(id);
                self.advance(id);
                self.replan_soon();
            }
            Err(why) => {
                if let Some(from) = from {
                    let fault = crate::transfer::Fault::Bad;
                    tracing::warn!(peer = %from.short(), "manifest refused: {why}");
                    return self.planner_input(Input::ManifestFailed { manifest: id, from, fault });
                }
                if content.wanted && matches!(content.stage, Stage::Manifest | Stage::Whole) {
                    let urgency = content.release.urgency;
                    let release = content.release.clone();
                    let (interested, origins) = self.candidates(&release);
                    let manifest = id;
                    let want = Input::WantManifest { manifest, interested, origins, urgency };
                    self.planner_input(want);
                }
            }
        }
    }

    /// Serves the variants whose packs are whole on this host.
    fn seed(&mut self, id: ManifestId) {
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

    fn join(&mut self, swarm: SwarmId, info: SwarmInfo, whole: bool) {
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
        let (interested, origins) = self.candidates(&content.release);
        let (urgency, manifest) = (content.release.urgency, info.manifest);
        self.swarms.insert(swarm, info);
        let join = Join { swarm, manifest, lens, have, urgency, role, interested, origins };
        self.planner_input(Input::Join(Box::new(join)));
    }

    /// Opens the partial packs of the better variant.
    fn open(&mut self, id: ManifestId) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        let base = manifest.packing.delta.as_ref().map(|d| d.base);
        let has_base = base.is_some_and(|b| self.store.tree_complete(b).unwrap_or(false));
        let full_here = manifest.packing.packs.iter().all(|p| self.store.has_pack(p.id));
        let delta = has_base && !content.delta_failed && !full_here;
        let variant = if delta { Variant::Delta } else { Variant::Full };
        content.stage = Stage::Opening(variant);
        let store = Arc::clone(&self.store);
        let unpacked = content.release.unpacked_bytes;
        let tree = content.release.tree;
        self.workers.disk(move || {
            let result = open_packs(&store, &manifest, variant, unpacked)
                .and_then(|opened| lease(&store, id, &manifest, tree).map(|()| opened));
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
        info.partials = opened.packs;
        self.join(swarm, info, false);
    }

    /// The planner says that every piece is here.
    pub(super) fn on_swarm_complete(&mut self, swarm: SwarmId) {
        let Some(info) = self.swarms.get_mut(&swarm) else { return };
        let (id, variant) = (info.manifest, info.variant);
        info.partials.clear();
        if self.contents.get(&id).is_some_and(|c| c.stage == Stage::Fetching(variant)) {
            self.unpack(id, variant);
        }
    }

    fn unpack(&mut self, id: ManifestId, variant: Variant) {
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
                    Variant::Full => self.keep_if_keeper(id),
                }
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

    /// Is this one of the few hosts that keep the full packs, so that a newcomer finds them when the
    /// origin is gone?
    fn is_keeper(&self, id: ManifestId, release: &Release) -> bool {
        let (mut hosts, _) = self.candidates(release);
        hosts.push(self.me);
        let weight = |n: &NodeId| {
            let mut input = id.as_bytes().to_vec();
            input.extend_from_slice(n.as_bytes());
            blake3::derive_key("stork 2026 keeper v1", &input)
        };
        hosts.sort_by_key(weight);
        hosts.iter().take(KEEPERS).any(|n| *n == self.me)
    }

    fn keep_if_keeper(&self, id: ManifestId) {
        let Some(content) = self.contents.get(&id) else { return };
        if let Some(manifest) = &content.manifest
            && self.is_keeper(id, &content.release)
        {
            self.keep_packs(id, manifest);
        }
    }

    /// A keeper that fetched a delta makes the full packs from its files.
    fn repack(&self, id: ManifestId) {
        let Some(content) = self.contents.get(&id) else { return };
        let Some(manifest) = content.manifest.clone() else { return };
        if !self.is_keeper(id, &content.release) {
            return;
        }
        let store = Arc::clone(&self.store);
        self.workers.slow(move || {
            let packs = 0..manifest.packing.packs.len();
            let whole = packs.fold(true, |ok, i| store.repack(&manifest, i).unwrap_or(false) && ok);
            Some(Done::Repacked { id, whole })
        });
    }

    pub(super) fn on_repacked(&mut self, id: ManifestId, whole: bool) {
        self.counters.add("repacks", if whole { "same" } else { "different" });
        if whole {
            self.keep_if_keeper(id);
            self.seed(id);
        }
    }

    fn fail(&mut self, id: ManifestId, why: &str) {
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
            let (interested, origins) = self.candidates(&release);
            self.planner_input(Input::Roster { topic, interested, origins });
        }
        for id in again {
            self.advance(id);
        }
    }

    /// Damaged files were taken out of the store: what they belonged to is fetched and shown again.
    pub(super) fn look_again(&mut self) {
        self.forget_lost_packs();
        for c in self.contents.values_mut() {
            let whole = self.store.tree_complete(c.release.tree).unwrap_or(true);
            if c.stage == Stage::Whole && !whole {
                c.stage = Stage::Idle;
                c.wanted = false;
            }
        }
        for vm in self.vms.values_mut() {
            let gone = |set| matches!(self.store.set_info(set), Ok(None));
            if vm.current.as_ref().is_some_and(|g| gone(g.set)) {
                vm.current = None;
            }
        }
        self.replan_soon();
    }

    /// What is half fetched is made durable, so that the next start goes on from here.
    pub(super) fn save_on_exit(&self) {
        for partial in self.swarms.values().flat_map(|s| &s.partials) {
            if let Err(e) = partial.flush() {
                tracing::warn!("a partial pack is not saved: {e}");
            }
        }
    }

    /// Content of a VM's current view: it needs no protection of its own any more.
    pub(super) fn release_hold(&mut self, id: ManifestId) {
        if let Some(content) = self.contents.get_mut(&id)
            && content.hold.take().is_some()
        {
            self.release_content(id);
        }
    }
}

fn open_packs(
    store: &Arc<crate::store::Store>,
    manifest: &Manifest,
    variant: Variant,
    unpacked: u64,
) -> Result<Opened, StoreError> {
    let packs = manifest.packing.packs(variant);
    let missing: u64 = packs.iter().filter(|p| !store.has_pack(p.id)).map(|p| p.size).sum();
    let reservation = Some(store.reserve(missing.saturating_add(unpacked))?);
    let piece_len = manifest.packing.piece_len;
    let open = |p: &&stork_wire::manifest::Pack| {
        store.open_partial(p.id, p.size, piece_len, &p.pieces)
    };
    let packs = packs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    Ok(Opened { packs, reservation })
}

/// Protects what is being fetched from the collector, across restarts.
fn lease(
    store: &crate::store::Store,
    id: ManifestId,
    manifest: &Manifest,
    tree: stork_wire::ids::TreeId,
) -> Result<(), StoreError> {
    let base = manifest.packing.delta.as_ref().map(|d| d.base);
    let what = LeaseSet {
        manifests: [id].into(),
        trees: base.into_iter().chain([tree]).collect(),
        ..LeaseSet::default()
    };
    store.lease(&format!("{CONTENT}{id}"), &what)
}

/// Does the manifest say what the announcement said?
fn fits(m: &Manifest, r: &Release) -> Result<(), &'static str> {
    if m.tree.id() != r.tree {
        return Err("another tree");
    }
    if m.packing.bytes(Variant::Full) != r.full_bytes {
        return Err("more or fewer bytes to fetch");
    }
    let delta = m.packing.delta.as_ref().map(|d| (d.base, m.packing.bytes(Variant::Delta)));
    if delta != r.delta.map(|d| (d.base, d.bytes)) {
        return Err("another delta");
    }
    if m.tree.entries.len() != r.files as usize {
        return Err("more or fewer files");
    }
    if m.tree.payload_len() > r.unpacked_bytes {
        return Err("more bytes once unpacked");
    }
    Ok(())
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
