//! The `stork-publish` command; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stork_publisher::cli::run_cli(std::env::args_os())
}
