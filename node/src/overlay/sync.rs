//! Sync: comparing heads. This, not the broadcast, guarantees that every item reaches every host.
//!
//! Fingerprints in pings show that two hosts differ. Then one of them looks where: with a sketch
//! (`reconcile`), or, where there are few logs or a sketch was of no use, by an exchange of all
//! heads; and each asks for what it lacks (protocol.md §3d). A sketch only saves bytes: as long as
//! fingerprints differ, one comparison follows another, and the full heads are always right.

use stork_wire::codec::List;
use stork_wire::frame::{LinkClass, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Head;
use stork_wire::limits::HEADS_PER_FRAME_MAX;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Class, Event};
use super::links::Pair;
use super::reconcile::Asked;

/// Comparisons with neighbours at once (protocol.md §3d), and one more with the host that is
/// visited: neighbours that never answer must not keep all places (attack G11).
const NEIGHBOUR_SESSIONS_MAX: usize = 2;
pub(super) const SESSIONS_MAX: usize = NEIGHBOUR_SESSIONS_MAX + 1;
/// A comparison that takes longer is given up.
const SESSION_MS: u64 = 10_000;
/// A host that compares with this one is not compared with for so long.
const ASKED_MS: u64 = 2_000;
/// Fingerprints must differ so long: news on its way make them differ for a moment (§3d).
const DIFFER_MS: u64 = 2_000;
/// The same where they change meanwhile.
const DIFFER_MS_MAX: u64 = 15_000;
/// Heads begin to go to one host at most once in this time.
const HEADS_EVERY_MS: u64 = 1_000;
/// One frame of heads (43 kB) leaves in this time, so that all heads of 32 768 logs (1.4 MB) never
/// fill an outbox of 256 KiB, nor delay other frames.
const HEADS_PAGE_MS: u64 = 100;
/// Up to so many logs, full heads (43 B each) are sent at once: a sketch saves little there.
const FULL_LOGS_MAX: usize = 16;
/// Wait after a comparison that brought nothing, doubled each time up to the bound below.
const FRUITLESS_MS: u64 = 2_000;
const FRUITLESS_MS_MAX: u64 = 600_000;
/// The longest such wait where a fingerprint has changed since.
const CHANGED_MS: u64 = 30_000;
/// At the latest after this, a random neighbour that differs is compared with, whatever its pings
/// did, and a random host without a link is asked (G11). Drawn anew each time, down to two thirds.
pub(super) const RANDOM_EVERY_MS: u64 = 30_000;
/// Forks that were reported; a fork is reported once.
pub(super) const FORKS_MAX: usize = 256;

/// One comparison under way: with a sketch, or with full heads.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) since: Tick,
    pub(super) sketch: Option<Asked>,
}

/// Full heads that are on their way out, page by page.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadsOut {
    after: Option<LogId>,
    answer: bool,
    next: Tick,
}

impl Overlay {
    /// A fingerprint came in a ping or pong.
    pub(super) fn compare(&mut self, now: Tick, from: NodeId, theirs: [u8; 8]) {
        let pair = (self.heads.cut(), theirs);
        let Some(link) = self.link_mut(&from) else { return };
        if pair.0 == theirs {
            link.compared = true;
            (link.differs, link.sync_fails, link.sync_after) = (None, 0, now);
        } else {
            // News in flight change one of the two between any two pings: what is lacking for long
            // stays different while neither changes, or however often they change.
            let begun = link.differs.map_or(now, |(begun, _)| begun);
            let still = link.still.filter(|(_, p)| *p == pair).map_or(now, |(since, _)| since);
            (link.differs, link.still) = (Some((begun, theirs)), Some((still, pair)));
        }
    }

