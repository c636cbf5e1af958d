//! Network: the QUIC endpoint, mutual identity, one task per connection, bounded outboxes.
//!
//! A thin shell without decisions: it authenticates keys, frames bytes and reports to the driver by
//! [`NetEvent`]. Who may stay, what is answered and who is dialled is decided by the driver and the
//! pure machines behind it. Nothing here waits for a slow peer on behalf of another.

mod bootstrap;
mod bulk;
mod control;
mod door;
mod endpoint;
mod frame_io;
mod frame_rate;
mod outbox;
mod transport;
mod windows;

pub use bootstrap::{Round, Seeds};
pub use bulk::{Bulk, BulkIn, BulkPiece, ExpectKey};
pub use control::{Admission, ConnId, Connected, NetEvent};
pub use endpoint::{BindError, INTRODUCTION, Net, NetCounters, PushConnection, dial_once};
pub use frame_io::{FrameError, read_raw, write_raw};
pub use outbox::{OUTBOX_BYTES_MAX, Outbox, Overflow, Priority};
pub use windows::Accountant;
