//! `stork`: what an operator types.

use std::process::ExitCode;

fn main() -> ExitCode {
    stork_node::cli::stork_main(std::env::args_os())
}
