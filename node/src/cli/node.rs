//! `stork-node run | check-config | join | init | id`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use stork_wire::charter::JoinToken;
use stork_wire::text::Label;
use tokio::sync::watch;

use super::out::{causes, completion, failure, manual, note, result};
use crate::config::{LogFormat, NodeConfig, VmFolder};
use crate::{identity, join, run, sandbox};

const EXAMPLES: &str = "Examples:
  stork-node init --charter ch/charter.bundle --admission-key ch/keys/admission --name host-1
  stork-node join stork1-…
  stork-node run
  stork-node check-config

Exit codes: 0 ok, 1 failed, 2 usage, 4 refused by trust, 5 not found, 75 try again,
77 no permission, 78 bad config";

/// The stork daemon of a VM host.
#[derive(Debug, Parser)]
#[command(name = "stork-node", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Settings {
    /// The settings file.
    #[arg(long, global = true, env = "STORK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder for everything that must survive.
    #[arg(long, global = true, env = "STORK_STATE_DIR", value_name = "DIR")]
    state: Option<PathBuf>,
    /// The folder with one file per VM.
    #[arg(long, global = true, env = "STORK_VMS_DIR", value_name = "DIR")]
    vms: Option<PathBuf>,
    /// The control socket.
    #[arg(long, global = true, env = "STORK_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where to take QUIC connections.
    #[arg(long, global = true, env = "STORK_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// An address that others should dial; may be given several times.
    #[arg(long, global = true, env = "STORK_ADVERTISE", value_name = "ADDR:PORT")]
    advertise: Vec<SocketAddr>,
    /// Bytes that are always left free on the disk.
    #[arg(long, global = true, env = "STORK_MIN_FREE_BYTES", value_name = "BYTES")]
    min_free_bytes: Option<u64>,
    /// A folder below which views may be; may be given several times.
    #[arg(long, global = true, env = "STORK_VIEWS", value_name = "DIR")]
    views: Vec<PathBuf>,
    /// The folder with the sockets of the helpers that systemd starts.
    #[arg(long, global = true, env = "STORK_HELPERS", value_name = "DIR")]
    helpers: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run,
    /// Check the settings and every VM file, and say what is wrong with which line.
    CheckConfig {
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Join a fleet with a token made by `stork token create`.
    Join {
        /// The token; `-` reads it from standard input.
        token: String,
        /// This host's name, where the token leaves it open.
        #[arg(long)]
        name: Option<Label>,
    },
    /// Give this host another key, with a token: its folder was cloned, or its key is known.
    #[command(after_help = "Example:
  stork-node rekey stork1-…

Stop the daemon first. Content, views and generations stay. Where somebody else may have the old
key, deny it too: `stork-publish deny --host NODEID`, by whoever has the admission key.")]
    Rekey {
        /// The token, from `stork token create`; `-` reads it from standard input.
        token: String,
        /// This host's name, where the token leaves it open.
        #[arg(long)]
        name: Option<Label>,
    },
    /// Let this host admit others and renew their certificates, or end that.
    Admission {
        #[command(subcommand)]
        command: super::admission::AdmissionCommand,
    },
    /// Begin a fleet on its first host, which then admits the others.
    Init {
        /// The charter made by `stork-publish charter init`.
        #[arg(long, value_name = "FILE")]
        charter: PathBuf,
        /// The admission key made by it.
        #[arg(long, value_name = "FILE")]
        admission_key: PathBuf,
        /// A file with the key's passphrase, if it has one.
        #[arg(long, env = "STORK_PASSPHRASE_FILE", value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// This host's name.
        #[arg(long)]
        name: Option<Label>,
        /// This host's site.
        #[arg(long, default_value = "default")]
        site: Label,
    },
    /// Forget the time floor, after a clock that was far ahead; the daemon must be stopped.
    ResetClock,
    /// Print this host's node id; makes its key if there is none.
    Id,
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
    /// Run hooks for the daemon that started this.
    #[command(name = sandbox::hooks::COMMAND, hide = true)]
    HookRunner,
    /// Mount views for the daemon that started this.
    #[command(name = sandbox::mounter::COMMAND, hide = true)]
    ViewHelper(super::view_helper::Given),
}

