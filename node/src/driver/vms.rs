//! VMs: what each should show, by its file and the catalog, and what it shows.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::codec::{List, decode, encode};
use stork_wire::ids::ReleaseHash;
use stork_wire::text::{Label, PackageName};
use stork_wire::tick::Tick;

use super::Driver;
use super::receipts::Receipt;
use super::staging::Waits;
use crate::catalog::{
    Catalog, KnownRelease, MixAndMatch, Narrow, OnRecall, Outcome, Scene, Shown, VmFile, Wish,
    bundle, check_one_head,
};
use crate::view::{Carried, Generation, ViewSpec};

/// Announcements that come together are shown together.
const REPLAN_MS: u64 = 50;
/// A view that was refused is looked at again after so long, or when something changes.
const REFUSED_MS: u64 = 30_000;
/// Rolled-back releases that a VM remembers.
const SKIPPED_MAX: usize = 256;

/// One VM on this host.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) file: VmFile,
    pub(super) spec: ViewSpec,
    pub(super) current: Option<Generation>,
    pub(super) skipped: BTreeSet<ReleaseHash>,
    /// Records and reality were compared since the start.
    pub(super) reconciled: bool,
    pub(super) switching: bool,
    pub(super) wish: Wish,
    /// What would be best and does not come, because of the whole; with the reason.
    pub(super) withheld: BTreeMap<ReleaseHash, Outcome>,
    /// Of its wish, what its quota has no room for: it keeps what it shows of these packages.
    pub(super) over: BTreeMap<ReleaseHash, Outcome>,
    /// The last switch that failed: why, for which releases, and when it is tried again.
    pub(super) failed: Option<(String, Vec<ReleaseHash>, Tick)>,
    /// The last switch.
    pub(super) receipt: Option<Receipt>,
    /// What became of its private changes then.
    pub(super) carried: Option<Carried>,
    /// What is ready, and shown later.
    pub(super) waits: Option<Waits>,
    /// An operator ordered not to wait.
    pub(super) at_once: bool,
    /// When what its switches left behind is looked at next, and until when that is often.
    pub(super) tidy_at: Tick,
    pub(super) fresh_until: Tick,
}

/// The releases of a generation, as far as they are still live.
pub(super) fn releases_of(
    catalog: &Catalog,
    generation: &Generation,
) -> BTreeMap<PackageName, KnownRelease> {
    let labels = generation.label.releases.iter();
    let known = labels.filter_map(|l| {
        // Two publishers may announce one content: the record says whose was shown.
        let same = |k: &&KnownRelease| {
            k.release.manifest.id == l.manifest
                && k.release.version == l.version
                && l.publisher.is_none_or(|p| p == k.publisher)
                && l.release.is_none_or(|n| n == k.release.release)
        };
        let found = catalog.of_package(&l.package).iter().find(same);
        found.map(|k| (l.package.clone(), k.clone()))
    });
    known.collect()
}

impl Vm {
    /// What it shows and what it must not show again.
    pub(super) fn shown(&self, catalog: &Catalog) -> Shown {
        let releases = self.current.iter().flat_map(|g| releases_of(catalog, g));
        let labels = self.current.iter().flat_map(|g| &g.label.releases);
        let installed =
            labels.filter_map(|l| Some((l.package.clone(), (l.publisher?, l.release?))));
        Shown {
            installed: installed.collect(),
            releases: releases.map(|(p, k)| (p, k.hash)).collect(),
            skipped: self.skipped.clone(),
        }
    }
}

impl Driver {
    /// Reads the VM files for the first time.
    pub(super) fn load_vms(&mut self) {
        self.folder.reread();
        self.reload_vms();
    }

