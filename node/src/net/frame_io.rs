//! Frames on a stream: a length of four bytes, little endian, and so many bytes.

use quinn::{RecvStream, SendStream};

/// Bytes of a frame's length.
const LEN_BYTES: usize = 4;
/// Room that a reader keeps while nothing comes.
const KEPT_BYTES: usize = 4 * 1024;

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
    let mut frame = Vec::with_capacity(LEN_BYTES + body.len());
    append(&mut frame, body);
    stream.write_chunk(frame.into()).await.map_err(|_e| FrameError::Ended)
}

/// Appends a frame as it stands on a stream.
pub(super) fn append(out: &mut Vec<u8>, body: &[u8]) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(body);
}

/// Reads frame after frame: what came in one packet is taken from the stream at once.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    /// Bytes that came; those before `at` were handed out.
    held: Vec<u8>,
    at: usize,
    max: usize,
}

impl FrameReader {
    /// A reader of frames of at most `max` bytes.
    pub(super) const fn new(stream: RecvStream, max: usize) -> Self {
        Self { stream, held: Vec::new(), at: 0, max }
    }

    /// The bytes of the next frame.
    pub(super) async fn next(&mut self) -> Result<&[u8], FrameError> {
        loop {
            let rest = self.held.get(self.at..).unwrap_or_default();
            if let Some((len, rest)) = rest.split_first_chunk::<LEN_BYTES>() {
                let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
                if len > self.max {
                    return Err(FrameError::TooLong { len, max: self.max });
                }
                if rest.len() >= len {
                    let from = self.at + LEN_BYTES;
                    self.at = from + len;
                    return Ok(self.held.get(from..self.at).unwrap_or_default());
                }
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), FrameError> {
        self.held.drain(..self.at);
        self.at = 0;
        if self.held.is_empty() && self.held.capacity() > KEPT_BYTES {
            // An idle connection does not keep the room of its largest frame.
            self.held = Vec::new();
        }
        let chunk = self.stream.read_chunk(self.max, true).await.map_err(|_e| FrameError::Ended)?;
        self.held.extend_from_slice(&chunk.ok_or(FrameError::Ended)?.bytes);
        Ok(())
    }
}
