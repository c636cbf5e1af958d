//! Packages of a view as apt and dnf take them: archives written again, signatures, repositories.
//!
//! What is made is judged by the real programs; one that is not here is said and skipped.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests, outside of functions marked as tests"
)]

mod attached;
mod dnf;
mod hardware;
mod hooks;
mod nspawn;
mod rebuilt;
mod repository;
mod signed;
mod sysext;

use std::process::{Command, Output};

/// What a guest's root tries with its view.
const CHANGES: &str = include_str!("changes.sh");

/// Runs a program; its output where it ended well, `None` with a printed reason where it is not
/// here.
fn run(command: &mut Command) -> Option<Output> {
    let out = match command.output() {
        Ok(out) => out,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no {}", command.get_program().to_string_lossy());
            return None;
        }
        Err(e) => panic!("{command:?}: {e}"),
    };
    let said = [&out.stdout[..], &out.stderr[..]].concat();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    Some(out)
}
