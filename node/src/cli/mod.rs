//! Command lines of `stork-node` and `stork`.

mod admission;
mod attach;
mod bandwidth;
mod doctor;
mod freshness;
mod group_key;
mod host;
mod init;
mod locked;
mod narrowed;
mod node;
pub mod out;
mod permit;
mod share;
mod show;
mod stork;
mod tree;
mod trust;
mod verify;
mod view_helper;
mod vm;
mod watch;
mod why;

pub use node::node_main;
pub use stork::stork_main;
