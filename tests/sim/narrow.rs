//! What narrows in the simulated fleet: publishers take releases back beside their feeds.
//!
//! Each withdrawal has a log of its own (PROTOCOL.md, "What narrows"), which no node has heard of
//! before: its tree is as cold as a tree can be, while its feed's has carried entries already.

use anyhow::{Result, anyhow};
use stork_wire::charter::BODY_VERSION;
use stork_wire::codec::List;
use stork_wire::sign::Envelope;
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::feeds::{Feeds, Published, UNIX_START};
use super::world::{SECOND, World};

impl Feeds {
    /// Signs a recall of a feed's newest release; the number of its log, or `None` where there is
    /// no release, or it was taken back already. The rules must accept it. The feed's own view
    /// goes on without it: its entries name what is live in the feed.
    fn withdraw(&mut self, feed: u32, home: u32, now_unix: u64) -> Result<Option<u32>> {
        let fleet = self.fleet;
        let Some(of) = self.all.get(feed as usize) else { return Ok(None) };
        let Some(release) = of.live.last().copied() else { return Ok(None) };
        let body = Withdrawal {
            version: BODY_VERSION,
            publisher: of.publisher,
            epoch: 1,
            document: 1,
            by: Level::Release,
            signed_at: now_unix,
            what: What::Recall { package: "hello".parse()?, releases: List::truncated([release]) },
            reason: "the key was stolen".parse()?,
        };
        if self.by_log.contains_key(&body.log()) {
            return Ok(None);
        }
        let signed = Envelope::sign(&body, fleet, of.key.as_ref());
        let item = body.item(signed.map_err(|e| anyhow!("not signed: {e}"))?);
        self.accept_at(&item, now_unix)?;
        let item = Published::of(item, self.messages, now_unix);
        self.messages += 1;
        self.beside(feed, home, item).map(Some)
    }

    /// Do the rules hold back the newest release of a feed but one (S6)?
    pub(crate) fn holds_back(&self, feed: u32) -> bool {
        let Some(of) = self.all.get(feed as usize) else { return false };
        let Ok(package) = "hello".parse() else { return false };
        let hash = of.live.iter().rev().nth(1);
        let charter = self.judge.charter();
        hash.is_some_and(|h| charter.recalled(of.publisher, 1, &package, *h).is_some())
    }
}

impl World {
    /// The number of some feed.
    pub(crate) fn any_feed(&mut self) -> u32 {
        self.rng.node(self.options.feeds as usize)
    }

    /// A publisher takes the newest release of a feed back at a node; the number of the
    /// withdrawal's log, or `None` where the node cannot take it or nothing is left to take back.
    pub(crate) fn withdraw(&mut self, feed: u32, i: u32) -> Result<Option<u32>> {
        let up = |n: &super::world::Node| {
            n.alive && n.is_honest() && n.paused_until <= self.now && n.full_until <= self.now
        };
        if !self.node(i).is_some_and(up) {
            return Ok(None);
        }
        let unix = UNIX_START + self.now / SECOND;
        let Some(log) = self.feeds.withdraw(feed, i, unix)? else { return Ok(None) };
        for node in &mut self.nodes {
            node.logs.resize(self.feeds.all.len(), (0, 0));
        }
        self.pushed(i, log, 1);
        Ok(Some(log))
    }
}
