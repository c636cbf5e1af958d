//! What planners ask for, and the way of a piece: the uplink of its sender, the link of its site
//! and of the other where it crosses, and the downlink of its receiver.

use stork_node::transfer::{Action, Input};
use stork_wire::ids::{NodeId, SwarmId};
use stork_wire::tick::Tick;

use super::world::{BETWEEN_US, Ev, IN_SITE_US, Job, TOLD_MAX, World};
use super::{check, links};
use crate::rng::mix2;

pub(super) fn node(i: u32) -> NodeId {
    let mut id = [0; 32];
    for (n, chunk) in (0u64..).zip(id.chunks_mut(8)) {
        let word = mix2(0x00c0_ffee, u64::from(i) << 3 | n);
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    id[24..28].copy_from_slice(&i.to_be_bytes());
    NodeId(id)
}

pub(super) fn number(id: NodeId) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&id.0[24..28]);
    u32::from_be_bytes(bytes)
}

impl World {
    /// Gives a planner an input, and does what it says.
    pub(super) fn call(&mut self, i: u32, input: Input) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.alive && h.joined) else {
            return;
        };
        if let Input::PieceArrived { swarm, piece, .. } = &input {
            let content = self.contents.iter().position(|c| c.swarm == *swarm).unwrap_or(0);
            if let Some(truth) = host.truth.get_mut(content) {
                truth.insert(*piece);
            }
        }
        let mut actions = Vec::new();
        let tick = Tick(now / 1_000);
        host.planner.handle(tick, input, &mut actions);
        if let Some(why) = check::host(host, &self.contents, &actions, self.events, tick) {
            self.violations += 1;
            if self.violated.len() < TOLD_MAX {
                self.violated.push(format!("host {i} at {now} us: {why}"));
            }
        }
        self.trace = mix2(self.trace, now << 20 ^ u64::from(i) << 8 ^ actions.len() as u64);
        for action in actions {
            self.act(i, action);
        }
        let Some(host) = self.hosts.get_mut(i as usize) else { return };
        if let Some(t) = host.planner.deadline() {
            let us = (t.0 * 1_000).max(now + 1);
            if us < host.wake {
                host.wake = us;
                self.at(us, Ev::Wake(i));
            }
        }
    }

    fn act(&mut self, i: u32, action: Action) {
        let now = self.now;
        match action {
            Action::Send { to, frame } => {
                let to = number(to);
                self.at(now + self.latency(i, to), Ev::Frame(i, to, Box::new(frame)));
            }
            Action::Connect { node } => {
                let to = number(node);
                self.at(now + 3 * self.latency(i, to), Ev::Connect(i, to));
            }
            Action::SendPiece { to, swarm, piece } => {
                let content = self.content(swarm);
                let lens = self.contents.get(content).map(|c| &c.lens);
                let bytes = lens.and_then(|l| l.get(piece as usize)).map_or(0, |l| u64::from(*l));
                let Some(host) = self.hosts.get_mut(i as usize) else { return };
                host.queue.push_back(Job { to: number(to), content, piece, bytes });
                if host.queue.len() == 1 {
                    self.next_turn(i);
                }
            }
            Action::StopPiece { to, swarm, piece } => {
                let content = self.content(swarm);
                let Some(host) = self.hosts.get_mut(i as usize) else { return };
                let is_it =
                    |j: &Job| j.to == number(to) && j.piece == piece && j.content == content;
                let Some(at) = host.queue.iter().position(is_it) else { return };
                host.queue.remove(at);
                if at == 0 {
                    self.next_turn(i);
                }
                let failed = Input::PieceSendFailed { swarm, piece, to };
                self.at(now, Ev::Call(i, Box::new(failed)));
            }
            Action::Complete { swarm } => {
                let content = self.content(swarm);
                let Some(host) = self.hosts.get_mut(i as usize) else { return };
                if let Some(done @ None) = host.done.get_mut(content) {
                    *done = Some(now);
                    self.open -= 1;
                }
            }
            _ => {}
        }
    }

    pub(super) fn next_turn(&mut self, i: u32) {
        let Some(host) = self.hosts.get_mut(i as usize) else { return };
        host.turn += 1;
        if let Some(job) = host.queue.front() {
            let (turn, us) = (host.turn, job.bytes * 1_000 / host.fate.up);
            self.at(self.now + us, Ev::Turn(i, turn));
        }
    }

    pub(super) fn turn_over(&mut self, i: u32, turn: u64) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.alive && h.turn == turn)
        else {
            return;
        };
        let Some(job) = host.queue.pop_front() else { return };
        host.sent_bytes += job.bytes;
        let (up, site) = (host.fate.up, host.site as usize);
        self.next_turn(i);
        if !self.crosses(i, job.to) {
            self.at(now + IN_SITE_US, Ev::Down { from: i, job });
            return self.sent(i, job);
        }
        let Some(out) = self.wan_up_free.get_mut(site) else { return };
        // Bytes go through as they come: it is as late as the slowest link makes it.
        let began = (now - job.bytes * 1_000 / up).max(*out);
        *out = began + job.bytes * 1_000 / links::wan(self.options.links);
        let left = (*out).max(now);
        self.at(left, Ev::Sent { from: i, job });
        self.at(left + BETWEEN_US, Ev::Into { from: i, job });
    }

    /// A piece has crossed, and goes through the link of the other site.
    pub(super) fn enter_site(&mut self, from: u32, job: Job) {
        let site = (job.to % self.options.sites) as usize;
        let takes = job.bytes * 1_000 / links::wan(self.options.links);
        let Some(into) = self.wan_down_free.get_mut(site) else { return };
        *into = (*into + takes).max(self.now);
        let at = *into;
        if let Some(bytes) = self.wan_in.get_mut(site) {
            *bytes += job.bytes;
        }
        self.at(at, Ev::Down { from, job });
    }

    /// A piece goes through the downlink of its receiver.
    pub(super) fn down(&mut self, from: u32, job: Job) {
        let Some(to) = self.hosts.get_mut(job.to as usize) else { return };
        to.down_free = (to.down_free + job.bytes * 1_000 / to.fate.down).max(self.now);
        let at = to.down_free;
        self.at(at, Ev::Arrive { from, job });
    }

    pub(super) fn sent(&mut self, from: u32, job: Job) {
        let swarm = self.swarm_of(job);
        let bytes = u32::try_from(job.bytes).unwrap_or(u32::MAX);
        self.call(from, Input::PieceSent { swarm, piece: job.piece, to: node(job.to), bytes });
    }

    fn swarm_of(&self, job: Job) -> SwarmId {
        self.contents.get(job.content).map_or(SwarmId([0; 32]), |c| c.swarm)
    }

    pub(super) fn arrive(&mut self, from: u32, job: Job) {
        let (swarm, piece) = (self.swarm_of(job), job.piece);
        let Some(host) = self.hosts.get_mut(job.to as usize).filter(|h| h.alive) else { return };
        host.got += 1;
        let here = host.truth.get(job.content).is_some_and(|t| t.contains(piece));
        if here || !host.planner.expects(node(from), swarm, piece) {
            // The shell refuses the stream; what it cost is counted.
            host.wasted += 1;
            return;
        }
        self.call(job.to, Input::PieceArrived { swarm, piece, from: node(from) });
    }
}
