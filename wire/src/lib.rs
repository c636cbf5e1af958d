//! Everything that two stork processes must agree on: ids, bounds, canonical encoding, signatures,
//! charter, feed entries, manifests, frames and TLS identity.
//!
//! This crate is pure: no files, sockets, clocks or tasks, and no other crate of ours. What it
//! describes is written down in `docs/PROTOCOL.md`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod beacon;
pub mod bundle;
pub mod charter;
#[cfg(test)]
mod charter_tests;
pub mod codec;
pub mod delegated;
pub mod deny;
pub mod feed;
pub mod frame;
pub mod grant;
pub mod ids;
pub mod item;
pub mod limits;
pub mod manifest;
pub mod permit;
pub mod proof;
pub mod retire;
pub mod rpm;
pub mod seal;
pub mod sign;
#[cfg(test)]
mod sign_tests;
pub mod suicide;
pub mod text;
pub mod tick;
pub mod tls;
pub mod withdrawal;
