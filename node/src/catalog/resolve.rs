//! From a VM's file to the exact releases that it should show, with the reason for each.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::ReleaseHash;
use stork_wire::text::{PackageName, Version};

use super::{Catalog, KnownRelease, Narrow, VmFile, compare_versions};
use crate::trust::{Charter, Decision, Effect, Freeze, decide};

/// What a VM shows now, and what it must not show again.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The releases of its current generation.
    pub releases: BTreeMap<PackageName, ReleaseHash>,
    /// Releases that were rolled back: skipped until a newer one comes.
    pub skipped: BTreeSet<ReleaseHash>,
}

/// Why a release is chosen, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is what the VM should show.
    Chosen,
    /// A better one was chosen.
    Older,
    /// For another machine.
    OtherArch,
    /// For none of the groups through which the VM subscribes to it.
    NotForGroup,
    /// The group does not let its publisher release it any more; the group's name.
    NotGranted(String),
    /// The version is outside of the subscription's constraint.
    Constraint(String),
    /// The version is outside of the pin.
    Pinned(String),
    /// The package is held at what is shown.
    Held(String),
    /// The VM's trust rules do not allow it; the rule's place in the file, from 0.
    Denied(Option<usize>),
    /// Below the publisher's floor.
    BelowFloor(u64),
    /// Its entry has expired, and it is not shown yet.
    Expired,
    /// Rolled back on this VM.
    Skipped,
    /// It lies behind a fork of its feed, and is not shown yet.
    Frozen(Freeze),
    /// It was recalled, is denied or halted.
    Narrowed(Narrow),
    /// A newer release of it has expired; an older one is no substitute.
    Stale(Version),
}

impl core::fmt::Display for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Older => f.write_str("a newer or more trusted one was chosen"),
            Self::OtherArch => f.write_str("it is for another architecture"),
            Self::NotForGroup => f.write_str("it is for none of the groups of this VM"),
            Self::NotGranted(g) => {
                write!(f, "group `{g}` does not let its publisher release it any more")
            }
            Self::Constraint(c) => write!(f, "the subscription asks for {c}"),
            Self::Pinned(c) => write!(f, "the package is pinned to {c}"),
            Self::Held(why) if why.is_empty() => f.write_str("the package is held"),
            Self::Held(why) => write!(f, "the package is held: {why}"),
            Self::Denied(Some(n)) => write!(f, "trust rule {} denies it", n + 1),
            Self::Denied(None) => f.write_str("no trust rule allows it"),
            Self::BelowFloor(n) => write!(f, "the publisher withdrew everything below release {n}"),
            Self::Expired => f.write_str("its announcement has expired"),
            Self::Skipped => f.write_str("it was rolled back on this VM"),
            Self::Frozen(freeze) => freeze.fmt(f),
            Self::Narrowed(why) => why.fmt(f),
            Self::Stale(v) => write!(f, "the newer {v} has expired, so nothing older is installed"),
        }
    }
}

/// One release as it was considered for one VM.
#[derive(Debug, Clone)]
pub struct Considered<'a> {
    /// The release.
    pub known: &'a KnownRelease,
    /// What became of it.
    pub outcome: Outcome,
    /// The trust rule that decided.
    pub decision: Decision,
}

/// The release that a VM should show for one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The release.
    pub known: KnownRelease,
    /// The trust rule that allows it.
    pub rule: Option<usize>,
}

/// All that a VM should show.
pub type Wish = BTreeMap<PackageName, Choice>;

/// Is this a later release of the same package?
fn replaces(new: &KnownRelease, old: &KnownRelease) -> bool {
    new.publisher == old.publisher
        && new.release.arch == old.release.arch
        && new.release.release > old.release.release
}

/// How the VM's rules may name a release's publisher: as the first of the VM's groups does that the
/// release is for. Other groups may use the same name for somebody else.
fn publisher_name(vm: &VmFile, known: &KnownRelease, charter: &Charter) -> String {
    let groups = vm.groups.iter().filter_map(|g| charter.group_named(g.as_str()));
    let mut own = groups.filter(|g| known.release.groups.contains(&g.id()));
    let granted = own.find_map(|g| g.grant(known.publisher));
    granted.map_or_else(|| known.publisher.short(), |g| g.name.to_string())
}

impl Catalog {
    /// What the VM should show.
    #[must_use]
    pub fn wish(&self, vm: &VmFile, shown: &Shown, charter: &Charter, now: UnixSeconds) -> Wish {
        let mut wish = Wish::new();
        for package in self.releases.keys() {
            let chosen = self
                .consider(vm, package, shown, charter, now)
                .into_iter()
                .find(|c| c.outcome == Outcome::Chosen);
            if let Some(c) = chosen {
                let choice = Choice { known: c.known.clone(), rule: c.decision.rule };
                wish.insert(package.clone(), choice);
            }
        }
        wish
    }

