//! Points at which a test may kill this process, as a power cut would.
//!
//! `STORK_FAILPOINT=name` kills the process with SIGKILL at the first time that the named point is
//! reached, `name:3` at the third. Tests restart it afterwards and look at what was left on disk
//! (acceptance T092). Without the variable a point costs one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every point, in the order in which `docs/PROTOCOL.md` and the tests number them.
pub const ALL: &[&str] = &[
    "store.piece.written",
    "store.piece.mapped",
    "store.pack.renamed",
    "store.unpack.object",
    "store.unpack.before_rows",
    "store.unpack.done",
    "store.journal.before_commit",
    "store.journal.after_commit",
    "store.set.half_linked",
    "store.set.renamed",
    "store.gc.marked",
    "store.gc.half_swept",
    "view.generation.recorded",
    "view.private.made",
    "view.switch.mounted",
    "view.switch.before_umount",
    "view.switched",
];

/// The variable that arms a point.
pub const VARIABLE: &str = "STORK_FAILPOINT";

struct Armed {
    name: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Reads `name` or `name:N`; `None` where the name is not in the list or N is no number above 0.
fn parse(text: &str) -> Option<Armed> {
    let (name, hits) = match text.split_once(':') {
        Some((name, hits)) => (name, hits.parse().ok().filter(|n| *n > 0)?),
        None => (text, 1),
    };
    ALL.contains(&name).then(|| Armed { name: name.to_owned(), left: AtomicU64::new(hits) })
}

fn armed() -> Option<Armed> {
    let text = std::env::var(VARIABLE).ok()?;
    let armed = parse(&text);
    if armed.is_none() {
        tracing::warn!(text, "{VARIABLE} names no failpoint and is ignored");
    }
    armed
}

/// Is any point armed in this process?
#[must_use]
pub fn is_armed() -> bool {
    ARMED.get_or_init(armed).is_some()
}

/// Kills this process if the point of this name is armed and this is the hit that counts.
pub fn hit(name: &'static str) {
    debug_assert!(ALL.contains(&name), "{name} is not in the list of failpoints");
    let Some(armed) = ARMED.get_or_init(armed) else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, name, "the failpoint could not kill this process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name alone means the first hit, and only names of the list arm anything.
    #[test]
    fn what_arms_a_point() {
        let armed = parse("store.gc.marked").unwrap();
        assert_eq!((armed.name.as_str(), armed.left.into_inner()), ("store.gc.marked", 1));
        assert_eq!(parse("view.switched:3").unwrap().left.into_inner(), 3);
        for text in ["", "store", "view.switched:0", "view.switched:x", "view.switched:"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    /// Names are unique, so that a number names one point.
    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ALL.iter().collect();
        assert_eq!(names.len(), ALL.len());
    }
}
