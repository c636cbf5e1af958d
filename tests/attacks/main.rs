//! Wrong input and hostile peers: each is refused with an error and a counter of its own, and
//! changes nothing. Names begin with the number of the row of the acceptance matrix where there is
//! one. A file named after an attack of the lists of TUF and of TR08-02 tells it as a story: what
//! it is, who can, and what must hold.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside of functions marked as tests"
)]

mod arbitrary_package;
mod archives;
mod check;
mod content;
mod delegated_key;
mod depends_on_everything;
mod disk;
mod documents;
mod door;
mod eavesdropping;
mod endless_data;
mod escalation;
mod extraneous_depends;
mod fast_forward;
mod flips;
mod forks;
mod freeze;
mod items;
mod key_compromise;
mod known_answers;
mod limits;
mod lying_mirror;
mod mix_and_match;
mod old_key;
mod operator;
mod packages;
mod provides_everything;
mod pushing;
mod quic;
mod replay;
mod revoked_key;
mod rollback;
mod slow_retrieval;
mod sources;
mod stage;
mod unsatisfiable;
mod versions;
mod wrong_software;
