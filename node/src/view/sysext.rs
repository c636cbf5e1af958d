//! The backend `sysext`: a system extension, mounted read-only like a `tree`.
//!
//! systemd takes the name of the folder for the name of the extension, and looks for a file of that
//! name in it; hence the target must end so.

use super::backend::{Seen, Show, Step};
use super::target::refuse;
use super::tree::{self, Tree};
use super::{Generation, Ground, ViewError, ViewSpec};
use crate::store::{SYSEXT_NAME, SetForm};

const MOUNT: Tree = Tree { form: SetForm::Sysext };

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Sysext;

impl Show for Sysext {
    fn form(&self) -> SetForm {
        SetForm::Sysext
    }
    fn mounts(&self) -> bool {
        true
    }
    fn check(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        if spec.target.file_name().is_some_and(|n| n == SYSEXT_NAME) {
            return Ok(());
        }
        Err(refuse(spec, "the target of a system extension must end in `/stork`, its name"))
    }
    fn switch(
        &self,
        ground: &Ground<'_>,
        spec: &ViewSpec,
        step: Step<'_>,
    ) -> Result<(), ViewError> {
        tree::switch(ground, spec, step.set)
    }
    fn shown(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        MOUNT.shown(ground, spec)
    }
    fn mend(&self, ground: &Ground<'_>, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        MOUNT.mend(ground, spec, to)
    }
    fn hide(&self, ground: &Ground<'_>, spec: &ViewSpec) -> Result<(), ViewError> {
        MOUNT.hide(ground, spec)
    }
}
