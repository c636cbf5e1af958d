//! The demonstration: a small fleet of real processes on this machine.

use std::process::ExitCode;

/// Options of `stork demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave it running at the end.
    #[arg(long)]
    keep: bool,
}

/// Runs the demonstration.
pub fn run(args: DemoArgs, json: bool) -> ExitCode {
    drop((args, json));
    ExitCode::FAILURE
}
