//! Forks of a feed on this host: the proof is made of both entries, and what it makes void, or a
//! new epoch does, is taken out of catalog and heads.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use stork_wire::feed::Entry;
use stork_wire::frame::ItemRange;
use stork_wire::item::{Head, Item};
use stork_wire::proof::Proof;

use super::Driver;
use super::workers::Done;
use crate::catalog::{Considered, Fallen};
use crate::overlay::Input;
use crate::trust::{Cause, Turn};

/// Looks into the journal for our own entry, which the rules know some milliseconds before the disk
/// does.
const LOOKS: u32 = 50;
/// Time between them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Driver {
    /// Reads our own entry with the number of one that contradicts it.
    pub(super) fn find_rival(&self, theirs: Item) {
        let store = std::sync::Arc::clone(&self.store);
        let range = ItemRange { log: theirs.log, from: theirs.seq, to: theirs.seq };
        self.workers.disk(move || {
            for _ in 0..LOOKS {
                let found = store.items(range, usize::MAX, 1).unwrap_or_default();
                if let Some(ours) = found.into_iter().next() {
                    return Some(Done::Rival { ours: Some(ours), theirs });
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Some(Done::Rival { ours: None, theirs })
        });
    }

    /// Both entries are here: together they are the proof.
    pub(super) fn on_rival(&mut self, ours: Option<Item>, theirs: &Item) {
        let proof = ours.and_then(|o| Proof::of(&o.envelope, &theirs.envelope));
        if let Some(item) = proof.and_then(|p| p.item()) {
            self.judge(item, None, None);
        }
    }

    /// A feed was frozen, or goes on in a new epoch, and the journal knows: the state is built
    /// anew from what it kept.
    pub(super) fn on_turn(&mut self, turn: &Turn, kept: &[Item]) {
        let id = turn.publisher;
        if !turn.logs.is_empty() {
            self.trust.replay(id, kept);
            let newest = self.trust.feed(id).and_then(|f| f.newest()).map(|(at, _)| at);
            let entries: Vec<Entry> =
                kept.iter().filter_map(|i| self.trust.read_entry(i)).collect();
            let stand = entries.iter().filter(|e| Some(e.position()) <= newest);
            let fallen = match (turn.freeze, turn.keeps) {
                (Some(freeze), _) => Fallen::Frozen(freeze),
                (None, Some(at)) => Fallen::Retired(at),
                (None, None) => Fallen::Gone,
            };
            self.catalog.rebuild(id, stand, fallen);
            if turn.keeps.is_some() {
                self.compacted.insert(id);
            }
            self.look_at_private();
        }
        let heads = self.trust.heads();
        let logs = turn.cuts.iter().map(|c| c.log).chain(turn.closed);
        for log in logs {
            let head: Option<Head> = heads.iter().find(|h| h.log == log).copied();
            self.overlay_input(Input::Cut { log, head });
        }
        if turn.aside {
            // Taken from the end: the first epoch comes first.
            let logs = self.trust.feed_logs(id).into_iter().rev();
            self.look_aside(logs.map(|log| (log, 1)).collect());
        }
        let name = self.trust.charter().publisher_name(id);
        match turn.freeze {
            None if turn.mended => {
                self.counters.add("feeds", "branch_left");
                let at = turn.cuts.first().map_or(0, |c| c.after);
                let what = "is not that of the epoch's last entry";
                self.event("branch_left", format!("{name}: what came after entry {at} {what}"));
            }
            Some(freeze) => {
                self.counters.add("feeds", "frozen");
                self.event("feed_frozen", format!("{name} {freeze}"));
            }
            None => {
                self.counters.add("feeds", "epoch_begun");
                let epoch = self.trust.charter().publisher(id).map_or(0, |p| p.doc().epoch);
                self.event("epoch_begun", format!("{name}: epoch {epoch}"));
            }
        }
    }

    /// Whose feeds are frozen of those that were considered, for `stork why`.
    pub(super) fn frozen_of(&self, considered: &[Considered<'_>]) -> Vec<String> {
        let publishers: BTreeSet<_> = considered.iter().map(|c| c.known.publisher).collect();
        let name = |id| self.trust.charter().publisher_name(id);
        let frozen = publishers.into_iter().filter_map(|id| Some((id, self.trust.frozen(id)?)));
        frozen.map(|(id, freeze)| format!("{} {freeze}", name(id))).collect()
    }

    /// All frozen feeds, for `stork status`.
    pub(super) fn frozen_json(&self) -> Vec<Value> {
        let frozen = self.trust.feeds().filter_map(|(id, feed)| {
            let freeze = self.trust.frozen(*id)?;
            let newest = feed.newest();
            let Cause::Fork { proof, entries } = freeze.cause else { return None };
            Some(json!({
                "publisher": self.trust.charter().publisher_name(*id), "id": id,
                "epoch": freeze.at.epoch, "seq": freeze.at.seq, "proof": proof,
                "entries": entries,
                "stands": newest.map(|(at, hash)| json!({
                    "epoch": at.epoch, "seq": at.seq, "hash": hash,
                })),
                "text": freeze.to_string(),
            }))
        });
        frozen.collect()
    }
}
