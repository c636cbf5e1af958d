//! The command line of `stork-publish`: what can be typed, and what each word means.

mod beacons;
mod charter;
mod charter_run;
mod charter_show;
mod commands;
mod compact;
mod delegate;
mod epoch_args;
mod narrow;
mod recall;
mod retire;
mod run;
#[cfg(test)]
mod tests;

pub use run::run_cli;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stork_origin::Address;
use stork_wire::feed::Urgency;
use stork_wire::text::{Arch, Label, PackageName, Version};

use self::charter::CharterCommand;
use crate::push::Target;
use crate::source::{ReadOptions, UNPACKED_LEN_DEFAULT, UsrMerge};

const EXAMPLES: &str = "Examples:
  stork-publish charter init --dir ~/stork --fleet acme --group web --publisher ops
  stork-publish inspect nginx_1.24.0-2_amd64.deb
  stork-publish push nginx_1.24.0-2_amd64.deb --charter ~/stork --to NODEID@host:7749
  stork-publish push ./site --name acme-site --version 1.4.2 --arch all --to NODEID@host:7749

Examples leave out --charter where STORK_CHARTER is set; one of the two is needed.

Environment:
  STORK_CHARTER          the publisher's directory, instead of --charter
  STORK_PUBLISH_KEY      the release key, instead of --key
  STORK_PASSPHRASE_FILE  a file whose first line is the key's passphrase
  STORK_ORIGIN           the object store, instead of --origin
  STORK_ORIGIN_CREDENTIALS  its credentials, instead of --origin-credentials
  AWS_…                  the usual variables for s3: origins, such as AWS_ENDPOINT_URL
  SSH_AUTH_SOCK          the ssh-agent for --key ssh-agent:
  TMPDIR                 where packages are unpacked while they are packed
  NO_COLOR               no colours

Exit codes: 0 ok, 1 failed, 2 usage, 4 refused by trust, 5 not found, 6 timed out,
  7 refused by policy, 75 try again, 77 no permission, 78 bad config";

