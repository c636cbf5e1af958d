//! Epochs of a feed: where each begins and ends, and how a feed goes back to where it must.
//!
//! The publisher's root may begin a new epoch after any entry of an earlier one. What else followed
//! that entry is void. So a feed is a path: some entries of a first epoch, then some of a later
//! one, until the open epoch, which is the newest. A state cannot be taken back entry by entry: it
//! is built anew from the journal ([`Trust::replay`]), and until then the feed's entries wait.

use stork_wire::charter::{PublisherDoc, ReleaseKey, Role, Survivor, UnixSeconds};
use stork_wire::feed::Entry;
use stork_wire::ids::{ItemHash, LogId, Position, PublicKey, PublisherId};
use stork_wire::item::{Cut, Item, ItemKind};

use super::charter::PublisherState;
use super::feed::usable;
use super::{Fact, FeedState, Freeze, Refusal, Trust, Verdict};

/// One epoch on a feed's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) epoch: u32,
    /// The entry with which it ends; `None` for the open epoch.
    pub(super) last: Option<(u64, ItemHash)>,
}

/// A feed was frozen, or goes on in a new epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whose feed.
    pub publisher: PublisherId,
    /// What the journal must drop in the transaction that stores the item which says so.
    pub cuts: Vec<Cut>,
    /// The log of a proof that is settled: the journal keeps it, but it is not told of any more.
    pub closed: Option<LogId>,
    /// The feed's logs in their order, to be replayed once the cuts are on disk; empty where what
    /// stands had not changed.
    pub logs: Vec<LogId>,
    /// Why it is frozen; `None`: a new epoch has begun.
    pub freeze: Option<Freeze>,
    /// Entries that were kept aside may stand again: they are to be judged anew.
    pub aside: bool,
    /// The new epoch begins with an empty feed: what was announced up to this place stays where it
    /// is shown.
    pub keeps: Option<Position>,
    /// A false branch of an ended epoch was left.
    pub mended: bool,
}

/// Why an entry is kept aside that stands in no feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It lies behind a fork, or a key that ended itself signed it.
    Frozen(Freeze),
    /// Its feed began anew, and carries over what was live.
    Retired,
}

/// What the documents say of a publisher's epochs.
#[derive(Debug, Clone, Default)]
pub(super) struct Epochs {
    /// After which entry each epoch but the first begins.
    starts: Vec<(u32, Survivor)>,
    /// Release keys as earlier documents named them, with the epoch in which they did; what the
    /// newest document says is not here. An entry is judged by the keys of its own epoch: whoever
    /// comes later, and every host after a restart, must judge as those did who saw it new.
    keys: Vec<(u32, ReleaseKey)>,
    /// Root roles likewise, for what they have withdrawn; most publishers never change theirs.
    roots: Box<[(u32, Role)]>,
    /// What the last document to begin with an empty feed carries over.
    compacted: Option<Survivor>,
}

/// Keys of earlier documents that are kept for a publisher: a new key each week for ten years.
const PAST_KEYS_MAX: usize = 512;

impl Epochs {
    /// Takes over the document that follows another one.
    pub(super) fn note(&mut self, old: &PublisherDoc, new: &PublisherDoc) {
        if old.epoch != new.epoch {
            self.starts.extend(new.survivor.map(|s| (new.epoch, s)));
            self.compacted = new.compacts.or(self.compacted);
        }
        for key in &old.release_keys {
            let stays = old.epoch == new.epoch && new.release_keys.contains(key);
            let known = self.keys.iter().any(|(epoch, k)| *epoch == old.epoch && k == key);
            if !stays && !known {
                self.keys.push((old.epoch, key.clone()));
            }
        }
        if (old.epoch, &old.root) != (new.epoch, &new.root) {
            let all = core::mem::take(&mut self.roots).into_iter();
            self.roots = all.chain([(old.epoch, old.root.clone())]).collect();
        }
    }
}

impl PublisherState {
    /// The feed's epochs in their order; the last one is open.
    pub(super) fn path(&self) -> Vec<Segment> {
        let epochs = self.epochs();
        let mut path = vec![Segment { epoch: self.doc().epoch, last: None }];
        // Every start lies in an earlier epoch (checked by the document), so this ends.
        while let Some(here) = path.last()
            && let Some((_, start)) = epochs.starts.iter().find(|(e, _)| *e == here.epoch)
        {
            let Survivor { at, hash } = *start;
            path.push(Segment { epoch: at.epoch, last: Some((at.seq, hash)) });
        }
        path.reverse();
        path
    }

    /// What the feed carries over since it last began anew.
    pub(crate) fn compacted(&self) -> Option<Survivor> {
        self.epochs().compacted
    }

    /// What keys may sign this entry, by any document of its epoch.
    pub(super) fn rules_for<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> impl Iterator<Item = &'a ReleaseKey> + 'a {
        self.rules_of(entry.epoch).filter(|k| usable(k, entry))
    }

