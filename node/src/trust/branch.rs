//! Which branch of an epoch that has ended is the true one, and how a host leaves a false one.
//!
//! A key that was stolen may go on signing entries of its epoch after its publisher's root has
//! ended it: a newcomer can be given them (attack A7), and a host may have been on the other branch
//! of a fork that its owner did not know. Nothing tells two such branches apart from below. But the
//! document in force names the *last* entry of the epoch by its hash, and each entry names the one
//! before it. So where a second branch shows, entries are asked for from the end: each is known by
//! its hash, whoever brings it, until the path meets what is here. What lies above that goes.
//!
//! Nobody's word is taken, so that it does not matter which neighbour brought the false branch, and
//! no guess is ever undone. Only doubt makes a host walk back: to do so always would keep a hash of
//! each entry in memory before the first one could be judged.

use std::collections::BTreeMap;

use stork_wire::feed::Entry;
use stork_wire::frame::ItemRange;
use stork_wire::ids::{ItemHash, LogId, Position, PublisherId};
use stork_wire::item::Cut;

use super::epoch::{Segment, Turn};
use super::{FeedState, PublisherState, Refusal, Trust, Verdict};

/// Feeds of which the end of an epoch is walked back at one time; others come after them.
const WALKS_MAX: usize = 8;
/// Entries that are asked for at one time.
const WINDOW: u64 = 64;
/// Hashes kept of a walk, 40 bytes each: beyond them the highest are forgotten, and walked again
/// where a second branch shows once more above.
const PINS_MAX: usize = 16_384;

/// The way back from the end of an epoch.
#[derive(Debug)]
struct Walk {
    epoch: u32,
    /// The lowest entry whose hash is known by the walk.
    low: u64,
    /// What the entries from there on must be, as far as it is remembered.
    pins: BTreeMap<u64, ItemHash>,
    /// What came before its turn: its hash, and the one before it.
    held: BTreeMap<u64, (ItemHash, Option<ItemHash>)>,
    /// It has not met what is here yet.
    open: bool,
}

/// All walks, and what they found.
#[derive(Debug, Default)]
pub(super) struct Walks {
    of: BTreeMap<PublisherId, Walk>,
    mends: Vec<Turn>,
}

/// What an entry is to a walk.
pub(super) enum Look {
    /// Nothing: it is judged like any other.
    Other,
    /// It cannot stand: another hash has its place.
    False,
    /// It was a step, or waits for its turn.
    Step,
    /// It was the last step: what is here stands through this entry.
    Met(u64),
}

impl Walks {
    /// Looks whether an entry is a step of a walk, or cannot stand by one.
    pub(super) fn look(&mut self, entry: &Entry, hash: ItemHash, feed: &FeedState) -> Look {
        self.of.get_mut(&entry.publisher).map_or(Look::Other, |w| w.look(entry, hash, feed))
    }
}

impl Walk {
    fn look(&mut self, entry: &Entry, hash: ItemHash, feed: &FeedState) -> Look {
        if entry.epoch != self.epoch {
            return Look::Other;
        }
        if self.pins.get(&entry.seq).is_some_and(|pin| *pin != hash) {
            return Look::False;
        }
        let here = feed.entry_hash(entry.position());
        if !self.open {
            // What lies below is known by the chain, since the two have met.
            let other = entry.seq < self.low && here.is_some_and(|ours| ours != hash);
            return if other { Look::False } else { Look::Other };
        }
        if entry.seq > self.low || entry.seq.saturating_add(WINDOW) <= self.low {
            return Look::Other;
        }
        self.held.insert(entry.seq, (hash, entry.prev));
        match self.go_on(feed) {
            Some(met) => {
                (self.open, self.held) = (false, BTreeMap::new());
                Look::Met(met)
            }
            None => Look::Step,
        }
    }

    /// Goes down as far as is known; returns the entry at which it meets what is here, 0 where that
    /// is before the first.
    fn go_on(&mut self, feed: &FeedState) -> Option<u64> {
        while let Some((hash, before)) = self.held.remove(&self.low) {
            if self.pins.get(&self.low) != Some(&hash) {
                return None;
            }
            let below = self.low.saturating_sub(1);
            if below == 0 {
                (self.low, self.open) = (0, false);
                return Some(0);
            }
            self.pins.insert(below, before?);
            self.low = below;
            if self.pins.len() > PINS_MAX {
                self.pins.pop_last();
            }
            let here = Position { epoch: self.epoch, seq: below };
            if feed.entry_hash(here).is_some_and(|ours| before == Some(ours)) {
                return Some(below);
            }
        }
        None
    }
}

