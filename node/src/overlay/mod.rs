//! The overlay: which hosts this one is linked to, how news travel, and how gaps are closed.
//!
//! One machine without IO, clock or global chance, in three parts that share the links:
//! - **members** (`links`, `affinity`, `contacts`, `promote`, `roster`, `cells`, `shuffle`,
//!   `live`): a few near and far links, kept up for ever, after `HyParView` (Leitão et al., DSN
//!   2007) with merge probes and rules against insiders;
//! - **tree** (`tree`, `forward`, `missing`, `flight`, `early`, `lead`, `relays`): one broadcast
//!   tree per log, after Plumtree (Leitão et al., SRDS 2007);
//! - **sync** (`heads`, `sketch`, `sync`, `reconcile`, `visits`, `fetch`): comparison of heads,
//!   which guarantees delivery.
//!
//! It knows logs and numbers, never what an item says: the driver verifies hosts before they come
//! in, and items between [`Action::Deliver`] and [`Input::Committed`]. Only committed items are
//! passed on.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod affinity;
mod bounded;
mod cells;
mod contacts;
mod early;
mod fetch;
mod first;
mod flight;
mod forward;
mod heads;
mod io;
mod lag;
mod lead;
mod link;
mod links;
mod live;
mod missing;
mod promote;
mod reconcile;
mod relays;
mod rivals;
mod rng;
mod roster;
mod shuffle;
mod sizes;
mod sketch;
mod sync;
mod tree;
mod views;
mod visits;

#[cfg(test)]
mod sim_tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use stork_wire::frame::OverlayFrame;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Item;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

pub use cells::Site;
pub use io::{Action, Class, Config, Event, Input, Peer, PeersKind, Refusal, Why};
pub use sizes::Sizes;
pub use views::{Counters, LinkView, TreeView};

use bounded::Recent;

/// An item by log and number.
type Key = (LogId, u64);

/// Housekeeping of what has no timer of its own.
const HOUSE_EVERY_MS: u64 = 5_000;
/// Hosts that are shut out; the oldest are forgotten first.
const BANS_MAX: usize = 256;

/// The overlay of one node. See the module's text.
///
/// The same seed and the same inputs at the same times give the same actions (invariant I19).
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    me: NodeId,
    site: Label,
    rng: rng::Rng,
    now: Tick,
    local: Option<Arc<Peer>>,
    // Members.
    links: links::Links,
    quiet: live::Quiet,
    affinity: affinity::Affinity,
    contacts: contacts::Contacts,
    dialling: BTreeMap<NodeId, promote::Dial>,
    promotion: promote::Promotion,
    reserved: Recent<NodeId, Tick>,
    bans: Recent<NodeId, Tick>,
    roster: roster::Roster,
    cell_at: Tick,
    shuffles: shuffle::Shuffles,
    saved: Tick,
    save_at: Option<Tick>,
    // Tree.
    carries: u64,
    /// The driver takes no items.
    closed: bool,
    trees: tree::Trees,
    missing: missing::Missing,
    flights: flight::Flights,
    early: early::Early,
    flush_at: Option<Tick>,
    // Sync.
    heads: heads::Heads,
    sessions: BTreeMap<NodeId, sync::Session>,
    guests: links::Links,
    visit: Option<(NodeId, Tick)>,
    watched: NodeId,
    former: flight::Former,
    fetches: fetch::Fetches,
    forks: Recent<Key, ()>,
    rivals: Recent<(Key, NodeId), bool>,
    random_sync_at: Tick,
    house_at: Tick,
    counters: Counters,
}

