//! Which old file looks like an earlier version of a new one, by its name.

use std::collections::BTreeMap;

use stork_wire::ids::ContentId;
use stork_wire::manifest::{Tree, TreeNode};

/// For each new content the old one that looks like it, and the size of the new one.
pub(super) struct Names {
    like: BTreeMap<ContentId, (ContentId, u64)>,
}

/// Versions change names: `libx.so.1.2.3` is looked up as `libx.so.#.#.#`.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

/// Keys of a path, the best first; their first character keeps the kinds apart.
fn keys(path: &str) -> [String; 4] {
    let name = path.rsplit_once('/').map_or(path, |(_, n)| n);
    [
        format!("p{path}"),
        format!("q{}", without_numbers(path)),
        format!("n{name}"),
        format!("m{}", without_numbers(name)),
    ]
}

/// The files of a tree that have bytes.
fn files(tree: &Tree) -> impl Iterator<Item = (&str, ContentId, u64)> {
    tree.entries.iter().filter_map(|e| match &e.node {
        TreeNode::File { content, size, .. } if *size > 0 => {
            Some((e.path.as_str(), *content, *size))
        }
        _ => None,
    })
}

impl Names {
    pub(super) fn of(old: &Tree, new: &Tree) -> Self {
        let mut by_key: BTreeMap<String, ContentId> = BTreeMap::new();
        for (path, content, _) in files(old) {
            for key in keys(path) {
                by_key.entry(key).or_insert(content);
            }
        }
        let mut like = BTreeMap::new();
        for (path, content, size) in files(new) {
            let found = || keys(path).iter().find_map(|k| by_key.get(k).copied());
            if !like.contains_key(&content)
                && let Some(old) = found()
            {
                like.insert(content, (old, size));
            }
        }
        Self { like }
    }

    /// The old content that looks like a new one, and the size of the new one.
    pub(super) fn like(&self, content: &ContentId) -> Option<(ContentId, u64)> {
        self.like.get(content).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library whose version is in its name is still found.
    #[test]
    fn numbers_do_not_count() {
        assert_eq!(without_numbers("libx.so.1.22.3"), "libx.so.#.#.#");
        let [path, ..] = keys("a/b");
        assert_eq!(path, "pa/b");
    }
}
