//! The demonstration: a small fleet of real processes on this machine.
//!
//! It needs nothing but this binary, which it starts again as publisher and as nodes: no root, no
//! server, no settings, no network but loopback. Everything lies in one temporary folder, and every
//! figure is measured.

mod answer;
mod error;
mod fleet;
mod insider;
mod package;
mod process;
mod screen;
mod story;
mod summary;
mod views;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::out;
use error::DemoError;
use fleet::{Fleet, Ground};
use package::Package;
use process::Binary;
use screen::Screen;
use story::Story;

pub(crate) use process::end_with_parent;

/// The exit code of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Options of `stork demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Publish this package (.deb or tar) instead of one made from files of this machine.
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// Leave it running at the end.
    #[arg(long)]
    keep: bool,
}

/// Runs the demonstration.
pub fn run(args: DemoArgs, json: bool) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(rt) => rt,
        Err(e) => return out::failure(&e.to_string(), &[], "this host is out of threads", 1),
    };
    let mut screen = Screen::new(json);
    let ground = match Ground::new() {
        Ok(ground) => ground,
        Err(e) => return complain(&e),
    };
    // Dropping the future ends every process that it started; the folder goes after that.
    let code = runtime.block_on(async {
        tokio::select! {
            code = all(&args, ground, &mut screen) => code,
            () = interrupted() => {
                out::note("\ninterrupted: everything was stopped and removed");
                ExitCode::from(INTERRUPTED)
            }
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn interrupted() {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = hup.recv() => {}
    }
}

fn complain(e: &DemoError) -> ExitCode {
    out::failure(&e.to_string(), &out::causes(e), e.help(), e.exit_code())
}

/// From the empty folder to the exit code.
async fn all(args: &DemoArgs, ground: Ground, screen: &mut Screen) -> ExitCode {
    let mut story = match begin(args, &ground, screen).await {
        Ok(story) => story,
        Err(e) => {
            if screen.is_json() {
                out::result(&summary::nothing(&e.to_string()).to_string());
            }
            let code = complain(&e);
            out::note(&format!("logs: {}", ground.keep().display()));
            return code;
        }
    };
    let told = story.tell(screen).await;
    let error = told.as_ref().err().map(ToString::to_string);
    let good = error.is_none() && story.faults.is_empty();
    let value = summary::object(&story, error.as_deref());
    if screen.is_json() {
        out::result(&value.to_string());
    } else if told.is_ok() {
        screen.step("Summary");
        out::result(&summary::text(&story));
    }
    if let Err(e) = &told {
        let _code = complain(e);
    }
    for fault in &story.faults {
        out::note(&format!("error: {fault}"));
    }
    if args.keep {
        for host in &mut story.fleet.hosts {
            if let Some(process) = &mut host.process {
                process.release();
            }
        }
    }
    if args.keep || !good {
        let root = ground.keep();
        if !good {
            out::note(&format!("logs: {}/host-*/node.log", root.display()));
        }
    } else {
        // Nodes first, then their folder.
        drop(story);
        drop(ground);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the package and starts the fleet.
async fn begin(args: &DemoArgs, ground: &Ground, screen: &mut Screen) -> Result<Story, DemoError> {
    let root = ground.root.path();
    let binary = Binary::this(&root.join("temp"), args.keep)?;
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("stork {version} demo · everything is in {}", root.display());
    screen.event("begin", &text, &json!({ "version": version, "folder": root }));
    let package = match &args.package {
        Some(file) => {
            let shown = file.display().to_string();
            let said = binary.run_json("__publish", &["inspect", &shown, "--json"]).await?;
            Package::given(file, name_version_arch(&said), root)
        }
        None => Package::of_this_machine(root)?,
    };
    let fleet = Fleet::start(ground, binary, &package).await?;
    let hosts = fleet.hosts.len();
    let vms: usize = fleet.hosts.iter().map(|h| h.vms.len()).sum();
    let text = format!("{hosts} hosts with {vms} VMs run on loopback, joined by tokens");
    let ids: Vec<Value> = fleet
        .hosts
        .iter()
        .map(|h| json!({ "host": h.name, "node": h.node, "listen": h.addr, "socket": h.socket }))
        .collect();
    screen.event("fleet", &text, &json!({ "hosts": ids, "vms": vms }));
    Ok(Story::new(root, fleet, package))
}

fn name_version_arch(said: &Value) -> Option<(String, String, String)> {
    let text = |key: &str| answer::field(said, key).as_str().map(str::to_owned);
    Some((text("package")?, text("version")?, text("arch")?))
}
