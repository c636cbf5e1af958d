//! Forms: what is kept on disk for a package set, and who builds it.
//!
//! Backends that show a set in the same form share one set. To add a form: a variant of
//! [`SetForm`] with its tag (never the tag of an older form), a file here with its builder, and
//! its arms in [`Store::build_form`] and [`Store::form_whole`]. The rest of the store asks only
//! these: building in a temporary place, the record, leases, collection, quarantine and recovery
//! are the same for all forms.

mod folder;

use std::path::Path;

use stork_wire::ids::{ManifestId, TreeId};
use stork_wire::manifest::Tree;

use super::merge::SetError;
use super::sets::SetInfo;
use super::{Store, StoreError};

/// What a set is on disk, at `sets/<set id>`: a file or a folder, as the form wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetForm {
    /// A folder of hard links to objects.
    Folder,
}

impl SetForm {
    /// The word that stands in the set's record and goes into its id.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            // The name of its first backend, so that the sets of earlier versions keep their ids.
            Self::Folder => "tree",
        }
    }

    /// The form of a record. None of a later version's: such a set is built again where it is
    /// wanted, and otherwise removed once no lease names it.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        match tag {
            // Earlier versions built a second folder, of the same shape, for `hardlink` views.
            "tree" | "hardlink" => Some(Self::Folder),
            _ => None,
        }
    }

    /// Does the set hold more of its releases than the merged tree, so that its id must cover
    /// their manifests as well?
    #[must_use]
    pub const fn covers_manifests(self) -> bool {
        match self {
            Self::Folder => false,
        }
    }
}

/// What a builder is given.
#[derive(Debug)]
pub(super) struct Material<'a> {
    /// The merged tree; every file of it is an object of the store.
    pub(super) tree: &'a Tree,
    /// The releases: label, manifest, tree. Their manifests are in the store.
    #[expect(dead_code, reason = "the form of package repositories reads the manifests")]
    pub(super) members: &'a [(String, ManifestId, TreeId)],
}

impl Store {
    /// Builds a set in its form at `dest`, where nothing is, durably; the name `dest` itself is
    /// made durable by the caller. On an error nothing is left of it.
    pub(super) fn build_form(
        &self,
        form: SetForm,
        what: &Material<'_>,
        dest: &Path,
    ) -> Result<(), SetError> {
        match form {
            SetForm::Folder => self.link_tree(what.tree, dest),
        }
    }

    /// Are the bytes that the form itself holds still as they were built? Objects are looked at
    /// apart. For `stork verify`.
    #[expect(clippy::unnecessary_wraps, reason = "forms with bytes of their own read them")]
    pub(super) fn form_whole(&self, set: &SetInfo) -> Result<bool, StoreError> {
        match set.form {
            SetForm::Folder => Ok(true),
        }
    }
}