impl Trust {
    /// After an entry was judged, of an epoch that had ended by the document in force.
    pub(super) fn after_ended(
        &mut self,
        verdict: &Result<Verdict, Refusal>,
        path: &[Segment],
        entry: (PublisherId, Position),
    ) {
        let (id, at) = entry;
        if self.feeds.get(&id).is_some_and(|f| f.epoch != at.epoch) {
            self.walks.of.remove(&id);
        }
        if matches!(verdict, Err(Refusal::BrokenChain(_) | Refusal::Equivocation(_))) {
            self.doubt(id, path, at);
        }
        self.note_place(id);
    }

    /// What is here of the epoch stands through this entry, and no further.
    pub(super) fn mend(&mut self, id: PublisherId, at: u64) {
        let Some(feed) = self.feeds.get_mut(&id).filter(|f| f.head_seq() > at) else { return };
        let log = LogId::feed_epoch(id, feed.epoch);
        feed.rewinds += 1;
        self.pending.retain(|(l, _), _| *l != log);
        let cuts = vec![Cut { log, after: at, last: None, keep: false }];
        let (logs, closed, freeze) = (self.feed_logs(id), None, None);
        let (aside, keeps, mended) = (false, None, true);
        let turn = Turn { publisher: id, cuts, closed, logs, freeze, aside, keeps, mended };
        self.walks.mends.push(turn);
    }

    /// An entry by a key of its epoch contradicts what is here, and the epoch has ended: one of the
    /// two is false, and the epoch's end says which.
    fn doubt(&mut self, id: PublisherId, path: &[Segment], entry: Position) {
        let end = path.iter().find(|s| s.epoch == entry.epoch).and_then(|s| s.last);
        let Some((low, hash)) = end else { return };
        if let Some(walk) = self.walks.of.get(&id).filter(|w| w.epoch == entry.epoch)
            && (walk.open || walk.pins.contains_key(&entry.seq))
        {
            return;
        }
        if self.walks.of.len() >= WALKS_MAX && !self.walks.of.contains_key(&id) {
            self.walks.of.retain(|_, w| w.open);
            if self.walks.of.len() >= WALKS_MAX {
                return;
            }
        }
        let pins = BTreeMap::from([(low, hash)]);
        let walk = Walk { epoch: entry.epoch, low, pins, held: BTreeMap::new(), open: true };
        self.walks.of.insert(id, walk);
    }

    /// The next entries that are to be asked for, of any neighbour, for each walk.
    #[must_use]
    pub fn asks_back(&self) -> Vec<ItemRange> {
        let open = self.walks.of.iter().filter(|(_, w)| w.open);
        let range = |(id, w): (&PublisherId, &Walk)| ItemRange {
            log: LogId::feed_epoch(*id, w.epoch),
            from: w.low.saturating_sub(WINDOW - 1).max(1),
            to: w.low,
        };
        open.map(range).collect()
    }

    /// What walks have found to be false: to be cut from the journal, and replayed, as the turn
    /// says, with the publisher's newest document.
    pub fn take_mends(&mut self) -> Vec<Turn> {
        core::mem::take(&mut self.walks.mends)
    }

    /// Forgets the walk of a feed: the epoch has come to its end here, or another one has begun.
    pub(super) fn end_walk(&mut self, id: PublisherId) {
        self.walks.of.remove(&id);
    }

    /// Notes in which epoch a feed stands, for [`super::Charter::unsettled`].
    pub(super) fn note_place(&mut self, id: PublisherId) {
        let feed = self.feeds.get(&id).map_or(0, |f| f.epoch);
        let open = self.charter.publisher(id).is_none_or(|p| feed == 0 || p.doc().epoch == feed);
        if open {
            self.charter.walked.remove(&id);
        } else {
            self.charter.walked.insert(id, feed);
        }
    }
}

impl FeedState {
    /// Is this the entry that comes next, and does it follow the newest one here?
    pub(super) fn goes_on_with(&self, entry: &Entry) -> bool {
        entry.position() == self.next() && entry.prev == self.last_hash()
    }
}

impl super::Charter {
    /// With which entry an epoch has ended, where this host's feed has not got there: until then a
    /// key that was good in that epoch may have made up what is known of it.
    #[must_use]
    pub fn unsettled(&self, publisher: PublisherId, epoch: u32) -> Option<Position> {
        self.walked.get(&publisher).filter(|walked| **walked == epoch)?;
        let path = self.publisher(publisher).map(PublisherState::path)?;
        let (seq, _) = path.iter().find(|s| s.epoch == epoch)?.last?;
        Some(Position { epoch, seq })
    }
}
