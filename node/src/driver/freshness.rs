//! Freshness on this host: which feeds are fresh, who hears when one turns stale, the beacons that
//! this node makes itself, and the time floor on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::beacon::Beacon;
use stork_wire::charter::UnixSeconds;
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

/// What is watched of one feed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fresh: bool,
    /// Calendar time in milliseconds.
    since: u64,
    /// Was the operator told of this state? Not of the one that was found first.
    told: bool,
    /// Since when a beacon's head is missing, and whether the operator was told.
    behind: Option<(u64, bool)>,
}

/// A beacon key and how it is used.
struct Signer {
    key: SecretKey,
    interval_s: u64,
    valid_s: u64,
}

/// All that this part keeps.
pub(super) struct Watch {
    signer: Option<Signer>,
    seen: BTreeMap<PublisherId, Seen>,
    due: Option<Tick>,
    floor: Floor,
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
        Self { signer, seen: BTreeMap::new(), due: None, floor, saved: floor }
    }

    /// When the next feed turns stale, if no beacon comes.
    pub(super) const fn deadline(&self) -> Option<Tick> {
        self.due
    }
}

impl Driver {
    /// Looks at every feed: what turned stale or fresh is said, what is due is signed. Called each
    /// second, with every beacon, and when one runs out.
    pub(super) fn watch_freshness(&mut self) {
        self.raise_floor();
        let (now_ms, tick) = (self.clock.unix_ms(), self.clock.tick());
        let ids: Vec<PublisherId> = self.trust.charter().publishers().map(|(id, _)| *id).collect();
        self.freshness.due = None;
        for id in ids {
            let state = self.trust.freshness(id, now_ms / 1_000);
            if let Freshness::Fresh { until } = state {
                let left = until.saturating_mul(1_000).saturating_sub(now_ms);
                let due = tick.after_ms(left);
                self.freshness.due = Some(self.freshness.due.map_or(due, |t| t.min(due)));
            }
            if state != Freshness::Unwatched {
                self.watch_feed(id, matches!(state, Freshness::Fresh { .. }), now_ms);
            }
        }
        self.make_beacons();
    }

    fn watch_feed(&mut self, id: PublisherId, fresh: bool, now: u64) {
        let first = Seen { fresh, since: now, told: fresh, behind: None };
        let mut seen = self.freshness.seen.get(&id).copied().unwrap_or(first);
        if seen.fresh != fresh {
            // Of a state that nobody was told of, nobody needs to hear the end.
            match (fresh, seen.told) {
                (true, true) => self.say(id, "feed_fresh", "fresh"),
                (true, false) => {}
                (false, _) => self.say(id, "feed_stale", "stale"),
            }
            seen = Seen { fresh, since: now, told: true, ..seen };
        } else if !seen.told && now.saturating_sub(seen.since) >= GRACE_MS {
            self.say(id, "feed_stale", "stale");
            seen.told = true;
        }
        seen.behind = match (self.trust.behind(id), seen.behind) {
            (None, _) => None,
            (Some(_), None) => Some((now, false)),
            (Some(head), Some((since, false))) if now.saturating_sub(since) >= GRACE_MS => {
                let name = self.trust.charter().publisher_name(id);
                self.counters.add("beacons", "withheld");
                let text = format!(
                    "{name}: a beacon says that the feed goes up to {head}, and no host that this \
                     one asked has it"
                );
                self.event("news_withheld", text);
                Some((since, true))
            }
            (Some(_), before) => before,
        };
        self.freshness.seen.insert(id, seen);
    }

