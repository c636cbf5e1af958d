//! Entries of feeds: from what one claims to the feed that judges it.

use stork_wire::charter::UnixSeconds;
use stork_wire::feed::Entry;
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::item::Item;
use stork_wire::limits::LOGS_MAX;
use stork_wire::sign::Claimed;

use super::branch::Look;
use super::{BUSY_MAX, Fact, Refusal, Trust, Verdict};

impl Trust {
    pub(super) fn judge_entry(
        &mut self,
        item: &Item,
        read: Claimed<Entry>,
        now: UnixSeconds,
    ) -> Result<Verdict, Refusal> {
        let entry = read.body();
        let id = entry.publisher;
        if item.log != LogId::feed_epoch(id, entry.epoch) || item.seq != entry.seq {
            return Err(Refusal::WrongLog);
        }
        let Some(publisher) = self.charter.publisher(id) else {
            // Not known yet, or never: it waits for a document, and is dropped when room is short.
            return Ok(Verdict::Pending { missing: None });
        };
        if entry.document > publisher.doc().number {
            return Ok(Verdict::Pending { missing: Some(LogId::publisher(id)) });
        }
        if self.feeds.len() >= LOGS_MAX && !self.feeds.contains_key(&id) {
            return Err(Refusal::TooMany);
        }
        let feed = self.feeds.entry(id).or_default();
        if feed.rewinds > 0 {
            return Ok(Verdict::Pending { missing: None });
        }
        let path = publisher.path();
        feed.advance(&path);
        if let Some(missing) = feed.check_place(&path, publisher, item, entry)? {
            return Ok(missing);
        }
        match self.walks.look(entry, read.hash(), feed) {
            Look::Other => {}
            Look::False => return Err(Refusal::Closed(entry.position())),
            // What goes on from what is here is taken, too.
            Look::Step if feed.goes_on_with(entry) => {}
            Look::Met(at) if at == feed.head_seq() && feed.goes_on_with(entry) => {}
            Look::Step => return Ok(Verdict::Known),
            Look::Met(at) => {
                self.mend(id, at);
                return Ok(Verdict::Known);
            }
        }
        let known = feed.knows(entry, read.hash());
        let frozen = self.proofs.get(&id).map(|h| h.freeze);
        if let Some(freeze) = frozen.filter(|f| !known && f.at <= entry.position()) {
            return Err(Refusal::Frozen(freeze));
        }
        if !known {
            self.beacons.refute(entry)?;
        }
        let rested = feed.rests();
        let at = entry.position();
        let mut verdict = feed.judge(&self.charter, publisher, item, read, now);
        let mut settled = None;
        if verdict.is_ok() {
            settled = feed.advance(&path);
            self.begun.extend(settled.map(|e| LogId::feed_epoch(id, e)));
        }
        let ended = feed.epoch != publisher.doc().epoch;
        if rested && !feed.rests() {
            self.note_busy(id);
        }
        if ended || settled.is_some() {
            self.after_ended(&verdict, &path, (id, at));
        }
        if let Ok(Verdict::Accepted { fact: Fact::Entry(entry), .. }) = &mut verdict {
            // Whether it can be read here decides nothing about its feed.
            self.read_sealed(item, &mut entry.0).unwrap_or_default();
        }
        verdict
    }

    /// A feed's keys were made ready; those that were so for longest rest again.
    fn note_busy(&mut self, id: PublisherId) {
        self.busy.push_back(id);
        if self.busy.len() > BUSY_MAX
            && let Some(feed) = self.busy.pop_front().and_then(|id| self.feeds.get_mut(&id))
        {
            feed.rest();
        }
    }
}
