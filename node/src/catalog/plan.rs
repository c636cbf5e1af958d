//! All that a VM should show: the best release of each package, then what bundles and dependencies
//! have to say about the whole.
//!
//! What these two refuse falls back to what the VM shows, never to another release: an update
//! waits, and nothing older comes in its place.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use stork_wire::ids::ReleaseHash;
use stork_wire::text::PackageName;

use super::depends::{self, Offers, Providers, Rules};
use super::resolve::Asker;
use super::{Catalog, KnownRelease, OnDepends, Outcome, Scene, Shown, VmFile, bundle};

/// Rounds in which a refusal may bring another one. Beyond them only what is shown stays.
const ROUNDS_MAX: usize = 64;

/// The release that a VM should show for one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The release.
    pub known: KnownRelease,
    /// The trust rule that allows it.
    pub rule: Option<usize>,
    /// The package whose needs brought it in; `None`: a subscription names it.
    pub pulled_for: Option<PackageName>,
}

/// All that a VM should show.
pub type Wish = BTreeMap<PackageName, Choice>;

/// What a VM should show, and what its whole refused of what was best by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What it should show.
    pub wish: Wish,
    /// Releases that were best, and do not come, with the reason.
    pub withheld: BTreeMap<ReleaseHash, Outcome>,
    /// Lines of dependencies that were looked at.
    pub looked_at: usize,
}

/// The VM's view of the catalog, for the resolver.
struct Market<'a> {
    catalog: &'a Catalog,
    asker: &'a Asker<'a, 'a>,
    withheld: &'a BTreeMap<ReleaseHash, Outcome>,
    providers: &'a OnceCell<Providers>,
}

impl Offers for Market<'_> {
    fn offer(&self, package: &PackageName) -> Option<KnownRelease> {
        let all = self.asker.consider(package);
        let chosen = all.iter().find(|c| c.outcome.is_choice());
        let free = chosen.filter(|c| !self.withheld.contains_key(&c.known.hash));
        let shown = self.asker.shown.releases.get(package);
        let stays = || all.iter().find(|c| Some(&c.known.hash) == shown && c.outcome.may_stay());
        free.or_else(stays).map(|c| c.known.clone())
    }
    fn providers(&self, name: &PackageName) -> Vec<PackageName> {
        self.providers.get_or_init(|| Providers::of(self.catalog.all())).get(name)
    }
    fn provides(&self, known: &KnownRelease, name: &PackageName) -> bool {
        known.release.provides.contains(name)
            && self.asker.rule_of(known).is_none_or(|r| r.lets_provide(name))
    }
}

/// One VM while it is planned.
struct Planning<'a> {
    catalog: &'a Catalog,
    asker: Asker<'a, 'a>,
    providers: OnceCell<Providers>,
    plan: Plan,
    changed: bool,
}

