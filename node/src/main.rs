//! `stork-node`: the daemon, and how a host joins a fleet.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: stork_node::Allocator = stork_node::Allocator;

fn main() -> ExitCode {
    stork_node::cli::node_main(std::env::args_os())
}
