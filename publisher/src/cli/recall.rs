//! `stork-publish recall`: what can be typed, and what is done.

use std::path::PathBuf;

use clap::Args;
use stork_wire::ids::ReleaseHash;
use stork_wire::text::{Arch, Line, PackageName, Version};

use super::commands::{print_json, print_lines, runtime};
use super::run::Failure;
use crate::keys::Passphrase;
use crate::progress::Progress;
use crate::push::{self, HashesOptions, PushError, RecallOptions, Sending, Target};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish recall nginx 1.24.0-3 --reason \"TLS is broken\" --to NODEID@host:7749
  stork-publish recall nginx 1.24.0-3 1.24.0-4 --arch arm64 --reason \"does not start\" \\
      --to NODEID@host:7749

  stork-publish recall nginx --root --release HASH --reason \"stolen key\" --to NODEID@host:7749

Each with --charter DIR, or STORK_CHARTER set.
VMs that show a recalled release go back to the newest one that is left and that they allow; nobody
installs it any more. A version that was recalled is not published again: give the mended package
a new one.

With --root the publisher's root signs; the release key of publisher.toml only asks the node what
there is.

By --release nothing is looked up: so the publisher's root takes back what a stolen key has
released, also after that key has ended itself. `stork release PACKAGE --json` has the hashes.")]
pub(super) struct RecallArgs {
    /// The package
    package: PackageName,
    /// The versions to withdraw
    #[arg(value_name = "VERSION", required_unless_present = "release", conflicts_with = "release")]
    version: Vec<Version>,
    /// Why, for the people at the hosts
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    /// Only those for this architecture; default: all
    #[arg(long)]
    arch: Option<Arch>,
    /// A release by its hash, without asking a node; may be given several times
    #[arg(long, value_name = "HASH", conflicts_with = "arch")]
    release: Vec<ReleaseHash>,
    /// Say it by the publisher's root instead of the release key
    #[arg(long)]
    root: bool,
    /// The publisher's directory, as `charter init` made it
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    charter: PathBuf,
    /// The release key: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'; with
    /// --root as often as the threshold asks for.
    /// Default: the release key of publisher.toml, or keys/publisher
    #[arg(long, env = "STORK_PUBLISH_KEY")]
    key: Vec<String>,
    /// Take the key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<Target>,
    /// Show what would be withdrawn, and what is left
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: RecallArgs) -> Result<(), Failure> {
    let passphrase = args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File);
    if !args.release.is_empty() {
        let (charter, keys, reason, to) = (args.charter, args.key, args.reason, args.to);
        let dry_run = args.dry_run;
        let sending = Sending { charter, keys, passphrase, reason, to, dry_run };
        let (package, releases, root) = (args.package, args.release, args.root);
        let options = HashesOptions { package, releases, root, sending };
        let report = runtime()?.block_on(push::recall_hashes(&options))?;
        return super::narrow::show(&report, args.json);
    }
    if args.key.len() > 1 && !args.root {
        let why = "one release key signs: give --key once".into();
        return Err(PushError::Usage(why).into());
    }
    let (key, root) =
        if args.root { (None, Some(args.key)) } else { (args.key.into_iter().next(), None) };
    let options = RecallOptions {
        package: args.package,
        versions: args.version,
        arch: args.arch,
        reason: args.reason,
        charter: args.charter,
        key,
        passphrase,
        root,
        to: args.to,
        dry_run: args.dry_run,
    };
    let report = runtime()?.block_on(push::recall(&options, &Progress::for_stderr()))?;
    if args.json {
        return print_json(&report);
    }
    print_lines(&report.lines());
    Ok(())
}
