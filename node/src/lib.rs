//! The daemon of a VM host: rooms in the order in which data flows (docs/ARCHITECTURE.md).

pub mod catalog;
pub mod config;
pub mod control;
pub mod identity;
pub mod net;
pub mod overlay;
pub mod store;
pub mod transfer;
pub mod trust;
#[cfg(test)]
pub(crate) use trust::tests as trust_fixture;
pub mod view;
