//! Liveness: pings on the control stream, and what they carry.
//!
//! QUIC keeps a connection alive whose sending task is stuck, so a link lives only as long as
//! frames of the other side arrive (protocol.md §3a rule 4). Pings carry the class of the link, so
//! that a link which only one side knows is found, and the fingerprint of all heads, so that a
//! difference is found (§3d).
//!
//! Hosts die in crowds: a rack, a switch, a power line. So a link whose ping is not answered in a
//! few round trips is doubted, and then all others are asked at once; so is the parent of a tree of
//! which an item had to come another way. Doubt costs a ping. It ends no link, but what is left
//! when doubted links are not counted decides whether a host looks for others at once. A host whose
//! neighbours have all died hears nothing that it could wonder about, but that it hears nothing: of
//! eight links one or two speak each second.

use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::NodeId;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Class, Why};
use super::links::{Dialled, Link};

/// A ping where nothing was sent, nor asked by the other end, for this long (protocol.md §3a 4).
const PING_AFTER_MS: u64 = 5_000;
/// The same while no head has changed here for so long, nor differs from the neighbour's.
const PING_CALM_MS: u64 = 8_000;
const CALM_MS: u64 = 60_000;
/// So much sooner asks the end whose turn it is, and again the one that was told of no link.
const TURN_MS: u64 = 500;
const CONTRADICTED_MS: u64 = 2_000;
/// A ping at least this often even on a busy link, for the fingerprint's sake.
const PING_EVERY_MS: u64 = 15_000;
/// No frame for this long: the link is dead (rule 4). The same where a ping was not answered, nor
/// anything else sent, for so long.
const SILENT_MS: u64 = 10_000;
const UNANSWERED_MS: u64 = 4_000;
/// A ping that is not answered for so long, or four round trips, is a reason to doubt.
const DOUBT_MS: u64 = 500;
/// Who was heard of in this time is not doubted for what others say or do not say.
const HEARD_MS: u64 = 250;
/// So many pongs in a row with another class end a link (rule 2).
const DISAGREED_MAX: u8 = 2;

/// Who has so many links, and heard nothing by any of them for so long, asks one.
const QUIET_LINKS: usize = 6;
const QUIET_MS: u64 = 1_000;
const QUIET_CALM_MS: u64 = 1_250;

/// When anything was heard by any link, when somebody was asked because nothing was, and when a
/// head last changed here.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    pub(super) heard: Tick,
    asked: Tick,
    pub(super) moved: Tick,
}

impl Link {
    fn ping_at(&self, calm: bool) -> Tick {
        if self.disagreed > 0 {
            return self.pinged.after_ms(CONTRADICTED_MS);
        }
        let wait = if calm && self.differs.is_none() { PING_CALM_MS } else { PING_AFTER_MS };
        let wait = if self.our_turn { wait - TURN_MS } else { wait };
        let idle = self.sent.max(self.pinged).max(self.asked).after_ms(wait);
        idle.min(self.pinged.after_ms(PING_EVERY_MS))
    }
    fn dead_at(&self) -> Tick {
        // A calm link is asked later, and then has as long to answer.
        let late = self.pinged.max(self.heard).since(self.heard).saturating_sub(PING_AFTER_MS);
        let silent = self.heard.after_ms(SILENT_MS + late.min(PING_CALM_MS - PING_AFTER_MS));
        self.owing().map_or(silent, |at| silent.min(at.after_ms(UNANSWERED_MS)))
    }

    /// When the ping was sent since which nothing came.
    fn owing(&self) -> Option<Tick> {
        self.ping.map(|(_, at)| at).filter(|at| self.heard < *at)
    }

    /// When something is to be done about this link.
    fn act_at(&self, calm: bool) -> Tick {
        let at = self.ping_at(calm).min(self.dead_at());
        self.doubt_at().map_or(at, |doubt| at.min(doubt))
    }

    /// When this link will be doubted.
    fn doubt_at(&self) -> Option<Tick> {
        let wait = self.rtt_ms.saturating_mul(4).max(DOUBT_MS);
        self.owing().filter(|_| !self.doubted).map(|at| at.after_ms(wait))
    }
}

impl Overlay {
    pub(super) fn live_deadline(&self) -> Option<Tick> {
        let calm = self.is_calm(self.now);
        self.links.values().map(|l| l.act_at(calm)).chain(self.quiet_at()).min()
    }

    /// Has nothing happened in any log for a while?
    const fn is_calm(&self, now: Tick) -> bool {
        now.since(self.quiet.moved) >= CALM_MS
    }

