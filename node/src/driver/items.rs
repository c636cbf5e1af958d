//! Items: from whoever they came, through the rules, onto the disk, and only then into effect.
//!
//! What a peer brought travels on as soon as the rules accepted it: the wait for the disk would add
//! up over the hops, and a host that loses an item in a crash gets it again by sync. What a
//! publisher brought to this host first is on this disk before anybody hears of it, so that no
//! entry is known to the fleet whose publisher was not told that it stands.

use std::sync::Arc;

use stork_wire::charter::GroupDoc;
use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, ItemRange, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Item, ItemKind, is_moment};
use stork_wire::limits::{FRAME_LEN_MAX, ITEMS_PER_FRAME_MAX};

use super::pace::Held;
use super::workers::{Done, JournalJob};
use super::{CommitError, Driver, Reply};
use crate::net::Priority;
use crate::overlay::{Input, Refusal as Verdict2};
use crate::store::Store;
use crate::trust::{Fact, Refusal, Verdict};

impl Driver {
    /// Judges an item that a peer delivered.
    pub(super) fn on_delivered(&mut self, from: NodeId, item: Item) {
        self.judge(item, Some(from), None);
    }

    /// Judges an item, once its publisher and groups may speak; `reply` hears of the outcome.
    pub(super) fn judge(&mut self, item: Item, source: Option<NodeId>, reply: Option<Reply>) {
        let outside = source.is_some() || reply.is_some();
        let limited = self.pace.limited(&item, self.clock.tick()).filter(|_| outside);
        match limited {
            Some(limited) => self.hold_back(Held { item, source, reply }, limited),
            None => self.judge_now(item, source, reply),
        }
    }

    /// Judges an item now, if there is room to write it down.
    pub(super) fn judge_now(&mut self, item: Item, source: Option<NodeId>, reply: Option<Reply>) {
        let Some(e) = self.takes_no_items(source.is_some() || reply.is_some()) else {
            let (log, seq) = (item.log, item.seq);
            if self.judge_in_room(item, source, reply) && source.is_some() {
                self.judge_early(log, seq);
            }
            self.look_back(false);
            return;
        };
        answer(reply, Err(e));
        if let Some(from) = source {
            let (log, seq, why) = (item.log, item.seq, Verdict2::Unknown);
            self.overlay_input(Input::Refused { from, log, seq, why });
        }
    }

    /// What came before its turn follows at once the item that it waited for, as what its sender
    /// brought; where that is forgotten, as what was found here, once it is on disk.
    fn judge_early(&mut self, log: LogId, seq: u64) {
        let mut ready = self.trust.take_ready(log, seq);
        while let Some(item) = ready.pop() {
            let (log, seq) = (item.log, item.seq);
            let source = self.overlay.early_source(log, seq);
            if self.judge_in_room(item, source, None) && source.is_some() {
                ready.extend(self.trust.take_ready(log, seq));
            }
        }
    }

    /// True where the item was accepted.
    fn judge_in_room(&mut self, item: Item, source: Option<NodeId>, reply: Option<Reply>) -> bool {
        let (log, seq) = (item.log, item.seq);
        let verdict = self.trust.judge(&item, self.clock.unix());
        let refused = match verdict {
            Verdict::Accepted { hash, fact } => {
                self.take_tokens(log, &fact);
                self.tap.accepted(&item);
                let item = Arc::new(item);
                if source.is_some() {
                    let item = Arc::clone(&item);
                    self.overlay_input(Input::Committed { log, seq, hash, item, source });
                }
                let kept = Vec::new();
                self.write_down(JournalJob { item, hash, fact, source, reply, kept });
                return true;
            }
            Verdict::Known => {
                // Documents that a publisher brings again are no replay; old news from a peer is.
                let verdict = if source.is_some() { "items_refused" } else { "items_known" };
                self.counters.add(verdict, "replay");
                self.gather.answer_known(&item, reply);
                Verdict2::Duplicate
            }
            Verdict::Pending { missing } => {
                self.counters.add("items_pending", item.kind.name());
                answer(reply, Err(too_early(item.kind)));
                // Where something else must come first, asking for more of this log is no help.
                // Entries were checked before they wait, documents were not.
                match item.kind {
                    ItemKind::Entry if missing == Some(log) => Verdict2::Early,
                    _ if missing == Some(log) => Verdict2::Pending,
                    _ => Verdict2::Unknown,
                }
            }
            Verdict::Behind { log, to } => {
                self.counters.add("items_pending", "beacon");
                self.note_behind(&item);
                if let Some(from) = source {
                    self.overlay_input(Input::Behind { from, log, to });
                }
                Verdict2::Unknown
            }
            Verdict::Rival { at } => {
                self.counters.add("items_refused", "equivocation");
                answer(reply, Err(CommitError::HeadMoved));
                if source.is_some() {
                    self.event("fork_seen", format!("two different entries have the number {at}"));
                    self.find_rival(item);
                }
                Verdict2::Duplicate
            }
            Verdict::Refused(Refusal::LaterKind) => {
                self.counters.add("items_ignored", "later_kind");
                answer(reply, Err(CommitError::Refused(Refusal::LaterKind)));
                Verdict2::Later
            }
            Verdict::Refused(r) => {
                self.counters.add("items_refused", r.code());
                let who = source.map_or_else(|| "here".to_owned(), |n| n.short());
                self.event("item_refused", format!("{} from {who}: {r}", r.code()));
                self.alarm(&item, &r);
                let (blame, forked) = (r.blames_sender(), matches!(r, Refusal::BrokenChain(_)));
                answer(reply, Err(CommitError::Refused(r)));
                match (blame, forked) {
                    (true, _) => Verdict2::Invalid,
                    (false, true) => Verdict2::Forked,
                    (false, false) => Verdict2::Unknown,
                }
            }
        };
        if let Some(from) = source {
            self.overlay_input(Input::Refused { from, log, seq, why: refused });
        }
        false
    }

