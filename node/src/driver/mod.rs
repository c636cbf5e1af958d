//! The driver: one loop that owns all pure state and connects the rooms.
//!
//! ```text
//!  net ──NetEvent──►┐                      ┌──► net (outboxes, dials, bulk streams)
//!  bulk ──BulkIn───►│                      │
//!  control ─Call───►│  overlay · trust ·   ├──► workers (journal, disk, slow)
//!  push ────Call───►│  catalog · planner   │          │
//!  workers ─Done───►┘                      └──────────┘ Done
//! ```
//!
//! The loop never waits for a peer, a disk or a subscriber: it hands work out and takes outcomes
//! in. Only here is the clock read. An item is shown and acknowledged only after the journal
//! reported it durable; what a peer brought is passed on as soon as the rules accepted it.

mod addrs;
mod admission;
mod answers;
mod bandwidth;
mod behind;
mod bootstrap;
mod branches;
mod bulk_io;
mod calls;
mod clock;
mod content;
mod counters;
mod denials;
mod fetching;
mod forks;
mod fresh_report;
mod freshness;
mod gather;
mod gauges;
mod gossip;
mod hosts;
mod items;
mod journal;
mod leases;
mod manifests;
mod members;
mod metrics;
mod origin;
mod pace;
mod parts;
mod peers;
mod perform;
mod permits;
mod private;
mod pushes;
mod quota;
mod receipts;
mod record;
mod renewal;
mod repository;
mod restored;
mod retired;
mod scrub;
mod small;
mod staging;
mod switch;
mod tap;
mod tree;
mod trust;
mod vms;
mod why;
mod workers;

pub use calls::{Answer, AskedToken, CallError, ControlCall};
pub use clock::Clock;
pub use counters::{Counters, EventRecord};
pub(crate) use freshness::FLOOR_ROW;
pub use hosts::{AskedGrant, Base};
pub(crate) use journal::load_rules;
pub use leases::keep_push;
pub use parts::{Inbox, Parts};
pub(crate) use peers::RESTART_STEP;
pub use pushes::{CommitError, PushAuth, PushCall};
pub(crate) use renewal::CERT_VALID_S;
pub use tap::Tap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stork_wire::ids::{ManifestId, NodeId, PublisherId, SwarmId};
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::text::Label;
use stork_wire::tick::Tick;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::catalog::{Catalog, Privileges};
use crate::config::{NodeConfig, VmFolder};
use crate::net::Net;
use crate::overlay::{self, Overlay};
use crate::store::Store;
use crate::transfer::{self, Planner};
use crate::trust::{Permits, Trust};
use crate::view::Views;
use content::{Content, SwarmInfo};
use scrub::ScrubThread;
use vms::Vm;
use workers::{Done, Workers};

/// Where the outcome of a publisher's commit goes: the entry's number, or why not.
pub(crate) type Reply = oneshot::Sender<Result<(u64, u32), CommitError>>;

