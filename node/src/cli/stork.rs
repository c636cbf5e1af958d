//! The command `stork`: what operators ask and order, by subcommand.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};
use stork_wire::text::{GroupName, Label};

use super::attach::VmCommand;
use super::doctor::Places;
use super::group_key::{self, GroupKeyCommand};
use super::host::HostCommand;
use super::node::runtime;
use super::out::{causes, completion, failure, manual, result};
use super::permit::{self, PermitCommand, with_fingerprints};
use super::show;
use super::watch::{Picture, watch};
use crate::control::{Client, ClientError, path_segment};

const EXAMPLES: &str = "Examples:
  stork demo                     see all of it work on this machine, without root or configuration
  stork status                   this host at a glance
  stork doctor                   what this host can do for its VMs, and what is missing
  stork vm web-1                 what one VM shows, and its generations
  stork vm attach web-1 --format nspawn    what gives a guest its view
  stork why web-1 nginx-common   why it shows that version, or none
  stork trust web-1              who may put what into that VM, by which rule and document
  stork tree nginx-common        who feeds this host with it, and whom it feeds
  stork release nginx-common --watch
  stork rollback web-1           show the generation before
  stork token create --name host-2

Exit codes: 0 ok, 1 failed, 2 usage, 3 partly, 5 not found, 6 timed out, 7 refused by policy,
75 try again (no daemon), 77 no permission, 78 wrong settings, 130 interrupted";

