//! Threads that may block: the journal, disk work on pieces, and slow work on whole releases.
//!
//! The driver hands out work and goes on; what came of it returns as [`Done`]. The journal has one
//! thread, which commits in one transaction all that has come while it wrote the one before (group
//! commit, design §4).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use stork_wire::ids::{ItemHash, ManifestId, NodeId, SwarmId};
use stork_wire::item::Item;
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::text::Label;
use tokio::sync::{Semaphore, mpsc};

use super::Reply;
use super::switch::Switched;
use crate::store::{JournalItem, PartialPack, Reservation, Store, StoreError};
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

/// A release's partial packs, opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) packs: Vec<Arc<PartialPack>>,
    pub(super) reservation: Option<Reservation>,
}

/// What came of some work.
#[derive(Debug)]
pub(super) enum Done {
    Journal { jobs: Vec<JournalJob>, result: Result<(), StoreError> },
    Rival { ours: Option<Item>, theirs: Item },
    Manifest { id: ManifestId, from: Option<NodeId>, result: Result<Arc<Manifest>, String> },
    Opened { id: ManifestId, variant: Variant, result: Result<Opened, StoreError> },
    Piece { swarm: SwarmId, piece: u32, from: NodeId, result: Result<(), PieceFault> },
    PieceOut { swarm: SwarmId, piece: u32, to: NodeId, result: Result<u32, String> },
    ManifestOut { id: ManifestId, to: NodeId },
    Unpacked { id: ManifestId, variant: Variant, result: Result<(u64, u64), String> },
    Repacked { id: ManifestId, whole: bool },
    Collected,
    Switched { vm: Label, result: Box<Switched> },
    Joined { answer: super::admission::JoinAnswer, fresh: Result<bool, StoreError> },
}

/// Hands work to threads.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    journal: SyncSender<Vec<JournalJob>>,
    disk: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
}

impl Workers {
    pub(super) fn start(store: Arc<Store>, done: mpsc::Sender<Done>) -> std::io::Result<Self> {
        let (journal, jobs) = sync_channel(BATCHES_MAX);
        let outcome = done.clone();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || run_journal(&store, &jobs, &outcome))?;
        let disk = Arc::new(Semaphore::new(DISK_JOBS));
        let slow = Arc::new(Semaphore::new(1));
        Ok(Self { journal, disk, slow, done })
    }

    /// Queues items for the disk; gives them back when too many wait.
    pub(super) fn commit(&self, jobs: Vec<JournalJob>) -> Result<(), Vec<JournalJob>> {
        self.journal.try_send(jobs).map_err(|e| match e {
            TrySendError::Full(j) | TrySendError::Disconnected(j) => j,
        })
    }

    /// Short work on the disk.
    pub(super) fn disk(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        self.run(Arc::clone(&self.disk), work);
    }

    /// Long work, one after the other in the order in which it was asked for.
    pub(super) fn slow(&self, work: impl FnOnce() -> Option<Done> + Send + 'static) {
        self.run(Arc::clone(&self.slow), work);
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

/// Reads what stands of the feeds that must be built anew.
fn read_kept(store: &Store, batch: &mut [JournalJob]) -> Result<(), StoreError> {
    for job in batch {
        let Fact::Turn(turn) = &job.fact else { continue };
        for log in &turn.logs {
            job.kept.extend(store.log_items(*log)?);
        }
    }
    Ok(())
}

fn run_journal(store: &Store, jobs: &Receiver<Vec<JournalJob>>, done: &mpsc::Sender<Done>) {
    while let Ok(mut batch) = jobs.recv() {
        while batch.len() < BATCH_MAX
            && let Ok(more) = jobs.try_recv()
        {
            batch.extend(more);
        }
        let entry = |j: &JournalJob| {
            let cuts = j.fact.cuts().to_vec();
            JournalItem { item: (*j.item).clone(), hash: j.hash, cuts }
        };
        let items: Vec<JournalItem> = batch.iter().map(entry).collect();
        let result = store.commit_items(&items).and_then(|()| read_kept(store, &mut batch));
        if done.blocking_send(Done::Journal { jobs: batch, result }).is_err() {
            return;
        }
    }
}
