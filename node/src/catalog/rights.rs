//! What a VM's rule and the newest documents let a release be: grants and delegations in force,
//! publishers that must agree, feeds that must be fresh, files that need a grant.

use std::collections::BTreeSet;

use stork_wire::ids::PublisherId;
use stork_wire::text::PackageName;

use super::resolve::Asker;
use super::{KnownRelease, Narrow, Outcome};
use crate::trust::{Attested, Candidate, Freshness, GroupState, OnStale, Rule, Search, Subject};

impl Asker<'_, '_> {
    /// Whom the publishers of a rule let release a package in their place.
    pub(super) fn delegates(&self, rule: &Rule, package: &PackageName) -> Vec<Search> {
        let charter = self.scene.trust.charter();
        let grants = self.groups.iter().flat_map(|g| g.doc().publishers.iter());
        let mut of: Vec<PublisherId> = match &rule.subject {
            Subject::Any => grants.map(|g| g.publisher).collect(),
            Subject::Name(n) => {
                grants.filter(|g| g.name.as_str() == n).map(|g| g.publisher).collect()
            }
            Subject::Id(id) => vec![*id],
            Subject::Tree(_) => Vec::new(),
        };
        of.sort_unstable();
        of.dedup();
        of.into_iter().map(|id| charter.delegates(id, package)).collect()
    }

    /// Does the group let its publisher release it now, in its own place or in that of one who
    /// delegated it?
    pub(super) fn allows(&self, group: &GroupState, known: &KnownRelease) -> bool {
        let r = &known.release;
        group.allows(known.publisher, r) || {
            let charter = self.scene.trust.charter();
            let mut for_whom = charter.delegators(known.publisher, &r.package);
            for_whom.any(|d| group.allows(d.publisher, r))
        }
    }

    /// What the rule that allows a release asks for beside.
    pub(super) fn by_rule(&self, known: &KnownRelease, rule: Option<&Rule>) -> Option<Outcome> {
        let rule = rule?;
        if let Some(asked) = &rule.publishers {
            let have = self.attesters(known, asked).len();
            if have < asked.need {
                return Some(Outcome::NotAttested { have, need: asked.need });
            }
        }
        let policy = rule.freshness.unwrap_or(self.vm.freshness);
        if policy != OnStale::Serve {
            let most = self.beacon_rule(known).and_then(|g| g.doc().beacon_s);
            let state = self.scene.trust.freshness_within(known.publisher, most, self.scene.now);
            let bad = matches!(state, Freshness::Stale { .. } | Freshness::Expired { .. });
            let hide = policy == OnStale::Hide;
            if bad && (hide || !self.is_shown(known)) {
                return Some(Outcome::NotFresh { hide });
            }
        }
        let package = known.release.package.as_str();
        let privilege = self.scene.privileges.get(&known.release.manifest.id)?;
        let granted = self.vm.privileged.iter().any(|p| p.matches(package));
        (!granted).then(|| Outcome::Privileged(privilege.clone()))
    }

    /// Of the VM's groups that a release is for, the one that lets beacons speak the shortest.
    pub(super) fn beacon_rule(&self, known: &KnownRelease) -> Option<&GroupState> {
        let of = self.groups.iter().filter(|g| known.release.groups.contains(&g.id()));
        let asking = of.filter(|g| g.doc().beacon_s.is_some());
        asking.min_by_key(|g| g.doc().beacon_s).copied()
    }

    /// The publishers of those asked that announce the same content as the same version: each once.
    fn attesters(&self, known: &KnownRelease, asked: &Attested) -> BTreeSet<PublisherId> {
        let r = &known.release;
        let same = |k: &&KnownRelease| {
            let other = &k.release;
            other.tree == r.tree && other.version == r.version && other.arch == r.arch
        };
        // Whoever forked or lost the group's trust vouches for nothing; what ran out vouches only
        // for what is shown already.
        let stands = |k: &&KnownRelease| {
            let granted =
                self.groups.iter().any(|g| k.release.groups.contains(&g.id()) && self.allows(g, k));
            k.frozen.is_none()
                && match Narrow::of(self.vm, k, self.scene.trust.charter()) {
                    None => true,
                    Some(Narrow::Unsettled(_)) => self.is_shown(known),
                    Some(_) => false,
                }
                && granted
                && k.release.release >= self.catalog.floor(k)
                && (k.expires > self.scene.now || self.is_shown(known))
        };
        let all = self.catalog.of_package(&r.package).iter().filter(same).filter(stands);
        let named = all.filter(|k| {
            let (name, tree) = (self.name_of(k), k.release.tree);
            let c = Candidate { publisher: k.publisher, name, package: &k.release.package, tree };
            asked.of.iter().any(|s| s.matches(&c))
        });
        named.map(|k| k.publisher).collect()
    }
}
