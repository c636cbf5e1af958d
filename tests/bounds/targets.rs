//! Every target over its corpus in the gate, and for long where `STORK_LONG` is set.

use std::path::Path;
use std::time::{Duration, Instant};

use stork_tests::fuzz::{Limits, Runner, TARGETS, Target, corpus};
use stork_tests::heap;

/// T051 and attack A25: what one message of a stranger may take. The bound on time is ten times the
/// row's in a build without optimisation.
const LIMITS: Limits = Limits {
    heap: 1024 * 1024,
    time: Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 5 }),
};
const SEED: u64 = 51;

fn run(target: &'static Target) {
    let began = Instant::now();
    let samples = (target.samples)();
    let more = if target.decoder { 400 } else { 40 };
    // The parser of an operator's own file keeps an error for each line.
    let times = if target.name.ends_with("_toml") { 4 } else { 1 };
    let limits = Limits { heap: times * LIMITS.heap, ..LIMITS };
    let mut runner = Runner::new(target, limits, heap::most);
    let inputs = if target.decoder { corpus(&samples, SEED, more) } else { few(&samples, more) };
    let mut result = inputs.iter().try_for_each(|i| runner.call(i).map(drop));
    if result.is_ok() && std::env::var_os("STORK_LONG").is_some() {
        result = runner.run_for(Duration::from_secs(180), SEED);
    }
    if let Err(found) = result {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target.name);
        std::fs::write(&path, &found.input).unwrap();
        panic!("{}: {}\ninput: {}", target.name, found.what, path.display());
    }
    println!("{}: {:?} in {:?}", target.name, runner.report, began.elapsed());
}

/// Inputs of a machine are long, and each takes many steps: a few mutations of each.
fn few(samples: &[Vec<u8>], more: usize) -> Vec<Vec<u8>> {
    let mut all = samples.to_vec();
    let mut rng = stork_tests::fuzz::Mutator::new(SEED);
    for _ in 0..more {
        let [one, two] = [rng.below(samples.len()), rng.below(samples.len())];
        all.push(rng.mutate(&samples[one], &samples[two]));
    }
    all
}

/// Every decoder: what it accepts is canonical, and what it costs is bounded.
#[test]
fn t051_decoders() {
    TARGETS.iter().filter(|t| t.decoder).for_each(run);
}

/// The overlay's machine under any sequence of inputs.
#[test]
fn t051_overlay() {
    TARGETS.iter().filter(|t| t.name == "overlay").for_each(run);
}

/// The rules of trust under any sequence of items.
#[test]
fn t051_trust() {
    TARGETS.iter().filter(|t| t.name == "trust").for_each(run);
}

/// The planner of transfers under any sequence of inputs.
#[test]
fn t051_planner() {
    TARGETS.iter().filter(|t| t.name == "planner").for_each(run);
}