/// Runs `stork-node` with these arguments.
pub fn node_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            drop(e.print());
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    if let (Command::HookRunner, Some(vms)) = (&cli.command, &cli.settings.vms) {
        return run_hooks(vms.clone());
    }
    if let (Command::ViewHelper(given), Some(state), Some(vms)) =
        (&cli.command, &cli.settings.state, &cli.settings.vms)
    {
        return super::view_helper::run(given, state, vms);
    }
    let config = match settings(&cli.settings) {
        Ok(config) => config,
        Err(e) => return failure(&e.to_string(), &[], &e.help, 78),
    };
    match cli.command {
        Command::Run => run_daemon(config),
        Command::CheckConfig { json } => check_config(&config, json),
        Command::Join { token, name } => join_fleet(&config, &token, name, false),
        Command::Rekey { token, name } => join_fleet(&config, &token, name, true),
        Command::Admission { command } => super::admission::run(&config, command),
        Command::Init { charter, admission_key, passphrase_file, name, site } => {
            let files = (charter, admission_key, passphrase_file);
            super::init::init(&config, &files, name.unwrap_or_else(host_name), site)
        }
        Command::ResetClock => super::freshness::reset_clock(&config),
        Command::Id => match identity_of(&config) {
            Ok(id) => {
                result(&id);
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        Command::Completion { shell } => completion(Cli::command(), shell),
        Command::Man => manual(Cli::command()),
        Command::HookRunner => run_hooks(config.vms),
        Command::ViewHelper(given) => super::view_helper::run(&given, &config.state, &config.vms),
    }
}

fn run_hooks(vms: PathBuf) -> ExitCode {
    match sandbox::hooks::serve(vms, std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failure(&e.to_string(), &[], "only the daemon starts this command", 2),
    }
}

fn settings(given: &Settings) -> Result<NodeConfig, crate::config::ConfigError> {
    let path = given.config.clone().unwrap_or_else(|| "/etc/stork/node.toml".into());
    let mut config = NodeConfig::read(&path, given.config.is_some())?;
    if let Some(state) = &given.state {
        config.state.clone_from(state);
    }
    if let Some(vms) = &given.vms {
        config.vms.clone_from(vms);
    }
    if let Some(socket) = &given.socket {
        config.socket.clone_from(socket);
    }
    if let Some(listen) = given.listen {
        config.listen = listen;
    }
    if !given.advertise.is_empty() {
        config.advertise.clone_from(&given.advertise);
    }
    if let Some(bytes) = given.min_free_bytes {
        config.min_free_bytes = bytes;
    }
    if !given.views.is_empty() {
        config.sandbox.views.clone_from(&given.views);
    }
    if given.helpers.is_some() {
        config.sandbox.helpers.clone_from(&given.helpers);
    }
    Ok(config)
}

/// This machine's host name, as far as it is a good name.
fn host_name() -> Label {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.parse().unwrap_or_else(|_e| "host".parse().expect("`host` is a good name"))
}

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

pub(super) fn start_log(format: LogFormat) {
    let level = std::env::var("STORK_LOG").ok().and_then(|l| l.parse().ok());
    let builder = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn run_daemon(config: NodeConfig) -> ExitCode {
    start_log(config.log);
    let key = match super::freshness::beacon_key(&config) {
        Ok(key) => key,
        Err(code) => return code,
    };
    let config = match super::permit::with_operators(config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    super::doctor::say_at_start(&config);
    if let Err(e) = sandbox::enter(&config) {
        return failure(&e.to_string(), &causes(&e), sandbox::SandboxError::HELP, 1);
    }
    let outcome = runtime().map_err(|e| run::RunError::Other(e.to_string())).and_then(|rt| {
        let outcome = rt.block_on(async {
            let (stop, stopped) = watch::channel(false);
            tokio::spawn(async move {
                wait_for_signal().await;
                // The node has ended by itself otherwise.
                stop.send(true).unwrap_or_default();
            });
            run::run(config, key, stopped).await
        });
        rt.shutdown_timeout(std::time::Duration::from_secs(10));
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn check_config(config: &NodeConfig, json: bool) -> ExitCode {
    if let Err(e) = run::open_origin(config) {
        return failure(&e.to_string(), &causes(&e), &e.help(), e.exit());
    }
    let mut folder = VmFolder::new(config.vms.clone());
    folder.reread();
    let (good, bad) = (folder.vms(), folder.bad());
    if json {
        let faults: Vec<_> = bad
            .iter()
            .map(|b| {
                serde_json::json!({
                    "file": b.path, "message": b.error.message, "help": b.error.help,
                })
            })
            .collect();
        let value = serde_json::json!({
            "schema": "stork.check-config/v1", "vms": good.keys().collect::<Vec<_>>(),
            "faults": faults, "ok": bad.is_empty(),
        });
        result(&value.to_string());
    } else {
        for b in &bad {
            note(&format!("error: {}: {}", b.path.display(), b.error.message));
            note(&format!("help: {}", b.error.help));
        }
        result(&format!("{} VM files are good, {} are not", good.len(), bad.len()));
    }
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(78) }
}

fn identity_of(config: &NodeConfig) -> Result<String, ExitCode> {
    if let Err(e) = std::fs::create_dir_all(&config.state) {
        let what = format!("{}: {e}", config.state.display());
        return Err(failure(&what, &[], "check --state", 77));
    }
    match identity::open_or_create(&config.state) {
        Ok(key) => Ok(identity::node_id(&key).to_string()),
        Err(e) => Err(failure(&e.to_string(), &causes(&e), e.help(), e.exit_code())),
    }
}

fn join_fleet(config: &NodeConfig, token: &str, name: Option<Label>, rekey: bool) -> ExitCode {
    let text = if token == "-" {
        let mut line = String::new();
        if let Err(e) = std::io::stdin().read_line(&mut line) {
            return failure(&e.to_string(), &[], "give the token on standard input", 2);
        }
        line
    } else {
        token.to_owned()
    };
    let (token, envelope) = match JoinToken::from_text(&text) {
        Ok(both) => both,
        Err(e) => {
            return failure(
                &e.to_string(),
                &[],
                "copy the whole line that `stork token create` printed",
                2,
            );
        }
    };
    let store = match run::open_store(config) {
        Ok(store) => store,
        Err(e) => return failure(&e.to_string(), &causes(&e), e.help(), e.exit_code()),
    };
    let name = name.or_else(|| token.name.clone()).unwrap_or_else(host_name);
    let state = &config.state;
    let joined = match runtime() {
        Ok(rt) if rekey => rt.block_on(join::rekey(&store, state, &token, envelope, name)),
        Ok(rt) => rt.block_on(join::join(&store, state, &token, envelope, name)),
        Err(e) => return failure(&e.to_string(), &[], "", 1),
    };
    report(joined)
}

/// Says what came of joining or founding.
pub(super) fn report(joined: Result<join::Joined, join::JoinError>) -> ExitCode {
    match joined {
        Ok(j) => {
            result(&format!(
                "joined the fleet {} as `{}` at site `{}`\nnode {}\nnext: stork-node run",
                j.fleet.short(),
                j.cert.name,
                j.cert.site,
                j.cert.node
            ));
            ExitCode::SUCCESS
        }
        Err(join::JoinError::Already(fleet)) => {
            result(&format!("already so: this host belongs to the fleet {}", fleet.short()));
            ExitCode::SUCCESS
        }
        Err(e) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
    }
}
