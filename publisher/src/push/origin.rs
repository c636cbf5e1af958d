//! The content into an origin: packs, then the manifest, before anybody hears of the release.
//!
//! What stands in an origin is named by its hash and never replaced. The manifest comes last, so
//! that whoever finds it finds all packs.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use stork_origin::{Address, Key, Origin, Purpose, Put, Records};
use stork_wire::manifest::Manifest;
use tokio::task::JoinSet;

use super::PushOptions;
use super::error::PushError;
use crate::charter::Profile;
use crate::out;
use crate::pack::Packed;
use crate::progress::Progress;

/// Packs on their way at once: each is in memory, 33 MiB at the most.
const PACKS_AT_ONCE: usize = 4;
/// Below the publisher's directory: what a cut-off upload has left behind.
const RECORDS: &str = "uploads";

/// What went to the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OriginReport {
    /// Where it is.
    pub origin: Address,
    /// Objects that were put there.
    pub stored: u32,
    /// Objects that were there.
    pub present: u32,
    /// Bytes that travelled.
    pub sent_bytes: u64,
    /// Bytes that an earlier try had left there.
    pub resumed_bytes: u64,
    /// Bytes of objects that were there.
    pub present_bytes: u64,
}

impl OriginReport {
    fn add(&mut self, put: Put, size: u64) {
        match put {
            Put::Present => {
                self.present += 1;
                self.present_bytes += size;
            }
            Put::Stored { resumed } => {
                self.stored += 1;
                self.resumed_bytes += resumed;
                self.sent_bytes += size.saturating_sub(resumed);
            }
        }
    }

    pub(super) fn line(&self) -> String {
        let mut line = format!("  origin    {}: {} sent", self.origin, out::bytes(self.sent_bytes));
        for (bytes, what) in
            [(self.resumed_bytes, "resumed"), (self.present_bytes, "there already")]
        {
            if bytes > 0 {
                line.push_str(&format!(", {} {what}", out::bytes(bytes)));
            }
        }
        line
    }
}

/// An origin, and what is remembered of uploads to it.
#[derive(Debug, Clone)]
pub(super) struct OriginTarget {
    origin: Origin,
    records: Records,
}

/// The origin of the command line, or the profile's; what cannot take content is refused at once.
pub(super) fn target(
    options: &PushOptions,
    profile: &Profile,
) -> Result<Option<OriginTarget>, PushError> {
    let Some(address) = options.origin.as_ref().or(profile.origin.as_ref()) else {
        return Ok(None);
    };
    let below = |p: &Path| options.charter.join(p);
    let file = options.origin_credentials.clone();
    let file = file.or_else(|| profile.origin_credentials.as_deref().map(below));
    if !address.takes_content() {
        let origin = address.to_string();
        return Err(stork_origin::OriginError::ReadOnly { origin }.into());
    }
    let origin = Origin::open(address, file.as_deref(), Purpose::Write)?;
    Ok(Some(OriginTarget { origin, records: Records::new(options.charter.join(RECORDS)) }))
}

impl OriginTarget {
    pub(super) const fn address(&self) -> &Address {
        self.origin.address()
    }

    /// Puts packs and manifest there.
    pub(super) async fn upload(
        &self,
        packed: &Arc<Packed>,
        progress: &Progress,
    ) -> Result<OriginReport, PushError> {
        let packs = packed.all_packs();
        let bytes: u64 = packs.iter().map(|(_, size)| size).sum();
        let text = format!("sending to {}", self.address());
        progress.phase(&text, bytes + packed.bytes.len() as u64);
        let mut report = OriginReport {
            origin: self.address().clone(),
            stored: 0,
            present: 0,
            sent_bytes: 0,
            resumed_bytes: 0,
            present_bytes: 0,
        };
        let mut tasks: JoinSet<Result<(Put, u64), PushError>> = JoinSet::new();
        let mut left = packs.into_iter();
        loop {
            while tasks.len() < PACKS_AT_ONCE
                && let Some((id, size)) = left.next()
            {
                let (target, progress, path) =
                    (self.clone(), progress.clone(), packed.packs.path(&id));
                tasks.spawn(async move {
                    let bytes = tokio::fs::read(path).await.map_err(PushError::Local)?;
                    Ok((target.put(&Key::pack(id), bytes, &progress).await?, size))
                });
            }
            let Some(done) = tasks.join_next().await else { break };
            let (put, size) = done.map_err(|e| PushError::Local(std::io::Error::other(e)))??;
            report.add(put, size);
        }
        let key = Key::manifest(Manifest::reference(&packed.bytes).id);
        let put = self.put(&key, packed.bytes.clone(), progress).await?;
        report.add(put, packed.bytes.len() as u64);
        Ok(report)
    }

    async fn put(&self, key: &Key, bytes: Vec<u8>, progress: &Progress) -> Result<Put, PushError> {
        let advance = |bytes| progress.advance(bytes);
        Ok(self.origin.put(key, bytes, &self.records, &advance).await?)
    }
}
