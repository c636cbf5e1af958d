//! The work of a switch, away from the driver: build the set, check it, show it, run the hook, go
//! back where that failed, and write the receipt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stork_wire::manifest::Manifest;

use super::receipts::{self, By, Receipt};
use crate::catalog::{Backend, CheckRule, HookRule, KnownRelease, OnFailure, VmFile};
use crate::sandbox::hooks;
use crate::store::{LeaseSet, SetInfo, SetMember, SetSpec, Store};
use crate::view::hook::{HookEnv, HookError, HookOutcome};
use crate::view::{Carried, Generation, GenerationLabel, ReleaseLabel, ViewSpec, Views, form_of};

/// A switch that happened.
#[derive(Debug)]
pub(super) struct Shown {
    /// The generation that is shown now.
    pub(super) generation: Generation,
    /// The new generation was taken back, because the hook failed.
    pub(super) rolled_back: bool,
    /// The set was shown by an order to roll back: what it replaced must not come again.
    pub(super) by_rollback: bool,
    /// What became of the VM's private changes, where it has some.
    pub(super) carried: Option<Carried>,
    /// The record of it.
    pub(super) receipt: Receipt,
}

/// A switch that did not happen.
#[derive(Debug)]
pub(super) struct NotShown {
    /// Why.
    pub(super) why: String,
    /// The set itself was found wanting: it is not tried again.
    pub(super) for_good: bool,
}

impl From<String> for NotShown {
    fn from(why: String) -> Self {
        Self { why, for_good: false }
    }
}

/// All that a switch needs, away from the driver.
pub(super) struct Job {
    pub(super) store: Arc<Store>,
    pub(super) views: Arc<Views>,
    pub(super) spec: ViewSpec,
    pub(super) hook: Option<HookRule>,
    pub(super) check: Option<CheckRule>,
    pub(super) now: u64,
    pub(super) by: By,
}

pub(super) fn explain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    for cause in crate::cli::out::causes(e) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// The lease of a set that is ready and waits for its time.
pub(super) fn staged_lease(vm: &stork_wire::text::Label) -> String {
    format!("staged/{vm}")
}

fn build(
    job: &Job,
    file: &VmFile,
    target: &[KnownRelease],
) -> Result<(SetInfo, GenerationLabel), String> {
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
    Ok((set, label))
}

/// Builds and checks what is shown later, and keeps it.
pub(super) fn stage(job: &Job, file: &VmFile, target: &[KnownRelease]) -> Result<(), NotShown> {
    let _hold = job.store.hold();
    let (set, _) = build(job, file, target)?;
    let lease = LeaseSet { sets: [set.id].into(), ..LeaseSet::default() };
    job.store.lease(&staged_lease(&job.spec.vm), &lease).map_err(|e| explain(&e))?;
    check(job, &set)?;
    Ok(())
}

pub(super) fn show(job: &Job, file: &VmFile, target: &[KnownRelease]) -> Result<Shown, NotShown> {
    let _hold = job.store.hold();
    let (set, label) = build(job, file, target)?;
    let checked = check(job, &set)?;
    let before = job.views.current(&job.spec.vm).map_err(|e| explain(&e))?;
    let begun = Instant::now();
    let generation = job.views.show(&job.spec, &set, label, job.now).map_err(|e| explain(&e))?;
    let switch_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (ok, said) = hook(job, &generation).unzip();
    let goes_back = job.hook.as_ref().is_some_and(|h| h.on_failure == OnFailure::Rollback);
    let first = finish(job, generation, (checked, said.clone(), switch_ms), job.by);
    match before {
        Some(before) if ok == Some(false) && goes_back => {
            let mut shown = show_again(job, &before, By::FailedHook)?;
            shown.rolled_back = true;
            shown.receipt.hook = said;
            Ok(shown)
        }
        _ => Ok(first),
    }
}

