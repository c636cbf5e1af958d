//! Content to one node: only what it lacks, from where it stopped.

use stork_wire::codec::List;
use stork_wire::frame::{PackState, PushReply, PushRequest, Refusal};
use stork_wire::ids::PackId;
use stork_wire::limits::PACKS_MAX;
use stork_wire::manifest::Manifest;

use super::client::{Body, Client, is_refusal};
use super::error::PushError;
use crate::pack::Packed;
use crate::progress::Progress;

/// What was sent to one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Bytes of packs and manifest that travelled.
    pub(super) bytes: u64,
    /// Bytes that an earlier try had left there.
    pub(super) resumed: u64,
    /// Bytes of packs that the node had whole.
    pub(super) present: u64,
}

/// How much of each pack the node holds.
async fn states(client: &Client, packs: &[(PackId, u64)]) -> Result<Vec<PackState>, PushError> {
    let mut out = Vec::new();
    for some in packs.chunks(PACKS_MAX) {
        let request = PushRequest::Packs(List::truncated(some.iter().copied()));
        match client.ask(&request, Body::None).await?.0 {
            PushReply::Packs(states) if states.len() == some.len() => out.extend(states),
            other => return Err(client.nonsense(format!("{other:?}"))),
        }
    }
    Ok(out)
}

/// Puts packs and manifest on a node's disk.
pub(super) async fn upload(
    client: &Client,
    packed: &Packed,
    progress: &Progress,
) -> Result<Sent, PushError> {
    let packs = packed.all_packs();
    let states = states(client, &packs).await?;
    let mut sent = Sent::default();
    for (&(pack, size), state) in packs.iter().zip(states) {
        let had = match state {
            PackState::Whole => {
                sent.present += size;
                progress.advance(size);
                continue;
            }
            PackState::Partial(had) if had <= size => had,
            PackState::Partial(had) => {
                return Err(client.nonsense(format!("{had} bytes of a pack of {size}")));
            }
        };
        progress.advance(had);
        sent.resumed += had;
        sent.bytes += size - had;
        match put(client, packed, (pack, size), had, progress).await {
            // What an earlier try left there may be damaged: once more from the start.
            Err(e) if had > 0 && is_refusal(&e, Refusal::Corrupt) => {
                sent.resumed -= had;
                sent.bytes += size;
                put(client, packed, (pack, size), 0, &Progress::Silent).await?;
            }
            other => other?,
        }
    }
    let request = PushRequest::PutManifest(Manifest::reference(&packed.bytes));
    client.put(&request, Body::Bytes(&packed.bytes)).await?;
    sent.bytes += packed.bytes.len() as u64;
    progress.advance(packed.bytes.len() as u64);
    Ok(sent)
}

async fn put(
    client: &Client,
    packed: &Packed,
    (pack, size): (PackId, u64),
    offset: u64,
    progress: &Progress,
) -> Result<(), PushError> {
    let path = packed.packs.path(&pack);
    let request = PushRequest::PutPack { pack, size, offset };
    client.put(&request, Body::File { path: &path, offset, progress }).await
}