    /// What the documents of an epoch say of release keys.
    pub(super) fn rules_of(&self, epoch: u32) -> impl Iterator<Item = &ReleaseKey> {
        let past = self.epochs().keys.iter().filter(move |(e, _)| *e == epoch);
        let newest = (self.doc().epoch == epoch).then_some(&self.doc().release_keys);
        past.map(|(_, k)| k).chain(newest.into_iter().flat_map(|keys| keys.iter()))
    }

    /// The root roles of the documents of an epoch.
    pub(super) fn roots_of(&self, epoch: u32) -> impl Iterator<Item = &Role> {
        let past =
            self.epochs().roots.iter().filter(move |(e, _)| *e == epoch).map(|(_, role)| role);
        past.chain((self.doc().epoch == epoch).then_some(&self.doc().root))
    }

    /// Has any document named this release key?
    pub(super) fn ever_named(&self, key: &PublicKey) -> bool {
        let past = self.epochs().keys.iter().map(|(_, k)| k);
        past.chain(self.doc().release_keys.iter()).any(|k| k.key == *key)
    }

    /// The keys of these rules.
    pub(super) fn keys_for(&self, entry: &Entry) -> Vec<PublicKey> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for rule in self.rules_for(entry) {
            if !keys.contains(&rule.key) {
                keys.push(rule.key);
            }
        }
        keys
    }

    /// May this document follow the newest one?
    pub(super) fn check_next(&self, new: &PublisherDoc) -> Result<(), Refusal> {
        let roots = self.epochs().roots.len();
        if self.epochs().keys.len() > PAST_KEYS_MAX || roots > PAST_KEYS_MAX {
            return Err(Refusal::TooMany);
        }
        check_next(self.doc(), new)
    }
}

/// Does the later document let the key do all that the earlier one did?
fn keeps(old: &ReleaseKey, new: &ReleaseKey) -> bool {
    let through = match (old.valid_through, new.valid_through) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => new >= old,
    };
    let named = |p| new.packages.contains(p);
    old.key == new.key
        && through
        && new.not_after >= old.not_after
        && old.packages.iter().all(named)
}

/// May this document follow that one? Epochs rise by one; the start of an epoch never changes. And
/// within one, keys may only be added or be allowed more: an entry that was good when it came must
/// be good to whoever comes later. What takes something away says from which entry on: it begins an
/// epoch.
fn check_next(old: &PublisherDoc, new: &PublisherDoc) -> Result<(), Refusal> {
    if new.epoch < old.epoch {
        return Err(Refusal::Rollback { got: new.epoch, have: old.epoch });
    }
    let begins = |d: &PublisherDoc| (d.epoch, d.survivor, d.compacts);
    let same = begins(new) == begins(old);
    let lost = |k: &&ReleaseKey| !new.release_keys.iter().any(|n| keeps(k, n));
    if same && let Some(key) = old.release_keys.iter().find(lost) {
        return Err(Refusal::Narrowed(key.key.short()));
    }
    if same || new.epoch == old.epoch.saturating_add(1) {
        return Ok(());
    }
    Err(Refusal::WrongEpoch { got: new.epoch, want: old.epoch })
}

impl Trust {
    pub(super) fn judge_publisher(
        &mut self,
        item: &Item,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let before = self.charter.publisher_of(item.log).map(|(id, p)| (id, p.doc().epoch));
        let verdict = self.charter.judge_publisher(item, now)?;
        let (Verdict::Accepted { hash, .. }, Some((id, epoch))) = (&verdict, before) else {
            return Ok(verdict);
        };
        if self.charter.publisher(id).is_none_or(|p| p.doc().epoch == epoch) {
            return Ok(verdict);
        }
        let fact = Fact::Turn(Box::new(self.begin_epoch(id)));
        Ok(Verdict::Accepted { hash: *hash, fact })
    }

    /// A document has raised the epoch: the feed goes back to the entry that it names.
    fn begin_epoch(&mut self, id: PublisherId) -> Turn {
        let path = self.charter.publisher(id).map(PublisherState::path).unwrap_or_default();
        let held = self.proofs.remove(&id);
        let closed = held.as_ref().map(super::fork::Held::log);
        let compacts = self.charter.publisher(id).and_then(|p| p.doc().compacts);
        let feed = self.feeds.entry(id).or_default();
        let keeps = compacts.filter(|c| feed.leads_to(c)).map(|c| c.at);
        let mut cuts: Vec<Cut> =
            feed.beyond(&path).flat_map(|s| cuts_of(id, s, keeps).into_iter().flatten()).collect();
        // What was frozen is looked at anew in any case: what stands may be installed again.
        // So is what a dead key has signed: the root has said what of it stands.
        let dead = self.charter.publisher(id).is_some_and(|p| self.charter.any_dead(p));
        let replay = !cuts.is_empty() || held.is_some() || dead;
        feed.rewinds += u32::from(replay);
        for Cut { log, after, .. } in &cuts {
            self.pending.retain(|(l, seq), _| l != log || seq <= after);
        }
        if let Some(held) = held {
            self.take_survivor(held.proof());
        }
        if !replay && let Some(feed) = self.feeds.get_mut(&id) {
            self.begun.extend(feed.advance(&path).map(|e| LogId::feed_epoch(id, e)));
        }
        let logs = if replay { self.feed_logs(id) } else { Vec::new() };
        cuts.extend(self.charter.end_halts(id));
        self.end_walk(id);
        self.note_place(id);
        let (freeze, aside, mended) = (None, replay, false);
        Turn { publisher: id, cuts, closed, logs, freeze, aside, keeps, mended }
    }

