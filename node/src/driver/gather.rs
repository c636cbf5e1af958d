//! Items between the rules and the journal: those that nobody waits for go to the disk together.
//!
//! A transaction costs a host more than everything else that it does for an item, and most of that
//! is for the transaction, not for the item. So an item that comes alone goes to the disk at once;
//! of a stream, at most one transaction is begun in [`GATHER_MS`], with all that came meanwhile.
//! What is lost in a crash before that comes again by sync, as always. An item that a publisher
//! waits for, a document or a proof is never kept waiting, and takes along what has gathered.
//!
//! No item is judged for which there is no room here, so that none is believed and not written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::frame::ItemRange;
use stork_wire::ids::LogId;
use stork_wire::item::Item;
use stork_wire::tick::Tick;

use super::items::answer;
use super::journal::{Batch, Disk};
use super::workers::{BATCH_MAX, JournalJob};
use super::{CommitError, Driver, Reply};
use crate::trust::Fact;

/// The least time between two transactions for items that nobody waits for: so much later may a
/// VM be shown a package that came in the middle of a stream of news.
const GATHER_MS: u64 = 100;
/// Items that wait for the disk before no more are taken from outside: a sync of a long absence
/// fills it, and is asked again later. What waited in the rules for one of them comes on top.
const JOURNAL_MAX: usize = 8_192;

/// An item that was accepted and is not on disk yet.
#[derive(Debug)]
struct Fresh {
    /// The item, where it was passed on: whoever asks for it gets it from here.
    passed: Option<Arc<Item>>,
    /// Who brought the same again, and waits for the disk as well.
    replies: Vec<Reply>,
}

/// What has gathered, and when it goes.
#[derive(Debug, Default)]
pub(super) struct Gather {
    jobs: Vec<JournalJob>,
    /// What is not on disk yet.
    fresh: BTreeMap<(LogId, u64), Fresh>,
    /// Before then only what is urgent goes.
    next: Tick,
    /// See [`Batch::era`].
    era: u64,
    /// Whether the disk takes items.
    pub(super) disk: Disk,
    /// The operator was told that there is no room.
    full_told: bool,
}

impl Gather {
    pub(super) fn deadline(&self) -> Option<Tick> {
        (!self.jobs.is_empty()).then_some(self.next)
    }

    /// Items that are not on disk yet.
    pub(super) fn unwritten(&self) -> usize {
        self.fresh.len()
    }

    /// The logs of these.
    pub(super) fn unwritten_logs(&self) -> BTreeSet<LogId> {
        self.fresh.keys().map(|(log, _)| *log).collect()
    }

    /// Somebody brought an item that is known: at once it is as good as the first one if that is on
    /// disk, and otherwise when it is.
    pub(super) fn answer_known(&mut self, item: &Item, reply: Option<Reply>) {
        match (reply, self.fresh.get_mut(&(item.log, item.seq))) {
            (Some(reply), Some(fresh)) => fresh.replies.push(reply),
            (reply, _) => answer(reply, Ok((item.seq, 0))),
        }
    }

    /// Is no item taken?
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.disk, Disk::Closed(_))
    }

    /// These are on disk.
    fn done(&mut self, jobs: &[JournalJob]) {
        for job in jobs {
            let (log, seq) = (job.item.log, job.item.seq);
            for reply in self.fresh.remove(&(log, seq)).into_iter().flat_map(|f| f.replies) {
                answer(Some(reply), Ok((seq, 0)));
            }
        }
    }

    /// Forgets what is not on disk; returns what had not been handed over.
    pub(super) fn give_up(&mut self, era: u64) -> Vec<JournalJob> {
        self.era = era;
        for reply in core::mem::take(&mut self.fresh).into_values().flat_map(|f| f.replies) {
            answer(Some(reply), Err(CommitError::Disk));
        }
        core::mem::take(&mut self.jobs)
    }

    /// Items of a range that were passed on and are not on disk yet, in order.
    pub(super) fn passed(&self, range: &ItemRange) -> Vec<Arc<Item>> {
        if range.from > range.to {
            return Vec::new();
        }
        let keys = (range.log, range.from)..=(range.log, range.to);
        self.fresh.range(keys).filter_map(|(_, fresh)| fresh.passed.clone()).collect()
    }
}

impl Driver {
    /// Why no item is taken now; from outside none is where too many wait.
    pub(super) fn takes_no_items(&mut self, outside: bool) -> Option<CommitError> {
        if self.gather.is_closed() {
            return Some(CommitError::Disk);
        }
        if !outside || self.gather.unwritten() < JOURNAL_MAX {
            return None;
        }
        self.counters.add("journal", "full");
        if !core::mem::replace(&mut self.gather.full_told, true) {
            self.event("journal_full", "too many items wait for the disk: others come later");
        }
        Some(CommitError::Busy)
    }

    /// Queues an accepted item for the disk.
    pub(super) fn write_down(&mut self, job: JournalJob) {
        // What was not passed on yet, or has something waiting for it, is urgent.
        let waits = job.source.is_none() || self.trust.pending_len() > 0;
        let news = matches!(job.fact, Fact::Entry(_) | Fact::Beacon(_));
        let passed = job.source.is_some().then(|| Arc::clone(&job.item));
        let fresh = Fresh { passed, replies: Vec::new() };
        self.gather.fresh.insert((job.item.log, job.item.seq), fresh);
        self.gather.jobs.push(job);
        if waits || !news || self.gather.jobs.len() >= BATCH_MAX {
            self.flush_journal();
        } else {
            self.flush_journal_if_due();
        }
    }

    pub(super) fn flush_journal_if_due(&mut self) {
        if self.gather.deadline().is_some_and(|at| at <= self.clock.tick()) {
            self.flush_journal();
        }
    }

    /// Hands over what has gathered; what the journal has no room for waits for the next time.
    pub(super) fn flush_journal(&mut self) {
        let jobs = core::mem::take(&mut self.gather.jobs);
        if jobs.is_empty() {
            return;
        }
        self.gather.next = self.clock.tick().after_ms(GATHER_MS);
        let batch = Batch { era: self.gather.era, jobs };
        if let Err(Batch { jobs, .. }) = self.workers.commit(batch) {
            self.gather.jobs = jobs;
        }
    }

    /// Items are on disk: there is room again.
    pub(super) fn note_written(&mut self, jobs: &[JournalJob]) {
        self.gather.done(jobs);
        if matches!(self.gather.disk, Disk::Waits(_)) {
            self.gather.disk = Disk::Good;
            self.event("journal_open", "the disk takes items again");
        }
        self.gather.full_told &= self.gather.unwritten() >= JOURNAL_MAX / 2;
    }
}
