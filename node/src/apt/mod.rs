//! An apt repository made of what the store holds: `.deb`s written again from their manifests, the
//! index of them, and its OpenPGP signature.
//!
//! Nothing here opens a file, reads a clock or asks for randomness: readers, writers and keys are
//! handed in, and the same releases give the same bytes on every host. The original archives are
//! not kept, because the store has their files already; a rebuilt one has another hash, which is
//! why the index is made and signed here.

mod content;
pub mod deb;
mod index;
mod md5sums;
pub mod pgp;
mod stanza;
mod tar;

pub use content::{CopyError, Open, Written, copy_content, describe};
pub use deb::{DebError, write_deb};
pub use index::{Indexed, Names, packages, release, source_entry};
pub use stanza::{BadControl, Stanza};

/// Seconds since 1970 that keys, signatures and `Release` files bear: 2026-01-01.
///
/// It is the same in all of them. apt keeps what it has where a `Release` is older, so that a
/// rising date would make a rollback of the view invisible; and a set is the same bytes whenever
/// it is built. How fresh a set is, is judged by the daemon.
pub const EPOCH: u32 = 1_767_225_600;
/// The same for people and for `Date:`.
pub(crate) const EPOCH_TEXT: &str = "Thu, 01 Jan 2026 00:00:00 UTC";