    /// The logs of a feed, epoch after epoch.
    #[must_use]
    pub fn feed_logs(&self, id: PublisherId) -> Vec<LogId> {
        let path = self.charter.publisher(id).map(PublisherState::path).unwrap_or_default();
        path.iter().map(|s| LogId::feed_epoch(id, s.epoch)).collect()
    }

    /// Builds a feed's state anew from what the journal holds of [`Turn::logs`], in order. These
    /// entries were judged before, so that only their chain is looked at.
    pub fn replay(&mut self, publisher: PublisherId, items: &[Item]) {
        let Some(state) = self.charter.publisher(publisher) else { return };
        let path = state.path();
        let before = self.feeds.get(&publisher).map_or(0, |f| f.rewinds);
        let mut feed = FeedState::default();
        feed.rewinds = before.saturating_sub(1);
        feed.advance(&path);
        for item in items.iter().filter(|i| i.kind == ItemKind::Entry) {
            let Ok(entry) = item.envelope.claimed::<Entry>() else { break };
            let next = Position { epoch: feed.epoch, seq: feed.head_seq().saturating_add(1) };
            if entry.publisher != publisher
                || entry.position() != next
                || entry.prev != feed.last_hash()
            {
                break;
            }
            if entry.epoch == state.doc().epoch {
                let signers = self.charter.signers(state, &entry, item);
                if feed.note_signers(entry.seq, &signers).is_err() {
                    break;
                }
            }
            feed.take(&entry, item.envelope.hash());
            feed.advance(&path);
        }
        self.feeds.insert(publisher, Box::new(feed));
        self.note_place(publisher);
    }
}

/// What an epoch that lies beside the path loses: what follows its last entry that stands, or all
/// of it, of which the part up to `keeps` is kept aside for what is shown.
fn cuts_of(id: PublisherId, s: Segment, keeps: Option<Position>) -> [Option<Cut>; 2] {
    let log = LogId::feed_epoch(id, s.epoch);
    let (after, last) = s.last.map_or((0, None), |(seq, hash)| (seq, Some(hash)));
    let cut = |after, keep| Cut { log, after, last, keep };
    match keeps {
        Some(at) if s.last.is_none() && s.epoch <= at.epoch => {
            let beyond = (s.epoch == at.epoch).then(|| cut(at.seq, false));
            [beyond, Some(cut(0, true))]
        }
        _ => [Some(cut(after, false)), None],
    }
}

impl FeedState {
    /// Is what it holds a part of what led to this entry, as far as can be told? Where hashes are
    /// not kept any more, they were compared with many others.
    fn leads_to(&self, to: &Survivor) -> bool {
        let closed = self.closed().iter().find(|s| s.at.epoch == to.at.epoch);
        match closed {
            Some(s) if s.at == to.at => s.hash == to.hash,
            Some(s) => s.at.seq < to.at.seq,
            None if self.epoch < to.at.epoch => true,
            None if self.epoch > to.at.epoch => false,
            None => self.hash_of(to.at.seq).is_none_or(|hash| hash == to.hash),
        }
    }

    /// Does it hold an entry with this number, in this epoch?
    pub(super) fn reaches(&self, at: Position) -> bool {
        self.epoch == at.epoch && self.head_seq() >= at.seq
    }

    /// Goes on to the next epoch of the path where this one has come to its end. Returns the epoch
    /// that begins.
    pub(super) fn advance(&mut self, path: &[Segment]) -> Option<u32> {
        let mut begun = None;
        if self.epoch == 0 {
            self.epoch = path.first()?.epoch;
        }
        while let Some(i) = path.iter().position(|s| s.epoch == self.epoch)
            && let Some((seq, hash)) = path.get(i).and_then(|s| s.last)
            && self.head() == Some((seq, hash))
            && let Some(next) = path.get(i + 1)
        {
            self.close(Survivor { at: Position { epoch: self.epoch, seq }, hash }, next.epoch);
            begun = Some(next.epoch);
        }
        begun
    }

    /// The epochs in which this feed goes beyond the path, and where each must end; `None`: before
    /// its first entry.
    fn beyond(&self, path: &[Segment]) -> impl Iterator<Item = Segment> {
        let here = self.head().map(|(seq, hash)| (self.epoch, seq, hash));
        let walked = self.closed().iter().map(|s| (s.at.epoch, s.at.seq, s.hash)).chain(here);
        walked.filter_map(|(epoch, seq, hash)| match path.iter().find(|s| s.epoch == epoch) {
            None => Some(Segment { epoch, last: None }),
            Some(Segment { last: None, .. }) => None,
            Some(s) => s.last.filter(|(n, h)| seq > *n || (seq == *n && hash != *h)).map(|_| *s),
        })
    }
}
