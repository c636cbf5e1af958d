//! The daemon of a VM host: rooms in the order in which data flows (docs/ARCHITECTURE.md).

pub mod catalog;
pub mod control;
pub mod failpoint;
pub mod net;
pub mod overlay;
pub mod store;
pub mod transfer;
pub mod trust;
pub mod view;
