//! Generations: the numbered states of a VM's view, recorded in the store and leased there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stork_wire::ids::{ManifestId, PublisherId};
use stork_wire::text::{Label, PackageName, Version};

use super::backend::show;
use super::{ViewError, ViewSpec, Views};
use crate::store::{LeaseSet, SetId};

/// One release of a generation, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLabel {
    /// The package.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// Its manifest.
    pub manifest: ManifestId,
    /// Who announced it; none in records of earlier builds.
    #[serde(default)]
    pub publisher: Option<PublisherId>,
    /// Its release counter; none in records of earlier builds.
    #[serde(default)]
    pub release: Option<u64>,
}

/// What a generation shows, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GenerationLabel {
    /// The releases of the set.
    pub releases: Vec<ReleaseLabel>,
}

/// How far a generation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// Recorded; the switch to it may or may not have happened.
    Pending,
    /// It is or was shown.
    Shown,
}

/// One numbered state of a VM's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Whose.
    pub vm: Label,
    /// Its number, which only rises.
    pub number: u64,
    /// The set that it shows.
    pub set: SetId,
    /// What that is, for people.
    pub label: GenerationLabel,
    /// When it was recorded, in seconds since 1970.
    pub created: u64,
    /// How far it got.
    pub state: GenerationState,
    /// The generation that it goes on from: the one shown before it, or the one that a rollback
    /// showed again. None in records of earlier builds.
    #[serde(default)]
    pub from: Option<u64>,
}

// A VM's name has no colon, so that no name is the beginning of another one's keys.
fn key(vm: &Label, number: u64) -> String {
    format!("view:{vm}:n{number:020}")
}
fn current_key(vm: &Label) -> String {
    format!("view:{vm}:current")
}
fn last_key(vm: &Label) -> String {
    format!("view:{vm}:last")
}
fn lease_name(vm: &Label, number: u64) -> String {
    format!("vm/{vm}/{number}")
}

type Change = (String, Option<Vec<u8>>);

fn put(generation: &Generation) -> Result<Change, ViewError> {
    let key = key(&generation.vm, generation.number);
    match serde_json::to_vec(generation) {
        Ok(bytes) => Ok((key, Some(bytes))),
        Err(_) => Err(ViewError::BadRecord(key)),
    }
}

fn put_number(key: String, number: u64) -> Change {
    (key, Some(number.to_string().into_bytes()))
}

impl Views {
    fn number(&self, key: &str) -> Result<Option<u64>, ViewError> {
        let Some(bytes) = self.store.get_state(key)? else { return Ok(None) };
        let number = std::str::from_utf8(&bytes).ok().and_then(|t| t.parse().ok());
        number.map(Some).ok_or_else(|| ViewError::BadRecord(key.to_owned()))
    }

    /// The generations of a VM that are kept, the oldest first.
    pub fn generations(&self, vm: &Label) -> Result<Vec<Generation>, ViewError> {
        let rows = self.store.list_state(&format!("view:{vm}:n"))?;
        rows.into_iter()
            .map(|(key, bytes)| {
                serde_json::from_slice(&bytes).map_err(|_e| ViewError::BadRecord(key))
            })
            .collect()
    }

    /// The generation that a VM was shown last.
    pub fn current(&self, vm: &Label) -> Result<Option<Generation>, ViewError> {
        let Some(number) = self.number(&current_key(vm))? else { return Ok(None) };
        Ok(self.generations(vm)?.into_iter().find(|g| g.number == number))
    }

    /// The sets that VMs of this host show now, as the records say.
    pub(super) fn current_sets(&self) -> Result<BTreeSet<SetId>, ViewError> {
        let mut sets = BTreeSet::new();
        for (key, _) in self.store.list_state("view:")? {
            let vm = key.strip_prefix("view:").and_then(|k| k.strip_suffix(":current"));
            if let Some(vm) = vm.and_then(|name| name.parse().ok()) {
                sets.extend(self.current(&vm)?.map(|g| g.set));
            }
        }
        Ok(sets)
    }

    pub(super) fn numbers(&self, vm: &Label) -> Result<BTreeSet<u64>, ViewError> {
        Ok(self.generations(vm)?.iter().map(|g| g.number).collect())
    }

    pub(super) fn pending(&self, vm: &Label) -> Result<Vec<Generation>, ViewError> {
        let mut all = self.generations(vm)?;
        all.retain(|g| g.state == GenerationState::Pending);
        Ok(all)
    }