    /// Every live release of a package, best first, with what became of it for this VM. Empty where
    /// no subscription of the VM names the package.
    #[must_use]
    pub fn consider<'a>(
        &'a self,
        vm: &VmFile,
        package: &PackageName,
        shown: &Shown,
        charter: &Charter,
        now: UnixSeconds,
    ) -> Vec<Considered<'a>> {
        if !vm.subscriptions.iter().any(|s| s.package.matches(package.as_str())) {
            return Vec::new();
        }
        let mut all: Vec<Considered<'a>> = self
            .of_package(package)
            .iter()
            .map(|known| {
                let name = publisher_name(vm, known, charter);
                let tree = known.release.tree;
                let decision = decide(&vm.rules, known.publisher, &name, package, tree);
                let outcome = self
                    .obstacle(vm, known, shown, charter, now)
                    .or_else(|| {
                        (decision.effect == Effect::Deny).then_some(Outcome::Denied(decision.rule))
                    })
                    .unwrap_or(Outcome::Older);
                Considered { known, outcome, decision }
            })
            .collect();
        all.sort_by(|a, b| {
            let (x, y) = (&a.known.release, &b.known.release);
            let eligible = |c: &Considered<'_>| c.outcome != Outcome::Older;
            let rule = |c: &Considered<'_>| c.decision.rule.unwrap_or(usize::MAX);
            eligible(a)
                .cmp(&eligible(b))
                .then(rule(a).cmp(&rule(b)))
                .then(compare_versions(&y.version, &x.version))
                .then(y.release.cmp(&x.release))
        });
        let expired: Vec<&KnownRelease> =
            all.iter().filter(|c| c.outcome == Outcome::Expired).map(|c| c.known).collect();
        if let Some(first) = all.first_mut()
            && first.outcome == Outcome::Older
        {
            let known = first.known;
            let newer = expired.iter().find(|e| replaces(e, known));
            first.outcome = match newer {
                Some(e) if shown.releases.get(package) != Some(&known.hash) => {
                    Outcome::Stale(e.release.version.clone())
                }
                _ => Outcome::Chosen,
            };
        }
        all
    }

    /// The first rule that speaks against a release; trust is asked last, so that the answer names
    /// what the operator set before it names whom he trusts.
    fn obstacle(
        &self,
        vm: &VmFile,
        known: &KnownRelease,
        shown: &Shown,
        charter: &Charter,
        now: UnixSeconds,
    ) -> Option<Outcome> {
        let r = &known.release;
        let is_shown = shown.releases.get(&r.package) == Some(&known.hash);
        let narrow = Narrow::of(vm, known, charter);
        if let Some(why) = narrow.filter(|n| !is_shown || n.takes_away(vm)) {
            return Some(Outcome::Narrowed(why));
        }
        if let Some(freeze) = known.frozen.filter(|_| !is_shown) {
            return Some(Outcome::Frozen(freeze));
        }
        if r.arch.as_str() != "all" && r.arch != vm.arch {
            return Some(Outcome::OtherArch);
        }
        // A release is for several groups, and each decides for itself.
        let mut taken = None;
        let mut in_group = |name: &str| {
            let of_vm = vm.groups.iter().any(|g| g.as_str() == name);
            let group = charter.group_named(name).filter(|g| of_vm && r.groups.contains(&g.id()));
            let allowed = group.is_some_and(|g| g.allows(known.publisher, r));
            if group.is_some() && !allowed {
                taken = Some(name.to_owned());
            }
            allowed
        };
        let subscriptions: Vec<_> = vm
            .subscriptions
            .iter()
            .filter(|s| s.package.matches(r.package.as_str()))
            .filter(|s| match &s.group {
                Some(g) => in_group(g.as_str()),
                None => vm.groups.iter().any(|g| in_group(g.as_str())),
            })
            .collect();
        let Some(first) = subscriptions.first() else {
            return Some(taken.map_or(Outcome::NotForGroup, Outcome::NotGranted));
        };
        if !subscriptions.iter().any(|s| s.version.allows(&r.version)) {
            return Some(Outcome::Constraint(first.version.to_string()));
        }
        if let Some(pin) = vm.pins.get(&r.package)
            && !pin.version.allows(&r.version)
        {
            return Some(Outcome::Pinned(pin.version.to_string()));
        }
        if let Some(why) = vm.holds.get(&r.package)
            && !is_shown
        {
            return Some(Outcome::Held(why.clone()));
        }
        let floor = self.floor(known);
        if r.release < floor {
            return Some(Outcome::BelowFloor(floor));
        }
        if shown.skipped.contains(&known.hash) {
            return Some(Outcome::Skipped);
        }
        (known.expires <= now && !is_shown).then_some(Outcome::Expired)
    }
}
