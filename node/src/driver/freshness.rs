//! Freshness on this host: who hears when a feed turns stale, the beacons that this node makes
//! itself, and the time floor on disk.
//!
//! A node may have ten thousand feeds, of which nearly all stay as they are for hours. So a feed is
//! looked at when something was accepted that is about it, and when its time has come: what comes
//! due soon is kept in order, and what comes due later is found by a sweep over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::beacon::Beacon;
use stork_wire::ids::PublisherId;
use stork_wire::item::Item;
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::tick::Tick;

use super::Driver;
use crate::config::BeaconConfig;
use crate::trust::{Floor, Freshness, Refusal};

/// The row of the time floor among the small state of the store: seconds, little endian.
pub(crate) const FLOOR_ROW: &str = "clock_floor";
/// Seconds by which the floor rises before it is written again: what a restart with a wrong clock
/// may lose.
const FLOOR_STEP_S: u64 = 600;
/// A host that starts, or that hears of a head that it does not have, gets so many milliseconds to
/// catch up before it says that something is wrong.
const GRACE_MS: u64 = 60_000;
/// Milliseconds from one look at all feeds to the next. What comes due before is kept in order.
const SWEEP_MS: u64 = 600_000;
/// Seconds until a beacon is tried again that is due and cannot be made: this host is behind, or
/// its disk takes no items.
const AGAIN_S: u64 = 1;

/// What is watched of one feed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fresh: bool,
    /// Calendar time in milliseconds.
    since: u64,
    /// Was the operator told of this state? Not of the one that was found first.
    told: bool,
    /// Rules of groups for beacons that the newest one has outlived.
    outlived: usize,
}

/// A beacon key and how it is used.
struct Signer {
    key: SecretKey,
    interval_s: u64,
    valid_s: u64,
}

/// All that this part keeps. Times are of the calendar, in milliseconds.
pub(super) struct Watch {
    signer: Option<Signer>,
    /// Feeds that are not unwatched.
    seen: BTreeMap<PublisherId, Seen>,
    /// Feeds of which a beacon's head is missing: since when, and whether the operator was told.
    behind: BTreeMap<PublisherId, (u64, bool)>,
    /// When feeds are to be looked at before the next sweep.
    due: BTreeSet<(u64, PublisherId)>,
    sweep_at: u64,
    looked_at: u64,
    deadline: Option<Tick>,
    pub(super) floor: Floor,
    saved: Floor,
}

impl Watch {
    pub(super) fn new(
        settings: Option<&BeaconConfig>,
        key: Option<SecretKey>,
        floor: Floor,
    ) -> Self {
        let signer = settings.zip(key).map(|(s, key)| Signer {
            key,
            interval_s: s.interval_s,
            valid_s: s.valid_s,
        });
        Self {
            signer,
            seen: BTreeMap::new(),
            behind: BTreeMap::new(),
            due: BTreeSet::new(),
            sweep_at: 0,
            looked_at: 0,
            deadline: None,
            floor,
            saved: floor,
        }
    }

    /// Much has changed: all feeds are looked at the next time.
    pub(super) const fn look_at_all(&mut self) {
        self.sweep_at = 0;
    }

    /// When the next feed is due, if nothing comes before.
    pub(super) const fn deadline(&self) -> Option<Tick> {
        self.deadline
    }
}

impl Driver {
    /// Looks at the feeds that are due: what turned stale or fresh is said, what is to be signed is
    /// signed. Called each second, and when the next one is due.
    pub(super) fn watch_freshness(&mut self) {
        self.raise_floor();
        let (now, tick) = (self.clock.unix_ms(), self.clock.tick());
        let watch = &mut self.freshness;
        // A calendar that went back has other things due than the order says.
        let mut ids: Vec<PublisherId> = if now >= watch.sweep_at || now < watch.looked_at {
            watch.sweep_at = now.saturating_add(SWEEP_MS);
            watch.due.clear();
            self.trust.charter().publishers().map(|(id, _)| *id).collect()
        } else {
            watch.behind.keys().copied().collect()
        };
        watch.looked_at = now;
        while let Some((at, id)) = watch.due.pop_first() {
            if at > now {
                watch.due.insert((at, id));
                break;
            }
            ids.push(id);
        }
        for id in ids {
            self.look_at_feed(id);
        }
        let first = self.freshness.due.first();
        self.freshness.deadline = first.map(|(at, _)| tick.after_ms(at.saturating_sub(now)));
    }

