//! Sync: comparing heads. This, not the broadcast, guarantees that every item reaches every host.
//!
//! Fingerprints in pings show that two neighbours differ; then they exchange all heads, and each
//! asks for what it lacks (protocol.md §3d).

use stork_wire::codec::List;
use stork_wire::frame::OverlayFrame;
use stork_wire::ids::NodeId;
use stork_wire::item::Head;
use stork_wire::limits::HEADS_PER_FRAME_MAX;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Class, Event};
use super::links::Pair;

/// Comparisons at once (protocol.md §3d).
pub(super) const SESSIONS_MAX: usize = 2;
/// A comparison that takes longer is given up.
const SESSION_MS: u64 = 10_000;
/// Fingerprints must differ so long: news on its way make them differ for a moment (§3d).
const DIFFER_MS: u64 = 2_000;
/// The same where they change meanwhile.
const DIFFER_MS_MAX: u64 = 15_000;
/// Heads go to one host at most once in this time.
const HEADS_EVERY_MS: u64 = 1_000;
/// Wait after a comparison that brought nothing, doubled each time up to the bound below.
const FRUITLESS_MS: u64 = 2_000;
const FRUITLESS_MS_MAX: u64 = 600_000;
/// The longest such wait where a fingerprint has changed since.
const CHANGED_MS: u64 = 30_000;
/// A random neighbour that differs is compared with this often, whatever its pings did (G11).
pub(super) const RANDOM_EVERY_MS: u64 = 30_000;
/// Forks that were reported; a fork is reported once.
pub(super) const FORKS_MAX: usize = 256;

impl Overlay {
    /// A neighbour's fingerprint came in a ping or pong.
    pub(super) fn compare(
        &mut self,
        now: Tick,
        from: NodeId,
        theirs: [u8; 8],
        actions: &mut Vec<Action>,
    ) {
        let same = self.heads.cut() == theirs;
        let Some(link) = self.links.get_mut(&from) else { return };
        let first = !core::mem::replace(&mut link.compared, true);
        if same {
            (link.differs, link.sync_fails, link.sync_after) = (None, 0, now);
            return;
        }
        // News in flight change one of the two between any two pings: what is lacking for long
        // stays different while neither changes, or however often they change.
        let pair = (self.heads.cut(), theirs);
        let begun = link.differs.map_or(now, |(begun, _)| begun);
        let still = link.still.filter(|(_, p)| *p == pair).map_or(now, |(since, _)| since);
        (link.differs, link.still) = (Some((begun, theirs)), Some((still, pair)));
        let lasts = now.since(still) >= DIFFER_MS || now.since(begun) >= DIFFER_MS_MAX;
        if first || lasts {
            self.start_sync(now, from, theirs, actions);
        }
    }

    /// Compares with one random neighbour whose fingerprint was different in more than one ping.
    pub(super) fn random_sync_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        if now < self.random_sync_at {
            return;
        }
        self.random_sync_at = now.after_ms(RANDOM_EVERY_MS);
        let differ = self.links.iter().filter_map(|(n, l)| {
            let (begun, print) = l.differs?;
            let again = l.still.is_some_and(|(since, _)| since.since(begun) >= DIFFER_MS);
            again.then_some((*n, print))
        });
        let differ: Vec<(NodeId, [u8; 8])> = differ.collect();
        if let Some((node, theirs)) = self.rng.pick(&differ) {
            self.start_sync(now, node, theirs, actions);
        }
    }

    fn start_sync(&mut self, now: Tick, node: NodeId, theirs: [u8; 8], actions: &mut Vec<Action>) {
        let pair = (self.heads.cut(), theirs);
        self.sessions.retain(|_, since| now.since(*since) < SESSION_MS);
        let busy = self.sessions.len() >= SESSIONS_MAX || self.sessions.contains_key(&node);
        let fetching = self.fetches.is_running(&node);
        let Some(link) = self.links.get_mut(&node) else { return };
        if busy || fetching || link.sync_due(pair) > now || !link.may_send_heads(now) {
            return;
        }
        link.differs = None;
        let wait = (FRUITLESS_MS << link.sync_fails.min(10)).min(FRUITLESS_MS_MAX);
        link.sync_after = now.after_ms(wait);
        link.sync_fails = link.sync_fails.saturating_add(1);
        link.synced = Some((now, pair));
        self.sessions.insert(node, now);
        self.counters.syncs += 1;
        actions.push(Action::Event(Event::Comparing { node }));
        self.send_heads(now, node, true, actions);
    }

    fn send_heads(&mut self, now: Tick, to: NodeId, answer: bool, actions: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(&to) else { return };
        link.heads_sent = Some(now);
        let all: Vec<Head> = self.heads.iter().copied().collect();
        let mut chunks: Vec<&[Head]> = all.chunks(HEADS_PER_FRAME_MAX).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let count = chunks.len();
        for (i, chunk) in chunks.into_iter().enumerate() {
            let heads = List::truncated(chunk.iter().copied());
            let frame = OverlayFrame::Heads { heads, last: i + 1 == count, answer };
            self.send(now, to, frame, Class::Control, actions);
        }
    }

    /// A neighbour's heads. Whoever asked for an answer gets one, unless it has just had it.
    pub(super) fn on_heads(
        &mut self,
        now: Tick,
        from: NodeId,
        heads: &[Head],
        (last, answer): (bool, bool),
        actions: &mut Vec<Action>,
    ) {
        let Some(link) = self.links.get_mut(&from) else { return };
        if !link.heads_rate.take(now, 1) {
            self.counters.dropped += 1;
            return;
        }
        for head in heads {
            self.note_head(from, head, actions);
        }
        if !last {
            return;
        }
        self.sessions.remove(&from);
        let may = self.links.get(&from).is_some_and(|l| l.may_send_heads(now));
        if answer && may {
            self.send_heads(now, from, false, actions);
        }
    }

    fn note_head(&mut self, from: NodeId, theirs: &Head, actions: &mut Vec<Action>) {
        let ours = self.heads.get(&theirs.log).copied();
        if let Some(ours) = ours.filter(|o| o.seq == theirs.seq && o.hash != theirs.hash) {
            let key = (theirs.log, theirs.seq);
            if self.forks.get(&key).is_none() {
                self.forks.set(key, ());
                let event = Event::ForkSeen { node: from, theirs: *theirs, ours };
                actions.push(Action::Event(event));
            }
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
        self.heads_sent.is_none_or(|t| now.since(t) >= HEADS_EVERY_MS)
    }
}
