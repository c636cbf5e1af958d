//! Threads that may block: the journal, disk work on pieces, and slow work on whole releases.
//!
//! The driver hands out work and goes on; what came of it returns as [`Done`]. The journal has one
//! thread, which commits in one transaction all that has come while it wrote the one before (group
//! commit, design §4).

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use stork_origin::OriginError;
use stork_wire::ids::{FleetId, GroupKeyId, ItemHash, LogId, ManifestId, NodeId, SwarmId};
use stork_wire::item::Item;
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::text::Label;
use tokio::sync::{Semaphore, mpsc};

use super::Driver;
use super::Reply;
use super::journal::{Batch, Journal, TakenBack};
use super::origin::What;
use super::small::SmallDone;
use super::switch::Switched;
use crate::store::{Damage, PartialPack, Reservation, Store, StoreError};
use crate::trust::Fact;

/// Batches that wait for the journal; the driver bounds their items.
const BATCHES_MAX: usize = 8_192;
/// Items from which on a transaction takes no further batch.
pub(super) const BATCH_MAX: usize = 256;
/// Disk operations on pieces at once.
const DISK_JOBS: usize = 4;

/// One item on its way to the disk.
#[derive(Debug)]
pub(super) struct JournalJob {
    pub(super) item: Arc<Item>,
    pub(super) hash: ItemHash,
    pub(super) fact: Fact,
    pub(super) source: Option<NodeId>,
    pub(super) reply: Option<Reply>,
    /// What the journal holds of a feed whose state must be built anew.
    pub(super) kept: Vec<Item>,
}

/// Why a piece was not kept.
#[derive(Debug)]
pub(super) enum PieceFault {
    /// The bytes are wrong: the sender is to blame.
    Bad,
    /// The disk is full or failed.
    Disk(StoreError),
}

/// Why a manifest was not kept.
#[derive(Debug)]
pub(super) enum ManifestFault {
    /// The bytes are wrong, or are not here: whoever sent them is to blame.
    Bad(String),
    /// The disk is full or failed.
    Disk(String),
}

impl From<StoreError> for ManifestFault {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::WrongManifest(_) | StoreError::BadManifest { .. } => {
                Self::Bad(e.to_string())
            }
            _ => Self::Disk(e.to_string()),
        }
    }
}

/// A release's partial packs, opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) packs: Vec<Arc<PartialPack>>,
    pub(super) reservation: Option<Reservation>,
}

/// What came of some work. The journal's five are told in `journal.rs`: on disk, no room for now,
/// given up, given up behind those, and room again.
#[derive(Debug)]
pub(super) enum Done {
    Journal(Vec<JournalJob>),
    JournalWaits(StoreError),
    TakenBack(Box<TakenBack>),
    GivenUp(Vec<JournalJob>),
    JournalOpen,
    Aside { items: Vec<Item>, logs: Vec<(LogId, u64)> },
    Rival { ours: Option<Item>, theirs: Item },
    Mend { turn: Box<crate::trust::Turn>, document: Option<Item> },
    Manifest { id: ManifestId, from: Option<NodeId>, result: Result<Arc<Manifest>, ManifestFault> },
    Opened { id: ManifestId, variant: Variant, result: Result<Opened, StoreError> },
    Piece { swarm: SwarmId, piece: u32, from: NodeId, result: Result<(), PieceFault> },
    PieceOut { swarm: SwarmId, piece: u32, to: NodeId, result: Result<u32, String> },
    ManifestOut { id: ManifestId, to: NodeId },
    Small(SmallDone),
    Unpacked { id: ManifestId, variant: Variant, result: Result<(u64, u64), String> },
    Repacked { id: ManifestId, whole: bool },
    FromOrigin { what: What, result: Result<Vec<u8>, OriginError> },
    Collected,
    Damaged(Vec<Damage>),
    Scrubbed,
    Switched { vm: Label, result: Box<Switched> },
    Joined { answer: super::admission::JoinAnswer, fresh: Result<bool, StoreError> },
    GroupKeys { ids: Vec<GroupKeyId>, sealed: Result<Vec<Item>, StoreError> },
}

type Work = Box<dyn FnOnce() -> Option<Done> + Send>;

/// Work that is done piece after piece. The driver bounds what waits: one switch of each VM, one
/// unpacking of each release.
#[derive(Default)]
struct Lane(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    first: VecDeque<Work>,
    other: VecDeque<Work>,
    busy: bool,
}

impl core::fmt::Debug for Lane {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Lane")
    }
}

impl Lane {
    /// Queues work. True where nobody is at work, so that the caller must see to it.
    fn push(&self, first: bool, work: Work) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = if first { &mut waiting.first } else { &mut waiting.other };
        queue.push_back(work);
        !core::mem::replace(&mut waiting.busy, true)
    }

    /// What comes next; with nothing left nobody is at work.
    fn next(&self) -> Option<Work> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.first.pop_front();
        let next = next.or_else(|| waiting.other.pop_front());
        waiting.busy = next.is_some();
        next
    }
}