    /// Takes over changed VM files. A VM whose file is gone keeps what it shows.
    pub(super) fn reload_vms(&mut self) {
        for bad in self.folder.bad() {
            self.counters.add("vm_files", "bad");
            let text =
                format!("{}: {} ({})", bad.path.display(), bad.error.message, bad.error.help);
            self.event("vm_file_bad", text);
        }
        let files = self.folder.vms();
        let gone: Vec<Label> =
            self.vms.keys().filter(|n| !files.contains_key(*n)).cloned().collect();
        for name in gone {
            self.vms.remove(&name);
            self.event("vm_removed", format!("{name}: its file is gone; its view stays as it is"));
        }
        for (name, file) in files {
            let spec = ViewSpec::of(&file);
            match self.vms.get_mut(&name) {
                Some(vm) if vm.file == file => {}
                Some(vm) => {
                    vm.reconciled &= vm.spec == spec;
                    vm.file = file;
                    vm.spec = spec;
                    vm.failed = None;
                    self.event("vm_changed", name.to_string());
                }
                None => self.add_vm(name, file, spec),
            }
        }
        self.reconcile_vms();
        self.refresh_record();
        self.replan_soon();
    }

    fn add_vm(&mut self, name: Label, file: VmFile, spec: ViewSpec) {
        let current = self.views.current(&name).unwrap_or_else(|e| {
            tracing::error!(vm = %name, "generations cannot be read: {e}");
            None
        });
        let skipped = self.store.get_state(&skip_key(&name)).ok().flatten();
        let skipped: List<ReleaseHash, SKIPPED_MAX> =
            skipped.and_then(|b| decode(&b, 64 * 1024).ok()).unwrap_or_default();
        let vm = Vm {
            file,
            spec,
            current,
            skipped: skipped.into_iter().collect(),
            reconciled: false,
            switching: false,
            wish: Wish::new(),
            withheld: BTreeMap::new(),
            over: BTreeMap::new(),
            failed: None,
            receipt: None,
            carried: None,
            waits: None,
            at_once: false,
            tidy_at: Tick(0),
            fresh_until: Tick(0),
        };
        self.vms.insert(name, vm);
    }

    /// Remembers what a VM must not show again.
    pub(super) fn save_skipped(&mut self, name: &Label) {
        let Some(vm) = self.vms.get(name) else { return };
        let list: List<ReleaseHash, SKIPPED_MAX> = List::truncated(vm.skipped.iter().copied());
        if let Err(e) = self.store.put_state(&skip_key(name), &encode(&list)) {
            self.event("not_saved", format!("what {name} rolled back: {e}"));
        }
    }

    /// Looks at all VMs soon, together with what else changes meanwhile.
    pub(super) fn replan_soon(&mut self) {
        let at = self.clock.tick().after_ms(REPLAN_MS);
        self.replan_at.get_or_insert(at);
    }

    /// Decides for every VM what it should show, fetches what is missing, and switches.
    pub(super) fn replan(&mut self) {
        let scene = Scene {
            trust: &self.trust,
            now: self.clock.unix(),
            privileges: &self.privileges,
            permits: &self.permits,
        };
        let mut wanted: BTreeMap<ReleaseHash, KnownRelease> = BTreeMap::new();
        for vm in self.vms.values_mut() {
            let shown = vm.shown(&self.catalog);
            let plan = self.catalog.plan(&vm.file, &shown, scene);
            (vm.wish, vm.withheld) = (plan.wish, plan.withheld);
        }
        self.judge_quotas();
        for vm in self.vms.values() {
            let within = vm.wish.values().filter(|c| !vm.over.contains_key(&c.known.hash));
            wanted.extend(within.map(|c| (c.known.hash, c.known.clone())));
        }
        let wanted: Vec<KnownRelease> = wanted.into_values().collect();
        self.want(&wanted);
        let names: Vec<Label> = self.vms.keys().cloned().collect();
        for name in names {
            match self.target(&name) {
                Ok(Some(target)) => self.switch(&name, target),
                Ok(None) if self.vms.get(&name).is_some_and(|vm| !vm.switching) => {
                    self.no_longer_waits(&name);
                }
                Ok(None) => {}
                Err(mixed) => self.refuse_view(&name, &mixed),
            }
        }
    }

