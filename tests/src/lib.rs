//! What the tests share: fleets of real processes, real packages, and comparisons.
//!
//! Nothing here is shipped. A helper that cannot go on panics, because its caller is a test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "only tests call this, and a test ends with a panic that says why"
)]

pub mod compare;
pub mod crowd;
pub mod debs;
pub mod feed;
pub mod fleet;
pub mod forge;
pub mod fuzz;
pub mod heap;
pub mod hostile;
pub mod lab;
pub mod raw_push;
pub mod s3;
pub mod wait;
