//! What lies behind a fork, for the publisher who recalls it by its version: the host's own branch,
//! which it has put aside, and the two entries of the proof, one of which is the other branch's
//! first.

use stork_wire::feed::Entry;
use stork_wire::frame::PushReply;
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::sign::Envelope;
use stork_wire::text::PackageName;

use super::{Outcome, Service};
use crate::driver::PushCall;

/// Entries of the own branch that are read at the most, the first ones.
const READ_MAX: usize = 1_024;

impl Service {
    pub(super) async fn behind(&self, publisher: PublisherId, package: PackageName) -> Outcome {
        let fork = self.ask(|answer| PushCall::Fork { publisher, answer }).await?;
        let Some((at, proof)) = fork else {
            return Ok(PushReply::Releases(stork_wire::codec::List::empty()).into());
        };
        let log = LogId::feed_epoch(publisher, at.epoch);
        let aside = self.blocking(move |s| s.log_items_aside(log, at.seq, READ_MAX)).await?;
        let announces =
            |e: &Envelope| e.claimed::<Entry>().is_ok_and(|e| e.release_hash().is_some());
        let entries = proof.into_iter().chain(aside.into_iter().map(|i| i.envelope));
        let entries: Vec<Envelope> = entries.filter(announces).collect();
        let ask = |answer| PushCall::Behind { publisher, package, entries, answer };
        Ok(PushReply::Releases(self.ask(ask).await?).into())
    }
}
