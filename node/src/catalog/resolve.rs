//! Which releases of a package a VM may have, which of them is best, and why the others are not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::{ManifestId, PublisherId, ReleaseHash};
use stork_wire::text::PackageName;

use super::constraint::VersionKey;
use super::{Catalog, KnownRelease, Narrow, Outcome, Privilege, VmFile};
use crate::trust::{Candidate, Decision, Effect, GroupState, Permits, Rule, Trust, decide};

/// What a VM shows now, and what it must not show again.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The releases of its current generation, as far as they stand.
    pub releases: BTreeMap<PackageName, ReleaseHash>,
    /// Whose release of each package its current generation has, and with which counter, whether
    /// it stands or not.
    pub installed: BTreeMap<PackageName, (PublisherId, u64)>,
    /// Releases that were rolled back: skipped until a newer one comes.
    pub skipped: BTreeSet<ReleaseHash>,
}

/// What asks for a privilege, of the manifests that are here and have such a thing.
pub type Privileges = BTreeMap<ManifestId, Privilege>;

/// All that decides beside the catalog and the VM's file.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The charter and the state of feeds.
    pub trust: &'a Trust,
    /// The time.
    pub now: UnixSeconds,
    /// What the manifests that are here ask for.
    pub privileges: &'a Privileges,
    /// Permits to go back.
    pub permits: &'a Permits,
}

static NO_PRIVILEGES: Privileges = Privileges::new();
static NO_PERMITS: Permits = Permits::none();

impl<'a> Scene<'a> {
    /// A scene without manifests and permits.
    #[must_use]
    pub fn new(trust: &'a Trust, now: UnixSeconds) -> Self {
        Self { trust, now, privileges: &NO_PRIVILEGES, permits: &NO_PERMITS }
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

/// Is this a later release of the same package?
fn replaces(new: &KnownRelease, old: &KnownRelease) -> bool {
    same_line(new, old) && new.release.release > old.release.release
}

fn same_line(a: &KnownRelease, b: &KnownRelease) -> bool {
    a.publisher == b.publisher && a.release.arch == b.release.arch
}

/// The order of releases, the best first: by rule and place, then the newest.
fn rank<'a>(c: &Considered<'a>) -> impl Ord + use<'a> {
    let release = &c.known.release;
    let rule = (c.decision.rule.unwrap_or(usize::MAX), c.decision.place);
    (rule, Reverse((VersionKey::of(&release.version), release.release)))
}

/// One VM's questions.
#[derive(Debug)]
pub(super) struct Asker<'a, 'v> {
    pub(super) catalog: &'a Catalog,
    pub(super) vm: &'v VmFile,
    pub(super) shown: &'v Shown,
    pub(super) scene: Scene<'v>,
    /// The VM's groups that are known, in its order.
    pub(super) groups: Vec<&'v GroupState>,
}

impl<'a, 'v> Asker<'a, 'v> {
    pub(super) fn new(
        catalog: &'a Catalog,
        vm: &'v VmFile,
        shown: &'v Shown,
        scene: Scene<'v>,
    ) -> Self {
        let charter = scene.trust.charter();
        let groups = vm.groups.iter().filter_map(|g| charter.group_named(g.as_str())).collect();
        Self { catalog, vm, shown, scene, groups }
    }

    pub(super) fn subscribes(&self, package: &PackageName) -> bool {
        self.vm.subscriptions.iter().any(|s| s.package.matches(package.as_str()))
    }