    /// Items are on disk: now they take effect.
    pub(super) fn on_journal(&mut self, jobs: Vec<JournalJob>) {
        self.note_written(&jobs);
        for job in jobs {
            self.committed(job);
        }
    }

    fn committed(&mut self, job: JournalJob) {
        let JournalJob { item, hash, fact, source, reply, kept } = job;
        let (log, seq) = (item.log, item.seq);
        self.counters.add("items_committed", item.kind.name());
        let before = self.overlay.links().count();
        if source.is_none() {
            let item = Arc::clone(&item);
            self.overlay_input(Input::Committed { log, seq, hash, item, source });
        }
        answer(reply, Ok((seq, u32::try_from(before).unwrap_or(u32::MAX))));
        let ready = match fact {
            Fact::Charter(kind) => {
                if kind == ItemKind::Root {
                    self.on_root();
                }
                if let Some((id, _)) = self.trust.charter().publisher_of(log) {
                    self.look_at_feed(id);
                }
                if kind == ItemKind::Group {
                    // It may be private from now on, or may not be.
                    self.checked.clear();
                    // It may ask for fresher beacons: one may be due now.
                    let doc = item.envelope.claimed::<GroupDoc>().ok();
                    for grant in doc.iter().flat_map(|d| d.publishers.iter()) {
                        self.look_at_feed(grant.publisher);
                    }
                }
                // A group may be known only now: others look for hosts that want it.
                self.refresh_record();
                self.trust.take_unlocked(&item)
            }
            Fact::Entry(entry) => {
                let unread = entry.get().sealed().is_some() && entry.get().release().is_none();
                // The key may have come since it was judged.
                let read = unread.then(|| self.trust.read_entry(&item)).flatten();
                let entry = read.as_ref().unwrap_or_else(|| entry.get());
                self.catalog.apply(entry);
                self.on_entry(entry, source);
                self.look_at_private_entry(entry);
                self.trust.take_ready(log, seq)
            }
            Fact::Turn(turn) => {
                self.refresh_record();
                self.on_turn(&turn, &kept);
                self.look_at_feed(turn.publisher);
                self.trust.take_all_pending()
            }
            Fact::Beacon(id) => {
                self.look_at_feed(id);
                Vec::new()
            }
            Fact::Deny(denial) => {
                self.on_deny(&denial);
                Vec::new()
            }
            Fact::Withdrawal(w) => {
                self.on_withdrawal(&w);
                Vec::new()
            }
            Fact::Grant(grant) => {
                self.on_grant(&grant);
                Vec::new()
            }
            Fact::Suicide(death) => {
                self.on_suicide(&death, &kept);
                self.trust.take_all_pending()
            }
        };
        for log in self.trust.take_void_beacons() {
            self.overlay_input(Input::Cut { log, head: None });
        }
        for item in ready {
            self.judge(item, None, None);
        }
        self.replan_soon();
    }

