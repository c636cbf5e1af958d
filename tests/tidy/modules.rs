//! The tree of modules: every `mod x;` has a file, and every file is reached from a crate's root.

use std::collections::BTreeSet;

use super::source::{File, Repository, without_comments};

/// Roots of crates beside `lib.rs` and `main.rs` of each package, and folders of such roots.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [_, "src", "lib.rs" | "main.rs"] | [_, "src", "bin", _] | [_, "build.rs"] => true,
        // Tests, benchmarks and fuzz targets of the tests package.
        ["tests", _, "main.rs"] | [_, "benches" | "fuzz_targets" | "examples" | "tests", _] => true,
        ["tests", .., "fuzz_targets", _] => true,
        // A crate of its own below another, which both programs use.
        ["wire", "origin", "src", "lib.rs"] => true,
        _ => false,
    }
}

/// Where the children of a file's modules lie.
fn folder_of(path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => dir.to_owned(),
        _ if is_root(path) => dir.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// The names of `mod x;` in a file.
fn declared(file: &File) -> Vec<String> {
    let code = without_comments(&file.text);
    let mods = code.lines().filter_map(|line| {
        let line = line.trim();
        let rest = line.strip_suffix(';')?;
        let (visibility, name) = rest.rsplit_once("mod ")?;
        let visible = matches!(visibility.trim(), "" | "pub" | "pub(crate)" | "pub(super)");
        (visible && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then(|| name.to_owned())
    });
    mods.collect()
}

pub(crate) fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let roots = repository.rust().map(|f| f.path.clone()).filter(|p| is_root(p));
    let mut todo: Vec<String> = roots.collect();
    while let Some(path) = todo.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let file = File::new(&path, &repository.text(&path));
        let folder = folder_of(&path);
        for name in declared(&file) {
            let choices = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
            if let Some(child) = choices.iter().find(|c| repository.has(c)) {
                todo.push(child.clone());
            } else {
                faults.push(format!("  {path}: `mod {name};` has no file. Add or remove it."));
            }
        }
    }
    for file in repository.rust().filter(|f| !reached.contains(&f.path)) {
        faults.push(format!(
            "  {}: no `mod` leads here, so it is never compiled. Name it, or remove it.",
            file.path
        ));
    }
    faults
}

/// A missing file and a forgotten file are both found.
#[test]
fn holes_are_found() {
    let good = [
        ("a/src/lib.rs", "pub mod x;\npub(crate) mod y;\n// mod gone;\n"),
        ("a/src/x.rs", "mod inner;\n#[cfg(test)]\nmod tests { }\n"),
        ("a/src/x/inner.rs", ""),
        ("a/src/y/mod.rs", "mod z;"),
        ("a/src/y/z.rs", ""),
        ("tests/tidy/main.rs", "mod shape;"),
        ("tests/tidy/shape.rs", ""),
    ];
    assert_eq!(check(&Repository::of(&good)), Vec::<String>::new());
    assert_eq!(check(&Repository::of(&[("a/src/lib.rs", "mod x;")])).len(), 1);
    assert_eq!(check(&Repository::of(&[("a/src/lib.rs", ""), ("a/src/lost.rs", "")])).len(), 1);
}
