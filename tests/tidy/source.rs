//! The repository as text: every file that we wrote, and Rust code without its comments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &[".git", "target", "corpus"];

/// One file.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// All files that we wrote.
#[derive(Debug)]
pub(crate) struct Repository {
    files: BTreeMap<String, File>,
}

/// The folder that holds the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").into()
}

impl Repository {
    /// Reads every file that is text.
    pub(crate) fn read() -> Self {
        let mut files = BTreeMap::new();
        walk(&root(), "", &mut files);
        assert!(files.len() > 100, "the workspace was not found at {}", root().display());
        Self { files }
    }

    /// A repository made of these files, for self-tests.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let all = files.iter().map(|(p, t)| ((*p).to_owned(), File::new(p, t)));
        Self { files: all.collect() }
    }

    /// All files.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.all().filter(|f| f.path.ends_with(".rs"))
    }

    /// One file's text; empty where there is no such file.
    pub(crate) fn text(&self, path: &str) -> String {
        self.files.get(path).map(|f| f.text.clone()).unwrap_or_default()
    }

    /// Is there such a file?
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Is there such a file or folder?
    pub(crate) fn has_file_or_folder(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        path.is_empty() || self.has(path) || self.files.keys().any(|f| f.starts_with(&folder))
    }
}

fn walk(dir: &Path, prefix: &str, out: &mut BTreeMap<String, File>) {
    for entry in std::fs::read_dir(dir).expect("a folder of ours can be read").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().expect("a file of ours can be looked at");
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &path, out);
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            out.insert(path.clone(), File::new(&path, &text));
        }
    }
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Is it only there for tests?
    pub(crate) fn is_test(&self) -> bool {
        let parts = self.path.split('/');
        self.path.starts_with("tests/")
            || parts.into_iter().any(|p| matches!(p, "tests" | "sim_tests" | "tests.rs"))
    }

    /// The lines before the inline test module.
    pub(crate) fn without_tests(&self) -> &str {
        let mut at = 0;
        let mut lines = self.text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let next = lines.peek().map_or("", |n| n.trim());
            if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
                break;
            }
            at += line.len();
        }
        self.text.get(..at).unwrap_or(&self.text)
    }

    /// The code without comments and inline tests, with every `use` written out in full.
    pub(crate) fn code(&self) -> String {
        let code = without_comments(self.without_tests());
        let used = written_out(&code);
        format!("{code}\n{used}")
    }

    /// `path:line: ` for messages.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("  {}:{}: ", self.path, line + 1)
    }
}

/// Code without line comments. A `//` inside of a string stays.
pub(crate) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '\'' if !in_string && chars.peek() == Some(&'"') => {
                out.extend(['\'', '"']);
                chars.next();
                continue;
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Every path that a `use` names, one a line: `use std::{fs, io}` gives `std::fs` and `std::io`.
pub(crate) fn written_out(code: &str) -> String {
    let mut out = String::new();
    for part in code.split(';') {
        let Some((before, tree)) = part.rsplit_once("use ") else { continue };
        let begins = before.is_empty() || before.ends_with(|c: char| c.is_whitespace());
        if begins && !tree.contains('(') {
            expand("", tree, &mut out);
        }
    }
    out
}

fn expand(prefix: &str, tree: &str, out: &mut String) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        out.push_str(prefix);
        out.push_str(tree);
        out.push('\n');
        return;
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let prefix = format!("{prefix}{}", head.trim());
    let mut depth = 0usize;
    let mut item = String::new();
    for c in inner.chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                if !item.trim().is_empty() {
                    expand(&prefix, &item, out);
                }
                item.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        item.push(c);
    }
}

/// Where a word stands on its own in a text: not as a part of a longer name.
pub(crate) fn word_at(text: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(i, _)| i).find(|i| {
        let before = text.get(..*i).and_then(|t| t.chars().next_back());
        let after = text.get(i + word.len()..).and_then(|t| t.chars().next());
        let starts = word.starts_with(part);
        let ends = word.ends_with(part);
        !(starts && before.is_some_and(part) || ends && after.is_some_and(part))
    })
}

/// Comments go, strings stay, uses are written out, words are whole words.
#[test]
fn reads_code() {
    assert_eq!(without_comments("a // tokio\nb \"// c\" '\"' // d"), "a \nb \"// c\" '\"' ");
    let used = written_out("use std::{fs, net::{self, UdpSocket}};\nfn f() {}\npub use a::b;");
    assert_eq!(used, "std::fs\nstd::net::self\nstd::net::UdpSocket\na::b\n");
    assert!(word_at("an Instant.", "Instant").is_some());
    assert!(word_at("Instantly my_Instant", "Instant").is_none());
    let file = File::new("a.rs", "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {\n  tokio\n}\n");
    assert_eq!(file.without_tests(), "//! x\nfn a() {}\n");
    let file = File::new("a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n");
    assert_eq!(file.without_tests(), file.text);
}
