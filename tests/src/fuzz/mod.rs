//! Fuzz targets: plain functions that take any bytes and panic where something must hold and does
//! not. The gate runs each over a small corpus (`tests/bounds`), and `stork-fuzz` runs them for
//! long, with mutations that are kept where they show something new.
//!
//! Every target returns a *feature*: a small text that stands for what the input did, such as the
//! error and how far it came. It is what the runner keeps inputs by, in place of the coverage that
//! an instrumented build would give.

mod bytes;
mod decoders;
mod handed;
mod mutate;
mod overlay;
mod planner;
mod rpm;
mod runner;
mod sample_files;
mod sample_frames;
mod sample_narrow;
mod samples;
mod sealed;
mod texts;
mod trust;

pub use mutate::{Mutator, corpus};
pub use runner::{Found, Limits, Report, Runner};
pub use samples::Fleet;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Takes any bytes; says what they did.
    pub run: fn(&[u8]) -> String,
    /// Valid inputs, from which mutations begin.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Is this a decoder of bytes from strangers, with their bounds on time and memory (T051)?
    pub decoder: bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    decoder("frame", decoders::frame, samples::frames),
    decoder("bulk", decoders::bulk, samples::bulks),
    decoder("push_request", decoders::push_request, samples::push_requests),
    decoder("push_reply", decoders::push_reply, samples::push_replies),
    decoder("envelope", decoders::envelope, samples::envelopes),
    decoder("item", decoders::item, samples::items),
    decoder("body", decoders::body, samples::bodies),
    decoder("manifest", decoders::manifest, samples::manifests),
    decoder("token", texts::token, samples::tokens),
    decoder("node_toml", texts::node_toml, samples::node_tomls),
    decoder("vm_toml", texts::vm_toml, samples::vm_tomls),
    decoder("control_request", texts::control_request, texts::control_requests),
    decoder("rpm_header", rpm::rpm_header, rpm::samples),
    decoder("sealed", sealed::sealed, sealed::sealed_samples),
    decoder("group_key", sealed::group_key_file, sealed::group_key_files),
    decoder("charter_file", handed::charter_file, handed::charter_files),
    decoder("publisher_toml", handed::publisher_toml, handed::publisher_tomls),
    decoder("view_order", handed::view_order, handed::view_orders),
    machine("overlay", overlay::overlay, overlay::samples),
    machine("trust", trust::trust, trust::samples),
    machine("planner", planner::planner, planner::samples),
];

const fn decoder(
    name: &'static str,
    run: fn(&[u8]) -> String,
    samples: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, run, samples, decoder: true }
}

const fn machine(
    name: &'static str,
    run: fn(&[u8]) -> String,
    samples: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, run, samples, decoder: false }
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

/// What a mutated input may show beside its own feature: how long it is, by powers of two.
fn feature(what: &str, len: usize) -> String {
    format!("{what}/{}", len.checked_ilog2().map_or(0, |n| n + 1))
}

/// The kind of an error: its text without numbers and quoted parts, which differ every time.
fn kind_of(error: &impl core::fmt::Display) -> String {
    let mut quoted = false;
    let mut out = String::new();
    for c in error.to_string().chars() {
        quoted ^= c == '`';
        if !quoted && !c.is_ascii_digit() && out.len() < 120 {
            out.push(c);
        }
    }
    out
}
