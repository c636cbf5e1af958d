//! `stork group-key add`: the key of a private group comes to this host; and what `stork status`
//! says of such groups.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::out::{causes, failure, result};
use super::show::text;
use crate::control::Client;

/// Bytes of a key file that are read at the most.
const FILE_LEN_MAX: u64 = 4_096;

#[derive(Debug, Subcommand)]
pub(super) enum GroupKeyCommand {
    /// Give this host the key of a private group; it hands it to other hosts with that grant.
    #[command(after_help = "Example:
  stork group-key add web.key

One host with the grant is enough: the others ask it. Take the file away from this machine
afterwards.")]
    Add {
        /// The file that `stork-publish charter private` made; `-` reads standard input.
        file: PathBuf,
    },
}

fn read(file: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut key = Zeroizing::new(String::new());
    if file == Path::new("-") {
        std::io::stdin().take(FILE_LEN_MAX).read_to_string(&mut key)?;
    } else {
        std::fs::File::open(file)?.take(FILE_LEN_MAX).read_to_string(&mut key)?;
    }
    Ok(key)
}

/// Runs one of them.
pub(super) async fn run(client: &Client, command: GroupKeyCommand, json: bool) -> ExitCode {
    let GroupKeyCommand::Add { file } = command;
    let key = match read(&file) {
        Ok(key) => key,
        Err(e) => {
            let what = format!("cannot read `{}`: {e}", file.display());
            let help = "name the file that `stork-publish charter private` made";
            return failure(&what, &[], help, stork_publisher::out::file_exit(&e));
        }
    };
    match client.post("/v1/group-keys", &json!({ "key": *key })).await {
        Ok(value) if json => {
            result(&value.to_string());
            ExitCode::SUCCESS
        }
        Ok(value) => {
            let group = text(&value["group"]);
            let already = value["already"].as_bool() == Some(true);
            let first = if already { "already so: " } else { "" };
            result(&format!("{first}this host has the key of group {group}"));
            ExitCode::SUCCESS
        }
        Err(e) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
    }
}

/// Private groups that this host should read and cannot; empty where there are none.
pub(super) fn lines(v: &Value) -> String {
    let mut out = String::new();
    for group in v["private_groups"].as_array().into_iter().flatten() {
        if group["granted"].as_bool() == Some(true) && group["have"].as_bool() != Some(true) {
            out += &format!(
                "\nPRIVATE group {}: its key has not come, its releases cannot be read\n  help: \
                 connect a host that has it, or `stork group-key add FILE`",
                text(&group["group"])
            );
        }
    }
    out
}
