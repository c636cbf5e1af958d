//! Content: each release that this host wants or serves, from its manifest to its files.
//!
//! wanted → manifest → packs opened → pieces (planner) → unpacked → whole. Every step is durable
//! and may be cut off; the next start goes on from what is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::ids::{ManifestId, NodeId, PackId, PublisherId, SwarmId};
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::tick::Tick;

use super::{Driver, leases};
use crate::catalog::KnownRelease;
use crate::store::{Hold, PartialPack, Reservation};
use crate::transfer::Input;

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
    /// Who announced it; known once somebody wants it.
    pub(super) publisher: Option<PublisherId>,
    pub(super) manifest: Option<Arc<Manifest>>,
    pub(super) stage: Stage,
    pub(super) wanted: bool,
    /// A publisher pushed it here: this host is where others turn last.
    pub(super) origin: bool,
    /// Its packs are kept for others whatever the seed budget says.
    pub(super) kept: bool,
    pub(super) fetched_bytes: u64,
    pub(super) fetched_as: Option<Variant>,
    pub(super) began: Option<Tick>,
    pub(super) took_ms: Option<u64>,
    pub(super) delta_failed: bool,
    pub(super) reservation: Option<Reservation>,
    pub(super) hold: Option<Hold>,
}

/// Where a piece of a swarm lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct PieceAt {
    pub(super) pack: PackId,
    pub(super) pack_number: usize,
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) pack_size: u64,
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
    pub(super) fn new(id: ManifestId, manifest: &Manifest, variant: Variant) -> Self {
        let piece_len = manifest.packing.piece_len;
        let mut pieces = Vec::new();
        for (pack_number, pack) in manifest.packing.packs(variant).into_iter().enumerate() {
            for (index, _) in (0u32..).zip(pack.pieces.iter()) {
                let offset = u64::from(index) * u64::from(piece_len);
                let left = pack.size.saturating_sub(offset);
                let len = u32::try_from(left).unwrap_or(u32::MAX).min(piece_len);
                let (pack, pack_size) = (pack.id, pack.size);
                pieces.push(PieceAt { pack, pack_number, index, offset, len, pack_size });
            }
        }
        Self { manifest: id, variant, pieces, partials: Vec::new() }
    }
}

impl Driver {
    /// A release was announced: if it was pushed to this host, it is served from now on.
    pub(super) fn on_entry(&mut self, entry: &Entry, teller: Option<NodeId>) {
        self.note_unread(entry);
        if let Some(r) = entry.release() {
            if let Some(by) = teller {
                self.tellers.told(r.manifest.id, by);
            }
            let text = format!("{} {} by {}", r.package, r.version, entry.publisher.short());
            self.event("announced", text);
            if r.origins.contains(&self.me) {
                self.serve(r);
            }
        }
        if let Kind::Retire(r) = &entry.kind {
            self.on_retire(entry, r.releases.len());
        }
        if let Kind::Recall(r) = &entry.kind {
            let which: Vec<String> = r.releases.iter().map(u64::to_string).collect();
            let (which, by) = (which.join(", "), entry.publisher.short());
            self.event(
                "recalled",
                format!("{}, releases {which} by {by}: {}", r.package, r.reason),
            );
        }
    }

    /// At the start: everything that is on disk is served, or gone on with.
    pub(super) fn resume_contents(&mut self) {
        let kept = leases::kept(&self.store).unwrap_or_default();
        let all: Vec<Release> = self.catalog.all().map(|k| k.release.clone()).collect();
        for release in all {
            let id = release.manifest.id;
            if self.store.manifest(id).ok().flatten().is_some() {
                self.content(&release).kept = kept.contains(&id);
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
            publisher: None,
            manifest: None,
            stage: Stage::Idle,
            wanted: false,
            origin: false,
            kept: false,
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
        let mut dropped = Vec::new();
        for (id, c) in &mut self.contents {
            if c.wanted && !ids.contains(id) {
                c.wanted = false;
                if !matches!(c.stage, Stage::Whole | Stage::Unpacking(_)) {
                    dropped.push((*id, c.stage.clone()));
                    c.stage = Stage::Idle;
                    c.reservation = None;
                    c.hold = None;
                }
            }
        }
        for (id, stage) in dropped {
            match stage {
                Stage::Fetching(v) => self.leave(SwarmId::for_variant(id, v)),
                _ => self.planner_input(Input::DropManifest { manifest: id }),
            }
        }
        for k in wanted {
            let content = self.content(&k.release);
            content.publisher = Some(k.publisher);
            if !content.wanted {
                content.wanted = true;
                if content.stage == Stage::Whole {
                    // A collection may have taken it while nobody wanted it: look anew.
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
    pub(super) fn advance(&mut self, id: ManifestId) {
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
        if let Some(why) = self.over_quota(id) {
            self.counters.add("fetches_refused", "over_quota");
            return self.fail(id, &why);
        }
        let Some(content) = self.contents.get_mut(&id) else { return };
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

    /// Who else wants a release, and who has it from the publisher.
    pub(super) fn candidates(&self, release: &Release) -> (Vec<NodeId>, Vec<NodeId>) {
        let interested = self.overlay.interested(&release.groups);
        let interested = interested.into_iter().map(|p| p.node).filter(|n| *n != self.me).collect();
        let origins = release.origins.iter().copied().filter(|n| *n != self.me).collect();
        (interested, origins)
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
        self.save_floor();
        for partial in self.swarms.values().flat_map(|s| &s.partials) {
            if let Err(e) = partial.flush() {
                tracing::warn!("a partial pack is not saved: {e}");
            }
        }
    }

    /// Content of a VM's current view: it needs no protection of its own any more.
    pub(super) fn release_hold(&mut self, id: ManifestId) {
        if let Some(content) = self.contents.get_mut(&id) {
            content.hold = None;
        }
    }
}

/// Does the manifest say what the announcement said?
pub(super) fn fits(m: &Manifest, r: &Release) -> Result<(), &'static str> {
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
