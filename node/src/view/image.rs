//! The backend `image`: a folder with the image of a file system, for guests with a kernel of
//! their own.
//!
//! The target shows the set's folder, which holds one file, mounted and switched as by `tree`.
//! Whoever runs the guest gives that file to it as a read-only device; even as root it cannot be
//! opened for writing there, so that a wrong setting of the hypervisor does no harm to others. A
//! link beside the target, renamed over the old one, could not promise that. A guest that runs has
//! the file of its start open and keeps it; it sees the new one at its next start, or when the
//! device is plugged again.

use super::backend::{Seen, Show, Step};
use super::tree::{shown, switch, uncover};
use super::{Generation, Ground, ViewError, ViewSpec};
use crate::store::SetForm;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Image;

impl Show for Image {
    fn form(&self) -> SetForm {
        SetForm::Image
    }
    fn mounts(&self) -> bool {
        true
    }
    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        switch(ground, spec, step.set)
    }
    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        Ok(shown(ground, spec)?.map(Seen::of_set))
    }
    fn mend(&self, ground: &Ground<'_>, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        uncover(ground, spec, Some(to.set))
    }
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        uncover(ground, spec, None)
    }
}
