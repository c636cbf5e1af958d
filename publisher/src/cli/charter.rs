//! What can be typed after `stork-publish charter`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use stork_wire::text::{GroupName, Label, Pattern};

use super::beacons::BeaconsArgs;
use super::charter_show::InitArgs;
use super::compact::CompactArgs;
use super::epoch_args::{EpochArgs, RevokeArgs};
use super::narrow::{PrivateArgs, VetoArgs};
use crate::charter::RoleName;
use crate::push::Target;

#[derive(Debug, Subcommand)]
pub(super) enum CharterCommand {
    /// Found a fleet on this disk: all keys, documents and a first publisher
    #[command(after_help = "Examples:
  stork-publish charter init --dir ~/stork --fleet acme --group web --group db \\
      --publisher ops --no-passphrase
  stork-publish charter init --dir ~/stork --fleet acme --group web --publisher ops \\
      --second-key root=bob.pub --second-key root=carol.pub --threshold root=2

Where a threshold is more than 1, the fleet is founded when the others have signed:
pending/founding.req goes to them for `charter sign`, then back for `charter import`.")]
    Init(InitArgs),
    /// Sign a change that others made: it is shown in words first
    #[command(after_help = "Example:
  stork-publish charter sign root-2.req --charter ~/stork --key ~/.ssh/stork-root")]
    Sign(SignArgs),
    /// Add a change to the bundle, once all its signatures are there
    Import(ImportArgs),
    /// Found a group
    AddGroup(AddGroupArgs),
    /// Make a publisher and let it publish to groups
    #[command(after_help = "Example:
  stork-publish charter add-publisher tools --charter ~/stork --root-key tools-root.pub \\
      --release-key tools-release.pub --group web --packages 'tool-*'

The publisher's root signs it too: send the pending file there.")]
    AddPublisher(AddPublisherArgs),
    /// Let a publisher publish to a group; what is given takes the place of what it might before
    Grant(GrantArgs),
    /// Take away what a group lets a publisher do: nothing more of it is installed there
    Ungrant(UngrantArgs),
    /// Let another publisher release some of a publisher's packages in its place, or take that back
    #[command(after_help = "Examples:
  stork-publish charter delegate ops --to ci --packages 'web-*' --charter ~/stork
  stork-publish charter delegate ops --to ci --remove --charter ~/stork

The publisher's own root signs it. The delegate may do what ops may and the patterns name, and no
more; VMs follow it where their rule says `delegations = true`.")]
    Delegate(DelegateArgs),
    /// Change the keys of a role, or how many of them must sign
    #[command(after_help = "Examples:
  stork-publish charter rotate root --charter ~/stork --add dave.pub --remove SHA256:…
  stork-publish charter rotate publisher --charter ~/stork --add bob.pub --threshold 2
  stork-publish charter rotate release --charter ~/stork --add ci.pub --packages 'web-*'

A release key is added here, and taken away by `charter revoke`. What an admission key signed that
is taken away stays good for 30 days, in which hosts renew their certificates by themselves; with
--stolen it is void at once, and every host joins again by a new token.")]
    Rotate(RotateArgs),
    /// Take a release key away: a new epoch begins after the last entry that stands
    #[command(after_help = "Example:
  stork-publish charter revoke SHA256:… --charter ~/stork --after 41 --hash HASH \\
      --release-key new.pub

`stork release PACKAGE` on any host shows the number and the hash of each release's entry.")]
    Revoke(RevokeArgs),
    /// Change who may deny content to a group's VMs: the keys of its security team
    #[command(after_help = "Examples:
  stork-publish charter veto web --charter ~/stork --add alice.pub --add bob.pub
  stork-publish charter veto web --charter ~/stork --remove SHA256:…

What a key has denied stays so when it has run out or is taken away: see `stork-publish lift`.")]
    Veto(VetoArgs),
    /// Make a group private: only hosts whose certificates grant it read what is published there
    #[command(after_help = "Examples:
  stork-publish charter private web --charter ~/stork
  stork-publish charter private web --charter ~/stork --new-key

The key is a file in the charter's group-keys. Who publishes to the group needs it there, and one
host with the grant: `stork group-key add FILE`. The others ask that one. With --new-key hosts that
were denied meanwhile cannot read what comes; what they had before they keep.")]
    Private(PrivateArgs),
    /// Say how old the newest beacon of a feed may be to a group's VMs
    #[command(after_help = "Examples:
  stork-publish charter beacons web --within 15m --charter ~/stork
  stork-publish charter beacons web --as-they-say --charter ~/stork

What a VM does with a feed that is not fresh is said in its own file: `freshness`. A feed without
beacons is not fresh to such a group. Nodes with a beacon key make three beacons in that time.")]
    Beacons(BeaconsArgs),
    /// Say documents again with a later end, and release keys with them
    Renew(RenewArgs),
    /// Begin a new epoch of the feed after the last entry that stands: after a fork or a stolen key
    #[command(after_help = "Examples:
  stork-publish charter new-epoch --charter ~/stork --after 41 --hash HASH --to NODEID@host:7749
  stork-publish charter new-epoch --charter ~/stork --after 41 --hash HASH \\
      --release-key new.pub

`stork status --json` of any host lists under `frozen` where a feed stands, and both entries of the
fork: one of these may stand as well.")]
    NewEpoch(EpochArgs),
    /// Let a feed begin anew: no host keeps or fetches its entries of years any more
    Compact(CompactArgs),
    /// Give all documents to a node, and by it to the fleet; a push does it too, but a publisher
    /// that is new to the node cannot push yet
    Send(SendArgs),
    /// Make a directory with a bundle the one from which a publisher works
    Profile(ProfileArgs),
    /// Show a charter, with every signature checked
    Show {
        /// A publisher's directory or a charter bundle
        path: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every document of every chain, its thresholds and its end
    Verify {
        /// A directory or a charter bundle
        path: PathBuf,
        /// Look at ends as of this time, in seconds since 1970; default: now
        #[arg(long, value_name = "SECONDS")]
        at: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How a change is made and signed.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The directory with charter.bundle
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    pub(super) charter: PathBuf,
    /// A key that signs: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'; may be
    /// given several times.
    /// Default: keys/root, keys/authority and keys/publisher of the directory, where they may sign
    #[arg(long)]
    pub(super) key: Vec<String>,
    /// Take the keys' passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Days until new documents must have been renewed; one that holds longer stays so
    #[arg(long, value_name = "N", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) valid_days: u32,
    /// Where a change is written that lacks signatures; default: a file in pending/
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Say what would change, write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What a publisher may.
#[derive(Debug, Args)]
pub(super) struct GrantedArgs {
    /// Package names that it may use; default: all
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub(super) packages: Vec<Pattern>,
    /// Names that its packages may provide beside their own
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub(super) provides: Vec<Pattern>,
    /// Unpacked bytes of one release at the most; 0: no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(super) max_bytes: u64,
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The pending change; it is signed in its place
    pub(super) file: PathBuf,
    /// The directory with charter.bundle; none is needed to found a fleet
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER", default_value = ".")]
    pub(super) charter: PathBuf,
    /// Your key: a file, ssh-agent:SHA256:…, ssh-agent: or 'exec:PROGRAM ARGUMENT…'; may be given
    /// several times
    #[arg(long)]
    pub(super) key: Vec<String>,
    /// Take the key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Write the signed change here instead
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Sign without being asked
    #[arg(long)]
    pub(super) yes: bool,
    /// Show what it changes, sign nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The pending change
    pub(super) file: PathBuf,
    /// The directory with charter.bundle
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    pub(super) charter: PathBuf,
    /// Check everything, write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AddGroupArgs {
    /// The group's name, never changed
    pub(super) name: GroupName,
    /// A publisher that may publish to it; may be given several times
    #[arg(long, value_name = "NAME|ID")]
    pub(super) publisher: Vec<String>,
    #[command(flatten)]
    pub(super) granted: GrantedArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct AddPublisherArgs {
    /// The publisher's name
    pub(super) name: Label,
    /// Public half of its root key; may be given several times
    #[arg(long, value_name = "FILE.pub", required = true)]
    pub(super) root_key: Vec<PathBuf>,
    /// So many of its root keys must sign
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub(super) threshold: u8,
    /// Public half of its release key; may be given several times
    #[arg(long, value_name = "FILE.pub", required = true)]
    pub(super) release_key: Vec<PathBuf>,
    /// A group that it may publish to; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) group: Vec<String>,
    #[command(flatten)]
    pub(super) granted: GrantedArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct GrantArgs {
    /// The group
    pub(super) group: String,
    /// The publisher, by name or id
    pub(super) publisher: String,
    #[command(flatten)]
    pub(super) granted: GrantedArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct DelegateArgs {
    /// The publisher that delegates, by name or id
    pub(super) publisher: String,
    /// The publisher that is let, by name or id
    #[arg(long, value_name = "NAME|ID")]
    pub(super) to: String,
    /// Which packages
    #[arg(long, value_name = "PATTERN", num_args = 1.., required_unless_present = "remove")]
    pub(super) packages: Vec<Pattern>,
    /// Whoever looks for these packages looks at no later delegation
    #[arg(long, conflicts_with = "remove")]
    pub(super) terminating: bool,
    /// Take back all that it was given
    #[arg(long, conflicts_with = "packages")]
    pub(super) remove: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct UngrantArgs {
    /// The group
    pub(super) group: String,
    /// The publisher, by name or id
    pub(super) publisher: String,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// root, admission, authority, group:NAME, publisher, publisher:NAME, release or release:NAME
    pub(super) role: String,
    /// Public half of a key to add; may be given several times
    #[arg(long, value_name = "FILE.pub")]
    pub(super) add: Vec<PathBuf>,
    /// A key to take away: a .pub file, or as `charter show` names it; may be given several times
    #[arg(long, value_name = "KEYID")]
    pub(super) remove: Vec<String>,
    /// So many keys must sign from now on; default: as before
    #[arg(long, value_name = "K")]
    pub(super) threshold: Option<u8>,
    /// Of admission keys that are taken away: what they signed is void at once
    #[arg(long, requires = "remove")]
    pub(super) stolen: bool,
    /// Package names of an added release key; default: all
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub(super) packages: Vec<Pattern>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct RenewArgs {
    /// Only this: root, group:NAME, publisher or publisher:NAME; may be given several times
    #[arg(long, value_name = "DOCUMENT")]
    pub(super) only: Vec<RoleName>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The directory with charter.bundle
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    pub(super) charter: PathBuf,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times
    #[arg(long, value_name = "TARGET", required = true)]
    pub(super) to: Vec<Target>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// The publisher, by name or id
    pub(super) publisher: String,
    /// The directory with charter.bundle
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    pub(super) charter: PathBuf,
    /// The release key: a file, relative to the directory, ssh-agent:SHA256:… or exec:…
    #[arg(long, value_name = "KEY")]
    pub(super) release_key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
