//! What a backend of a view does, and which one does it.
//!
//! To add a backend: a variant of [`Backend`] with its name (`catalog/vm.rs`), a file here with a
//! type that is [`Show`], a line in [`show`], and a section in docs/VIEWS.md. All else asks only
//! what stands here: checking VM files, the sandbox, switching, reconciling, pruning, hiding.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stork_wire::ids::ManifestId;

use super::private::Carried;
use super::{
    Backend, Generation, Ground, ViewError, ViewSpec, composefs, hardlink, image, mounts, overlay,
    sysext, tree,
};
use crate::store::{SetForm, SetId, SetInfo};

/// One switch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// What is to be shown, in the form that the backend asked for.
    pub(super) set: &'a SetInfo,
    /// The generation that shows it; recorded, and leased.
    pub(super) next: &'a Generation,
    /// The generation that `next` goes on from: the one shown before, or the one that a rollback
    /// shows again. None for a first one, and where a view that vanished is shown again.
    pub(super) from: Option<&'a Generation>,
    /// The manifests of what `next` and `from` show: they name configuration files.
    pub(super) manifests: &'a [ManifestId],
}

/// What a target shows, asked of the kernel or of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub(super) set: SetId,
    /// Which generation, where the backend makes one different from another of the same set.
    pub(super) generation: Option<u64>,
}

impl Seen {
    /// A view that is the same for all generations of a set.
    pub(super) const fn of_set(set: SetId) -> Self {
        Self { set, generation: None }
    }

    /// Is this what that generation shows?
    pub(super) fn is(&self, generation: &Generation) -> bool {
        self.set == generation.set && self.generation.is_none_or(|n| n == generation.number)
    }
}

/// A backend. Calls are made one at a time, and each may be cut by a crash at any point; `shown`,
/// `mend` and a further `switch` must then bring the view to one whole generation.
pub(super) trait Show: Sync {
    /// What the set must be on disk.
    fn form(&self) -> SetForm;

    /// Does it need the right to mount on this host?
    fn mounts(&self) -> bool;

    /// Checks that a view could be shown, without touching anything. The target was checked.
    fn check(&self, _spec: &ViewSpec) -> Result<(), ViewError> {
        Ok(())
    }

    /// Shows a set in one step, in place of what of ours is at the target. Refuses to cover what
    /// is not ours.
    ///
    /// # Errors
    /// The VM then sees what it saw before, or already the new set: `shown` tells.
    fn switch(&self, ground: &Ground<'_>, spec: &ViewSpec, step: Step<'_>)
    -> Result<(), ViewError>;

    /// What the target really shows; none where that is nothing of ours.
    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError>;

    /// Finishes a switch to `to` that was cut between its steps, as far as it had been made.
    fn mend(
        &self,
        _ground: &Ground<'_>,
        _spec: &ViewSpec,
        _to: &Generation,
    ) -> Result<(), ViewError> {
        Ok(())
    }

    /// Removes what switches left behind and nobody needs any more. Called by a timer.
    /// `kept` are the numbers of the VM's generations.
    fn tidy(
        &self,
        _ground: &Ground<'_>,
        _spec: &ViewSpec,
        _kept: &BTreeSet<u64>,
    ) -> Result<(), ViewError> {
        Ok(())
    }

    /// Takes away all that is ours at the target.
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError>;

    /// Does each generation have something of its own, so that one is not like another of the same
    /// set?
    fn per_generation(&self) -> bool {
        false
    }

    /// Does any process still see the generation, through an old mount perhaps? It is then kept.
    fn in_use(&self, ground: &Ground<'_>, generation: &Generation) -> bool {
        mounts::shown_anywhere(ground, generation.set)
    }

    /// Removes what the backend kept for a generation that is dropped: it was never shown, or is
    /// not shown any more.
    fn drop_generation(
        &self,
        _ground: &Ground<'_>,
        _spec: &ViewSpec,
        _number: u64,
    ) -> Result<(), ViewError> {
        Ok(())
    }

    /// What became of the VM's private changes when a generation came; none where it has none.
    fn carried(&self, _ground: &Ground<'_>, _spec: &ViewSpec, _number: u64) -> Option<Carried> {
        None
    }
}

/// Who shows views in this way.
pub(super) fn show(backend: Backend) -> &'static dyn Show {
    match backend {
        Backend::Tree | Backend::Virtiofs => &tree::Tree { form: SetForm::Folder },
        Backend::Packages => &tree::Tree { form: SetForm::Repository },
        Backend::Sysext => &sysext::Sysext,
        Backend::Hardlink => &hardlink::Hardlink,
        Backend::Composefs => &composefs::Composefs,
        Backend::Image => &image::Image,
        Backend::Overlay => &overlay::Overlay,
    }
}

/// The form that a package set must have for this backend.
#[must_use]
pub fn form_of(backend: Backend) -> SetForm {
    show(backend).form()
}

/// Does the daemon need the right to mount for this backend?
#[must_use]
pub fn mounts_for(backend: Backend) -> bool {
    show(backend).mounts()
}
