//! Leaving a false branch of an epoch that has ended: the rules say which entries they want from
//! its end down (`trust/branch.rs`), neighbours are asked one after the other, and what was found
//! to be false is cut from the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stork_wire::ids::LogId;
use stork_wire::item::Item;

use super::Driver;
use super::workers::{Done, JournalJob};
use crate::overlay::Input;
use crate::trust::{Fact, Turn};

/// Time between two looks for a document that is on its way to the disk.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same where the disk failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How far each log was asked for.
#[derive(Debug, Default)]
pub(super) struct Back(BTreeMap<LogId, u64>);

impl Driver {
    /// Asks for what the rules want next, and leaves what they found to be false. What was asked
    /// for and did not come is asked of another neighbour where it is `time` to: once a second.
    pub(super) fn look_back(&mut self, time: bool) {
        for turn in self.trust.take_mends() {
            self.find_document(Box::new(turn));
        }
        let wanted = self.trust.asks_back();
        if time || wanted.is_empty() {
            self.back.0.clear();
        }
        for range in wanted {
            let asked = self.back.0.get(&range.log);
            if asked.is_none_or(|from| range.to < *from) {
                self.back.0.insert(range.log, range.from);
                self.overlay_input(Input::AskBack(range));
            }
        }
    }

    /// The journal cuts in the transaction that stores an item: here the publisher's newest
    /// document once more, which is what says that the branch is false.
    fn find_document(&self, turn: Box<Turn>) {
        let store = Arc::clone(&self.store);
        let newest = self.newest_document(&turn);
        self.workers.disk(move || {
            let all = store.log_items(LogId::publisher(turn.publisher)).unwrap_or_else(|e| {
                tracing::error!("a false branch stays until the journal can be read: {e}");
                std::thread::sleep(AFTER_FAILURE);
                Vec::new()
            });
            let document = all.into_iter().last();
            if document.as_ref().map(|d| d.seq) != newest {
                std::thread::sleep(LOOK_EVERY);
            }
            Some(Done::Mend { turn, document })
        });
    }

    fn newest_document(&self, turn: &Turn) -> Option<u64> {
        self.trust.charter().publisher(turn.publisher).map(|p| p.doc().number)
    }

    /// The document was read; one that is on its way to the disk is there soon.
    pub(super) fn on_mend(&mut self, turn: Box<Turn>, document: Option<Item>) {
        let newest = self.newest_document(&turn);
        let Some(document) = document.filter(|d| Some(d.seq) == newest) else {
            return self.find_document(turn);
        };
        let (hash, fact) = (document.hash(), Fact::Turn(turn));
        let item = Arc::new(document);
        let (source, reply, kept) = (None, None, Vec::new());
        self.write_down(JournalJob { item, hash, fact, source, reply, kept });
    }
}
