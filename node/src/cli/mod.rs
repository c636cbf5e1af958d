//! Command lines of `stork-node` and `stork`.

mod init;
mod node;
pub mod out;

pub use node::node_main;