    /// A beacon says that this host is behind: its time of grace begins now, not at the next look.
    pub(super) fn note_behind(&mut self, beacon: &Item) {
        let Ok(beacon) = beacon.envelope.claimed::<Beacon>() else { return };
        let (id, now) = (beacon.publisher, self.clock.unix_ms());
        if self.trust.behind(id).is_some()
            && let Some(seen) = self.freshness.seen.get_mut(&id)
        {
            seen.behind.get_or_insert((now, false));
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

    /// Signs what is due with this node's beacon key.
    fn make_beacons(&mut self) {
        let now = self.clock.unix();
        let Some(signer) = &self.freshness.signer else { return };
        let (interval_s, valid_s) = (signer.interval_s, signer.valid_s);
        let due = |last: &Beacon| now >= last.time.saturating_add(interval_s);
        let ids = self.trust.watched_by(signer.key.public());
        let due = ids.into_iter().filter(|id| self.trust.beacon(*id).is_none_or(due));
        let beacons = due.filter_map(|id| self.trust.next_beacon(id, now, valid_s));
        let sign = |b: Beacon| {
            let envelope = Envelope::sign(&b, self.trust.fleet(), &signer.key).ok()?;
            Some(b.item(envelope))
        };
        let items: Vec<Item> = beacons.filter_map(sign).collect();
        for item in items {
            self.counters.add("beacons", "made");
            self.judge(item, None, None);
        }
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

    /// All feeds with their freshness, for `stork status`.
    pub(super) fn freshness_json(&self) -> Vec<Value> {
        let now = self.clock.unix();
        let charter = self.trust.charter();
        let all = charter.publishers().map(|(id, _)| {
            let state = self.trust.freshness(*id, now);
            let (until, since) = match state {
                Freshness::Fresh { until } => (Some(until), None),
                Freshness::Stale { since } => (None, since),
                Freshness::Expired { since } => (None, Some(since)),
                Freshness::Unwatched => (None, None),
            };
            let behind = self.trust.behind(*id);
            json!({
                "publisher": charter.publisher_name(*id), "id": id,
                "state": state_word(state), "until": until, "since": since,
                "behind": behind.map(|at| json!({ "epoch": at.epoch, "seq": at.seq })),
                "text": self.freshness_text(*id, now),
            })
        });
        all.collect()
    }

    /// The time that this host goes by, the system's, and what is known to be past.
    pub(super) fn clock_json(&self) -> Value {
        let floor = self.freshness.floor.0;
        json!({ "now": self.clock.unix(), "system": self.clock.system(), "floor": floor })
    }

    /// The word for a feed's freshness now.
    pub(super) fn freshness_word(&self, id: PublisherId) -> &'static str {
        state_word(self.trust.freshness(id, self.clock.unix()))
    }

    /// Publishers of what a VM shows or wants whose feeds are not fresh: served all the same.
    pub(super) fn stale_of(&self, ids: impl Iterator<Item = PublisherId>) -> Vec<String> {
        let now = self.clock.unix();
        let stale = |id: &PublisherId| {
            let state = self.trust.freshness(*id, now);
            matches!(state, Freshness::Stale { .. } | Freshness::Expired { .. })
        };
        let ids: std::collections::BTreeSet<PublisherId> = ids.filter(stale).collect();
        ids.into_iter().map(|id| self.freshness_text(id, now)).collect()
    }

    fn freshness_text(&self, id: PublisherId, now: UnixSeconds) -> String {
        let name = self.trust.charter().publisher_name(id);
        let mut text = match self.trust.freshness(id, now) {
            Freshness::Fresh { until } => {
                format!("{name} is fresh for {}", span(until.saturating_sub(now)))
            }
            Freshness::Stale { since: Some(since) } => format!(
                "{name} is stale: its last beacon ran out {} ago; this host may be cut off",
                span(now.saturating_sub(since))
            ),
            Freshness::Stale { since: None } => {
                format!("{name} is stale: no beacon has come; this host may be cut off")
            }
            Freshness::Unwatched => format!(
                "{name} has no beacons: freshness rests on the expiry of its entries{}",
                self.last_expiry(id, now)
            ),
            Freshness::Expired { since } => format!(
                "{name} is expired: its publisher document ran out {} ago",
                span(now.saturating_sub(since))
            ),
        };
        if let Some(head) = self.trust.behind(id) {
            text += &format!("; entries up to {head} have not come");
        }
        text
    }

    /// When the last of a publisher's entries runs out, in words.
    fn last_expiry(&self, id: PublisherId, now: UnixSeconds) -> String {
        let expires = self.catalog.all().filter(|k| k.publisher == id).map(|k| k.expires).max();
        match expires {
            None => String::new(),
            Some(at) if at <= now => ", which have all run out".to_owned(),
            Some(at) => format!(", the last of which runs out in {}", span(at - now)),
        }
    }

    /// The floor as it is now, for the next start.
    pub(super) fn save_floor(&self) {
        let floor = self.freshness.floor.0;
        if let Err(e) = self.store.put_state(FLOOR_ROW, &floor.to_le_bytes()) {
            tracing::warn!("the time floor is not saved: {e}");
        }
    }
}

const fn state_word(state: Freshness) -> &'static str {
    match state {
        Freshness::Fresh { .. } => "fresh",
        Freshness::Stale { .. } => "stale",
        Freshness::Unwatched => "unwatched",
        Freshness::Expired { .. } => "expired",
    }
}

/// A span of seconds for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
