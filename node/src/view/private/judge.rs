//! What becomes of a VM's private change when another package set lies beneath: a pure decision.
//!
//! A change is carried along unless it would hide something that the new set brings and the old
//! one did not have: then it is set aside, so that an update is never lost behind an old copy.
//! Configuration files that the VM itself changed win, as dpkg has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stork_wire::manifest::{Tree, TreeEntry, TreeNode};

/// What a private change is, at one path of the upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A folder; `opaque` where it replaces the one beneath instead of adding to it.
    Dir { opaque: bool },
    /// The path was deleted.
    Whiteout,
    /// A file, link, pipe or device.
    Node,
}

/// How a change would hide what the new set brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hides {
    /// The VM has a changed copy of a file that the new set changes too.
    Copy,
    /// The VM deleted what the new set changes.
    Deletion,
    /// The VM replaced a folder into which the new set puts something.
    Folder,
    /// The VM has a copy of a file that the new set no longer has.
    Removed,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes along. For a folder: it is entered, and stays opaque if it was.
    Carry,
    /// The folder is entered; that it replaced the one beneath is forgotten, and told.
    Open(Hides),
    /// It is a configuration file: it goes along if the VM changed its bytes.
    CarryChanged,
    /// It is set aside.
    Aside(Hides),
    /// It changes nothing any more.
    Drop,
}

/// The two sets, and whose changes win.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    old: BTreeMap<&'a str, &'a TreeEntry>,
    new: BTreeMap<&'a str, &'a TreeEntry>,
    conffiles: BTreeSet<String>,
}

fn by_path(tree: &Tree) -> BTreeMap<&str, &TreeEntry> {
    tree.entries.iter().map(|e| (e.path.as_str(), e)).collect()
}

impl<'a> Judge<'a> {
    /// `conffiles`: paths without the leading slash; a folder stands for all in it.
    pub(super) fn new(old: &'a Tree, new: &'a Tree, conffiles: BTreeSet<String>) -> Self {
        Self { old: by_path(old), new: by_path(new), conffiles }
    }

