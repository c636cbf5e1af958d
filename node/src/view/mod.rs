//! Views: what a VM sees of its package set, switched in one step and kept as numbered generations
//! (design §9).
//!
//! A generation is recorded before the switch and marked as shown after it. What is really shown
//! is asked of the kernel or of the file system, so that [`Views::reconcile`] can finish or undo
//! what a crash cut in two, and show the view again after a reboot.

mod error;
mod generations;
mod hardlink;
pub mod hook;
mod mounts;
mod sys;
mod tree;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use stork_wire::text::Label;

pub use error::ViewError;
pub use generations::{Generation, GenerationLabel, GenerationState, ReleaseLabel};

use crate::store::{SetId, SetInfo, Store};
use crate::{failpoint, sandbox};

/// Makes a folder for views, step by step and following no link, and opens it.
pub(crate) fn make_folder(vm: &Label, path: &Path) -> Result<OwnedFd, ViewError> {
    tree::make_folder(vm, path)
}

/// How a view is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The set's folder, mounted read-only. Needs root.
    Tree,
    /// A tree of hard links.
    Hardlink,
}

impl Backend {
    /// The tag that a package set is built for.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Hardlink => "hardlink",
        }
    }
}

/// What keeps a VM from changing what others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The view can't be written by the VM.
    #[default]
    Default,
    /// The operator trusts the VM's root not to write into shared files.
    None,
}

/// Generations that are kept where nothing else is said.
pub const KEEP_GENERATIONS: usize = 5;

/// The view of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSpec {
    /// Whose view.
    pub vm: Label,
    /// How it is shown.
    pub backend: Backend,
    /// Where.
    pub target: PathBuf,
    /// What keeps it safe.
    pub isolation: Isolation,
    /// How many generations are kept; at least one is.
    pub keep_generations: usize,
}

/// What [`Views::reconcile`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciled {
    /// The VM has no generation yet.
    Nothing,
    /// The current generation is shown.
    AsItWas,
    /// A switch that was cut had been made, and is now recorded as made.
    Finished,
    /// A switch that was cut had not been made, and its generation is gone.
    Undone,
    /// The view was not there, after a reboot perhaps, and is shown again.
    ShownAgain,
}

/// The views of this host's VMs.
#[derive(Debug)]
pub struct Views {
    store: Arc<Store>,
    /// One switch at a time: each is a few system calls.
    switching: Mutex<()>,
}

impl Views {
    /// Views of what this store holds.
    #[must_use]
    pub const fn new(store: Arc<Store>) -> Self {
        Self { store, switching: Mutex::new(()) }
    }

    fn one(&self) -> MutexGuard<'_, ()> {
        self.switching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a view could be shown, without touching anything: to refuse a wrong file of a
    /// VM when it is read.
    pub fn check(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        tree::check_target(&self.store, spec)?;
        if let Some(why) = sandbox::refuses(spec.backend, &spec.target) {
            let (vm, target) = (spec.vm.clone(), spec.target.clone());
            return Err(ViewError::Sandbox { vm, target, why, mounted: spec.backend });
        }
        match spec.backend {
            Backend::Tree => Ok(()),
            Backend::Hardlink => hardlink::check(spec),
        }
    }

    /// Shows a set to a VM as its next generation. Hold the store ([`Store::hold`]) from before
    /// the set is built until this returns.
    ///
    /// # Errors
    /// The VM then sees what it saw before, and no generation was added.
    pub fn show(
        &self,
        spec: &ViewSpec,
        set: &SetInfo,
        label: GenerationLabel,
        now_unix: u64,
    ) -> Result<Generation, ViewError> {
        self.check(spec)?;
        let _one = self.one();
        let pending = self.record(spec, set.id, label, now_unix)?;
        failpoint::hit("view.generation.recorded");
        if let Err(e) = self.switch(spec, set, pending.number) {
            // A failed check after a switch means that the new set may be there: then it stays.
            if !matches!(self.actual(spec), Ok(Some(id)) if id == set.id) {
                self.forget(&spec.vm, pending.number)?;
            }
            return Err(e);
        }
        let generation = self.make_current(pending)?;
        failpoint::hit("view.switched");
        self.prune(spec, generation.number)?;
        Ok(generation)
    }

    fn switch(&self, spec: &ViewSpec, set: &SetInfo, number: u64) -> Result<(), ViewError> {
        match spec.backend {
            Backend::Tree => tree::switch(&self.store, spec, set),
            Backend::Hardlink => hardlink::switch(&self.store, spec, set, number),
        }
    }

    fn actual(&self, spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
        match spec.backend {
            Backend::Tree => tree::shown(&self.store, spec),
            Backend::Hardlink => hardlink::shown(spec),
        }
    }

    /// Which set the VM sees right now, asked of the kernel or of the file system.
    pub fn shown(&self, spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
        let _one = self.one();
        self.actual(spec)
    }

    /// Brings records and reality together: at every start, and whenever a view was found missing.
    pub fn reconcile(&self, spec: &ViewSpec) -> Result<Reconciled, ViewError> {
        self.check(spec)?;
        let _one = self.one();
        let mut done = Reconciled::AsItWas;
        for pending in self.pending(&spec.vm)? {
            if spec.backend == Backend::Tree {
                tree::uncover(&self.store, spec, Some(pending.set))?;
            }
            if self.actual(spec)? == Some(pending.set) {
                self.make_current(pending)?;
                done = Reconciled::Finished;
            } else {
                self.forget(&spec.vm, pending.number)?;
                done = Reconciled::Undone;
            }
        }
        let Some(current) = self.current(&spec.vm)? else {
            return Ok(if done == Reconciled::Undone { done } else { Reconciled::Nothing });
        };
        if spec.backend == Backend::Tree {
            tree::uncover(&self.store, spec, Some(current.set))?;
        }
        if self.actual(spec)? != Some(current.set) {
            let set = self.store.set_info(current.set)?.ok_or(ViewError::NoSet(current.set))?;
            self.switch(spec, &set, current.number)?;
            done = Reconciled::ShownAgain;
        }
        self.write_number(&current)?;
        if spec.backend == Backend::Hardlink {
            hardlink::tidy(&self.store, spec, false)?;
        }
        self.prune(spec, current.number)?;
        Ok(done)
    }

    /// Removes what a switch left behind: replaced trees of links, and generations whose old
    /// mounts are gone by now. For a timer.
    pub fn tidy(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        let _one = self.one();
        if spec.backend == Backend::Hardlink {
            hardlink::tidy(&self.store, spec, false)?;
        }
        match self.current(&spec.vm)? {
            Some(current) => self.prune(spec, current.number),
            None => Ok(()),
        }
    }

    /// Shows the VM nothing any more and forgets its generations.
    pub fn hide(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        tree::check_target(&self.store, spec)?;
        let _one = self.one();
        match spec.backend {
            Backend::Tree => tree::uncover(&self.store, spec, None)?,
            Backend::Hardlink => hardlink::hide(&self.store, spec)?,
        }
        self.forget_all(&spec.vm)
    }
}
