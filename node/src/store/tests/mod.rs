//! What the store promises, shown with small trees on a real disk.

mod fetching;
mod racing;
mod recovery;
pub(crate) mod support;
mod sweeping;
pub(crate) mod trees;
