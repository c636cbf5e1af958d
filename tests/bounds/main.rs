//! The fuzz targets over their corpora, and what messages take on the heap. In a binary of its own,
//! since it counts allocations.
//!
//! `STORK_LONG=1` runs each target for three minutes with mutations (T051), `STORK_LONG=n` for n
//! minutes more than two.

mod memory;
mod targets;

use stork_tests::heap::Counting;

#[global_allocator]
static HEAP: Counting = Counting;
