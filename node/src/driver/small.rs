//! Small contents in one answer: sent from the store, or checked and kept there. When to ask whom
//! is the planner's matter (`transfer/small.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use stork_wire::codec::Blob;
use stork_wire::feed::Release;
use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId, PackId, SwarmId};
use stork_wire::limits::SMALL_LEN_MAX;
use stork_wire::manifest::{Manifest, Variant};

use super::Driver;
use super::content::fits;
use super::gauges::Went;
use super::workers::{Done, ManifestFault};
use crate::net::Priority;
use crate::store::{Room, Store, StoreError};
use crate::transfer::{Input, Small, Why};

/// Announcements whose tellers are remembered until somebody here wants them.
const TELLERS_MAX: usize = 256;

/// Who told of the last few releases.
#[derive(Debug, Default)]
pub(super) struct Tellers(VecDeque<(ManifestId, NodeId)>);

impl Tellers {
    pub(super) fn told(&mut self, manifest: ManifestId, by: NodeId) {
        if self.0.len() >= TELLERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((manifest, by));
    }

    fn of(&self, manifest: ManifestId) -> Option<NodeId> {
        self.0.iter().rev().find(|(m, _)| *m == manifest).map(|(_, by)| *by)
    }
}

/// What became of the packs of an answer.
#[derive(Debug)]
pub(super) enum Packs {
    /// They are on disk.
    Kept,
    /// They are not what the manifest says.
    Bad,
    /// This host could not keep them; they come in pieces, and that says what is wrong.
    NotKept,
}

/// What came of work on the disk for a small content.
#[derive(Debug)]
pub(super) enum SmallDone {
    /// An answer was read.
    Out { to: NodeId, id: ManifestId, swarm: SwarmId, bytes: Vec<u8> },
    /// An answer was checked.
    In {
        from: NodeId,
        id: ManifestId,
        variant: Variant,
        result: Result<(Arc<Manifest>, Packs), ManifestFault>,
    },
}

impl Driver {
    /// Looks for a manifest, and for all of the content at once if it is small.
    pub(super) fn want_manifest(&mut self, id: ManifestId) {
        let Some(content) = self.contents.get(&id) else { return };
        let (release, delta_failed) = (content.release.clone(), content.delta_failed);
        let base = release.delta.filter(|_| !delta_failed);
        let base = base.filter(|d| self.store.tree_complete(d.base).unwrap_or(false));
        let (variant, bytes) = match base {
            Some(delta) => (Variant::Delta, delta.bytes),
            None => (Variant::Full, release.full_bytes),
        };
        let (size, urgency) = (release.manifest.size, release.urgency);
        let len = size.saturating_add(bytes);
        let swarm = SwarmId::for_variant(id, variant);
        let small = (bytes > 0).then(|| Small { swarm, len, teller: self.tellers.of(id) });
        let (interested, origins) = self.candidates(&release);
        let want = Input::WantManifest { manifest: id, interested, origins, urgency, size, small };
        self.planner_input(want);
    }

    /// Reads the manifest and the packs of a variant for somebody.
    pub(super) fn send_small(&self, to: NodeId, id: ManifestId, swarm: SwarmId) {
        let Some(info) = self.swarms.get(&swarm) else { return };
        // Whether it may have it was not known yet where it had to wait for it.
        let asked = TransferFrame::GetSmall { manifest: id, swarm };
        let scope = self.connections.get(&to).and_then(|l| l.scope.as_deref());
        if self.is_hidden_from(scope, &asked) {
            return;
        }
        let first = info.pieces.iter().filter(|p| p.index == 0);
        let packs: Vec<(PackId, u64)> = first.map(|p| (p.pack, p.pack_size)).collect();
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            let bytes = read(&store, id, &packs)?;
            Some(Done::Small(SmallDone::Out { to, id, swarm, bytes }))
        });
    }

    /// Checks and keeps an answer.
    pub(super) fn take_small(&self, from: NodeId, id: ManifestId, swarm: SwarmId, bytes: Vec<u8>) {
        let Some(content) = self.contents.get(&id) else { return };
        let (store, release) = (Arc::clone(&self.store), content.release.clone());
        let delta = swarm == SwarmId::for_variant(id, Variant::Delta);
        let variant = if delta { Variant::Delta } else { Variant::Full };
        self.workers.disk(move || {
            let result = keep(&store, &release, variant, &bytes);
            Some(Done::Small(SmallDone::In { from, id, variant, result }))
        });
    }

    pub(super) fn on_small(&mut self, done: SmallDone) {
        match done {
            SmallDone::Out { to, id, swarm, bytes } => {
                let len = bytes.len() as u64;
                let Ok(bytes) = Blob::new(bytes) else { return };
                self.counters.add("small_contents", "served");
                self.counters.add_many("bytes_served", "small", len);
                self.count_by_site(to, Went::Out, u32::try_from(len).unwrap_or(u32::MAX));
                let frame = TransferFrame::Small { manifest: id, swarm, bytes };
                // What does not fit is shed: who waits for it turns to others.
                self.send_content(to, Priority::Lazy, frame);
            }
            SmallDone::In { from, id, variant, result } => {
                let result = result.map(|(manifest, packs)| {
                    self.on_small_packs(from, id, (variant, &manifest), &packs);
                    manifest
                });
                self.on_manifest(id, Some(from), result);
            }
        }
    }

    fn on_small_packs(
        &mut self,
        from: NodeId,
        id: ManifestId,
        (variant, manifest): (Variant, &Manifest),
        packs: &Packs,
    ) {
        match packs {
            Packs::Kept => {
                let len = manifest.packing.bytes(variant);
                self.counters.add("small_contents", "fetched");
                self.counters.add_many("bytes_fetched", "verified", len);
                self.count_by_site(from, Went::In, u32::try_from(len).unwrap_or(u32::MAX));
                let Some(content) = self.contents.get_mut(&id) else { return };
                content.fetched_as = Some(variant);
                content.fetched_bytes += len;
                let text = format!("{}: {len} bytes with its manifest", content.title);
                self.event("fetched", text);
            }
            Packs::Bad => {
                self.counters.add("small_contents", "bad");
                self.blame(from, Why::BadPiece);
            }
            Packs::NotKept => self.counters.add("small_contents", "not_kept"),
        }
    }
}

