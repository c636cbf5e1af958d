//! What tests and benchmarks share.

pub mod lab;
pub mod raw_push;