    /// Begins a comparison with a host that differs: at once after its first pong, later when it
    /// has differed for a while. Only the side that asked begins, or both would at once.
    pub(super) fn sync_if_due(&mut self, now: Tick, from: NodeId, actions: &mut Vec<Action>) {
        let Some(link) = self.link_mut(&from) else { return };
        let Some((begun, theirs)) = link.differs else { return };
        // A guest is asked too seldom to wait for its next pong.
        let guest = link.class == LinkClass::Transient;
        let first = !core::mem::replace(&mut link.compared, true);
        let still = link.still.is_some_and(|(since, _)| now.since(since) >= DIFFER_MS);
        if first || guest || still || now.since(begun) >= DIFFER_MS_MAX {
            self.start_sync(now, from, theirs, actions);
        }
    }

    /// Compares with one random neighbour whose fingerprint was different in more than one ping,
    /// and asks a random host that is none.
    pub(super) fn random_sync_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if now < self.random_sync_at {
            return;
        }
        let wait = RANDOM_EVERY_MS * 2 / 3 + self.rng.below(RANDOM_EVERY_MS / 3);
        self.random_sync_at = now.after_ms(wait);
        let differ = self.links.iter().filter_map(|(n, l)| {
            let (begun, print) = l.differs?;
            let again = l.still.is_some_and(|(since, _)| since.since(begun) >= DIFFER_MS);
            again.then_some((*n, print))
        });
        let differ: Vec<(NodeId, [u8; 8])> = differ.collect();
        if let Some((node, theirs)) = self.rng.pick(&differ) {
            self.start_sync(now, node, theirs, actions);
        }
        self.visit_due(now, actions);
    }

    /// The driver takes items again, and may lack much: nobody has to wait for a comparison.
    pub(super) fn open(&mut self, now: Tick) {
        self.closed = false;
        for link in self.links.values_mut().chain(self.guests.values_mut()) {
            (link.compared, link.sync_fails, link.sync_after) = (false, 0, now);
            (link.barren, link.fetch_after) = (0, now);
        }
        self.fetch_again();
    }

    fn start_sync(&mut self, now: Tick, node: NodeId, theirs: [u8; 8], actions: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        let pair = (self.heads.cut(), theirs);
        self.sessions_due(now);
        let own = self.visit.is_some_and(|(n, _)| n == node);
        let most = if own { SESSIONS_MAX } else { NEIGHBOUR_SESSIONS_MAX };
        let busy = self.sessions.len() >= most || self.sessions.contains_key(&node);
        let fetching = self.fetches.is_running(&node);
        let few = self.heads.len() <= FULL_LOGS_MAX;
        let Some(link) = self.link_mut(&node) else { return };
        // What it finds it tells: to look from both sides costs twice.
        let asked = link.sketch_asked.is_some_and(|t| now.since(t) < ASKED_MS);
        if busy || fetching || asked || link.sync_due(pair) > now || !link.may_send_heads(now) {
            return;
        }
        link.differs = None;
        let wait = (FRUITLESS_MS << link.sync_fails.min(10)).min(FRUITLESS_MS_MAX);
        link.sync_after = now.after_ms(wait);
        link.sync_fails = link.sync_fails.saturating_add(1);
        link.synced = Some((now, pair));
        let full = core::mem::take(&mut link.sketch_failed) || few;
        self.sessions.insert(node, Session { since: now, sketch: None });
        self.counters.syncs += 1;
        actions.push(Action::Event(Event::Comparing { node }));
        if full {
            self.send_heads(now, node, true, actions);
        } else {
            self.begin_sketch(now, node, actions);
        }
    }

    /// Gives up comparisons that take too long. A host that does not answer about sketches gets
    /// full heads next time: it may be of a version that does not know them.
    fn sessions_due(&mut self, now: Tick) {
        let late = |s: &Session| now.since(s.since) >= SESSION_MS;
        let nodes: Vec<NodeId> =
            self.sessions.iter().filter(|(_, s)| late(s)).map(|(n, _)| *n).collect();
        for node in nodes {
            let session = self.sessions.remove(&node);
            if session.is_some_and(|s| s.sketch.is_some()) {
                self.sketch_failed(node);
            }
        }
    }

    /// Sends all heads, the first page now and the others in their time.
    pub(super) fn send_heads(
        &mut self,
        now: Tick,
        to: NodeId,
        answer: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.link_mut(&to) else { return };
        if link.heads_out.is_none() {
            link.heads_sent = Some(now);
            link.heads_out = Some(HeadsOut { after: None, answer, next: now });
            self.send_page(now, to, actions);
        }
    }

    fn send_page(&mut self, now: Tick, to: NodeId, actions: &mut Vec<Action>) {
        let Some(link) = self.link_mut(&to) else { return };
        let Some(out) = link.heads_out.take() else { return };
        let heads = self.heads.page(out.after, HEADS_PER_FRAME_MAX);
        let last = heads.len() < HEADS_PER_FRAME_MAX;
        if !last && let Some(link) = self.link_mut(&to) {
            let (after, next) = (heads.last().map(|h| h.log), now.after_ms(HEADS_PAGE_MS));
            link.heads_out = Some(HeadsOut { after, next, ..out });
        }
        let heads = List::truncated(heads);
        let frame = OverlayFrame::Heads { heads, last, answer: out.answer };
        self.send(now, to, frame, Class::Control, actions);
    }

    /// When the next page of heads is due.
    pub(super) fn heads_deadline(&self) -> Option<Tick> {
        let all = self.links.values().chain(self.guests.values());
        all.filter_map(|l| l.heads_out.map(|out| out.next)).min()
    }

    pub(super) fn heads_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let all = self.links.iter().chain(&self.guests);
        let due = all.filter(|(_, l)| l.heads_out.is_some_and(|out| out.next <= now));
        let due: Vec<NodeId> = due.map(|(n, _)| *n).collect();
        for node in due {
            self.send_page(now, node, actions);
        }
    }

    /// Heads of another host: all of them, or those that a sketch showed to differ. Whoever asked
    /// for an answer gets one, unless it has just had it.
    pub(super) fn on_heads(
        &mut self,
        now: Tick,
        from: NodeId,
        heads: &[Head],
        (last, answer): (bool, bool),
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.link_mut(&from) else { return };
        if !link.heads_rate.take(now, 1) {
            self.counters.dropped += 1;
            return;
        }
        for head in heads {
            self.note_head(now, from, head, actions);
        }
        if !last {
            return;
        }
        self.sessions.remove(&from);
        let may = self.link(&from).is_some_and(|l| l.may_send_heads(now));
        if answer && may {
            self.send_heads(now, from, false, actions);
        }
    }

    fn note_head(&mut self, now: Tick, from: NodeId, theirs: &Head, actions: &mut Vec<Action>) {
        let ours = self.heads.get(&theirs.log).copied();
        if let Some(ours) = ours.filter(|o| o.seq == theirs.seq && o.hash != theirs.hash) {
            let key = (theirs.log, theirs.seq);
            if self.forks.get(&key).is_none() {
                self.forks.set(key, ());
                let event = Event::ForkSeen { node: from, theirs: *theirs, ours };
                actions.push(Action::Event(event));
            }
            self.ask_rival(now, from, key, actions);
        }
        if theirs.seq > ours.map_or(0, |o| o.seq) {
            self.want(theirs.log, theirs.seq, from);
        }
    }
}

impl super::links::Link {
    /// When heads may be compared again: a fruitless comparison is not repeated soon, but with new
    /// fingerprints it may bring something.
    fn sync_due(&self, pair: Pair) -> Tick {
        match self.synced {
            Some((at, before)) if before != pair => self.sync_after.min(at.after_ms(CHANGED_MS)),
            _ => self.sync_after,
        }
    }

    fn may_send_heads(&self, now: Tick) -> bool {
        let waited = self.heads_sent.is_none_or(|t| now.since(t) >= HEADS_EVERY_MS);
        waited && self.heads_out.is_none()
    }
}
