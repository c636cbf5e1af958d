//! The journal: the thread that writes items down, and what happens when the disk takes none.
//!
//! The rules and the heads know an item before the disk does, and must not stay ahead of it. An
//! item that finds no room is tried again where it stands, for [`WAIT_MS`]; what came after it
//! waits behind it. Then it is given up, and all that came after it: rules, catalog and heads are
//! read from the disk again, as at a start, and the driver takes no items until the disk does. So
//! the node is as if it had not heard of them, and sync brings them like everything it lacks.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};
use stork_wire::charter::UnixSeconds;
use stork_wire::ids::{FleetId, LogId};
use tokio::sync::mpsc;

use super::items::answer;
use super::workers::{BATCH_MAX, Done, JournalJob};
use super::{CommitError, Driver};
use crate::catalog::Catalog;
use crate::overlay::Input;
use crate::reload::{load_aside, load_trust};
use crate::store::{JournalItem, Store, StoreError};
use crate::trust::{Aside, Fact, Trust};

/// So long an item waits in memory for room on the disk: as long as a file that is being written
/// beside it, or a collection that frees some, may take.
const WAIT_MS: u64 = 10_000;
/// Time between two tries.
const RETRY_MS: u64 = 500;
/// How often a disk that took no items is asked whether it takes some again.
const PROBE: Duration = Duration::from_secs(1);

/// Rules and catalog, with everything that the journal holds.
pub(crate) type Rules = (Trust, Catalog);

/// Reads rules and catalog from the journal, as at every start.
pub(crate) fn load_rules(store: &Store, fleet: FleetId) -> Result<Rules, StoreError> {
    let mut catalog = Catalog::default();
    let trust = load_trust(store, fleet, |fact| {
        if let Fact::Entry(entry) = fact {
            catalog.apply(entry.get());
        }
    })?;
    load_aside(store, &trust, |entry, aside| match aside {
        Aside::Frozen(freeze) => catalog.apply_frozen(entry, freeze),
        Aside::Retired => catalog.apply_retired(entry),
    })?;
    Ok((trust, catalog))
}

/// Items for one transaction.
#[derive(Debug)]
pub(super) struct Batch {
    /// Rises each time that items are given up: those of an earlier one are given up with them.
    pub(super) era: u64,
    pub(super) jobs: Vec<JournalJob>,
}

/// Items were given up.
#[derive(Debug)]
pub(super) struct TakenBack {
    /// The era that begins.
    era: u64,
    jobs: Vec<JournalJob>,
    error: StoreError,
    /// What is on disk.
    rules: Result<Rules, StoreError>,
}

/// What the thread owns.
pub(super) struct Journal {
    pub(super) store: Arc<Store>,
    pub(super) fleet: FleetId,
    pub(super) done: mpsc::Sender<Done>,
    pub(super) era: u64,
}

impl Journal {
    /// Writes what comes, until nobody sends or listens any more.
    pub(super) fn run(mut self, inbox: &Receiver<Batch>) {
        while let Ok(Batch { era, mut jobs }) = inbox.recv() {
            let listens = if era == self.era {
                // The driver's era never falls, and is never ahead: these are of the same.
                while jobs.len() < BATCH_MAX
                    && let Ok(more) = inbox.try_recv()
                {
                    jobs.extend(more.jobs);
                }
                match self.write(&mut jobs) {
                    Ok(()) => self.report(Done::Journal(jobs)),
                    Err(error) => self.give_up(jobs, error, inbox),
                }
            } else {
                self.report(Done::GivenUp(jobs))
            };
            if !listens {
                return;
            }
        }
    }

    fn report(&self, outcome: Done) -> bool {
        self.done.blocking_send(outcome).is_ok()
    }

    /// Writes items; where room is all that is missing, again and again for a while.
    fn write(&self, jobs: &mut [JournalJob]) -> Result<(), StoreError> {
        let entry = |j: &JournalJob| {
            let cuts = j.fact.cuts().to_vec();
            JournalItem { item: (*j.item).clone(), hash: j.hash, cuts }
        };
        let items: Vec<JournalItem> = jobs.iter().map(entry).collect();
        let mut tries = 0;
        while let Err(e) = self.store.commit_items(&items) {
            if !e.is_no_space() || tries >= WAIT_MS / RETRY_MS || self.done.is_closed() {
                return Err(e);
            }
            if tries == 0 && !self.report(Done::JournalWaits(e)) {
                return Ok(());
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(RETRY_MS));
        }
        self.read_kept(jobs)
    }

