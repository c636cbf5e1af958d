//! Switching a VM's view: build the set, show it, run the hook, go back where that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stork_wire::ids::ReleaseHash;
use stork_wire::manifest::Manifest;
use stork_wire::text::{Label, PackageName};

use super::Driver;
use super::vms::releases_of;
use super::workers::Done;
use crate::catalog::{Backend, HookRule, KnownRelease, OnFailure, VmFile};
use crate::sandbox::hooks;
use crate::store::{SetMember, SetSpec, Store};
use crate::view::hook::HookEnv;
use crate::view::{
    Generation, GenerationLabel, Reconciled, ReleaseLabel, ViewSpec, Views, form_of,
};

/// Milliseconds after which a failed switch is tried again.
const RETRY_MS: u64 = 30_000;

/// Milliseconds between two looks at what switches left behind.
const TIDY_EVERY_MS: u64 = 5_000;

/// What came of work on a view.
#[derive(Debug)]
pub(super) enum Switched {
    /// Records and reality were compared.
    Reconciled(Result<(Reconciled, Option<Generation>), String>),
    /// A set was shown, or not.
    Shown {
        /// What was to be shown.
        tried: Vec<ReleaseHash>,
        /// The generation that is shown now, or why the old one stays.
        result: Result<Shown, String>,
    },
}

/// A switch that happened.
#[derive(Debug)]
pub(super) struct Shown {
    /// The generation that is shown now.
    generation: Generation,
    /// What the hook said.
    hook: Option<String>,
    /// The new generation was taken back, because the hook failed.
    rolled_back: bool,
    /// Milliseconds of the switch alone.
    switch_ms: u64,
    /// The set was shown by an order to roll back: what it replaced must not come again.
    by_rollback: bool,
}

/// All that a switch needs, away from the driver.
struct Job {
    store: Arc<Store>,
    views: Arc<Views>,
    spec: ViewSpec,
    hook: Option<HookRule>,
    now: u64,
}

impl Driver {
    /// Compares records and reality of VMs where that was not done yet.
    pub(super) fn reconcile_vms(&mut self) {
        let todo = self.vms.iter_mut().filter(|(_, vm)| !vm.reconciled && !vm.switching);
        for (name, vm) in todo {
            vm.switching = true;
            let (views, spec, name) = (Arc::clone(&self.views), vm.spec.clone(), name.clone());
            self.workers.slow(move || {
                let result = views
                    .reconcile(&spec)
                    .and_then(|done| Ok((done, views.current(&spec.vm)?)))
                    .map_err(|e| explain(&e));
                let result = Box::new(Switched::Reconciled(result));
                Some(Done::Switched { vm: name, result })
            });
        }
    }

    /// Marks a VM as switching, and takes what the work needs; `None` where there is no such VM.
    fn begin_switch(&mut self, name: &Label) -> Option<(Job, VmFile)> {
        let now = self.clock.unix();
        let vm = self.vms.get_mut(name)?;
        vm.switching = true;
        let job = Job {
            store: Arc::clone(&self.store),
            views: Arc::clone(&self.views),
            spec: vm.spec.clone(),
            hook: vm.file.hook.clone(),
            now,
        };
        Some((job, vm.file.clone()))
    }

