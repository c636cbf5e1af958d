//! The hosts of the fleet as this one knows them, and what they may take part in: `stork host list`
//! and `stork host grant`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use stork_wire::charter::{BODY_VERSION, HostCert, HostScope};
use stork_wire::codec::{List, TooMany};
use stork_wire::grant::HostGrant;
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::item::Item;
use stork_wire::sign::Envelope;
use stork_wire::text::{GroupName, Label};
use tokio::sync::oneshot;

use super::{Answer, CallError, Driver};

/// Hosts that one answer lists; all are counted.
const LISTED_MAX: usize = 1_024;

/// What is to be changed of a host's rights.
#[derive(Debug, Clone)]
pub struct AskedGrant {
    /// Its name or id.
    pub host: String,
    /// Begin with nothing, or with all groups; `None`: with what it has.
    pub from: Option<Base>,
    /// Private groups that it may take part in.
    pub groups: Vec<GroupName>,
    /// Private groups that it may not.
    pub no_groups: Vec<GroupName>,
    /// Labels that it gets.
    pub labels: Vec<Label>,
    /// Labels that it loses.
    pub no_labels: Vec<Label>,
}

/// With what a change begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// With nothing: what is named is all.
    Nothing,
    /// With all private groups.
    All,
}

fn refused(why: &str, help: &str) -> CallError {
    CallError::Refused(why.into(), help.into())
}

impl Driver {
    /// Certificates of the hosts that are known here, also of those that are off, with what counts
    /// of them.
    fn known_certs(&self) -> Vec<HostCert> {
        let now = self.clock.unix();
        let others = self.overlay.records().filter(|p| p.node != self.me);
        let others = others.filter_map(|p| self.trust.check_cert(&p.hint.cert, now).ok());
        self.own_cert().into_iter().chain(others).collect()
    }

    fn group_names(&self, groups: &[GroupId]) -> Vec<String> {
        let charter = self.trust.charter();
        let name = |id: &GroupId| {
            let known = charter.group(*id).map(|g| g.doc().name.to_string());
            known.unwrap_or_else(|| id.short())
        };
        groups.iter().map(name).collect()
    }

    fn scope_json(&self, scope: Option<&HostScope>) -> (Option<Vec<String>>, Vec<String>) {
        let groups = scope.and_then(|s| s.groups.as_ref()).map(|g| self.group_names(g));
        let labels = scope.map(|s| s.labels.iter().map(ToString::to_string).collect());
        (groups, labels.unwrap_or_default())
    }

    /// `stork host list`.
    pub(super) fn hosts_json(&self) -> Value {
        let mut all = self.known_certs();
        all.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        let on: BTreeSet<NodeId> = self.overlay.hosts().map(|p| p.node).collect();
        let one = |c: &HostCert| {
            let on = c.node == self.me || on.contains(&c.node);
            let (groups, labels) = self.scope_json(c.scope.as_deref());
            json!({
                "name": c.name, "id": c.node, "site": c.site, "groups": groups, "labels": labels,
                "granted": self.trust.charter().was_granted(c.node), "here": c.node == self.me,
                "online": on, "expires": c.expires,
            })
        };
        let hosts: Vec<Value> = all.iter().take(LISTED_MAX).map(one).collect();
        json!({ "schema": "stork.hosts/v1", "hosts": hosts, "hosts_in_all": all.len() })
    }

    /// What admission keys have said of hosts, for `stork trust`.
    pub(super) fn host_grants_json(&self, max: usize) -> (Vec<Value>, usize) {
        let names = self.host_names();
        let all = self.trust.charter().host_grants();
        let one = |g: &crate::trust::HeldGrant| {
            let (groups, labels) = self.scope_json(Some(&g.scope));
            let by = self.trust.admits_by(&g.signer);
            json!({
                "id": g.node, "name": names.get(&g.node), "groups": groups, "labels": labels,
                "signed_at": g.signed_at, "signer": g.signer, "signer_admits": by,
            })
        };
        (all.take(max).map(one).collect(), self.trust.charter().host_grants().count())
    }

    /// A host by its name or id, and what it may take part in as far as that is known.
    fn find_host(&self, host: &str) -> Result<(NodeId, Option<HostCert>), CallError> {
        let known = self.known_certs();
        let id = host.parse::<NodeId>().ok();
        let meant = |c: &&HostCert| Some(c.node) == id || c.name.as_str() == host;
        let mut found = known.iter().filter(meant);
        match (found.next(), found.next(), id) {
            (Some(one), None, _) => Ok((one.node, Some(one.clone()))),
            (Some(_), Some(_), _) => {
                let help = "name it by its id: `stork host list`";
                Err(refused(&format!("more than one host is named `{host}`"), help))
            }
            (None, _, Some(id)) => Ok((id, None)),
            (None, _, None) => {
                let help = "`stork host list` names those that are; of others give the whole id";
                Err(refused(&format!("no host `{host}` is known here"), help))
            }
        }
    }

