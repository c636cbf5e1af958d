//! Who reads the clock: the driver, and these few for the reason that stands beside each.

use super::source::{File, Repository, word_at};

const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "elapsed", "Clock::start"];

/// A file or folder, and why it may read the clock.
const ALLOWED: &[(&str, &str)] = &[
    ("node/src/driver/", "the driver is where time enters; everything pure is told it"),
    ("node/src/run.rs", "makes the driver's clock, and an incarnation that beats the last run's"),
    (
        "node/src/join.rs",
        "a command of its own, before there is a driver: validity of certificates",
    ),
    ("node/src/net/", "time-outs of connections, which the driver cannot wait for"),
    ("node/src/cli/", "commands of their own, and how long they took"),
    ("node/src/demo/", "a command of its own: how long each step took"),
    ("node/src/doctor/system.rs", "a command of its own: is the clock set?"),
    ("node/src/store/partial.rs", "how often the map of pieces is made durable"),
    ("node/src/store/packs.rs", "when a pack was used last, for the seed budget"),
    ("node/src/store/space.rs", "since when the store is read-only, for people"),
    ("node/src/view/hook.rs", "a hook is killed when its time is over"),
    ("node/src/view/hook_tests.rs", "a test gives up waiting for a server"),
    (
        "node/src/view/hardlink.rs",
        "a replaced tree stays for readers that are on their way into it",
    ),
    ("publisher/src/cli/", "commands of their own: when something is signed"),
    ("publisher/src/push/", "when an entry is signed, and when a connection is too old"),
    ("publisher/src/keys/exec", "a program that signs is ended when its time is over"),
    ("publisher/src/progress.rs", "how often progress is drawn"),
];
/// Reasons that may stand without a clock: the files are still being worked on.
const MAY_BE_UNUSED: &[&str] =
    &["node/src/net/", "node/src/cli/", "node/src/demo/", "publisher/src/progress.rs"];

fn reads(file: &File) -> Option<&'static str> {
    if file.is_test() {
        return None;
    }
    let code = file.code();
    CLOCKS.iter().find(|c| word_at(&code, c).is_some()).copied()
}

pub(crate) fn check(file: &File) -> Vec<String> {
    let Some(clock) = reads(file) else { return Vec::new() };
    if ALLOWED.iter().any(|(path, _)| file.path.starts_with(path)) {
        return Vec::new();
    }
    vec![format!(
        "  {}: reads a clock (`{clock}`). Take the time as an argument, or write a reason into \
         tests/tidy/clocks.rs.",
        file.path
    )]
}

/// Reasons of the list that nobody needs any more.
pub(crate) fn unused(repository: &Repository) -> Vec<String> {
    let used = |path: &str| {
        repository.rust().any(|f| f.path.starts_with(path) && reads(f).is_some())
            || MAY_BE_UNUSED.contains(&path)
    };
    let gone = ALLOWED.iter().filter(|(path, _)| !used(path));
    gone.map(|(path, _)| format!("  {path}: take it out of tests/tidy/clocks.rs.")).collect()
}

/// A clock outside of the list is found; one in a test is not.
#[test]
fn clocks_are_found() {
    let bad = "fn f() -> Instant { Instant::now() }";
    assert_eq!(check(&File::new("node/src/overlay/x.rs", bad)).len(), 1);
    assert_eq!(check(&File::new("node/src/driver/x.rs", bad)).len(), 0);
    assert_eq!(check(&File::new("node/src/store/tests/x.rs", bad)).len(), 0);
    assert_eq!(check(&File::new("node/src/overlay/x.rs", "let t = start.elapsed();")).len(), 1);
    assert_eq!(check(&File::new("node/src/overlay/x.rs", "let elapsed_ms = 3;")).len(), 0);
}
