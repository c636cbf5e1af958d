//! Frames on a stream: a length of four bytes, little endian, and so many bytes.

use quinn::{RecvStream, SendStream};

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream or connection ended.
    #[error("the connection ended")]
    Ended,
    /// The peer announces more than is allowed.
    #[error("a frame of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Announced.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// Not a frame.
    #[error(transparent)]
    Decode(#[from] stork_wire::codec::DecodeError),
}

/// Reads the bytes of one frame of at most `max` bytes.
pub async fn read_raw(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await.map_err(|_e| FrameError::Ended)?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(|_e| FrameError::Ended)?;
    Ok(body)
}

/// Writes the bytes of one frame.
pub async fn write_raw(stream: &mut SendStream, body: &[u8]) -> Result<(), FrameError> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    stream.write_all(&len.to_le_bytes()).await.map_err(|_e| FrameError::Ended)?;
    stream.write_all(body).await.map_err(|_e| FrameError::Ended)
}
