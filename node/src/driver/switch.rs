//! Switching a VM's view: build the set, show it, run the hook, go back where that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::ids::ReleaseHash;
use stork_wire::text::{Label, PackageName};
use stork_wire::tick::Tick;

use super::Driver;
use super::perform::{Job, NotShown, Shown, explain, show, show_again};
use super::receipts::{self, By, Receipt};
use super::vms::releases_of;
use super::workers::Done;
use crate::catalog::{KnownRelease, VmFile};
use crate::view::{Carried, Generation, Reconciled, ViewSpec};

/// Milliseconds after which a failed switch is tried again.
const RETRY_MS: u64 = 30_000;

/// Milliseconds between two looks at what a switch left behind: in the first time after it, how
/// long that is, and then.
const TIDY_EVERY_MS: u64 = 5_000;
const TIDY_FRESH_MS: u64 = 60_000;
const TIDY_OLD_MS: u64 = 300_000;

/// What a VM was found to show.
#[derive(Debug)]
pub(super) struct Found {
    done: Reconciled,
    current: Option<Generation>,
    carried: Option<Carried>,
    receipt: Option<Receipt>,
}

/// What came of work on a view.
#[derive(Debug)]
pub(super) enum Switched {
    /// Records and reality were compared.
    Reconciled(Result<Found, String>),
    /// A set was made ready for later, or not.
    Staged {
        /// What is to be shown.
        tried: Vec<ReleaseHash>,
        /// Whether it was.
        result: Result<(), NotShown>,
    },
    /// A set was shown, or not.
    Shown {
        /// What was to be shown.
        tried: Vec<ReleaseHash>,
        /// The generation that is shown now, or why the old one stays.
        result: Result<Shown, NotShown>,
    },
}

impl Driver {
    /// Compares records and reality of VMs where that was not done yet.
    pub(super) fn reconcile_vms(&mut self) {
        let todo = self.vms.iter_mut().filter(|(_, vm)| !vm.reconciled && !vm.switching);
        for (name, vm) in todo {
            vm.switching = true;
            let (views, spec, name) = (Arc::clone(&self.views), vm.spec.clone(), name.clone());
            let store = Arc::clone(&self.store);
            self.workers.slow(move || {
                let result = views
                    .reconcile(&spec)
                    .and_then(|done| {
                        let current = views.current(&spec.vm)?;
                        let carried = current.as_ref().and_then(|g| views.carried(&spec, g.number));
                        let receipt = receipts::all(&store, &spec.vm).pop();
                        Ok(Found { done, current, carried, receipt })
                    })
                    .map_err(|e| explain(&e));
                let result = Box::new(Switched::Reconciled(result));
                Some(Done::Switched { vm: name, result })
            });
        }
    }

    /// What work on a VM's view needs; `None` where there is no such VM.
    pub(super) fn job(&self, name: &Label, by: By) -> Option<(Job, VmFile)> {
        let vm = self.vms.get(name)?;
        let job = Job {
            store: Arc::clone(&self.store),
            views: Arc::clone(&self.views),
            spec: vm.spec.clone(),
            hook: vm.file.hook.clone(),
            check: vm.file.check.clone(),
            now: self.clock.unix(),
            by,
        };
        Some((job, vm.file.clone()))
    }

    /// The same, and marks the VM as switching.
    fn begin_switch(&mut self, name: &Label, by: By) -> Option<(Job, VmFile)> {
        self.vms.get_mut(name)?.switching = true;
        self.job(name, by)
    }

    /// Begins a switch of a VM to these releases.
    pub(super) fn switch(&mut self, name: &Label, target: Vec<KnownRelease>) {
        let first = self.shows_withdrawn(name);
        if self.is_restored() && !first {
            // What is new by an old state may be old: wait for the neighbours.
            return;
        }
        let Some(by) = self.may_switch(name, &target) else { return };
        let Some((job, file)) = self.begin_switch(name, by) else { return };
        let name = name.clone();
        self.workers.slow_first(first, move || {
            let tried = target.iter().map(|k| k.hash).collect();
            let result = show(&job, &file, &target);
            let result = Box::new(Switched::Shown { tried, result });
            Some(Done::Switched { vm: name, result })
        });
    }

    /// Shows an earlier generation again.
    pub(super) fn roll_back(&mut self, name: &Label, to: Generation) {
        let Some((job, _)) = self.begin_switch(name, By::Rollback) else { return };
        let name = name.clone();
        self.workers.slow(move || {
            let result = show_again(&job, &to, By::Rollback).map(|mut shown| {
                shown.by_rollback = true;
                shown
            });
            let result = result.map_err(NotShown::from);
            let result = Box::new(Switched::Shown { tried: Vec::new(), result });
            Some(Done::Switched { vm: name, result })
        });
    }

    /// Removes what switches left behind, once nobody looks at it any more.
    pub(super) fn tidy_views(&mut self) {
        let now = self.clock.tick();
        if now < self.tidy_at {
            return;
        }
        self.tidy_at = now.after_ms(TIDY_EVERY_MS);
        let due = self.vms.values_mut().filter(|vm| vm.reconciled && vm.tidy_at <= now);
        let specs: Vec<ViewSpec> = due
            .map(|vm| {
                // What a switch leaves behind is mostly gone after seconds. What some process holds
                // on to longer is looked at more rarely: a host may have a thousand VMs.
                let fresh = now < vm.fresh_until;
                vm.tidy_at = now.after_ms(if fresh { TIDY_EVERY_MS } else { TIDY_OLD_MS });
                vm.spec.clone()
            })
            .collect();
        if specs.is_empty() {
            return;
        }
        let views = Arc::clone(&self.views);
        self.workers.slow(move || {
            for spec in specs {
                if let Err(e) = views.tidy(&spec) {
                    tracing::warn!(vm = %spec.vm, "{}", explain(&e));
                }
            }
            None
        });
    }