    pub(super) fn old(&self, path: &str) -> Option<&'a TreeEntry> {
        self.old.get(path).copied()
    }

    pub(super) fn new_entry(&self, path: &str) -> Option<&'a TreeEntry> {
        self.new.get(path).copied()
    }

    /// Is the path a configuration file, or in a folder of them?
    pub(super) fn is_conffile(&self, path: &str) -> bool {
        let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        above.chain([path]).any(|p| self.conffiles.contains(p))
    }

    /// Do both sets show the same at this path?
    fn same(&self, path: &str) -> bool {
        let (old, new) = (self.old(path), self.new_entry(path));
        let (Some(old), Some(new)) = (old, new) else { return old.is_none() && new.is_none() };
        let alike =
            old.node == new.node && (old.mode, old.uid, old.gid) == (new.mode, new.uid, new.gid);
        match &new.node {
            TreeNode::Hardlink { target } => alike && self.same(target.as_str()),
            _ => alike,
        }
    }

    /// Does the new set have anything beneath this folder that the old one did not have so?
    fn news_beneath(&self, path: &str) -> bool {
        let first = format!("{path}/");
        let beneath = self.new.range(first.as_str()..);
        beneath.take_while(|(p, _)| p.starts_with(&first)).any(|(p, _)| !self.same(p))
    }

    /// What becomes of a change at a path whose folders were all entered.
    pub(super) fn judge(&self, path: &str, change: Change) -> Verdict {
        let is_dir = |e: &TreeEntry| matches!(e.node, TreeNode::Dir);
        let new = self.new_entry(path);
        match change {
            Change::Dir { .. } if new.is_some_and(|e| !is_dir(e)) && !self.same(path) => {
                Verdict::Aside(Hides::Copy)
            }
            Change::Dir { opaque: true } if self.news_beneath(path) => Verdict::Open(Hides::Folder),
            Change::Dir { .. } => Verdict::Carry,
            Change::Whiteout if new.is_none() => Verdict::Drop,
            Change::Whiteout if self.is_conffile(path) => Verdict::Carry,
            Change::Whiteout if !self.same(path) || self.news_beneath(path) => {
                Verdict::Aside(Hides::Deletion)
            }
            Change::Whiteout => Verdict::Carry,
            Change::Node if self.is_conffile(path) && !new.is_some_and(is_dir) => {
                if self.same(path) { Verdict::Carry } else { Verdict::CarryChanged }
            }
            Change::Node if new.is_none() && self.old(path).is_some_and(|e| !is_dir(e)) => {
                Verdict::Aside(Hides::Removed)
            }
            Change::Node if !self.same(path) && new.is_some() => Verdict::Aside(Hides::Copy),
            Change::Node if self.news_beneath(path) => Verdict::Aside(Hides::Copy),
            Change::Node => Verdict::Carry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::support::{dir, file, link, tree};

    /// Each kind of change over each kind of difference between the sets.
    #[test]
    fn every_case() {
        let base = vec![dir("etc"), dir("lib"), dir("var"), file("etc/app", b"1")];
        let both = [file("lib/same", b"s"), link("lib/l", "same"), dir("lib/d"), dir("lib/gone")];
        let mut old = base.clone();
        old.extend(both.clone());
        old.extend([file("lib/mod", b"1"), file("lib/gone/x", b"x"), file("lib/d/a", b"a")]);
        old.push(file("lib/kind", b"k"));
        let mut new = base;
        new.extend(both.into_iter().filter(|e| e.path.as_str() != "lib/gone"));
        new.extend([file("lib/mod", b"2"), file("lib/d/a", b"a"), file("lib/d/b", b"b")]);
        new.extend([dir("lib/kind"), file("lib/kind/in", b"i"), file("lib/added", b"n")]);
        let mut changed = file("etc/app", b"2");
        changed.mode = 0o600;
        new[3] = changed;
        let (old, new) = (tree(old), tree(new));
        let judge = Judge::new(&old, &new, ["etc".to_owned()].into());
        let (whole, added) = (Change::Dir { opaque: true }, Change::Dir { opaque: false });
        for (path, change, verdict) in [
            ("lib/mine", Change::Node, Verdict::Carry),
            ("var/mine/x", Change::Node, Verdict::Carry),
            ("lib/same", Change::Node, Verdict::Carry),
            ("lib/l", Change::Whiteout, Verdict::Carry),
            ("lib/mod", Change::Node, Verdict::Aside(Hides::Copy)),
            ("lib/mod", added, Verdict::Aside(Hides::Copy)),
            ("lib/mod", Change::Whiteout, Verdict::Aside(Hides::Deletion)),
            ("lib/added", Change::Node, Verdict::Aside(Hides::Copy)),
            ("lib/gone/x", Change::Node, Verdict::Aside(Hides::Removed)),
            ("lib/gone/x", Change::Whiteout, Verdict::Drop),
            ("lib/gone", added, Verdict::Carry),
            ("lib/d", added, Verdict::Carry),
            ("lib/d", whole, Verdict::Open(Hides::Folder)),
            ("lib/d", Change::Whiteout, Verdict::Aside(Hides::Deletion)),
            ("lib/d", Change::Node, Verdict::Aside(Hides::Copy)),
            ("lib/kind", Change::Node, Verdict::Aside(Hides::Copy)),
            ("var", whole, Verdict::Carry),
            ("etc/app", Change::Node, Verdict::CarryChanged),
            ("etc/app", Change::Whiteout, Verdict::Carry),
        ] {
            assert_eq!(judge.judge(path, change), verdict, "{path} {change:?}");
        }
        assert!(judge.is_conffile("etc/app/deep") && !judge.is_conffile("etcetera"));
    }
}
