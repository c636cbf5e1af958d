//! `stork-node`: the daemon, and how a host joins a fleet.

use std::process::ExitCode;

fn main() -> ExitCode {
    stork_node::cli::node_main(std::env::args_os())
}