    /// All that decides beside the catalog and a VM's file.
    pub(super) fn scene(&self) -> Scene<'_> {
        Scene {
            trust: &self.trust,
            now: self.clock.unix(),
            privileges: &self.privileges,
            permits: &self.permits,
        }
    }

    /// What would be shown was never live together: the VM keeps what it shows.
    fn refuse_view(&mut self, name: &Label, why: &MixAndMatch) {
        let again = self.clock.tick().after_ms(REFUSED_MS);
        let Some(vm) = self.vms.get_mut(name) else { return };
        let why = why.to_string();
        let told = vm.failed.as_ref().is_some_and(|(old, _, _)| *old == why);
        vm.failed = Some((why.clone(), Vec::new(), again));
        if !told {
            self.counters.add("switches", "mix_and_match");
            self.event("view_failed", format!("{name}: {why}"));
        }
    }

    /// The releases that a VM can show now; `None` where it shows them already or must wait.
    fn target(&self, name: &Label) -> Result<Option<Vec<KnownRelease>>, MixAndMatch> {
        let Some(vm) = self.vms.get(name).filter(|vm| vm.reconciled && !vm.switching) else {
            return Ok(None);
        };
        let shown = vm.current.as_ref().map(|g| releases_of(&self.catalog, g)).unwrap_or_default();
        let mut target = Vec::new();
        // Members of a bundle come when all of them are whole.
        let ready = |k: &KnownRelease| self.is_whole(&k.release) && !vm.over.contains_key(&k.hash);
        let waiting = bundle::waiting(&vm.wish, ready);
        for (package, choice) in &vm.wish {
            if ready(&choice.known) && !waiting.contains(package) {
                target.push(choice.known.clone());
            } else if let Some(old) = shown
                .get(package)
                .filter(|k| self.still_allowed(vm, k) || self.waits_for_older(vm, k))
            {
                target.push(old.clone());
            }
        }
        let hashes: Vec<ReleaseHash> = target.iter().map(|k| k.hash).collect();
        let current = vm.current.as_ref();
        let same_count = current.is_some_and(|g| g.label.releases.len() == target.len());
        let same = same_count && shown.values().map(|k| k.hash).eq(hashes.iter().copied());
        if same || (current.is_none() && target.is_empty()) {
            return Ok(None);
        }
        let failed = vm.failed.as_ref();
        if failed.is_some_and(|(_, tried, at)| *tried == hashes && self.clock.tick() < *at) {
            return Ok(None);
        }
        check_one_head(&target, |id, at| self.trust.on_path(id, at))?;
        Ok(Some(target))
    }

    /// Does what was taken back stay until what replaces it is on disk?
    fn waits_for_older(&self, vm: &Vm, known: &KnownRelease) -> bool {
        vm.file.on_recall == OnRecall::Older
            && Narrow::of(&vm.file, known, self.trust.charter()).is_some()
    }

    fn still_allowed(&self, vm: &Vm, known: &KnownRelease) -> bool {
        let shown = vm.shown(&self.catalog);
        self.catalog.may_stay(&vm.file, &shown, self.scene(), known)
    }

    /// Switches that failed are tried again when their time has come.
    pub(super) fn retry_switches(&mut self) {
        let now = self.clock.tick();
        let due =
            |vm: &Vm| !vm.switching && vm.failed.as_ref().is_some_and(|(_, _, at)| *at <= now);
        // Nothing is switched before records and reality were compared.
        if self.vms.values().any(|vm| due(vm) && !vm.reconciled) {
            self.reconcile_vms();
        }
        if self.vms.values().any(due) || self.is_time() {
            self.replan_soon();
        }
    }
}

fn skip_key(name: &Label) -> String {
    format!("skip:{name}")
}
