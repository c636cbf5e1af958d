//! Items between the rules and the journal: those that nobody waits for go to the disk together.
//!
//! A transaction costs a host more than everything else that it does for an item, and most of that
//! is for the transaction, not for the item. So an item that comes alone goes to the disk at once;
//! of a stream, at most one transaction is begun in [`GATHER_MS`], with all that came meanwhile.
//! What is lost in a crash before that comes again by sync, as always. An item that a publisher
//! waits for, a document or a proof is never kept waiting, and takes along what has gathered.

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::ItemRange;
use stork_wire::ids::LogId;
use stork_wire::item::Item;
use stork_wire::tick::Tick;

use super::Driver;
use super::items::answer;
use super::workers::{BATCH_MAX, JournalJob};
use crate::driver::CommitError;
use crate::trust::Fact;

/// The least time between two transactions for items that nobody waits for: so much later may a
/// VM be shown a package that came in the middle of a stream of news.
const GATHER_MS: u64 = 100;
/// Items that wait for the journal: a sync of a long absence fills it, and is asked again later.
const JOURNAL_MAX: usize = 8_192;

/// What has gathered, and when it goes.
#[derive(Debug, Default)]
pub(super) struct Gather {
    jobs: Vec<JournalJob>,
    /// Items that the journal has and has not answered.
    out: usize,
    /// What was passed on and is not on disk yet: whoever asks for it gets it from here.
    passed: BTreeMap<(LogId, u64), Arc<Item>>,
    /// Before then only what is urgent goes.
    next: Tick,
}

impl Gather {
    pub(super) fn deadline(&self) -> Option<Tick> {
        (!self.jobs.is_empty()).then_some(self.next)
    }

    /// The journal has answered for these.
    pub(super) fn done(&mut self, jobs: &[JournalJob]) {
        self.out = self.out.saturating_sub(jobs.len());
        for job in jobs {
            self.passed.remove(&(job.item.log, job.item.seq));
        }
    }

    /// Items of a range that were passed on and are not on disk yet, in order.
    pub(super) fn passed(&self, range: &ItemRange) -> Vec<Arc<Item>> {
        if range.from > range.to {
            return Vec::new();
        }
        let keys = (range.log, range.from)..=(range.log, range.to);
        self.passed.range(keys).map(|(_, item)| Arc::clone(item)).collect()
    }
}

impl Driver {
    /// Queues an accepted item for the disk; gives it back when too many wait.
    pub(super) fn write_down(&mut self, job: JournalJob) -> Result<(), Box<JournalJob>> {
        if self.gather.out + self.gather.jobs.len() >= JOURNAL_MAX {
            return Err(Box::new(job));
        }
        // What was not passed on yet, or has something waiting for it, is urgent.
        let waits = job.source.is_none() || self.trust.pending_len() > 0;
        let news = matches!(job.fact, Fact::Entry(_) | Fact::Beacon(_));
        if job.source.is_some() {
            let item = Arc::clone(&job.item);
            self.gather.passed.insert((item.log, item.seq), item);
        }
        self.gather.jobs.push(job);
        if waits || !news || self.gather.jobs.len() >= BATCH_MAX {
            self.flush_journal();
        } else {
            self.flush_journal_if_due();
        }
        Ok(())
    }

    pub(super) fn flush_journal_if_due(&mut self) {
        if self.gather.deadline().is_some_and(|at| at <= self.clock.tick()) {
            self.flush_journal();
        }
    }

    /// Hands over what has gathered.
    pub(super) fn flush_journal(&mut self) {
        let jobs = core::mem::take(&mut self.gather.jobs);
        if jobs.is_empty() {
            return;
        }
        self.gather.next = self.clock.tick().after_ms(GATHER_MS);
        self.gather.out += jobs.len();
        if let Err(jobs) = self.workers.commit(jobs) {
            self.gather.done(&jobs);
            self.event("journal_full", "the journal takes no items any more");
            for job in jobs {
                answer(job.reply, Err(CommitError::Busy));
            }
        }
    }
}