/// The manifest and the packs, if together they are small.
fn read(store: &Store, id: ManifestId, packs: &[(PackId, u64)]) -> Option<Vec<u8>> {
    let mut bytes = store.manifest(id).ok().flatten()?;
    for (pack, size) in packs {
        let len = usize::try_from(*size).ok()?;
        if bytes.len().saturating_add(len) > SMALL_LEN_MAX {
            return None;
        }
        bytes.extend(store.read_pack(*pack, 0, len).ok()?);
    }
    Some(bytes)
}

/// Keeps the manifest and the packs, each checked against what names it.
fn keep(
    store: &Arc<Store>,
    release: &Release,
    variant: Variant,
    bytes: &[u8],
) -> Result<(Arc<Manifest>, Packs), ManifestFault> {
    let at = usize::try_from(release.manifest.size).unwrap_or(usize::MAX);
    let short = || ManifestFault::Bad("shorter than the manifest".to_owned());
    let (head, rest) = bytes.split_at_checked(at).ok_or_else(short)?;
    store.put_manifest(&release.manifest, head)?;
    let manifest = Manifest::from_bytes(head).map_err(|e| ManifestFault::Bad(e.to_string()))?;
    let packs = match fits(&manifest, release).is_ok() {
        true => keep_packs(store, &manifest, variant, rest),
        // The publisher's fault, which is told where manifests are.
        false => Packs::NotKept,
    };
    Ok((Arc::new(manifest), packs))
}

fn keep_packs(store: &Arc<Store>, manifest: &Manifest, variant: Variant, bytes: &[u8]) -> Packs {
    match write_packs(store, manifest, variant, bytes) {
        Ok(()) => Packs::Kept,
        Err(StoreError::BadPiece { .. }) => Packs::Bad,
        Err(e) => {
            tracing::warn!("the packs of a small content are not kept: {e}");
            Packs::NotKept
        }
    }
}

fn write_packs(
    store: &Arc<Store>,
    manifest: &Manifest,
    variant: Variant,
    mut bytes: &[u8],
) -> Result<(), StoreError> {
    let packs = manifest.packing.packs(variant);
    let lacking = packs.iter().filter(|p| !store.has_pack(p.id));
    let room = Room { bytes: lacking.clone().map(|p| p.size).sum(), files: lacking.count() as u64 };
    let _room = store.reserve(room)?;
    let piece_len = manifest.packing.piece_len;
    for pack in packs {
        let partial = store.open_partial(pack.id, pack.size, piece_len, &pack.pieces)?;
        for (index, _) in (0u32..).zip(pack.pieces.iter()) {
            let left = pack.size.saturating_sub(u64::from(index) * u64::from(piece_len));
            let len = usize::try_from(left.min(u64::from(piece_len))).unwrap_or(usize::MAX);
            let bad = StoreError::BadPiece { pack: pack.id, index };
            let (piece, rest) = bytes.split_at_checked(len).ok_or(bad)?;
            partial.write_piece(index, piece)?;
            bytes = rest;
        }
    }
    Ok(())
}
