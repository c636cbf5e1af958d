//! Stories with real processes: publishers push, nodes gossip and fetch, VMs are shown packages.
//!
//! Each test has a fleet of its own in a folder of its own, and leaves nothing behind.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside of functions marked as tests"
)]

mod addresses;
mod bandwidth;
mod bootstrap;
mod builds;
mod charters;
mod crashes;
mod delegates;
mod deltas;
mod denials;
mod disks;
mod everything;
mod freshness;
mod garbage;
mod generations;
mod gone;
mod guests;
mod incident;
mod joining;
mod late;
mod links;
mod many;
mod memory;
mod metrics;
mod mounter;
mod news;
mod origins;
mod policy;
mod publishers;
mod pushes;
mod recalls;
mod rejoining;
mod renewal;
mod retiring;
mod sandbox;
mod sensors;
mod share;
mod sites;
mod smalls;
mod trees;
mod views;
mod ways_out;
