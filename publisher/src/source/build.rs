//! From the entries of any source to one normal tree: the same package gives the same tree,
//! whatever order, prefix or link direction its archive has.
//!
//! What could leave the tree is refused here, with the entry's name (acceptance §5), and again by
//! `Tree::check` on every host.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use stork_wire::codec::List;
use stork_wire::limits::{TREE_ENTRIES_MAX, UNPACKED_LEN_MAX};
use stork_wire::manifest::{Tree, TreeEntry, TreeNode, Xattr};
use stork_wire::text::TreePath;

use super::error::{SourceError, shown};
use super::spool::{CopyError, Spool};
use super::usrmerge::{self, UsrMerge};

/// Permission, owner and time of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

/// How entries are normalised.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The source, for messages.
    pub(super) path: PathBuf,
    pub(super) usr_merge: UsrMerge,
    pub(super) root_owner: bool,
    pub(super) unpacked_max: u64,
}

impl Rules {
    pub(super) fn limit(&self) -> u64 {
        self.unpacked_max.min(UNPACKED_LEN_MAX)
    }
    pub(super) fn bomb(&self) -> SourceError {
        SourceError::Bomb { path: self.path.clone(), max: self.limit() }
    }
}

/// Collects entries in any order.
pub(super) struct Builder {
    rules: Rules,
    entries: BTreeMap<TreePath, TreeEntry>,
    contents: Spool,
    total: u64,
    moved: usize,
}

/// A path without `./` and closing slashes; `None` for the top itself.
fn normal(raw: &[u8]) -> Result<Option<String>, SourceError> {
    let text = std::str::from_utf8(raw).map_err(|_e| SourceError::NotUtf8(shown(raw)))?;
    if text.starts_with('/') {
        return Err(SourceError::AbsolutePath(shown(raw)));
    }
    if text.split('/').any(|p| p == "..") {
        return Err(SourceError::PathEscapes(shown(raw)));
    }
    let mut rest = text;
    while let Some(r) = rest.strip_prefix("./") {
        rest = r.trim_start_matches('/');
    }
    let rest = rest.trim_end_matches('/');
    Ok((!rest.is_empty() && rest != ".").then(|| rest.to_owned()))
}

impl Builder {
    pub(super) fn new(rules: Rules) -> Result<Self, SourceError> {
        let contents = Spool::new().map_err(SourceError::Spool)?;
        Ok(Self { rules, entries: BTreeMap::new(), contents, total: 0, moved: 0 })
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where an entry belongs; `None` for the top itself, which no tree lists.
    fn place(&mut self, raw: &[u8], node: &TreeNode) -> Result<Option<TreePath>, SourceError> {
        let Some(text) = normal(raw)? else { return Ok(None) };
        let moved = match self.rules.usr_merge {
            UsrMerge::Canonical => usrmerge::moved(&text, matches!(node, TreeNode::Dir)),
            UsrMerge::AsIs => None,
        };
        self.moved += usize::from(moved.is_some());
        moved.unwrap_or(text).parse().map(Some).map_err(SourceError::BadPath)
    }

    /// Adds an entry that has no content of its own.
    pub(super) fn add(
        &mut self,
        raw: &[u8],
        attributes: Attributes,
        node: TreeNode,
    ) -> Result<(), SourceError> {
        let Some(path) = self.place(raw, &node)? else { return Ok(()) };
        let (uid, gid) =
            if self.rules.root_owner { (0, 0) } else { (attributes.uid, attributes.gid) };
        let Attributes { mode, mtime, .. } = attributes;
        let both_dirs =
            |old: &TreeEntry| matches!(old.node, TreeNode::Dir) && matches!(node, TreeNode::Dir);
        if self.entries.get(&path).is_some_and(|old| !both_dirs(old)) {
            return Err(SourceError::Duplicate(path.to_string()));
        }
        if self.entries.len() >= TREE_ENTRIES_MAX {
            return Err(SourceError::TooManyEntries(TREE_ENTRIES_MAX));
        }
        self.entries.insert(path.clone(), TreeEntry { path, mode, uid, gid, mtime, node });
        Ok(())
    }

    /// Adds a regular file of exactly `size` bytes, which are read from `reader`.
    pub(super) fn add_file(
        &mut self,
        raw: &[u8],
        attributes: Attributes,
        xattrs: List<Xattr, 32>,
        (reader, size): (&mut dyn Read, u64),
    ) -> Result<(), SourceError> {
        if size > self.rules.limit().saturating_sub(self.total) {
            return Err(self.rules.bomb());
        }
        self.total += size;
        let (content, len) = self.contents.add(reader, size).map_err(|e| match e {
            CopyError::Read(source) => {
                SourceError::Archive { path: self.rules.path.clone(), source }
            }
            CopyError::Write(e) => SourceError::Spool(e),
        })?;
        if len != size {
            let source = std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("`{}` ends after {len} of {size} bytes", shown(raw)),
            );
            return Err(SourceError::Archive { path: self.rules.path.clone(), source });
        }
        self.add(raw, attributes, TreeNode::File { content, size, xattrs })
    }