    pub(super) fn on_switched(&mut self, name: &Label, what: Switched) {
        let again = self.clock.tick().after_ms(RETRY_MS);
        if let Switched::Staged { tried, result } = what {
            return self.on_staged(name, &tried, result);
        }
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.switching = false;
        match what {
            Switched::Staged { .. } => {}
            Switched::Reconciled(Ok(Found { done, current, carried, receipt })) => {
                vm.reconciled = true;
                vm.failed = None;
                vm.current = current;
                (vm.carried, vm.receipt) = (carried, receipt);
                if !matches!(done, Reconciled::Nothing | Reconciled::AsItWas) {
                    self.event("view_reconciled", format!("{name}: {done:?}"));
                }
            }
            Switched::Reconciled(Err(why)) => {
                let before = vm.failed.replace((why.clone(), Vec::new(), again));
                self.counters.add("switches", "failed");
                if before.is_none_or(|(old, _, _)| old != why) {
                    self.event("view_failed", format!("{name}: {why}"));
                }
                return;
            }
            Switched::Shown { tried, result: Ok(shown) } => self.on_shown(name, &tried, shown),
            Switched::Shown { tried, result: Err(NotShown { why, for_good }) } => {
                let text = format!("{name}: {why}");
                // What failed its check is not shown, however long one waits.
                let again = if for_good { Tick(u64::MAX) } else { again };
                let before = vm.failed.replace((why, tried, again));
                self.counters.add("switches", "failed");
                if before.is_none_or(|(old, _, _)| !text.ends_with(&old)) {
                    self.event("view_failed", text);
                }
                return;
            }
        }
        self.replan_soon();
    }

    /// Says what of the VM's own does not show any more.
    fn tell_private(&mut self, name: &Label, number: u64, carried: Option<&Carried>) {
        let Some(carried) = carried else { return };
        let list = |paths: Vec<&str>| paths.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        if carried.shadowed_count > 0 {
            self.counters.add("switches", "shadowed");
            let paths = list(carried.shadowed.iter().map(|s| s.path.as_str()).collect());
            let count = carried.shadowed_count;
            let text = format!(
                "{name}: generation {number}: {count} of the VM's own changes are set aside, \
                 because they would hide new files: {paths}"
            );
            self.event("view_shadowed", text);
        }
        if !carried.late.is_empty() {
            let paths = list(carried.late.iter().map(String::as_str).collect());
            let text = format!(
                "{name}: generation {number}: changed in the moment of the switch, and left in \
                 the earlier generation: {paths}"
            );
            self.event("view_late_changes", text);
        }
    }

    /// Releases that this VM would rather show than those: what a rollback must not go forward to.
    fn better_than(
        &self,
        name: &Label,
        shown: &BTreeMap<PackageName, KnownRelease>,
    ) -> Vec<ReleaseHash> {
        let Some(vm) = self.vms.get(name) else { return Vec::new() };
        let before = vm.shown(&self.catalog);
        let packages: BTreeSet<&PackageName> = vm.wish.keys().chain(shown.keys()).collect();
        let mut better = Vec::new();
        for package in packages {
            let all = self.catalog.consider(&vm.file, package, &before, self.scene());
            let goal = shown.get(package).map(|k| k.hash);
            let first = all.iter().take_while(|c| Some(c.known.hash) != goal);
            let allowed = first.filter(|c| c.outcome.may_stay());
            better.extend(allowed.map(|c| c.known.hash));
        }
        better
    }

    fn on_shown(&mut self, name: &Label, tried: &[ReleaseHash], shown: Shown) {
        let now_shown = releases_of(&self.catalog, &shown.generation);
        let replaced: Vec<ReleaseHash> = if shown.rolled_back {
            tried.to_vec()
        } else if shown.by_rollback {
            self.better_than(name, &now_shown)
        } else {
            Vec::new()
        };
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.current = Some(shown.generation.clone());
        vm.failed = None;
        vm.receipt = Some(shown.receipt);
        vm.carried.clone_from(&shown.carried);
        let now = self.clock.tick();
        (vm.tidy_at, vm.fresh_until) = (now, now.after_ms(TIDY_FRESH_MS));
        let kept: Vec<ReleaseHash> = now_shown.values().map(|k| k.hash).collect();
        vm.skipped.extend(replaced.iter().filter(|h| !kept.contains(h)));
        for k in now_shown.values() {
            self.release_hold(k.release.manifest.id);
        }
        self.no_longer_waits(name);
        let number = shown.generation.number;
        self.tell_private(name, number, shown.carried.as_ref());
        let versions: Vec<String> = shown
            .generation
            .label
            .releases
            .iter()
            .map(|r| format!("{} {}", r.package, r.version))
            .collect();
        let versions = versions.join(", ");
        if replaced.is_empty() {
            self.counters.add("switches", "done");
            self.event("view_switched", format!("{name}: generation {number}: {versions}"));
        } else {
            self.save_skipped(name);
            self.counters.add("switches", "rolled_back");
            self.event("view_rolled_back", format!("{name}: generation {number}: {versions}"));
        }
    }
}
