//! `deny`, `lift`, `halt`, `resume` and `key suicide`: what can be typed, and what is done.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use stork_wire::ids::{LogId, NodeId, TreeId};
use stork_wire::text::{Line, PackageName, Pattern};

use super::charter::ChangeArgs;
use super::charter_run::{change, now, report};
use super::commands::{print_json, print_lines, runtime};
use super::run::Failure;
use crate::charter::{self, CharterError, LiftWhat, VetoChange};
use crate::keys::Passphrase;
use crate::out;
use crate::push::{self, DenyOptions, DenyWhat, HaltOptions, NarrowReport, Sending, Target};

const DAY_S: u64 = 86_400;

/// Who says it, why, and to which nodes.
#[derive(Debug, Args)]
struct SendingArgs {
    /// The directory with charter.bundle
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    charter: PathBuf,
    /// Take the key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Why, for the people at the hosts
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times. One is enough: the
    /// fleet carries it on, before everything else
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<Target>,
    /// Check everything, send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl SendingArgs {
    fn sending(self, keys: Vec<String>) -> (Sending, bool) {
        let sending = Sending {
            charter: self.charter,
            keys,
            passphrase: self.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
            reason: self.reason,
            to: self.to,
            dry_run: self.dry_run,
        };
        (sending, self.json)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish deny --group web --tree TREE --key ~/.ssh/stork-veto \\
      --reason \"sends data away\" --to NODEID@host:7749
  stork-publish deny --group web --publisher ops --package nginx --from 3 --through 5 \\
      --key ~/.ssh/stork-veto --reason \"TLS is broken\" --to NODEID@host:7749
  stork-publish deny --host NODEID --key ~/stork/keys/admission --reason stolen \\
      --to NODEID@host:7749

Each with --charter DIR, or STORK_CHARTER set.
VMs of the group do not install what is denied; one that shows it goes back to what is left, or
keeps it where its file says `on_deny = \"keep\"`. It holds until the group's threshold lifts it:
`stork-publish lift`. A host that was denied is admitted again by a new token.
`stork release PACKAGE --json` shows trees and release numbers.")]
pub(super) struct DenyArgs {
    /// The group whose VMs must not install it
    #[arg(long, value_name = "NAME", required_unless_present = "host", conflicts_with = "host")]
    group: Option<String>,
    /// A tree, whoever publishes it
    #[arg(long, value_name = "ID", conflicts_with = "publisher")]
    tree: Option<TreeId>,
    /// Releases of this publisher, by name or id
    #[arg(long, value_name = "NAME|ID")]
    publisher: Option<String>,
    /// Of these packages
    #[arg(long, value_name = "PATTERN", default_value = "*", requires = "publisher")]
    package: Pattern,
    /// The first release number that is denied
    #[arg(long, value_name = "N", default_value_t = 1, requires = "publisher")]
    from: u64,
    /// The last one; default: all later ones too
    #[arg(long, value_name = "N", requires = "publisher")]
    through: Option<u64>,
    /// A host instead: nobody connects with it any more
    #[arg(long, value_name = "NODEID")]
    host: Option<NodeId>,
    /// The veto key of the group, or for a host the admission key: a file, ssh-agent:SHA256:…,
    /// ssh-agent: or 'exec:PROGRAM ARGUMENT…'
    #[arg(long, required = true)]
    key: Vec<String>,
    #[command(flatten)]
    sending: SendingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish lift LOG --group web --charter ~/stork
  stork-publish lift --all-by SHA256:… --group web --charter ~/stork

It is the group's next document: with a threshold above 1 the pending file goes to the others for
`charter sign`. `charter send` or any push brings it to the fleet. `stork status --json` of any host
lists denials with their logs under `narrowed`.")]
pub(super) struct LiftArgs {
    /// The denial's log, as `deny` printed it; may be given several times
    #[arg(required_unless_present = "all_by")]
    log: Vec<LogId>,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Every denial by this veto key, also those to come: it was stolen
    #[arg(long, value_name = "KEY")]
    all_by: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct PrivateArgs {
    /// The group
    pub(super) group: String,
    /// Make another key
    #[arg(long, conflicts_with = "public")]
    pub(super) new_key: bool,
    /// Open the group: releases that come are not sealed
    #[arg(long)]
    pub(super) public: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct VetoArgs {
    /// The group
    group: String,
    /// A public key file to add, or to give a later end; may be given several times
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// A key to take away: a file, a fingerprint or a key id; what it denied stays denied
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Days until a key that is added denies nothing more
    #[arg(long, value_name = "N", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish halt nginx --reason \"wait for 1.24.0-4\" --to NODEID@host:7749
  stork-publish halt --root --reason \"the build host is broken into\" --to NODEID@host:7749
  stork-publish resume nginx --reason \"mended\" --to NODEID@host:7749

Each with --charter DIR, or STORK_CHARTER set.
While it is halted nothing is installed anew; what VMs show stays. A halt by the root (--root) is
ended by the root only, and every halt by a new epoch of the feed.")]
pub(super) struct HaltArgs {
    /// One package; default: all of this publisher
    package: Option<PackageName>,
    /// Say it by the publisher's root instead of the release key
    #[arg(long)]
    root: bool,
    /// The key: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'; with --root as
    /// often as the threshold asks for.
    /// Default: the release key of publisher.toml, or keys/publisher
    #[arg(long, env = "STORK_PUBLISH_KEY")]
    key: Vec<String>,
    #[command(flatten)]
    sending: SendingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  stork-publish key suicide ~/.ssh/stork-release --charter ~/stork --reason stolen \\
      --to NODEID@host:7749

For the hour in which a release key is stolen and the publisher's root is not at hand. It cannot be
taken back. What the key has signed in the feed's open epoch is void at every host; what VMs show of
it stays until the root says by `charter revoke` after which entry a new epoch begins.")]
pub(super) struct SuicideArgs {
    /// The key that ends: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'
    key: String,
    #[command(flatten)]
    sending: SendingArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn show(report: &NarrowReport, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(report);
    }
    print_lines(&report.lines());
    Ok(())
}

pub(super) fn deny(args: DenyArgs) -> Result<(), Failure> {
    let usage = |why: &str| Failure::from(CharterError::Usage(why.into()));
    let what = match (args.host, args.group) {
        (Some(host), _) => Err(host),
        (None, Some(group)) => {
            let what = match (args.tree, args.publisher) {
                (Some(tree), _) => DenyWhat::Tree(tree),
                (None, Some(publisher)) => DenyWhat::Releases {
                    publisher,
                    package: args.package,
                    from: args.from,
                    to: args.through.unwrap_or(u64::MAX),
                },
                (None, None) => return Err(usage("what is denied? give --tree or --publisher")),
            };
            Ok((group, what))
        }
        (None, None) => return Err(usage("give --group or --host")),
    };
    let (sending, json) = args.sending.sending(args.key);
    let options = DenyOptions { what, sending };
    show(&runtime()?.block_on(push::deny(&options))?, json)
}

pub(super) fn lift(args: LiftArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let logs = args.log.into_iter().map(LiftWhat::Denial);
    let what: Vec<LiftWhat> = logs.chain(args.all_by.into_iter().map(LiftWhat::AllBy)).collect();
    let changed = charter::lift(&change, &args.group, &what, now())?;
    report(&changed, &change.dir, json)
}

pub(super) fn veto(args: VetoArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let not_after = now() + u64::from(args.days) * DAY_S;
    let what = VetoChange { add: args.add, remove: args.remove, not_after };
    let changed = charter::veto(&change, &args.group, &what)?;
    report(&changed, &change.dir, json)
}

pub(super) fn halt(args: HaltArgs, halted: bool) -> Result<(), Failure> {
    let (sending, json) = args.sending.sending(args.key);
    let options = HaltOptions { package: args.package, halted, root: args.root, sending };
    show(&runtime()?.block_on(push::halt(&options))?, json)
}

pub(super) fn suicide(args: SuicideArgs) -> Result<(), Failure> {
    let ask = !args.yes && !args.sending.dry_run;
    if ask && !consent(&args.key)? {
        out::chat("Nothing was sent.");
        return Ok(());
    }
    let (sending, json) = args.sending.sending(vec![args.key]);
    let report = runtime()?.block_on(push::suicide(&push::SuicideOptions { sending }))?;
    show(&report, json)
}

fn consent(key: &str) -> Result<bool, CharterError> {
    if !std::io::stdin().is_terminal() {
        let why = "nobody can be asked here: look at it by --dry-run, then give --yes";
        return Err(CharterError::Usage(why.into()));
    }
    out::chat(&format!("This ends {key} for ever, on every host. Type yes:"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    Ok(read.is_ok() && line.trim() == "yes")
}