/// See and steer the stork daemon of this host.
#[derive(Debug, Parser)]
#[command(name = "stork", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Common {
    /// The daemon's control socket.
    #[arg(long, global = true, env = "STORK_SOCKET", default_value = "/run/stork/api.sock")]
    socket: PathBuf,
    /// Print one JSON object with a versioned schema.
    #[arg(long, global = true)]
    json: bool,
    /// Seconds to wait for the daemon; for `store verify`: for its next sign of life.
    #[arg(long, global = true, env = "STORK_TIMEOUT", default_value_t = 60)]
    timeout: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// This host at a glance.
    Status,
    /// What this host can do for its VMs, with evidence and the next best; needs no daemon.
    #[command(after_help = "Exit codes: 0 every VM gets what its file asks for, 1 something is \
        missing, 78 bad config")]
    Doctor(Places),
    /// The VMs of this host, or one of them with its generations.
    #[command(args_conflicts_with_subcommands = true)]
    Vm {
        /// Its name.
        name: Option<String>,
        #[command(subcommand)]
        command: Option<VmCommand>,
    },
    /// The releases that are known here, or those of one package with where their bytes came from.
    Release {
        /// A package, or one release of it as PACKAGE=VERSION.
        release: Option<String>,
        /// Follow the newest one until it is whole and shown here.
        #[arg(long, requires = "release")]
        watch: bool,
    },
    /// Who feeds this host with a release, and whom it feeds: bytes, rates, stragglers.
    Tree {
        /// A package (its newest release), PACKAGE=VERSION, or eight or more digits of the hash of
        /// a manifest or tree.
        #[arg(value_name = "RELEASE|CONTENT")]
        what: String,
        /// Draw it again until the release is whole and shown here.
        #[arg(long)]
        watch: bool,
    },
    /// The hosts that this one is connected with.
    Peers,
    /// Why a VM shows a version of a package, or none.
    Why {
        /// The VM.
        vm: String,
        /// The package.
        package: String,
    },
    /// The charter in force; or who may put what into a VM, or who may release a package.
    Trust {
        /// A VM of this host, or else a package; without it the charter: documents, keys, grants.
        #[arg(value_name = "VM|PACKAGE")]
        about: Option<String>,
        /// It is a package, also where a VM has the same name.
        #[arg(long, requires = "about")]
        package: bool,
    },
    /// Let a VM go back to an older release, for some time.
    Permit {
        #[command(subcommand)]
        command: PermitCommand,
    },
    /// Show a VM an earlier generation; what it replaces is skipped until something newer comes.
    Rollback {
        /// The VM.
        vm: String,
        /// The generation to show; the one before by default.
        #[arg(long, value_name = "NUMBER")]
        to: Option<u64>,
        /// Forget what was rolled back, so that the VM goes forward again.
        #[arg(long, conflicts_with = "to")]
        undo: bool,
    },
    /// The store of this host.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Tokens for hosts that want to join.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// The hosts of the fleet, and what they may take part in.
    #[command(subcommand)]
    Host(HostCommand),
    /// Keys of private groups.
    GroupKey {
        #[command(subcommand)]
        command: GroupKeyCommand,
    },
    /// What happened lately.
    Events {
        /// Only events after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Read changed VM files at once.
    Reload,
    /// One publisher, five hosts and ten VMs on this machine, for a few seconds.
    Demo(crate::demo::DemoArgs),
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Objects, packs and free space.
    Stat,
    /// Hash everything again; what is damaged is taken out and fetched again. On a terminal a bar
    /// shows how far it is.
    Verify,
    /// Remove what no VM and no seed budget needs.
    Gc {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token with which one host can join, once.
    Create {
        /// The name that the host gets; without it the host may choose.
        #[arg(long)]
        name: Option<Label>,
        /// The site that the host gets.
        #[arg(long, default_value = "default")]
        site: Label,
        /// Seconds that the token is good for.
        #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
        ttl: u64,
        /// A private group that the host may take part in, and no other; several times for several.
        /// Without it the host may take part in all
        #[arg(long, value_name = "GROUP")]
        group: Vec<GroupName>,
        /// The host may take part in no private group.
        #[arg(long, conflicts_with = "group")]
        no_group: bool,
        /// A label for the host's certificate; several times for several.
        #[arg(long, value_name = "LABEL")]
        label: Vec<Label>,
    },
}

/// Runs `stork` with these arguments.
pub fn stork_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // The demo starts this same binary again as daemon and as publisher.
    match args.get(1).and_then(|a| a.to_str()) {
        Some("__node") => {
            return crate::demo::end_with_parent()
                .unwrap_or_else(|| super::node_main(skip_second(&args)));
        }
        Some("__publish") => return stork_publisher::run_cli(skip_second(&args)),
        _ => {}
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            drop(e.print());
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    match cli.command {
        Command::Completion { shell } => completion(Cli::command(), shell),
        Command::Man => manual(Cli::command()),
        Command::Demo(args) => crate::demo::run(args, cli.common.json),
        Command::Vm { command: Some(VmCommand::Attach(args)), .. } => {
            super::attach::run(&args, cli.common.json)
        }
        Command::Doctor(places) => super::doctor::run(&places, cli.common.json),
        command => match runtime() {
            Ok(rt) => rt.block_on(ask(&cli.common, command)),
            Err(e) => failure(&e.to_string(), &[], "", 1),
        },
    }
}

fn skip_second(args: &[OsString]) -> Vec<OsString> {
    let rest = args.iter().enumerate().filter(|(i, _)| *i != 1);
    rest.map(|(_, a)| a.clone()).collect()
}

async fn ask(common: &Common, command: Command) -> ExitCode {
    let client = Client::new(&common.socket, Duration::from_secs(common.timeout.max(1)));
    match &command {
        Command::Release { release: Some(what), watch: true } => {
            return watch(&client, what, Picture::Bar, common.json).await;
        }
        Command::Tree { what, watch: true } => {
            return watch(&client, what, Picture::Tree, common.json).await;
        }
        Command::Vm { command: Some(VmCommand::Share(args)), .. } => {
            return super::share::run(&client, args, common.json).await;
        }
        _ => {}
    }
    let command = match command {
        Command::Permit { command } => return permit::run(&client, command, common.json).await,
        Command::GroupKey { command } => {
            return group_key::run(&client, command, common.json).await;
        }
        command => command,
    };
    match answer(&client, command, common.json).await {
        Ok((value, text, code)) => {
            let shown = if common.json { value.to_string() } else { text };
            result(&shown);
            ExitCode::from(code)
        }
        Err(e) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
    }
}

type Answered = Result<(Value, String, u8), ClientError>;

async fn answer(client: &Client, command: Command, json: bool) -> Answered {
    let (value, text) = match command {
        Command::Status => show_with(client.get("/v1/status").await?, show::status),
        Command::Vm { command: Some(VmCommand::Ask(order)), .. } => {
            super::vm::answer(client, &order).await?
        }
        Command::Vm { name, .. } => {
            let all = client.get("/v1/vms").await?;
            match name {
                None => show_with(all, show::vms),
                Some(name) => show_with(pick(&all, "vms", "name", &name)?, show::vm),
            }
        }
        Command::Release { release, .. } => {
            let all = client.get("/v1/releases").await?;
            match release {
                None => show_with(all, show::releases),
                Some(release) => show_with(only(all, &release)?, show::release),
            }
        }
        Command::Tree { what, .. } => {
            let path = format!("/v1/tree/{}", path_segment(&what));
            show_with(client.get(&path).await?, super::tree::tree)
        }
        Command::Peers => show_with(client.get("/v1/peers").await?, show::peers),
        Command::Why { vm, package } => {
            let path = format!("/v1/why/{vm}/{package}");
            show_with(with_fingerprints(client.get(&path).await?), super::why::why)
        }
        Command::Trust { about, package } => {
            // In a query a plus sign is a blank.
            let word = |a: String| path_segment(&a).replace('+', "%2B").replace('=', "%3D");
            let about = about.map(|a| format!("?about={}&package={package}", word(a)));
            let path = format!("/v1/trust{}", about.unwrap_or_default());
            show_with(with_fingerprints(client.get(&path).await?), super::trust::trust)
        }
        Command::Rollback { vm, to, undo } => {
            let body = json!({ "to": to, "undo": undo });
            let path = format!("/v1/vms/{vm}/rollback");
            show_with(client.post(&path, &body).await?, show::rollback)
        }
        Command::Host(command) => super::host::answer(client, command).await?,
        Command::Store { command } => return store(client, command, json).await,
        Command::Token {
            command: TokenCommand::Create { name, site, ttl, group, no_group, label },
        } => {
            let groups = (no_group || !group.is_empty()).then_some(group);
            let body = json!({
                "name": name, "site": site, "ttl_s": ttl, "groups": groups, "labels": label,
            });
            show_with(client.post("/v1/tokens", &body).await?, show::token)
        }
        Command::Events { after } => {
            show_with(client.get(&format!("/v1/events?after={after}")).await?, show::events)
        }
        Command::Reload => show_with(client.post("/v1/reload", &json!({})).await?, show::reload),
        Command::Permit { .. }
        | Command::GroupKey { .. }
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::Completion { .. }
        | Command::Man => (Value::Null, String::new()),
    };
    Ok((value, text, 0))
}

async fn store(client: &Client, command: StoreCommand, json: bool) -> Answered {
    match command {
        StoreCommand::Stat => {
            let (value, text) = show_with(client.get("/v1/store").await?, show::store_stat);
            Ok((value, text, 0))
        }
        StoreCommand::Verify => {
            let value = super::verify::verify(client, json).await?;
            let damaged = value["damaged"].as_array().is_some_and(|d| !d.is_empty());
            let (value, text) = show_with(value, show::store_verify);
            Ok((value, text, if damaged { 3 } else { 0 }))
        }
        StoreCommand::Gc { dry_run } => {
            let value = client.post("/v1/store/gc", &json!({ "dry_run": dry_run })).await?;
            let (value, text) = show_with(value, show::store_gc);
            Ok((value, text, 0))
        }
    }
}

fn show_with(value: Value, show: fn(&Value) -> String) -> (Value, String) {
    let text = show(&value);
    (value, text)
}

fn not_found(what: String, help: &str) -> ClientError {
    ClientError::Refused { status: 404, message: what, help: help.to_owned() }
}

fn pick(all: &Value, list: &str, key: &str, name: &str) -> Result<Value, ClientError> {
    let items = all[list].as_array().cloned().unwrap_or_default();
    let found = items.into_iter().find(|v| v[key].as_str() == Some(name));
    found.ok_or_else(|| {
        not_found(format!("there is no VM `{name}` on this host"), "`stork vm` lists them")
    })
}

fn only(mut all: Value, release: &str) -> Result<Value, ClientError> {
    let (package, version) = release.split_once('=').map_or((release, None), |(p, v)| (p, Some(v)));
    if let Some(list) = all.get_mut("releases").and_then(Value::as_array_mut) {
        list.retain(|r| {
            r["package"].as_str() == Some(package)
                && version.is_none_or(|v| r["version"].as_str() == Some(v))
        });
        if list.is_empty() {
            let what = format!("no release `{release}` is known here");
            return Err(not_found(what, "`stork release` lists them"));
        }
    }
    Ok(all)
}
