//! How fast a publisher and a group may speak: a bucket of tokens for each (attack G6).
//!
//! What comes faster waits here, in the order of its log, and takes effect when there is a token
//! again; what does not fit any more is given back to the overlay as something to be fetched later.
//! So nothing is lost, and nobody else waits. Only accepted entries take tokens: a forgery uses up
//! nobody's. An entry that was signed long ago takes a tenth, so that a host that was away catches
//! up; in the room of others it does not, since sync asks for one piece at a time.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::{Entry, Kind};
use stork_wire::ids::{GroupId, LogId, NodeId, PublisherId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::LOGS_MAX;
use stork_wire::tick::Tick;
use stork_wire::withdrawal::Withdrawal;

use super::{CommitError, Driver, Reply};
use crate::config::{Bucket, LimitsConfig};
use crate::overlay::{Input, Refusal};
use crate::trust::Fact;

/// Entries of one log that wait: a whole piece of sync, and no more than half of what the overlay
/// has in flight from one host.
pub(super) const HELD_PER_LOG_MAX: usize = 256;
/// Entries from one host that wait: a quarter of its room in flight is left for other logs.
pub(super) const HELD_PER_PEER_MAX: usize = 384;
/// Entries that wait in all: 9 MiB of the largest. Beyond that the longest log gives one back.
pub(super) const HELD_MAX: usize = 2_048;
/// Buckets of publishers that are not full: one for each log that a node may keep.
pub(super) const PUBLISHERS_MAX: usize = LOGS_MAX;
/// Buckets of groups that are not full.
pub(super) const GROUPS_MAX: usize = 4_096;
/// An entry that is older than this is history, and takes a tenth of a token.
const HISTORY_S: u64 = 3_600;
/// Withdrawals of one publisher: many at once in an emergency, few in the long run.
const WITHDRAWALS: Bucket = Bucket { per_s: 1, burst: 64 };
/// How often the operator is told that somebody is limited.
const TELL_EVERY_MS: u64 = 60_000;
/// Entries that go on in one turn of the driver's loop: others wait no longer than for a frame.
const RELEASED_AT_ONCE: usize = 16;
/// Microseconds of a second, and of a tick.
const SECOND_US: u64 = 1_000_000;
const TICK_US: u64 = 1_000;

/// Whose bucket is empty, and when it has a token again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) whose: &'static str,
    pub(super) until: Tick,
}

/// An entry that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) item: Item,
    pub(super) source: Option<NodeId>,
    pub(super) reply: Option<Reply>,
}

/// Buckets by id, each as the time until which it is spent, in microseconds (the generic cell rate
/// algorithm). A full bucket is not kept.
#[derive(Debug)]
struct Buckets<K> {
    rate: Bucket,
    max: usize,
    spent_until: BTreeMap<K, u64>,
    /// The latest of these times.
    latest: u64,
}

impl<K: Ord + Copy> Buckets<K> {
    const fn new(rate: Bucket, max: usize) -> Self {
        Self { rate, max, spent_until: BTreeMap::new(), latest: 0 }
    }

    /// Microseconds that one token takes.
    const fn token_us(&self) -> u64 {
        SECOND_US / if self.rate.per_s == 0 { 1 } else { self.rate.per_s as u64 }
    }

    /// When a bucket that is spent until then has a token; `None`: now.
    fn empty(&self, spent_until: u64, now: Tick) -> Option<Tick> {
        let room = self.token_us().saturating_mul(u64::from(self.rate.burst));
        let at = spent_until.saturating_sub(room);
        (at > now.0.saturating_mul(TICK_US)).then(|| Tick(at.div_ceil(TICK_US)))
    }

    fn until(&self, key: &K, now: Tick) -> Option<Tick> {
        self.empty(*self.spent_until.get(key)?, now)
    }

    /// Takes a tenth of a token so many times, also from an empty bucket: what was accepted counts.
    fn take(&mut self, key: K, tenths: u64, now: Tick) {
        if self.rate.per_s == 0 {
            return;
        }
        let now = now.0.saturating_mul(TICK_US);
        if self.spent_until.len() >= self.max && !self.spent_until.contains_key(&key) {
            self.spent_until.retain(|_, t| *t > now);
            if self.spent_until.len() >= self.max {
                return;
            }
        }
        let cost = self.token_us().saturating_mul(tenths) / 10;
        let spent = self.spent_until.entry(key).or_insert(now);
        *spent = (*spent).max(now).saturating_add(cost);
        self.latest = self.latest.max(*spent);
    }

