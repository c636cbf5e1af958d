//! Content in an object store: where publishers put packs and manifests before they announce them,
//! and where hosts turn when no other host has them.
//!
//! Nothing here is trusted and nothing here decides: an object's name is the hash of its bytes, and
//! whoever reads checks them against what a publisher signed. The crate knows how the objects are
//! named, how they are put there so that nothing half-written is ever seen, and how a bounded part
//! of one is read. It is the only place that calls `object_store`.
//!
//! Reading order: `address` (what an operator writes), `key` (how objects are named),
//! `credentials`, `store` (opening and reading), `upload` and `record` (writing, and going on with
//! what was cut off), `error`.

mod address;
mod credentials;
mod error;
mod key;
mod record;
mod store;
mod upload;

pub use address::{Address, BadAddress};
pub use error::{OriginError, Why};
pub use key::Key;
pub use record::Records;
pub use store::{Origin, Purpose};
pub use upload::Put;
