//! Shuffles: now and then two neighbours exchange some hosts, so that passive views stay fresh.
//!
//! A reply is taken only for the shuffle that is outstanding, from the neighbour that was asked,
//! and no longer than what was sent. Other replies change nothing, and many of them end the link
//! (attack G3).

use std::sync::Arc;

use stork_wire::codec::List;
use stork_wire::frame::OverlayFrame;
use stork_wire::ids::NodeId;
use stork_wire::limits::HINTS_MAX;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Class, Peer, Why};

/// A shuffle every minute, give or take half (protocol.md §3a rule 6).
const SHUFFLE_EVERY_MS: u64 = 60_000;
/// The same where the whole fleet is in the roster, which hears of every change: 6 kB that tell
/// hardly anything.
const SMALL_EVERY_MS: u64 = 300_000;
/// An answer that takes longer is not taken any more.
const REPLY_WAIT_MS: u64 = 10_000;

#[derive(Debug)]
struct Asked {
    node: NodeId,
    nonce: u64,
    sent: usize,
    until: Tick,
}

/// When the next shuffle is due, and which one is outstanding.
#[derive(Debug)]
pub(super) struct Shuffles {
    pub(super) next: Tick,
    asked: Option<Asked>,
}

impl Shuffles {
    pub(super) const fn new() -> Self {
        Self { next: Tick(SHUFFLE_EVERY_MS / 2), asked: None }
    }
}

impl Overlay {
    pub(super) fn shuffle_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if now < self.shuffles.next {
            return;
        }
        let every = if self.fleet_is_large() { SHUFFLE_EVERY_MS } else { SMALL_EVERY_MS };
        let wait = every / 2 + self.rng.below(every);
        self.shuffles.next = now.after_ms(wait);
        let links: Vec<NodeId> = self.links.keys().copied().collect();
        let (Some(to), Some(me)) = (self.rng.pick(&links), self.local.clone()) else { return };
        let nonce = self.rng.next();
        let mut peers = self.some_peers(to, HINTS_MAX - 1);
        peers.push(me);
        let asked =
            Asked { node: to, nonce, sent: peers.len(), until: now.after_ms(REPLY_WAIT_MS) };
        self.shuffles.asked = Some(asked);
        let peers = List::truncated(peers.iter().map(|p| p.hint.clone()));
        self.send(now, to, OverlayFrame::Shuffle { nonce, peers }, Class::Lazy, actions);
    }

    /// A neighbour shuffles with this node: it gets as many hosts as it sent.
    pub(super) fn on_shuffle(
        &mut self,
        now: Tick,
        from: NodeId,
        nonce: u64,
        peers: &[Arc<Peer>],
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.links.get_mut(&from) else { return };
        if !link.shuffle_rate.take(now, 1) {
            return;
        }
        let reply = self.some_peers(from, peers.len().min(HINTS_MAX));
        let reply = List::truncated(reply.iter().map(|p| p.hint.clone()));
        let frame = OverlayFrame::ShuffleReply { nonce, peers: reply };
        self.send(now, from, frame, Class::Lazy, actions);
        for peer in peers.iter().take(HINTS_MAX) {
            self.learn(now, peer, Some(from));
        }
    }

    /// The answer to this node's own shuffle, or something that nobody asked for.
    pub(super) fn on_shuffle_reply(
        &mut self,
        now: Tick,
        from: NodeId,
        nonce: u64,
        peers: &[Arc<Peer>],
        actions: &mut Vec<Action>,
    ) {
        let fits = |a: &Asked| a.node == from && a.nonce == nonce && now <= a.until;
        let Some(asked) = self.shuffles.asked.take_if(|a| fits(a)) else {
            self.counters.unsolicited += 1;
            let Some(link) = self.links.get_mut(&from) else { return };
            if !link.strange_rate.take(now, 1) {
                self.close(now, from, Why::Misbehaved, actions);
            }
            return;
        };
        for peer in peers.iter().take(asked.sent) {
            self.learn(now, peer, Some(from));
        }
    }
}
