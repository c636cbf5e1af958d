//! The scrub's thread: how fast it goes, and what the driver does about what it finds.
//!
//! One thread for the whole life of the node. It sleeps nearly all the time, waits while anybody
//! unpacks, builds or collects, and holds no lock while it sleeps. What it finds goes to the
//! driver, which tells the host and each VM that was shown it, and has it fetched again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::workers::Done;
use super::{Clock, Driver};
use crate::config::ScrubConfig;
use crate::store::{Damage, Scrub, ScrubPlace, ScrubStep, Store, StoreError};

/// Milliseconds after which it tries again where others need the store, and where it failed.
const BUSY_MS: u64 = 500;
const FAILED_MS: u64 = 60_000;
/// Where it stands is written down at most so often, in milliseconds.
const KEEP_MS: u64 = 60_000;
/// Folders of objects, which a glance goes through one by one.
const FOLDERS: u64 = 256;
/// Events of one finding; more are counted only.
const EVENTS_MAX: usize = 64;

/// The driver's end: dropping it ends the thread.
#[derive(Debug)]
pub(super) struct ScrubThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    place: Arc<Mutex<ScrubPlace>>,
}

impl ScrubThread {
    pub(super) fn start(
        store: Arc<Store>,
        config: ScrubConfig,
        clock: Clock,
        done: mpsc::Sender<Done>,
    ) -> std::io::Result<Self> {
        let place = Arc::new(Mutex::default());
        let (stop, stopped) = channel();
        let told = Arc::clone(&place);
        let mut scrubber = Scrubber { store, config, clock, done, told, kept_ms: 0, glance: None };
        let thread = std::thread::Builder::new().name("scrub".into());
        let thread = thread.spawn(move || scrubber.run(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), place })
    }

    /// Ends the thread, which has the store open, and waits for it.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the scrub ended early");
        }
    }

    pub(super) fn place(&self) -> ScrubPlace {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Scrubber {
    store: Arc<Store>,
    config: ScrubConfig,
    clock: Clock,
    done: mpsc::Sender<Done>,
    told: Arc<Mutex<ScrubPlace>>,
    kept_ms: u64,
    /// The folder that is glanced at next, and when in milliseconds.
    glance: Option<(u8, u64)>,
}

impl Scrubber {
    fn run(&mut self, stopped: &Receiver<()>) {
        let mut scrub = match self.store.scrub_begin() {
            Ok(scrub) => scrub,
            Err(e) => return tracing::warn!("nothing is scrubbed: {e}"),
        };
        loop {
            let wait = match self.turn(&mut scrub) {
                Ok(wait) => wait,
                Err(e) => {
                    tracing::warn!("the scrub waits: {e}");
                    FAILED_MS
                }
            };
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = scrub.place().clone();
            let wait = stopped.recv_timeout(Duration::from_millis(wait));
            if wait != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        if scrub.place().round > 0
            && let Err(e) = self.store.scrub_keep(&scrub)
        {
            tracing::debug!("where the scrub stands is not kept: {e}");
        }
    }

    /// One step; returns the milliseconds until the next one.
    fn turn(&mut self, scrub: &mut Scrub) -> Result<u64, StoreError> {
        let glance_wait = self.glance()?;
        let now = self.clock.unix();
        if self.config.round_s == 0 {
            return Ok(glance_wait);
        }
        let place = scrub.place();
        let ends = place.begun.saturating_add(self.config.round_s);
        // A clock that was set back must not stop the scrub for as long.
        let over = place.round == 0 || now >= ends || place.begun > now;
        if place.round == 0 || (place.finished >= place.begun && over) {
            scrub.begin_round(now, self.store.scrub_total()?);
            self.keep(scrub)?;
        } else if place.finished >= place.begun {
            return Ok(glance_wait.min(ends.saturating_sub(now).saturating_mul(1_000)).max(1));
        }
        let step = self.store.scrub(scrub)?;
        self.tell(&step);
        if step.busy {
            return Ok(BUSY_MS);
        }
        if step.round_done {
            scrub.end_round(now.max(scrub.place().begun));
            self.keep(scrub)?;
            return Ok(BUSY_MS);
        }
        if self.clock.tick().0 >= self.kept_ms.saturating_add(KEEP_MS) {
            self.keep(scrub)?;
        }
        let place = scrub.place();
        let left = place.total.saturating_sub(place.bytes);
        let left_s = place.begun.saturating_add(self.config.round_s).saturating_sub(now);
        Ok(self.config.pause_ms(step.bytes, left, left_s).min(glance_wait))
    }

    fn keep(&mut self, scrub: &Scrub) -> Result<(), StoreError> {
        self.kept_ms = self.clock.tick().0;
        self.store.scrub_keep(scrub)
    }

    /// Looks at one folder without reading, when its time has come; the milliseconds until the
    /// next.
    fn glance(&mut self) -> Result<u64, StoreError> {
        if self.config.glance_s == 0 {
            return Ok(FAILED_MS);
        }
        let now = self.clock.tick().0;
        let every = (self.config.glance_s.saturating_mul(1_000) / FOLDERS).max(1);
        let (folder, at) = *self.glance.get_or_insert_with(|| (0, now.saturating_add(every)));
        if now < at {
            return Ok(at - now);
        }
        let step = self.store.glance(folder)?;
        self.tell(&step);
        if step.busy {
            return Ok(BUSY_MS);
        }
        self.glance = Some((folder.wrapping_add(1), now.saturating_add(every)));
        Ok(every)
    }

    fn tell(&self, step: &ScrubStep) {
        if !step.damaged.is_empty() {
            // The driver ends: what is gone from the store is found missing at the next start.
            drop(self.done.blocking_send(Done::Damaged(step.damaged.clone())));
        }
        if step.round_done {
            drop(self.done.blocking_send(Done::Scrubbed));
        }
    }
}

fn kind_of(damage: &Damage) -> &'static str {
    match damage {
        Damage::Object { .. } => "object",
        Damage::Pack(_) => "pack",
        Damage::Manifest(_) => "manifest",
        Damage::Tree(_) => "tree",
        Damage::Set(_) => "set",
    }
}

impl Driver {
    /// What was damaged is told, to the host and to each VM that was shown it, and fetched again.
    pub(super) fn on_damaged(&mut self, damaged: &[Damage]) {
        for damage in damaged {
            self.counters.add("damaged", kind_of(damage));
        }
        for damage in damaged.iter().take(EVENTS_MAX) {
            self.event("damaged", format!("{damage}; it is in quarantine, and fetched again"));
        }
        let sets: Vec<_> = damaged
            .iter()
            .filter_map(|d| if let Damage::Set(id) = d { Some(*id) } else { None })
            .collect();
        let shown = self
            .vms
            .iter()
            .filter(|(_, vm)| vm.current.as_ref().is_some_and(|g| sets.contains(&g.set)));
        let names: Vec<String> = shown.map(|(name, _)| name.to_string()).collect();
        for name in names {
            let text = format!("{name}: it was shown damaged files, and is switched to good ones");
            self.event("vm_shown_damaged", text);
        }
        self.look_again();
    }

    /// A round is over.
    pub(super) fn on_scrubbed(&mut self) {
        self.counters.add("scrubs", "done");
    }

    pub(super) fn scrub_json(&self) -> Value {
        let place = self.scrub.place();
        json!({
            "round": place.round, "begun": place.begun, "bytes": place.bytes,
            "total": place.total, "damaged": place.damaged, "finished": place.finished,
        })
    }
}