    /// Which generation a rollback would show again: the one of that number, or else the newest
    /// one before the current with another set.
    pub fn rollback_target(
        &self,
        vm: &Label,
        number: Option<u64>,
    ) -> Result<Generation, ViewError> {
        let current = self.current(vm)?;
        let mut shown = self.generations(vm)?;
        shown.retain(|g| g.state == GenerationState::Shown);
        let found = shown.into_iter().rev().find(|g| match (number, &current) {
            (Some(number), _) => g.number == number,
            (None, Some(now)) => g.number < now.number && g.set != now.set,
            (None, None) => false,
        });
        found.ok_or_else(|| ViewError::NoGeneration { vm: vm.clone(), number })
    }

    /// Leases the set and records the next generation, in this order, so that no recorded set can
    /// be swept.
    pub(super) fn record(
        &self,
        spec: &ViewSpec,
        set: SetId,
        label: GenerationLabel,
        (created, from): (u64, Option<u64>),
    ) -> Result<Generation, ViewError> {
        let vm = spec.vm.clone();
        let number = self.number(&last_key(&vm))?.unwrap_or(0) + 1;
        let sets = [set].into();
        self.store.lease(&lease_name(&vm, number), &LeaseSet { sets, ..LeaseSet::default() })?;
        if self.store.set_info(set)?.is_none() {
            self.store.release_lease(&lease_name(&vm, number))?;
            return Err(ViewError::NoSet(set));
        }
        let state = GenerationState::Pending;
        let generation = Generation { vm, number, set, label, created, state, from };
        let last = put_number(last_key(&generation.vm), number);
        self.store.put_states(&[put(&generation)?, last])?;
        Ok(generation)
    }

    pub(super) fn make_current(&self, pending: Generation) -> Result<Generation, ViewError> {
        let generation = Generation { state: GenerationState::Shown, ..pending };
        let current = put_number(current_key(&generation.vm), generation.number);
        self.store.put_states(&[put(&generation)?, current])?;
        self.write_number(&generation)?;
        Ok(generation)
    }

    /// The file that guests and operators may poll: inotify does not cross virtiofs.
    pub(super) fn write_number(&self, generation: &Generation) -> Result<(), ViewError> {
        let dir = self.store.vm_dir(&generation.vm)?;
        let text = format!("{}\n", generation.number);
        if std::fs::read(dir.join("generation")).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        Ok(self.store.write_file(&dir, "generation", text.as_bytes())?)
    }

    /// Drops a generation. What its backend kept goes last, so that a crash leaves at worst what
    /// nobody names; `tidy` finds that.
    pub(super) fn forget(&self, spec: &ViewSpec, number: u64) -> Result<(), ViewError> {
        self.store.remove_state(&key(&spec.vm, number))?;
        self.store.release_lease(&lease_name(&spec.vm, number))?;
        self.drop_generation(spec, number)
    }

    pub(super) fn forget_all(&self, spec: &ViewSpec) -> Result<(), ViewError> {
        for generation in self.generations(&spec.vm)? {
            self.forget(spec, generation.number)?;
        }
        // The last number stays, so that a VM that comes back goes on counting.
        Ok(self.store.remove_state(&current_key(&spec.vm))?)
    }

    /// The same generation with its set in another form: the VM's file names another backend now.
    pub(super) fn reformed(
        &self,
        generation: Generation,
        set: SetId,
    ) -> Result<Generation, ViewError> {
        if generation.set == set {
            return Ok(generation);
        }
        let sets = [generation.set, set].into();
        let name = lease_name(&generation.vm, generation.number);
        self.store.lease(&name, &LeaseSet { sets, ..LeaseSet::default() })?;
        let generation = Generation { set, ..generation };
        self.store.put_states(&[put(&generation)?])?;
        self.store.lease(&name, &LeaseSet { sets: [set].into(), ..LeaseSet::default() })?;
        Ok(generation)
    }

    /// Drops generations beyond the number that is kept. One whose set some process still sees
    /// through an old mount stays until that is gone, because removing its files would change
    /// what is seen there.
    pub(super) fn prune(&self, spec: &ViewSpec, current: u64) -> Result<(), ViewError> {
        let all = self.generations(&spec.vm)?;
        let spare = all.len().saturating_sub(spec.keep_generations.max(1));
        let (old, kept) = all.split_at_checked(spare).unwrap_or((&[], &all));
        let backend = show(spec.backend);
        for generation in old.iter().filter(|g| g.number != current) {
            let needed = kept.iter().any(|g| g.set == generation.set);
            let spared = needed && !backend.per_generation();
            if spared || !self.in_use(spec, generation) {
                self.forget(spec, generation.number)?;
            }
        }
        Ok(())
    }
}
