//! The shape of a file: its length, its columns, its first line, its name.

use super::source::File;

const LINES_MAX: usize = 400;
const COLUMNS_MAX: usize = 100;
/// Words that mean "not finished". Written apart, so that this file does not name them itself.
const LEFTOVERS: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO:"),
    concat!("dbg", "!("),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

pub(crate) fn length(file: &File) -> Vec<String> {
    let lines = file.without_tests().lines().count();
    if lines <= LINES_MAX {
        return Vec::new();
    }
    vec![format!(
        "  {}: {lines} lines; at most {LINES_MAX}. Find the part that has a name of its own, and \
         give it a file.",
        file.path
    )]
}

pub(crate) fn columns(file: &File) -> Vec<String> {
    let long = file.text.lines().enumerate().map(|(i, l)| (i, l.chars().count()));
    long.filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(i, columns)| {
            file.at(i) + &format!("{columns} columns; at most {COLUMNS_MAX}. Break the line.")
        })
        .collect()
}

pub(crate) fn purpose(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![file.at(0) + "begin with `//! ` and a sentence: what it holds, why, what it must not do."]
}

pub(crate) fn leftovers(file: &File) -> Vec<String> {
    let mut out = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        for word in LEFTOVERS.iter().filter(|w| super::source::word_at(line, w).is_some()) {
            out.push(file.at(i) + &format!("`{word}`. Do it now, or write why it is right so."));
        }
    }
    out
}

pub(crate) fn name(file: &File) -> Vec<String> {
    let mut parts = file.path.trim_end_matches(".rs").split('/');
    match parts.find(|p| EMPTY_NAMES.contains(p)) {
        Some(part) => {
            vec![format!("  {}: `{part}` says nothing. Name it after what it holds.", file.path)]
        }
        None => Vec::new(),
    }
}

/// Whoever prints an error prints its causes after it, so that a text with its own cause in it says
/// the same twice.
pub(crate) fn causes(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.starts_with("#[error(")) {
        // The variant's name, or the name with its one value.
        let next = lines.get(i + 1).copied().unwrap_or_default();
        let one = next.contains("(#[from]") || next.contains("(#[source]");
        if line.contains("{source}") || one && line.contains("{0}") {
            out.push(file.at(i) + "the cause is in the text, and follows it too. Leave it out.");
        }
    }
    out
}

/// Each rule finds its bad example, and is content with a good one.
#[test]
fn rules_find_bad_examples() {
    let good = File::new("node/src/tree.rs", "//! Trees.\n\nfn plant() {}\n");
    for rule in [length, columns, purpose, leftovers, name, causes] {
        assert_eq!(rule(&good), Vec::<String>::new());
    }
    let long = File::new("a.rs", &"x\n".repeat(401));
    assert_eq!(length(&long).len(), 1);
    let tested =
        format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(400), "y\n".repeat(9));
    assert_eq!(length(&File::new("a.rs", &tested)).len(), 0);
    assert_eq!(columns(&File::new("a.rs", &"ä".repeat(100))).len(), 0);
    assert_eq!(columns(&File::new("a.rs", &"ä".repeat(101))).len(), 1);
    assert_eq!(purpose(&File::new("a.rs", "use x;\n")).len(), 1);
    let left = format!("// {} later\nlet x = {}1);\n", LEFTOVERS[0], LEFTOVERS[3]);
    assert_eq!(leftovers(&File::new("a.rs", &left)).len(), 2);
    let error = |text: &str, next: &str| {
        causes(&File::new("a.rs", &format!("#[error(\"{text}\")]\n{next}\n"))).len()
    };
    assert_eq!(error("{path}: {source}", "Io {"), 1);
    assert_eq!(error("too many: {0}", "TooMany(#[from] TooMany),"), 1);
    assert_eq!(error("{0} is gone", "Gone(PathBuf),"), 0);
    assert_eq!(error("too many", "TooMany(#[from] TooMany),"), 0);
    assert_eq!(name(&File::new("node/src/util.rs", "")).len(), 1);
    assert_eq!(name(&File::new("node/src/utilities.rs", "")).len(), 0);
}
