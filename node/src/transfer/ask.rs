//! Whom a host asks for a manifest that it looks for: candidates, the origins, and at last the
//! origin store.

use stork_wire::frame::TransferFrame;
use stork_wire::ids::{ManifestId, NodeId};

use super::ladder::FIRST_AT_ORIGIN;
use super::manifests::Want;
use super::message::Action;
use super::rng::rank;
use super::store::{self, ORIGIN_STORE};
use super::swarm::Ctx;

/// Candidates that hear of our interest at once (protocol.md §3e).
const ASKED_AT_ONCE: usize = 5;
/// Candidates asked in all before the round begins anew.
const ASKED_MAX: usize = 32;
/// Silence after which more candidates and the origins are asked.
const ORIGIN_AFTER_MS: u64 = 300;
/// And once everybody was asked, this wait before all are asked anew.
const ASK_AGAIN_MS: u64 = 5_000;
/// Peers that failed to deliver before the origin store is asked all the same.
const FAILURES_MAX: u32 = 3;

impl Want {
    /// Asks the origin store, when nobody has shown the manifest for long, or nobody delivers it.
    pub(super) fn draw(&mut self, manifest: ManifestId, ctx: &mut Ctx<'_>) {
        let helped = !self.holders.is_empty() && self.failures < FAILURES_MAX;
        let about = (self.since, &*self.interested);
        if helped || !store::manifest_is_due(manifest, about, self.store, ctx) {
            return;
        }
        if ctx.store.take(self.size, ctx.now) {
            self.fetching = Some((ORIGIN_STORE, ctx.now.after_ms(store::MANIFEST_MS)));
            ctx.actions.push(Action::FetchManifest { manifest });
        }
    }

    /// Tells more candidates of our interest.
    pub(super) fn ask(&mut self, manifest: ManifestId, ctx: &mut Ctx<'_>) {
        if ctx.now < self.ask_at {
            return;
        }
        self.ask_at = ctx.now.after_ms(ORIGIN_AFTER_MS);
        let first = self.asked.is_empty() && self.dialled.is_empty();
        let is_new = |n: &&NodeId| **n != ctx.me && !self.asked.contains(n);
        let new: Vec<NodeId> = self.interested.iter().filter(is_new).copied().collect();
        let is_up = |n: &NodeId| ctx.peers.contains_key(n);
        let (up, down): (Vec<_>, Vec<_>) = new.into_iter().partition(is_up);
        let mut to = ctx.rng.sample(up, ASKED_AT_ONCE);
        let missing = ASKED_AT_ONCE - to.len();
        to.extend(ctx.rng.sample(down, missing));
        let among_first = || {
            rank(manifest.as_bytes(), ctx.me, &self.interested, FIRST_AT_ORIGIN) < FIRST_AT_ORIGIN
        };
        if !first || to.is_empty() || among_first() {
            to.extend(self.origins.iter().filter(is_new).copied());
        }
        if to.is_empty() || self.asked.len() >= ASKED_MAX {
            // Everyone was asked. They answer when they have it, unless they lost our interest.
            self.asked.clear();
            self.dialled.clear();
            self.ask_at = ctx.now.after_ms(ASK_AGAIN_MS);
        }
        for node in to {
            if ctx.peers.contains_key(&node) {
                self.asked.insert(node);
                ctx.send(node, TransferFrame::Interest(manifest));
            } else if ctx.connect(node) {
                self.dialled.insert(node);
            }
        }
    }
}
