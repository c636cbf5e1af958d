//! From the trees of several packages to the one tree that a VM shows: the rules of the union.
//!
//! The result depends only on the trees, so that every host makes the same set of them. A path
//! that two packages fill differently is refused with both names; directories may be shared when
//! they agree on owner and mode.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stork_wire::codec::{List, encode};
use stork_wire::ids::{BadId, ManifestId, hex, unhex};
use stork_wire::manifest::{Tree, TreeEntry, TreeNode};

use super::{SetForm, StoreError};
use crate::erofs::ErofsError;

/// A package set: the hash of its merged tree and its form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetId(pub [u8; 32]);

impl SetId {
    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// The first ten hexadecimal digits, for tables and logs.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetId({})", self.short())
    }
}

impl FromStr for SetId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        // Only the canonical form: a set id is also the name of a folder.
        let id = unhex(s).and_then(|v| <[u8; 32]>::try_from(v).ok()).map(Self);
        id.filter(|id| id.to_string() == s).ok_or_else(|| BadId(s.chars().take(80).collect()))
    }
}

impl TryFrom<String> for SetId {
    type Error = BadId;
    fn try_from(s: String) -> Result<Self, BadId> {
        s.parse()
    }
}

impl From<SetId> for String {
    fn from(id: SetId) -> Self {
        id.to_string()
    }
}

/// One release of a package set.
#[derive(Debug, Clone)]
pub struct SetMember {
    /// Package and version, for messages.
    pub label: String,
    /// The manifest that the tree is from.
    pub manifest: ManifestId,
    /// Its tree, of which every file is in the store.
    pub tree: Tree,
    /// Does the VM's policy allow this package setuid files, devices and the like?
    pub privileged_allowed: bool,
}

/// What a package set is made of.
#[derive(Debug, Clone)]
pub struct SetSpec {
    /// The releases; their order does not matter.
    pub members: Vec<SetMember>,
    /// What is kept on disk: sets of different forms are different sets.
    pub form: SetForm,
}

/// Why a package set was not built. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The publishers' or the operator's: two packages fill one path differently.
    #[error("`{path}` is in {a} and in {b}, and {why}")]
    Conflict {
        /// The path.
        path: String,
        /// One package.
        a: String,
        /// The other one.
        b: String,
        /// How they differ.
        why: &'static str,
    },
    /// The operator's: an entry needs a privilege that the policy does not grant.
    #[error("`{path}` of {package} is {what}, which this VM's policy does not allow")]
    Privilege {
        /// The path.
        path: String,
        /// The privilege.
        what: &'static str,
        /// The package.
        package: String,
    },
    /// Ours: not every file of a package is here.
    #[error("{package} is not here completely")]
    Incomplete {
        /// The package.
        package: String,
    },
    /// The publisher's: a tree breaks the rules of trees.
    #[error("the tree of {package} is refused: {why}")]
    BadTree {
        /// The package.
        package: String,
        /// The rule.
        why: String,
    },
    /// The operator's: all packages together have too many entries.
    #[error("the set has {entries} entries, more than a tree may have")]
    TooLarge {
        /// Entries of the set.
        entries: usize,
    },
    /// The operator's: a device can only be made by root.
    #[error("`{path}` is a device, which only root can make")]
    NeedsRoot {
        /// The path.
        path: String,
    },
    /// The publisher's or the operator's: a release can't be a package of a repository.
    #[error("{package} can't go into a repository: {why}")]
    NotForRepository {
        /// The package.
        package: String,
        /// Why.
        why: String,
    },
    /// The publisher's: the tree has no image.
    #[error("the packages cannot be shown as an image")]
    Image(#[from] ErofsError),
    /// The operator's: hard links can't leave a file system.
    #[error("`{path}` is on another file system than the store")]
    OtherFileSystem {
        /// The folder.
        path: String,
    },
}

/// A merged tree.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) id: SetId,
    pub(super) tree: Tree,
    /// It holds setuid or setgid files or privileged attributes.
    pub(super) suid: bool,
    /// It holds devices.
    pub(super) devices: bool,
}

/// What stands at a path: the entry, its package, and for a shared directory the greatest time.
#[derive(Clone, Copy)]
struct Place<'a> {
    entry: &'a TreeEntry,
    member: &'a SetMember,
    mtime: i64,
}

