//! Whether a VM is switched now, or later: maintenance windows, a time, and the order not to wait.
//!
//! What waits is fetched, built and checked already, so that the switch itself takes no longer than
//! a mount.

use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::ids::ReleaseHash;
use stork_wire::text::Label;

use super::perform::{NotShown, explain, stage, staged_lease};
use super::receipts::By;
use super::switch::Switched;
use super::workers::Done;
use super::{Answer, CallError, Driver};
use crate::catalog::{KnownRelease, Withdrawals};

/// A switch that waits for its time.
#[derive(Debug)]
pub(super) struct Waits {
    /// To what.
    target: Vec<ReleaseHash>,
    /// Until when, in seconds since 1970; none where no window ever comes.
    pub(super) until: Option<u64>,
    /// It is built and checked; or why it could not be.
    pub(super) staged: Option<Result<(), String>>,
}

impl Waits {
    fn json(&self) -> Value {
        json!({
            "until": self.until, "releases": self.target.len(),
            "staged": matches!(self.staged, Some(Ok(()))),
            "error": self.staged.as_ref().and_then(|s| s.as_ref().err()),
        })
    }
}

impl Driver {
    /// May this VM be switched now, and why? Where not, what it waits for is made ready.
    pub(super) fn may_switch(&mut self, name: &Label, target: &[KnownRelease]) -> Option<By> {
        let withdrawn = self.shows_withdrawn(name);
        let now = self.clock.unix();
        let vm = self.vms.get_mut(name)?;
        let rule = &vm.file.switch;
        if vm.at_once {
            return Some(By::Now);
        }
        if withdrawn && rule.withdrawals == Withdrawals::AtOnce {
            return Some(By::Withdrawal);
        }
        let until = rule.next(now, vm.current.is_none());
        if until == Some(now) {
            return Some(if rule.says_when() { By::Window } else { By::Release });
        }
        let hashes: Vec<ReleaseHash> = target.iter().map(|k| k.hash).collect();
        match &mut vm.waits {
            Some(waits) if waits.target == hashes => waits.until = until,
            waits => {
                *waits = Some(Waits { target: hashes, until, staged: None });
                self.stage(name, target.to_vec());
            }
        }
        None
    }

    fn stage(&mut self, name: &Label, target: Vec<KnownRelease>) {
        let Some((job, file)) = self.job(name, By::Window) else { return };
        let until = self.vms.get(name).and_then(|vm| vm.waits.as_ref()?.until);
        let minutes = until.map(|at| at.saturating_sub(self.clock.unix()).div_ceil(60));
        let when = minutes.map_or_else(
            || "no window ever comes".to_owned(),
            |m| format!("shown in {} h {} min", m / 60, m % 60),
        );
        let count = target.len();
        self.event("view_waits", format!("{name}: {count} releases are made ready; {when}"));
        let name = name.clone();
        self.workers.slow(move || {
            let tried = target.iter().map(|k| k.hash).collect();
            let result = stage(&job, &file, &target);
            let result = Box::new(Switched::Staged { tried, result });
            Some(Done::Switched { vm: name, result })
        });
    }

    pub(super) fn on_staged(
        &mut self,
        name: &Label,
        tried: &[ReleaseHash],
        result: Result<(), NotShown>,
    ) {
        let Some(waits) = self.vms.get_mut(name).and_then(|vm| vm.waits.as_mut()) else { return };
        if waits.target != tried {
            return;
        }
        let failed = result.as_ref().err().map(|e| e.why.clone());
        waits.staged = Some(result.map_err(|e| e.why));
        if let Some(why) = failed {
            self.event("view_failed", format!("{name}: {why}"));
        }
    }

    /// Nothing waits any more: it was shown, or is not wanted now.
    pub(super) fn no_longer_waits(&mut self, name: &Label) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.at_once = false;
        if vm.waits.take().is_some()
            && let Err(e) = self.store.release_lease(&staged_lease(name))
        {
            tracing::warn!(vm = %name, "{}", explain(&e));
        }
    }

    /// Has the time come for a VM that waits?
    pub(super) fn is_time(&self) -> bool {
        let now = self.clock.unix();
        let due = |w: &Waits| w.until.is_some_and(|at| at <= now);
        self.vms.values().any(|vm| vm.waits.as_ref().is_some_and(due))
    }

    /// `stork vm switch NAME [--now]`.
    pub(super) fn order_switch(&mut self, vm: &str, at_once: bool) -> Result<Value, CallError> {
        let (name, state) = self.find_vm(vm)?;
        let waits = state.waits.as_ref().map(Waits::json);
        let ordered = at_once && waits.is_some();
        if let Some(vm) = self.vms.get_mut(&name).filter(|_| ordered) {
            vm.at_once = true;
            vm.failed = None;
            self.replan_soon();
        }
        Ok(json!({ "schema": "stork.switch/v1", "vm": name, "waits": waits, "ordered": ordered }))
    }

    /// `stork vm holders NAME`: looks at all processes, so a worker does it.
    pub(super) fn holders(&self, vm: &str, answer: Answer) {
        let found = self.find_vm(vm).map(|(name, vm)| (name, vm.spec.clone()));
        let views = Arc::clone(&self.views);
        self.workers.slow(move || {
            let looked = found.and_then(|(name, spec)| {
                let holders = views.holders(&spec).map_err(|e| {
                    CallError::Refused(explain(&e), "look at `stork store stat`".to_owned())
                })?;
                let all = serde_json::to_value(&holders).unwrap_or_default();
                Ok(json!({ "schema": "stork.holders/v1", "vm": name, "holders": all }))
            });
            if answer.send(looked).is_err() {
                tracing::debug!("nobody waits for the list of holders any more");
            }
            None
        });
    }

    pub(super) fn waits_json(&self, name: &Label) -> Option<Value> {
        self.vms.get(name)?.waits.as_ref().map(Waits::json)
    }
}
