//! The maintainer's side of stork: read a package, pack it, sign it and push it to a node.

pub mod bundle;
pub mod charter;
pub mod keys;
pub mod out;
pub mod pack;
pub mod progress;
pub mod source;
pub mod version;
