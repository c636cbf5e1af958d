//! From arguments to an exit code: parse, run one command, show what went wrong.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::{Cli, Command, KeyCommand, charter_run, commands, delegate, narrow};
use crate::charter::CharterError;
use crate::inspect::InspectError;
use crate::keys::KeyError;
use crate::out;
use crate::pack::PackError;
use crate::push::PushError;
use crate::source::SourceError;

/// What went wrong, what to do, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    error: Box<dyn Error + Send + Sync>,
    help: String,
    exit: u8,
}

impl Failure {
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>, help: &str) -> Self {
        Self { error: error.into(), help: help.to_owned(), exit: 1 }
    }
}

macro_rules! failure_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                let (help, exit) = (e.help().to_string(), e.exit());
                Self { error: e.into(), help, exit }
            }
        }
    )*};
}

failure_from!(KeyError, CharterError, SourceError, PackError, PushError, InspectError);

/// Runs `stork-publish` with these arguments, the first of which is the program's name.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to stdout and are no failure.
            drop(e.print());
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            if code != 0 {
                out::chat("help: `stork-publish --help` has examples; each command has its own");
            }
            return ExitCode::from(code);
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::error(&*failure.error, &failure.help);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Key(KeyCommand::Generate { out, comment, passphrase, json }) => {
            commands::key_generate(&out, &comment, &passphrase, json)
        }
        Command::Key(KeyCommand::Show { file, json }) => commands::key_show(&file, json),
        Command::Key(KeyCommand::Delegate(args)) => delegate::run(args),
        Command::Key(KeyCommand::Suicide(args)) => narrow::suicide(args),
        Command::Charter(command) => charter_run::run(command),
        Command::Pack(args) => commands::pack(&args),
        Command::Inspect(args) => commands::inspect(&args),
        Command::Verify(args) => commands::verify(&args),
        Command::Push(args) => commands::push(args),
        Command::Recall(args) => super::recall::run(args),
        Command::Retire(args) => super::retire::run(args),
        Command::Carry(args) => super::compact::carry(args),
        Command::Halt(args) => narrow::halt(args, true),
        Command::Resume(args) => narrow::halt(args, false),
        Command::Deny(args) => narrow::deny(args),
        Command::Lift(args) => narrow::lift(args),
        Command::Completion { shell } => {
            out::completion(Cli::command(), shell);
            Ok(())
        }
        Command::Man { out: Some(dir) } => std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .map_err(|e| {
                let exit = out::file_exit(&e);
                let help = "choose a directory that you may write to, by --out";
                Failure { exit, ..Failure::new(e, help) }
            }),
        Command::Man { out: None } => {
            out::manual(Cli::command()).map_err(|e| Failure::new(e, "report this as a bug"))
        }
    }
}
