//! The planner of content transfer: which piece from whom, and who is served next.
//!
//! A pure machine (protocol.md §3e, "granted pull mesh"). Inside a site every host that has a
//! piece grants a slot to the neighbour that has the least; the neighbour then picks the piece.
//! So each piece spreads along a tree of its own, and the death of a host stops nothing. The
//! shell does what the actions say: it sends frames, dials, and streams pieces on the bulk
//! connection. A piece counts as *had* only after the shell has verified and stored it.
//!
//! Reading order: `message` (what goes in and out), `planner` (the dispatch), `swarm` and
//! `neighbour` (the state), `announce` (when others hear of it), `receive` and `room` (what I ask
//! for), `upload`, `window`, `inject` and `fresh` (whom I serve, and how much at once), `sites`,
//! `subscribe`, `standby`, `lag`, `pace` and `children` (what goes from site to site), `ladder`
//! (whom I open to, and hunger), `store` (the origin store, where hunger ends), `manifests` and
//! `ask` (the phase before the pieces), `small` (the packs with the manifest), `ledger`, `tree` and
//! `view` (what people and metrics are told).
//! How much of all that may go: `windows` (what holds when), `bandwidth` (what is left of it) and
//! `credit` (how much is subscribed to).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod announce;
mod ask;
mod bandwidth;
#[cfg(test)]
mod bandwidth_tests;
mod children;
mod credit;
mod faults;
mod frames;
mod fresh;
mod inject;
mod ladder;
mod lag;
mod ledger;
mod manifests;
mod message;
mod neighbour;
mod pace;
mod pieces;
mod planner;
mod receive;
mod rng;
mod room;
mod roster;
mod sites;
mod small;
mod standby;
mod stats;
mod store;
mod subscribe;
mod swarm;
mod tree;
mod upload;
mod view;
mod window;
mod windows;

#[cfg(test)]
mod sim_tests;

pub use bandwidth::{Limit, Limits, Way};
pub use ledger::Flow;
pub use message::{Action, Config, Event, Fault, Input, Join, Role, Topic, Why};
pub use pieces::PieceSet;
pub use planner::Planner;
pub use sites::{Members, SiteHosts};
pub use small::Small;
pub use stats::Counters;
pub use store::ORIGIN_STORE;
pub use tree::{Behind, PeerView, StripeView};
pub use view::SwarmView;
pub use windows::{Rate, Rates, Schedule, Window};
