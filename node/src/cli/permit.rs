//! `stork permit`: lets one VM go back to an older release, for some time; and the operators' keys
//! of a node's settings.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stork_publisher::keys::{KeyError, Passphrase, Signer, fingerprint, read_public};
use stork_publisher::out::day;
use stork_wire::charter::BODY_VERSION;
use stork_wire::ids::PublicKey;
use stork_wire::permit::{DowngradePermit, PermitText};

use super::out::{causes, failure, result, table};
use super::show::{list, text};
use crate::config::NodeConfig;
use crate::control::{Client, ClientError};

/// Operators that a node's file may name.
const OPERATORS_MAX: usize = 16;

#[derive(Debug, Subcommand)]
pub(super) enum PermitCommand {
    /// Let a VM go back to an older release; signs with an operator's key and tells the daemon.
    Create(CreateArgs),
    /// Give the daemon a permit that was made elsewhere.
    Add {
        /// A file that holds it; `-` is standard input.
        file: PathBuf,
    },
    /// The permits that this host keeps, and the operators whose permits it takes.
    List,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The VM.
    vm: String,
    /// The release to which it may go back, as PACKAGE=VERSION.
    release: String,
    /// The operator's private key: an OpenSSH file, `ssh-agent:SHA256:…` or `exec:PROGRAM`.
    #[arg(long, value_name = "KEY")]
    key: String,
    /// A file with the key's passphrase; without it you are asked.
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Hours for which it is good.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=2160))]
    hours: u64,
    /// Whose release, where several publishers have one of that version.
    #[arg(long, value_name = "NAME")]
    publisher: Option<String>,
    /// Print the permit, and give it to no daemon.
    #[arg(long)]
    print: bool,
}

/// The settings with the keys of the operators that they name.
pub(super) fn with_operators(config: NodeConfig) -> Result<NodeConfig, ExitCode> {
    if config.operators.len() > OPERATORS_MAX {
        let what = format!("`operators` names more than {OPERATORS_MAX} files");
        return Err(failure(&what, &[], "name those who may let VMs go back", 78));
    }
    let keys = config.operators.iter().map(|path| read_public(path).map(|(key, _)| key));
    match keys.collect::<Result<Vec<PublicKey>, KeyError>>() {
        Ok(operator_keys) => Ok(NodeConfig { operator_keys, ..config }),
        Err(e) => {
            let help = "correct `operators` in the settings: files of public keys";
            Err(failure(&e.to_string(), &causes(&e), help, e.exit()))
        }
    }
}

/// Adds to each public key the fingerprint that `ssh-keygen -l` prints.
pub(super) fn with_fingerprints(mut v: Value) -> Value {
    fn walk(v: &mut Value) {
        match v {
            Value::Array(all) => all.iter_mut().for_each(walk),
            Value::Object(map) => {
                let key = map.get("public_key").and_then(Value::as_str);
                let key = key.and_then(|k| k.parse::<PublicKey>().ok());
                if let Some(key) = key {
                    map.insert("fingerprint".into(), Value::String(fingerprint(&key)));
                }
                map.values_mut().for_each(walk);
            }
            _ => {}
        }
    }
    walk(&mut v);
    v
}

/// Why a permit was not made.
enum Fault {
    Client(ClientError),
    Told(ExitCode),
}

impl From<ClientError> for Fault {
    fn from(e: ClientError) -> Self {
        Self::Client(e)
    }
}

fn told(what: &str, help: &str, code: u8) -> Fault {
    Fault::Told(failure(what, &[], help, code))
}

/// Runs a subcommand of `stork permit`.
pub(super) async fn run(client: &Client, command: PermitCommand, json: bool) -> ExitCode {
    let done = match command {
        PermitCommand::Create(args) => create(client, &args, json).await,
        PermitCommand::Add { file } => add(client, &file, json).await,
        PermitCommand::List => permits(client, json).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fault::Told(code)) => code,
        Err(Fault::Client(e)) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
    }
}