    /// Looks at a feed of which something changed, or whose time has come.
    pub(super) fn look_at_feed(&mut self, id: PublisherId) {
        let now = self.clock.unix_ms();
        let Some(publisher) = self.trust.charter().publisher(id) else {
            self.freshness.behind.remove(&id);
            return;
        };
        let ms = |seconds: u64| seconds.saturating_mul(1_000);
        let mut next = vec![ms(publisher.doc().expires)];
        let state = self.trust.freshness(id, now / 1_000);
        if let Freshness::Fresh { until } = state {
            next.push(ms(until));
        }
        if state == Freshness::Unwatched {
            self.freshness.seen.remove(&id);
        } else {
            next.extend(self.watch_feed(id, matches!(state, Freshness::Fresh { .. }), now));
            next.extend(self.watch_rules(id, now).map(ms));
        }
        self.watch_behind(id, now);
        next.extend(self.make_beacon(id).map(ms));
        let watch = &mut self.freshness;
        let next = next.into_iter().filter(|at| *at > now).min();
        if let Some(at) = next.filter(|at| *at < watch.sweep_at) {
            watch.due.insert((at, id));
            let due = self.clock.tick().after_ms(at.saturating_sub(now));
            watch.deadline = Some(watch.deadline.map_or(due, |before| before.min(due)));
        }
    }

    /// Says what has changed. Returns when to look again, where that is for the time of grace.
    fn watch_feed(&mut self, id: PublisherId, fresh: bool, now: u64) -> Option<u64> {
        let first = Seen { fresh, since: now, told: fresh, outlived: 0 };
        let mut seen = self.freshness.seen.get(&id).copied().unwrap_or(first);
        if seen.fresh != fresh {
            // Of a state that nobody was told of, nobody needs to hear the end.
            match (fresh, seen.told) {
                (true, true) => self.say(id, "feed_fresh", "fresh"),
                (true, false) => {}
                (false, _) => self.say(id, "feed_stale", "stale"),
            }
            seen = Seen { fresh, since: now, told: true, ..seen };
            self.replan_for_freshness();
        } else if !seen.told && now.saturating_sub(seen.since) >= GRACE_MS {
            self.say(id, "feed_stale", "stale");
            seen.told = true;
        }
        self.freshness.seen.insert(id, seen);
        (!seen.told).then(|| seen.since.saturating_add(GRACE_MS))
    }

    /// A VM's file may say what it means that a feed is fresh, or is not.
    fn replan_for_freshness(&mut self) {
        if self.vms.values().any(|vm| vm.file.asks_for_freshness()) {
            self.replan_soon();
        }
    }

    /// Has the newest beacon outlived what groups let one speak? Returns when it does so next.
    fn watch_rules(&mut self, id: PublisherId, now: u64) -> Option<u64> {
        let made = self.trust.beacon(id)?.time;
        let ends: Vec<u64> =
            self.trust.beacon_rules(id).map(|s| made.saturating_add(s.into())).collect();
        let (gone, left): (Vec<u64>, Vec<u64>) = ends.iter().partition(|end| **end <= now / 1_000);
        let seen = self.freshness.seen.get_mut(&id)?;
        let before = core::mem::replace(&mut seen.outlived, gone.len());
        if before != gone.len() {
            if seen.fresh && before < gone.len() {
                let text = self.outlived_text(id, made, now / 1_000);
                self.event("feed_stale", text);
            }
            self.replan_for_freshness();
        }
        left.into_iter().min()
    }