impl<'a> Planning<'a> {
    fn market<'b>(&'b self) -> Market<'b>
    where
        'a: 'b,
    {
        Market {
            catalog: self.catalog,
            asker: &self.asker,
            withheld: &self.plan.withheld,
            providers: &self.providers,
        }
    }

    /// The best of each package by itself.
    fn choose(&mut self) {
        for package in self.catalog.releases.keys() {
            if !self.asker.subscribes(package) {
                continue;
            }
            let all = self.asker.consider(package);
            if let Some(c) = all.into_iter().find(|c| c.outcome.is_choice()) {
                let (known, rule) = (c.known.clone(), c.decision.rule);
                let choice = Choice { known, rule, pulled_for: None };
                self.plan.wish.insert(package.clone(), choice);
            }
        }
    }

    /// Takes a choice back: what is shown stays, if it may, and else there is none.
    fn withhold(&mut self, package: &PackageName, why: Outcome) {
        let Some(choice) = self.plan.wish.remove(package) else { return };
        self.changed = true;
        let shown = self.asker.shown.releases.get(package).copied();
        // What is shown already stays however the rest turns out, once: a bundle that lost a member
        // is not taken apart further.
        if shown == Some(choice.known.hash) {
            self.plan.wish.insert(package.clone(), choice);
            self.changed = false;
            return;
        }
        self.plan.withheld.insert(choice.known.hash, why);
        let all = self.asker.consider(package);
        let old = all.into_iter().find(|c| Some(c.known.hash) == shown && c.outcome.may_stay());
        if let Some(c) = old {
            let (known, rule) = (c.known.clone(), c.decision.rule);
            let choice = Choice { known, rule, pulled_for: choice.pulled_for };
            self.plan.wish.insert(package.clone(), choice);
        }
    }

    fn bundles(&mut self) {
        let expected = |p: &PackageName| self.asker.subscribes(p) || self.plan.wish.contains_key(p);
        let broken = bundle::broken(&self.plan.wish, expected);
        let of_broken = |c: &Choice| {
            let key = bundle::key_of(&c.known)?;
            broken.get(&key).map(|lacks| (key.1, lacks.clone()))
        };
        let hit = self.plan.wish.iter().filter_map(|(p, c)| Some((p.clone(), of_broken(c)?)));
        for (package, (name, lacks)) in hit.collect::<Vec<_>>() {
            self.withhold_once(&package, Outcome::Bundle { name, lacks });
        }
    }

    fn withhold_once(&mut self, package: &PackageName, why: Outcome) {
        let before = self.changed;
        self.withhold(package, why);
        self.changed |= before;
    }

    fn needs(&mut self) {
        let mode = self.asker.vm.depends;
        if mode == OnDepends::Show {
            return;
        }
        self.plan.wish.retain(|_, c| c.pulled_for.is_none());
        let given = depends::by_package(self.plan.wish.values().map(|c| &c.known));
        let bytes_max = self.asker.vm.depends_bytes_max;
        let rules = Rules { pull: mode == OnDepends::Pull, bytes_max };
        let resolved = depends::resolve(&given, rules, &self.market());
        self.plan.looked_at += resolved.looked_at;
        for (package, (known, for_whom)) in resolved.pulled {
            let rule = self.asker.decide(&known).rule;
            let choice = Choice { known, rule, pulled_for: Some(for_whom) };
            self.plan.wish.insert(package, choice);
        }
        for (package, e) in resolved.failed {
            self.withhold_once(&package, Outcome::Depends(e));
        }
    }
}

impl Catalog {
    /// What a VM should show, with the reasons of what its whole refused.
    #[must_use]
    pub fn plan(&self, vm: &VmFile, shown: &Shown, scene: Scene<'_>) -> Plan {
        let asker = Asker::new(self, vm, shown, scene);
        let (providers, plan) = (OnceCell::new(), Plan::default());
        let mut planning = Planning { catalog: self, asker, providers, plan, changed: true };
        planning.choose();
        let mut rounds = 0;
        while planning.changed {
            planning.changed = false;
            planning.needs();
            planning.bundles();
            rounds += 1;
            if rounds == ROUNDS_MAX {
                let is_shown =
                    |p: &PackageName, c: &mut Choice| shown.releases.get(p) == Some(&c.known.hash);
                planning.plan.wish.retain(is_shown);
                break;
            }
        }
        planning.plan
    }

    /// What a VM should show.
    #[must_use]
    pub fn wish(&self, vm: &VmFile, shown: &Shown, scene: Scene<'_>) -> Wish {
        self.plan(vm, shown, scene).wish
    }

    /// May a VM go on showing a release?
    #[must_use]
    pub fn may_stay(
        &self,
        vm: &VmFile,
        shown: &Shown,
        scene: Scene<'_>,
        known: &KnownRelease,
    ) -> bool {
        let all = Asker::new(self, vm, shown, scene).consider(&known.release.package);
        all.iter().any(|c| c.known.hash == known.hash && c.outcome.may_stay())
    }

    /// By which package of the VM each line of a release's dependencies is met.
    #[must_use]
    pub fn needs_of(
        &self,
        vm: &VmFile,
        shown: &Shown,
        scene: Scene<'_>,
        (known, wish): (&KnownRelease, &Wish),
    ) -> Vec<(String, Option<PackageName>)> {
        let asker = Asker::new(self, vm, shown, scene);
        let (providers, withheld) = (OnceCell::new(), BTreeMap::new());
        let market =
            Market { catalog: self, asker: &asker, withheld: &withheld, providers: &providers };
        let given = depends::by_package(wish.values().map(|c| &c.known));
        depends::met_by(known, &given, &market)
    }
}
