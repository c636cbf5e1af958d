//! `stork`: what an operator types.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: stork_node::Allocator = stork_node::Allocator;

fn main() -> ExitCode {
    stork_node::cli::stork_main(std::env::args_os())
}
