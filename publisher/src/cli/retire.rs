//! `stork-publish retire`: what can be typed, and what is done.

use std::path::PathBuf;

use clap::Args;
use stork_wire::text::{Arch, PackageName, Version};

use super::commands::{print_json, print_lines, runtime};
use super::run::Failure;
use crate::keys::Passphrase;
use crate::progress::Progress;
use crate::push::{self, RetireOptions, Target};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish retire --keep 4 --dry-run --to NODEID@host:7749
  stork-publish retire nginx --keep 2 --to NODEID@host:7749
  stork-publish retire nginx 1.22.0-1 1.22.0-2 --to NODEID@host:7749

Each with --charter DIR, or STORK_CHARTER set.
A feed has at most 4 096 live releases. Retired ones stay on the VMs that show them, and are
installed nowhere anew; hosts forget them when no VM shows them any more. Nothing is said to be
wrong with them: for that there is `stork-publish recall`. A version that was retired is not
published again with another content.")]
pub(super) struct RetireArgs {
    /// The package; default with --keep: all
    #[arg(required_unless_present = "keep")]
    package: Option<PackageName>,
    /// The versions to retire
    #[arg(value_name = "VERSION", required_unless_present = "keep", conflicts_with = "keep")]
    version: Vec<Version>,
    /// Retire all but so many of the newest, of each package, architecture and set of groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Only those for this architecture; default: all
    #[arg(long)]
    arch: Option<Arch>,
    /// The publisher's directory, as `charter init` made it
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    charter: PathBuf,
    /// The release key: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'.
    /// Default: the release key that publisher.toml names
    #[arg(long, env = "STORK_PUBLISH_KEY")]
    key: Option<String>,
    /// Take the key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<Target>,
    /// Show what would be retired
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: RetireArgs) -> Result<(), Failure> {
    let options = RetireOptions {
        package: args.package,
        versions: args.version,
        keep: args.keep.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        arch: args.arch,
        charter: args.charter,
        key: args.key,
        passphrase: args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        to: args.to,
        dry_run: args.dry_run,
    };
    let report = runtime()?.block_on(push::retire(&options, &Progress::for_stderr()))?;
    if args.json {
        return print_json(&report);
    }
    print_lines(&report.lines());
    Ok(())
}
