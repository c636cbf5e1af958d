//! Beacons: which statements about a feed's head are believed, and which of them stands.
//!
//! Only the newest beacon of a publisher matters, and it stands as long as the publisher's document
//! names its key and epoch, and no proof lies before its head. When it has run out is no reason to
//! refuse it: all hosts must end with the same one, whatever their clocks say. A beacon whose head
//! has not come yet waits for the feed; so does this host learn that news are kept from it.

use std::collections::BTreeMap;

use stork_wire::beacon::{Beacon, BeaconHead};
use stork_wire::charter::{PublisherDoc, UnixSeconds};
use stork_wire::ids::{KeyId, LogId, Position, PublicKey, PublisherId};
use stork_wire::item::{Head, Item};
use stork_wire::limits::CLOCK_SKEW_S;
use stork_wire::sign::Verified;

use super::{Fact, Refusal, Trust, Verdict};

/// In the long run one beacon of a publisher is taken in so many seconds: half of the shortest
/// interval that a node may be told to keep.
const EVERY_S: u64 = 30;
/// So many may come at once: several nodes may hold a key.
const BURST: u64 = 8;

/// The newest beacon of a publisher.
#[derive(Debug, Clone)]
struct Newest {
    beacon: Beacon,
    key: KeyId,
    head: Head,
}

#[derive(Debug, Default)]
struct State {
    /// The highest counter that was accepted, also if that beacon does not stand any more.
    high: u64,
    newest: Option<Newest>,
    /// The rate limit: calendar time until which it is used up.
    spent_until: UnixSeconds,
}

/// A signed beacon whose head has not come.
#[derive(Debug)]
struct Waiting {
    item: Item,
    beacon: Beacon,
}

/// All beacons.
#[derive(Debug)]
pub(super) struct Beacons {
    states: BTreeMap<PublisherId, State>,
    /// By the log of the feed's epoch that has to go on; the newest one of each.
    waiting: BTreeMap<LogId, Waiting>,
    /// Logs of beacons that do not stand any more.
    void: Vec<LogId>,
}

impl Beacons {
    pub(super) const fn new() -> Self {
        Self { states: BTreeMap::new(), waiting: BTreeMap::new(), void: Vec::new() }
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.states.values().filter_map(|s| s.newest.as_ref().map(|n| n.head))
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// The beacon that waited until this log went so far; `next` is the number that comes next.
    pub(super) fn take_reached(&mut self, log: LogId, next: u64) -> Option<Item> {
        let seq = self.waiting.get(&log)?.beacon.head.map_or(0, |h| h.seq);
        if seq < next { self.waiting.remove(&log).map(|w| w.item) } else { None }
    }

    /// The same of these logs.
    pub(super) fn take_waiting_of(&mut self, logs: &[LogId]) -> Vec<Item> {
        logs.iter().filter_map(|log| self.waiting.remove(log).map(|w| w.item)).collect()
    }

    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Item> + use<> {
        core::mem::take(&mut self.waiting).into_values().map(|w| w.item)
    }

    /// Entries from this number on are void: a beacon that speaks of one does not stand any more.
    pub(super) fn drop_beyond(&mut self, publisher: PublisherId, epoch: u32, first: u64) {
        let Some(state) = self.states.get_mut(&publisher) else { return };
        let speaks = |b: &Beacon| b.epoch == epoch && b.head.is_some_and(|h| h.seq >= first);
        if state.newest.as_ref().is_some_and(|n| speaks(&n.beacon)) {
            state.newest = None;
            self.void.push(LogId::beacon(publisher));
        }
    }

    /// The newest beacon that stands, and the one that waits for its head.
    pub(super) fn heard(&self, id: PublisherId, log: LogId) -> impl Iterator<Item = &Beacon> {
        let waiting = self.waiting.get(&log).map(|w| &w.beacon);
        self.newest(id).map(|n| &n.beacon).into_iter().chain(waiting)
    }

    fn newest(&self, publisher: PublisherId) -> Option<&Newest> {
        self.states.get(&publisher).and_then(|s| s.newest.as_ref())
    }
}

impl State {
    /// Takes one unit of the rate limit, if there is one.
    fn take(&mut self, now: UnixSeconds) -> bool {
        // A clock that was set back must not shut beacons out.
        let start = self.spent_until.min(now.saturating_add(EVERY_S * BURST)).max(now);
        let after = start.saturating_add(EVERY_S);
        let fits = after <= now.saturating_add(EVERY_S * BURST);
        self.spent_until = if fits { after } else { start };
        fits
    }
}

fn names(doc: &PublisherDoc, key: KeyId) -> bool {
    doc.beacon_keys.iter().any(|k| k.key_id() == key)
}

impl Trust {
    /// The newest beacon of a publisher that stands.
    #[must_use]
    pub fn beacon(&self, publisher: PublisherId) -> Option<&Beacon> {
        self.beacons.newest(publisher).map(|n| &n.beacon)
    }