    fn drop_full(&mut self, now: Tick) {
        self.spent_until.retain(|_, t| *t > now.0.saturating_mul(TICK_US));
    }
}

/// All buckets, and what waits for them.
#[derive(Debug)]
pub(super) struct Pace {
    publishers: Buckets<LogId>,
    groups: Buckets<GroupId>,
    /// Withdrawals by publisher: never in the bucket of its entries.
    withdrawals: Buckets<PublisherId>,
    held: BTreeMap<LogId, (Tick, BTreeMap<u64, Held>)>,
    /// When the first entry of each log may go on.
    due: BTreeSet<(Tick, LogId)>,
    by_peer: BTreeMap<NodeId, usize>,
    len: usize,
}

impl Pace {
    pub(super) const fn new(limits: LimitsConfig) -> Self {
        Self {
            publishers: Buckets::new(limits.publisher, PUBLISHERS_MAX),
            groups: Buckets::new(limits.group, GROUPS_MAX),
            withdrawals: Buckets::new(WITHDRAWALS, PUBLISHERS_MAX),
            held: BTreeMap::new(),
            due: BTreeSet::new(),
            by_peer: BTreeMap::new(),
            len: 0,
        }
    }

    /// Must this item wait? The log and the groups are claims here: they only make it wait.
    pub(super) fn limited(&self, item: &Item, now: Tick) -> Option<Limited> {
        if !matches!(item.kind, ItemKind::Entry | ItemKind::Withdrawal) {
            return None;
        }
        if let Some((until, _)) = self.held.get(&item.log) {
            return Some(Limited { whose: "publisher", until: *until });
        }
        self.spent(item, now)
    }

    fn spent(&self, item: &Item, now: Tick) -> Option<Limited> {
        if item.kind == ItemKind::Withdrawal {
            self.withdrawals.empty(self.withdrawals.latest, now)?;
            let w: Withdrawal = item.envelope.claimed().ok()?;
            let until = self.withdrawals.until(&w.publisher, now)?;
            return Some(Limited { whose: "withdrawals", until });
        }
        if let Some(until) = self.publishers.until(&item.log, now) {
            return Some(Limited { whose: "publisher", until });
        }
        // Only where some group's bucket is empty it is worth to read the entry twice.
        self.groups.empty(self.groups.latest, now)?;
        let entry: Entry = item.envelope.claimed().ok()?;
        let until = groups_of(&entry).iter().filter_map(|g| self.groups.until(g, now)).max()?;
        Some(Limited { whose: "group", until })
    }

    /// An entry was accepted.
    pub(super) fn accepted(&mut self, log: LogId, entry: &Entry, now: (UnixSeconds, Tick)) {
        let (unix, now) = now;
        let history = unix.saturating_sub(entry.signed_at) > HISTORY_S;
        let tenths = if history { 1 } else { 10 };
        self.publishers.take(log, tenths, now);
        for group in groups_of(entry) {
            self.groups.take(*group, tenths, now);
        }
    }

    /// Keeps an entry until a time. What does not fit is given back: this one, or another that is
    /// further from its turn.
    pub(super) fn hold(&mut self, held: Held, until: Tick) -> Option<Held> {
        let (log, seq) = (held.item.log, held.item.seq);
        let of_peer = held.source.and_then(|n| self.by_peer.get(&n)).copied().unwrap_or(0);
        let known = self.held.get(&log).is_some_and(|(_, all)| all.contains_key(&seq));
        if known || of_peer >= HELD_PER_PEER_MAX {
            return Some(held);
        }
        if let Some(source) = held.source {
            *self.by_peer.entry(source).or_default() += 1;
        }
        if !self.held.contains_key(&log) {
            self.due.insert((until, log));
        }
        let (_, all) = self.held.entry(log).or_insert_with(|| (until, BTreeMap::new()));
        all.insert(seq, held);
        self.len += 1;
        if all.len() > HELD_PER_LOG_MAX {
            return self.take_last(log);
        }
        if self.len <= HELD_MAX {
            return None;
        }
        let longest = self.held.iter().max_by_key(|(_, (_, all))| all.len()).map(|(l, _)| *l)?;
        self.take_last(longest)
    }

