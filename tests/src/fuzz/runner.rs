//! Runs one target with mutations, and keeps the inputs that show something new.
//!
//! This is no replacement for coverage of an instrumented build: what is new is decided by the
//! feature that a target returns. It needs no nightly compiler, and finds what it finds again from
//! its seed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Mutator, Target};

/// Inputs that are kept; after that only better chance helps.
const KEPT_MAX: usize = 4_096;

/// What one call may take, of a decoder (T051).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes on the heap at once.
    pub heap: usize,
    /// Time of the processor: other processes share the machine. Where a call took longer it is
    /// repeated, and the shortest of three counts.
    pub time: Duration,
}

/// What this thread has had of the processor.
fn processor() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(at.tv_sec)).saturating_add(Duration::from_nanos(part(at.tv_nsec)))
}

/// An input that broke something.
#[derive(Debug, Clone)]
pub struct Found {
    /// The input.
    pub input: Vec<u8>,
    /// What it broke.
    pub what: String,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Calls.
    pub calls: u64,
    /// Inputs that were kept.
    pub kept: usize,
    /// Features seen.
    pub features: usize,
    /// Most bytes on the heap in one call.
    pub heap: usize,
    /// The longest call.
    pub time: Duration,
}

/// Runs a target.
#[derive(Debug)]
pub struct Runner {
    target: &'static Target,
    limits: Option<Limits>,
    /// Runs something and says how many bytes were on the heap at once meanwhile.
    meter: fn(&mut dyn FnMut()) -> usize,
    kept: Vec<Vec<u8>>,
    features: BTreeSet<String>,
    /// What it came to so far.
    pub report: Report,
}

impl Runner {
    /// For one target. `limits` hold for decoders only.
    #[must_use]
    pub fn new(
        target: &'static Target,
        limits: Limits,
        meter: fn(&mut dyn FnMut()) -> usize,
    ) -> Self {
        Self {
            target,
            limits: target.decoder.then_some(limits),
            meter,
            kept: Vec::new(),
            features: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// Calls the target once. True where the input showed something new.
    pub fn call(&mut self, input: &[u8]) -> Result<bool, Box<Found>> {
        let found = |what: String| Box::new(Found { input: input.to_vec(), what });
        let (feature, heap, mut took) = self.once(input).map_err(found)?;
        self.report.calls += 1;
        self.report.heap = self.report.heap.max(heap);
        if let Some(limits) = self.limits {
            if heap > limits.heap {
                return Err(found(format!("{heap} bytes on the heap, {} allowed", limits.heap)));
            }
            for _ in 0..2 {
                if took > limits.time {
                    took = took.min(self.once(input).map_err(found)?.2);
                }
            }
            if took > limits.time {
                return Err(found(format!("{took:?}, {:?} allowed", limits.time)));
            }
        }
        self.report.time = self.report.time.max(took);
        let new = self.features.insert(feature);
        if new && self.kept.len() < KEPT_MAX {
            self.kept.push(input.to_vec());
        }
        (self.report.kept, self.report.features) = (self.kept.len(), self.features.len());
        Ok(new)
    }

    fn once(&self, input: &[u8]) -> Result<(String, usize, Duration), String> {
        let (run, meter) = (self.target.run, self.meter);
        let mut feature = None;
        let began = processor();
        let heap = meter(&mut || {
            feature = Some(catch_unwind(AssertUnwindSafe(|| run(input))));
        });
        let took = processor().saturating_sub(began);
        match feature {
            Some(Ok(feature)) => Ok((feature, heap, took)),
            Some(Err(panic)) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_else(|| "a panic".into())),
            None => Err("the meter did not run it".into()),
        }
    }

    /// Mutates what is kept until the time is over.
    pub fn run_for(&mut self, time: Duration, seed: u64) -> Result<(), Box<Found>> {
        let (mut rng, end) = (Mutator::new(seed), Instant::now() + time);
        while Instant::now() < end {
            let [one, two] = [rng.below(self.kept.len()), rng.below(self.kept.len())];
            let [one, two] = [one, two].map(|i| self.kept.get(i).cloned().unwrap_or_default());
            let input = rng.mutate(&one, &two);
            self.call(&input)?;
        }
        Ok(())
    }

    /// The inputs that showed something new.
    #[must_use]
    pub fn kept(&self) -> &[Vec<u8>] {
        &self.kept
    }
}