    /// The head of which a beacon speaks that has not come; `None` where no beacon waits. Only one
    /// of the open epoch can still speak of anything.
    #[must_use]
    pub fn behind(&self, publisher: PublisherId) -> Option<Position> {
        let epoch = self.charter.publisher(publisher)?.doc().epoch;
        let log = LogId::feed_epoch(publisher, epoch);
        let beacon = &self.beacons.waiting.get(&log)?.beacon;
        Some(Position { epoch, seq: beacon.head.map_or(0, |h| h.seq) })
    }

    /// Publishers of which a beacon waits for its head.
    pub fn all_behind(&self) -> impl Iterator<Item = PublisherId> {
        let all = self.beacons.waiting.values().map(|w| w.beacon.publisher);
        all.filter(|id| self.behind(*id).is_some())
    }

    /// What this host would say of a feed's head now; `None` where it knows that it is behind.
    #[must_use]
    pub fn next_beacon(
        &self,
        publisher: PublisherId,
        now: UnixSeconds,
        valid_s: u64,
    ) -> Option<Beacon> {
        let doc = self.charter.publisher(publisher)?.doc();
        let high = self.beacons.states.get(&publisher).map_or(0, |s| s.high);
        let feed = self.feeds.get(&publisher);
        if now <= high || self.behind(publisher).is_some() {
            return None;
        }
        let head = match feed {
            // It has not walked to the open epoch yet.
            Some(f) if f.rewinds > 0 || (f.epoch != doc.epoch && f.epoch != 0) => return None,
            _ if doc.survivor.is_some() && feed.is_none_or(|f| f.epoch == 0) => return None,
            Some(f) => f.head().map(|(seq, hash)| BeaconHead { seq, hash }),
            None => None,
        };
        Some(Beacon {
            version: stork_wire::charter::BODY_VERSION,
            publisher,
            epoch: doc.epoch,
            head,
            counter: now,
            time: now,
            expires: now.saturating_add(valid_s),
        })
    }

    pub(super) fn judge_beacon(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let (id, verdict) = match self.check_beacon(item)? {
            Checked::Done(verdict) => return Ok(verdict),
            Checked::Good(good) => (good.body().publisher, self.place_beacon(item, good, now)?),
        };
        if let Verdict::Behind { .. } = verdict {
            return Ok(verdict);
        }
        let reached = |w: &Waiting| w.beacon.publisher == id && w.item.seq <= item.seq;
        self.beacons.waiting.retain(|_, w| !reached(w));
        Ok(verdict)
    }

    /// Everything that needs no feed and no clock.
    fn check_beacon(&self, item: &Item) -> Result<Checked, Refusal> {
        let beacon: Beacon = item.envelope.claimed()?;
        let id = beacon.publisher;
        if item.log != LogId::beacon(id) || item.seq != beacon.counter {
            return Err(Refusal::WrongLog);
        }
        let Some(publisher) = self.charter.publisher(id) else {
            return Ok(Checked::Done(Verdict::Pending { missing: None }));
        };
        let doc = publisher.doc();
        if beacon.epoch > doc.epoch {
            let missing = Some(LogId::publisher(id));
            return Ok(Checked::Done(Verdict::Pending { missing }));
        }
        if beacon.epoch < doc.epoch {
            return Err(Refusal::WrongEpoch { got: beacon.epoch, want: doc.epoch });
        }
        let have = self.beacons.states.get(&id).map_or(0, |s| s.high);
        if beacon.counter == have {
            return Ok(Checked::Done(Verdict::Known));
        }
        if beacon.counter < have {
            return Err(Refusal::CounterNotRising { got: beacon.counter, have });
        }
        let fleet = self.charter.fleet();
        Ok(Checked::Good(item.envelope.verify(fleet, &doc.beacon_keys, 1)?))
    }