    fn take_last(&mut self, log: LogId) -> Option<Held> {
        let (_, held) = self.held.get_mut(&log)?.1.pop_last()?;
        self.taken(log, held)
    }

    fn taken(&mut self, log: LogId, held: Held) -> Option<Held> {
        self.len = self.len.saturating_sub(1);
        if let Some(n) = held.source.and_then(|s| self.by_peer.get_mut(&s)) {
            *n = n.saturating_sub(1);
        }
        self.by_peer.retain(|_, n| *n > 0);
        if let Some((until, all)) = self.held.get(&log)
            && all.is_empty()
        {
            self.due.remove(&(*until, log));
            self.held.remove(&log);
        }
        Some(held)
    }

    /// When the next entry may go on.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next entry that may go on now.
    pub(super) fn next(&mut self, now: Tick) -> Option<Held> {
        while let Some((at, log)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, log));
            let first = self.held.get(&log).and_then(|(_, all)| all.first_key_value());
            let still = first.and_then(|(_, held)| self.spent(&held.item, now));
            // After this one the log is looked at again at once.
            let until = still.map_or(now, |l| l.until);
            let Some((at, all)) = self.held.get_mut(&log) else { continue };
            *at = until;
            self.due.insert((until, log));
            if still.is_none() {
                let (_, held) = all.pop_first()?;
                return self.taken(log, held);
            }
        }
        None
    }

    /// Forgets buckets that are full again.
    pub(super) fn tidy(&mut self, now: Tick) {
        self.publishers.drop_full(now);
        self.groups.drop_full(now);
        self.withdrawals.drop_full(now);
    }

    /// Name, size and bound of everything that is kept.
    pub(super) fn gauges(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("limited_items", self.len, HELD_MAX),
            ("limited_publishers", self.publishers.spent_until.len(), PUBLISHERS_MAX),
            ("limited_groups", self.groups.spent_until.len(), GROUPS_MAX),
            ("limited_withdrawals", self.withdrawals.spent_until.len(), PUBLISHERS_MAX),
        ]
    }
}

impl Driver {
    /// An item was accepted: if it is an entry, it takes its tokens.
    pub(super) fn take_tokens(&mut self, log: LogId, fact: &Fact) {
        if let Fact::Entry(entry) = fact {
            let now = (self.clock.unix(), self.clock.tick());
            self.pace.accepted(log, entry.get(), now);
        }
        if let Fact::Withdrawal(w) = fact {
            self.pace.withdrawals.take(w.publisher, 10, self.clock.tick());
        }
    }

    /// Keeps an entry until its publisher and groups may speak again, or lets sync bring it later.
    pub(super) fn hold_back(&mut self, held: Held, limited: Limited) {
        self.counters.add("items_limited", limited.whose);
        let now = self.clock.tick();
        if self.limited_told.is_none_or(|t| now.since(t) >= TELL_EVERY_MS) {
            self.limited_told = Some(now);
            let entry = held.item.envelope.claimed::<Entry>().ok();
            let name = entry.map(|e| self.trust.charter().publisher_name(e.publisher));
            let name = name.unwrap_or_else(|| "somebody".to_owned());
            let text = format!("{name} announces more than its {} may: it waits", limited.whose);
            self.event("items_limited", text);
        }
        let Some(Held { item, source, reply }) = self.pace.hold(held, limited.until) else {
            return;
        };
        self.counters.add("items_limited", "given_back");
        super::items::answer(reply, Err(CommitError::Busy));
        if let Some(from) = source {
            let why = Refusal::Pending;
            self.overlay_input(Input::Refused { from, log: item.log, seq: item.seq, why });
        }
    }

    /// Entries whose time has come.
    pub(super) fn release_held(&mut self, now: Tick) {
        for _ in 0..RELEASED_AT_ONCE {
            let Some(Held { item, source, reply }) = self.pace.next(now) else { return };
            self.judge_now(item, source, reply);
        }
    }
}

fn groups_of(entry: &Entry) -> &[GroupId] {
    match &entry.kind {
        Kind::Release(r) => &r.groups,
        Kind::Recall(_) | Kind::Retire(_) => &[],
        Kind::Sealed(s) => core::slice::from_ref(&s.group),
    }
}

#[cfg(test)]
mod tests;
