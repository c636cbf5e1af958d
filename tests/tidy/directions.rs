//! Directions between rooms: a path and the words that must not occur under it.

use super::source::{File, Repository, word_at};

/// One rule: where it holds, what must not be named there, and what to do instead.
struct Rule {
    under: &'static str,
    words: &'static [&'static str],
    instead: &'static str,
}

const IMPURE: &[&str] = &[
    "tokio",
    "quinn",
    "std::fs",
    "std::io",
    "std::process",
    "std::net::UdpSocket",
    "Instant",
    "SystemTime",
];
const PURE_HELP: &str = "a pure room takes inputs and returns actions: let the driver do it";
const ROOM_HELP: &str = "let the driver connect the two rooms";

const RULES: &[Rule] = &[
    Rule {
        under: "wire/src/",
        words: &[
            "tokio",
            "quinn",
            "std::fs",
            "std::process",
            "std::net::UdpSocket",
            "Instant",
            "SystemTime",
            "stork_node",
            "stork_publisher",
        ],
        instead: "wire is what two processes agree on: move the work to the crate that does it",
    },
    Rule {
        under: "wire/origin/src/",
        words: &["stork_node", "stork_publisher", "quinn"],
        instead: "origin knows wire only: hand in what it needs",
    },
    Rule {
        under: "publisher/src/",
        words: &["stork_node"],
        instead: "the publisher knows wire and origin; what both need belongs into one of these",
    },
    Rule { under: "node/src/overlay/", words: IMPURE, instead: PURE_HELP },
    Rule { under: "node/src/trust/", words: IMPURE, instead: PURE_HELP },
    Rule { under: "node/src/catalog/", words: IMPURE, instead: PURE_HELP },
    Rule { under: "node/src/transfer/", words: IMPURE, instead: PURE_HELP },
    Rule { under: "node/src/erofs/", words: IMPURE, instead: PURE_HELP },
    Rule {
        under: "node/src/erofs/",
        words: &["crate::store", "crate::view", "crate::driver"],
        instead: "the writer of images knows wire only: hand in what it needs",
    },
    Rule {
        under: "node/src/overlay/",
        words: &["crate::trust", "crate::catalog", "crate::store", "crate::net", "crate::driver"],
        instead: ROOM_HELP,
    },
    Rule {
        under: "node/src/trust/",
        words: &["crate::overlay", "crate::store", "crate::net", "crate::driver"],
        instead: ROOM_HELP,
    },
    Rule {
        under: "node/src/transfer/",
        words: &["crate::overlay", "crate::trust", "crate::store", "crate::net", "crate::driver"],
        instead: ROOM_HELP,
    },
    Rule {
        under: "node/src/catalog/",
        words: &["crate::overlay", "crate::store", "crate::net", "crate::driver"],
        instead: ROOM_HELP,
    },
    Rule {
        under: "node/src/store/",
        words: &[
            "crate::net",
            "crate::overlay",
            "crate::trust",
            "crate::catalog",
            "crate::transfer",
            "crate::view",
            "crate::driver",
        ],
        instead: "the store knows wire only: hand in what it needs",
    },
    Rule {
        under: "node/src/view/",
        words: &["crate::net", "crate::overlay", "crate::transfer", "crate::driver"],
        instead: "a view uses the store; whoever calls it hands in the rest",
    },
    Rule {
        under: "node/src/net/",
        words: &["crate::overlay", "crate::trust", "crate::store", "crate::view", "crate::driver"],
        instead: "the network reports events to the driver and is told what to send",
    },
];

/// A word that may stand in some places only.
struct Place {
    word: &'static str,
    only: &'static [&'static str],
    instead: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        word: "ed25519_dalek",
        only: &["wire/src/sign.rs"],
        instead: "call stork_wire::sign: one function verifies signatures",
    },
    Place {
        word: "object_store",
        only: &["wire/origin/src/"],
        instead: "call stork_origin: one crate names objects, puts and reads them",
    },
    Place {
        word: "unsafe",
        only: &["node/src/view/sys.rs", "tests/src/heap.rs"],
        instead: "use rustix, or add the system call to node/src/view/sys.rs",
    },
    Place {
        word: "stork_publisher",
        only: &["node/src/cli/", "node/src/demo/", "publisher/src/main.rs", "tests/"],
        instead: "the daemon never packs or signs releases; move it to the command line",
    },
];

/// Rooms that must not see a clock, a file or a hash map.
const PURE: &[&str] = &[
    "wire/src/lib.rs",
    "node/src/overlay/mod.rs",
    "node/src/trust/mod.rs",
    "node/src/catalog/mod.rs",
    "node/src/transfer/mod.rs",
    "node/src/erofs/mod.rs",
];
const GUARD: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

pub(crate) fn check(file: &File) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let rules = RULES.iter().filter(|r| file.path.starts_with(r.under));
    let code = file.code();
    let mut out = Vec::new();
    for rule in rules {
        for word in rule.words.iter().filter(|w| word_at(&code, w).is_some()) {
            out.push(format!(
                "  {}: {} must not name `{word}`; {}.",
                file.path, rule.under, rule.instead
            ));
        }
    }
    out
}

pub(crate) fn check_places(file: &File) -> Vec<String> {
    // This folder holds the words themselves.
    if file.path.starts_with("tests/tidy/") {
        return Vec::new();
    }
    let code = super::source::without_comments(&file.text);
    PLACES
        .iter()
        .filter(|p| word_at(&code, p.word).is_some())
        .filter(|p| !p.only.iter().any(|only| file.path.starts_with(only)))
        .map(|p| {
            format!("  {}: `{}` stands only in {:?}; {}.", file.path, p.word, p.only, p.instead)
        })
        .collect()
}

pub(crate) fn check_pure(repository: &Repository) -> Vec<String> {
    let unguarded = PURE.iter().filter(|p| !repository.text(p).contains(GUARD));
    unguarded.map(|p| format!("  {p}: must hold `{GUARD}`.")).collect()
}

/// Direct names, grouped uses and wrong places are found; comments and tests are left alone.
#[test]
fn rules_find_bad_examples() {
    let found = |path: &str, text: &str| check(&File::new(path, text)).len();
    assert_eq!(found("node/src/overlay/x.rs", "use std::{fs, net};"), 1);
    assert_eq!(found("node/src/overlay/x.rs", "use crate::{config, trust::Trust};"), 1);
    assert_eq!(found("node/src/overlay/x.rs", "// as tokio does, at any Instant\n"), 0);
    assert_eq!(found("node/src/overlay/sim_tests/x.rs", "use std::time::Instant;"), 0);
    assert_eq!(found("node/src/store/x.rs", "use crate::view::Views;"), 1);
    assert_eq!(found("node/src/driver/x.rs", "use crate::view::Views;"), 0);
    assert_eq!(found("wire/src/x.rs", "fn f() { tokio::spawn(g()) }"), 1);
    let places = |path: &str, text: &str| check_places(&File::new(path, text)).len();
    assert_eq!(places("node/src/net/x.rs", "unsafe { f() }"), 1);
    assert_eq!(places("node/src/view/sys.rs", "unsafe { f() }"), 0);
    assert_eq!(places("node/src/net/x.rs", "#![deny(unsafe_code)]"), 0);
    assert_eq!(places("node/src/run.rs", "use stork_publisher::x;"), 1);
    assert!(!check_pure(&Repository::of(&[("wire/src/lib.rs", GUARD)])).is_empty());
}
