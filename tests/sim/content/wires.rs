//! What planners ask for, and the way of a piece: the uplink of its sender, the link of its site
//! and of the other where it crosses, and the downlink of its receiver.

use stork_node::transfer::{Action, Input};
use stork_wire::ids::SwarmId;
use stork_wire::tick::Tick;

use super::world::{BETWEEN_US, Ev, IN_SITE_US, Job, TOLD_MAX, World, node, number};
use super::{check, links};
use crate::rng::mix2;

impl World {
    /// Gives a planner an input, and does what it says.
    pub(super) fn call(&mut self, i: u32, input: Input) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.alive && h.joined) else {
            return;
        };
        if let Input::PieceArrived { piece, .. } = &input {
            host.truth.insert(*piece);
        }
        let mut actions = Vec::new();
        let tick = Tick(now / 1_000);
        host.planner.handle(tick, input, &mut actions);
        if let Some(why) = check::host(host, &actions, self.events, tick) {
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
            Action::SendPiece { to, piece, .. } => {
                let bytes = self.lens.get(piece as usize).map_or(0, |l| u64::from(*l));
                let Some(host) = self.hosts.get_mut(i as usize) else { return };
                host.queue.push_back(Job { to: number(to), piece, bytes });
                if host.queue.len() == 1 {
                    self.next_turn(i);
                }
            }
            Action::StopPiece { to, swarm, piece } => {
                let Some(host) = self.hosts.get_mut(i as usize) else { return };
                let is_it = |j: &Job| j.to == number(to) && j.piece == piece;
                let Some(at) = host.queue.iter().position(is_it) else { return };
                host.queue.remove(at);
                if at == 0 {
                    self.next_turn(i);
                }
                let failed = Input::PieceSendFailed { swarm, piece, to };
                self.at(now, Ev::Call(i, Box::new(failed)));
            }
            Action::Complete { .. } => {
                if let Some(host) = self.hosts.get_mut(i as usize).filter(|h| h.done.is_none()) {
                    host.done = Some(now);
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
        self.at(at, Ev::Arrive { from, to: job.to, piece: job.piece });
    }

    pub(super) fn sent(&mut self, from: u32, job: Job) {
        let swarm = SwarmId([7; 32]);
        let bytes = u32::try_from(job.bytes).unwrap_or(u32::MAX);
        self.call(from, Input::PieceSent { swarm, piece: job.piece, to: node(job.to), bytes });
    }

    pub(super) fn arrive(&mut self, from: u32, to: u32, piece: u32) {
        let swarm = SwarmId([7; 32]);
        let Some(host) = self.hosts.get_mut(to as usize).filter(|h| h.alive) else { return };
        host.got += 1;
        if host.truth.contains(piece) || !host.planner.expects(node(from), swarm, piece) {
            // The shell refuses the stream; what it cost is counted.
            host.wasted += 1;
            return;
        }
        self.call(to, Input::PieceArrived { swarm, piece, from: node(from) });
    }
}
