//! What the store promises, shown with small trees on a real disk.

mod fetching;
mod power;
mod racing;
mod recovery;
mod scrubbing;
pub(crate) mod support;
mod sweeping;
pub(crate) mod trees;
