//! `stork-publish charter compact` and `stork-publish carry`: a feed begins anew, and what is live
//! is announced again.

use std::path::PathBuf;

use clap::Args;

use super::charter::ChangeArgs;
use super::charter_run::{change, now};
use super::commands::{print_json, print_lines, runtime};
use super::run::Failure;
use crate::charter::{self, CharterError, EpochOptions, Outcome};
use crate::keys::Passphrase;
use crate::out;
use crate::progress::Progress;
use crate::push::{self, CARRY_FILE, CarryOptions, CarryReport, Target};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  stork-publish charter compact --charter ~/stork --to NODEID@host:7749

What is live is written to carry.entries beside the charter first, and announced again after. VMs
go on showing what they show; who is new gets each release once it has been announced again. Stopped
on the way, `stork-publish carry` goes on. What was recalled is left, halts end, and delegated keys
are to be made anew. Stop build jobs before: what they publish meanwhile is lost.")]
pub(super) struct CompactArgs {
    /// The release key that announces again: a file, ssh-agent:SHA256:…, ssh-agent: or
    /// 'exec:PROGRAM ARGUMENT…'. Default: the release key that publisher.toml names
    #[arg(long, value_name = "KEY", env = "STORK_PUBLISH_KEY")]
    release_key: Option<String>,
    /// A node: NODEID@HOST:PORT or HOST:PORT#NODEID; may be given several times
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<Target>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  stork-publish carry --charter ~/stork --to NODEID@host:7749

Goes on with `stork-publish charter compact` where that was stopped. What is live again already is
passed over.")]
pub(super) struct CarryArgs {
    /// The publisher's directory
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn carry(args: CarryArgs) -> Result<(), Failure> {
    let options = CarryOptions {
        charter: args.charter,
        key: args.key,
        passphrase: args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        to: args.to,
    };
    let report = runtime()?.block_on(push::carry(&options, &Progress::for_stderr()))?;
    show(&report, args.json)
}

fn show(report: &CarryReport, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(report);
    }
    print_lines(&report.lines());
    Ok(())
}

/// What is live is written down, the document is made and brought to the nodes, and what is live
/// is announced again. Stopped after the document, `carry` goes on.
pub(super) fn compact(args: CompactArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let options = CarryOptions {
        charter: change.dir.clone(),
        key: args.release_key,
        passphrase: change.passphrase.clone(),
        to: args.to,
    };
    let progress = Progress::for_stderr();
    let gathered = runtime()?.block_on(push::gather(&options, &progress))?;
    let Some((at, count)) = gathered else {
        out::result("nothing is live in this feed: there is nothing to carry over");
        return Ok(());
    };
    let file = change.dir.join(CARRY_FILE);
    let forget = || std::fs::remove_file(&file).map_err(|e| Failure::new(e, "remove it by hand"));
    let epoch = EpochOptions::anew(at);
    let changed = match charter::new_epoch(&change, &epoch) {
        Ok((changed, _)) => changed,
        Err(e) => {
            forget()?;
            return Err(e.into());
        }
    };
    match changed.outcome {
        Outcome::Made => {}
        Outcome::DryRun | Outcome::AlreadySo => {
            forget()?;
            out::result(&format!("would carry {count} releases over, as of entry {}", at.at));
            return Ok(());
        }
        Outcome::Pending(path) => {
            forget()?;
            // What others publish until all have signed would be lost.
            std::fs::remove_file(&path).map_err(|e| Failure::new(e, "remove it by hand"))?;
            let why = "a feed begins anew at once or not at all: give all keys of its root, each \
                       by --key";
            return Err(CharterError::Usage(why.into()).into());
        }
    }
    let (charter, profile) = charter::open(&change.dir)?;
    runtime()?.block_on(push::send_documents(&options.to, &charter, Some(profile.publisher)))?;
    out::chat(&format!("the feed begins anew as of {}", out::minute(now())));
    let report = runtime()?.block_on(push::carry(&options, &progress))?;
    show(&report, json)
}