    fn quiet_at(&self) -> Option<Tick> {
        let wait = if self.is_calm(self.now) { QUIET_CALM_MS } else { QUIET_MS };
        let at = self.quiet.heard.max(self.quiet.asked).after_ms(wait);
        (self.links.len() >= QUIET_LINKS).then_some(at)
    }

    /// Asks the neighbour that was silent longest.
    fn quiet_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if self.quiet_at().is_none_or(|at| at > now) {
            return;
        }
        self.quiet.asked = now;
        let calm = self.links.iter().filter(|(_, l)| l.owing().is_none());
        if let Some(node) = calm.min_by_key(|(_, l)| l.heard).map(|(n, _)| *n) {
            self.ping(now, node, actions);
        }
    }

    pub(super) fn live_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        self.quiet_due(now, actions);
        let calm = self.is_calm(now);
        let due = self.links.iter().filter(|(_, l)| l.act_at(calm) <= now);
        let due: Vec<NodeId> = due.map(|(n, _)| *n).collect();
        for node in due {
            let Some(link) = self.links.get(&node) else { continue };
            if link.dead_at() <= now {
                self.close(now, node, Why::Silent, actions);
                self.doubt_all(now, actions);
            } else if link.ping_at(calm) <= now {
                self.ping(now, node, actions);
            } else if link.doubt_at().is_some_and(|at| at <= now) {
                if let Some(link) = self.links.get_mut(&node) {
                    link.doubted = true;
                }
                self.doubt_all(now, actions);
                self.refill_if_starving(now);
            }
        }
    }

    /// One neighbour may be dead: are the others?
    pub(super) fn doubt_all(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            self.doubt(now, node, actions);
        }
    }

    /// A neighbour did not do what was to be expected: is it there?
    pub(super) fn doubt(&mut self, now: Tick, node: NodeId, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get(&node) else { return };
        if link.owing().is_none() && now.since(link.heard) >= HEARD_MS {
            self.ping(now, node, actions);
        }
    }

    /// Begins a new link: a ping at once, and the roster where the host is new or was away.
    pub(super) fn greet(
        &mut self,
        now: Tick,
        node: NodeId,
        with_roster: bool,
        actions: &mut Vec<Action>,
    ) {
        self.ping(now, node, actions);
        if with_roster {
            self.queue_roster(now, node);
        }
    }

    pub(super) fn ping(&mut self, now: Tick, node: NodeId, actions: &mut Vec<Action>) {
        let nonce = u32::try_from(self.rng.next() >> 32).unwrap_or(0);
        let fingerprint = self.heads.cut();
        let Some(link) = self.link_mut(&node) else { return };
        (link.pinged, link.ping, link.our_turn) = (now, Some((nonce, now)), false);
        let class = link.class;
        let frame = OverlayFrame::Ping { nonce, fingerprint, class, carries: self.carries };
        self.send(now, node, frame, Class::Control, actions);
    }

    /// Answers a ping, also of a host that believes in a link which is none: so it learns better.
    pub(super) fn on_ping(
        &mut self,
        now: Tick,
        from: NodeId,
        (nonce, theirs, carries): (u32, [u8; 8], u64),
        actions: &mut Vec<Action>,
    ) {
        let fingerprint = self.heads.cut();
        let mut class = LinkClass::Transient;
        if let Some(link) = self.links.get_mut(&from) {
            (class, link.carries) = (link.class, carries);
            // Where both have asked at once the dialler does so next time, and the other does not.
            link.our_turn = link.ping.is_none() || link.dialled == Dialled::Here;
            link.asked = now;
        }
        let frame = OverlayFrame::Pong { nonce, fingerprint, class };
        self.send(now, from, frame, Class::Control, actions);
        self.compare(now, from, theirs);
    }

    pub(super) fn on_pong(
        &mut self,
        now: Tick,
        from: NodeId,
        pong: (u32, [u8; 8], LinkClass),
        actions: &mut Vec<Action>,
    ) {
        let (nonce, theirs, class) = pong;
        let Some(link) = self.link_mut(&from) else { return };
        let Some((_, at)) = link.ping.take_if(|(n, _)| *n == nonce) else {
            self.counters.unsolicited += 1;
            return;
        };
        let sample = now.since(at);
        let known = core::mem::replace(&mut link.rtt_known, true);
        link.rtt_ms = if known { (link.rtt_ms * 7 + sample) / 8 } else { sample };
        link.disagreed = if class == link.class { 0 } else { link.disagreed + 1 };
        if link.disagreed >= DISAGREED_MAX {
            self.unlink(now, from, Why::Disagreed, actions);
            return;
        }
        self.compare(now, from, theirs);
        self.sync_if_due(now, from, actions);
    }
}