impl Overlay {
    /// A node without links. It begins to dial when it has heard of hosts.
    #[must_use]
    pub fn new(config: Config, me: NodeId, my_site: Label, seed: u64) -> Self {
        Self {
            // A tree's mask has sixteen slots: more links than that cannot be.
            config: Config { near: config.near.min(8), far: config.far.min(5), ..config },
            me,
            site: my_site,
            rng: rng::Rng::new(seed ^ rng::cut(me.as_bytes())),
            now: Tick(0),
            local: None,
            links: BTreeMap::new(),
            quiet: live::Quiet::default(),
            affinity: affinity::Affinity::new(&me),
            contacts: contacts::Contacts::default(),
            dialling: BTreeMap::new(),
            promotion: promote::Promotion::new(),
            reserved: links::reserved(),
            bans: Recent::new(BANS_MAX),
            roster: roster::Roster::new(),
            cell_at: Tick(cells::FIRST_MS),
            shuffles: shuffle::Shuffles::new(),
            saved: Tick(0),
            save_at: None,
            carries: 0,
            closed: false,
            trees: tree::Trees::default(),
            missing: missing::Missing::default(),
            flights: BTreeMap::new(),
            early: early::Early::default(),
            flush_at: None,
            heads: heads::Heads::default(),
            sessions: BTreeMap::new(),
            guests: BTreeMap::new(),
            visit: None,
            watched: NodeId([0; 32]),
            former: flight::former(),
            fetches: fetch::Fetches::default(),
            forks: Recent::new(sync::FORKS_MAX),
            rivals: Recent::new(rivals::RIVALS_MAX),
            random_sync_at: Tick(sync::RANDOM_EVERY_MS),
            house_at: Tick(0),
            counters: Counters::default(),
        }
    }

    /// Takes one input and appends what must be done. Never waits, never fails.
    pub fn handle(&mut self, now: Tick, input: Input, actions: &mut Vec<Action>) {
        let now = now.max(self.now);
        self.now = now;
        match input {
            Input::Local(peer) => self.on_local(now, peer),
            Input::Day(day) => self.on_day(day),
            Input::Bootstrap { known, anchors } => self.on_bootstrap(now, &known, &anchors),
            Input::Hello { peer, class, starving } => {
                self.on_hello(now, peer, class, starving, actions);
            }
            Input::Linked { peer, class, hints } => {
                self.on_linked(now, peer, class, &hints, actions);
            }
            Input::Down { node } => {
                self.end_guest(node);
                self.end_link(now, node, Why::Gone, actions);
            }
            Input::DialFailed { node } => self.on_dial_failed(now, node, actions),
            Input::Frame { from, frame } => {
                self.hear(now, from);
                self.on_frame(now, from, frame, actions);
            }
            Input::Peers { from, kind, peers } => {
                self.hear(now, from);
                match kind {
                    PeersKind::Records => self.on_records(now, from, &peers),
                    PeersKind::Shuffle { nonce } => {
                        self.on_shuffle(now, from, nonce, &peers, actions);
                    }
                    PeersKind::ShuffleReply { nonce } => {
                        self.on_shuffle_reply(now, from, nonce, &peers, actions);
                    }
                }
            }
            Input::Heads(heads) => self.heads.reset(&heads),
            Input::Closed => self.closed = true,
            Input::Open => self.open(now),
            Input::Committed { log, seq, hash, item, source } => {
                self.on_committed(now, ((log, seq), hash, &item), source, actions);
            }
            Input::Refused { from, log, seq, why } => {
                self.on_refused(now, from, (log, seq), why, actions);
            }
            Input::Behind { from, log, to } => self.on_behind(from, log, to),
            Input::Cut { log, head } => self.on_cut(log, head),
            Input::AskBack(range) => self.ask_back(now, range, actions),
            Input::Deadline => self.on_deadline(now, actions),
        }
        if !self.closed {
            self.plan_fetches(now, actions);
        }
    }

