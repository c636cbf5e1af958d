//! Streams of a bulk connection that do not end as they should.

use std::time::Duration;

use quinn::{Connection, SendStream};
use stork_wire::frame::ALPN_BULK;
use stork_wire::ids::NodeId;

use super::Dialler;

/// How a stream fails its reader, without a wrong byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A byte a second.
    Trickle,
    /// Half of it, and then nothing, for ever.
    Stall,
    /// Half of it, and then a reset.
    Reset,
}

/// A stream of the bulk connection, which is dialled where there is none.
pub(super) async fn stream(
    bulk: &mut Option<Connection>,
    dialler: &Dialler,
    to: NodeId,
) -> Option<SendStream> {
    if bulk.as_ref().is_none_or(|c| c.close_reason().is_some()) {
        *bulk = Some(dialler.dial(to, ALPN_BULK).await);
    }
    bulk.as_ref()?.open_uni().await.ok()
}

/// Sends bytes like this, until the reader stops the stream.
pub(super) async fn send(mut stream: SendStream, bytes: Vec<u8>, pace: Pace) {
    if pace == Pace::Trickle {
        for byte in bytes {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            // Not a wait for anything: it is the pace.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        return;
    }
    let (half, _) = bytes.split_at(bytes.len() / 2);
    if stream.write_all(half).await.is_err() {
        return;
    }
    match pace {
        Pace::Reset => drop(stream.reset(0u32.into())),
        Pace::Trickle | Pace::Stall => drop(stream.stopped().await),
    }
}
