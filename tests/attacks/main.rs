//! Wrong input and hostile peers: each is refused with an error and a counter of its own, and
//! changes nothing. Names begin with the number of the row of the acceptance matrix where there is
//! one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside of functions marked as tests"
)]

mod archives;
mod beacons;
mod check;
mod content;
mod delegated_key;
mod disk;
mod documents;
mod door;
mod flips;
mod forks;
mod items;
mod limits;
mod operator;
mod packages;
mod pushing;
mod quic;
mod revoked_key;
mod sources;
mod versions;
