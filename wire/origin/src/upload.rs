//! Putting content into an origin: created if it is absent, never replaced, never half there.
//!
//! What is short goes in one request that creates the object or fails. What is longer goes to a
//! bucket in parts; the object appears when the last part is there and the parts are put together.
//! If that is cut off, the next try goes on with the parts that the bucket has.

use object_store::multipart::{MultipartStore, PartId};
use object_store::{Error as StoreError, ObjectStore, PutMode, PutOptions, PutPayload};

use crate::error::{OriginError, Why};
use crate::key::Key;
use crate::record::{Record, Records};
use crate::store::Origin;

/// From so many bytes on an object goes in parts.
const PARTS_FROM: usize = 12 * 1024 * 1024;
/// Bytes of a part; S3 takes none below 5 MiB, apart from the last.
const PART_LEN: usize = 6 * 1024 * 1024;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was put there.
    Stored {
        /// Bytes that an earlier try had left there.
        resumed: u64,
    },
    /// It was there.
    Present,
}

impl Origin {
    /// Puts an object there unless it is; `advance` hears of bytes that are done.
    pub async fn put(
        &self,
        key: &Key,
        bytes: Vec<u8>,
        records: &Records,
        advance: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Put, OriginError> {
        if !self.address().takes_content() {
            return Err(OriginError::ReadOnly { origin: self.address().to_string() });
        }
        let size = bytes.len() as u64;
        if self.is_there(key, size).await? {
            records.forget(self.address().text(), key);
            advance(size);
            return Ok(Put::Present);
        }
        if bytes.len() < PARTS_FROM || self.bucket.is_none() {
            let put = self.put_whole(key, bytes).await?;
            advance(size);
            return Ok(put);
        }
        let resumed = self.put_parts(key, &bytes, records, advance).await?;
        if !self.is_there(key, size).await? {
            return Err(self.fault(key, Why::Down, "it was stored, and is not to be seen"));
        }
        Ok(Put::Stored { resumed })
    }

    /// Is it there, and as long as it must be? What has another length is left alone: it may be
    /// what somebody else reads, and only who looks after the origin can say what happened.
    async fn is_there(&self, key: &Key, size: u64) -> Result<bool, OriginError> {
        match self.len_of(key).await? {
            None => Ok(false),
            Some(len) if len == size => Ok(true),
            Some(len) => {
                let text = format!("it is there with {len} bytes, and must have {size}");
                Err(self.fault(key, Why::Wrong, &text))
            }
        }
    }

    async fn put_whole(&self, key: &Key, bytes: Vec<u8>) -> Result<Put, OriginError> {
        let (path, size) = (self.path(key), bytes.len() as u64);
        let payload = PutPayload::from(bytes);
        let create = PutOptions::from(PutMode::Create);
        let outcome = match self.store.put_opts(&path, payload.clone(), create).await {
            // Some stores know no conditions. We have looked; who comes at the same moment puts
            // the same bytes there.
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                self.store.put_opts(&path, payload, PutOptions::default()).await
            }
            other => other,
        };
        match outcome {
            Ok(_) => Ok(Put::Stored { resumed: 0 }),
            // Somebody was faster.
            Err(StoreError::AlreadyExists { .. }) => match self.is_there(key, size).await? {
                true => Ok(Put::Present),
                false => Err(self.fault(key, Why::Down, "it came and went while we put it there")),
            },
            Err(e) => Err(self.failed(key, &e)),
        }
    }

    /// Puts an object together from parts; says how many bytes were there from an earlier try.
    async fn put_parts(
        &self,
        key: &Key,
        bytes: &[u8],
        records: &Records,
        advance: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, OriginError> {
        let mut record = Record {
            origin: self.address().to_string(),
            key: key.to_string(),
            size: bytes.len() as u64,
            part_len: PART_LEN as u64,
            upload: String::new(),
            parts: Vec::new(),
        };
        if let Some(found) = records.find(&record, key) {
            let resumed = (found.parts.len() as u64 * record.part_len).min(record.size);
            advance(resumed);
            let mut found = found;
            match self.go_on(key, bytes, &mut found, records, advance).await {
                Ok(()) => return Ok(resumed),
                // The bucket has dropped the parts, or put them together when we were cut off.
                Err(e) if e.why() == Why::Missing => {
                    if self.is_there(key, record.size).await? {
                        records.forget(&record.origin, key);
                        return Ok(resumed);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.go_on(key, bytes, &mut record, records, advance).await?;
        Ok(0)
    }

    async fn go_on(
        &self,
        key: &Key,
        bytes: &[u8],
        record: &mut Record,
        records: &Records,
        advance: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), OriginError> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let path = self.path(key);
        let failed = |e: StoreError| self.failed(key, &e);
        if record.upload.is_empty() {
            record.upload = bucket.create_multipart(&path).await.map_err(failed)?;
            records.keep(record, key);
        }
        for (i, part) in bytes.chunks(PART_LEN).enumerate().skip(record.parts.len()) {
            let payload = PutPayload::from(part.to_vec());
            let id = bucket.put_part(&path, &record.upload, i, payload).await.map_err(failed)?;
            record.parts.push(id.content_id);
            records.keep(record, key);
            advance(part.len() as u64);
        }
        let parts = record.parts.iter().map(|p| PartId { content_id: p.clone() }).collect();
        bucket.complete_multipart(&path, &record.upload, parts).await.map_err(failed)?;
        records.forget(&record.origin, key);
        Ok(())
    }
}
