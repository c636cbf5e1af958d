//! Reading from a publisher: each wait has an end, and nothing is longer than it says.

use quinn::{Connection, RecvStream, SendStream};
use stork_wire::codec::decode;
use stork_wire::frame::PushRequest;
use stork_wire::limits::PUSH_FRAME_LEN_MAX;
use tokio::time::timeout;

use super::STALL;
use super::refused::{Refused, malformed};
use crate::net::read_raw;

pub(super) async fn accept(connection: &Connection) -> Option<(SendStream, RecvStream)> {
    timeout(STALL, connection.accept_bi()).await.ok()?.ok()
}

pub(super) async fn read_request(recv: &mut RecvStream) -> Result<PushRequest, Refused> {
    let bytes = timeout(STALL, read_raw(recv, PUSH_FRAME_LEN_MAX))
        .await
        .map_err(|_late| malformed("no request came"))?
        .map_err(|e| malformed(e.to_string()))?;
    decode(&bytes, PUSH_FRAME_LEN_MAX).map_err(|e| malformed(e.to_string()))
}

/// Reads so many bytes: one write to the disk for many packets, each of which is a chunk.
pub(super) async fn read_some(recv: &mut RecvStream, room: usize) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::with_capacity(room);
    while out.len() < room {
        let chunk = timeout(STALL, recv.read_chunk(room - out.len(), true))
            .await
            .map_err(|_late| malformed("nothing came for 30 s"))?
            .map_err(|e| malformed(e.to_string()))?;
        let chunk = chunk.ok_or_else(|| malformed("fewer bytes than announced"))?;
        out.extend_from_slice(&chunk.bytes);
    }
    Ok(out)
}

pub(super) async fn end_of_request(recv: &mut RecvStream) -> Result<(), Refused> {
    match timeout(STALL, recv.read_chunk(1, true)).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(_))) => Err(malformed("more bytes than announced")),
        Ok(Err(e)) => Err(malformed(e.to_string())),
        Err(_late) => Err(malformed("the request did not end")),
    }
}