/// The release that is meant, of those that the daemon knows.
fn meant(all: &Value, args: &CreateArgs) -> Result<Value, Fault> {
    let Some((package, version)) = args.release.split_once('=') else {
        let what = format!("`{}` names no version", args.release);
        return Err(told(&what, "write PACKAGE=VERSION; `stork release PACKAGE` lists them", 2));
    };
    let named = |r: &Value| {
        let by = args.publisher.as_deref();
        r["package"] == package
            && r["version"] == version
            && by.is_none_or(|by| r["publisher"] == by || r["publisher_id"] == by)
    };
    let mut found = list(&all["releases"]);
    found.retain(named);
    let mut whose: Vec<String> =
        found.iter().map(|r| text(&r["publisher_id"]) + &text(&r["release"])).collect();
    whose.sort();
    whose.dedup();
    match (found.first(), whose.len()) {
        (Some(one), 1) => Ok(one.clone()),
        (None, _) => {
            let what = format!("no release `{}` is known here", args.release);
            Err(told(&what, "`stork release PACKAGE` lists them", 5))
        }
        _ => {
            let names: Vec<String> = found.iter().map(|r| text(&r["publisher"])).collect();
            let what = format!("`{}` is of several: {}", args.release, names.join(", "));
            Err(told(&what, "say whose: --publisher NAME", 2))
        }
    }
}

async fn create(client: &Client, args: &CreateArgs, json: bool) -> Result<(), Fault> {
    let release = meant(&client.get("/v1/releases").await?, args)?;
    let kept = client.get("/v1/permits").await?;
    let malformed = || Fault::Client(ClientError::Malformed("a release without ids".into()));
    let passphrase = args.passphrase_file.clone().map_or(Passphrase::Ask, Passphrase::File);
    let signer = Signer::open(&args.key, &passphrase)
        .map_err(|e| Fault::Told(failure(&e.to_string(), &causes(&e), &e.help(), e.exit())))?;
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let permit = DowngradePermit {
        version: BODY_VERSION,
        vm: args.vm.parse().map_err(|e| told(&format!("{e}"), "`stork vm` lists the VMs", 2))?,
        package: text(&release["package"]).parse().map_err(|_e| malformed())?,
        publisher: text(&release["publisher_id"]).parse().map_err(|_e| malformed())?,
        release: release["release"].as_u64().ok_or_else(malformed)?,
        issued,
        until: issued + args.hours * 3_600,
    };
    let fleet = text(&kept["fleet"]).parse().map_err(|_e| malformed())?;
    let signed = signer
        .sign(&permit, fleet)
        .map_err(|e| Fault::Told(failure(&e.to_string(), &causes(&e), &e.help(), e.exit())))?;
    let permit = PermitText(signed).to_string();
    if args.print {
        let shown = json!({ "schema": "stork.permit/v1", "text": permit }).to_string();
        result(if json { &shown } else { &permit });
        return Ok(());
    }
    hand_in(client, &permit, json).await
}

async fn add(client: &Client, file: &PathBuf, json: bool) -> Result<(), Fault> {
    let read = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|e| {
        let (what, code) =
            (format!("cannot read `{}`: {e}", file.display()), stork_publisher::out::file_exit(&e));
        told(&what, "give the file that holds the permit", code)
    })?;
    hand_in(client, text.trim(), json).await
}

async fn hand_in(client: &Client, permit: &str, json: bool) -> Result<(), Fault> {
    let answer = client.post("/v1/permits", &json!({ "permit": permit })).await?;
    let p = &answer["permit"];
    let shown = format!(
        "{} may go back to release {} of {} by {} until {}\n\
         pin it in the VM's file, and see: stork why {} {}",
        text(&p["vm"]),
        text(&p["release"]),
        text(&p["package"]),
        text(&p["publisher"]),
        p["until"].as_u64().map_or_else(String::new, day),
        text(&p["vm"]),
        text(&p["package"]),
    );
    result(&if json { answer.to_string() } else { shown });
    Ok(())
}

async fn permits(client: &Client, json: bool) -> Result<(), Fault> {
    let all = with_fingerprints(client.get("/v1/permits").await?);
    if json {
        result(&all.to_string());
        return Ok(());
    }
    let head = ["VM", "PACKAGE", "RELEASE", "PUBLISHER", "UNTIL", ""].map(str::to_owned).to_vec();
    let row = |p: &Value| {
        let state = if p["good"] == true { "" } else { "ran out" };
        vec![
            text(&p["vm"]),
            text(&p["package"]),
            text(&p["release"]),
            text(&p["publisher"]),
            p["until"].as_u64().map_or_else(String::new, day),
            state.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> =
        core::iter::once(head).chain(list(&all["permits"]).iter().map(row)).collect();
    let operators: Vec<String> =
        list(&all["operators"]).iter().map(|k| text(&k["fingerprint"])).collect();
    let by = if operators.is_empty() {
        "this host takes permits of nobody: name public keys in node.toml, `operators = [\"FILE\"]`"
            .to_owned()
    } else {
        format!("operators: {}", operators.join(", "))
    };
    let all = if rows.len() > 1 { table(&rows) } else { "no permits".to_owned() };
    result(&format!("{all}\n{by}"));
    Ok(())
}
