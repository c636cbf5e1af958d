//! The fuzz targets over their corpora, and what messages take on the heap. In a binary of its own,
//! since it counts allocations.
//!
//! `STORK_LONG=1` runs each target for three minutes with mutations (T051), `STORK_LONG=n` for n
//! minutes more than two.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "these are tests, and what they share"
)]

mod memory;
mod targets;

use stork_tests::heap::Counting;

#[global_allocator]
static HEAP: Counting = Counting;
