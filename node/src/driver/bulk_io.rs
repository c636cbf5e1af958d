//! Between the planner and the bytes: pieces and manifests in and out.

use std::sync::Arc;

use stork_wire::frame::{BulkHeader, LinkClass};
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::limits::MANIFEST_PIECE_LEN;
use stork_wire::manifest::{Manifest, manifest_pieces};

use super::Driver;
use super::gauges::Went;
use super::origin::What;
use super::workers::{Done, ManifestFault, PieceFault};
use crate::net::{BulkIn, BulkPiece, ExpectKey, Priority};
use crate::store::StoreError;
use crate::transfer::{Action, Event, Fault, Input, ORIGIN_STORE, Why};

impl Driver {
    /// Gives the planner an input, and does what it asks for.
    pub(super) fn planner_input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.planner.handle(self.clock.tick(), input, &mut actions);
        for action in actions {
            self.planner_action(action);
        }
    }

    fn planner_action(&mut self, action: Action) {
        match action {
            Action::Send { to, frame } => {
                if let Some(link) = self.connections.get_mut(&to) {
                    link.content_at = self.clock.tick();
                }
                self.send_content(to, Priority::Control, frame);
            }
            Action::Connect { node } => {
                if !self.connections.contains_key(&node)
                    && let Some(peer) = self.known_host(node)
                {
                    self.dial(&peer, LinkClass::Transient, false);
                }
            }
            Action::SendManifest { to, manifest } => self.send_manifest(to, manifest),
            Action::SendSmall { to, manifest, swarm } => self.send_small(to, manifest, swarm),
            Action::TakeSmall { from, manifest, swarm, bytes } => {
                self.take_small(from, manifest, swarm, bytes);
            }
            Action::SendPiece { to, swarm, piece } => self.send_piece(to, swarm, piece),
            Action::StopPiece { to, swarm, piece } => {
                if let Some(task) = self.sending.remove(&(to, swarm, piece)) {
                    task.abort();
                    self.planner_input(Input::PieceSendFailed { swarm, piece, to });
                }
            }
            Action::Expect { from, swarm, piece } => {
                let at = self.swarms.get(&swarm).and_then(|s| s.pieces.get(piece as usize));
                if let Some(at) = at {
                    let key = ExpectKey::Piece(from, swarm, piece);
                    self.net.bulk().expect(key, u64::from(at.len), None);
                }
            }
            Action::FetchPiece { swarm, piece } => {
                self.fetch_from_origin(What::Piece(swarm, piece));
            }
            Action::FetchManifest { manifest } => {
                self.fetch_from_origin(What::Manifest(manifest));
            }
            Action::Unexpect { from: ORIGIN_STORE, swarm, piece } => {
                self.forget_fetch(What::Piece(swarm, piece));
            }
            Action::UnexpectManifest { from: ORIGIN_STORE, manifest } => {
                self.forget_fetch(What::Manifest(manifest));
            }
            Action::Unexpect { from, swarm, piece } => {
                self.net.bulk().forget(&ExpectKey::Piece(from, swarm, piece));
            }
            Action::ExpectManifest { from, manifest } => {
                if let Some(content) = self.contents.get(&manifest) {
                    let m = content.release.manifest;
                    let key = ExpectKey::Manifest(from, manifest);
                    self.net.bulk().expect(key, m.size, Some(m.pieces));
                }
            }
            Action::UnexpectManifest { from, manifest } => {
                self.net.bulk().forget(&ExpectKey::Manifest(from, manifest));
            }
            Action::Complete { swarm } => self.on_swarm_complete(swarm),
            Action::Blame { node, why } => self.blame(node, why),
            Action::Event(event) => self.planner_event(event),
        }
    }

    pub(super) fn blame(&mut self, node: NodeId, why: Why) {
        let (code, text) = match why {
            Why::BadPiece => ("bad_piece", "sent a piece that does not hash right"),
            Why::BadManifest => ("bad_manifest", "sent bytes that are not the manifest"),
            Why::FalseHave => ("false_have", "claims pieces that it does not deliver"),
            Why::Ungranted => ("ungranted", "asks for pieces that were not granted"),
            Why::Nonsense => ("nonsense", "contradicts the manifest"),
        };
        self.counters.add("peers_blamed", code);
        self.event("peer_blamed", format!("{} {text}", node.short()));
    }

    fn planner_event(&mut self, event: Event) {
        match event {
            Event::TooManySwarms(_) => self.counters.add("swarms", "too_many"),
            Event::BadJoin(_) => self.counters.add("swarms", "bad"),
            Event::TooManyManifests(_) => self.counters.add("manifests", "too_many"),
            Event::Stolen { .. } => self.counters.add("pieces", "stolen"),
            Event::Hungry { .. } => self.counters.add("swarms", "hungry"),
        }
    }

    /// What the bulk connections bring: checked and written off this thread.
    pub(super) fn on_bulk(&mut self, bulk: BulkIn) {
        match bulk {
            BulkIn::Piece { from, swarm, piece, bytes } => {
                self.write_piece(from, swarm, piece, bytes);
            }
            BulkIn::Manifest { from, manifest, bytes } => self.keep_manifest(from, manifest, bytes),
            BulkIn::Failed { key, why, bad } => {
                let fault = if bad { Fault::Bad } else { Fault::Stalled };
                self.counters.add("streams_failed", why);
                match key {
                    ExpectKey::Piece(from, swarm, piece) => {
                        self.planner_input(Input::PieceFailed { swarm, piece, from, fault });
                    }
                    ExpectKey::Manifest(from, manifest) => {
                        self.planner_input(Input::ManifestFailed { manifest, from, fault });
                    }
                }
            }
        }
    }

    pub(super) fn write_piece(&self, from: NodeId, swarm: SwarmId, piece: u32, bytes: Vec<u8>) {
        let Some(info) = self.swarms.get(&swarm) else { return };
        let Some(at) = info.pieces.get(piece as usize).copied() else { return };
        let Some(partial) = info.partials.get(at.pack_number).map(Arc::clone) else { return };
        self.workers.disk(move || {
            let result = match partial.write_piece(at.index, &bytes) {
                Ok(_) => Ok(()),
                Err(StoreError::BadPiece { .. }) => Err(PieceFault::Bad),
                Err(e) => Err(PieceFault::Disk(e)),
            };
            Some(Done::Piece { swarm, piece, from, result })
        });
    }

    pub(super) fn on_piece(
        &mut self,
        swarm: SwarmId,
        piece: u32,
        from: NodeId,
        result: Result<(), PieceFault>,
    ) {
        match result {
            Ok(()) => {
                let len = self.piece_len(swarm, piece);
                let manifest = self.swarms.get(&swarm).map(|s| s.manifest);
                if let Some(c) = manifest.and_then(|m| self.contents.get_mut(&m)) {
                    c.fetched_bytes += u64::from(len);
                }
                self.counters.add_many("bytes_fetched", "verified", u64::from(len));
                if from == ORIGIN_STORE {
                    self.origin_gave(u64::from(len));
                } else {
                    self.count_by_site(from, Went::In, len);
                }
                self.planner_input(Input::PieceArrived { swarm, piece, from });
            }
            Err(PieceFault::Bad) => {
                self.counters.add("pieces", "bad");
                if from == ORIGIN_STORE {
                    self.origin_lied(What::Piece(swarm, piece));
                }
                let fault = Fault::Bad;
                self.planner_input(Input::PieceFailed { swarm, piece, from, fault });
            }
            Err(PieceFault::Disk(e)) => {
                // Ours, and not the sender's: nobody is blamed, and nobody asked, until there is
                // room.
                self.counters.add("pieces", "disk");
                if let Some(id) = self.swarms.get(&swarm).map(|s| s.manifest) {
                    self.leave(swarm);
                    self.fail(id, &e.to_string());
                }
            }
        }
    }

    fn piece_len(&self, swarm: SwarmId, piece: u32) -> u32 {
        let at = self.swarms.get(&swarm).and_then(|s| s.pieces.get(piece as usize));
        at.map_or(0, |at| at.len)
    }

    pub(super) fn keep_manifest(&self, from: NodeId, id: ManifestId, bytes: Vec<u8>) {
        let Some(content) = self.contents.get(&id) else { return };
        let (store, reference) = (Arc::clone(&self.store), content.release.manifest);
        self.workers.disk(move || {
            let result = store.put_manifest(&reference, &bytes).map_err(ManifestFault::from);
            let result = result.and_then(|()| {
                let read = Manifest::from_bytes(&bytes).map(Arc::new);
                read.map_err(|e| ManifestFault::Bad(e.to_string()))
            });
            Some(Done::Manifest { id, from: Some(from), result })
        });
    }

    fn send_piece(&mut self, to: NodeId, swarm: SwarmId, piece: u32) {
        let at = self.swarms.get(&swarm).and_then(|s| s.pieces.get(piece as usize)).copied();
        let Some(at) = at else {
            return self.planner_input(Input::PieceSendFailed { swarm, piece, to });
        };
        let (store, bulk) = (Arc::clone(&self.store), Arc::clone(self.net.bulk()));
        let done = self.workers.done();
        let task = tokio::spawn(async move {
            let len = usize::try_from(at.len).unwrap_or(usize::MAX);
            let read = move || store.read_pack(at.pack, at.offset, len).map_err(|e| e.to_string());
            let bytes = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string());
            let result = match bytes.and_then(|r| r) {
                Ok(bytes) => {
                    let header = BulkHeader::Piece { swarm, piece, len: at.len };
                    let out = BulkPiece { header, prefix: Vec::new(), bytes };
                    bulk.send(to, out).await.map(|()| at.len)
                }
                Err(e) => Err(e),
            };
            drop(done.send(Done::PieceOut { swarm, piece, to, result }).await);
        });
        self.sending.insert((to, swarm, piece), task.abort_handle());
    }

    pub(super) fn on_piece_out(
        &mut self,
        swarm: SwarmId,
        piece: u32,
        to: NodeId,
        result: Result<u32, String>,
    ) {
        if self.sending.remove(&(to, swarm, piece)).is_none() {
            return;
        }
        match result {
            Ok(bytes) => {
                self.counters.add_many("bytes_served", "pieces", u64::from(bytes));
                self.count_by_site(to, Went::Out, bytes);
                self.planner_input(Input::PieceSent { swarm, piece, to, bytes });
            }
            Err(why) => {
                tracing::debug!(peer = %to.short(), piece, %why, "piece not sent");
                self.counters.add("pieces", "not_sent");
                self.planner_input(Input::PieceSendFailed { swarm, piece, to });
            }
        }
    }

    pub(super) fn on_manifest_out(&mut self, manifest: ManifestId, to: NodeId) {
        self.planner_input(Input::ManifestSent { manifest, to });
    }

    fn send_manifest(&self, to: NodeId, id: ManifestId) {
        let (store, bulk) = (Arc::clone(&self.store), Arc::clone(self.net.bulk()));
        let done = self.workers.done();
        tokio::spawn(async move {
            let read = move || store.manifest(id).ok().flatten();
            if let Ok(Some(bytes)) = tokio::task::spawn_blocking(read).await {
                let len = bytes.len() as u64;
                let header = BulkHeader::Manifest { manifest: id, len };
                let prefix =
                    if len > MANIFEST_PIECE_LEN { manifest_pieces(&bytes) } else { Vec::new() };
                if let Err(why) = bulk.send(to, BulkPiece { header, prefix, bytes }).await {
                    tracing::debug!(peer = %to.short(), %why, "manifest not sent");
                }
            }
            drop(done.send(Done::ManifestOut { id, to }).await);
        });
    }
}