/// Outcomes of work that wait for the driver; workers wait beyond that.
const OUTCOMES_MAX: usize = 1_024;
/// Events of the network that are taken in before anything else has its turn.
const EVENTS_AT_ONCE: usize = 32;
/// How often slow matters are looked at: VM files, idle connections, own record.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// The one owner of all pure state.
pub struct Driver {
    config: NodeConfig,
    me: NodeId,
    name: Label,
    site: Label,
    key: Arc<SecretKey>,
    cert: Envelope,
    admission: Option<SecretKey>,
    store: Arc<Store>,
    views: Arc<Views>,
    workers: Workers,
    scrub: ScrubThread,
    clock: Clock,
    net: Arc<Net>,
    trust: Trust,
    catalog: Catalog,
    overlay: Overlay,
    planner: Planner,
    counters: Counters,
    record: record::OwnRecord,
    connections: BTreeMap<NodeId, peers::Link>,
    waiting: BTreeMap<NodeId, admission::Waiting>,
    dialling: BTreeSet<NodeId>,
    /// Hosts for which frames were queued in this turn of the loop.
    unsent: Vec<NodeId>,
    checked: BTreeMap<[u8; 32], (u64, Arc<overlay::Peer>)>,
    folder: VmFolder,
    vms: BTreeMap<Label, Vm>,
    contents: BTreeMap<ManifestId, Content>,
    /// What asks for a privilege, of the manifests that were read.
    privileges: Privileges,
    /// Permits of operators to go back.
    permits: Permits,
    swarms: BTreeMap<SwarmId, SwarmInfo>,
    sending: BTreeMap<(NodeId, SwarmId, u32), tokio::task::AbortHandle>,
    /// The last resort, where the operator named one.
    store_fetches: origin::Fetches,
    /// Catalog or VM files changed: VMs are looked at when this moment has come.
    replan_at: Option<Tick>,
    /// When the store is collected next.
    collect_at: Tick,
    /// Publishers whose feeds began anew, and of which something may still be kept aside.
    compacted: BTreeSet<PublisherId>,
    /// When what switches left behind is looked at next.
    tidy_at: Tick,
    renewal: renewal::Renewal,
    private: private::Private,
    restored: restored::Restored,
    freshness: freshness::Watch,
    bootstrap: bootstrap::Bootstrap,
    pace: pace::Pace,
    limited_told: Option<Tick>,
    /// Who told of the last few releases.
    tellers: small::Tellers,
    tap: Tap,
    gather: gather::Gather,
    back: branches::Back,
    started_unix: u64,
    outcomes: Option<mpsc::Receiver<Done>>,
    /// How full the queues in front of the loop were when somebody asked.
    queues: [gauges::Queue; 5],
}

