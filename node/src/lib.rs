//! The daemon of a VM host: rooms in the order in which data flows (docs/ARCHITECTURE.md).

mod ahead;
pub mod apt;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod driver;
pub mod erofs;
pub mod failpoint;
pub mod identity;
pub mod join;
mod late;
pub mod net;
pub mod overlay;
pub mod push;
mod reload;
pub mod rpm;
pub mod run;
pub mod sandbox;
pub mod store;
pub mod transfer;
pub mod trust;
#[cfg(test)]
pub(crate) use trust::tests as trust_fixture;
pub mod view;

/// The allocator of programs that hold nodes. News are thousands of small pieces of memory a
/// second, made in one thread and dropped in another; the C library gives pages back to the system
/// and takes them again all the time (docs/PROMISES.md).
pub use tikv_jemallocator::Jemalloc as Allocator;
