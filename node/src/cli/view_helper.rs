//! `stork-node view-helper`: the process that mounts views; only the daemon starts it.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::out::{causes, failure};
use crate::config::LogFormat;
use crate::sandbox::mounter;

/// What it is told beside the folders.
#[derive(Debug, Args)]
pub(super) struct Given {
    /// Work, instead of starting a process that does.
    #[arg(long)]
    alone: bool,
    /// Log lines of JSON.
    #[arg(long)]
    json_log: bool,
}

/// Runs it.
pub(super) fn run(given: &Given, state: &Path, vms: &Path) -> ExitCode {
    super::node::start_log(if given.json_log { LogFormat::Json } else { LogFormat::Text });
    let ended = if given.alone {
        mounter::work(state, vms.to_owned()).map(mounter::End::code)
    } else {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        mounter::watch(&words).map(|()| 0)
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(e) => failure(&e.to_string(), &causes(&e), "only the daemon starts this command", 2),
    }
}