impl core::fmt::Debug for Driver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Driver").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Driver {
    /// Puts the driver together, and loads what is known of VMs and contents.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let (done, outcomes) = mpsc::channel(OUTCOMES_MAX);
        let workers = Workers::start(Arc::clone(&parts.store), parts.trust.fleet(), done)?;
        let (store, clock) = (Arc::clone(&parts.store), parts.clock.clone());
        let scrub = ScrubThread::start(store, parts.config.scrub, clock, workers.done())?;
        let me = crate::identity::node_id(&parts.key);
        let now = parts.clock.unix();
        let cert = parts.trust.check_cert(&parts.cert, now).map_err(|e| anyhow::anyhow!("{e}"))?;
        let record = record::OwnRecord::new(parts.incarnation);
        let (before, first) = (parts.incarnation_before, parts.incarnation);
        let restored = restored::Restored::load(&parts.store, before, first)?;
        let freshness =
            freshness::Watch::new(parts.config.beacon.as_ref(), parts.beacon_key, parts.floor);
        let bootstrap = bootstrap::Bootstrap::new(&parts.config);
        let pace = pace::Pace::new(parts.config.limits);
        let transfer = origin::transfer_config(&parts.config);
        let mut driver = Self {
            overlay: Overlay::new(overlay::Config::default(), me, cert.site.clone(), parts.seed),
            planner: Planner::new(transfer, me, parts.seed ^ 1),
            folder: VmFolder::new(parts.config.vms.clone()),
            config: parts.config,
            me,
            name: cert.name,
            site: cert.site,
            key: parts.key,
            cert: parts.cert,
            admission: parts.admission,
            store: parts.store,
            views: parts.views,
            workers,
            scrub,
            clock: parts.clock,
            net: parts.net,
            trust: parts.trust,
            catalog: parts.catalog,
            counters: Counters::default(),
            record,
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dialling: BTreeSet::new(),
            unsent: Vec::new(),
            checked: BTreeMap::new(),
            vms: BTreeMap::new(),
            contents: BTreeMap::new(),
            privileges: Privileges::new(),
            permits: Permits::none(),
            swarms: BTreeMap::new(),
            sending: BTreeMap::new(),
            store_fetches: origin::Fetches::new(parts.origin),
            replan_at: None,
            collect_at: Tick(leases::COLLECT_EVERY_MS),
            compacted: BTreeSet::new(),
            tidy_at: Tick(0),
            renewal: renewal::Renewal::new(now),
            private: private::Private::default(),
            restored,
            freshness,
            bootstrap,
            pace,
            limited_told: None,
            tellers: small::Tellers::default(),
            tap: parts.tap,
            gather: gather::Gather::default(),
            back: branches::Back::default(),
            started_unix: now,
            outcomes: Some(outcomes),
            queues: [("", 0, 0); 5],
        };
        driver.start()?;
        Ok(driver)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let heads = self.trust.heads();
        self.overlay_input(overlay::Input::Heads(heads));
        self.follow_bandwidth();
        self.load_permits();
        self.load_vms();
        self.compacted = self.began_anew();
        self.refresh_record();
        self.load_peers()?;
        self.resume_contents();
        self.renew_at_start();
        // An entry that a proof holds may be what a new epoch begins after.
        for item in self.trust.take_all_pending() {
            self.judge(item, None, None);
        }
        self.replan_soon();
        Ok(())
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, mut inbox: Inbox) {
        let Some(mut done) = self.outcomes.take() else { return };
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut wake = core::pin::pin!(sleep_until(self.next_deadline()));
        loop {
            let next = self.next_deadline();
            if wake.deadline() != next || wake.is_elapsed() {
                wake.as_mut().reset(next);
            }
            tokio::select! {
                Some(event) = inbox.net.recv() => {
                    self.on_net(event);
                    // What else is there already needs no further turn of the loop.
                    for _ in 1..EVENTS_AT_ONCE {
                        let Ok(event) = inbox.net.try_recv() else { break };
                        self.on_net(event);
                    }
                }
                Some(outcome) = done.recv() => self.on_done(outcome),
                Some(bulk) = inbox.bulk.recv() => self.on_bulk(bulk),
                Some(call) = inbox.push.recv() => self.on_push(call),
                Some(call) = inbox.control.recv() => {
                    self.queues = inbox.queues(&done);
                    self.on_control(call);
                }
                () = &mut wake => {}
                _ = housekeeping.tick() => self.housekeeping(),
                changed = inbox.stop.changed() => {
                    if changed.is_err() || *inbox.stop.borrow() {
                        break;
                    }
                }
            }
            self.run_timers();
            self.write_out();
        }
        // What the scrub has to say finds nobody any more, so that it does not wait for us.
        drop(done);
        self.scrub.stop();
        self.flush_journal();
        self.save_on_exit();
    }

    fn next_deadline(&self) -> Instant {
        let (fresh, held) = (self.freshness.deadline(), self.pace.deadline());
        let (replan, journal) = (self.replan_at, self.gather.deadline());
        let machines = [self.overlay.deadline(), self.planner.deadline()];
        let all = machines.into_iter().chain([replan, fresh, held, journal]);
        let next = all.flatten().min().unwrap_or(Tick(u64::MAX));
        Instant::from_std(self.clock.instant(next))
    }

    fn run_timers(&mut self) {
        let now = self.clock.tick();
        if self.overlay.deadline().is_some_and(|t| t <= now) {
            self.overlay_input(overlay::Input::Deadline);
        }
        if self.planner.deadline().is_some_and(|t| t <= now) {
            self.planner_input(transfer::Input::Deadline);
        }
        self.flush_journal_if_due();
        if self.freshness.deadline().is_some_and(|t| t <= now) {
            self.watch_freshness();
        }
        if self.pace.deadline().is_some_and(|t| t <= now) {
            self.release_held(now);
        }
        if self.replan_at.is_some_and(|t| t <= now) {
            self.replan_at = None;
            self.replan();
        }
    }

    fn housekeeping(&mut self) {
        if self.folder.reread() {
            self.reload_vms();
        }
        self.tell_day();
        self.follow_bandwidth();
        self.refresh_record();
        self.close_idle_connections();
        self.watch_outboxes();
        self.bootstrap_if_alone();
        self.retry_contents();
        self.retry_switches();
        self.tidy_views();
        self.watch_certificates();
        self.look_back(true);
        self.watch_freshness();
        self.pace.tidy(self.clock.tick());
        if self.clock.tick() >= self.collect_at {
            self.collect(false, None);
        }
        let (peers, vms) = (self.connections.len(), self.vms.len());
        let status = format!("{peers} peers, {vms} VMs, {} releases", self.catalog.len());
        let watchdog = sd_notify::NotifyState::Watchdog;
        // Not run by systemd: nobody to tell.
        drop(sd_notify::notify(&[watchdog, sd_notify::NotifyState::Status(&status)]));
    }

    /// Notes an event.
    fn event(&mut self, kind: &'static str, text: impl Into<String>) {
        self.counters.event(self.clock.unix_ms(), kind, text);
    }
}
