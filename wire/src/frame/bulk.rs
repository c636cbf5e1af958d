//! The bulk connection (ALPN `stork-bulk/1`): one stream in one direction for each piece.
//!
//! A stream is two bytes of header length, the header, and then exactly the announced bytes.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, decode, encode};
use crate::ids::{ManifestId, SwarmId};

/// Bytes of an encoded header at the most.
pub const BULK_HEADER_LEN_MAX: usize = 64;

/// What a bulk stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkHeader {
    /// One piece of a swarm.
    Piece {
        /// Which swarm.
        swarm: SwarmId,
        /// Which piece.
        piece: u32,
        /// Bytes that follow.
        len: u32,
    },
    /// A manifest; where it has several pieces, their hashes come first.
    Manifest {
        /// Which manifest.
        manifest: ManifestId,
        /// Bytes of the manifest, without the hashes before it.
        len: u64,
    },
}

impl BulkHeader {
    /// Length and header.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = encode(self);
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut out = len.to_le_bytes().to_vec();
        out.extend_from_slice(&body);
        out
    }
    /// Reads a header without its length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, BULK_HEADER_LEN_MAX)
    }
}
