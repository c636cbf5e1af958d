//! From a tree's sorted entries to nodes: one for every inode, with names apart from them.

use std::collections::BTreeMap;

use stork_wire::ids::ContentId;
use stork_wire::manifest::{Tree, TreeEntry, TreeNode};

use super::dirs::{Dir, Name};
use super::overlay::{self, Reader};
use super::{ErofsError, Files, format};

/// What a node is, in the numbers of directory entries and in those of modes.
const REGULAR: (u8, u16) = (1, 0o100_000);
const DIRECTORY: (u8, u16) = (2, 0o040_000);
const CHARACTER: (u8, u16) = (3, 0o020_000);
const BLOCK: (u8, u16) = (4, 0o060_000);
const PIPE: (u8, u16) = (5, 0o010_000);
const SYMLINK: (u8, u16) = (7, 0o120_000);

/// What the bytes of a node are.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Dir(Dir<'a>),
    Link(&'a str),
    /// A regular file in the image.
    File {
        content: ContentId,
        size: u64,
    },
    /// A regular file whose bytes are beside.
    Beside {
        size: u64,
    },
    /// A device or pipe.
    Special(u32),
}

/// One inode.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) links: u32,
    pub(super) attributes: Vec<u8>,
    pub(super) body: Body<'a>,
    kind: u8,
}

struct Builder<'a> {
    nodes: Vec<Node<'a>>,
    /// The names in each directory, by its node.
    names: BTreeMap<usize, Vec<Name<'a>>>,
    /// Nodes by path.
    places: BTreeMap<&'a str, usize>,
}

fn lost(entry: &TreeEntry) -> ErofsError {
    ErofsError::Tree { path: entry.path.to_string() }
}

fn device(entry: &TreeEntry, major: u32, minor: u32) -> Result<Body<'static>, ErofsError> {
    let number = format::device(major, minor);
    number.map(Body::Special).ok_or_else(|| ErofsError::Device { path: entry.path.to_string() })
}

impl<'a> Builder<'a> {
    /// Adds a node; a directory names itself and its parent.
    fn add(&mut self, node: Node<'a>, parent: Option<usize>) -> usize {
        let (number, is_dir) = (self.nodes.len(), node.kind == DIRECTORY.0);
        self.nodes.push(node);
        if is_dir {
            let name = |name, node| Name { name, node, kind: DIRECTORY.0 };
            let own = vec![name(b".".as_slice(), number), name(b"..", parent.unwrap_or(number))];
            self.names.insert(number, own);
        }
        number
    }

    /// Gives a node a further name.
    fn link(&mut self, entry: &'a TreeEntry, parent: usize, node: usize) -> Result<(), ErofsError> {
        let kind = self.nodes.get(node).ok_or_else(|| lost(entry))?.kind;
        let names = self.names.get_mut(&parent).ok_or_else(|| lost(entry))?;
        names.push(Name { name: entry.path.name().as_bytes(), node, kind });
        // A directory's links are its names: that in its parent, `.`, and `..` of those in it.
        let counted = if kind == DIRECTORY.0 { parent } else { node };
        if let Some(node) = self.nodes.get_mut(counted) {
            node.links = node.links.saturating_add(1);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &'a TreeEntry, files: Files<'_>) -> Result<(), ErofsError> {
        let parent = match entry.path.parent() {
            Some(dir) => *self.places.get(dir).ok_or_else(|| lost(entry))?,
            None => 0,
        };
        if let TreeNode::Hardlink { target } = &entry.node {
            let node = *self.places.get(target.as_str()).ok_or_else(|| lost(entry))?;
            if self.nodes.get(node).is_none_or(|n| n.kind != REGULAR.0) {
                return Err(lost(entry));
            }
            return self.link(entry, parent, node);
        }
        let node = new_node(entry, files)?;
        let number = self.add(node, Some(parent));
        self.places.insert(entry.path.as_str(), number);
        self.link(entry, parent, number)
    }

    fn finish(mut self) -> Vec<Node<'a>> {
        for (number, names) in self.names {
            if let Some(node) = self.nodes.get_mut(number) {
                node.body = Body::Dir(Dir::new(names));
            }
        }
        self.nodes
    }
}

/// The inode of an entry, as yet without a name. Directories get their names at the end.
fn new_node<'a>(entry: &'a TreeEntry, files: Files<'_>) -> Result<Node<'a>, ErofsError> {
    let is_layer = matches!(files, Files::Beside(_));
    let mut attributes = Vec::new();
    let ((kind, type_bits), body) = match &entry.node {
        TreeNode::Dir => (DIRECTORY, Body::Dir(Dir::new(Vec::new()))),
        TreeNode::Symlink { target } => (SYMLINK, Body::Link(target.as_str())),
        TreeNode::File { content, size, xattrs } => {
            let (content, size) = (*content, *size);
            let body = match files {
                Files::Beside(path) if size > 0 => {
                    let path = path(entry);
                    attributes = overlay::attributes(entry, xattrs, Reader::Overlay(Some(&path)))?;
                    Body::Beside { size }
                }
                Files::Beside(_) | Files::Inside(_) => {
                    let reader = if is_layer { Reader::Overlay(None) } else { Reader::Anybody };
                    attributes = overlay::attributes(entry, xattrs, reader)?;
                    Body::File { content, size }
                }
            };
            (REGULAR, body)
        }
        TreeNode::Fifo => (PIPE, Body::Special(0)),
        TreeNode::CharDevice { major: 0, minor: 0 } if is_layer => {
            return Err(ErofsError::Whiteout { path: entry.path.to_string() });
        }
        TreeNode::CharDevice { major, minor } => (CHARACTER, device(entry, *major, *minor)?),
        TreeNode::BlockDevice { major, minor } => (BLOCK, device(entry, *major, *minor)?),
        // It has no inode of its own; the caller gives its target a name.
        TreeNode::Hardlink { .. } => return Err(lost(entry)),
    };
    // Every link has mode 0777, as the kernel gives it.
    let bits = if kind == SYMLINK.0 { 0o777 } else { entry.mode & 0o7777 };
    Ok(Node {
        mode: type_bits | bits,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        links: if kind == DIRECTORY.0 { 2 } else { 0 },
        attributes,
        body,
        kind,
    })
}

/// The nodes of a tree, the top first. The top has no entry: it is root's, and as new as the
/// newest entry, as the top of a folder of links is.
pub(super) fn nodes<'a>(tree: &'a Tree, files: Files<'_>) -> Result<Vec<Node<'a>>, ErofsError> {
    let mut builder =
        Builder { nodes: Vec::new(), names: BTreeMap::new(), places: BTreeMap::new() };
    let top = Node {
        mode: DIRECTORY.1 | 0o755,
        uid: 0,
        gid: 0,
        mtime: tree.entries.iter().map(|e| e.mtime).max().unwrap_or(0),
        links: 2,
        attributes: Vec::new(),
        body: Body::Dir(Dir::new(Vec::new())),
        kind: DIRECTORY.0,
    };
    builder.add(top, None);
    for entry in &tree.entries {
        builder.entry(entry, files)?;
    }
    Ok(builder.finish())
}

/// The time that most nodes have, the earliest of several: it needs no room in their inodes.
pub(super) fn epoch(nodes: &[Node<'_>]) -> i64 {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for node in nodes {
        *counts.entry(node.mtime).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(time, count)| (**count, std::cmp::Reverse(**time)));
    most.map_or(0, |(time, _)| *time)
}
