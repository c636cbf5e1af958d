//! The answer to `stork tree` and `stork release --watch`: of one release, what is here, who feeds
//! this host, whom it feeds, and which VMs wait for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stork_wire::ids::{NodeId, ReleaseHash};
use stork_wire::text::PackageName;
use stork_wire::tick::Tick;

use super::answers::stage_text;
use super::content::Stage;
use super::vms::Vm;
use super::{CallError, Driver};
use crate::catalog::{KnownRelease, compare_versions};
use crate::transfer::{Behind, ORIGIN_STORE, PeerView, StripeView, SwarmView};

/// Characters of a hash that name a content: fewer would soon name two.
const HASH_CHARS_MIN: usize = 8;

/// How hosts are named in an answer.
struct Names {
    names: BTreeMap<NodeId, String>,
    sites: BTreeMap<NodeId, String>,
}

impl Names {
    fn name(&self, node: NodeId) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| node.short())
    }

    /// What stands at the head of every peer.
    fn peer(&self, p: &PeerView) -> Value {
        json!({
            "host": self.name(p.node), "node": p.node, "site": self.sites.get(&p.node),
            "neighbour": p.neighbour, "origin": p.origin, "has": p.have,
            "behind": p.behind.map(behind_word), "still_ms": p.still_ms,
        })
    }
}

const fn behind_word(behind: Behind) -> &'static str {
    match behind {
        Behind::Stands => "stands",
        Behind::Lags => "lags",
    }
}

/// `PACKAGE=VERSION`, or only a package.
fn split(what: &str) -> (&str, Option<&str>) {
    what.split_once('=').map_or((what, None), |(package, version)| (package, Some(version)))
}

/// The newest of each architecture.
fn newest<'a>(all: impl Iterator<Item = &'a KnownRelease>) -> Vec<&'a KnownRelease> {
    let mut best: BTreeMap<&str, &KnownRelease> = BTreeMap::new();
    for k in all {
        let arch = k.release.arch.as_str();
        let order = |old: &KnownRelease| {
            let (old, new) = (&old.release, &k.release);
            let by_version = compare_versions(&new.version, &old.version);
            by_version.then(new.release.cmp(&old.release))
        };
        if best.get(arch).is_none_or(|old| order(old).is_ge()) {
            best.insert(arch, k);
        }
    }
    best.into_values().collect()
}

impl Driver {
    /// Releases by what an operator typed: a package means its newest release for each
    /// architecture.
    fn find_releases(&self, what: &str) -> Vec<&KnownRelease> {
        let (package, version) = split(what);
        let of_package: &[KnownRelease] =
            package.parse::<PackageName>().map_or(&[], |p| self.catalog.of_package(&p));
        if let Some(version) = version {
            return of_package.iter().filter(|k| k.release.version.as_str() == version).collect();
        }
        if !of_package.is_empty() {
            return newest(of_package.iter());
        }
        let is_hash = what.len() >= HASH_CHARS_MIN && what.chars().all(|c| c.is_ascii_hexdigit());
        let begins = |hash: String| is_hash && hash.starts_with(&what.to_ascii_lowercase());
        let named = |k: &&KnownRelease| {
            begins(k.release.manifest.id.to_string()) || begins(k.release.tree.to_string())
        };
        self.catalog.all().filter(named).collect()
    }

    /// The whole answer.
    pub(super) fn tree_json(&self, what: &str) -> Result<Value, CallError> {
        let found = self.find_releases(what);
        if found.is_empty() {
            return Err(CallError::NoRelease(what.to_owned()));
        }
        let releases: Vec<Value> = found.into_iter().map(|k| self.tree_of_release(k)).collect();
        Ok(json!({
            "schema": "stork.tree/v1", "node": self.me, "name": self.name, "site": self.site,
            "releases": releases,
        }))
    }

    /// Names and sites of the hosts that these views name. In a fleet of thousands that is a few,
    /// and each costs the check of a certificate.
    fn names_in(&self, views: &[SwarmView]) -> Names {
        let peers = views.iter().flat_map(|v| v.peers.iter().map(|p| p.node));
        let stripes = views.iter().flat_map(|v| &v.stripes);
        let stripes = stripes.flat_map(|s| s.gateway.into_iter().chain(s.parent));
        let named: BTreeSet<NodeId> = peers.chain(stripes).collect();
        let hosts = self.overlay.hosts().filter(|p| named.contains(&p.node));
        let sites = hosts.map(|p| (p.node, p.site.to_string())).collect();
        Names { names: self.host_names_of(|node| named.contains(node)), sites }
    }

    /// The VMs that want a release, and those that rolled it back.
    fn vms_for(&self, k: &KnownRelease) -> Vec<Value> {
        let wants = |vm: &Vm| vm.wish.values().any(|c| c.known.hash == k.hash);
        let here = self.vms.iter().filter(|(_, vm)| wants(vm) || vm.skipped.contains(&k.hash));
        here.map(|(name, vm)| {
            let shows = vm.shown(&self.catalog).releases.values().any(|h| *h == k.hash);
            let tried =
                |t: &&(String, Vec<ReleaseHash>, Tick)| t.1.is_empty() || t.1.contains(&k.hash);
            let failed = vm.failed.as_ref().filter(tried).map(|(why, ..)| why.as_str());
            let error = if wants(vm) { failed } else { Some("it was rolled back on this VM") };
            json!({ "name": name, "shows": shows, "error": error })
        })
        .collect()
    }

