//! What waits to be sent to one peer: bounded by bytes, by priority, shedding what sync recovers.
//!
//! Rule (style.md, attack G15): the driver never waits for a peer. A frame either fits, or is shed
//! (lazy class), or the peer is closed by the caller because it does not read.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

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
    closed: bool,
}

/// The queues of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: Mutex<Queues>,
    ready: Notify,
}

impl Outbox {
    /// Queues one encoded frame.
    pub fn push(&self, priority: Priority, frame: Vec<u8>) -> Result<(), Overflow> {
        let mut q = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
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
        drop(q);
        self.ready.notify_one();
        Ok(())
    }

    /// Ends the writer once what is queued was sent.
    pub fn close(&self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.ready.notify_one();
    }

    /// Bytes that wait, and lazy frames that were shed.
    #[must_use]
    pub fn level(&self) -> (usize, u64) {
        let q = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        (q.bytes, q.shed)
    }

    /// Frames that were taken out to be sent. Where some wait and this does not rise, the peer does
    /// not read.
    #[must_use]
    pub fn popped(&self) -> u64 {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).popped
    }

    /// The next frames, each with its length before it, ready for the stream: as many as have
    /// gathered, up to a bound. `None` once closed and empty. One writer only.
    pub async fn take(&self) -> Option<Vec<u8>> {
        loop {
            let ready = self.ready.notified();
            {
                let mut q = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = q.take();
                if !taken.is_empty() {
                    return Some(taken);
                }
                if q.closed {
                    return None;
                }
            }
            ready.await;
        }
    }
}

impl Queues {
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
    #[tokio::test]
    async fn order_and_bounds() {
        let outbox = Outbox::default();
        outbox.push(Priority::Lazy, vec![3]).unwrap();
        outbox.push(Priority::News, vec![2]).unwrap();
        outbox.push(Priority::Control, vec![1]).unwrap();
        let all = [[1, 0, 0, 0, 1], [1, 0, 0, 0, 2], [1, 0, 0, 0, 3]].concat();
        assert_eq!(outbox.take().await, Some(all));
        outbox.push(Priority::News, vec![0; LAZY_BYTES_MAX]).unwrap();
        outbox.push(Priority::Lazy, vec![0]).unwrap();
        assert_eq!(outbox.level(), (LAZY_BYTES_MAX, 1));
        assert_eq!(outbox.push(Priority::Control, vec![0; OUTBOX_BYTES_MAX]), Err(Overflow));
        outbox.close();
        assert!(outbox.take().await.is_some());
        assert_eq!(outbox.take().await, None);
    }
}
