//! `stork-sim`: thousands of real overlay machines and planners in one process, in simulated time.
//!
//! A run is a function of its arguments: the same seed gives the same events in the same order, of
//! which `trace` is a hash (invariant I19). Latencies, faults and hostile nodes are simulated;
//! members, trees, sync and the rules of items are the ones that ship.

mod content;
mod driver;
mod faults;
mod feeds;
mod forks;
mod frame_size;
mod history;
mod hostile;
mod invariants;
mod isolation;
mod meter;
mod narrow;
mod network;
mod news;
mod own;
mod puppet;
mod queue;
mod records;
mod report;
mod revoke;
mod rng;
mod rotate;
mod soak;
mod sync_cost;
#[cfg(test)]
mod tests;
mod timeline;
mod world;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Simulates fleets of stork nodes.
#[derive(Debug, Parser)]
#[command(name = "stork-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How announcements reach a fleet, with or without faults.
    News(news::News),
    /// How fast a recall is beside the announcements of the same moment.
    Revoke(revoke::Revoke),
    /// A stolen or rotated key, in a fleet whose hosts judge for themselves.
    Rotate(rotate::Rotate),
    /// How a content spreads, with or without faults.
    Content(content::Content),
    /// Random mixes of all faults: each seed is a history of its own.
    Soak(soak::Soak),
    /// Bytes that two nodes need to find in which feeds they differ.
    Sync(sync_cost::Sync),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::News(n) => news::run(&n).map(|(value, violations)| {
            print(&value, n.json);
            violations
        }),
        Command::Revoke(r) => revoke::run(&r).map(|(value, bad)| {
            print(&value, r.json);
            bad
        }),
        Command::Rotate(r) => rotate::run(&r).map(|(value, bad)| {
            print(&value, r.json);
            bad
        }),
        Command::Content(c) => {
            let more = |n: u64| content::Content { seed: c.seed.wrapping_add(n), ..c.clone() };
            (0..c.seeds.max(1)).try_fold(0, |bad, n| {
                let (value, more_bad) = content::run(&more(n))?;
                print(&value, c.json);
                Ok(bad + more_bad)
            })
        }
        Command::Soak(s) => soak::run(&s, &mut |line| {
            drop(writeln!(std::io::stdout(), "{line}"));
        }),
        Command::Sync(s) => sync_cost::run(&s).map(|value| {
            print(&value, s.json);
            0
        }),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            drop(writeln!(std::io::stderr(), "error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One object on one line, or a line for each figure.
fn print(value: &Value, json: bool) {
    let mut out = std::io::stdout().lock();
    match value.as_object().filter(|_| !json) {
        Some(map) => {
            for (name, value) in map {
                drop(writeln!(out, "{name:28} {value}"));
            }
        }
        None => drop(writeln!(out, "{value}")),
    }
}
