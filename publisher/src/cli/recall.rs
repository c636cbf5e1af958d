//! `stork-publish recall`: what can be typed, and what is done.

use clap::Args;
use stork_wire::text::{Arch, Line, PackageName, Version};

use super::AuthorArgs;
use super::commands::{print_json, print_lines, runtime};
use super::run::Failure;
use crate::keys::Passphrase;
use crate::progress::Progress;
use crate::push::{self, RecallOptions};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish recall nginx 1.24.0-3 --reason \"TLS is broken\" --to NODEID@host:7749
  stork-publish recall nginx 1.24.0-3 1.24.0-4 --arch arm64 --reason \"does not start\" \\
      --to NODEID@host:7749

VMs that show a recalled release go back to the newest one that is left and that they allow; nobody
installs it any more. A version that was recalled is not published again: give the mended package
a new one.")]
pub(super) struct RecallArgs {
    /// The package
    package: PackageName,
    /// The versions to withdraw
    #[arg(value_name = "VERSION", required = true)]
    version: Vec<Version>,
    /// Why, for the people at the hosts
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    /// Only those for this architecture; default: all
    #[arg(long)]
    arch: Option<Arch>,
    #[command(flatten)]
    who: AuthorArgs,
    /// Show what would be withdrawn, and what is left
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: RecallArgs) -> Result<(), Failure> {
    let options = RecallOptions {
        package: args.package,
        versions: args.version,
        arch: args.arch,
        reason: args.reason,
        charter: args.who.charter,
        key: args.who.key,
        passphrase: args.who.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        to: args.who.to,
        dry_run: args.dry_run,
    };
    let report = runtime()?.block_on(push::recall(&options, &Progress::for_stderr()))?;
    if args.json {
        return print_json(&report);
    }
    print_lines(&report.lines());
    Ok(())
}
