//! Quotas: what a publisher or a group may bring to this host, and what a VM may have, asked before
//! a fetch begins.
//!
//! Of what a VM wishes, that counts which it shows already, and then what is new in the order of
//! packages, as far as it fits. What does not fit is withheld with its reason: the VM keeps what it
//! shows of that package, and other VMs and other packages go on. What came only for a package that
//! does not fit, or what such a package needs, is withheld with it.
//!
//! A view of an image or of archives keeps a copy of its packages beside the objects. There each
//! byte counts twice, for the VM and for who brings it: that is what it takes of the disk.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::ids::{ManifestId, ReleaseHash};
use stork_wire::text::PackageName;

use super::Driver;
use super::content::{Content, Stage};
use super::vms::Vm;
use crate::catalog::{KnownRelease, Outcome, Wish};
use crate::config::VmQuota;
use crate::view::form_of;

/// Bytes and entries of a release.
type Size = (u64, u64);

/// How bytes are named that count twice.
const COPIED: &str = "bytes (twice those of its files, since its view keeps a copy)";

/// Does the VM's view keep a copy of its packages?
fn copies(vm: &Vm) -> bool {
    form_of(vm.spec.backend).keeps_copy()
}

/// What of a wish is beyond a quota, and how its bytes are named. `shown` is what the VM shows of
/// each package.
fn beyond(
    (quota, bytes): (VmQuota, &'static str),
    wish: &Wish,
    shown: &BTreeMap<PackageName, (ReleaseHash, Size)>,
    size: impl Fn(&KnownRelease) -> Size,
) -> BTreeMap<ReleaseHash, Outcome> {
    let mut over = BTreeMap::new();
    if quota == VmQuota::default() {
        return over;
    }
    let old = |p: &PackageName| shown.get(p).map_or((0, 0), |(_, size)| *size);
    let sums = wish.keys().map(old);
    let mut taken = sums.fold((0u64, 0u64), |a, b| (a.0.saturating_add(b.0), a.1 + b.1));
    let is_new = |p: &PackageName, k: &KnownRelease| shown.get(p).is_none_or(|s| s.0 != k.hash);
    for (package, choice) in wish.iter().filter(|(p, c)| is_new(p, &c.known)) {
        let (before, after) = (old(package), size(&choice.known));
        let with = (
            taken.0.saturating_sub(before.0).saturating_add(after.0),
            taken.1.saturating_sub(before.1).saturating_add(after.1),
        );
        let refused = [
            (bytes, with.0, after.0 > before.0, quota.bytes),
            ("files", with.1, after.1 > before.1, quota.files),
        ];
        let refused = refused.into_iter().find(|(_, n, grows, max)| *grows && *max > 0 && n > max);
        match refused {
            Some((what, with, _, limit)) => {
                over.insert(choice.known.hash, Outcome::OverQuota { what, with, limit });
            }
            None => taken = with,
        }
    }
    with_their_own(wish, &mut over);
    over
}

/// Adds what was pulled in for what does not fit, and what needs it.
fn with_their_own(wish: &Wish, over: &mut BTreeMap<ReleaseHash, Outcome>) {
    loop {
        let before = over.len();
        for choice in wish.values() {
            let Some(puller) = choice.pulled_for.as_ref().and_then(|p| wish.get(p)) else {
                continue;
            };
            let pair = [choice.known.hash, puller.known.hash];
            if let Some(why) = pair.iter().find_map(|h| over.get(h)).cloned() {
                over.extend(pair.map(|hash| (hash, why.clone())));
            }
        }
        if over.len() == before {
            return;
        }
    }
}

/// Does it take room, or is it about to?
fn counts(c: &Content) -> bool {
    c.wanted && !matches!(c.stage, Stage::Idle | Stage::Failed(..))
}

impl Driver {
    /// Judges again what each VM has room for; tells what is newly refused.
    pub(super) fn judge_quotas(&mut self) {
        let quota = &self.config.quota;
        if quota.is_empty() {
            return;
        }
        // A manifest with another number of entries than was announced is refused.
        let mut told = Vec::new();
        for (name, vm) in &mut self.vms {
            let (times, bytes) = if copies(vm) { (2, COPIED) } else { (1, "bytes") };
            let size = |k: &KnownRelease| {
                let unpacked = k.release.unpacked_bytes.saturating_mul(times);
                (unpacked, u64::from(k.release.files))
            };
            let shown = vm.shown(&self.catalog).releases;
            let shown = shown
                .into_iter()
                .map(|(p, hash)| (p, (hash, self.catalog.by_hash(hash).map_or((0, 0), size))));
            let quota = (quota.of_vm(name.as_str()), bytes);
            let over = beyond(quota, &vm.wish, &shown.collect(), size);
            for choice in vm.wish.values() {
                if let Some(why) = over.get(&choice.known.hash)
                    && !vm.over.contains_key(&choice.known.hash)
                {
                    let r = &choice.known.release;
                    told.push(format!("{name}: {} {}: {why}", r.package, r.version));
                }
            }
            vm.withheld.retain(|_, why| !matches!(why, Outcome::OverQuota { .. }));
            vm.withheld.extend(over.iter().map(|(hash, why)| (*hash, why.clone())));
            vm.over = over;
        }
        for text in told {
            self.counters.add("fetches_refused", "over_quota");
            self.event("vm_over_quota", text);
        }
    }

    /// Why no VM may have a content that some VM wishes; `None` where one may, or none wishes it.
    fn over_quota_of_vms(&self, id: ManifestId) -> Option<String> {
        let wishes = self.vms.values().flat_map(|vm| {
            let choices = vm.wish.values().filter(|c| c.known.release.manifest.id == id);
            choices.map(|c| vm.over.get(&c.known.hash))
        });
        let all: Option<Vec<&Outcome>> = wishes.collect();
        all?.first().map(ToString::to_string)
    }

    /// Contents of which the view of some VM that wishes them keeps a copy.
    fn copied(&self) -> BTreeSet<ManifestId> {
        let wishes = self.vms.values().filter(|vm| copies(vm)).flat_map(|vm| vm.wish.values());
        wishes.map(|choice| choice.known.release.manifest.id).collect()
    }

    /// Why a content may not be fetched now: what it and others of its publisher or group take
    /// together is more than their quota.
    pub(super) fn over_quota(&self, id: ManifestId) -> Option<String> {
        let quota = &self.config.quota;
        let content = self.contents.get(&id).filter(|_| !quota.is_empty())?;
        if let Some(why) = self.over_quota_of_vms(id) {
            return Some(why);
        }
        let copied = self.copied();
        let bytes = |id: &ManifestId, c: &Content| {
            c.release.unpacked_bytes.saturating_mul(if copied.contains(id) { 2 } else { 1 })
        };
        let taken = |same: &dyn Fn(&Content) -> bool| -> u64 {
            let others = self.contents.iter().filter(|(other, c)| **other != id && counts(c));
            let others = others.filter(|(_, c)| same(c)).map(|(other, c)| bytes(other, c));
            others.fold(bytes(&id, content), u64::saturating_add)
        };
        let with = if copied.is_empty() { "this" } else { "this and copies that views keep" };
        let told = |what: String, limit: Option<u64>, taken: u64| {
            let limit = limit.filter(|limit| taken > *limit)?;
            Some(format!(
                "over the quota of {what}: {taken} bytes with {with}, {limit} are allowed"
            ))
        };
        let publisher = content.publisher?;
        let (name, number) =
            (self.trust.charter().publisher_name(publisher), publisher.to_string());
        let limit = quota.publisher(&[&name, &number]);
        let whole = limit.map_or(0, |_| taken(&|c| c.publisher == Some(publisher)));
        told(format!("publisher {name}"), limit, whole).or_else(|| {
            content.release.groups.iter().find_map(|group| {
                let state = self.trust.charter().group(*group)?;
                let name = state.doc().name.as_str();
                let limit = quota.group(name);
                let whole = limit.map_or(0, |_| taken(&|c| c.release.groups.contains(group)));
                told(format!("group {name}"), limit, whole)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VM without a quota has room for everything.
    #[test]
    fn no_quota_no_refusal() {
        let none =
            beyond((VmQuota::default(), "bytes"), &Wish::new(), &BTreeMap::new(), |_| (1, 1));
        assert!(none.is_empty());
    }
}
