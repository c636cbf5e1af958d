//! Forms: what is kept on disk for a package set, and who builds it.
//!
//! Backends that show a set in the same form share one set. To add a form: a variant of
//! [`SetForm`] with its tag (never the tag of an older form), a file here with its builder, and
//! its arms in [`Store::build_form`] and [`Store::form_whole`]. The rest of the store asks only
//! these: building in a temporary place, the record, leases, collection, quarantine and recovery
//! are the same for all forms.

mod archives;
mod erofs;
mod folder;
mod repository;
mod sysext;

pub(super) use archives::DEBS;
pub use repository::repository_key;
pub use sysext::SYSEXT_NAME;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stork_wire::ids::{ManifestId, TreeId};
use stork_wire::manifest::Tree;

use super::merge::SetError;
use super::sets::SetInfo;
use super::{Store, StoreError};

pub use erofs::{IMAGE, IMAGE_ALIGN};

/// What a set is on disk, at `sets/<set id>`: a file or a folder, as the form wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetForm {
    /// A folder of hard links to objects.
    Folder,
    /// A repository of the releases, for apt and for dnf.
    Repository,
    /// The folder with the file that makes it a system extension.
    Sysext,
    /// A file: an EROFS image of names and inodes, whose files lead to objects.
    Metadata,
    /// A folder with an EROFS image of everything, [`IMAGE`].
    Image,
}

impl SetForm {
    /// The word that stands in the set's record and goes into its id.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            // The name of its first backend, so that the sets of earlier versions keep their ids.
            Self::Folder => "tree",
            Self::Repository => "repository",
            Self::Sysext => "sysext",
            Self::Metadata => "erofs-metadata",
            Self::Image => "erofs-image",
        }
    }

    /// The form of a record. None of a later version's: such a set is built again where it is
    /// wanted, and otherwise removed once no lease names it.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        match tag {
            // Earlier versions built a second folder, of the same shape, for `hardlink` views.
            "tree" | "hardlink" => Some(Self::Folder),
            "repository" => Some(Self::Repository),
            "sysext" => Some(Self::Sysext),
            "erofs-metadata" => Some(Self::Metadata),
            "erofs-image" => Some(Self::Image),
            _ => None,
        }
    }

    /// Does the set hold more of its releases than the merged tree, so that its id must cover
    /// their manifests as well?
    #[must_use]
    pub const fn covers_manifests(self) -> bool {
        match self {
            Self::Folder | Self::Sysext | Self::Metadata | Self::Image => false,
            Self::Repository => true,
        }
    }

    /// Does it hold the bytes of its releases once more, beside the objects that all forms share?
    #[must_use]
    pub const fn keeps_copy(self) -> bool {
        match self {
            Self::Folder | Self::Sysext | Self::Metadata => false,
            Self::Repository | Self::Image => true,
        }
    }

    /// Are the trees of the releases merged into one? Where not, the guest's own package manager
    /// judges what goes together, and the tree of the set is empty.
    #[must_use]
    pub const fn merges(self) -> bool {
        match self {
            Self::Folder | Self::Sysext | Self::Metadata | Self::Image => true,
            Self::Repository => false,
        }
    }
}

/// What a builder is given.
#[derive(Debug)]
pub(super) struct Material<'a> {
    /// The merged tree; every file of it is an object of the store.
    pub(super) tree: &'a Tree,
    /// The releases: label, manifest, tree. Their manifests are in the store.
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
            SetForm::Repository => self.make_repository(what.members, dest),
            SetForm::Sysext => self.make_sysext(what.tree, dest),
            SetForm::Metadata => self.build_metadata(what.tree, dest),
            SetForm::Image => self.build_image(what.tree, dest),
        }
    }

    /// Bytes of images and archives: what forms that keep copies take beside the objects.
    pub(super) fn copy_bytes(&self) -> Result<u64, StoreError> {
        // An image is padded by a hole.
        let len = |path: &Path| path.symlink_metadata().map_or(0, |m| m.blocks() * 512);
        let images = self.sets()?.into_iter().filter(|set| set.form == SetForm::Image);
        let images: u64 = images.map(|set| len(&set.path.join(IMAGE))).sum();
        let archives = self.dir.join(DEBS);
        let names = super::open::names(&archives).map_err(|f| self.fault(f))?;
        Ok(images + names.iter().map(|name| len(&archives.join(name))).sum::<u64>())
    }

    /// Are the bytes that the form itself holds still as they were built? Objects are looked at
    /// apart. For `stork verify`.
    pub(super) fn form_whole(&self, set: &SetInfo) -> Result<bool, StoreError> {
        match set.form {
            SetForm::Folder => Ok(true),
            SetForm::Repository => self.repository_whole(set),
            SetForm::Sysext => Ok(Self::sysext_whole(set)),
            SetForm::Metadata | SetForm::Image => self.image_whole(set),
        }
    }
}