    /// Begins a switch of a VM to these releases.
    pub(super) fn switch(&mut self, name: &Label, target: Vec<KnownRelease>) {
        let first = self.shows_withdrawn(name);
        if self.is_restored() && !first {
            // What is new by an old state may be old: wait for the neighbours.
            return;
        }
        let Some((job, file)) = self.begin_switch(name) else { return };
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
        let Some((job, _)) = self.begin_switch(name) else { return };
        let name = name.clone();
        self.workers.slow(move || {
            let result = show_again(&job, &to).map(|mut shown| {
                shown.by_rollback = true;
                shown
            });
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
        let specs: Vec<ViewSpec> =
            self.vms.values().filter(|vm| vm.reconciled).map(|vm| vm.spec.clone()).collect();
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
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.switching = false;
        match what {
            Switched::Reconciled(Ok((done, current))) => {
                vm.reconciled = true;
                vm.current = current;
                if !matches!(done, Reconciled::Nothing | Reconciled::AsItWas) {
                    self.event("view_reconciled", format!("{name}: {done:?}"));
                }
            }
            Switched::Reconciled(Err(why)) => {
                vm.failed = Some((why.clone(), Vec::new(), again));
                self.counters.add("switches", "failed");
                self.event("view_failed", format!("{name}: {why}"));
                return;
            }
            Switched::Shown { tried, result: Ok(shown) } => self.on_shown(name, &tried, shown),
            Switched::Shown { tried, result: Err(why) } => {
                let text = format!("{name}: {why}");
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
        vm.hook = shown.hook;
        vm.switched_ms = Some(shown.switch_ms);
        let kept: Vec<ReleaseHash> = now_shown.values().map(|k| k.hash).collect();
        vm.skipped.extend(replaced.iter().filter(|h| !kept.contains(h)));
        for k in now_shown.values() {
            self.release_hold(k.release.manifest.id);
        }
        let number = shown.generation.number;
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

fn explain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    for cause in crate::cli::out::causes(e) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

fn show(job: &Job, file: &VmFile, target: &[KnownRelease]) -> Result<Shown, String> {
    let _hold = job.store.hold();
    let mut members = Vec::with_capacity(target.len());
    let mut label = GenerationLabel::default();
    for k in target {
        let r = &k.release;
        let found: Option<Manifest> =
            job.store.manifest_decoded(r.manifest.id).map_err(|e| explain(&e))?;
        let manifest = found.ok_or_else(|| format!("the manifest of {} is gone", r.package))?;
        if job.spec.backend == Backend::Packages {
            super::repository::check_control(r, &manifest)?;
        }
        members.push(SetMember {
            label: format!("{} {}", r.package, r.version),
            manifest: r.manifest.id,
            tree: manifest.tree,
            privileged_allowed: file.privileged.iter().any(|p| p.matches(r.package.as_str())),
        });
        label.releases.push(ReleaseLabel {
            package: r.package.clone(),
            version: r.version.clone(),
            manifest: r.manifest.id,
            publisher: Some(k.publisher),
            release: Some(r.release),
        });
    }
    let spec = SetSpec { members, form: form_of(job.spec.backend) };
    let set = job.store.build_set(&spec).map_err(|e| explain(&e))?;
    let before = job.views.current(&job.spec.vm).map_err(|e| explain(&e))?;
    let begun = Instant::now();
    let generation = job.views.show(&job.spec, &set, label, job.now).map_err(|e| explain(&e))?;
    let switch_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (ok, said) = hook(job, &generation).unzip();
    let goes_back = job.hook.as_ref().is_some_and(|h| h.on_failure == OnFailure::Rollback);
    match before {
        Some(before) if ok == Some(false) && goes_back => {
            let mut shown = show_again(job, &before)?;
            shown.rolled_back = true;
            shown.hook = said;
            Ok(shown)
        }
        _ => {
            Ok(Shown { generation, hook: said, rolled_back: false, switch_ms, by_rollback: false })
        }
    }
}

/// Shows the set of an earlier generation as a new generation, and runs the hook for it.
fn show_again(job: &Job, earlier: &Generation) -> Result<Shown, String> {
    let _hold = job.store.hold();
    let set = job.store.set_info(earlier.set).map_err(|e| explain(&e))?;
    let set = set.ok_or_else(|| "the set of that generation is gone".to_owned())?;
    // It may be of a time when the VM was shown its packages in another way.
    let set = job.store.set_in_form(&set, form_of(job.spec.backend)).map_err(|e| explain(&e))?;
    let begun = Instant::now();
    let generation =
        job.views.show_again(&job.spec, earlier, &set, job.now).map_err(|e| explain(&e))?;
    let switch_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let hook = hook(job, &generation).map(|(_, said)| said);
    Ok(Shown { generation, hook, rolled_back: false, switch_ms, by_rollback: false })
}

/// Runs the VM's hook: whether it is content, and what it said.
fn hook(job: &Job, generation: &Generation) -> Option<(bool, String)> {
    let rule = job.hook.as_ref()?;
    let env = HookEnv {
        vm: job.spec.vm.to_string(),
        target: PathBuf::from(&job.spec.target),
        generation: generation.number,
        set: generation.set.to_string(),
    };
    let timeout = Duration::from_secs(rule.timeout_s);
    Some(match hooks::run(&job.spec.vm, &rule.command, &env, timeout) {
        Ok(outcome) if outcome.succeeded() => (true, "ok".to_owned()),
        Ok(outcome) if outcome.timed_out => (false, format!("killed after {} s", rule.timeout_s)),
        Ok(outcome) => {
            let code = outcome.code.map_or_else(|| "a signal".to_owned(), |c| format!("exit {c}"));
            let said = outcome.output.trim().lines().last().unwrap_or("").to_owned();
            (false, format!("{code}: {said}"))
        }
        Err(e) => (false, explain(&e)),
    })
}
