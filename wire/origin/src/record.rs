//! What a publisher remembers of uploads that were cut off, so that the next try goes on with them.
//!
//! One small file an upload, in a folder of the publisher. A record only saves work: without it the
//! upload begins anew. It holds no secret.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// Bytes of a record at the most: 64 MiB in parts of 8 MiB are eight short names.
const RECORD_LEN_MAX: u64 = 64 * 1024;

/// Where records lie.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

/// One upload in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) origin: String,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) part_len: u64,
    pub(crate) upload: String,
    /// What the origin calls the parts that it has, in order.
    pub(crate) parts: Vec<String>,
}

impl Records {
    /// Records in this folder, which is made when it is needed.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, origin: &str, key: &Key) -> PathBuf {
        let name = blake3::hash(format!("{origin}\n{key}").as_bytes()).to_hex();
        self.dir.join(format!("{name}.json"))
    }

    /// What is remembered of an upload, if it fits.
    pub(crate) fn find(&self, fits: &Record, key: &Key) -> Option<Record> {
        let path = self.path(&fits.origin, key);
        if fs::metadata(&path).ok()?.len() > RECORD_LEN_MAX {
            return None;
        }
        let found: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same = Record { upload: fits.upload.clone(), parts: Vec::new(), ..found.clone() };
        let parts_max = fits.size.div_ceil(fits.part_len.max(1));
        (same == *fits && found.parts.len() as u64 <= parts_max).then_some(found)
    }

    /// Remembers. A folder that cannot be written to costs the next try some bytes, and no more.
    pub(crate) fn keep(&self, record: &Record, key: &Key) {
        let path = self.path(&record.origin, key);
        let Ok(bytes) = serde_json::to_vec(record) else { return };
        let write = || {
            fs::create_dir_all(&self.dir)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            std::io::Write::write_all(&mut file, &bytes)?;
            file.persist(&path).map(drop).map_err(|e| e.error)
        };
        drop(write());
    }

    /// Forgets.
    pub(crate) fn forget(&self, origin: &str, key: &Key) {
        // What is not there is forgotten already.
        drop(fs::remove_file(self.path(origin, key)));
        // The last one takes the folder along; others keep it.
        drop(fs::remove_dir(&self.dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stork_wire::ids::PackId;

    /// A record is found again for the same upload only, and is gone with its folder.
    #[test]
    fn records() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("uploads"));
        let key = Key::pack(PackId([7; 32]));
        let record = Record {
            origin: "s3://b/x".into(),
            key: key.to_string(),
            size: 20,
            part_len: 8,
            upload: "u1".into(),
            parts: vec!["e1".into()],
        };
        let wanted = Record { upload: String::new(), parts: Vec::new(), ..record.clone() };
        assert_eq!(records.find(&wanted, &key), None);
        records.keep(&record, &key);
        assert_eq!(records.find(&wanted, &key), Some(record));
        assert_eq!(records.find(&Record { size: 21, ..wanted.clone() }, &key), None);
        assert_eq!(records.find(&Record { part_len: 9, ..wanted.clone() }, &key), None);
        records.forget("s3://b/x", &key);
        assert_eq!(records.find(&wanted, &key), None);
        assert!(!dir.path().join("uploads").exists());
    }
}
