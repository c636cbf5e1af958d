//! The daemon of a VM host: rooms in the order in which data flows (docs/ARCHITECTURE.md).

pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod driver;
pub mod failpoint;
pub mod identity;
pub mod join;
pub mod net;
pub mod overlay;
pub mod push;
pub mod run;
pub mod store;
pub mod transfer;
pub mod trust;
#[cfg(test)]
pub(crate) use trust::tests as trust_fixture;
pub mod view;