    /// Reads what stands of the feeds that must be built anew.
    fn read_kept(&self, jobs: &mut [JournalJob]) -> Result<(), StoreError> {
        for job in jobs {
            let logs: Vec<LogId> = match &job.fact {
                Fact::Turn(turn) => turn.logs.clone(),
                Fact::Suicide(death) => death.turns.iter().flat_map(|t| t.logs.clone()).collect(),
                _ => continue,
            };
            for log in &logs {
                job.kept.extend(self.store.log_items(*log)?);
            }
        }
        Ok(())
    }

    /// Gives up these items and all that wait behind them, and waits until the disk takes some.
    /// False where nobody listens any more.
    fn give_up(
        &mut self,
        jobs: Vec<JournalJob>,
        error: StoreError,
        inbox: &Receiver<Batch>,
    ) -> bool {
        self.era += 1;
        let rules = load_rules(&self.store, self.fleet);
        let taken = TakenBack { era: self.era, jobs, error, rules };
        if !self.report(Done::TakenBack(Box::new(taken))) {
            return false;
        }
        loop {
            // The driver sends none of the new era before it hears that the disk takes them.
            match inbox.recv_timeout(PROBE) {
                Ok(Batch { jobs, .. }) => {
                    if !self.report(Done::GivenUp(jobs)) {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    if self.store.takes_items().is_ok() {
                        return self.report(Done::JournalOpen);
                    }
                }
            }
        }
    }
}

/// What the disk does with items.
#[derive(Debug, Default)]
pub(super) enum Disk {
    /// It takes them.
    #[default]
    Good,
    /// Some wait for room.
    Waits(Since),
    /// It took none for so long that they were given up: none is taken until it does again.
    Closed(Since),
}

/// Since when, and why.
#[derive(Debug)]
pub(super) struct Since {
    at: UnixSeconds,
    why: String,
    help: &'static str,
}

impl Driver {
    fn since(&self, e: &StoreError) -> Since {
        Since { at: self.clock.unix(), why: e.to_string(), help: e.help() }
    }

    /// Items find no room on the disk, and wait.
    pub(super) fn on_journal_waits(&mut self, e: &StoreError) {
        self.counters.add("journal", "waits");
        self.event("journal_waits", format!("items wait for room on the disk: {e}"));
        self.gather.disk = Disk::Waits(self.since(e));
    }

    /// Items were given up: everything that is known is again what is on disk.
    pub(super) fn on_taken_back(&mut self, taken: TakenBack) {
        let TakenBack { era, jobs, error, rules } = taken;
        self.counters.add("journal", "failed");
        let (lost, logs) = (self.gather.unwritten(), self.gather.unwritten_logs());
        let behind = self.gather.give_up(era);
        let what = match rules {
            Ok(rules) => {
                (self.trust, self.catalog) = rules;
                self.look_at_private();
                let heads = self.trust.heads();
                self.overlay_input(Input::Heads(heads));
                self.refresh_record();
                self.freshness.look_at_all();
                self.replan_soon();
                "they are not used, and fetched again when the disk takes them".to_owned()
            }
            Err(e) => {
                // Better to tell of nothing in these logs than of what is not on disk.
                for log in logs {
                    self.overlay_input(Input::Cut { log, head: None });
                }
                format!("and what is on it cannot be read: {e}")
            }
        };
        self.overlay_input(Input::Closed);
        self.gather.disk = Disk::Closed(self.since(&error));
        self.event("journal_failed", format!("{lost} items are not on disk ({error}): {what}"));
        self.on_given_up(jobs);
        self.on_given_up(behind);
    }

    /// These were given up.
    pub(super) fn on_given_up(&mut self, jobs: Vec<JournalJob>) {
        for job in jobs {
            answer(job.reply, Err(CommitError::Disk));
        }
    }

    /// The disk takes items again.
    pub(super) fn on_journal_open(&mut self) {
        self.gather.disk = Disk::Good;
        self.event("journal_open", "the disk takes items again");
        self.overlay_input(Input::Open);
        // As at a start: an entry that a proof holds may be what a new epoch begins after.
        for item in self.trust.take_all_pending() {
            self.judge(item, None, None);
        }
    }

    /// Do items come onto the disk? For `stork status`.
    pub(super) fn journal_json(&self) -> Value {
        let unwritten = self.gather.unwritten();
        let (state, since) = match &self.gather.disk {
            Disk::Good => return json!({ "ok": true, "unwritten": unwritten }),
            Disk::Waits(since) => ("waits", since),
            Disk::Closed(since) => ("closed", since),
        };
        json!({
            "ok": false, "state": state, "since": since.at, "cause": since.why,
            "help": since.help, "unwritten": unwritten,
        })
    }
}
