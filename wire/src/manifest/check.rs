//! The rules of a tree, checked when packing and again by every host (acceptance §5, T095, T096).

use std::collections::BTreeMap;

use super::{Tree, TreeEntry, TreeNode};
use crate::limits::UNPACKED_LEN_MAX;

/// A tree that must not be shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {why}")]
pub struct TreeError {
    /// The entry at fault.
    pub path: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

fn wrong(e: &TreeEntry, why: &'static str) -> TreeError {
    TreeError { path: e.path.as_str().chars().flat_map(char::escape_debug).collect(), why }
}

/// What stands at a path, as far as later entries care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Dir,
    File,
    Other,
}

impl Tree {
    /// Checks order, parents, links and sizes. Symbolic links are data; nothing may lie beneath
    /// one.
    pub fn check(&self) -> Result<(), TreeError> {
        let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut last: Option<&str> = None;
        let mut total = 0u64;
        for e in &self.entries {
            let path = e.path.as_str();
            if last.is_some_and(|l| l >= path) {
                return Err(wrong(e, "is out of order, or stands there twice"));
            }
            last = Some(path);
            if e.mode > 0o7777 {
                return Err(wrong(e, "has a mode beyond 7777"));
            }
            check_parent(e, &seen)?;
            let kind = check_node(e, &seen)?;
            if let TreeNode::File { size, .. } = &e.node {
                total = total.saturating_add(*size);
            }
            if total > UNPACKED_LEN_MAX {
                return Err(wrong(e, "takes the tree beyond 64 GiB"));
            }
            seen.insert(path, kind);
        }
        Ok(())
    }
}

fn check_parent(e: &TreeEntry, seen: &BTreeMap<&str, Seen>) -> Result<(), TreeError> {
    let Some(parent) = e.path.parent() else { return Ok(()) };
    match seen.get(parent) {
        Some(Seen::Dir) => Ok(()),
        Some(_) => Err(wrong(e, "lies beneath something that is no directory")),
        None => Err(wrong(e, "has no entry for its directory")),
    }
}

fn check_node(e: &TreeEntry, seen: &BTreeMap<&str, Seen>) -> Result<Seen, TreeError> {
    match &e.node {
        TreeNode::Dir => Ok(Seen::Dir),
        TreeNode::File { xattrs, .. } => {
            if xattrs.windows(2).all(|w| matches!(w, [a, b] if a.name < b.name)) {
                Ok(Seen::File)
            } else {
                Err(wrong(e, "has attributes that are not sorted"))
            }
        }
        TreeNode::Symlink { target } => {
            if climbs_out(e.path.as_str(), target.as_str()) {
                Err(wrong(e, "is a link that climbs out of the tree"))
            } else {
                Ok(Seen::Other)
            }
        }
        TreeNode::Hardlink { target } => match seen.get(target.as_str()) {
            Some(Seen::File) => Ok(Seen::Other),
            _ => Err(wrong(e, "is a hard link to no earlier file of the tree")),
        },
        TreeNode::Fifo | TreeNode::CharDevice { .. } | TreeNode::BlockDevice { .. } => {
            Ok(Seen::Other)
        }
    }
}

/// Does a relative link, read as text, lead above the tree? Absolute ones are data for the VM.
fn climbs_out(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(d) => depth = d,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

impl TreeEntry {
    /// What only a VM's policy may allow: setuid, setgid, devices, pipes, capabilities.
    #[must_use]
    pub fn privilege(&self) -> Option<&'static str> {
        match &self.node {
            TreeNode::Fifo => Some("a named pipe"),
            TreeNode::CharDevice { .. } | TreeNode::BlockDevice { .. } => Some("a device"),
            TreeNode::File { xattrs, .. }
                if xattrs.iter().any(|x| !x.name.as_str().starts_with("user.")) =>
            {
                Some("a privileged attribute")
            }
            TreeNode::File { .. } if self.mode & 0o4000 != 0 => Some("setuid"),
            TreeNode::File { .. } if self.mode & 0o2000 != 0 => Some("setgid"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::List;
    use crate::ids::ContentId;

    fn entry(path: &str, node: TreeNode) -> TreeEntry {
        TreeEntry { path: path.parse().unwrap(), mode: 0o755, uid: 0, gid: 0, mtime: 0, node }
    }
    fn file(path: &str) -> TreeEntry {
        entry(path, TreeNode::File { content: ContentId::of(b"x"), size: 1, xattrs: List::empty() })
    }
    fn link(path: &str, target: &str) -> TreeEntry {
        entry(path, TreeNode::Symlink { target: target.parse().unwrap() })
    }
    fn check(entries: Vec<TreeEntry>) -> Result<(), &'static str> {
        Tree { entries: List::new(entries).unwrap() }.check().map_err(|e| e.why)
    }

    /// T095: order, twins, missing parents and hard links out of the tree.
    #[test]
    fn t095_trees_that_are_refused() {
        let dir = || entry("usr", TreeNode::Dir);
        assert_eq!(check(vec![dir(), file("usr/a"), file("usr/b")]), Ok(()));
        assert!(check(vec![file("b"), file("a")]).is_err());
        assert!(check(vec![file("a"), file("a")]).is_err());
        assert!(check(vec![file("usr/a")]).is_err());
        assert!(check(vec![file("usr"), file("usr/a")]).is_err());
        let hard = |t: &str| entry("z", TreeNode::Hardlink { target: t.parse().unwrap() });
        assert_eq!(check(vec![file("a"), hard("a")]), Ok(()));
        assert!(check(vec![file("a"), hard("b")]).is_err());
        assert!(check(vec![dir(), hard("usr")]).is_err());
    }

    /// T096: a link may not climb out, nothing lies beneath a link, absolute targets are data.
    #[test]
    fn t096_symbolic_links() {
        let dir = || entry("usr", TreeNode::Dir);
        assert_eq!(check(vec![dir(), link("usr/l", "../etc/passwd")]), Ok(()));
        assert!(check(vec![dir(), link("usr/l", "../../etc/passwd")]).is_err());
        assert!(check(vec![dir(), link("usr/l", "a/../../../x")]).is_err());
        assert_eq!(check(vec![link("l", "/etc/passwd")]), Ok(()));
        assert!(check(vec![link("l", "/etc"), file("l/passwd")]).is_err());
    }
}
