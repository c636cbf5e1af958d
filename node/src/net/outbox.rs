//! What waits to be sent to one peer: bounded by bytes, by priority, shedding what sync recovers.
//!
//! Rule (style.md, attack G15): the driver never waits for a peer. A frame either fits, or is shed
//! (lazy class), or the peer is closed by the caller because it does not read.
//!
//! Whoever queues frames hands them to the stream himself, as far as it takes them at once: to wake
//! a task for that costs more than the writing. What it does not take is the writer's matter.

use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quinn::{SendStream, WriteError};
use tokio::sync::Notify;

use super::frame_io::append;

/// Bytes that may wait for one peer (protocol.md I17). A Heads answer of 46 kB fits several times.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Bytes above which lazy frames are shed: sync finds what they would have said.
const LAZY_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// Bytes from which on a write takes no further frame: a burst fills whole packets, and what is
/// urgent waits for little.
const WRITE_BYTES: usize = 16 * 1024;

/// In which order frames leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Pings, links, grants: small, and others wait for them.
    Control,
    /// Announcements along a tree.
    News,
    /// What may be late or lost.
    Lazy,
}

/// The peer does not read: nothing more fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not read: {OUTBOX_BYTES_MAX} bytes wait for it")]
pub struct Overflow;

#[derive(Debug, Default)]
struct Queues {
    frames: [VecDeque<Vec<u8>>; 3],
    bytes: usize,
    shed: u64,
    popped: u64,
    /// Frames with their lengths, of which the stream took those bytes that are not here any more.
    begun: VecDeque<u8>,
}

/// The queues of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: Mutex<Queues>,
    /// Something waits that the stream did not take, or there is no stream yet.
    ready: Notify,
    /// Where frames go. Whoever holds it writes.
    stream: tokio::sync::Mutex<Option<SendStream>>,
}

impl Outbox {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues one encoded frame; it leaves with the next [`Self::write`].
    pub fn push(&self, priority: Priority, frame: Vec<u8>) -> Result<(), Overflow> {
        let mut q = self.queues();
        let after = q.bytes.saturating_add(frame.len());
        if priority == Priority::Lazy && after > LAZY_BYTES_MAX {
            q.shed += 1;
            return Ok(());
        }
        if after > OUTBOX_BYTES_MAX {
            return Err(Overflow);
        }
        q.bytes = after;
        if let Some(queue) = q.frames.get_mut(priority as usize) {
            queue.push_back(frame);
        }
        Ok(())
    }

    /// Hands to the stream what waits, as far as it takes that at once, and does not wait.
    pub fn write(&self) {
        let mut stream = self.stream.try_lock();
        let Some(stream) = stream.as_mut().ok().and_then(|s| s.as_mut()) else {
            return self.ready.notify_one();
        };
        let mut q = self.queues();
        while q.begin() {
            match write_some(stream, q.begun.as_slices().0) {
                Poll::Ready(Ok(n)) => drop(q.begun.drain(..n)),
                Poll::Ready(Err(_)) | Poll::Pending => return self.ready.notify_one(),
            }
        }
    }

    /// Bytes that wait, and lazy frames that were shed.
    #[must_use]
    pub fn level(&self) -> (usize, u64) {
        let q = self.queues();
        (q.bytes, q.shed)
    }

    /// Frames that were taken out to be sent. Where some wait and this does not rise, the peer does
    /// not read.
    #[must_use]
    pub fn popped(&self) -> u64 {
        self.queues().popped
    }

    /// The writer: sends what the stream did not take at once, until the stream fails.
    pub(super) async fn drain(&self, stream: SendStream) -> WriteError {
        *self.stream.lock().await = Some(stream);
        loop {
            let ready = self.ready.notified();
            if let Err(e) = self.write_all().await {
                return e;
            }
            ready.await;
        }
    }

    async fn write_all(&self) -> Result<(), WriteError> {
        let mut stream = self.stream.lock().await;
        let Some(stream) = stream.as_mut() else { return Ok(()) };
        loop {
            let mut begun = {
                let mut q = self.queues();
                if !q.begin() {
                    return Ok(());
                }
                core::mem::take(&mut q.begun)
            };
            // Who drops this before it ends ends the connection.
            stream.write_all(begun.make_contiguous()).await?;
        }
    }
}

/// What the stream takes now. Where that is nothing, nobody is woken when that changes: the writer
/// asks again.
fn write_some(stream: &mut SendStream, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
    let mut written = pin!(stream.write(bytes));
    written.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

impl Queues {
    /// Puts together the next frames, each with its length before it: as many as have gathered, up
    /// to a bound. False: nothing is left.
    fn begin(&mut self) -> bool {
        if self.begun.is_empty() {
            self.begun = self.take().into();
        }
        !self.begun.is_empty()
    }

    fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for queue in &mut self.frames {
            while out.len() < WRITE_BYTES
                && let Some(frame) = queue.pop_front()
            {
                self.bytes = self.bytes.saturating_sub(frame.len());
                self.popped += 1;
                append(&mut out, &frame);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control goes first, lazy frames are shed at half, and a full box refuses.
    #[test]
    fn order_and_bounds() {
        let outbox = Outbox::default();
        outbox.push(Priority::Lazy, vec![3]).unwrap();
        outbox.push(Priority::News, vec![2]).unwrap();
        outbox.push(Priority::Control, vec![1]).unwrap();
        let all = [[1, 0, 0, 0, 1], [1, 0, 0, 0, 2], [1, 0, 0, 0, 3]].concat();
        assert_eq!(outbox.queues().take(), all);
        outbox.push(Priority::News, vec![0; LAZY_BYTES_MAX]).unwrap();
        outbox.push(Priority::Lazy, vec![0]).unwrap();
        assert_eq!(outbox.level(), (LAZY_BYTES_MAX, 1));
        assert_eq!(outbox.push(Priority::Control, vec![0; OUTBOX_BYTES_MAX]), Err(Overflow));
        assert_eq!(outbox.queues().take().len(), LAZY_BYTES_MAX + 4);
        // Not in one expression: a guard lives to its end, and the level locks as well.
        let rest = outbox.queues().take();
        assert_eq!((rest, outbox.level().0), (Vec::new(), 0));
    }
}
