//! A publisher's hand: entries that say something new with so many bytes, signed one after the
//! other.
//!
//! A payload of the bench is the signed body of one feed entry, filled up to the size that was
//! asked for: a release whose `depends` is noise, or, about each 32nd time, a recall of those
//! before it, as a publisher's feed must have them if its live releases are not to grow without
//! end.

use anyhow::{Context, Result, ensure};
use stork_tests::raw_push::{Publisher, now};
use stork_wire::codec::{List, encode};
use stork_wire::feed::{Entry, Kind, Recall, Release, view_root};
use stork_wire::frame::{PushReply, PushRequest};
use stork_wire::ids::{ItemHash, LogId, NodeId, ReleaseHash};
use stork_wire::sign::Envelope;
use stork_wire::text::Line;

/// Releases that are live before they are withdrawn.
const LIVE_MAX: usize = 32;
/// Bytes that one line of text holds.
const LINE_MAX: usize = 512;

/// Continues one feed.
pub(super) struct Pen {
    publisher: Publisher,
    template: Release,
    head: ItemHash,
    seq: u64,
    /// The counter and hash of each release that is not withdrawn.
    live: Vec<(u64, ReleaseHash)>,
    size: usize,
}

impl Pen {
    /// Reads where the feed stands from the node that took its first release.
    pub(super) async fn new(
        publisher: Publisher,
        (node, addr): (NodeId, std::net::SocketAddr),
        size: usize,
    ) -> Result<Self> {
        let session = publisher.connect(node, addr).await?;
        let reply = session.ask(&PushRequest::Head, &[]).await?.0;
        let PushReply::Head { entry: Some(head), .. } = reply else {
            anyhow::bail!("nothing was published: {reply:?}");
        };
        let entry: Entry = head.claimed()?;
        let Kind::Release(template) = entry.kind else { anyhow::bail!("no release") };
        let live = vec![(template.release, template.hash())];
        let (template, seq) = (*template, entry.seq);
        Ok(Self { publisher, template, head: head.hash(), seq, live, size })
    }

    pub(super) fn log(&self) -> LogId {
        LogId::feed_epoch(self.publisher.id, 1)
    }

    pub(super) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The next entry, signed, and its number.
    pub(super) fn next(&mut self) -> Result<(u64, Envelope)> {
        let (entry, signed) = self.make()?;
        match &entry.kind {
            Kind::Release(r) => self.live.push((entry.seq, r.hash())),
            Kind::Recall(_) | Kind::Retire(_) => self.live.clear(),
            Kind::Sealed(s) => self.live.push((entry.seq, s.hash())),
        }
        (self.seq, self.head) = (entry.seq, signed.hash());
        Ok((entry.seq, signed))
    }

    /// What the next entry would be.
    pub(super) fn make(&self) -> Result<(Entry, Envelope)> {
        let seq = self.seq + 1;
        let withdraw = self.live.len() >= LIVE_MAX;
        let withdrawn: Vec<u64> = self.live.iter().map(|(n, _)| *n).collect();
        let kind = |filler: &str| -> Result<Kind> {
            let line: Line = filler.parse()?;
            Ok(if withdraw {
                let package = self.template.package.clone();
                Kind::Recall(Recall {
                    package,
                    releases: List::new(withdrawn.clone())?,
                    reason: line,
                })
            } else {
                let version = seq.to_string().parse()?;
                let depends = List::new(vec![line])?;
                let release = seq;
                Kind::Release(Box::new(Release {
                    version,
                    release,
                    depends,
                    ..self.template.clone()
                }))
            })
        };
        let entry = self.filled(seq, kind)?;
        let signed = Envelope::sign(&entry, self.publisher.fleet, &self.publisher.key)?;
        Ok((entry, signed))
    }

    /// An entry of exactly the size, by a line of noise of the right length.
    fn filled(&self, seq: u64, kind: impl Fn(&str) -> Result<Kind>) -> Result<Entry> {
        let noise = noise(seq);
        let entry = |len: usize| -> Result<Entry> {
            let kind = kind(noise.get(..len).context("a line does not hold so much")?)?;
            let of_this = match &kind {
                Kind::Release(r) => Some(r.hash()),
                Kind::Recall(_) | Kind::Retire(_) => None,
                Kind::Sealed(s) => Some(s.hash()),
            };
            let before = self.live.iter().map(|(_, hash)| *hash).filter(|_| of_this.is_some());
            let view_root = view_root(before.chain(of_this));
            Ok(Entry {
                version: 1,
                publisher: self.publisher.id,
                epoch: 1,
                seq,
                prev: Some(self.head),
                document: 1,
                signed_at: now(),
                expires: now() + 86_400,
                view_root,
                kind,
                via: None,
            })
        };
        let empty = encode(&entry(1)?).len();
        let len = (self.size + 1).checked_sub(empty);
        let len = len.with_context(|| format!("an entry has at least {empty} bytes"))?;
        // A longer line has a longer count before it.
        for less in 0..3 {
            let made = entry(len.saturating_sub(less).max(1))?;
            if encode(&made).len() == self.size {
                return Ok(made);
            }
        }
        ensure!(len < LINE_MAX, "one line of text does not fill {} bytes", self.size);
        anyhow::bail!("no entry has exactly {} bytes", self.size)
    }
}

/// Letters that are different for each number.
fn noise(seq: u64) -> String {
    let mut bytes = vec![0; LINE_MAX / 2];
    blake3::Hasher::new_derive_key("stork bench news")
        .update(&seq.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