    /// Looks for the beacon's head in the feed.
    fn place_beacon(
        &mut self,
        item: &Item,
        good: Verified<Beacon>,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let beacon = good.body();
        let id = beacon.publisher;
        let ahead = beacon.time.saturating_sub(now);
        if ahead > CLOCK_SKEW_S {
            return Err(Refusal::FutureDated(ahead));
        }
        let path = self.charter.publisher(id).map(super::PublisherState::path).unwrap_or_default();
        let feed = self.feeds.entry(id).or_default();
        feed.advance(&path);
        let seq = beacon.head.map_or(0, |h| h.seq);
        if let Some(freeze) = self.proofs.get(&id).map(|h| h.freeze).filter(|f| f.at.seq <= seq) {
            return Err(Refusal::Frozen(freeze));
        }
        if feed.rewinds > 0 || feed.epoch != beacon.epoch || feed.head_seq() < seq {
            let log = LogId::feed_epoch(id, beacon.epoch);
            let older = self.beacons.waiting.get(&log).is_none_or(|w| w.item.seq < item.seq);
            if older {
                let beacon = good.into_body();
                self.beacons.waiting.insert(log, Waiting { item: item.clone(), beacon });
            }
            return Ok(Verdict::Behind { log, to: seq });
        }
        if let Some(head) = beacon.head {
            match feed.hash_of(head.seq) {
                Some(hash) if hash == head.hash => {}
                Some(_) => {
                    return Err(Refusal::UnknownHead(Position { epoch: beacon.epoch, seq }));
                }
                None => return Err(Refusal::Replay { seq, head: feed.head_seq() }),
            }
        }
        if !self.beacons.states.entry(id).or_default().take(now) {
            return Err(Refusal::TooOften);
        }
        Ok(self.hold(item, good))
    }

    fn hold(&mut self, item: &Item, good: Verified<Beacon>) -> Verdict {
        let key = good.signers().first().map(PublicKey::key_id);
        let beacon = good.into_body();
        let (id, hash) = (beacon.publisher, item.hash());
        let state = self.beacons.states.entry(id).or_default();
        state.high = beacon.counter;
        let head = Head::of(item.log, item.seq, hash);
        state.newest = key.map(|key| Newest { beacon, key, head });
        Verdict::Accepted { hash, fact: Fact::Beacon(id) }
    }

    /// Takes a beacon that was accepted before a restart. Where it does not stand any more, its
    /// counter still does.
    pub fn restore_beacon(&mut self, item: &Item) {
        let checked = self.check_beacon(item);
        let Ok(beacon) = item.envelope.claimed::<Beacon>() else { return };
        let id = beacon.publisher;
        self.times.note(item, &Fact::Beacon(id));
        if let Ok(Checked::Good(good)) = checked {
            self.hold(item, good);
            self.drop_void(id);
        } else {
            let state = self.beacons.states.entry(id).or_default();
            state.high = state.high.max(beacon.counter);
        }
    }

    /// Forgets a publisher's beacon if it does not stand any more.
    fn drop_void(&mut self, id: PublisherId) -> bool {
        let void = self.beacons.newest(id).is_some_and(|n| !self.stands(n));
        if void && let Some(state) = self.beacons.states.get_mut(&id) {
            state.newest = None;
        }
        void
    }

    fn stands(&self, newest: &Newest) -> bool {
        let (id, epoch) = (newest.beacon.publisher, newest.beacon.epoch);
        let seq = newest.beacon.head.map_or(0, |h| h.seq);
        let frozen = self.frozen(id).is_some_and(|f| f.at.epoch == epoch && f.at.seq <= seq);
        // Its head may have been a dead key's.
        let publisher = self.charter.publisher(id).filter(|p| self.charter.any_dead(p));
        let head = self.feeds.get(&id).map_or(0, |f| f.head_seq());
        let frozen = frozen || (publisher.is_some() && seq > head);
        let doc = self.charter.publisher(id).map(super::PublisherState::doc);
        !frozen && doc.is_some_and(|d| d.epoch == epoch && names(d, newest.key))
    }

    /// A document or a proof may end what a beacon says.
    pub(super) fn drop_void_beacons(&mut self, log: LogId, fact: &Fact) {
        let id = match fact {
            Fact::Charter(_) => self.charter.publisher_of(log).map(|(id, _)| id),
            Fact::Turn(turn) => Some(turn.publisher),
            _ => None,
        };
        let turned = match fact {
            Fact::Suicide(death) => death.turns.iter().map(|t| t.publisher).collect(),
            _ => Vec::new(),
        };
        for id in id.into_iter().chain(turned) {
            if self.drop_void(id) {
                self.beacons.void.push(LogId::beacon(id));
            }
        }
    }

    /// Logs of beacons that do not stand any more since this was asked last: they have no head.
    pub fn take_void_beacons(&mut self) -> Vec<LogId> {
        core::mem::take(&mut self.beacons.void)
    }
}

enum Checked {
    Done(Verdict),
    Good(Verified<Beacon>),
}
