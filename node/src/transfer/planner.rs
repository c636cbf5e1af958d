//! The dispatch: one input in, actions out, and the time of the next look.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::frame::TransferFrame;
use stork_wire::ids::{NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::bandwidth::{Bandwidth, Limits};
use super::children;
use super::ladder::Dials;
use super::manifests::{self, Manifests};
use super::message::{Action, Config, Event, Input, Join, Role, Topic};
use super::rng::Rng;
use super::room::Room;
use super::small::{self, Smalls};
use super::stats::{Counters, Downlink};
use super::store::{self, Allowance, ORIGIN_STORE};
use super::swarm::{Ctx, Swarm};
use super::upload::Uploader;

/// Swarms taken part in at once. More would be 32 neighbours with 8 KiB each: 64 MiB in all.
const SWARMS_MAX: usize = 256;
/// Swarms that others opened to us and that we are not in (yet).
const KNOCKS_MAX: usize = 64;
/// Peers remembered for each of those.
const KNOCKERS_MAX: usize = 32;
/// Pace of timeouts; the shortest timeout is as long.
const UPKEEP_MS: u64 = 50;
/// The same while nobody has helped for long.
const UPKEEP_IDLE_MS: u64 = 500;

/// Plans all transfers of one host. See the module's head for the rules.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    me: NodeId,
    rng: Rng,
    pub(super) peers: BTreeMap<NodeId, bool>,
    dials: Dials,
    pub(super) swarms: BTreeMap<SwarmId, Swarm>,
    pub(super) manifests: Manifests,
    smalls: Smalls,
    /// Who opened to a swarm before we joined it.
    pub(super) knocks: BTreeMap<SwarmId, BTreeSet<NodeId>>,
    uploader: Uploader,
    downlink: Downlink,
    store: Allowance,
    pub(super) bandwidth: Bandwidth,
    upkeep_at: Option<Tick>,
    pub(super) counters: Counters,
}

/// Everything but the swarms, borrowed for one input.
macro_rules! ctx {
    ($self:ident, $now:expr, $actions:expr) => {
        Ctx {
            now: $now,
            me: $self.me,
            config: &$self.config,
            rng: &mut $self.rng,
            peers: &$self.peers,
            dials: &mut $self.dials,
            counters: &mut $self.counters,
            store: &mut $self.store,
            bandwidth: &mut $self.bandwidth,
            actions: $actions,
        }
    };
}

impl Planner {
    /// A planner for the host `me`. The same seed and inputs give the same actions (I19).
    #[must_use]
    pub fn new(config: Config, me: NodeId, seed: u64) -> Self {
        Self {
            store: Allowance::new(config.store_bytes_per_s),
            config,
            me,
            rng: Rng::new(seed),
            peers: BTreeMap::new(),
            dials: Dials::default(),
            swarms: BTreeMap::new(),
            manifests: Manifests::default(),
            smalls: Smalls::default(),
            knocks: BTreeMap::new(),
            uploader: Uploader::default(),
            downlink: Downlink::default(),
            bandwidth: Bandwidth::default(),
            upkeep_at: None,
            counters: Counters::default(),
        }
    }

