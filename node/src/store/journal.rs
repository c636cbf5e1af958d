//! The journal of signed items and the small state of other rooms.
//!
//! An item counts as known once [`Store::commit_items`] returned: it is then on disk with the head
//! of its log, in one transaction, so that a restart never forgets what was acknowledged.

use std::collections::BTreeSet;

use redb::ReadableTable;
use stork_wire::codec::encode;
use stork_wire::frame::ItemRange;
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::{Cut, Head, Item, is_moment};

use super::db::{
    ASIDE, Bytes, HEADS, ITEMS, STATE, TOKENS, TxError, after_prefix, first_id, key, put,
};
use super::{Store, StoreError};
use crate::failpoint;

/// An item that the trust rules accepted, with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalItem {
    /// The item.
    pub item: Item,
    /// The hash that stands for it ([`Item::hash`]).
    pub hash: ItemHash,
    /// What is void with it.
    pub cuts: Vec<Cut>,
}

type Table<'tx> = redb::Table<'tx, &'static [u8], &'static [u8]>;

fn item_key(log: LogId, seq: u64) -> Vec<u8> {
    key(log.as_bytes(), &seq.to_be_bytes())
}

fn read_head(value: &[u8]) -> Option<(u64, ItemHash)> {
    let (seq, hash) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*seq), ItemHash(first_id(hash)?)))
}

/// Drops what is void, and sets the head of the log back to what stands.
fn cut(
    rows: &mut Table<'_>,
    heads: &mut Table<'_>,
    aside: Option<&mut Table<'_>>,
    cut: &Cut,
) -> Result<(), TxError> {
    let hash_of = |value: &[u8]| value.split_first_chunk::<32>().map(|(h, _)| ItemHash(*h));
    let mut after = cut.after;
    let stands = rows.get(item_key(cut.log, after).as_slice())?.and_then(|v| hash_of(v.value()));
    if cut.last.is_some() && stands.is_some() && stands != cut.last {
        after = after.saturating_sub(1);
    }
    let (from, to) = (item_key(cut.log, after.saturating_add(1)), item_key(cut.log, u64::MAX));
    let mut void = Vec::new();
    for row in rows.range(from.as_slice()..=to.as_slice())? {
        let (key, value) = row?;
        void.push((key.value().to_vec(), value.value().to_vec()));
    }
    for (key, _) in &void {
        rows.remove(key.as_slice())?;
    }
    if let Some(aside) = aside {
        for (row, value) in &void {
            let hash = value.get(..32).unwrap_or_default();
            aside.insert(key(row, hash).as_slice(), value.as_slice())?;
        }
    }
    let log = cut.log.as_bytes().as_slice();
    let head = heads.get(log)?.and_then(|v| read_head(v.value()));
    if head.is_some_and(|(seq, _)| seq > after) {
        let stands =
            rows.get(item_key(cut.log, after).as_slice())?.and_then(|v| hash_of(v.value()));
        match stands {
            Some(hash) => {
                let head = key(&after.to_be_bytes(), hash.as_bytes());
                heads.insert(log, head.as_slice())?;
            }
            None => drop(heads.remove(log)?),
        }
    }
    Ok(())
}

