//! Simulations: many overlays in one process, with a simulated network and drivers.
//!
//! Each test is one story about a fleet; what must hold at every moment stands in [`check`], apart
//! from the stories. Every world is made from a seed, which a failing assertion prints.

mod broadcast;
mod cells;
mod check;
mod closed;
mod faults;
mod first;
mod floods;
mod forks;
mod hostile;
mod hostile_sync;
mod made;
mod members;
mod pair;
mod queue;
mod records;
mod sync;
mod sync_faults;
mod ways;
mod world;