    /// Adds a symbolic link.
    pub(super) fn add_symlink(
        &mut self,
        raw: &[u8],
        attributes: Attributes,
        target: &[u8],
    ) -> Result<(), SourceError> {
        let text = std::str::from_utf8(target).map_err(|_e| SourceError::NotUtf8(shown(target)))?;
        let path = normal(raw)?.unwrap_or_default();
        if climbs_out(&path, text) {
            return Err(SourceError::LinkEscapes { path, target: shown(target) });
        }
        let rewritten = match self.rules.usr_merge {
            UsrMerge::Canonical => usrmerge::retargeted(&path, text),
            UsrMerge::AsIs => None,
        };
        let target = rewritten
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map_err(|source| SourceError::BadTarget { path, source })?;
        self.add(raw, attributes, TreeNode::Symlink { target })
    }

    /// Adds a second name of a file, which may stand anywhere in the source.
    pub(super) fn add_hardlink(
        &mut self,
        raw: &[u8],
        attributes: Attributes,
        target: &[u8],
    ) -> Result<(), SourceError> {
        let file = TreeNode::Fifo; // Any node that is no directory is placed alike.
        let moved = self.moved;
        let placed = self.place(target, &file)?;
        self.moved = moved;
        let target = placed
            .ok_or_else(|| SourceError::BadHardlink { path: shown(raw), target: shown(target) })?;
        self.add(raw, attributes, TreeNode::Hardlink { target })
    }

    /// The finished tree with its contents, and a note for the maintainer if entries were moved.
    pub(super) fn finish(mut self) -> Result<(Tree, Spool, Option<String>), SourceError> {
        self.settle_hardlinks()?;
        self.add_parents()?;
        let entries: Vec<TreeEntry> = self.entries.into_values().collect();
        let entries =
            List::new(entries).map_err(|_e| SourceError::TooManyEntries(TREE_ENTRIES_MAX))?;
        let tree = Tree { entries };
        tree.check().map_err(|e| SourceError::Tree(e.to_string()))?;
        let note = (self.moved > 0).then(|| {
            format!(
                "usr-merge: {} entries of top-level directories such as /bin and /lib now stand \
                 below /usr (--no-usr-merge keeps them)",
                self.moved
            )
        });
        Ok((tree, self.contents, note))
    }

    /// The file that a chain of hard links ends at.
    fn root_of(&self, path: &TreePath) -> Result<TreePath, SourceError> {
        let mut at = path;
        for _ in 0..64 {
            match self.entries.get(at).map(|e| &e.node) {
                Some(TreeNode::Hardlink { target }) => at = target,
                Some(TreeNode::Dir) | None => break,
                Some(_) => return Ok(at.clone()),
            }
        }
        Err(SourceError::BadHardlink { path: path.to_string(), target: at.to_string() })
    }

    /// Makes the first name of each file the file, and all later ones links to it: the direction of
    /// links in an archive is chance.
    fn settle_hardlinks(&mut self) -> Result<(), SourceError> {
        let mut names: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
        for e in self.entries.values() {
            if matches!(e.node, TreeNode::Hardlink { .. }) {
                names.entry(self.root_of(&e.path)?).or_default().push(e.path.clone());
            }
        }
        for (root, mut links) in names {
            let Some(owner) = self.entries.get(&root).cloned() else { continue };
            links.push(root);
            links.sort();
            let first = links.first().cloned();
            for path in links {
                let node = match (&owner.node, &first) {
                    (TreeNode::File { .. }, Some(first)) if *first != path => {
                        TreeNode::Hardlink { target: first.clone() }
                    }
                    // Links to links, devices and pipes become what they name.
                    _ => owner.node.clone(),
                };
                self.entries.insert(path.clone(), TreeEntry { path, node, ..owner });
            }
        }
        Ok(())
    }

    /// Adds directories that the source leaves out, and refuses entries beneath what is none.
    fn add_parents(&mut self) -> Result<(), SourceError> {
        let mut missing: BTreeMap<String, i64> = BTreeMap::new();
        for e in self.entries.values() {
            let mut at = e.path.as_str();
            while let Some((parent, _)) = at.rsplit_once('/') {
                at = parent;
                let known = parent
                    .parse::<TreePath>()
                    .map_err(SourceError::BadPath)
                    .map(|p| self.entries.get(&p))?;
                match known.map(|p| &p.node) {
                    Some(TreeNode::Dir) => break,
                    Some(TreeNode::Symlink { .. }) => {
                        let (path, link) = (e.path.to_string(), parent.to_owned());
                        return Err(SourceError::ThroughLink { path, link });
                    }
                    Some(_) => {
                        let (path, parent) = (e.path.to_string(), parent.to_owned());
                        return Err(SourceError::BeneathFile { path, parent });
                    }
                    None => {
                        let time = missing.entry(parent.to_owned()).or_insert(e.mtime);
                        *time = e.mtime.max(*time);
                    }
                }
            }
        }
        for (path, mtime) in missing {
            let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime };
            let path: TreePath = path.parse().map_err(SourceError::BadPath)?;
            let Attributes { mode, uid, gid, .. } = attributes;
            let node = TreeNode::Dir;
            self.entries.insert(path.clone(), TreeEntry { path, mode, uid, gid, mtime, node });
        }
        if self.entries.len() > TREE_ENTRIES_MAX {
            return Err(SourceError::TooManyEntries(TREE_ENTRIES_MAX));
        }
        Ok(())
    }
}

/// Does a relative link, read as text, lead above the tree? The same rule as on every host, asked
/// here so that the maintainer sees the link's own text.
fn climbs_out(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count().saturating_sub(1);
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
