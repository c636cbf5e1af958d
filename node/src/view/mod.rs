//! Views: what a VM sees of its package set, switched in one step and kept as numbered generations
//! (design §9).
//!
//! A generation is recorded before the switch and marked as shown after it. What is really shown
//! is asked of the kernel or of the file system, so that [`Views::reconcile`] can finish or undo
//! what a crash cut in two, and show the view again after a reboot.

mod backend;
mod composefs;
mod error;
mod generations;
mod ground;
mod hardlink;
mod holders;
pub mod hook;
mod idmap;
mod image;
mod mounts;
mod number;
mod obey;
pub mod order;
mod overlay;
mod private;
pub mod probe;
mod sys;
mod sysext;
mod target;
mod tree;
mod work;

#[cfg(test)]
mod hook_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod obey_tests;
#[cfg(test)]
mod overlay_tests;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use stork_wire::text::Label;

pub use backend::{form_of, mounts_for};
pub use error::ViewError;
pub use generations::{Generation, GenerationLabel, GenerationState, ReleaseLabel};
pub use holders::{Holder, Holders};
pub use idmap::prepare_all as prepare_maps;
pub use obey::obey;
pub use private::{Carried, Hides, Shadowed};
pub(crate) use sys::{Shared, dedupe, no_network};

use ground::Ground;

pub use crate::catalog::{Backend, IdMap, ViewOptions};
use crate::store::{SetId, SetInfo, Store};
use crate::{failpoint, sandbox};

/// Makes a folder for views, step by step and following no link, and opens it.
pub(crate) fn make_folder(vm: &Label, path: &Path) -> Result<OwnedFd, ViewError> {
    target::make_folder(vm, path)
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
    /// What else its file says about it.
    pub options: ViewOptions,
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
        target::check_target(self.store.dir(), spec)?;
        if let Some(why) = sandbox::refuses(spec.backend, &spec.target) {
            let (vm, target) = (spec.vm.clone(), spec.target.clone());
            return Err(ViewError::Sandbox { vm, target, why, mounted: spec.backend });
        }
        self.check_backend(spec)
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
        self.settle(spec)?;
        let from = self.current(&spec.vm)?;
        self.show_from(spec, set, label, now_unix, from.as_ref())
    }

    /// Shows an earlier generation again, as the VM's next one: its set, in the form that the
    /// backend wants, and where the VM has changes of its own those that it had then.
    pub fn show_again(
        &self,
        spec: &ViewSpec,
        earlier: &Generation,
        set: &SetInfo,
        now_unix: u64,
    ) -> Result<Generation, ViewError> {
        self.check(spec)?;
        let _one = self.one();
        self.settle(spec)?;
        self.show_from(spec, set, earlier.label.clone(), now_unix, Some(earlier))
    }

    fn show_from(
        &self,
        spec: &ViewSpec,
        set: &SetInfo,
        label: GenerationLabel,
        now_unix: u64,
        from: Option<&Generation>,
    ) -> Result<Generation, ViewError> {
        let number = from.map(|g| g.number);
        let pending = self.record(spec, set.id, label, (now_unix, number))?;
        failpoint::hit("view.generation.recorded");
        if let Err(e) = self.switch(spec, (set, &pending), from) {
            // A failed check after a switch means that the new set may be there: then it stays. So
            // it does where nobody can tell by now, and the next switch settles it.
            if self.actual(spec).is_ok_and(|seen| seen.is_none_or(|s| !s.is(&pending))) {
                self.forget(spec, pending.number)?;
            }
            return Err(e);
        }
        let generation = self.make_current(pending)?;
        failpoint::hit("view.switched");
        self.write_beside(spec, generation.number);
        self.prune(spec, generation.number)?;
        Ok(generation)
    }

    /// Finishes or undoes switches that were cut, by a crash of the view helper for instance.
    fn settle(&self, spec: &ViewSpec) -> Result<Option<Reconciled>, ViewError> {
        let mut done = None;
        for pending in self.pending(&spec.vm)? {
            self.mend(spec, &pending)?;
            if self.actual(spec)?.is_some_and(|seen| seen.is(&pending)) {
                self.make_current(pending)?;
                done = Some(Reconciled::Finished);
            } else {
                self.forget(spec, pending.number)?;
                done = Some(Reconciled::Undone);
            }
        }
        Ok(done)
    }

    /// Which set the VM sees right now, asked of the kernel or of the file system.
    pub fn shown(&self, spec: &ViewSpec) -> Result<Option<SetId>, ViewError> {
        let _one = self.one();
        Ok(self.actual(spec)?.map(|seen| seen.set))
    }

    /// Brings records and reality together: at every start, and whenever a view was found missing.
    pub fn reconcile(&self, spec: &ViewSpec) -> Result<Reconciled, ViewError> {
        self.check(spec)?;
        let _one = self.one();
        let mut done = self.settle(spec)?.unwrap_or(Reconciled::AsItWas);
        let Some(current) = self.current(&spec.vm)? else {
            return Ok(if done == Reconciled::Undone { done } else { Reconciled::Nothing });
        };
        self.mend(spec, &current)?;
        let mut current = current;
        if !self.actual(spec)?.is_some_and(|seen| seen.is(&current)) {
            let set = self.store.set_info(current.set)?.ok_or(ViewError::NoSet(current.set))?;
            let set = self.store.set_in_form(&set, form_of(spec.backend))?;
            current = self.reformed(current, set.id)?;
            self.switch(spec, (&set, &current), None)?;
            done = Reconciled::ShownAgain;
        }
        self.write_number(&current)?;
        self.write_beside(spec, current.number);
        self.prune(spec, current.number)?;
        self.tidy_backend(spec)?;
        Ok(done)
    }

    /// Removes what a switch left behind: replaced trees of links, and generations whose old
    /// mounts are gone by now. For a timer.
    pub fn tidy(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        let _one = self.one();
        if let Some(current) = self.current(&spec.vm)? {
            self.prune(spec, current.number)?;
        }
        self.tidy_backend(spec)
    }

    /// Shows the VM nothing any more and forgets its generations.
    pub fn hide(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        target::check_target(self.store.dir(), spec)?;
        let _one = self.one();
        self.hide_backend(spec)?;
        self.forget_all(spec)
    }
}
