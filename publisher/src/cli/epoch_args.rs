//! Arguments of the commands that begin an epoch of a feed.

use std::path::PathBuf;

use clap::Args;
use stork_wire::ids::ItemHash;

use super::charter::ChangeArgs;
use crate::push::Target;

/// Where an epoch begins.
#[derive(Debug, Args)]
pub(super) struct AfterArgs {
    /// The number of the last entry that stands
    #[arg(long, value_name = "SEQ", requires = "hash", required_unless_present = "from_nothing",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) after: Option<u64>,
    /// The hash of that entry
    #[arg(long, requires = "after")]
    pub(super) hash: Option<ItemHash>,
    /// No entry stands: every release is withdrawn
    #[arg(long, conflicts_with = "after")]
    pub(super) from_nothing: bool,
    /// The epoch of that entry; default: the one in force
    #[arg(long, value_name = "EPOCH")]
    pub(super) of_epoch: Option<u32>,
    /// The publisher, by name or id; default: that of publisher.toml
    #[arg(long, value_name = "NAME|ID")]
    pub(super) publisher: Option<String>,
    /// Give the document to this node at once; otherwise the next push brings it
    #[arg(long, value_name = "TARGET")]
    pub(super) to: Vec<Target>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The release key: a .pub file, or as `charter show` names it
    pub(super) key_id: String,
    /// A new release key that may what the old one could
    #[arg(long, value_name = "FILE.pub")]
    pub(super) release_key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) after: AfterArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct EpochArgs {
    /// A new release key; those in use sign nothing more
    #[arg(long, value_name = "FILE.pub")]
    pub(super) release_key: Option<PathBuf>,
    /// Beacon keys instead of those in use; up to 16 times
    #[arg(long, value_name = "FILE.pub")]
    pub(super) beacon_key: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) after: AfterArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}
