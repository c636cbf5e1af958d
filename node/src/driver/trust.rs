//! The answers to `stork trust`: the charter in force, and who may put what into a VM.

use serde_json::{Value, json};
use stork_wire::charter::{GroupDoc, PublisherGrant, Role};
use stork_wire::ids::{PublicKey, PublisherId, TreeId};
use stork_wire::text::{Label, PackageName};

use super::vms::Vm;
use super::{CallError, Driver};
use crate::trust::{Candidate, GroupState, PublisherState, Rule, Search, decide};

/// Groups and publishers that one answer lists; all are counted.
const LISTED_MAX: usize = 64;

fn keys_json<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> Vec<Value> {
    keys.map(|k| json!({ "public_key": k })).collect()
}

fn role_json(role: &Role) -> Value {
    json!({ "threshold": role.threshold, "keys": keys_json(role.keys.iter()) })
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn rule_json(i: usize, r: &Rule) -> Value {
    json!({
        "number": i + 1, "line": r.line, "effect": format!("{:?}", r.effect).to_lowercase(),
        "subject": r.subject.to_string(), "packages": texts(&r.packages),
        "provides": r.provides.as_ref().map(|p| texts(p)),
        "publishers": r.publishers.as_ref().map(|p| json!({ "need": p.need, "of": texts(&p.of) })),
        "freshness": r.freshness.map(|f| f.to_string()), "delegations": r.delegations,
    })
}

impl Driver {
    /// `about` nothing: the charter; a VM of this host; or else a package.
    pub(super) fn trust_json(
        &self,
        about: Option<&str>,
        package: bool,
    ) -> Result<Value, CallError> {
        let Some(about) = about else { return Ok(self.charter_json()) };
        let vm = about.parse::<Label>().ok().and_then(|name| self.vms.get_key_value(&name));
        match vm.filter(|_| !package) {
            Some((name, vm)) => Ok(self.vm_trust_json(name, vm)),
            None => about
                .parse()
                .map(|package| self.package_json(&package))
                .map_err(|e| CallError::NotFound(format!("there is no VM `{about}`, and {e}"))),
        }
    }

    fn state(&self, expires: u64) -> &'static str {
        if expires <= self.clock.unix() { "expired" } else { "in force" }
    }

    fn charter_json(&self) -> Value {
        let charter = self.trust.charter();
        let root = charter.root().map(|r| {
            let authorities = r.authorities.iter();
            json!({
                "name": r.name, "number": r.number, "issued": r.issued, "expires": r.expires,
                "state": self.state(r.expires), "root": role_json(&r.root),
                "admission": role_json(&r.admission),
                "authorities": authorities
                    .map(|a| json!({ "names": a.names, "role": role_json(&a.role) }))
                    .collect::<Vec<_>>(),
            })
        });
        let groups = charter.groups().take(LISTED_MAX).map(|g| self.group_json(g));
        let publishers = charter.publishers().take(LISTED_MAX);
        let (grants, grants_in_all) = self.host_grants_json(LISTED_MAX);
        json!({
            "schema": "stork.trust/v1", "view": "charter", "fleet": self.trust.fleet(),
            "root": root, "groups": groups.collect::<Vec<_>>(),
            "groups_in_all": charter.groups().count(),
            "publishers": publishers.map(|(id, p)| self.publisher_json(*id, p))
                .collect::<Vec<_>>(),
            "publishers_in_all": charter.publishers().count(),
            "host_grants": grants, "host_grants_in_all": grants_in_all,
        })
    }

    fn group_json(&self, group: &GroupState) -> Value {
        let GroupDoc { name, number, issued, expires, authority, publishers, .. } = group.doc();
        let (veto, beacon_s) = (group.doc().veto.iter(), group.doc().beacon_s);
        let veto = veto.map(|v| json!({ "public_key": v.key, "not_after": v.not_after }));
        json!({
            "name": name, "id": group.id(), "number": number, "issued": issued,
            "expires": expires, "state": self.state(*expires),
            "authority": role_json(authority),
            "publishers": publishers.iter().map(grant_json).collect::<Vec<_>>(),
            "veto": veto.collect::<Vec<_>>(), "private": group.doc().private.is_some(),
            "beacon_s": beacon_s,
        })
    }

    fn publisher_json(&self, id: PublisherId, publisher: &PublisherState) -> Value {
        let (doc, charter) = (publisher.doc(), self.trust.charter());
        let keys = doc.release_keys.iter().map(|k| {
            json!({
                "public_key": k.key, "packages": texts(&k.packages), "not_after": k.not_after,
                "valid_through": k.valid_through.map(|at| at.to_string()),
            })
        });
        let delegations = doc.delegations.iter().map(|d| {
            json!({
                "to": d.to, "name": charter.publisher_name(d.to), "packages": texts(&d.packages),
                "terminating": d.terminating, "depth": d.depth,
            })
        });
        json!({
            "name": charter.publisher_name(id), "id": id, "number": doc.number,
            "epoch": doc.epoch, "issued": doc.issued, "expires": doc.expires,
            "state": self.state(doc.expires), "freshness": self.freshness_word(id),
            "root": role_json(&doc.root), "release_keys": keys.collect::<Vec<_>>(),
            "beacon_keys": keys_json(doc.beacon_keys.iter()),
            "homes": doc.homes, "delegations": delegations.collect::<Vec<_>>(),
        })
    }

    pub(super) fn groups_of<'a>(&'a self, vm: &'a Vm) -> impl Iterator<Item = &'a GroupState> {
        let charter = self.trust.charter();
        vm.file.groups.iter().filter_map(|g| charter.group_named(g.as_str()))
    }

    fn vm_trust_json(&self, name: &Label, vm: &Vm) -> Value {
        let file = &vm.file;
        let grants =
            self.groups_of(vm).flat_map(|g| g.doc().publishers.iter().map(move |grant| (g, grant)));
        let may = grants.map(|(g, grant)| {
            let rules = file.rules.iter().enumerate().filter(|(_, r)| names(r, grant));
            let rules: Vec<Value> = rules.map(|(i, r)| rule_json(i, r)).collect();
            json!({
                "group": g.doc().name, "group_number": g.doc().number,
                "publisher": grant.name, "publisher_id": grant.publisher,
                "packages": texts(&grant.packages), "provides": texts(&grant.provides),
                "freshness": self.freshness_word_in(g, grant.publisher), "rules": rules,
            })
        });
        let unknown = file.groups.iter();
        let charter = self.trust.charter();
        let unknown = unknown.filter(|g| charter.group_named(g.as_str()).is_none());
        json!({
            "schema": "stork.trust/v1", "view": "vm", "vm": name, "file": file.path,
            "groups": file.groups, "unknown_groups": unknown.collect::<Vec<_>>(),
            "rules": file.rules.iter().enumerate().map(|(i, r)| rule_json(i, r))
                .collect::<Vec<_>>(),
            "freshness": file.freshness.to_string(),
            "depends": format!("{:?}", file.depends).to_lowercase(),
            "privileged": texts(&file.privileged), "may": may.collect::<Vec<_>>(),
        })
    }

    fn package_json(&self, package: &PackageName) -> Value {
        let charter = self.trust.charter();
        let mut granted = Vec::new();
        for group in charter.groups() {
            let grants = group.doc().publishers.iter();
            let naming = grants.filter(|g| g.packages.iter().any(|p| p.matches(package.as_str())));
            for grant in naming.take(LISTED_MAX - granted.len().min(LISTED_MAX)) {
                granted.push(self.granted_json(group, grant, package));
            }
        }
        let vms = self.vms.iter().filter_map(|(name, vm)| {
            let mut all = vm.file.subscriptions.iter();
            let subscription = all.find(|s| s.package.matches(package.as_str()))?;
            Some(json!({
                "vm": name, "file": vm.file.path, "subscribed_in_line": subscription.line,
                "decisions": self.decisions(vm, package),
            }))
        });
        json!({
            "schema": "stork.trust/v1", "view": "package", "package": package,
            "known": self.catalog.of_package(package).len(), "granted": granted,
            "vms": vms.take(LISTED_MAX).collect::<Vec<_>>(),
        })
    }

    /// Who may release a package to a group by one of its grants, with which keys.
    fn granted_json(
        &self,
        group: &GroupState,
        grant: &PublisherGrant,
        package: &PackageName,
    ) -> Value {
        let charter = self.trust.charter();
        let keys = |id: PublisherId| {
            let doc = charter.publisher(id).map(PublisherState::doc);
            let keys = doc.into_iter().flat_map(|d| d.release_keys.iter());
            let good = keys.filter(|k| {
                k.not_after > self.clock.unix()
                    && k.valid_through.is_none()
                    && k.packages.iter().any(|p| p.matches(package.as_str()))
            });
            good.map(|k| json!({ "public_key": k.key, "not_after": k.not_after }))
                .collect::<Vec<_>>()
        };
        let search = charter.delegates(grant.publisher, package);
        let delegates = search.delegates.iter().map(|d| {
            let name = charter.publisher_name(d.publisher);
            json!({ "publisher": name, "publisher_id": d.publisher, "keys": keys(d.publisher) })
        });
        json!({
            "group": group.doc().name, "group_number": group.doc().number,
            "publisher": grant.name, "publisher_id": grant.publisher,
            "publisher_number": charter.publisher(grant.publisher).map(|p| p.doc().number),
            "keys": keys(grant.publisher), "delegates": delegates.collect::<Vec<_>>(),
            "search_ended": search.ended.map(|e| e.to_string()),
        })
    }

    /// What a VM's rules say of each publisher that its groups let release a package.
    fn decisions(&self, vm: &Vm, package: &PackageName) -> Vec<Value> {
        let tree = TreeId([0; 32]);
        let grants = self.groups_of(vm).flat_map(|g| g.doc().publishers.iter());
        let naming = grants.filter(|g| g.packages.iter().any(|p| p.matches(package.as_str())));
        let one = |grant: &PublisherGrant| {
            let (publisher, name) = (grant.publisher, Some(grant.name.as_str()));
            let candidate = Candidate { publisher, name, package, tree };
            let decision = decide(&vm.file.rules, &candidate, |_| Vec::<Search>::new());
            let rule = decision.rule.and_then(|i| vm.file.rules.get(i).map(|r| rule_json(i, r)));
            json!({
                "publisher": grant.name, "publisher_id": publisher, "rule": rule,
                "effect": format!("{:?}", decision.effect).to_lowercase(),
            })
        };
        naming.map(one).collect()
    }
}

fn grant_json(g: &PublisherGrant) -> Value {
    json!({
        "publisher": g.name, "publisher_id": g.publisher, "packages": texts(&g.packages),
        "provides": texts(&g.provides), "release_bytes_max": g.release_bytes_max,
    })
}

/// Is a rule about the publisher of a grant, whatever the package?
fn names(rule: &Rule, grant: &PublisherGrant) -> bool {
    let Ok(package) = "x".parse::<PackageName>() else { return false };
    let (publisher, name) = (grant.publisher, Some(grant.name.as_str()));
    rule.subject.matches(&Candidate { publisher, name, package: &package, tree: TreeId([0; 32]) })
}
