//! `stork-fuzz TARGET`: mutates inputs of one target, keeps those that show something new, and
//! stops at the first that breaks something. Build it with `--profile fuzz`: a release build ends
//! at a panic and cannot say which input it was.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a tool for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use stork_tests::fuzz::{Limits, Runner, TARGETS, corpus, target};
use stork_tests::heap::{Counting, most};
use stork_wire::ids::hex;

#[global_allocator]
static HEAP: Counting = Counting;

/// Fuzzes one target.
#[derive(Debug, Parser)]
struct Args {
    /// Which target; `list` prints all of them.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Inputs to begin with, and where new ones are written.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Decides all mutations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn read_all(dir: &Path) -> Result<Vec<Vec<u8>>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let files = std::fs::read_dir(dir)?.flatten().map(|e| std::fs::read(e.path()));
    Ok(files.collect::<Result<_, _>>()?)
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let Some(target) = target(&args.target) else {
        TARGETS.iter().for_each(|t| println!("{}", t.name));
        return Ok(ExitCode::from(u8::from(args.target != "list")));
    };
    let millis = if cfg!(debug_assertions) { 50 } else { 5 };
    // The parser of an operator's own file keeps an error for each line.
    let heap = if target.name.ends_with("_toml") { 4 } else { 1 } * 1024 * 1024;
    let limits = Limits { heap, time: Duration::from_millis(millis) };
    let mut runner = Runner::new(target, limits, most);
    let mut inputs = corpus(&(target.samples)(), args.seed, 0);
    if let Some(dir) = &args.corpus {
        inputs.extend(read_all(dir)?);
    }
    let mut result = inputs.iter().try_for_each(|i| runner.call(i).map(drop));
    if result.is_ok() {
        result = runner.run_for(Duration::from_secs(args.seconds), args.seed);
    }
    println!("{}: {:?}", target.name, runner.report);
    if let Some(dir) = &args.corpus {
        for input in runner.kept() {
            let name: String = hex(blake3::hash(input).as_bytes()).chars().take(16).collect();
            std::fs::write(dir.join(name), input)?;
        }
    }
    let Err(found) = result else { return Ok(ExitCode::SUCCESS) };
    eprintln!("found: {}\ninput: {}", found.what, hex(&found.input));
    Ok(ExitCode::FAILURE)
}