/// How two entries of one path differ; `None` if they can be one.
fn difference(a: &TreeEntry, b: &TreeEntry) -> Option<&'static str> {
    match (&a.node, &b.node) {
        (TreeNode::Dir, TreeNode::Symlink { .. }) | (TreeNode::Symlink { .. }, TreeNode::Dir) => {
            Some("one has a directory where the other has a symbolic link")
        }
        (TreeNode::File { content: x, .. }, TreeNode::File { content: y, .. }) if x != y => {
            Some("they differ in content")
        }
        (TreeNode::Symlink { target: x }, TreeNode::Symlink { target: y }) if x != y => {
            Some("the links lead to different places")
        }
        (x, y) if std::mem::discriminant(x) != std::mem::discriminant(y) => {
            Some("they differ in kind")
        }
        (x, y) if x != y => Some("they differ in what they hold"),
        // Everybody may do everything with a link; only its target counts.
        _ if a.mode != b.mode && !matches!(a.node, TreeNode::Symlink { .. }) => {
            Some("they differ in mode")
        }
        _ if (a.uid, a.gid) != (b.uid, b.gid) => Some("they differ in owner"),
        _ => None,
    }
}

fn check_member(member: &SetMember) -> Result<(), SetError> {
    member
        .tree
        .check()
        .map_err(|e| SetError::BadTree { package: member.label.clone(), why: e.to_string() })?;
    if member.privileged_allowed {
        return Ok(());
    }
    let first = member.tree.entries.iter().find_map(|e| e.privilege().map(|what| (e, what)));
    first.map_or(Ok(()), |(e, what)| {
        Err(SetError::Privilege { path: e.path.to_string(), what, package: member.label.clone() })
    })
}

/// The identity of a set: the tag of its form, its tree, and its manifests where the form holds
/// more of them than the tree.
pub(super) fn set_id(
    tag: &str,
    tree: &Tree,
    manifests: impl IntoIterator<Item = ManifestId>,
) -> SetId {
    const CONTEXT: &str = "stork 2026 set id v1";
    if !SetForm::of_tag(tag).is_some_and(SetForm::covers_manifests) {
        return SetId(blake3::derive_key(CONTEXT, &encode(&(tag, tree))));
    }
    let manifests: BTreeSet<ManifestId> = manifests.into_iter().collect();
    let manifests: Vec<ManifestId> = manifests.into_iter().collect();
    SetId(blake3::derive_key(CONTEXT, &encode(&(tag, tree, manifests))))
}

/// Merges the trees of a set and names the result.
pub(super) fn merge(spec: &SetSpec) -> Result<Merged, SetError> {
    let mut places: BTreeMap<&str, Place<'_>> = BTreeMap::new();
    for member in &spec.members {
        check_member(member)?;
        if !spec.form.merges() {
            continue;
        }
        for entry in &member.tree.entries {
            let new = Place { entry, member, mtime: entry.mtime };
            let Some(old) = places.insert(entry.path.as_str(), new) else { continue };
            if let Some(why) = difference(old.entry, entry) {
                let labels = [&old.member.label, &member.label];
                let [a, b] = if labels[0] <= labels[1] { labels } else { [labels[1], labels[0]] };
                let path = entry.path.to_string();
                return Err(SetError::Conflict { path, a: a.clone(), b: b.clone(), why });
            }
            if let Some(place) = places.get_mut(entry.path.as_str()) {
                place.mtime = old.mtime.max(entry.mtime);
            }
        }
    }
    let entries: Vec<TreeEntry> =
        places.values().map(|p| TreeEntry { mtime: p.mtime, ..p.entry.clone() }).collect();
    let count = entries.len();
    let entries = List::new(entries).map_err(|_e| SetError::TooLarge { entries: count })?;
    let tree = Tree { entries };
    let id = set_id(spec.form.tag(), &tree, spec.members.iter().map(|m| m.manifest));
    Ok(Merged::new(id, tree))
}

impl Merged {
    /// A tree with its id, and what it needs of a mount.
    pub(super) fn new(id: SetId, tree: Tree) -> Self {
        let is_device = |e: &TreeEntry| {
            matches!(e.node, TreeNode::CharDevice { .. } | TreeNode::BlockDevice { .. })
        };
        let is_suid =
            |e: &TreeEntry| e.privilege().is_some() && matches!(e.node, TreeNode::File { .. });
        let (devices, suid) =
            (tree.entries.iter().any(is_device), tree.entries.iter().any(is_suid));
        Self { id, tree, suid, devices }
    }
}