/// Shows an earlier generation again, as a new one, and runs the hook for it.
pub(super) fn show_again(job: &Job, earlier: &Generation, by: By) -> Result<Shown, String> {
    let _hold = job.store.hold();
    let set = job.store.set_info(earlier.set).map_err(|e| explain(&e))?;
    let set = set.ok_or_else(|| "the set of that generation is gone".to_owned())?;
    // It may be of a time when the VM was shown its packages in another way.
    let set = job.store.set_in_form(&set, form_of(job.spec.backend)).map_err(|e| explain(&e))?;
    let begun = Instant::now();
    let generation =
        job.views.show_again(&job.spec, earlier, &set, job.now).map_err(|e| explain(&e))?;
    let switch_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let said = hook(job, &generation).map(|(_, said)| said);
    Ok(finish(job, generation, (None, said, switch_ms), by))
}

/// Writes the receipt. A switch that happened is told even where that fails.
fn finish(
    job: &Job,
    generation: Generation,
    (check, hook, switch_ms): (Option<String>, Option<String>, u64),
    by: By,
) -> Shown {
    let carried = job.views.carried(&job.spec, generation.number);
    let releases = generation.label.releases.iter();
    let receipt = Receipt {
        generation: generation.number,
        from: generation.from,
        set: generation.set,
        backend: job.spec.backend,
        at: job.now,
        by,
        releases: releases.map(|r| format!("{}={}", r.package, r.version)).collect(),
        check,
        hook,
        switch_ms,
        shadowed: carried.as_ref().map_or(0, |c| c.shadowed_count),
    };
    if let Err(e) = receipts::add(&job.store, &job.spec.vm, &receipt) {
        tracing::warn!(vm = %job.spec.vm, "the receipt was not written: {e}");
    }
    Shown { generation, rolled_back: false, by_rollback: false, carried, receipt }
}

/// Does the set have what the VM's file asks for? Nothing is shown yet. Says what the command said.
fn check(job: &Job, set: &SetInfo) -> Result<Option<String>, NotShown> {
    let Some(rule) = &job.check else { return Ok(None) };
    let refused = |why| NotShown { why, for_good: true };
    if !rule.files.is_empty() {
        let tree = job.store.set_tree(set.id).map_err(|e| explain(&e))?.unwrap_or_default();
        let there = |path: &String| tree.entries.iter().any(|e| e.path.as_str() == path);
        if let Some(path) = rule.files.iter().find(|path| !there(path)) {
            return Err(refused(format!("the check failed: the set has no `/{path}`")));
        }
    }
    let Some(command) = &rule.command else { return Ok(Some("ok".to_owned())) };
    let env = HookEnv {
        vm: job.spec.vm.to_string(),
        target: PathBuf::from(&job.spec.target),
        generation: 0,
        set: set.id.to_string(),
        set_path: Some(set.path.clone()),
    };
    let timeout = Duration::from_secs(rule.timeout_s);
    match told(hooks::run(&job.spec.vm, command, &env, timeout), rule.timeout_s) {
        (true, said) => Ok(Some(said)),
        (false, said) => Err(refused(format!("the check failed: {said}"))),
    }
}

/// Runs the VM's hook: whether it is content, and what it said.
fn hook(job: &Job, generation: &Generation) -> Option<(bool, String)> {
    let rule = job.hook.as_ref()?;
    let env = HookEnv {
        vm: job.spec.vm.to_string(),
        target: PathBuf::from(&job.spec.target),
        generation: generation.number,
        set: generation.set.to_string(),
        set_path: None,
    };
    let timeout = Duration::from_secs(rule.timeout_s);
    Some(told(hooks::run(&job.spec.vm, &rule.command, &env, timeout), rule.timeout_s))
}

fn told(ended: Result<HookOutcome, HookError>, timeout_s: u64) -> (bool, String) {
    match ended {
        Ok(outcome) if outcome.succeeded() => (true, "ok".to_owned()),
        Ok(outcome) if outcome.timed_out => (false, format!("killed after {timeout_s} s")),
        Ok(outcome) => {
            let code = outcome.code.map_or_else(|| "a signal".to_owned(), |c| format!("exit {c}"));
            let said = outcome.output.trim().lines().last().unwrap_or("").to_owned();
            (false, format!("{code}: {said}"))
        }
        Err(e) => (false, explain(&e)),
    }
}