/// Hands work to threads.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    journal: SyncSender<Batch>,
    disk: Arc<Semaphore>,
    slow: Arc<Lane>,
    done: mpsc::Sender<Done>,
}

impl Workers {
    pub(super) fn start(
        store: Arc<Store>,
        fleet: FleetId,
        done: mpsc::Sender<Done>,
    ) -> std::io::Result<Self> {
        let (journal, batches) = sync_channel(BATCHES_MAX);
        let thread = Journal { store, fleet, done: done.clone(), era: 0 };
        std::thread::Builder::new().name("journal".into()).spawn(move || thread.run(&batches))?;
        let disk = Arc::new(Semaphore::new(DISK_JOBS));
        let slow = Arc::new(Lane::default());
        Ok(Self { journal, disk, slow, done })
    }

    /// Queues items for the disk; gives them back when too many wait.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), Batch> {
        self.journal.try_send(batch).map_err(|e| match e {
            TrySendError::Full(b) | TrySendError::Disconnected(b) => b,
        })
    }

    /// Short work on the disk.
    pub(super) fn disk(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        self.run(Arc::clone(&self.disk), work);
    }

    /// Long work, one after the other in the order in which it was asked for.
    pub(super) fn slow(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        self.slow_first(false, work);
    }

    /// The same; `first` goes before what waits and is not so.
    pub(super) fn slow_first(
        &self,
        first: bool,
        work: impl FnOnce() -> Option<Done> + Send + 'static,
    ) {
        let idle = self.slow.push(first, Box::new(work));
        if !idle {
            return;
        }
        let (lane, done) = (Arc::clone(&self.slow), self.done.clone());
        tokio::spawn(async move {
            while let Some(work) = lane.next() {
                if let Ok(Some(outcome)) = tokio::task::spawn_blocking(work).await {
                    drop(done.send(outcome).await);
                }
            }
        });
    }

    /// Where tasks report to.
    pub(super) fn done(&self) -> mpsc::Sender<Done> {
        self.done.clone()
    }

    fn run(&self, lane: Arc<Semaphore>, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            // The semaphores are never closed; without a permit the work would be lost.
            let Ok(_permit) = lane.acquire_owned().await else { return };
            if let Ok(Some(outcome)) = tokio::task::spawn_blocking(work).await {
                drop(done.send(outcome).await);
            }
        });
    }
}

impl Driver {
    /// Work has ended: whose turn it is.
    pub(super) fn on_done(&mut self, outcome: Done) {
        match outcome {
            Done::Journal(jobs) => self.on_journal(jobs),
            Done::JournalWaits(e) => self.on_journal_waits(&e),
            Done::TakenBack(taken) => self.on_taken_back(*taken),
            Done::GivenUp(jobs) => self.on_given_up(jobs),
            Done::JournalOpen => self.on_journal_open(),
            Done::Aside { items, logs } => self.on_aside(items, logs),
            Done::Rival { ours, theirs } => self.on_rival(ours, &theirs),
            Done::Mend { turn, document } => self.on_mend(turn, document),
            Done::Manifest { id, from, result } => self.on_manifest(id, from, result),
            Done::Opened { id, variant, result } => self.on_opened(id, variant, result),
            Done::Piece { swarm, piece, from, result } => self.on_piece(swarm, piece, from, result),
            Done::PieceOut { swarm, piece, to, result } => {
                self.on_piece_out(swarm, piece, to, result);
            }
            Done::ManifestOut { id, to } => self.on_manifest_out(id, to),
            Done::Small(done) => self.on_small(done),
            Done::Unpacked { id, variant, result } => self.on_unpacked(id, variant, result),
            Done::Repacked { id, whole } => self.on_repacked(id, whole),
            Done::FromOrigin { what, result } => self.on_from_origin(what, result),
            Done::Collected => self.look_again(),
            Done::Damaged(damaged) => self.on_damaged(&damaged),
            Done::Scrubbed => self.on_scrubbed(),
            Done::Switched { vm, result } => self.on_switched(&vm, *result),
            Done::Joined { answer, fresh } => self.on_token_checked(answer, fresh),
            Done::GroupKeys { ids, sealed } => self.on_group_keys(&ids, sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use stork_wire::ids::ManifestId;

    use super::*;
    use crate::store::StoreOptions;

    /// Whoever sent a manifest is to blame for its bytes, and not for a disk that takes none.
    #[test]
    fn senders_answer_for_bytes_only() {
        let wrong = StoreError::WrongManifest(ManifestId([1; 32]));
        assert!(matches!(ManifestFault::from(wrong), ManifestFault::Bad(_)));
        let folder = tempfile::tempdir().unwrap();
        let (path, options) = (folder.path().join("s"), StoreOptions::default());
        let _first = Store::open(&path, options).unwrap();
        let ours = Store::open(&path, options);
        assert!(matches!(ManifestFault::from(ours.unwrap_err()), ManifestFault::Disk(_)));
    }
}
