//! How much whoever is at the other end may send before it is read: windows and streams of each
//! kind of connection, and what all connections together were promised.
//!
//! A window is memory that a stranger may fill. It is small until somebody has said who it is, and
//! large only for connections that bring content, as long as there is room. Stream windows of QUIC
//! are of the configuration and never change; the window of the connection bounds them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::{Connection, VarInt};

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// Before the hello was answered: a hello or a join request, and nothing behind it.
pub(super) const UNADMITTED: u32 = 16 * KIB;
/// What one stream may bring ahead of its reader: a piece of content and a little more.
pub(super) const STREAM: u32 = 1280 * KIB;
/// Every admitted connection has this, however many there are; the driver bounds their number.
pub(super) const FLOOR: u32 = 64 * KIB;
/// Streams of a bulk connection at once. Each costs 32 KiB and more when its data has gaps, however
/// small the window is: QUIC keeps whole datagrams up to that much.
pub(super) const STREAMS: u32 = 8;
/// The same before it has brought a piece.
pub(super) const FIRST_STREAMS: u32 = 2;
/// What a control connection asks for.
const CONTROL: [u32; 4] = [512 * KIB, 256 * KIB, 128 * KIB, FLOOR];
/// What a bulk connection begins with.
const BULK: [u32; 3] = [MIB, 512 * KIB, FLOOR];
/// What one gets that has brought a piece that was asked for.
const CONTENT: [u32; 4] = [8 * MIB, 4 * MIB, 2 * MIB, MIB];
/// What a publisher gets that was let in.
const PUSH: [u32; 4] = [8 * MIB, 2 * MIB, 512 * KIB, FLOOR];

/// Bytes that all connections together may be promised. QUIC holds up to one and a half times as
/// much, when data comes with gaps: then this is 30 MiB.
const PROMISED_MAX: u64 = 20 * MIB as u64;
/// Of these, what only floors may take: so that one that comes last gets something.
const RESERVED: u64 = 5 * MIB as u64;

/// What all connections were promised.
#[derive(Debug, Default)]
pub struct Accountant {
    promised: AtomicU64,
}

impl Accountant {
    /// Bytes that all connections may send before they are read.
    #[must_use]
    pub fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Takes the first of the steps for which there is room. The last one is a floor if it is
    /// [`FLOOR`], which is always given; otherwise nothing may be.
    fn take(&self, steps: &[u32], instead_of: u32) -> Option<u32> {
        let change = |step: u32| {
            self.promised.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                let then = (now + u64::from(step)).saturating_sub(u64::from(instead_of));
                (step == FLOOR || then + RESERVED <= PROMISED_MAX).then_some(then)
            })
        };
        steps.iter().copied().filter(|s| *s > instead_of).find(|s| change(*s).is_ok())
    }
}

/// The window of one connection; dropped, it is free for others.
#[derive(Debug)]
pub(super) struct Window {
    accountant: Arc<Accountant>,
    connection: Connection,
    bytes: u32,
}

impl Window {
    fn open(accountant: &Arc<Accountant>, connection: &Connection, steps: &[u32]) -> Self {
        let (accountant, connection) = (Arc::clone(accountant), connection.clone());
        let mut window = Self { accountant, connection, bytes: 0 };
        window.raise(steps);
        window
    }

    /// Of a control connection that was admitted.
    pub(super) fn of_control(accountant: &Arc<Accountant>, connection: &Connection) -> Self {
        Self::open(accountant, connection, &CONTROL)
    }

    /// Of a bulk connection of an admitted host.
    pub(super) fn of_bulk(accountant: &Arc<Accountant>, connection: &Connection) -> Self {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(FIRST_STREAMS));
        connection.set_send_window(u64::from(8 * MIB));
        Self::open(accountant, connection, &BULK)
    }

    /// Of a publisher's connection that was let in.
    pub(super) fn of_push(accountant: &Arc<Accountant>, connection: &Connection) -> Self {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(16));
        connection.set_send_window(u64::from(8 * MIB));
        Self::open(accountant, connection, &PUSH)
    }

    /// It brought content that was asked for.
    pub(super) fn brought_content(&mut self) {
        self.connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS));
        self.raise(&CONTENT);
    }

    fn raise(&mut self, steps: &[u32]) {
        if let Some(bytes) = self.accountant.take(steps, self.bytes) {
            self.connection.set_receive_window(VarInt::from_u32(bytes));
            self.bytes = bytes;
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.accountant.promised.fetch_sub(u64::from(self.bytes), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first that bring content get a large window, the next ones less, all others the floor;
    /// what is promised stays within the bound as long as it is not floors alone.
    #[test]
    fn windows_shrink_as_they_are_taken() {
        let accountant = Accountant::default();
        let begin = |n: usize| (0..n).map(|_| accountant.take(&BULK, 0).unwrap()).collect();
        let first: Vec<u32> = begin(4);
        assert_eq!(first, [MIB; 4]);
        assert_eq!(accountant.take(&CONTENT, MIB), Some(8 * MIB));
        assert_eq!(accountant.take(&CONTENT, MIB), Some(4 * MIB));
        assert_eq!(accountant.take(&CONTENT, MIB), Some(2 * MIB));
        assert_eq!(accountant.take(&CONTENT, MIB), None, "it stays as it is");
        let more: Vec<u32> = begin(10);
        assert_eq!(more, [FLOOR; 10]);
        assert!(accountant.promised() <= PROMISED_MAX - RESERVED + 10 * u64::from(FLOOR));
        assert_eq!(accountant.take(&PUSH, 0), Some(FLOOR));
    }

    /// A hundred admitted connections that bring nothing are promised less than 32 MiB.
    #[test]
    fn a_hundred_connections() {
        for steps in [&CONTROL[..], &BULK, &PUSH] {
            let accountant = Accountant::default();
            (0..100).for_each(|_| assert!(accountant.take(steps, 0).is_some()));
            assert!(accountant.promised() < 28 * u64::from(MIB), "{}", accountant.promised());
        }
    }
}
