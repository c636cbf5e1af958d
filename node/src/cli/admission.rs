//! `stork-node admission add | remove | show`: the key by which a host admits others.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};
use stork_publisher::keys::{KeyError, Passphrase, fingerprint, read_secret};
use stork_wire::sign::SecretKey;

use super::out::{causes, failure, result};
use super::show::text;
use crate::config::NodeConfig;
use crate::identity::{self, IdentityError};

#[derive(Debug, Subcommand)]
pub(super) enum AdmissionCommand {
    /// Keep an admission key here, bound to this machine; the daemon uses it from its next start.
    #[command(after_help = "Example:
  stork-node admission add keys/admission

It takes the place of one that is here. Several hosts may have the same key, or one each that the
root document names: `stork-publish charter rotate admission --add KEY.pub`. Each then makes tokens
and renews certificates. Take the file away from this machine afterwards.")]
    Add {
        /// The private key: a file of `stork-publish key generate` or `charter init`
        file: PathBuf,
        /// A file with the key's passphrase, if it has one
        #[arg(long, env = "STORK_PASSPHRASE_FILE", value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Forget the admission key; the daemon goes on with it until it is started anew.
    Remove,
    /// Print the fingerprint of the key that is here.
    Show {
        /// One JSON object instead of a line
        #[arg(long)]
        json: bool,
    },
}

fn failed(e: &IdentityError) -> ExitCode {
    failure(&e.to_string(), &causes(e), e.help(), e.exit_code())
}

/// Runs one of them.
pub(super) fn run(config: &NodeConfig, command: AdmissionCommand) -> ExitCode {
    match command {
        AdmissionCommand::Add { file, passphrase_file } => add(config, &file, passphrase_file),
        AdmissionCommand::Remove => match identity::forget_admission_key(&config.state) {
            Ok(true) => {
                result("removed\nnext: restart stork-node, which still has it in memory");
                ExitCode::SUCCESS
            }
            Ok(false) => {
                result("already so: there is no admission key here");
                ExitCode::SUCCESS
            }
            Err(e) => failed(&e),
        },
        AdmissionCommand::Show { json } => show(config, json),
    }
}

/// The key that admits hosts, from the file that the charter's maintainer gave.
pub(super) fn read_key(file: &Path, passphrase: Option<PathBuf>) -> Result<SecretKey, ExitCode> {
    let passphrase = passphrase.map_or(Passphrase::Ask, Passphrase::File);
    read_secret(file, &passphrase).map_err(|e| {
        let help = match &e {
            KeyError::Read { .. } => {
                "name the admission key that `stork-publish charter init` made in its `keys`".into()
            }
            e => e.help(),
        };
        failure(&e.to_string(), &causes(&e), &help, e.exit())
    })
}

fn add(config: &NodeConfig, file: &Path, passphrase: Option<PathBuf>) -> ExitCode {
    if !config.state.join("node.key").exists() {
        let what = format!("{}: this host has not joined a fleet", config.state.display());
        return failure(&what, &[], "`stork-node join` first; check --state", 78);
    }
    let key = match read_key(file, passphrase) {
        Ok(key) => key,
        Err(code) => return code,
    };
    let shown = fingerprint(&key.public());
    // One that cannot be read, of another machine for example, is replaced.
    let before = identity::admission_key(&config.state).ok().flatten();
    if before.is_some_and(|k| k.public() == key.public()) {
        result(&format!("already so: admission key {shown}"));
        return ExitCode::SUCCESS;
    }
    match identity::keep_admission_key(&config.state, &key) {
        Ok(()) => {
            result(&format!(
                "admission key {shown} is kept here\nnext: restart stork-node; `stork status` \
                 says whether it admits"
            ));
            ExitCode::SUCCESS
        }
        Err(e) => failed(&e),
    }
}

fn show(config: &NodeConfig, json: bool) -> ExitCode {
    let key = match identity::admission_key(&config.state) {
        Ok(key) => key.map(|k| fingerprint(&k.public())),
        Err(e) => return failed(&e),
    };
    if json {
        let value = json!({ "schema": "stork.admission/v1", "key": key });
        result(&value.to_string());
    } else {
        result(key.as_deref().unwrap_or("none: this host admits nobody"));
    }
    ExitCode::SUCCESS
}

/// What `stork status` says of the certificate and of a restored state; empty where all is well.
pub(super) fn lines(v: &Value) -> String {
    let mut out = String::new();
    let cert = &v["certificate"];
    if !cert["help"].is_null() {
        let days = text(&cert["days_left"]);
        let what = match cert["state"].as_str() {
            Some("expired") => "HAS RUN OUT: other hosts refuse this one".to_owned(),
            _ => format!("runs out in {days} days: nobody renewed it"),
        };
        out += &format!("\nCERTIFICATE {what}\n  help: {}", text(&cert["help"]));
    }
    let restored = &v["restored"];
    if !restored.is_null() {
        let (equal, needed) = (text(&restored["equal"]), text(&restored["needed"]));
        out += &format!(
            "\nRESTORED from a backup: {equal} of {needed} neighbours have the same\n  help: \
             publishers are refused and VMs stay as they are until then; see `stork peers`"
        );
    }
    out
}