    fn tree_of_release(&self, k: &KnownRelease) -> Value {
        let r = &k.release;
        let content = self.contents.get(&r.manifest.id);
        let failed = content.and_then(|c| match &c.stage {
            Stage::Failed(why, _) => Some(why),
            _ => None,
        });
        let now = self.clock.tick();
        let views: Vec<SwarmView> = self.planner.views_of(r.manifest.id, now).collect();
        let names = self.names_in(&views);
        let origin = content.is_some_and(|c| c.origin);
        let publisher = self.trust.charter().publisher_name(k.publisher);
        let before = if origin { "publisher" } else { "before" };
        let contents: Vec<Value> = views
            .iter()
            .map(|v| {
                let variant = self.swarms.get(&v.swarm).map(|s| s.variant);
                with(swarm_json(v, before, &names), json!({ "variant": variant }))
            })
            .collect();
        json!({
            "package": r.package, "version": r.version, "arch": r.arch, "release": r.release,
            "publisher": publisher, "manifest": r.manifest.id, "tree": r.tree,
            "state": content.map_or_else(|| "known".to_owned(), |c| stage_text(&c.stage)),
            "failed": failed, "wanted": content.is_some_and(|c| c.wanted), "origin": origin,
            "full_bytes": r.full_bytes, "delta_bytes": r.delta.map(|d| d.bytes),
            "fetched_bytes": content.map_or(0, |c| c.fetched_bytes),
            "took_ms": content.and_then(|c| c.took_ms),
            "vms": self.vms_for(k), "contents": contents,
        })
    }
}

/// An object with the members of another one as well.
fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}

/// One swarm. `before`: what the bytes are called that were here when it began.
fn swarm_json(v: &SwarmView, before: &str, names: &Names) -> Value {
    let idle = v.peers.iter().filter(|p| p.neighbour && !p.feeds_us() && !p.is_fed());
    let stragglers = v.peers.iter().filter(|p| p.behind.is_some());
    json!({
        "role": format!("{:?}", v.role).to_lowercase(),
        "pieces": v.total, "have": v.have, "on_their_way": v.inflight,
        "bytes": v.total_bytes, "have_bytes": v.have_bytes,
        "rate": v.got.rate, "rate_up": v.gave.rate,
        "eta_ms": v.eta_ms, "hungry_ms": v.hungry_ms,
        "received": v.got.bytes, "twice": v.got.twice, "sent": v.gave.bytes,
        "neighbours": v.neighbours,
        "fed_by": fed_by(v, before, names),
        "feeds": feeds(v, names),
        "idle": idle.map(|p| names.peer(p)).collect::<Vec<_>>(),
        "stragglers": stragglers.map(|p| names.peer(p)).collect::<Vec<_>>(),
        "stripes": v.stripes.iter().map(|s| stripe_json(s, names)).collect::<Vec<_>>(),
    })
}

/// Where the bytes that are here came from: their sum is `have_bytes`.
fn fed_by(v: &SwarmView, before: &str, names: &Names) -> Vec<Value> {
    let mut all = Vec::new();
    let mut sum = 0;
    for p in v.peers.iter().filter(|p| p.feeds_us()) {
        let kind = if p.node == ORIGIN_STORE { "origin_store" } else { "host" };
        let bytes = p.got.bytes.saturating_sub(p.got.twice);
        sum += bytes;
        let flow = json!({
            "kind": kind, "bytes": bytes, "twice": p.got.twice, "along_stripes": p.got.striped,
            "rate": p.got.rate, "asked": p.asked, "stripes": p.stripes_in,
        });
        all.push(with(names.peer(p), flow));
    }
    let received = v.got.bytes.saturating_sub(v.got.twice);
    let rest =
        [("others", received.saturating_sub(sum)), (before, v.have_bytes.saturating_sub(received))];
    let rest = rest.into_iter().filter(|(_, bytes)| *bytes > 0);
    all.extend(rest.map(|(kind, bytes)| json!({ "kind": kind, "bytes": bytes })));
    all
}

/// Whom this host feeds, with what it sent: the sum is `sent`.
fn feeds(v: &SwarmView, names: &Names) -> Vec<Value> {
    let mut all = Vec::new();
    let mut sum = 0;
    for p in v.peers.iter().filter(|p| p.is_fed()) {
        sum += p.gave.bytes;
        let flow = json!({
            "kind": "host", "bytes": p.gave.bytes, "along_stripes": p.gave.striped,
            "rate": p.gave.rate, "sending": p.sending, "stripes": p.stripes_out,
        });
        all.push(with(names.peer(p), flow));
    }
    let rest = v.gave.bytes.saturating_sub(sum);
    all.extend((rest > 0).then(|| json!({ "kind": "others", "bytes": rest })));
    all
}

fn stripe_json(s: &StripeView, names: &Names) -> Value {
    json!({
        "stripe": s.stripe, "pieces": s.pieces, "have": s.have,
        "gateway": s.gateway.map(|n| names.name(n)), "from": s.parent.map(|n| names.name(n)),
        "expected": s.expected, "idle_ms": s.idle_ms,
    })
}