impl Store {
    /// Writes items, moves the heads of their logs, and drops what is void with them, all or none,
    /// durably.
    ///
    /// # Errors
    /// [`StoreError::HeadWouldFall`] where an item has a number below its log's head, or that
    /// number and another hash; nothing of the batch is then written. The head itself may come
    /// again.
    pub fn commit_items(&self, items: &[JournalItem]) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            let mut rows = tx.open_table(ITEMS)?;
            let mut heads = tx.open_table(HEADS)?;
            for JournalItem { item, hash, cuts } in items {
                let log = item.log.as_bytes().as_slice();
                let head = heads.get(log)?.and_then(|v| read_head(v.value()));
                match head {
                    Some((head, known))
                        if item.seq < head || (item.seq == head && known != *hash) =>
                    {
                        let (log, seq) = (item.log, item.seq);
                        return Err(StoreError::HeadWouldFall { log, seq, head }.into());
                    }
                    _ => {}
                }
                let value = key(hash.as_bytes(), &encode(item));
                rows.insert(item_key(item.log, item.seq).as_slice(), value.as_slice())?;
                // Of a log whose numbers are times only the newest item is kept.
                if let Some((before, _)) = head
                    && is_moment(item.seq)
                    && before < item.seq
                {
                    rows.remove(item_key(item.log, before).as_slice())?;
                }
                let head = key(&item.seq.to_be_bytes(), hash.as_bytes());
                heads.insert(log, head.as_slice())?;
                for c in cuts {
                    // To open a table costs a transaction more than an item does.
                    let mut aside = if c.keep { Some(tx.open_table(ASIDE)?) } else { None };
                    cut(&mut rows, &mut heads, aside.as_mut(), c)?;
                }
            }
            drop((rows, heads));
            failpoint::hit("store.journal.before_commit");
            Ok(())
        })?;
        failpoint::hit("store.journal.after_commit");
        Ok(())
    }

    /// Items of one log in order, as many as fit both bounds; the first one comes even if it alone
    /// is larger.
    pub fn items(
        &self,
        range: ItemRange,
        bytes_max: usize,
        count_max: usize,
    ) -> Result<Vec<Item>, StoreError> {
        self.items_in(ITEMS, range, (bytes_max, count_max))
    }

    fn items_in(
        &self,
        table: Bytes,
        range: ItemRange,
        (bytes_max, count_max): (usize, usize),
    ) -> Result<Vec<Item>, StoreError> {
        if range.from > range.to {
            return Ok(Vec::new());
        }
        self.read(|tx| {
            let (from, to) = (item_key(range.log, range.from), item_key(range.log, range.to));
            let mut out = Vec::new();
            let mut bytes = 0;
            for row in tx.open_table(table)?.range(from.as_slice()..=to.as_slice())? {
                let (_, value) = row?;
                bytes += value.value().len();
                if out.len() >= count_max || (bytes > bytes_max && !out.is_empty()) {
                    break;
                }
                out.push(self.read_item(value.value())?.item);
            }
            Ok(out)
        })
    }

    fn read_item(&self, value: &[u8]) -> Result<JournalItem, StoreError> {
        let (hash, item) = value
            .split_first_chunk::<32>()
            .ok_or_else(|| self.damaged("an item's row is too short".to_owned()))?;
        let item = self.decode_row(item)?;
        Ok(JournalItem { item, hash: ItemHash(*hash), cuts: Vec::new() })
    }

    /// Every item of one log, in order.
    pub fn log_items(&self, log: LogId) -> Result<Vec<Item>, StoreError> {
        self.items(ItemRange { log, from: 1, to: u64::MAX }, usize::MAX, usize::MAX)
    }

    /// Entries that were kept aside when a feed was frozen.
    pub fn items_aside(&self) -> Result<Vec<Item>, StoreError> {
        self.rows(ASIDE)?.iter().map(|(_, value)| Ok(self.read_item(value)?.item)).collect()
    }

    /// Forgets entries of these logs that were kept aside, but for those that are still needed.
    pub fn drop_aside(
        &self,
        logs: &[LogId],
        keep: impl Fn(LogId, u64) -> bool,
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for log in logs {
            let own = ItemRange { log: *log, from: 0, to: u64::MAX };
            for item in self.items_in(ASIDE, own, (usize::MAX, usize::MAX))? {
                if !keep(*log, item.seq) {
                    gone.push((*log, item.seq));
                }
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.room_to_free()?;
        self.write(|tx| {
            let mut aside = tx.open_table(ASIDE)?;
            for (log, seq) in &gone {
                // The hash of the entry stands behind its number: there may be several.
                let (from, to) = (item_key(*log, *seq), item_key(*log, seq.saturating_add(1)));
                aside.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
            }
            Ok(())
        })
    }

    /// Some of those of one log from a number on, in order.
    pub fn log_items_aside(
        &self,
        log: LogId,
        from: u64,
        count_max: usize,
    ) -> Result<Vec<Item>, StoreError> {
        self.items_in(ASIDE, ItemRange { log, from, to: u64::MAX }, (usize::MAX, count_max))
    }

    /// Every item, ordered by log and number: what a start reads.
    pub fn all_items(&self, mut each: impl FnMut(JournalItem)) -> Result<(), StoreError> {
        self.read(|tx| {
            for row in tx.open_table(ITEMS)?.iter()? {
                each(self.read_item(row?.1.value())?);
            }
            Ok(())
        })
    }

    /// The head of every log.
    pub fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let rows = self.rows(HEADS)?;
        let head = |(log, value): &(Vec<u8>, Vec<u8>)| {
            let (seq, hash) = read_head(value)?;
            Some(Head::of(LogId(first_id(log)?), seq, hash))
        };
        Ok(rows.iter().filter_map(head).collect())
    }

    /// Keeps a small value durably.
    pub fn put_state(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.put_row(STATE, name.as_bytes(), value)
    }

    /// Changes several small values at once, all or none; `None` removes one.
    pub fn put_states(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(STATE)?;
            for (name, value) in changes {
                match value {
                    Some(value) => drop(table.insert(name.as_bytes(), value.as_slice())?),
                    None => drop(table.remove(name.as_bytes())?),
                }
            }
            Ok(())
        })
    }

    /// A small value.
    pub fn get_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.row(STATE, name.as_bytes())
    }

    /// Forgets a small value durably.
    pub fn remove_state(&self, name: &str) -> Result<(), StoreError> {
        self.room_to_free()?;
        self.put_states(&[(name.to_owned(), None)])
    }

    /// The small values whose names begin with `prefix`, in the order of their names.
    pub fn list_state(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(STATE)?;
            let from = prefix.as_bytes();
            let end = after_prefix(from);
            let rows = match &end {
                Some(end) => table.range(from..end.as_slice())?,
                None => table.range(from..)?,
            };
            let mut out = Vec::new();
            for row in rows {
                let (name, value) = row?;
                let name = String::from_utf8_lossy(name.value()).into_owned();
                out.push((name, value.value().to_vec()));
            }
            Ok(out)
        })
    }

    /// Marks a one-time token as used: true for the first caller, false for every later one, also
    /// after a restart. Tokens that expired long ago are forgotten, since their time speaks for
    /// them.
    pub fn used_token(&self, id: [u8; 16], expires: u64) -> Result<bool, StoreError> {
        // A clock that is wrong by less than a day makes no token usable twice.
        let forget = super::space::unix_now().saturating_sub(86_400);
        self.write(|tx| {
            let mut table = tx.open_table(TOKENS)?;
            if table.get(id.as_slice())?.is_some() {
                return Ok(false);
            }
            let mut old = BTreeSet::new();
            for row in table.iter()? {
                let (id, value) = row?;
                let until = value.value().first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
                if until < forget {
                    old.insert(id.value().to_vec());
                }
            }
            for id in old {
                table.remove(id.as_slice())?;
            }
            drop(table);
            put(tx, TOKENS, &id, &expires.to_be_bytes())?;
            Ok::<_, TxError>(true)
        })
    }
}
