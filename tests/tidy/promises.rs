//! `docs/PROMISES.md`: every figure names a command or a test, and what it names exists.
//! `docs/THREATS.md` likewise: every test that it names exists, and every attack of the lists that
//! it answers has a row, or stands under what is open.

use super::source::Repository;

const PROMISES: &str = "docs/PROMISES.md";
const THREATS: &str = "docs/THREATS.md";

/// The attacks that the threats page answers: a letter, and how many there are.
const ATTACKS: [(char, usize); 6] =
    [('A', 29), ('G', 17), ('Q', 11), ('C', 10), ('M', 10), ('V', 9)];
/// Rows of the acceptance matrix that have a test of their number, or a reason on the page.
const MATRIX: [(usize, usize); 6] =
    [(1, 55), (73, 82), (93, 98), (107, 112), (117, 120), (122, 123)];
/// Where the page tells what does not hold.
const OPEN: &str = "## Open today";

/// Is there a test whose name begins with these numbers, this one among them?
fn has_row(repository: &Repository, number: usize) -> bool {
    let id = format!("t{number:03}");
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let of_row = |text: &str| name(text).split('_').take_while(|p| is_row(p)).any(|p| p == id);
    let names = |text: &str| text.split("fn ").skip(1).any(of_row);
    repository.rust().any(|f| names(&f.text))
}

fn is_row(part: &str) -> bool {
    part.strip_prefix('t').is_some_and(|n| n.len() == 3 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Attacks without a row, and rows of the matrix without a test, of which the page says nothing.
fn check_lists(repository: &Repository, page: &str) -> Vec<String> {
    let (_, open) = page.split_once(OPEN).unwrap_or_default();
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect()
    };
    let open = words(open);
    let mut answered: Vec<String> = open.clone();
    answered.extend(rows(page).iter().flat_map(|r| words(r.first().copied().unwrap_or(""))));
    let attacks =
        ATTACKS.iter().flat_map(|(letter, n)| (1..=*n).map(move |i| format!("{letter}{i}")));
    let missing = attacks.filter(|a| !answered.contains(a));
    let mut faults: Vec<String> = missing
        .map(|a| {
            format!("  {THREATS}: attack {a} has no row. Say what stops it, or that nothing does.")
        })
        .collect();
    for number in MATRIX.iter().flat_map(|(from, to)| *from..=*to) {
        if !has_row(repository, number) && !open.contains(&format!("T{number:03}")) {
            faults
                .push(format!("  {THREATS}: T{number:03} has no test. Say why under \"{OPEN}\"."));
        }
    }
    faults
}

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
    let threats = repository.text(THREATS);
    if !threats.is_empty() {
        faults.extend(check_lists(repository, &threats));
    }
    for row in rows(&threats) {
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
    let page = "# P\n| f | c |\n|---|---|\n| s | `it` |\n";
    let all = |threats: &str| {
        let code = ("a/src/lib.rs", "fn it() {}");
        check(&Repository::of(&[(PROMISES, page), (THREATS, threats), code])).len()
    };
    let head = "# T\n| id | attack | test |\n|---|---|---|\n";
    let nothing = all(head);
    assert_eq!(all(&format!("{head}| | x | `gone` |\n")), nothing + 1);
    assert_eq!(all(&format!("{head}| A1 V9 | x | `it` |\n")), nothing - 2);
}

/// An attack counts by its row or where it is open; a row of the matrix by its test, or there.
#[test]
fn lists_are_answered() {
    let left = |page: &str, code: &str| {
        let repository = Repository::of(&[("a/src/lib.rs", code)]);
        check_lists(&repository, page).len()
    };
    let all = left("", "");
    assert_eq!(all, 86 + 83);
    assert_eq!(left("## Open today\n- **A22, T112: read.**", ""), all - 2);
    assert_eq!(left("A22 and T112", ""), all, "neither a row nor open");
    assert_eq!(left("", "fn t001_t002_x() {}\nfn t003() {}\nfn at004_x() {}"), all - 3);
}