    /// Is the head still missing of which a beacon spoke?
    fn watch_behind(&mut self, id: PublisherId, now: u64) {
        let Some((since, told)) = self.freshness.behind.get(&id).copied() else { return };
        let Some(head) = self.trust.behind(id) else {
            self.freshness.behind.remove(&id);
            return;
        };
        if told || now.saturating_sub(since) < GRACE_MS {
            return;
        }
        self.freshness.behind.insert(id, (since, true));
        let name = self.trust.charter().publisher_name(id);
        self.counters.add("beacons", "withheld");
        let text = format!(
            "{name}: a beacon says that the feed goes up to {head}, and no host that this one \
             asked has it"
        );
        self.event("news_withheld", text);
    }

    /// A beacon says that this host is behind: its time of grace begins.
    pub(super) fn note_behind(&mut self, beacon: &Item) {
        let Ok(beacon) = beacon.envelope.claimed::<Beacon>() else { return };
        let (id, now) = (beacon.publisher, self.clock.unix_ms());
        if self.trust.behind(id).is_some() {
            self.freshness.behind.entry(id).or_insert((now, false));
        }
    }

    fn say(&mut self, id: PublisherId, event: &'static str, reason: &'static str) {
        self.counters.add("feeds", reason);
        let text = self.freshness_text(id, self.clock.unix());
        self.event(event, text);
    }

    /// A beacon for a head that the feed never had: either this host is fed another feed than the
    /// beacon's signer, or a beacon key is in wrong hands.
    pub(super) fn alarm(&mut self, item: &Item, refusal: &Refusal) {
        let Refusal::UnknownHead(at) = refusal else { return };
        let Ok(beacon) = item.envelope.claimed::<Beacon>() else { return };
        let name = self.trust.charter().publisher_name(beacon.publisher);
        self.counters.add("beacons", "alarm");
        let text = format!(
            "{name}: a beacon names another entry {at} than the one here: this host is shown \
             another feed, or a beacon key is stolen"
        );
        self.event("beacon_alarm", text);
    }

    /// Signs a beacon of this feed, where this node has a key for it and one is due. Returns the
    /// second in which to look again.
    fn make_beacon(&mut self, id: PublisherId) -> Option<u64> {
        let now = self.clock.unix();
        let signer = self.freshness.signer.as_ref()?;
        let doc = self.trust.charter().publisher(id)?.doc();
        if !doc.beacon_keys.contains(&signer.key.public()) {
            return None;
        }
        // Three in the time that a group lets one speak.
        let asked = self.trust.beacon_rules(id).map(|s| u64::from(s) / 3).min();
        let interval_s = asked.map_or(signer.interval_s, |s| signer.interval_s.min(s));
        let due = self.trust.beacon(id).map(|last| last.time.saturating_add(interval_s));
        if let Some(due) = due.filter(|due| now < *due) {
            return Some(due);
        }
        let again = now.saturating_add(AGAIN_S);
        let Some(beacon) = self.trust.next_beacon(id, now, signer.valid_s) else {
            return Some(again);
        };
        if self.gather.is_closed() {
            return Some(again);
        }
        let next = now.saturating_add(interval_s);
        let envelope = Envelope::sign(&beacon, self.trust.fleet(), &signer.key).ok()?;
        self.counters.add("beacons", "made");
        self.judge(beacon.item(envelope), None, None);
        Some(next)
    }

    /// Time goes on: what is known to be past is kept on disk now and then.
    fn raise_floor(&mut self) {
        let clock = self.clock.system();
        let mut floor = self.freshness.floor;
        if !self.trust.raise_floor(&mut floor, clock) {
            return;
        }
        self.freshness.floor = floor;
        self.clock.hold(floor.0);
        if floor.0 < self.freshness.saved.0.saturating_add(FLOOR_STEP_S) {
            return;
        }
        self.freshness.saved = floor;
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            if let Err(e) = store.put_state(FLOOR_ROW, &floor.0.to_le_bytes()) {
                tracing::warn!("the time floor is not saved: {e}");
            }
            None
        });
    }

    /// The floor as it is now, for the next start.
    pub(super) fn save_floor(&self) {
        let floor = self.freshness.floor.0;
        if let Err(e) = self.store.put_state(FLOOR_ROW, &floor.to_le_bytes()) {
            tracing::warn!("the time floor is not saved: {e}");
        }
    }
}