/// Sign package updates and announce them to a fleet of VM hosts.
#[derive(Debug, Parser)]
#[command(name = "stork-publish", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and show keys (OpenSSH Ed25519)
    #[command(subcommand)]
    Key(KeyCommand),
    /// Found, change, sign and check a fleet's charter: who may do what
    #[command(subcommand)]
    Charter(CharterCommand),
    /// Pack a .deb, .rpm, tar archive or directory without sending it
    Pack(PackArgs),
    /// Show what is inside a package, a manifest or a packed directory
    Inspect(InspectArgs),
    /// Check that packs are what their manifest says
    Verify(VerifyArgs),
    /// Pack, sign and announce a package
    Push(PushArgs),
    /// Withdraw releases, also from the VMs that show them
    Recall(recall::RecallArgs),
    /// Make room in a feed: what newer releases have replaced is installed nowhere anew
    Retire(retire::RetireArgs),
    /// Announce again what was live before a feed began anew
    Carry(compact::CarryArgs),
    /// Halt what this publisher releases: nothing of it is installed anew
    Halt(narrow::HaltArgs),
    /// Let what was halted go on
    Resume(narrow::HaltArgs),
    /// Deny content to a group's VMs, as its security team, or a host to the fleet
    Deny(narrow::DenyArgs),
    /// End denials, by the group's threshold
    Lift(narrow::LiftArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man {
        /// Write one page for each command into this directory
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key file and its .pub; neither is ever overwritten
    #[command(after_help = "Example:\n  stork-publish key generate --out ~/.ssh/stork-release")]
    Generate {
        /// The private key's file
        #[arg(long, value_name = "FILE", default_value = "stork-release")]
        out: PathBuf,
        /// A comment in the key file
        #[arg(long, default_value = "stork")]
        comment: String,
        #[command(flatten)]
        passphrase: NewPassphrase,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key for a build job: good for some packages, for an hour
    Delegate(delegate::DelegateArgs),
    /// End a release key for ever, with one signature by it
    Suicide(narrow::SuicideArgs),
    /// Print a key's id and fingerprint; no passphrase is needed
    Show {
        /// A private or public key file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How new keys are locked.
#[derive(Debug, Args)]
struct NewPassphrase {
    /// Write private keys in the clear, whatever the environment says
    #[arg(long)]
    no_passphrase: bool,
    /// Take the passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

/// How a package is read.
#[derive(Debug, Args)]
struct ReadArgs {
    /// The package's name, for a tar archive or directory
    #[arg(long)]
    name: Option<PackageName>,
    /// Its version, likewise
    #[arg(long)]
    version: Option<Version>,
    /// Its architecture (amd64, arm64, all …), likewise
    #[arg(long)]
    arch: Option<Arch>,
    /// Leave /bin, /lib and their like where a .deb has them
    #[arg(long)]
    no_usr_merge: bool,
    /// Give all files to root
    #[arg(long)]
    root_owner: bool,
    /// Refuse packages that unpack to more bytes
    #[arg(long, value_name = "BYTES", default_value_t = UNPACKED_LEN_DEFAULT)]
    max_unpacked: u64,
}

impl ReadArgs {
    fn options(&self) -> ReadOptions {
        ReadOptions {
            name: self.name.clone(),
            version: self.version.clone(),
            arch: self.arch.clone(),
            usr_merge: if self.no_usr_merge { UsrMerge::AsIs } else { UsrMerge::Canonical },
            root_owner: self.root_owner,
            unpacked_max: self.max_unpacked,
        }
    }
}

#[derive(Debug, Args)]
struct PackArgs {
    /// A .deb, .rpm, tar archive or directory
    file: PathBuf,
    /// Where manifest and packs are written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// An older package file to make a delta against
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// A package file, directory, manifest, or what `pack --out` wrote
    path: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// What `pack --out` wrote
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How soon a release matters.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum UrgencyArg {
    /// Closes a hole
    Security,
    /// Soon
    Urgent,
    /// As usual
    Normal,
    /// When nothing else is to do
    Background,
}

impl From<UrgencyArg> for Urgency {
    fn from(u: UrgencyArg) -> Self {
        match u {
            UrgencyArg::Security => Self::Security,
            UrgencyArg::Urgent => Self::Urgent,
            UrgencyArg::Normal => Self::Normal,
            UrgencyArg::Background => Self::Background,
        }
    }
}

/// Who publishes, and to which nodes.
#[derive(Debug, Args)]
struct AuthorArgs {
    /// The publisher's directory, as `charter init` made it
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    charter: PathBuf,
    /// The release key: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'
    #[arg(long, env = "STORK_PUBLISH_KEY")]
    key: Option<String>,
    /// Take the key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<Target>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stork-publish push nginx.deb --charter ~/stork --to NODEID@host:7749 --urgency security
  stork-publish push site.tar.zst --name acme-site --version 1.4.2 --arch all --to ADDR#NODEID
  stork-publish push nginx.deb --key ssh-agent:SHA256:… --to NODEID@a:7749 --to NODEID@b:7749
  stork-publish push nginx.deb --to NODEID@host:7749 --origin s3://packages/stork
  stork-publish push app.deb --to ADDR#NODEID --bundle shop-7 --with app-data --with app-lib

Each with --charter DIR, or STORK_CHARTER set.
The content is on the disk of --copies nodes, and in the origin, before the release is announced.
Running the same command again goes on where it stopped.")]
struct PushArgs {
    /// A .deb, .rpm, tar archive or directory
    file: PathBuf,
    #[command(flatten)]
    who: AuthorArgs,
    /// So many nodes must have the content before it is announced; default: 2, or all if fewer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    copies: Option<u8>,
    /// An object store that gets the content as well: file:/DIR or s3://BUCKET/PREFIX; default: as
    /// publisher.toml says
    #[arg(long, value_name = "URL", env = "STORK_ORIGIN")]
    origin: Option<Address>,
    /// A file with AWS_ACCESS_KEY_ID=… and its like, readable by its owner only; default: these
    /// variables
    #[arg(long, value_name = "FILE", env = "STORK_ORIGIN_CREDENTIALS")]
    origin_credentials: Option<PathBuf>,
    /// A group by name; default: all groups of the charter
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// It is part of a bundle of this name: VMs switch to all members together
    #[arg(long, value_name = "NAME", requires = "with")]
    bundle: Option<Label>,
    /// Another package of that bundle; may be given several times
    #[arg(long, value_name = "PACKAGE", requires = "bundle")]
    with: Vec<PackageName>,
    /// How soon it matters
    #[arg(long, value_enum, default_value_t = UrgencyArg::Normal)]
    urgency: UrgencyArg,
    /// Days until it is not installed anew any more
    #[arg(long, value_name = "N", default_value_t = 180,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_days: u32,
    /// What the delta is made against: auto, none or an older package file
    #[arg(long, value_name = "auto|none|FILE", default_value = "auto")]
    base: String,
    /// Publish even if the version is lower than the newest one
    #[arg(long)]
    allow_lower: bool,
    /// Check everything, send nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    read: ReadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}