    /// Every live release of a package, best first, with what became of it. Whether a subscription
    /// names the package is not asked: what a dependency brings in needs none.
    pub(super) fn consider(&self, package: &PackageName) -> Vec<Considered<'a>> {
        let all = self.catalog.of_package(package).iter();
        let mut all: Vec<Considered<'a>> = all.map(|known| self.look_at(known)).collect();
        self.mark_downgrades(package, &mut all);
        all.sort_by_cached_key(|c| (c.outcome != Outcome::Older, rank(c)));
        self.choose(package, &mut all);
        // What would not be best anyway needs no permit.
        let best = all.iter().find(|c| c.outcome == Outcome::Chosen).map(|c| rank(c));
        for c in all.iter_mut().filter(|c| matches!(c.outcome, Outcome::Downgrade(_))) {
            if best.as_ref().is_some_and(|best| *best < rank(c)) {
                c.outcome = Outcome::Older;
            }
        }
        all
    }

    fn look_at(&self, known: &'a KnownRelease) -> Considered<'a> {
        let decision = self.decide(known);
        let by_rules = || match decision.effect {
            Effect::Deny => Some(Outcome::Denied(decision.rule)),
            Effect::Allow => self.by_rule(known, decision.rule.and_then(|i| self.vm.rules.get(i))),
        };
        let outcome = self.obstacle(known).or_else(by_rules).unwrap_or(Outcome::Older);
        Considered { known, outcome, decision }
    }

    /// Marks the best one, if it may come.
    fn choose(&self, package: &PackageName, all: &mut [Considered<'a>]) {
        let is_shown = |k: &KnownRelease| self.shown.releases.get(package) == Some(&k.hash);
        let barriers: Vec<(&KnownRelease, Outcome)> = all
            .iter()
            .filter_map(|c| match c.outcome {
                Outcome::Expired => {
                    Some((c.known, Outcome::Stale(c.known.release.version.clone())))
                }
                Outcome::Privileged(_) => {
                    Some((c.known, Outcome::Blocked(c.known.release.version.clone())))
                }
                _ => None,
            })
            .collect();
        if let Some(first) = all.first_mut()
            && first.outcome == Outcome::Older
        {
            let known = first.known;
            let barrier = barriers.into_iter().find(|(k, _)| replaces(k, known));
            first.outcome = match barrier {
                Some((_, outcome)) if !is_shown(known) => outcome,
                _ => Outcome::Chosen,
            };
            return;
        }
        // The VM's file asks for an older one, and may not have it: nothing would be worse.
        let asked = all.iter().any(|c| matches!(c.outcome, Outcome::Downgrade(_)));
        let kept = all.iter_mut().find(|c| {
            let out = matches!(c.outcome, Outcome::Pinned(_) | Outcome::Constraint(_));
            out && is_shown(c.known)
        });
        if let Some(kept) = kept.filter(|_| asked) {
            kept.outcome = Outcome::Kept;
        }
    }

    /// Marks releases that their publisher made before the one that the VM shows.
    fn mark_downgrades(&self, package: &PackageName, all: &mut [Considered<'a>]) {
        let shown = self.shown.releases.get(package);
        let live = all.iter().find(|c| shown == Some(&c.known.hash));
        let label = self.shown.installed.get(package).copied();
        let installed = live.map(|c| (c.known.publisher, c.known.release.release)).or(label);
        let Some((publisher, have)) = installed else { return };
        // It was withdrawn, or may not stay: the newest one that stands may come in its place.
        let gone = live.is_none_or(|c| c.outcome.takes_away());
        let arch = live.map(|c| c.known.release.arch.clone());
        let older = |k: &KnownRelease| {
            k.publisher == publisher
                && arch.as_ref().is_none_or(|a| *a == k.release.arch)
                && k.release.release < have
        };
        let standing = all.iter().filter(|c| {
            let out =
                matches!(c.outcome, Outcome::Frozen(_) | Outcome::Narrowed(_) | Outcome::Retired);
            older(c.known) && !out && !c.outcome.is_choice_of_operator()
        });
        let newest = standing.map(|c| c.known.release.release).max();
        for c in all.iter_mut().filter(|c| c.outcome == Outcome::Older && older(c.known)) {
            let which = (publisher, c.known.release.release);
            let permits = self.scene.permits;
            let permitted = permits.until(&self.vm.name, package, which, self.scene.now).is_some();
            let comes = permitted || (gone && newest == Some(which.1));
            if !comes {
                c.outcome = Outcome::Downgrade(have);
            }
        }
    }

    /// The first of the VM's groups that a release is for and that names its publisher.
    pub(super) fn name_of(&self, known: &KnownRelease) -> Option<&'v str> {
        let mut own = self.groups.iter().filter(|g| known.release.groups.contains(&g.id()));
        own.find_map(|g| g.grant(known.publisher)).map(|g| g.name.as_str())
    }

    /// The rule that decides about a release.
    pub(super) fn rule_of(&self, known: &KnownRelease) -> Option<&'v Rule> {
        self.decide(known).rule.and_then(|i| self.vm.rules.get(i))
    }

    /// What the VM's trust rules say of a release.
    pub(super) fn decide(&self, known: &KnownRelease) -> Decision {
        let package = &known.release.package;
        let candidate = Candidate {
            publisher: known.publisher,
            name: self.name_of(known),
            package,
            tree: known.release.tree,
        };
        decide(&self.vm.rules, &candidate, |rule| self.delegates(rule, package))
    }

    pub(super) fn is_shown(&self, known: &KnownRelease) -> bool {
        self.shown.releases.get(&known.release.package) == Some(&known.hash)
    }

    /// The first thing that speaks against a release; trust rules are asked last, so that the
    /// answer names what the operator set before it names whom he trusts.
    fn obstacle(&self, known: &KnownRelease) -> Option<Outcome> {
        let (r, vm) = (&known.release, self.vm);
        let is_shown = self.is_shown(known);
        let narrow = Narrow::of(vm, known, self.scene.trust.charter());
        if let Some(why) = narrow.filter(|n| !is_shown || n.takes_away(vm)) {
            return Some(Outcome::Narrowed(why));
        }
        if let Some(freeze) = known.frozen.filter(|_| !is_shown) {
            return Some(Outcome::Frozen(freeze));
        }
        if known.retired && !is_shown {
            return Some(Outcome::Retired);
        }
        if r.arch.as_str() != "all" && r.arch != vm.arch {
            return Some(Outcome::OtherArch);
        }
        if let Some(outcome) = self.by_subscription(known) {
            return Some(outcome);
        }
        if let Some(pin) = vm.pins.get(&r.package)
            && !pin.version.allows(&r.version)
        {
            return Some(Outcome::Pinned(pin.version.to_string()));
        }
        if let Some(hold) = vm.holds.get(&r.package)
            && !is_shown
        {
            return Some(Outcome::Held(hold.reason.clone()));
        }
        let floor = self.catalog.floor(known);
        if r.release < floor {
            return Some(Outcome::BelowFloor(floor));
        }
        if self.shown.skipped.contains(&known.hash) {
            return Some(Outcome::Skipped);
        }
        (known.expires <= self.scene.now && !is_shown).then_some(Outcome::Expired)
    }

    /// Groups and versions, by the subscriptions that name the package; where none does, any of the
    /// VM's groups.
    fn by_subscription(&self, known: &KnownRelease) -> Option<Outcome> {
        let (r, vm) = (&known.release, self.vm);
        // A release is for several groups, and each decides for itself.
        let mut taken = None;
        let mut in_group = |group: &GroupState| {
            let is_for = r.groups.contains(&group.id());
            let allowed = is_for && self.allows(group, known);
            if is_for && !allowed {
                taken = Some(group.doc().name.to_string());
            }
            allowed
        };
        let mut of_group = |name: Option<&str>| {
            let mut own = self.groups.iter();
            own.any(|g| name.is_none_or(|n| g.doc().name.as_str() == n) && in_group(g))
        };
        let naming: Vec<_> =
            vm.subscriptions.iter().filter(|s| s.package.matches(r.package.as_str())).collect();
        if naming.is_empty() && of_group(None) {
            return None;
        }
        let subscriptions: Vec<_> = naming
            .into_iter()
            .filter(|s| of_group(s.group.as_ref().map(stork_wire::text::GroupName::as_str)))
            .collect();
        let Some(first) = subscriptions.first() else {
            return Some(taken.map_or(Outcome::NotForGroup, Outcome::NotGranted));
        };
        let fits = subscriptions.iter().any(|s| s.version.allows(&r.version));
        (!fits).then(|| Outcome::Constraint(first.version.to_string()))
    }
}

impl Catalog {
    /// Every live release of a package, best first, with what became of it for this VM. Empty where
    /// no subscription of the VM names the package.
    #[must_use]
    pub fn consider<'a>(
        &'a self,
        vm: &VmFile,
        package: &PackageName,
        shown: &Shown,
        scene: Scene<'_>,
    ) -> Vec<Considered<'a>> {
        let asker = Asker::new(self, vm, shown, scene);
        if asker.subscribes(package) { asker.consider(package) } else { Vec::new() }
    }

    /// The same of a package that a dependency brings in: no subscription needs to name it.
    #[must_use]
    pub fn consider_pulled<'a>(
        &'a self,
        vm: &VmFile,
        package: &PackageName,
        shown: &Shown,
        scene: Scene<'_>,
    ) -> Vec<Considered<'a>> {
        Asker::new(self, vm, shown, scene).consider(package)
    }
}
