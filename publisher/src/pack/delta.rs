//! What of a base becomes the prefix of each segment: the old bytes of the same files first, then
//! of files that look like renamed ones.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::ids::ContentId;
use stork_wire::limits::{PREFIX_LEN_MAX, PREFIX_RUNS_MAX};
use stork_wire::manifest::{Tree, TreeNode};

use super::segment::Segment;

/// The files of a base, found by path, by name and by what both are without their numbers.
struct Index {
    sizes: BTreeMap<ContentId, u64>,
    by_key: BTreeMap<String, ContentId>,
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

impl Index {
    fn of(base: &Tree) -> Self {
        let mut index = Self { sizes: BTreeMap::new(), by_key: BTreeMap::new() };
        for e in &base.entries {
            let TreeNode::File { content, size, .. } = &e.node else { continue };
            if *size == 0 {
                continue;
            }
            index.sizes.insert(*content, *size);
            for key in keys(e.path.as_str()) {
                index.by_key.entry(key).or_insert(*content);
            }
        }
        index
    }

    /// The best old content for a file; `None` if nothing looks like it.
    fn like(&self, path: &str) -> Option<ContentId> {
        keys(path).iter().find_map(|k| self.by_key.get(k).copied())
    }
}

/// For each segment the contents of the base that are its prefix, in order. Contents that do not
/// fit into the limit are left out.
pub(super) fn prefixes(tree: &Tree, segments: &[Segment], base: &Tree) -> Vec<Vec<ContentId>> {
    let index = Index::of(base);
    let mut paths: BTreeMap<ContentId, &str> = BTreeMap::new();
    for e in &tree.entries {
        if let TreeNode::File { content, .. } = &e.node {
            paths.entry(*content).or_insert(e.path.as_str());
        }
    }
    segments
        .iter()
        .map(|segment| {
            let (mut out, mut len) = (Vec::new(), 0u64);
            let mut used = BTreeSet::new();
            for slice in &segment.slices {
                let same = index.sizes.contains_key(&slice.content).then_some(slice.content);
                let by_path = || paths.get(&slice.content).and_then(|p| index.like(p));
                let Some(old) = same.or_else(by_path) else { continue };
                let size = index.sizes.get(&old).copied().unwrap_or(0);
                if len + size <= PREFIX_LEN_MAX && out.len() < PREFIX_RUNS_MAX && used.insert(old) {
                    len += size;
                    out.push(old);
                }
            }
            out
        })
        .collect()
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
