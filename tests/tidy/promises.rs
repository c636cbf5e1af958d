//! `docs/PROMISES.md`: every figure names a command or a test, and what it names exists.
//! `docs/THREATS.md` likewise: every test that it names exists.

use super::source::Repository;

const PROMISES: &str = "docs/PROMISES.md";
const THREATS: &str = "docs/THREATS.md";

/// The rows of the tables of a page, without head and rule.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut out = Vec::new();
    let mut in_table = 0;
    for line in text.lines() {
        let Some(inner) = line.trim().strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            in_table = 0;
            continue;
        };
        in_table += 1;
        if in_table > 2 {
            out.push(inner.split('|').map(str::trim).collect());
        }
    }
    out
}

/// What stands between back quotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Is there a test of this name?
fn has_test(repository: &Repository, name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    let wanted = format!("fn {last}(");
    repository.rust().any(|f| f.text.contains(&wanted))
}

/// Does what a cell names exist? A command is one of our binaries, or cargo with one of our tests.
fn exists(repository: &Repository, what: &str) -> bool {
    let words: Vec<&str> = what.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", ..] => {
            let binary = words.windows(2).find(|w| matches!(w, ["--bin" | "--test", _]));
            let name = binary.and_then(|w| w.last());
            let last = words.last().copied().unwrap_or("");
            name.is_some_and(|n| has_binary(repository, n)) || has_test(repository, last)
        }
        [one] => has_test(repository, one) || has_binary(repository, one),
        [command, ..] => has_binary(repository, command),
        [] => false,
    }
}

fn has_binary(repository: &Repository, name: &str) -> bool {
    let manifests = repository.all().filter(|f| f.path.ends_with("Cargo.toml"));
    manifests.into_iter().any(|f| f.text.contains(&format!("name = \"{name}\"")))
}

pub(crate) fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    let promises = repository.text(PROMISES);
    if rows(&promises).is_empty() {
        faults.push(format!("  {PROMISES}: there is no table of figures."));
    }
    for row in rows(&promises) {
        let figure = row.first().copied().unwrap_or("");
        let names = quoted(row.last().copied().unwrap_or(""));
        if names.is_empty() {
            faults
                .push(format!("  {PROMISES}: `{figure}` names no command. Say what measures it."));
        }
        // What nobody measured yet may name a command that is still to come.
        let to_come = row.contains(&"not measured yet");
        for name in names.into_iter().filter(|n| !to_come && !exists(repository, n)) {
            faults.push(format!("  {PROMISES}: `{figure}` names `{name}`, which does not exist."));
        }
    }
    for row in rows(&repository.text(THREATS)) {
        for name in quoted(row.last().copied().unwrap_or("")) {
            if !has_test(repository, name) {
                faults.push(format!("  {THREATS}: there is no test `{name}`. Correct the name."));
            }
        }
    }
    faults
}

/// A figure without a command, with one that does not exist, and a test that is gone are found.
#[test]
fn empty_promises_are_found() {
    let with = |last: &str| {
        let page = format!("# P\n| figure | command |\n|---|---|\n| speed | {last} |\n");
        let manifest = ("tests/Cargo.toml", "[[bin]]\nname = \"stork-bench\"\n");
        let code = ("a/src/lib.rs", "fn it_is_fast() {}");
        check(&Repository::of(&[(PROMISES, &page), manifest, code])).len()
    };
    assert_eq!(with("`stork-bench speed`"), 0);
    assert_eq!(with("`cargo test -p stork-node it_is_fast`"), 0);
    assert_eq!(with("`it_is_fast`"), 0);
    assert_eq!(with("`cargo run --bin stork-bench -- speed`"), 0);
    assert_eq!(with("see below"), 1);
    assert_eq!(with("`stork-race`"), 1);
    assert_eq!(with("`it_is_slow`"), 1);
    assert_eq!(with("not measured yet | `stork-race`"), 0);
    assert_eq!(with("not measured yet | later"), 1);
    let threats = "# T\n| attack | test |\n|---|---|\n| A | `gone` |\n";
    let page = "# P\n| f | c |\n|---|---|\n| s | `it` |\n";
    let all = [(PROMISES, page), (THREATS, threats), ("a/src/lib.rs", "fn it() {}")];
    assert_eq!(check(&Repository::of(&all)).len(), 1);
}
