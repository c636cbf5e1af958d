//! Who does what is done at a view: this process, or the view helper where there is one and the
//! view is mounted.

use std::collections::BTreeSet;

use stork_wire::codec::List;
use stork_wire::ids::ManifestId;

use super::backend::{Seen, Step, show};
use super::ground::secret_of;
use super::holders::{self, Asked, Holders};
use super::order::{Answer, MANIFESTS_MAX, NUMBERS_MAX, Order, Shows, What};
use super::private::Carried;
use super::{Generation, Ground, ViewError, ViewSpec, Views, mounts_for, number};
use crate::cli::out::causes;
use crate::sandbox::mounter;
use crate::store::{SetForm, SetInfo};

impl Views {
    fn ground(&self) -> Result<Ground<'_>, ViewError> {
        Ground::of(&self.store)
    }

    /// Is the view helper to be asked?
    pub(super) fn by_helper(spec: &ViewSpec) -> bool {
        mounts_for(spec.backend) && mounter::is_there()
    }

    fn order(&self, spec: &ViewSpec, what: What) -> Result<Answer, ViewError> {
        let patience_s = what.patience_s();
        let order = Order {
            vm: spec.vm.clone(),
            backend: spec.backend,
            target: spec.target.clone(),
            secret: secret_of(&self.store)?,
            what,
        };
        let failed = |why, help| ViewError::Helper { vm: spec.vm.clone(), why, help };
        match mounter::ask(&order, patience_s) {
            Ok(Answer::Failed(why, help)) => Err(failed(why, help)),
            Ok(answer) => Ok(answer),
            Err(e) => {
                let text = [e.to_string()].into_iter().chain(causes(&e));
                let why = text.collect::<Vec<_>>().join(": ");
                Err(failed(format!("{why} ({})", e.help()), e.help().to_owned()))
            }
        }
    }

    /// An order that is answered by "done".
    fn done(&self, spec: &ViewSpec, what: What) -> Result<(), ViewError> {
        match self.order(spec, what)? {
            Answer::Done => Ok(()),
            other => Err(strange(spec, &other)),
        }
    }

    /// What the backend says against the view.
    pub(super) fn check_backend(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        if Self::by_helper(spec) {
            return self.done(spec, What::Check);
        }
        show(spec.backend).check(spec)
    }

    /// The manifests of what a generation and the one before it show, where a backend asks.
    fn manifests(
        &self,
        spec: &ViewSpec,
        set: &SetInfo,
        from: Option<&Generation>,
    ) -> Result<BTreeSet<ManifestId>, ViewError> {
        let mut all = BTreeSet::new();
        if show(spec.backend).per_generation() {
            let before = from.map(|g| self.store.set_info(g.set)).transpose()?.flatten();
            let sets = before.iter().chain([set]);
            all.extend(sets.flat_map(|s| &s.members).map(|(_, manifest, _)| *manifest));
        }
        Ok(all)
    }

    /// Shows a set, from a generation.
    pub(super) fn switch(
        &self,
        spec: &ViewSpec,
        (set, next): (&SetInfo, &Generation),
        from: Option<&Generation>,
    ) -> Result<(), ViewError> {
        let manifests = self.manifests(spec, set, from)?;
        if !Self::by_helper(spec) {
            let manifests: Vec<ManifestId> = manifests.into_iter().collect();
            let step = Step { set, next, from, manifests: &manifests };
            return show(spec.backend).switch(&self.ground()?, spec, step);
        }
        self.check_owners(spec, set)?;
        // The helper makes no folder in the store but for layers.
        self.store.vm_dir(&spec.vm)?;
        if manifests.len() > MANIFESTS_MAX {
            let what = "packages whose configuration files would have to be looked at";
            let (vm, max) = (spec.vm.clone(), MANIFESTS_MAX as u64);
            return Err(ViewError::PrivateTooLarge { vm, what, max });
        }
        let what = What::Switch {
            next: Shows::of(next),
            from: from.map(Shows::of),
            needs: (set.needs_suid, set.needs_devices),
            manifests: List::truncated(manifests),
        };
        self.done(spec, what)
    }

    /// All files of a store that gives no owners are shown as root's. So it refuses what belongs to
    /// somebody else, instead of showing it wrong. Images have owners of their own.
    fn check_owners(&self, spec: &ViewSpec, set: &SetInfo) -> Result<(), ViewError> {
        if self.store.gives_owners() || !matches!(set.form, SetForm::Folder | SetForm::Sysext) {
            return Ok(());
        }
        let tree = self.store.set_tree(set.id)?.unwrap_or_default();
        for e in &tree.entries {
            let what = match (e.uid, e.gid, e.privilege()) {
                (0, 0, None) => continue,
                (_, _, Some(what)) => format!("is or has {what}"),
                (user, group, None) => format!("belongs to user {user} and group {group}"),
            };
            let (vm, path) = (spec.vm.clone(), e.path.to_string());
            return Err(ViewError::Owner { vm, path, what });
        }
        Ok(())
    }

    /// What the target shows.
    pub(super) fn actual(&self, spec: &ViewSpec) -> Result<Option<Seen>, ViewError> {
        if !Self::by_helper(spec) {
            return show(spec.backend).shown(&self.ground()?, spec);
        }
        match self.order(spec, What::Shown)? {
            Answer::Shown(seen) => Ok(seen),
            other => Err(strange(spec, &other)),
        }
    }

    pub(super) fn mend(&self, spec: &ViewSpec, to: &Generation) -> Result<(), ViewError> {
        if Self::by_helper(spec) {
            return self.done(spec, What::Mend(Shows::of(to)));
        }
        show(spec.backend).mend(&self.ground()?, spec, to)
    }

    pub(super) fn tidy_backend(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        let kept = self.numbers(&spec.vm)?;
        if !Self::by_helper(spec) {
            return show(spec.backend).tidy(&self.ground()?, spec, &kept);
        }
        // What is not in the list would be removed.
        if kept.len() > NUMBERS_MAX {
            return Ok(());
        }
        self.done(spec, What::Tidy(List::truncated(kept)))
    }

    pub(super) fn hide_backend(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        if Self::by_helper(spec) {
            return self.done(spec, What::Hide);
        }
        show(spec.backend).hide(&self.ground()?, spec)?;
        number::remove_beside(spec);
        Ok(())
    }

    /// Does any process still see the generation? Where that cannot be told, it does.
    pub(super) fn in_use(&self, spec: &ViewSpec, generation: &Generation) -> bool {
        if !Self::by_helper(spec) {
            let ground = self.ground();
            return ground.map_or(true, |g| show(spec.backend).in_use(&g, generation));
        }
        !matches!(self.order(spec, What::InUse(Shows::of(generation))), Ok(Answer::Is(false)))
    }

    pub(super) fn drop_generation(&self, spec: &ViewSpec, number: u64) -> Result<(), ViewError> {
        if Self::by_helper(spec) {
            return self.done(spec, What::Drop(number));
        }
        show(spec.backend).drop_generation(&self.ground()?, spec, number)
    }

    /// What became of the VM's private changes when a generation came; none where the backend has
    /// none.
    #[must_use]
    pub fn carried(&self, spec: &ViewSpec, number: u64) -> Option<Carried> {
        if !show(spec.backend).per_generation() {
            return None;
        }
        if !Self::by_helper(spec) {
            return show(spec.backend).carried(&self.ground().ok()?, spec, number);
        }
        match self.order(spec, What::Carried(number)) {
            Ok(Answer::Carried(carried)) => carried,
            _ => None,
        }
    }

    /// Writes the number beside the view.
    pub(super) fn write_beside(&self, spec: &ViewSpec, number: u64) {
        if !Self::by_helper(spec) {
            return number::write_beside(spec, number);
        }
        if let Err(e) = self.done(spec, What::Number(number)) {
            tracing::warn!(vm = %spec.vm, error = %e, "the guest is not told the generation");
        }
    }

    pub(super) fn look_for_holders(
        &self,
        spec: &ViewSpec,
        asked: Asked,
    ) -> Result<Holders, ViewError> {
        if !Self::by_helper(spec) {
            return holders::find(&self.ground()?, &asked);
        }
        match self.order(spec, What::Holders(asked))? {
            Answer::Holders(holders) => Ok(holders),
            other => Err(strange(spec, &other)),
        }
    }
}

fn strange(spec: &ViewSpec, answer: &Answer) -> ViewError {
    let help = "restart stork-node: the helper is of another version".to_owned();
    let why = format!("the view helper answered something else: {answer:?}");
    ViewError::Helper { vm: spec.vm.clone(), why, help }
}
