//! The one embedded database: its tables, and the only ways to read and write them.
//!
//! Keys are plain bytes, so that their order on disk is the order of iteration: an item's key is
//! its log and its number in big-endian order. Every write is one durable transaction. A commit
//! that fails latches the store, because redb itself can't go on after it; a disk that is nearly
//! full is refused before redb touches it, so that a full disk doesn't latch.

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stork_wire::codec::encode;

use super::{Store, StoreError};

pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A key and its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// Log and number → hash and item.
pub(super) const ITEMS: Bytes = TableDefinition::new("items");
/// Log → number and hash of its newest item.
pub(super) const HEADS: Bytes = TableDefinition::new("heads");
/// Log, number and hash → item: entries behind a fork, which VMs may still show.
pub(super) const ASIDE: Bytes = TableDefinition::new("aside");
/// Name → small state of other rooms.
pub(super) const STATE: Bytes = TableDefinition::new("state");
/// Token → the time after which it may be forgotten.
pub(super) const TOKENS: Bytes = TableDefinition::new("tokens");
/// Object → what it holds.
pub(super) const OBJECTS: Bytes = TableDefinition::new("objects");
/// Content and object → nothing: which objects hold a content.
pub(super) const CONTENTS: Bytes = TableDefinition::new("contents");
/// Tree → the objects of its files, one after the other.
pub(super) const TREES: Bytes = TableDefinition::new("trees");
/// Package set → what it was built from.
pub(super) const SETS: Bytes = TableDefinition::new("sets");
/// Manifest → its tree and packs.
pub(super) const MANIFESTS: Bytes = TableDefinition::new("manifests");
/// Name → what may not be removed.
pub(super) const LEASES: Bytes = TableDefinition::new("leases");

const ALL: [Bytes; 11] =
    [ITEMS, HEADS, ASIDE, STATE, TOKENS, OBJECTS, CONTENTS, TREES, SETS, MANIFESTS, LEASES];

/// Bytes that must be free before a transaction begins: what the largest one takes twice over.
pub(super) const COMMIT_FREE_MIN: u64 = 2 * 1024 * 1024;

/// Why a transaction ended without a commit.
pub(super) enum TxError {
    /// The database failed.
    Db(Box<redb::Error>),
    /// What was asked for is refused.
    Refused(StoreError),
}

impl From<StoreError> for TxError {
    fn from(e: StoreError) -> Self {
        Self::Refused(e)
    }
}
impl From<redb::StorageError> for TxError {
    fn from(e: redb::StorageError) -> Self {
        Self::Db(Box::new(e.into()))
    }
}
impl From<redb::TableError> for TxError {
    fn from(e: redb::TableError) -> Self {
        Self::Db(Box::new(e.into()))
    }
}
impl From<redb::TransactionError> for TxError {
    fn from(e: redb::TransactionError) -> Self {
        Self::Db(Box::new(e.into()))
    }
}
impl From<redb::CommitError> for TxError {
    fn from(e: redb::CommitError) -> Self {
        Self::Db(Box::new(e.into()))
    }
}

/// A key of two parts.
pub(super) fn key(a: &[u8], b: &[u8]) -> Vec<u8> {
    [a, b].concat()
}

/// The first 32 bytes of a key or value, if there are so many.
pub(super) fn first_id(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.first_chunk::<32>().copied()
}

/// The smallest key that no key with this prefix reaches; `None` after the last.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl Store {
    /// Makes every table, so that reading one never fails for want of it.
    pub(super) fn make_tables(db: &redb::Database) -> Result<(), TxError> {
        let tx = db.begin_write()?;
        for table in ALL {
            drop(tx.open_table(table)?);
        }
        tx.commit()?;
        Ok(())
    }

    /// Would a transaction begin now?
    ///
    /// # Errors
    /// Says why not: the store only reads, or the disk has no room.
    pub fn takes_items(&self) -> Result<(), StoreError> {
        self.check_latch()?;
        self.check_free(COMMIT_FREE_MIN, self.options.min_free_bytes.min(COMMIT_FREE_MIN))
    }

    /// Runs one durable transaction; what `f` refuses leaves no trace.
    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        self.takes_items()?;
        let run = || {
            let tx = self.db.begin_write()?;
            let value = f(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|e| match e {
            TxError::Refused(e) => e,
            TxError::Db(e) => {
                self.latch(format!("a transaction in {}: {e}", self.db_path().display()));
                self.latched_error()
            }
        })
    }

    /// Reads one state of the database.
    pub(super) fn read<T>(
        &self,
        f: impl FnOnce(&ReadTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        let run = || f(&self.db.begin_read()?);
        run().map_err(|e| match e {
            TxError::Refused(e) => e,
            TxError::Db(e) => self.damaged(e.to_string()),
        })
    }

    pub(super) fn damaged(&self, why: String) -> StoreError {
        StoreError::DamagedState { path: self.db_path(), why }
    }

    /// One value.
    pub(super) fn row(&self, table: Bytes, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|tx| Ok(tx.open_table(table)?.get(key)?.map(|v| v.value().to_vec())))
    }

    /// One value, decoded.
    pub(super) fn record<T: Serialize + DeserializeOwned>(
        &self,
        table: Bytes,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        self.row(table, key)?.map(|bytes| self.decode_row(&bytes)).transpose()
    }

    /// Decodes a value of ours.
    pub(super) fn decode_row<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        postcard::from_bytes(bytes).map_err(|e| self.damaged(format!("a row does not decode: {e}")))
    }

    /// Every row of a table.
    pub(super) fn rows(&self, table: Bytes) -> Result<Vec<Row>, StoreError> {
        self.read(|tx| {
            let mut out = Vec::new();
            for row in tx.open_table(table)?.iter()? {
                let (k, v) = row?;
                out.push((k.value().to_vec(), v.value().to_vec()));
            }
            Ok(out)
        })
    }

    /// The rows of a table whose keys begin so.
    pub(super) fn rows_of(&self, table: Bytes, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let end = after_prefix(prefix);
        self.read(|tx| {
            let table = tx.open_table(table)?;
            let rows = match &end {
                Some(end) => table.range(prefix..end.as_slice())?,
                None => table.range(prefix..)?,
            };
            let mut out = Vec::new();
            for row in rows {
                let (k, v) = row?;
                out.push((k.value().to_vec(), v.value().to_vec()));
            }
            Ok(out)
        })
    }

    /// Writes one row.
    pub(super) fn put_row(&self, table: Bytes, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(|tx| put(tx, table, key, value))
    }

    /// Writes one row, encoded.
    pub(super) fn put_record<T: Serialize>(
        &self,
        table: Bytes,
        key: &[u8],
        value: &T,
    ) -> Result<(), StoreError> {
        self.put_row(table, key, &encode(value))
    }
}

/// Writes one row inside a transaction.
pub(super) fn put(
    tx: &WriteTransaction,
    table: Bytes,
    key: &[u8],
    value: &[u8],
) -> Result<(), TxError> {
    tx.open_table(table)?.insert(key, value)?;
    Ok(())
}

/// Removes one row inside a transaction.
pub(super) fn remove(tx: &WriteTransaction, table: Bytes, key: &[u8]) -> Result<(), TxError> {
    tx.open_table(table)?.remove(key)?;
    Ok(())
}
