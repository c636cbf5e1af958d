//! Between the overlay and the wire: what the machine asks for is done here.

use std::sync::Arc;

use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, Hello, LinkClass, PROTOCOL_VERSION, PeerHint};
use stork_wire::ids::NodeId;

use super::Driver;
use crate::net::Priority;
use crate::overlay::{Action, Class, Event, Input, Peer};

/// A peer of whose outbox nothing leaves for so long does not read; as long as a silent one gets.
const STUCK_MS: u64 = 10_000;

impl Driver {
    /// Gives the overlay an input, and does what it asks for.
    pub(super) fn overlay_input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.overlay.handle(self.clock.tick(), input, &mut actions);
        for action in actions {
            self.overlay_action(action);
        }
    }

    fn overlay_action(&mut self, action: Action) {
        match action {
            Action::Send { to, frame, class } => {
                let priority = match class {
                    Class::Control => Priority::Control,
                    Class::News => Priority::News,
                    Class::Lazy => Priority::Lazy,
                };
                let knows = self.connections.get(&to).map_or(0, |link| link.knows);
                self.send(to, priority, &Frame::Overlay(frame.shortened(knows)));
            }
            Action::Dial { peer, class: LinkClass::Transient, .. }
                if self.connections.contains_key(&peer.node) =>
            {
                // For a question, the connection that carries content does as well.
                let (class, hints) = (LinkClass::Transient, Vec::new());
                self.overlay_input(Input::Linked { peer, class, hints });
            }
            Action::Dial { peer, class, starving } => self.dial(&peer, class, starving),
            Action::Answer { to, class, hints } => self.answer_hello(to, class, hints),
            Action::Close { node, why } => {
                if let Some(link) = self.connections.get(&node) {
                    let why = format!("{why:?}").to_lowercase();
                    link.connected.connection.close(0u32.into(), why.as_bytes());
                }
            }
            Action::Deliver { from, item, .. } => self.on_delivered(from, item),
            Action::ReadItems { to, ranges } => self.send_items(to, ranges),
            Action::Summarise(cell) => {
                self.record.cell = cell;
                self.refresh_record();
            }
            Action::SavePeers(hints) => {
                let list: List<PeerHint, 1_024> = List::truncated(hints);
                let store = Arc::clone(&self.store);
                self.workers.disk(move || {
                    if let Err(e) = store.put_state("peers", &encode(&list)) {
                        tracing::warn!("known hosts are not saved: {e}");
                    }
                    None
                });
            }
            Action::Event(event) => self.overlay_event(&event),
        }
    }

    fn overlay_event(&mut self, event: &Event) {
        match event {
            Event::LinkUp { node, class } => {
                if let Some(link) = self.connections.get_mut(node) {
                    link.class = *class;
                }
                self.counters.add("links", "up");
            }
            Event::LinkDown { node, why } => {
                if let Some(link) = self.connections.get_mut(node) {
                    link.class = LinkClass::Transient;
                }
                self.counters.add("links", "down");
                tracing::debug!(peer = %node.short(), ?why, "link down");
            }
            Event::MergeProbe { .. } => self.counters.add("merge_probes", "sent"),
            Event::Comparing { .. } => self.counters.add("syncs", "begun"),
            Event::ForkSeen { node, theirs, ours } => {
                self.counters.add("forks", "seen");
                let text = format!(
                    "{} has another item {} in log {}",
                    node.short(),
                    theirs.seq.min(ours.seq),
                    ours.log.short()
                );
                self.event("fork_seen", text);
            }
        }
    }

    /// Dials a host, unless that is under way or done.
    pub(super) fn dial(&mut self, peer: &Peer, class: LinkClass, starving: bool) {
        let Some(own) = self.own_hint() else { return };
        if peer.node == self.me || !self.dialling.insert(peer.node) {
            return;
        }
        let fleet = self.trust.fleet();
        let hello = Hello { protocol: PROTOCOL_VERSION, fleet, peer: own, class, starving };
        self.net.dial(peer.node, peer.addrs.clone(), Box::new(hello));
    }

    /// Queues a frame for a host; one that does not read is closed.
    pub(super) fn send(&mut self, to: NodeId, priority: Priority, frame: &Frame) {
        let Some(link) = self.connections.get_mut(&to) else { return };
        if link.connected.outbox.push(priority, frame.to_bytes()).is_err() {
            self.close_stuck(to);
        } else if !core::mem::replace(&mut link.unsent, true) {
            self.unsent.push(to);
        }
    }

    /// Hands over what was queued in this turn of the loop: frames for one host go together.
    pub(super) fn write_out(&mut self) {
        for node in core::mem::take(&mut self.unsent) {
            if let Some(link) = self.connections.get_mut(&node) {
                link.unsent = false;
                link.connected.outbox.write();
            }
        }
    }

    /// Closes peers for which frames wait of which none was sent for a while: also one that reads
    /// nothing, but for which too little is to be said to fill its outbox (attack G15).
    pub(super) fn watch_outboxes(&mut self) {
        let now = self.clock.tick();
        let mut stuck = Vec::new();
        for (node, link) in &mut self.connections {
            let (waiting, _) = link.connected.outbox.level();
            let popped = link.connected.outbox.popped();
            link.stuck = match link.stuck {
                _ if waiting == 0 => None,
                Some((before, since)) if before == popped => {
                    if now.since(since) >= STUCK_MS {
                        stuck.push(*node);
                    }
                    link.stuck
                }
                _ => Some((popped, now)),
            };
        }
        for node in stuck {
            self.close_stuck(node);
        }
    }

    fn close_stuck(&mut self, node: NodeId) {
        let Some(link) = self.connections.get(&node) else { return };
        // What comes after the first frame that did not fit finds it closed already.
        if link.connected.connection.close_reason().is_none() {
            link.connected.connection.close(1u32.into(), b"you do not read");
            self.counters.add("peers_at_fault", "stuck");
            self.event("peer_at_fault", format!("{}: it does not read", node.short()));
        }
    }
}