    /// What a host may take part in once this was done.
    fn changed_scope(
        &self,
        asked: &AskedGrant,
        cert: Option<&HostCert>,
    ) -> Result<HostScope, CallError> {
        let charter = self.trust.charter();
        let id = |name: &GroupName| {
            let known = charter.group_named(name.as_str()).map(|g| g.id());
            let help = "`stork trust` lists the groups of this fleet";
            known.ok_or_else(|| refused(&format!("no group is named `{name}`"), help))
        };
        let ids = |names: &[GroupName]| names.iter().map(id).collect::<Result<Vec<_>, _>>();
        let (more, less) = (ids(&asked.groups)?, ids(&asked.no_groups)?);
        let old = cert.and_then(|c| c.scope.as_deref());
        let mut groups = match (asked.from, cert) {
            (Some(Base::Nothing), _) => Some(BTreeSet::new()),
            (Some(Base::All), _) => None,
            (None, Some(_)) => {
                old.and_then(|s| s.groups.as_ref()).map(|g| g.iter().copied().collect())
            }
            (None, None) => {
                let help = "say all that it may: --only with each --group, or --all-groups";
                return Err(refused("what this host has is not known here", help));
            }
        };
        if groups.is_none() && !less.is_empty() {
            let private = charter.groups().filter(|g| g.doc().private.is_some());
            groups = Some(private.map(|g| g.id()).collect());
        }
        if let Some(groups) = &mut groups {
            groups.extend(more);
            groups.retain(|g| !less.contains(g));
        }
        let had = if asked.from == Some(Base::Nothing) { None } else { old };
        let mut labels: BTreeSet<Label> =
            had.map(|s| s.labels.iter().cloned().collect()).unwrap_or_default();
        labels.extend(asked.labels.iter().cloned());
        labels.retain(|l| !asked.no_labels.contains(l));
        let many = |e: TooMany| refused(&e.to_string(), "name fewer groups and labels");
        let groups =
            groups.map(|g| List::new(g.into_iter().collect()).map_err(many)).transpose()?;
        Ok(HostScope { labels: List::new(labels.into_iter().collect()).map_err(many)?, groups })
    }

    /// The next word on a host, by this node's admission key.
    fn sign_grant(&self, node: NodeId, scope: HostScope) -> Result<Item, CallError> {
        let key = self.admission.as_ref().filter(|_| self.admits()).ok_or_else(|| {
            let help = "ask on a host that admits others: the one that was set up with \
                        `stork-node init`, or one with `stork-node admission add`";
            refused("this host does not admit others", help)
        })?;
        let signed_at = self.trust.charter().granted_from(node, self.clock.unix());
        let grant =
            HostGrant { version: BODY_VERSION, node, signer: key.public(), scope, signed_at };
        let envelope = Envelope::sign(&grant, self.trust.fleet(), key);
        let envelope = envelope.map_err(|e| refused(&e.to_string(), "give the host's whole id"))?;
        Ok(grant.item(envelope))
    }

    /// `stork host grant`: answered once it is on disk.
    pub(super) fn grant_host(&mut self, asked: &AskedGrant, answer: Answer) {
        let made = self.find_host(&asked.host).and_then(|(node, cert)| {
            let scope = self.changed_scope(asked, cert.as_ref())?;
            Ok((node, cert, scope.clone(), self.sign_grant(node, scope)?))
        });
        let (node, cert, scope, item) = match made {
            Ok(made) => made,
            Err(e) => return drop(answer.send(Err(e))),
        };
        let (groups, labels) = self.scope_json(Some(&scope));
        let connected = node == self.me || self.connections.contains_key(&node);
        let said = json!({
            "schema": "stork.host-grant/v1", "id": node, "name": cert.map(|c| c.name),
            "groups": groups, "labels": labels, "connected": connected,
        });
        let (reply, outcome) = oneshot::channel();
        self.judge(item, None, Some(reply));
        tokio::spawn(async move {
            let said = match outcome.await {
                Ok(Ok(_)) => Ok(said),
                Ok(Err(e)) => Err(refused(&format!("{e:?}"), "see `stork events` on this host")),
                Err(_) => Err(refused("the daemon is stopping", "try again once it has started")),
            };
            drop(answer.send(said));
        });
    }

    /// A host that had a word of its own joins again: what its new token says takes that one's
    /// place.
    pub(super) fn grant_again(&mut self, node: NodeId, scope: Option<&HostScope>) {
        if !self.trust.charter().was_granted(node) {
            return;
        }
        let all = || HostScope { labels: List::empty(), groups: None };
        if let Ok(item) = self.sign_grant(node, scope.cloned().unwrap_or_else(all)) {
            self.judge(item, None, None);
        }
    }

    /// A word on a host is on disk.
    pub(super) fn on_grant(&mut self, grant: &HostGrant) {
        let node = grant.node;
        self.checked.clear();
        if let Some(link) = self.connections.get_mut(&node) {
            let by_cert = link.cert.claimed::<HostCert>().ok().and_then(|c| c.scope);
            link.scope = self.trust.charter().scope_of(node, by_cert);
        }
        if node == self.me {
            self.record.current = None;
            self.refresh_record();
        }
        let (groups, labels) = self.scope_json(Some(&grant.scope));
        let groups = groups.map_or_else(|| "all".to_owned(), |g| g.join(", "));
        let name = self.host_names().get(&node).cloned().unwrap_or_else(|| node.short());
        self.counters.add("narrowed", "grant");
        let labels = labels.join(", ");
        self.event("host_granted", format!("{name}: private groups [{groups}], labels [{labels}]"));
        self.replan_soon();
    }
}
