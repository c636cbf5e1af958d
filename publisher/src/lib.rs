//! The maintainer's side of stork: read a package, pack it, sign it and push it to a node.
//!
//! The order of the modules is the order of the work: `source` reads a package into one normal
//! tree, `pack` makes packs and a manifest of it, `feed` says what the next entry must be, `keys`
//! signs it, and `push` carries everything to a node. `charter` founds and checks the documents
//! that permit it, `delegate` makes keys for build jobs; `cli` is what a maintainer types.

pub mod announce;
pub mod bundle;
pub mod charter;
pub mod cli;
pub mod delegate;
pub mod feed;
pub mod inspect;
pub mod keys;
pub mod out;
pub mod pack;
pub mod progress;
pub mod push;
mod rights;
mod sealed;
pub mod source;
pub mod version;

pub use cli::run_cli;