    /// When to call again with [`Input::Deadline`], if nothing else happens before. A time that has
    /// passed means at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let fixed = [self.promote_deadline(), self.shuffles.next, self.random_sync_at];
        let soon = [
            self.live_deadline(),
            self.missing.deadline(),
            self.early.deadline(),
            self.heads_deadline(),
            self.fetches.deadline(),
            self.flush_at,
            self.save_at,
        ];
        let all = fixed.into_iter().chain(soon.into_iter().flatten());
        all.chain([self.house_at]).min()
    }

    fn on_deadline(&mut self, now: Tick, actions: &mut Vec<Action>) {
        self.live_due(now, actions);
        self.promote_due(now, actions);
        self.shuffle_due(now, actions);
        self.missing_due(now, actions);
        self.early_due(now);
        self.fetch_due(now);
        self.random_sync_due(now, actions);
        self.heads_due(now, actions);
        self.flush_due(now, actions);
        if self.save_at.is_some_and(|at| at <= now) {
            self.save(now, actions);
        }
        if now >= self.house_at {
            self.house_at = now.after_ms(HOUSE_EVERY_MS);
            self.relays_due(now, actions);
            self.cell_due(now, actions);
            self.flights_due(now);
            self.early_house(now);
            self.guests_due(now);
            self.fetch_again();
        }
    }

    fn on_frame(
        &mut self,
        now: Tick,
        from: NodeId,
        frame: OverlayFrame,
        actions: &mut Vec<Action>,
    ) {
        match frame {
            OverlayFrame::Ping { nonce, fingerprint, carries, .. } => {
                self.on_ping(now, from, (nonce, fingerprint, carries), actions);
            }
            OverlayFrame::Pong { nonce, fingerprint, class } => {
                self.on_pong(now, from, (nonce, fingerprint, class), actions);
            }
            OverlayFrame::Unlink => self.end_link(now, from, Why::Unlinked, actions),
            OverlayFrame::Push { hop, age_ms, entry, item } => {
                let course = flight::Course { hop, age_ms, entry };
                self.on_push(now, from, course, *item, actions);
            }
            OverlayFrame::PushEntry { hop, age_ms, entry, envelope } => {
                let course = flight::Course { hop, age_ms, entry };
                match Item::of_entry(*envelope) {
                    Some(item) => self.on_push(now, from, course, item, actions),
                    None => self.on_placeless(now, from, actions),
                }
            }
            OverlayFrame::IHave(entries) => self.on_ihave(now, from, &entries, actions),
            OverlayFrame::Graft { log, seq } => self.on_graft(now, from, (log, seq), actions),
            OverlayFrame::Prune { log } => self.on_prune(from, &log),
            OverlayFrame::Heads { heads, last, answer } => {
                self.on_heads(now, from, &heads, (last, answer), actions);
            }
            OverlayFrame::SketchAsk { start, count } => {
                self.on_sketch_ask(now, from, (start, count), actions);
            }
            OverlayFrame::Sketch { fingerprint, logs, start, cells } => {
                self.on_sketch(now, from, (fingerprint, logs, start), &cells, actions);
            }
            OverlayFrame::HeadsAsk(logs) => self.on_heads_ask(now, from, &logs, actions),
            OverlayFrame::Ahead(logs) => self.on_ahead(now, from, &logs, actions),
            OverlayFrame::Fetch(ranges) => self.on_fetch(now, from, &ranges, actions),
            OverlayFrame::Items(items) => self.on_items(now, from, items.into_vec(), actions),
            // The driver keeps what a host knows, and hands these in as `Input::Peers`, with
            // verified hosts.
            OverlayFrame::Knows(_) => {}
            OverlayFrame::Records(_)
            | OverlayFrame::Shuffle { .. }
            | OverlayFrame::ShuffleReply { .. } => self.counters.unsolicited += 1,
        }
    }

    fn hear(&mut self, now: Tick, from: NodeId) {
        if self.links.contains_key(&from) {
            self.quiet.heard = now;
        }
        if let Some(link) = self.link_mut(&from) {
            (link.heard, link.doubted) = (now, false);
        }
    }

    fn send(
        &mut self,
        now: Tick,
        to: NodeId,
        frame: OverlayFrame,
        class: Class,
        actions: &mut Vec<Action>,
    ) {
        if let Some(link) = self.links.get_mut(&to) {
            link.sent = now;
        }
        actions.push(Action::Send { to, frame, class });
    }
}