    /// Takes one input and appends what must be done. Never waits, never fails.
    pub fn handle(&mut self, now: Tick, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::PeerUp { node, same_site } => self.peer_up(node, same_site, now, actions),
            Input::PeerDown { node } => self.peer_down(node, now, actions),
            Input::Frame { from, frame } => {
                if self.peers.contains_key(&from) {
                    self.frame(from, frame, now, actions);
                }
            }
            Input::Join(join) => self.join(*join, now, actions),
            Input::Leave { swarm } => self.leave(swarm, now, actions),
            Input::Roster { topic, members } => match topic {
                Topic::Manifest(m) => {
                    self.manifests.roster(m, members.interested, members.origins);
                }
                Topic::Swarm(s) => {
                    if let Some(s) = self.swarms.get_mut(&s) {
                        s.set_roster(members, self.me, now);
                    }
                }
            },
            Input::PieceArrived { .. }
            | Input::PieceFailed { .. }
            | Input::PieceSent { .. }
            | Input::PieceSendFailed { .. } => self.piece(&input, now, actions),
            Input::Limits(limits) => self.set_limits(&limits, now, actions),
            Input::Deadline => {}
            about_manifest => self.manifest(about_manifest, now, actions),
        }
        self.settle(now, actions);
    }

    /// When to call again with `Input::Deadline`, if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let flush = self.swarms.values().filter_map(|s| s.flush_at).min();
        [self.upkeep_at, flush, self.uploader.wake, self.bandwidth.wake].into_iter().flatten().min()
    }

    /// What follows from every input: upkeep when it is time, announcements, grants.
    fn settle(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let mut ctx = ctx!(self, now, actions);
        if self.upkeep_at.is_none_or(|t| t <= now) {
            for swarm in self.swarms.values_mut() {
                swarm.expire(&self.uploader, &mut ctx);
                swarm.upkeep(&mut ctx);
            }
            store::draw(&mut self.swarms, &mut ctx);
            self.manifests.upkeep(&mut ctx);
            self.upkeep_at = None;
        }
        for swarm in self.swarms.values_mut() {
            swarm.flush(&mut ctx);
        }
        ctx.bandwidth.wake = None;
        self.smalls.settle(&self.manifests, &self.swarms, &mut ctx);
        if ctx.bandwidth.pushed_last {
            self.uploader.pump(&mut self.swarms, &mut ctx);
            children::feed(&mut self.swarms, &mut ctx);
        } else {
            children::feed(&mut self.swarms, &mut ctx);
            self.uploader.pump(&mut self.swarms, &mut ctx);
        }
        if self.upkeep_at.is_none() {
            self.upkeep_at = self.pace(now).map(|ms| now.after_ms(ms));
        }
    }

    /// How soon time alone can change something; `None` if it cannot.
    fn pace(&self, now: Tick) -> Option<u64> {
        let mut pace = self.manifests.wanted().then_some(manifests::PACE_MS);
        for s in self.swarms.values() {
            let gets = !s.complete() && s.role == Role::Leech;
            if s.serves() || (gets && (!s.starved(now) || s.draws())) {
                return Some(UPKEEP_MS);
            }
            if gets {
                pace = Some(pace.unwrap_or(UPKEEP_IDLE_MS));
            }
        }
        pace
    }

    /// What was asked for at other limits is asked for anew.
    fn set_limits(&mut self, limits: &Limits, now: Tick, actions: &mut Vec<Action>) {
        let changed = self.bandwidth.set(limits, now);
        let mut ctx = ctx!(self, now, actions);
        for swarm in self.swarms.values_mut().filter(|_| changed) {
            swarm.unsubscribe_all(&mut ctx);
        }
    }

    fn peer_up(&mut self, node: NodeId, same_site: bool, now: Tick, actions: &mut Vec<Action>) {
        if node == self.me {
            return;
        }
        self.peers.insert(node, same_site);
        self.dials.done(node);
        let mut ctx = ctx!(self, now, actions);
        for swarm in self.swarms.values_mut() {
            swarm.peer_up(node, &mut ctx);
            swarm.parent_up(node, &mut ctx);
        }
        self.manifests.peer_up(node, &mut ctx);
    }

    fn peer_down(&mut self, node: NodeId, now: Tick, actions: &mut Vec<Action>) {
        self.peers.remove(&node);
        let mut ctx = ctx!(self, now, actions);
        for swarm in self.swarms.values_mut() {
            swarm.remove_neighbour(node, &mut ctx);
            swarm.child_gone(node, &mut ctx);
            swarm.parent_lost(node, &mut ctx);
            swarm.standby_gone(node, now);
        }
        self.manifests.peer_down(node, &mut ctx);
        self.smalls.peer_down(node);
        self.knocks.retain(|_, nodes| {
            nodes.remove(&node);
            !nodes.is_empty()
        });
    }

    fn join(&mut self, join: Join, now: Tick, actions: &mut Vec<Action>) {
        let id = join.swarm;
        if self.swarms.contains_key(&id) {
            self.leave(id, now, actions);
        }
        if self.swarms.len() >= SWARMS_MAX {
            return actions.push(Action::Event(Event::TooManySwarms(id)));
        }
        let mut ctx = ctx!(self, now, actions);
        let Some(mut swarm) = Swarm::new(join, &mut ctx) else {
            return actions.push(Action::Event(Event::BadJoin(id)));
        };
        swarm.answer_knocks(self.knocks.remove(&id).unwrap_or_default(), &mut ctx);
        swarm.upkeep(&mut ctx);
        if swarm.complete() && swarm.role == Role::Leech {
            ctx.actions.push(Action::Complete { swarm: id });
        }
        self.swarms.insert(id, swarm);
    }

    fn leave(&mut self, id: SwarmId, now: Tick, actions: &mut Vec<Action>) {
        let Some(mut swarm) = self.swarms.remove(&id) else { return };
        let mut ctx = ctx!(self, now, actions);
        swarm.stop_fetches(&mut ctx);
        swarm.unsubscribe_all(&mut ctx);
        let children = swarm.children.map.keys().map(|(node, _)| *node);
        let nodes: BTreeSet<NodeId> = swarm.neighbours.keys().copied().chain(children).collect();
        for node in nodes {
            swarm.remove_neighbour(node, &mut ctx);
            swarm.child_gone(node, &mut ctx);
            ctx.send(node, TransferFrame::Close(id));
        }
    }

    fn manifest(&mut self, input: Input, now: Tick, actions: &mut Vec<Action>) {
        let mut ctx = ctx!(self, now, actions);
        let all = &mut self.manifests;
        match input {
            Input::WantManifest { manifest, interested, origins, urgency, size, small } => {
                all.want(manifest, (urgency, size, small), (interested, origins), &mut ctx);
            }
            Input::HaveManifest { manifest } => all.have(manifest, &mut ctx),
            Input::DropManifest { manifest } => all.drop_manifest(manifest, &mut ctx),
            Input::ManifestArrived { manifest, from } => all.arrived(manifest, from, &mut ctx),
            Input::ManifestFailed { manifest, from, fault } => {
                all.failed(manifest, from, fault, &mut ctx);
            }
            Input::ManifestSent { manifest, to } => all.sent(manifest, to),
            _ => {}
        }
    }

    fn piece(&mut self, input: &Input, now: Tick, actions: &mut Vec<Action>) {
        let mut ctx = ctx!(self, now, actions);
        let swarms = &mut self.swarms;
        match *input {
            Input::PieceArrived { swarm, piece, from } => {
                if let Some(s) = swarms.get_mut(&swarm) {
                    self.downlink.add(s.len_of(piece), now);
                    s.arrived(piece, from, &mut ctx);
                }
                if from == ORIGIN_STORE {
                    store::draw(swarms, &mut ctx);
                }
            }
            Input::PieceFailed { swarm, piece, from, fault } => {
                let Some(s) = swarms.get_mut(&swarm) else { return };
                if from == ORIGIN_STORE {
                    s.draw_failed(piece, fault, &mut ctx);
                } else {
                    s.failed(piece, from, fault, &mut ctx);
                }
            }
            Input::PieceSent { swarm, piece, to, bytes: _ } => {
                if let Some(s) = swarms.get_mut(&swarm) {
                    if s.pushed(to, piece, true, now) {
                        ctx.counters.pushed += 1;
                        ctx.counters.pushed_bytes += s.len_of(piece);
                        self.uploader.uplink.sent(s.len_of(piece), now);
                    } else {
                        self.uploader.sent(s, to, piece, now);
                    }
                }
            }
            Input::PieceSendFailed { swarm, piece, to } => {
                if let Some(s) = swarms.get_mut(&swarm)
                    && !s.pushed(to, piece, false, now)
                {
                    s.send_failed(to, piece);
                }
            }
            _ => {}
        }
    }

    fn frame(&mut self, from: NodeId, frame: TransferFrame, now: Tick, actions: &mut Vec<Action>) {
        use TransferFrame as F;
        let (swarm, frame) = match frame {
            F::Interest(_)
            | F::HasManifest(_)
            | F::GetManifest(_)
            | F::Busy { .. }
            | F::GetSmall { .. }
            | F::Small { .. } => return self.manifest_frame(from, frame, now, actions),
            F::Open { swarm, .. }
            | F::Have { swarm, .. }
            | F::Grant { swarm, .. }
            | F::Request { swarm, .. }
            | F::Cancel { swarm, .. }
            | F::Rare { swarm, .. }
            | F::Refuse { swarm, .. }
            | F::Subscribe { swarm, .. }
            | F::Unsubscribe { swarm, .. }
            | F::Pass(swarm)
            | F::Close(swarm) => (swarm, frame),
        };
        let room = matches!(frame, F::Grant { .. })
            .then(|| Room::of(&self.swarms, (swarm, from), self.downlink.peak(), now));
        let mut ctx = ctx!(self, now, actions);
        if let Some(s) = self.swarms.get_mut(&swarm) {
            return s.frame(from, frame, room, &mut ctx);
        }
        match frame {
            F::Open { .. } => {
                knock(&mut self.knocks, swarm, from);
                ctx.send(from, F::Close(swarm));
            }
            F::Subscribe { .. } => ctx.send(from, F::Close(swarm)),
            F::Close(_) => forget_knock(&mut self.knocks, swarm, from),
            // A grant for a swarm that we left is passed, so that it does not wait for its end.
            F::Grant { .. } => ctx.send(from, F::Pass(swarm)),
            _ => {}
        }
    }

    fn manifest_frame(
        &mut self,
        from: NodeId,
        frame: TransferFrame,
        now: Tick,
        actions: &mut Vec<Action>,
    ) {
        let mut ctx = ctx!(self, now, actions);
        let all = &mut self.manifests;
        match frame {
            TransferFrame::Interest(m) => all.interest(m, from, &mut ctx),
            TransferFrame::HasManifest(m) => all.held(m, from, &mut ctx),
            TransferFrame::GetManifest(m) => all.asked(m, from, &mut ctx),
            TransferFrame::Busy { manifest, retry_ms } => {
                all.busy(manifest, from, retry_ms, &mut ctx);
            }
            TransferFrame::GetSmall { manifest, swarm } => {
                self.smalls.asked((manifest, swarm), from, (all, &self.swarms), &mut ctx);
            }
            TransferFrame::Small { manifest, swarm, bytes } => {
                small::came(all, (manifest, swarm), from, bytes.into_vec(), &mut ctx);
            }
            _ => {}
        }
    }
}

/// Remembers who opened to a swarm that we are not in.
fn knock(knocks: &mut BTreeMap<SwarmId, BTreeSet<NodeId>>, swarm: SwarmId, from: NodeId) {
    if !knocks.contains_key(&swarm) && knocks.len() >= KNOCKS_MAX {
        return;
    }
    let nodes = knocks.entry(swarm).or_default();
    if nodes.len() < KNOCKERS_MAX {
        nodes.insert(from);
    }
}

fn forget_knock(knocks: &mut BTreeMap<SwarmId, BTreeSet<NodeId>>, swarm: SwarmId, from: NodeId) {
    if let Some(nodes) = knocks.get_mut(&swarm) {
        nodes.remove(&from);
        if nodes.is_empty() {
            knocks.remove(&swarm);
        }
    }
}
