//! The origin store: the requests that the planner orders, and what comes of them.
//!
//! When and how much, the planner decides (`transfer/store.rs`). What comes is checked like what a
//! host sends: a piece by its hash before it is written, a manifest by the signed hash of the
//! announcement. An origin that lies is named with the object, and nothing of it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_origin::{Key, Origin, OriginError, Why};
use stork_wire::ids::{ManifestId, SwarmId};
use tokio::task::AbortHandle;

use super::Driver;
use super::workers::Done;
use crate::config::NodeConfig;
use crate::transfer::{self, Fault, Input, ORIGIN_STORE};

/// Releases whose first byte from the origin was told; the list is cleared beyond that.
const TOLD_MAX: usize = 256;

/// Something that an origin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Piece(SwarmId, u32),
    Manifest(ManifestId),
}

/// The origin of this node, and what was asked of it.
#[derive(Debug)]
pub(super) struct Fetches {
    origin: Option<Arc<Origin>>,
    tasks: BTreeMap<What, AbortHandle>,
    /// Contents of which operators know that they come from there.
    told: BTreeSet<ManifestId>,
    /// The last failure that was told, so that a long one is told once.
    failure: Option<String>,
}

impl Fetches {
    pub(super) const fn new(origin: Option<Arc<Origin>>) -> Self {
        Self { origin, tasks: BTreeMap::new(), told: BTreeSet::new(), failure: None }
    }
}

/// What the planner may do.
pub(super) fn transfer_config(config: &NodeConfig) -> transfer::Config {
    let rate = config.origin.as_ref().map_or(0, |_| config.origin_bytes_per_s);
    transfer::Config { store_bytes_per_s: rate, ..transfer::Config::default() }
}

const fn fault_of(why: Why) -> Fault {
    match why {
        Why::Wrong => Fault::Bad,
        Why::Missing | Why::Denied | Why::Down => Fault::Stalled,
    }
}

impl Driver {
    /// Begins a request: the object, its length, and which part of it.
    pub(super) fn fetch_from_origin(&mut self, what: What) {
        let Some((id, key, size, part)) = self.place_in_origin(what) else { return };
        let Some(origin) = self.store_fetches.origin.clone() else { return };
        if self.store_fetches.told.len() >= TOLD_MAX {
            self.store_fetches.told.clear();
        }
        if self.store_fetches.told.insert(id) {
            let title = self.contents.get(&id).map_or_else(String::new, |c| c.title.clone());
            let text =
                format!("{title}: no host helps, so it is fetched from {}", origin.address());
            self.event("origin_asked", text);
        }
        self.counters.add("origin_requests", "begun");
        let done = self.workers.done();
        let task = tokio::spawn(async move {
            let result = origin.read(&key, size, part).await;
            drop(done.send(Done::FromOrigin { what, result }).await);
        });
        self.store_fetches.tasks.insert(what, task.abort_handle());
    }

    fn place_in_origin(&self, what: What) -> Option<(ManifestId, Key, u64, core::ops::Range<u64>)> {
        match what {
            What::Manifest(id) => {
                let size = self.contents.get(&id)?.release.manifest.size;
                Some((id, Key::manifest(id), size, 0..size))
            }
            What::Piece(swarm, piece) => {
                let info = self.swarms.get(&swarm)?;
                let at = info.pieces.get(piece as usize)?;
                let part = at.offset..at.offset + u64::from(at.len);
                Some((info.manifest, Key::pack(at.pack), at.pack_size, part))
            }
        }
    }

    /// What was asked for is not wanted any more.
    pub(super) fn forget_fetch(&mut self, what: What) {
        if let Some(task) = self.store_fetches.tasks.remove(&what) {
            task.abort();
        }
    }

    pub(super) fn on_from_origin(&mut self, what: What, result: Result<Vec<u8>, OriginError>) {
        if self.store_fetches.tasks.remove(&what).is_none() {
            return;
        }
        match (what, result) {
            (What::Piece(swarm, piece), Ok(bytes)) => {
                self.write_piece(ORIGIN_STORE, swarm, piece, bytes);
            }
            (What::Manifest(id), Ok(bytes)) => self.keep_manifest(ORIGIN_STORE, id, bytes),
            (_, Err(e)) => {
                self.counters.add("origin_requests", e.why().code());
                self.tell_origin_failure(&e);
                self.origin_failed(what, fault_of(e.why()));
            }
        }
    }

    fn origin_failed(&mut self, what: What, fault: Fault) {
        let from = ORIGIN_STORE;
        self.planner_input(match what {
            What::Piece(swarm, piece) => Input::PieceFailed { swarm, piece, from, fault },
            What::Manifest(manifest) => Input::ManifestFailed { manifest, from, fault },
        });
    }

    /// A piece or manifest of the origin was kept.
    pub(super) fn origin_gave(&mut self, bytes: u64) {
        self.counters.add("origin_requests", "verified");
        self.counters.add_many("bytes_from_origin", "verified", bytes);
        if self.store_fetches.failure.take().is_some() {
            self.event("origin_good", "the origin gives what it was asked for again");
        }
    }

    /// It sent as many bytes as were asked for, and they are not those of the publisher.
    pub(super) fn origin_lied(&mut self, what: What) {
        let Some((_, key, _, part)) = self.place_in_origin(what) else { return };
        let Some(origin) = self.store_fetches.origin.clone() else { return };
        self.counters.add("origin_requests", Why::Wrong.code());
        let text = format!("bytes {} to {} do not hash right", part.start, part.end);
        self.tell_origin_failure(&origin.fault(&key, Why::Wrong, &text));
    }

    /// Tells a failure, unless it is the one that was told last.
    fn tell_origin_failure(&mut self, e: &OriginError) {
        let text = e.to_string();
        if self.store_fetches.failure.as_ref() != Some(&text) {
            self.event("origin_failed", format!("{text}; {}", e.help()));
            self.store_fetches.failure = Some(text);
        }
    }
}