    /// Reads items that were passed on and sends them, in frames that fit: those that are not on
    /// disk yet as well, or who asks for what it just heard of would wait for nothing.
    pub(super) fn send_items(&self, to: NodeId, ranges: Vec<ItemRange>) {
        let Some(link) = self.connections.get(&to) else { return };
        let outbox = Arc::clone(&link.connected.outbox);
        let store = Arc::clone(&self.store);
        let fresh: Vec<Vec<Arc<Item>>> = ranges.iter().map(|r| self.gather.passed(r)).collect();
        self.workers.disk(move || {
            // What narrows goes before what others asked for.
            let (first, other): (Vec<_>, Vec<_>) =
                ranges.into_iter().zip(fresh).partition(|(r, _)| r.log.is_first());
            for (ranges, priority) in [(first, Priority::Control), (other, Priority::Lazy)] {
                send_ranges(&store, &outbox, ranges, priority);
            }
            outbox.write();
            None::<Done>
        });
    }
}

/// Reads ranges and sends them, with what is on its way to the disk.
fn send_ranges(
    store: &Store,
    outbox: &crate::net::Outbox,
    ranges: Vec<(ItemRange, Vec<Arc<Item>>)>,
    priority: Priority,
) {
    let mut batch: Vec<Item> = Vec::new();
    let mut bytes = 0;
    for (range, fresh) in ranges {
        let mut items = store.items(range, 4 * FRAME_LEN_MAX, 256).unwrap_or_default();
        continue_with(&mut items, range, &fresh);
        for item in items {
            let len = encode(&item).len();
            if bytes + len > FRAME_LEN_MAX - 1_024 || batch.len() == ITEMS_PER_FRAME_MAX {
                send_batch(outbox, &mut batch, priority);
                bytes = 0;
            }
            bytes += len;
            batch.push(item);
        }
    }
    send_batch(outbox, &mut batch, priority);
}

/// Appends what follows the items that were on disk: without a gap, but of a log that has gaps.
fn continue_with(items: &mut Vec<Item>, range: ItemRange, fresh: &[Arc<Item>]) {
    for item in fresh {
        let next = items.last().map_or(range.from, |i| i.seq.saturating_add(1));
        if item.seq == next || (item.seq > next && is_moment(item.seq)) {
            items.push(Item::clone(item));
        }
    }
}

fn send_batch(outbox: &crate::net::Outbox, batch: &mut Vec<Item>, priority: Priority) {
    if batch.is_empty() {
        return;
    }
    let items = List::truncated(core::mem::take(batch));
    let frame = Frame::Overlay(OverlayFrame::Items(items));
    // The asker asks again after its time-out where this did not fit.
    outbox.push(priority, frame.to_bytes()).unwrap_or_default();
}

/// What to tell who brought something that must wait.
fn too_early(kind: ItemKind) -> CommitError {
    if kind.is_first() {
        let why = "it waits for a charter document that this node lacks: send those first";
        CommitError::Malformed(why.into())
    } else {
        CommitError::HeadMoved
    }
}

pub(super) fn answer(reply: Option<Reply>, outcome: Result<(u64, u32), CommitError>) {
    if let Some(reply) = reply {
        // The publisher may have gone meanwhile; the entry stands all the same.
        drop(reply.send(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stork_wire::limits::MOMENTS_FROM;
    use stork_wire::sign::Envelope;

    fn item(seq: u64) -> Item {
        let log = LogId([1; 32]);
        let body = stork_wire::codec::Blob::new(Vec::new()).unwrap();
        let envelope = Envelope { body, signatures: List::empty() };
        Item { kind: ItemKind::Entry, log, seq, envelope }
    }

    /// What is on its way to the disk follows what is on it, without a gap and without doubles: the
    /// journal may have written some of it since the question came.
    #[test]
    fn answers_go_on_from_memory() {
        let answer = |on_disk: &[u64], fresh: &[u64], from: u64| -> Vec<u64> {
            let mut items: Vec<Item> = on_disk.iter().map(|n| item(*n)).collect();
            let fresh: Vec<Arc<Item>> = fresh.iter().map(|n| Arc::new(item(*n))).collect();
            let range = ItemRange { log: LogId([1; 32]), from, to: u64::MAX };
            continue_with(&mut items, range, &fresh);
            items.iter().map(|i| i.seq).collect()
        };
        assert_eq!(answer(&[3, 4], &[4, 5, 6], 3), [3, 4, 5, 6]);
        assert_eq!(answer(&[], &[3, 4], 3), [3, 4]);
        assert_eq!(answer(&[3], &[5, 6], 3), [3], "a piece that ended early has a gap behind it");
        let (a, b) = (MOMENTS_FROM + 5, MOMENTS_FROM + 9);
        assert_eq!(answer(&[a], &[b], a), [a, b], "times have gaps");
    }
}
